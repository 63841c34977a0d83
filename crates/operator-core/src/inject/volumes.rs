//! The volumes of a sidecar and where it mounts them. Pure.
//!
//! The sidecar can read its files in every pod: the kubelet writes projected tokens with mode 0644, unless all
//! containers share one user, who then owns them (0600), or the pod has an fsGroup, which is then also a group of this
//! container. Secrets and ConfigMaps belong to root and have mode 0444 and 0644, so that user 65532 can read them without an
//! fsGroup. Only the sidecar mounts them, so nobody else can read them.
//!
//! What people create themselves is mounted as optional: if it is missing, a condition names it, and the pod does not hang.

use mailroute_route::paths;
use serde_json::{Value, json};

use super::names::{
    AUTHORITY_CA_VOLUME, CREDENTIAL_VOLUME, ENDPOINT_CA_VOLUME, FALLBACK_CA_VOLUME, ROUTE_VOLUME,
    SPOOL_VOLUME, TOKENS_VOLUME,
};
use super::view::{PodView, items};
use crate::crd::tenant::CaBundleRef;
use crate::crd::{config_map_name, units};
use crate::resolve::{MountedSecret, ResolvedRoute};

/// Life of a projected token, seconds; the kubelet renews it when a fifth is left. An hour is what Entra's guide uses.
const TOKEN_SECONDS: i64 = 3600;
/// Readable for everyone who mounts it, writable for nobody: 0444.
const READ_ONLY_MODE: u32 = 0o444;
/// Local disk of the container besides the spool: logs, which the kubelet rotates at 10 MiB, five of them at most.
const LOG_BYTES: u64 = 64 * 1024 * 1024;

/// What the container mounts.
pub(super) fn mounts(route: &ResolvedRoute) -> Vec<Value> {
    let read_only = |name: &str, path: &str| json!({"name": name, "mountPath": path, "readOnly": true});
    let mut mounts = vec![
        read_only(ROUTE_VOLUME, paths::ROUTE_DIR),
        read_only(TOKENS_VOLUME, paths::TOKENS_DIR),
        json!({"name": SPOOL_VOLUME, "mountPath": paths::SPOOL_DIR}),
    ];
    let optional = [
        (route.secret.is_some(), CREDENTIAL_VOLUME, paths::CREDENTIAL_DIR),
        (route.authority_ca.is_some(), AUTHORITY_CA_VOLUME, paths::AUTHORITY_CA_DIR),
        (route.endpoint_ca.is_some(), ENDPOINT_CA_VOLUME, paths::ENDPOINT_CA_DIR),
        (route.fallback_ca.is_some(), FALLBACK_CA_VOLUME, paths::FALLBACK_CA_DIR),
    ];
    let used = optional.into_iter().filter(|(is_used, ..)| *is_used);
    mounts.extend(used.map(|(_, volume, path)| read_only(volume, path)));
    mounts
}

/// What the pod gets for it.
pub(super) fn volumes(route: &ResolvedRoute) -> Vec<Value> {
    let mut volumes = vec![
        json!({"name": ROUTE_VOLUME, "configMap": {"name": config_map_name(&route.file.name)}}),
        json!({"name": TOKENS_VOLUME, "projected": {"sources": tokens(route)}}),
        spool(route),
    ];
    volumes.extend(route.secret.as_ref().map(credential));
    volumes.extend(route.authority_ca.as_ref().map(|ca| ca_volume(AUTHORITY_CA_VOLUME, ca)));
    volumes.extend(route.endpoint_ca.as_ref().map(|ca| ca_volume(ENDPOINT_CA_VOLUME, ca)));
    volumes.extend(route.fallback_ca.as_ref().map(|ca| ca_volume(FALLBACK_CA_VOLUME, ca)));
    volumes
}

/// One for the control service, and one for Entra when the pod asks it without a secret. With the operator's identity the
/// pod holds nothing that Entra would take.
fn tokens(route: &ResolvedRoute) -> Vec<Value> {
    let token = |audience: &str, path: &str| json!({"serviceAccountToken": {"audience": audience, "expirationSeconds": TOKEN_SECONDS, "path": path}});
    let entra = route.entra_token_audience.as_ref().map(|audience| token(audience, paths::ENTRA_TOKEN_FILE));
    entra.into_iter().chain([token(paths::CONTROL_AUDIENCE, paths::CONTROL_TOKEN_FILE)]).collect()
}

fn credential(secret: &MountedSecret) -> Value {
    let items: Vec<_> = secret.files.iter().map(|(key, path)| json!({"key": key, "path": path})).collect();
    json!({"name": CREDENTIAL_VOLUME, "secret": {
        "secretName": secret.name, "items": items, "optional": true, "defaultMode": READ_ONLY_MODE,
    }})
}

