//! The annotations of a pod that are ours: which keys exist, and what the record of an injection says.
//!
//! An unknown key of our group is refused, because a person wrote it and expects it to have an effect.

use serde::{Deserialize, Serialize};

use super::names::{INJECTED, KEYS};
use super::refusal::Refusal;
use super::view::PodView;
use crate::crd::GROUP;

/// What an injection did, as JSON in the annotation [`INJECTED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct InjectionRecord {
    /// Image of the sidecar.
    pub image: String,
    /// Name of the route.
    pub route: String,
    /// `metadata.generation` of the route at that time.
    pub generation: i64,
    /// Fingerprint of everything that was added; another one for the same route means that a new pod would differ.
    pub hash: String,
    /// What the pod's grace period was raised to, so that it is not raised again. Absent when it was left alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub termination_grace_period_seconds: Option<i64>,
}

impl InjectionRecord {
    /// The value of the annotation.
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("strings and numbers serialise")
    }

    /// Reads the value of the annotation. `None` when it is not a record.
    pub fn parse(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }
}

/// Refuses the first key of ours that does not exist.
///
/// # Errors
/// [`Refusal::UnknownAnnotation`].
pub fn check(pod: &PodView<'_>) -> Result<(), Refusal> {
    let unknown = pod.annotation_keys().find(|key| is_ours(key) && *key != INJECTED && !KEYS.contains(key));
    unknown.map_or(Ok(()), |key| Err(Refusal::UnknownAnnotation { key: key.to_owned() }))
}

/// Whether the prefix of the key is our group or a subdomain of it.
pub fn is_ours(key: &str) -> bool {
    key.split_once('/').is_some_and(|(prefix, _)| {
        prefix.strip_suffix(GROUP).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_under_our_group_and_its_subdomains_are_ours() {
        for (key, ours) in [
            ("mailroute.dev/injected", true),
            ("mailroute.dev/rout", true),
            ("config.mailroute.dev/port", true),
            ("notmailroute.dev/port", false),
            ("mailroute.dev", false),
            ("mailroute.dev.example.com/port", false),
            ("prometheus.io/port", false),
        ] {
            assert_eq!(is_ours(key), ours, "{key}");
        }
    }

    #[test]
    fn a_record_is_read_back() {
        let record = InjectionRecord {
            image: "mailroute.dev/sidecar:0.1.0".into(),
            route: "notifications".into(),
            generation: 3,
            hash: "00ff".into(),
            termination_grace_period_seconds: Some(90),
        };
        assert_eq!(InjectionRecord::parse(&record.to_json()), Some(record));
        assert_eq!(InjectionRecord::parse("true"), None);
    }
}
