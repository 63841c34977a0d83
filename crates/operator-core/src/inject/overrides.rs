//! How a pod may override its route for its own sidecar: a small set of typed annotations. Pure.
//!
//! Knows nothing else of the pod. Invariants: a pod with a value of the wrong type is refused, since nobody would notice that it has
//! no effect; no annotation reaches the credential, the upstream or the senders, which only the route sets.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use mailroute_route::paths::ADMIN_PORT;
use serde_json::{Value, json};

use super::names::{
    ALLOW_WITHOUT, CPU_LIMIT, CPU_REQUEST, IMAGE, LOG_LEVEL, MEMORY_LIMIT, MEMORY_REQUEST, PORT,
    SHARED_PROCESSES,
};
use super::platform::SidecarSettings;
use super::quality::RESOURCES;
use super::refusal::{Refusal, Wanted};
use crate::crd::units;

/// Levels that the sidecar knows.
const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Longest part of a value that a refusal repeats, bytes.
const QUOTED: usize = 64;

/// What a pod overrides: nothing, for nearly every pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Overrides {
    cpu_request: Option<String>,
    cpu_limit: Option<String>,
    memory_request: Option<String>,
    memory_limit: Option<String>,
    /// Least level that is logged.
    pub log_level: Option<&'static str>,
    /// Where the application connects.
    pub port: Option<u16>,
    /// Image of the sidecar.
    pub image: Option<String>,
    /// Whether the pod may share its processes among its containers.
    pub allows_shared_processes: bool,
}

impl Overrides {
    /// Reads a pod's annotations; those that are no overrides are passed over.
    ///
    /// # Errors
    /// [`Refusal::InvalidAnnotation`] for the first value that is not of its type, [`Refusal::ImageNotAllowed`].
    pub fn read<'a>(
        annotations: impl IntoIterator<Item = (&'a str, &'a str)>,
        platform: &SidecarSettings,
    ) -> Result<Self, Refusal> {
        let mut overrides = Self::default();
        // By key, so that of several mistakes always the same one is named.
        for (key, value) in annotations.into_iter().collect::<BTreeMap<_, _>>() {
            overrides.set(key, value, platform)?;
        }
        Ok(overrides)
    }

    fn set(&mut self, key: &str, value: &str, platform: &SidecarSettings) -> Result<(), Refusal> {
        let invalid =
            |wanted| Refusal::InvalidAnnotation { key: key.to_owned(), value: quoted(value), wanted };
        let cpu = || is_cpu(value).then(|| value.to_owned()).ok_or_else(|| invalid(Wanted::Cpu));
        let memory = || is_memory(value).then(|| value.to_owned()).ok_or_else(|| invalid(Wanted::Memory));
        match key {
            CPU_REQUEST => self.cpu_request = Some(cpu()?),
            CPU_LIMIT => self.cpu_limit = Some(cpu()?),
            MEMORY_REQUEST => self.memory_request = Some(memory()?),
            MEMORY_LIMIT => self.memory_limit = Some(memory()?),
            LOG_LEVEL => {
                let known = LEVELS.into_iter().find(|level| *level == value);
                self.log_level = Some(known.ok_or_else(|| invalid(Wanted::Level))?);
            }
            PORT => {
                let port = value.parse().ok().filter(|port| *port != 0 && *port != ADMIN_PORT);
                self.port = Some(port.ok_or_else(|| invalid(Wanted::Port))?);
            }
            IMAGE if !platform.allows_image_override => return Err(Refusal::ImageNotAllowed),
            IMAGE => {
                self.image =
                    Some(is_image(value).then(|| value.to_owned()).ok_or_else(|| invalid(Wanted::Image))?);
            }
            SHARED_PROCESSES => {
                self.allows_shared_processes = flag(value).ok_or_else(|| invalid(Wanted::Flag))?;
            }
            // For the admission policy, which goes by "true" alone.
            ALLOW_WITHOUT => drop(flag(value).ok_or_else(|| invalid(Wanted::Flag))?),
            _ => {}
        }
        Ok(())
    }

    /// Resources of a container with the pod's own amounts over them.
    pub(super) fn resources(&self, mut resources: Value) -> Value {
        for (kind, resource, amount) in [
            ("requests", "cpu", &self.cpu_request),
            ("limits", "cpu", &self.cpu_limit),
            ("requests", "memory", &self.memory_request),
            ("limits", "memory", &self.memory_limit),
        ] {
            let Some(amount) = amount else { continue };
            if !resources[kind].is_object() {
                resources[kind] = json!({});
            }
            resources[kind][resource] = amount.as_str().into();
        }
        resources
    }
}