fn spool(route: &ResolvedRoute) -> Value {
    let spool = &route.sidecar.spool;
    match &spool.storage_class_name {
        None => json!({"name": SPOOL_VOLUME, "emptyDir": {"sizeLimit": spool.size_limit}}),
        Some(class) => json!({"name": SPOOL_VOLUME, "ephemeral": {"volumeClaimTemplate": {"spec": {
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": class,
            "resources": {"requests": {"storage": spool.size_limit}},
        }}}}),
    }
}

fn ca_volume(volume: &str, ca: &CaBundleRef) -> Value {
    let items = [json!({"key": ca.key, "path": paths::CA_FILE})];
    json!({"name": volume, "configMap": {"name": ca.name, "items": items, "optional": true}})
}

/// Whether the volume that is there has the content of the one that is wanted. The API server fills defaults in and may
/// write a quantity differently, so what is compared is where the content comes from.
pub(super) fn means_the_same(wanted: &Value, present: &Value) -> bool {
    let same = |pointer: &str| wanted.pointer(pointer) == present.pointer(pointer);
    if wanted.get("emptyDir").is_some() {
        return present.get("emptyDir").is_some();
    }
    if wanted.get("ephemeral").is_some() {
        return present.get("ephemeral").is_some()
            && same("/ephemeral/volumeClaimTemplate/spec/storageClassName");
    }
    if wanted.get("configMap").is_some() {
        return same("/configMap/name") && same("/configMap/items");
    }
    if wanted.get("secret").is_some() {
        return same("/secret/secretName") && same("/secret/items");
    }
    let (sources, present) =
        (items(wanted.pointer("/projected/sources")), items(present.pointer("/projected/sources")));
    sources.len() == present.len() && sources.iter().all(|source| present.contains(source))
}

