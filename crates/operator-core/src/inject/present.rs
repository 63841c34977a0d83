//! Whether a container that a pod brings along is the sidecar that the webhook would add, or the gateway that it has completed. Pure.
//!
//! The API server asks the webhook again after others have changed the pod, and people apply pods that they have read from a
//! cluster, so the sidecar may be there already. Other webhooks add environment and mounts to every container, tune
//! resources and probes, and pin images; what runs, as whom and with which files, is the platform's alone.

use mailroute_route::paths;
use serde_json::Value;

use super::names::ROUTE_VOLUME;
use super::view::{items, name_of};

/// The program and the directories that the sidecar reads and writes.
const OURS: [&str; 8] = [
    paths::PROGRAM,
    paths::ROUTE_DIR,
    paths::TOKENS_DIR,
    paths::CREDENTIAL_DIR,
    paths::AUTHORITY_CA_DIR,
    paths::ENDPOINT_CA_DIR,
    paths::FALLBACK_CA_DIR,
    paths::SPOOL_DIR,
];

/// Whether the container mounts the route, which no other container may.
pub(super) fn mounts_route(container: &Value) -> bool {
    items(container.get("volumeMounts")).iter().any(|mount| {
        name_of(mount) == Some(ROUTE_VOLUME)
            && mount.get("mountPath").and_then(Value::as_str) == Some(paths::ROUTE_DIR)
    })
}

/// The first field in which the container is not the sidecar that is wanted.
pub(super) fn difference(present: &Value, wanted: &Value) -> Option<&'static str> {
    let is_empty = |value: &Value| {
        value.is_null()
            || value.as_array().is_some_and(Vec::is_empty)
            || value.as_object().is_some_and(serde_json::Map::is_empty)
    };
    let has = |field: &str| present.get(field).is_some_and(|value| !is_empty(value));
    let checks = [
        ("image", !is_same_image(image(present), image(wanted))),
        ("command", has("command")),
        ("args", items(present.get("args")) != items(wanted.get("args"))),
        ("envFrom", has("envFrom")),
        ("lifecycle", has("lifecycle")),
        ("securityContext", !is_confined_alike(&present["securityContext"], &wanted["securityContext"])),
        ("volumeMounts", !has_mounts(present, wanted) || covers_ours(present, wanted)),
        ("volumeDevices", has("volumeDevices")),
        ("startupProbe", !is_probed_alike(present, wanted, "startupProbe")),
        ("readinessProbe", !is_probed_alike(present, wanted, "readinessProbe")),
        ("livenessProbe", !is_probed_alike(present, wanted, "livenessProbe")),
    ];
    checks.into_iter().find(|(_, differs)| *differs).map(|(field, _)| field)
}

fn image(container: &Value) -> &str {
    container.get("image").and_then(Value::as_str).unwrap_or_default()
}

/// Whether both are of the same repository, whatever the tag or digest, since webhooks pin tags and two versions of the operator may
/// run for a while; or have the same digest, wherever it is pulled from.
fn is_same_image(present: &str, wanted: &str) -> bool {
    let (present, wanted) = (parts(present), parts(wanted));
    present.0 == wanted.0 || present.1.is_some() && present.1 == wanted.1
}

/// Repository and digest of a reference. A colon before the last slash is a registry's port, and no tag.
fn parts(image: &str) -> (&str, Option<&str>) {
    let (name, digest) = image.split_once('@').map_or((image, None), |(name, digest)| (name, Some(digest)));
    match name.rsplit_once(':') {
        Some((repository, tag)) if !tag.contains('/') => (repository, digest),
        _ => (name, digest),
    }
}

/// Whether the security context has everything that is wanted, and nothing that gives more rights.
fn is_confined_alike(present: &Value, wanted: &Value) -> bool {
    let same = |(field, value): (&String, &Value)| present.get(field) == Some(value);
    wanted.as_object().into_iter().flatten().all(same)
        && present.get("privileged") != Some(&Value::Bool(true))
}