impl Overrides {
    /// The container of a Guaranteed pod, which stays one: requests grow to the limits, but for those that the pod names. Without
    /// both limits the container is left as it is.
    pub(super) fn guaranteed(&self, mut container: Value) -> Value {
        let Some(limits) = container.pointer("/resources/limits").cloned() else { return container };
        if RESOURCES.iter().any(|resource| limits[*resource].is_null()) {
            return container;
        }
        for (resource, named) in [("cpu", &self.cpu_request), ("memory", &self.memory_request)] {
            if named.is_none() {
                container["resources"]["requests"][resource] = limits[resource].clone();
            }
        }
        container
    }
}

/// Whole thousandths of a core, more than none.
fn is_cpu(text: &str) -> bool {
    let (number, places) = match text.strip_suffix('m') {
        Some(number) => (number, 0),
        None => (text, 3),
    };
    let (units, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
    digits(units)
        && digits(fraction)
        && (1..=6).contains(&units.len())
        && fraction.len() <= places
        && !number.ends_with('.')
        && number.bytes().any(|byte| matches!(byte, b'1'..=b'9'))
}

fn is_memory(text: &str) -> bool {
    text.len() <= 32 && units::bytes(&Quantity(text.to_owned())).is_some_and(|bytes| bytes > 0)
}

/// Checked loosely, as the kubelet will check it: nothing that would end a line or a word.
fn is_image(text: &str) -> bool {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"./-_:@".contains(&byte);
    (1..=512).contains(&text.len())
        && text.bytes().all(is_plain)
        && text.starts_with(|c: char| c.is_alphanumeric())
}

fn flag(text: &str) -> Option<bool> {
    match text {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

fn quoted(value: &str) -> String {
    value[..value.floor_char_boundary(QUOTED)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::sidecar::Resources;
    use crate::inject::names::KEYS;

    fn read(key: &str, value: &str) -> Result<Overrides, Refusal> {
        Overrides::read(
            [(key, value)],
            &SidecarSettings { allows_image_override: true, ..SidecarSettings::default() },
        )
    }

    #[test]
    fn values_of_their_type_are_taken_and_others_are_refused() {
        let table: [(&str, &[&str], &[&str]); 5] = [
            (
                CPU_LIMIT,
                &["500m", "1", "0.5", "1.250", "2000m"],
                &["", "0", "0m", "1.", ".5", "1.2345", "0.5m", "-1", "1k", "1 ", "x"],
            ),
            (MEMORY_LIMIT, &["64Mi", "1.5Gi", "134217728"], &["", "0", "64mb", "500m", "-1Mi", "Mi", "1Ei"]),
            (LOG_LEVEL, &["error", "warn", "info", "debug", "trace"], &["", "INFO", "verbose"]),
            (PORT, &["25", "2525", "65535"], &["", "0", "9025", "65536", "smtp", "-25"]),
            (IMAGE, &["example.com/sidecar:1", "sidecar@sha256:00"], &["", "a b", "-x", "a\nb"]),
        ];
        for (key, good, bad) in table {
            for value in good {
                assert!(read(key, value).is_ok_and(|read| read != Overrides::default()), "{key}={value}");
            }
            for value in bad {
                let refusal = read(key, value).unwrap_err();
                assert_eq!(refusal.reason(), "InvalidAnnotation", "{key}={value:?}");
            }
        }
        for key in [SHARED_PROCESSES, ALLOW_WITHOUT] {
            assert!(read(key, "true").is_ok() && read(key, "false").is_ok() && read(key, "yes").is_err());
        }
    }

    #[test]
    fn every_key_is_looked_at() {
        for key in KEYS {
            assert!(read(key, "\u{1}").is_err(), "{key} takes anything");
        }
        assert_eq!(read("prometheus.io/port", "\u{1}"), Ok(Overrides::default()));
    }

    #[test]
    fn an_image_is_the_platforms_choice_unless_it_lets_pods_choose() {
        let closed = Overrides::read([(IMAGE, "example.com/sidecar:1")], &SidecarSettings::default());
        assert_eq!(closed, Err(Refusal::ImageNotAllowed));
    }

    #[test]
    fn only_the_amounts_that_are_named_change() {
        let route = json!(Resources::default());
        let changed = read(MEMORY_LIMIT, "256Mi").unwrap().resources(route.clone());
        assert_eq!(changed["limits"]["memory"], "256Mi");
        assert_eq!(
            (&changed["requests"], &changed["limits"]["cpu"]),
            (&route["requests"], &route["limits"]["cpu"])
        );
        assert_eq!(Overrides::default().resources(route.clone()), route);
        let of_none = read(MEMORY_LIMIT, "256Mi").unwrap().resources(json!({"claims": []}));
        assert_eq!(of_none, json!({"claims": [], "limits": {"memory": "256Mi"}}));
    }

    #[test]
    fn a_long_value_is_repeated_in_part() {
        let Err(Refusal::InvalidAnnotation { value, .. }) = read(LOG_LEVEL, &"ä".repeat(1000)) else {
            panic!("was taken")
        };
        assert!(value.len() <= QUOTED);
    }
}
