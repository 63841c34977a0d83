//! What is kept of a pod and read from it.

use super::*;
use crate::samples;
use serde_json::json;

#[test]
fn pruning_keeps_what_is_said_of_the_sidecar() {
    let whole = samples::pod("web-1", "mailroute.dev/sidecar:0.1.0");
    let mut pruned = whole.clone();
    prune(&mut pruned);
    assert_eq!(sidecar(&pruned), sidecar(&whole));
    assert_eq!((pruned.labels().len(), pruned.annotations().len()), (2, 2));
    let json = serde_json::to_string(&pruned).unwrap();
    for gone in ["shop/", "note", "node-1", "restartPolicy\":\"Always\",\"v", "PodScheduled"] {
        assert!(!json.contains(gone), "{gone} in {json}");
    }
}

#[test]
fn a_gateway_is_a_regular_container_that_was_completed() {
    let whole = samples::gateway_pod("mail-gateway-0", "mailroute.dev/sidecar:0.1.0");
    let mut pruned = whole.clone();
    prune(&mut pruned);
    for pod in [&whole, &pruned] {
        let said = sidecar(pod).unwrap();
        assert_eq!((said.role, said.ready, role(pod)), (Role::Gateway, true, Some(Role::Gateway)));
        assert_eq!(said.owner.unwrap().to_string(), "StatefulSet mail-gateway");
    }
    let mut not_ready = pruned.clone();
    not_ready.status.as_mut().unwrap().container_statuses.as_mut().unwrap()[0].ready = false;
    assert!(!sidecar(&not_ready).unwrap().ready);
    let untouched = samples::gateway_pod("mail-gateway-0", AUTO_IMAGE);
    assert_eq!(role(&untouched), None);
    assert!(without_sidecar(&untouched).is_some(), "the webhook was not asked");
    assert_eq!(role(&samples::pod("web-1", "image")), Some(Role::Sidecar));
    let mut other = whole;
    other.metadata.labels.as_mut().unwrap().insert(ROUTE_LABEL.into(), "invoices".into());
    assert_eq!(role(&other), None);
}

#[test]
fn what_an_author_fills_a_pod_with_is_bounded() {
    let mut pod = samples::pod("web-1", &"i".repeat(100_000));
    let filled = (0..50).map(|n| (format!("mailroute.dev/filled-{n}"), "x".repeat(5000)));
    pod.metadata.annotations.as_mut().unwrap().extend(filled);
    for container in pod.spec.as_mut().unwrap().init_containers.as_mut().unwrap() {
        let value = Some("x".repeat(100_000));
        container.env = Some(vec![EnvVar { name: TOKEN_PROXY.into(), value, ..Default::default() }]);
    }
    prune(&mut pod);
    let size = serde_json::to_string(&pod).unwrap().len();
    assert!(size < MOST_ANNOTATIONS + 2048, "{size}");
    assert!(has_identity_binding(&pod));
}

#[test]
fn what_is_written_into_the_status_or_the_owner_of_a_pod_is_bounded() {
    let (whole, long) = (samples::pod("web-1", "image"), "x".repeat(100_000));
    let mut filled = whole.clone();
    let status = json!({
        "name": CONTAINER, "started": true, "ready": true, "restartCount": 0, "image": long, "imageID": long,
        "state": {"running": {}}, "lastState": {"terminated": {"exitCode": 1, "message": long}},
    });
    filled.status = serde_json::from_value(json!({
        "phase": "Running",
        "podIPs": vec![json!({"ip": "10.0.0.7"}); 1000],
        "conditions": vec![json!({"type": "Ready", "status": "True", "reason": long, "message": long}); 100],
        "initContainerStatuses": vec![status; 100],
    }))
    .unwrap();
    let owner = filled.metadata.owner_references.as_mut().unwrap();
    owner.push(OwnerReference { name: long, controller: Some(true), ..Default::default() });
    prune(&mut filled);
    let size = serde_json::to_string(&filled).unwrap().len();
    assert!(size < 4096, "{size}");
    assert_eq!(sidecar(&filled), sidecar(&whole));
}

#[test]
fn no_other_annotation_takes_the_place_of_the_record() {
    let mut pod = samples::pod("web-1", "image");
    let filled = ("mailroute.dev/a".to_owned(), "x".repeat(MOST_ANNOTATIONS - 100));
    pod.metadata.annotations.as_mut().unwrap().extend([filled]);
    prune(&mut pod);
    assert!(sidecar(&pod).unwrap().hash.is_some());
}

#[test]
fn pruning_keeps_the_addresses() {
    let mut pod = samples::pod("web-1", "image");
    let ips = serde_json::from_value(serde_json::json!([{"ip": "10.0.0.7"}, {"ip": "fd00::7"}]));
    pod.status.as_mut().unwrap().pod_ips = ips.unwrap();
    prune(&mut pod);
    let expected = ["10.0.0.7", "fd00::7"].map(|ip| ip.parse::<IpAddr>().unwrap());
    assert_eq!(addresses(&pod).collect::<Vec<_>>(), expected);
}