fn has_mounts(present: &Value, wanted: &Value) -> bool {
    let mounts = items(present.get("volumeMounts"));
    let is_there = |wanted: &Value| {
        mounts.iter().any(|mount| {
            ["name", "mountPath", "subPath", "subPathExpr"]
                .iter()
                .all(|field| mount.get(field) == wanted.get(field))
        })
    };
    items(wanted.get("volumeMounts")).iter().all(is_there)
}

/// Whether a further mount is at, above or below the program or a directory of ours, so that other files are read there.
fn covers_ours(present: &Value, wanted: &Value) -> bool {
    let wanted = items(wanted.get("volumeMounts"));
    let path = |mount: &Value| mount.get("mountPath").and_then(Value::as_str).map(str::to_owned);
    let is_ours = |mount: &Value| {
        wanted.iter().any(|ours| mount.get("name") == ours.get("name") && path(mount) == path(ours))
    };
    items(present.get("volumeMounts"))
        .iter()
        .filter(|mount| !is_ours(mount))
        .any(|mount| OURS.iter().any(|ours| overlap(&path(mount).unwrap_or_default(), ours)))
}

/// Whether one of the paths is the other or lies in it. A path that climbs is taken to lie anywhere.
fn overlap(one: &str, other: &str) -> bool {
    let names = |path: &str| -> Vec<String> {
        path.split('/').filter(|name| !matches!(*name, "" | ".")).map(str::to_owned).collect()
    };
    let (one, other) = (names(one), names(other));
    one.iter().any(|name| name == "..") || one.iter().zip(&other).all(|(one, other)| one == other)
}

/// Whether a probe that runs a program in the container runs ours. Meshes may replace it by one over the network, and anybody may
/// change its timing.
fn is_probed_alike(present: &Value, wanted: &Value, probe: &str) -> bool {
    let command = |container: &Value| container[probe].get("exec").map(|exec| exec["command"].clone());
    command(present).is_none_or(|present| Some(present) == command(wanted))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_same_image_is_known_with_another_tag_or_from_a_mirror_by_its_digest() {
        for (present, wanted, is_same) in [
            ("mailroute.dev/sidecar:0.1.0", "mailroute.dev/sidecar:0.1.0", true),
            ("mailroute.dev/sidecar:0.1.0@sha256:aa", "mailroute.dev/sidecar:0.1.0", true),
            ("mailroute.dev/sidecar@sha256:aa", "mailroute.dev/sidecar:0.1.0", true),
            ("mailroute.dev/sidecar:0.2.0", "mailroute.dev/sidecar:0.1.0", true),
            ("registry:5000/sidecar", "registry:5000/sidecar:1", true),
            ("mirror.example/sidecar@sha256:aa", "mailroute.dev/sidecar:0.1.0@sha256:aa", true),
            ("mirror.example/sidecar@sha256:bb", "mailroute.dev/sidecar:0.1.0@sha256:aa", false),
            ("mirror.example/sidecar:0.1.0", "mailroute.dev/sidecar:0.1.0", false),
            ("evil.example/mailroute.dev/sidecar:0.1.0", "mailroute.dev/sidecar:0.1.0", false),
            ("mailroute.dev/sidecar-of-mine:0.1.0", "mailroute.dev/sidecar:0.1.0", false),
            ("registry:6000/sidecar", "registry:5000/sidecar", false),
            ("", "mailroute.dev/sidecar:0.1.0", false),
        ] {
            assert_eq!(is_same_image(present, wanted), is_same, "{present} for {wanted}");
        }
    }

    #[test]
    fn a_user_that_the_platform_assigned_is_no_difference() {
        let wanted = json!({"runAsNonRoot": true, "capabilities": {"drop": ["ALL"]}});
        let with = |field: &str, value: Value| {
            let mut present = wanted.clone();
            present[field] = value;
            is_confined_alike(&present, &wanted)
        };
        assert!(with("runAsUser", json!(1_000_920_000)) && with("seLinuxOptions", json!({"level": "s0"})));
        assert!(
            !with("privileged", json!(true))
                && !with("capabilities", json!({"drop": ["ALL"], "add": ["SYS_PTRACE"]}))
        );
        assert!(!is_confined_alike(&Value::Null, &wanted));
    }
}
