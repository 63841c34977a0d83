//! Writes the ConfigMap of a route: by server-side apply, only when it differs, and never over somebody else's.

use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client, ResourceExt};

use crate::api_error::ApiError;

/// Who owns the fields that the operator writes.
pub const FIELD_MANAGER: &str = "mailroute-operator";

/// Why the ConfigMap is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is one of that name that the route does not own.
    #[error(
        "the ConfigMap {0} exists and does not belong to this MailRoute; delete or rename it, or rename the MailRoute"
    )]
    Foreign(String),
    /// The API server refuses to give or take it.
    #[error("cannot write the ConfigMap {name}")]
    Api {
        /// Name of the ConfigMap.
        name: String,
        /// The API server's answer.
        source: ApiError,
    },
}

/// What to do about a ConfigMap.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    Keep,
    Create,
    /// Write over the one of this resourceVersion, which is ours.
    Update(Option<String>),
    Refuse,
}

/// Makes the cluster's ConfigMap like the wanted one.
///
/// # Errors
/// When it belongs to somebody else, or the API server refuses.
pub async fn apply(client: Client, wanted: &ConfigMap) -> Result<(), Error> {
    let name = wanted.name_any();
    let api = Api::<ConfigMap>::namespaced(client, &wanted.namespace().unwrap_or_default());
    let existing =
        api.get_opt(&name).await.map_err(|error| Error::Api { name: name.clone(), source: error.into() })?;
    let mut written = wanted.clone();
    let force = match step(existing.as_ref(), wanted) {
        Step::Keep => return Ok(()),
        Step::Refuse => return Err(Error::Foreign(name)),
        // Without force: if another writer is quicker, its fields conflict and nothing is taken over.
        Step::Create => false,
        Step::Update(version) => {
            written.metadata.resource_version = version;
            true
        }
    };
    let params = PatchParams { force, ..PatchParams::apply(FIELD_MANAGER) };
    match api.patch(&name, &params, &Patch::Apply(&written)).await {
        Ok(_) => Ok(()),
        Err(error) => Err(Error::Api { name, source: error.into() }),
    }
}

fn step(existing: Option<&ConfigMap>, wanted: &ConfigMap) -> Step {
    let Some(existing) = existing else { return Step::Create };
    let owner = wanted.owner_references().first().map(|owner| &owner.uid);
    if !existing.owner_references().iter().any(|reference| Some(&reference.uid) == owner) {
        return Step::Refuse;
    }
    let labelled = wanted.labels().iter().all(|(key, value)| existing.labels().get(key) == Some(value));
    let filled = wanted
        .data
        .iter()
        .flatten()
        .all(|(key, value)| existing.data.as_ref().and_then(|data| data.get(key)) == Some(value));
    if labelled && filled { Step::Keep } else { Step::Update(existing.resource_version()) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn config_map(owner: &str, text: &str, version: Option<&str>) -> ConfigMap {
        serde_json::from_value(json!({
            "metadata": {
                "name": "mailroute-notifications", "namespace": "shop", "resourceVersion": version,
                "labels": {"mailroute.dev/route": "notifications"},
                "ownerReferences": [
                    {"apiVersion": "mailroute.dev/v1alpha1", "kind": "MailRoute", "name": "n", "uid": owner},
                ],
            },
            "data": {"route.json": text},
        }))
        .unwrap()
    }

    #[test]
    fn a_missing_one_is_created() {
        assert_eq!(step(None, &config_map("me", "{}", None)), Step::Create);
    }

    #[test]
    fn one_that_is_right_is_not_written_again() {
        let wanted = config_map("me", "{}", None);
        assert_eq!(step(Some(&config_map("me", "{}", Some("7"))), &wanted), Step::Keep);
    }

    #[test]
    fn our_own_is_brought_up_to_date_from_the_version_that_was_seen() {
        let wanted = config_map("me", "{\"generation\": 4}", None);
        let step = step(Some(&config_map("me", "{}", Some("7"))), &wanted);
        assert_eq!(step, Step::Update(Some("7".into())));
    }

    #[test]
    fn a_label_that_was_removed_is_put_back() {
        let wanted = config_map("me", "{}", None);
        let mut existing = config_map("me", "{}", Some("7"));
        existing.metadata.labels = None;
        assert_eq!(step(Some(&existing), &wanted), Step::Update(Some("7".into())));
    }

    #[test]
    fn one_of_somebody_else_is_left_alone() {
        let wanted = config_map("me", "{}", None);
        assert_eq!(step(Some(&config_map("somebody", "{}", Some("7"))), &wanted), Step::Refuse);
        let mut orphan = config_map("me", "{}", Some("7"));
        orphan.metadata.owner_references = None;
        assert_eq!(step(Some(&orphan), &wanted), Step::Refuse);
    }
}