#[test]
fn a_pod_says_what_was_added_and_what_it_asked_for() {
    let said = sidecar(&samples::pod("web-1", "mailroute.dev/sidecar:0.1.0")).unwrap();
    let expected = SidecarPod {
        role: Role::Sidecar,
        name: "web-1".into(),
        uid: "web-1-uid".into(),
        owner: Some(PodOwner { kind: "Deployment".into(), name: "web".into() }),
        image: Some("mailroute.dev/sidecar:0.1.0".into()),
        hash: Some("00ff".into()),
        annotations: [("mailroute.dev/sidecar-log-level".to_owned(), "debug".to_owned())].into(),
        ready: true,
        is_pod_ready: true,
        is_ending: false,
        runs_on: true,
        created: Some("2026-11-01T00:00:00Z".parse().unwrap()),
    };
    assert_eq!(said, expected);
}

#[test]
fn the_owner_is_what_a_person_would_restart() {
    let owned = |kind: &str, name: &str, controller| {
        let mut pod = samples::pod("web-1", "image");
        pod.metadata.owner_references = Some(vec![OwnerReference {
            kind: kind.into(),
            name: name.into(),
            controller,
            ..Default::default()
        }]);
        sidecar(&pod).unwrap().owner.map(|owner| owner.to_string())
    };
    assert_eq!(owned("ReplicaSet", "web-5d4f", Some(true)).as_deref(), Some("Deployment web"));
    assert_eq!(owned("ReplicaSet", "by-hand", Some(true)).as_deref(), Some("ReplicaSet by-hand"));
    assert_eq!(owned("StatefulSet", "db-5d4f", Some(true)).as_deref(), Some("StatefulSet db-5d4f"));
    assert_eq!(owned("Thing", "x", None), None, "it would not make the pod again");
}

#[test]
fn a_sidecar_that_has_not_passed_its_startup_probe_is_not_ready() {
    let mut pod = samples::pod("web-1", "image");
    for status in pod.status.as_mut().unwrap().init_container_statuses.as_mut().unwrap() {
        status.started = Some(false);
    }
    assert!(!sidecar(&pod).unwrap().ready);
}

#[test]
fn a_terminating_pod_still_has_its_sidecar() {
    let mut pod = samples::pod("web-1", "image");
    pod.metadata.deletion_timestamp = pod.metadata.creation_timestamp.clone();
    let said = sidecar(&pod).unwrap();
    assert!(said.ready && said.is_ending);
}

#[test]
fn a_pod_of_a_job_does_not_run_on() {
    let mut pod = samples::pod("report-1", "image");
    pod.spec.as_mut().unwrap().restart_policy = Some("Never".into());
    assert!(!sidecar(&pod).unwrap().runs_on);
}

#[test]
fn a_pod_whose_label_was_changed_later_has_no_sidecar_of_that_route() {
    let mut pod = samples::pod("web-1", "image");
    assert!(role(&pod).is_some() && sidecar(&pod).is_some());
    pod.metadata.labels.as_mut().unwrap().insert(ROUTE_LABEL.into(), "invoices".into());
    assert!(role(&pod).is_none() && sidecar(&pod).is_none() && !has_identity_binding(&pod));
    assert!(without_sidecar(&pod).is_some(), "it has to be made anew");
}

#[test]
fn a_pod_without_the_container_or_at_its_end_has_no_sidecar() {
    let mut bare = samples::pod("web-1", "image");
    assert_eq!(without_sidecar(&bare), None);
    bare.spec.as_mut().unwrap().init_containers = None;
    assert_eq!(sidecar(&bare), None);
    let owner = Some(PodOwner { kind: "Deployment".into(), name: "web".into() });
    assert_eq!(without_sidecar(&bare), Some(BarePod { name: "web-1".into(), owner }));
    let mut mirror = bare.clone();
    mirror.metadata.annotations = Some([(MIRROR.to_owned(), "x".to_owned())].into());
    prune(&mut mirror);
    assert_eq!(without_sidecar(&mirror), None, "it could not have one");
    bare.status.as_mut().unwrap().phase = Some("Failed".into());
    assert_eq!(without_sidecar(&bare), None);
    let mut ended = samples::pod("web-1", "image");
    ended.status.as_mut().unwrap().phase = Some("Succeeded".into());
    assert_eq!(sidecar(&ended), None);
}

#[test]
fn what_is_kept_of_a_pod_says_the_same_as_the_pod() {
    let whole = samples::pod("web-1", "mailroute.dev/sidecar:0.1.0");
    let kept = watched::WatchedPod::of(whole.clone());
    assert_eq!(kept.sidecar(), sidecar(&whole));
    let said =
        (kept.namespace(), kept.uid(), kept.route(), kept.service_account(), kept.role(), kept.has_run());
    assert_eq!(said, ("shop", "web-1-uid", Some("notifications"), "default", Some(Role::Sidecar), false));
    assert!(kept.without_sidecar().is_none() && !kept.has_identity_binding());
    assert_eq!(kept.created(), sidecar(&whole).unwrap().created);
}
