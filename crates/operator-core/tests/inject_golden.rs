//! What the webhook makes of representative pods, as golden files: the whole object after injection.
//!
//! `INSTA_UPDATE=always cargo test -p mailroute-operator --test inject_golden` writes them anew.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::fs;
use std::path::PathBuf;

use mailroute_operator_core::crd::MailRoute;
use mailroute_operator_core::inject::{self, PullPolicy, SidecarSettings};
use mailroute_operator_core::resolve::{PlatformSettings, ResolvedRoute, resolve};
use serde::de::DeserializeOwned;
use serde_json::Value;

fn read<T: DeserializeOwned>(name: &str) -> T {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/inject").join(name);
    serde_saphyr::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn resolved(route: &MailRoute) -> ResolvedRoute {
    let entra_audiences = vec!["api://private-cloud".to_owned()];
    resolve(route, &PlatformSettings { entra_audiences, ..PlatformSettings::default() }).route.unwrap()
}

fn injected(pod: &str, route: &str) -> Value {
    let platform = SidecarSettings {
        image: "mailroute.dev/sidecar:0.1.0".to_owned(),
        pull_policy: Some(PullPolicy::IfNotPresent),
        pull_secrets: vec!["mailroute-registry".to_owned()],
        control_address: Some("mailroute.mailroute-system.svc:8444".into()),
        ..SidecarSettings::default()
    };
    let (mut pod, route): (Value, MailRoute) = (read(pod), read(route));
    let route = resolved(&route);
    let plan = inject::plan(&pod, &route, &platform).unwrap();
    let patch = inject::patch(&plan, &pod).unwrap();
    json_patch::patch(&mut pod, &patch).unwrap();
    assert!(inject::plan(&pod, &route, &platform).unwrap().is_empty(), "a second injection adds nothing");
    pod
}

macro_rules! golden {
    ($($name:ident: $pod:literal with $route:literal;)*) => {
        $(#[test]
        fn $name() {
            let pod = serde_saphyr::to_string(&injected($pod, $route)).unwrap();
            insta::with_settings!({omit_expression => true}, { insta::assert_snapshot!(stringify!($name), pod) });
        })*
    };
}

golden! {
    a_bare_pod: "bare_pod.yaml" with "route.yaml";
    a_pod_of_a_deployment: "of_a_deployment.yaml" with "route.yaml";
    a_job_with_an_init_container_that_sends: "job_with_init_container.yaml" with "route.yaml";
    a_pod_of_a_stateful_set: "stateful.yaml" with "route.yaml";
    a_pod_of_a_daemon_set: "of_a_daemonset.yaml" with "route.yaml";
    a_pod_with_three_meshes: "beside_meshes.yaml" with "route.yaml";
    a_pod_without_any_array: "absent_arrays.yaml" with "route.yaml";
    a_pod_under_pod_security_restricted: "restricted_pod.yaml" with "route.yaml";
    a_relay_with_a_certificate: "of_a_deployment.yaml" with "route_relay.yaml";
    a_client_secret_and_a_claimed_spool: "restricted_pod.yaml" with "route_client_secret.yaml";
    a_gateway: "gateway.yaml" with "route_gateway.yaml";
    a_gateway_for_others: "gateway_for_others.yaml" with "route_gateway.yaml";
    a_route_with_bundles_and_an_unprivileged_port: "of_a_deployment.yaml" with "route_private_cloud.yaml";
}