/// The container with a limit on local disk that covers its spool, when another container of the pod has such a limit.
///
/// The kubelet adds the limits of all containers up and evicts a pod that uses more in all, emptyDirs included. A sidecar
/// without a limit would fill its spool at the expense of the application; with one in a pod that has none, it would bound
/// the application.
pub(super) fn with_local_storage(mut container: Value, pod: &PodView<'_>, route: &ResolvedRoute) -> Value {
    let limit = |container: &Value| {
        container.pointer("/resources/limits/ephemeral-storage").is_some_and(|l| !l.is_null())
    };
    let spool = &route.sidecar.spool;
    let bytes = units::bytes(&spool.size_limit).filter(|_| spool.storage_class_name.is_none());
    let is_bounded = pod.all_containers().any(limit);
    if let Some(bytes) = bytes.filter(|_| is_bounded && !limit(&container)) {
        container["resources"]["limits"]["ephemeral-storage"] =
            bytes.saturating_add(LOG_BYTES).to_string().into();
    }
    container
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MailRoute;
    use crate::crd::method::{CredentialType, Endpoint, FallbackEndpoint, GraphFallback};
    use crate::inject::view::name_of;
    use crate::samples;

    fn volume(route: &MailRoute, name: &str) -> Option<Value> {
        volumes(&samples::resolved(route)).into_iter().find(|volume| name_of(volume) == Some(name))
    }

    fn items_of(route: &MailRoute) -> Vec<(String, String)> {
        let text = |item: &Value, key: &str| item[key].as_str().unwrap().to_owned();
        let secret = volume(route, CREDENTIAL_VOLUME).unwrap();
        items(secret.pointer("/secret/items"))
            .iter()
            .map(|item| (text(item, "key"), text(item, "path")))
            .collect()
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, path)| ((*key).to_owned(), (*path).to_owned())).collect()
    }

    #[test]
    fn keys_of_the_secret_become_the_files_that_the_sidecar_reads() {
        use CredentialType::{ClientCertificate, ClientSecret, Password};
        let table = [
            (
                samples::with_secret(ClientSecret, Some("client-secret")),
                pairs(&[("client-secret", "secret")]),
            ),
            (samples::with_secret(Password, Some("password")), pairs(&[("password", "secret")])),
            (
                samples::with_secret(ClientCertificate, None),
                pairs(&[("tls.crt", "tls.crt"), ("tls.key", "tls.key")]),
            ),
            (samples::with_secret(ClientCertificate, Some("both.pem")), pairs(&[("both.pem", "tls.crt")])),
            (samples::relay(true), pairs(&[("tls.crt", "tls.crt"), ("tls.key", "tls.key")])),
        ];
        for (route, expected) in table {
            assert_eq!(items_of(&route), expected);
            let secret = volume(&route, CREDENTIAL_VOLUME).unwrap();
            assert_eq!(secret["secret"]["optional"], true, "a missing Secret must not hold the pod");
        }
    }

    #[test]
    fn a_route_without_a_secret_mounts_none() {
        for route in [samples::route(), samples::relay(false), samples::direct()] {
            assert_eq!(volume(&route, CREDENTIAL_VOLUME), None);
            assert!(
                !mounts(&samples::resolved(&route))
                    .iter()
                    .any(|mount| name_of(mount) == Some(CREDENTIAL_VOLUME))
            );
        }
    }

    #[test]
    fn a_token_for_entra_is_projected_for_workload_identity_alone() {
        let audiences = |route: &MailRoute| -> Vec<_> {
            let tokens = volume(route, TOKENS_VOLUME).unwrap();
            let sources = items(tokens.pointer("/projected/sources")).to_vec();
            sources
                .iter()
                .map(|s| s["serviceAccountToken"]["audience"].as_str().unwrap().to_owned())
                .collect()
        };
        assert_eq!(audiences(&samples::route()), [paths::ENTRA_AUDIENCE, paths::CONTROL_AUDIENCE]);
        let secret = samples::with_secret(CredentialType::ClientSecret, Some("k"));
        for route in [secret, samples::with_operator_identity(), samples::relay(true), samples::direct()] {
            assert_eq!(audiences(&route), [paths::CONTROL_AUDIENCE]);
        }
    }

    #[test]
    fn every_mount_has_its_volume_and_every_volume_its_mount() {
        let mut claimed = samples::relay(true);
        claimed.spec.sidecar.spool.storage_class_name = Some("fast".into());
        let mut graph = samples::graph();
        let ca = || Some(CaBundleRef { name: "smtp-ca".into(), key: "ca.pem".into() });
        graph.spec.endpoint = Some(Endpoint { ca_bundle_ref: ca(), ..Default::default() });
        graph.spec.graph.as_mut().unwrap().fallback = GraphFallback::ClientSubmission;
        let fallback_endpoint = FallbackEndpoint { ca_bundle_ref: ca(), ..Default::default() };
        graph.spec.graph.as_mut().unwrap().fallback_endpoint = Some(fallback_endpoint);
        assert_eq!(volume(&graph, FALLBACK_CA_VOLUME).unwrap()["configMap"]["name"], "smtp-ca");
        for route in [samples::route(), samples::relay(false), samples::direct(), claimed, graph] {
            let route = samples::resolved(&route);
            let named = |list: Vec<Value>| -> std::collections::BTreeSet<String> {
                list.iter().map(|item| name_of(item).unwrap().to_owned()).collect()
            };
            assert_eq!(named(mounts(&route)), named(volumes(&route)));
        }
    }

    #[test]
    fn a_spool_of_a_storage_class_is_claimed_for_the_pod() {
        let mut route = samples::route();
        assert_eq!(volume(&route, SPOOL_VOLUME).unwrap()["emptyDir"]["sizeLimit"], "1Gi");
        route.spec.sidecar.spool.storage_class_name = Some("fast".into());
        let spool = volume(&route, SPOOL_VOLUME).unwrap();
        let claim = &spool["ephemeral"]["volumeClaimTemplate"]["spec"];
        assert_eq!(claim["storageClassName"], "fast");
        assert_eq!(claim["resources"]["requests"]["storage"], "1Gi");
        assert_eq!(spool.get("emptyDir"), None);
    }

    #[test]
    fn the_spool_does_not_count_against_the_applications_local_disk() {
        let limited = |bytes: Value| {
            json!({"metadata": {}, "spec": {"containers": [
                {"name": "web", "resources": {"limits": {"ephemeral-storage": bytes}}},
            ]}})
        };
        let bare = json!({"resources": {"limits": {"memory": "128Mi"}}});
        let of = |pod: &Value, route: &MailRoute| {
            let container =
                with_local_storage(bare.clone(), &PodView::new(pod).unwrap(), &samples::resolved(route));
            container["resources"]["limits"]["ephemeral-storage"].clone()
        };
        assert_eq!(of(&limited(json!("100Mi")), &samples::route()), "1140850688", "1Gi and 64Mi");
        assert_eq!(of(&limited(Value::Null), &samples::route()), Value::Null, "nobody has a limit");
        let mut claimed = samples::route();
        claimed.spec.sidecar.spool.storage_class_name = Some("fast".into());
        assert_eq!(of(&limited(json!("100Mi")), &claimed), Value::Null, "not on the node's disk");
    }

    #[test]
    fn a_volume_of_another_content_is_not_ours() {
        let route = samples::relay(true);
        for wanted in volumes(&samples::resolved(&route)) {
            assert!(means_the_same(&wanted, &wanted));
            let foreign = json!({"name": name_of(&wanted), "csi": {"driver": "x"}});
            assert!(!means_the_same(&wanted, &foreign), "{wanted}");
        }
        let ours = volume(&route, CREDENTIAL_VOLUME).unwrap();
        let mut other = ours.clone();
        other["secret"]["secretName"] = json!("another");
        assert!(!means_the_same(&ours, &other));
        let mut defaulted = ours.clone();
        defaulted["secret"]["defaultMode"] = json!(420);
        assert!(means_the_same(&ours, &defaulted));
    }
}
