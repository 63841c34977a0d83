//! From a resolved route to the ConfigMap that its sidecars mount. Pure, and cannot fail.

use std::collections::BTreeMap;
use std::path::Path;

use k8s_openapi::api::core::v1::ConfigMap;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::Resource;
use kube::api::ObjectMeta;
use mailroute_route::RouteFile;
use mailroute_route::file::{ControlService, Gateway};
use mailroute_route::paths;

use super::platform::PlatformSettings;
use super::resolution::ResolvedRoute;
use crate::crd::{self, MailRoute};

/// The ConfigMap of a route. `ca_pem` is what the control service's certificate chains to; while it is empty the
/// sidecars are not told of the service, and mail flows without reports. `identity_ca_pem` is what the certificates of gateways
/// and sidecars chain to; while it is empty nothing is handed over.
pub fn config_map(
    route: &ResolvedRoute,
    settings: &PlatformSettings,
    ca_pem: &str,
    identity_ca_pem: &str,
) -> ConfigMap {
    let name = &route.file.name;
    let file = route_file(route, settings, ca_pem, identity_ca_pem);
    ConfigMap {
        metadata: ObjectMeta {
            name: Some(crd::config_map_name(name)),
            namespace: Some(route.file.namespace.clone()),
            labels: Some(labels(name)),
            owner_references: Some(vec![owner(route)]),
            ..Default::default()
        },
        data: Some(BTreeMap::from([(paths::ROUTE_KEY.to_owned(), file.to_json())])),
        ..Default::default()
    }
}

fn labels(route: &str) -> BTreeMap<String, String> {
    BTreeMap::from([
        ("app.kubernetes.io/managed-by".to_owned(), "mailroute-operator".to_owned()),
        ("app.kubernetes.io/part-of".to_owned(), "mailroute".to_owned()),
        (crd::ROUTE_LABEL.to_owned(), route.to_owned()),
    ])
}

/// The garbage collector removes what a deleted route owned; the operator need not run for that.
fn owner(route: &ResolvedRoute) -> OwnerReference {
    OwnerReference {
        api_version: MailRoute::api_version(&()).into_owned(),
        kind: MailRoute::kind(&()).into_owned(),
        name: route.file.name.clone(),
        uid: route.uid.clone(),
        controller: Some(true),
        block_owner_deletion: None,
    }
}

/// What the sidecars of the route read.
fn route_file(
    route: &ResolvedRoute,
    settings: &PlatformSettings,
    ca_pem: &str,
    identity_ca_pem: &str,
) -> RouteFile {
    let control = ControlService {
        address: settings.control_address.clone(),
        ca_pem: ca_pem.to_owned(),
        token_file: Path::new(paths::TOKENS_DIR).join(paths::CONTROL_TOKEN_FILE),
        leases: route.file.shares_limits(),
    };
    let gateway = route.file.gateway.as_ref();
    let gateway = gateway.map(|it| Gateway { host: it.host.clone(), ca_pem: identity_ca_pem.to_owned() });
    RouteFile { control: Some(control).filter(|_| !ca_pem.is_empty()), gateway, ..route.file.clone() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailroute_route::file::SubmissionService;

    use crate::crd::method::{CredentialType, GraphFallback};
    use crate::resolve::resolve;
    use crate::samples;

    fn settings() -> PlatformSettings {
        PlatformSettings {
            control_address: "mailroute.mail-system.svc:8444".into(),
            cluster_domain: "cluster.local".into(),
            ..Default::default()
        }
    }

    fn resolved(route: &MailRoute) -> ResolvedRoute {
        resolve(route, &settings()).route.unwrap()
    }

    fn rendered(ca_pem: &str) -> (ConfigMap, RouteFile) {
        let config_map = config_map(&resolved(&samples::route()), &settings(), ca_pem, ca_pem);
        let json = config_map.data.as_ref().unwrap()["route.json"].clone();
        (config_map, RouteFile::parse(json.as_bytes()).unwrap())
    }

    #[test]
    fn the_sidecar_can_read_what_is_rendered() {
        let (_, file) = rendered("PEM");
        assert_eq!(file.generation, 3);
        assert_eq!(file.ehlo_name, "notifications.shop.svc.cluster.local");
        assert_eq!(file.method.mailbox(), Some("noreply@contoso.com"));
        let control = file.control.unwrap();
        assert_eq!(control.address, "mailroute.mail-system.svc:8444");
        assert!(control.leases);
    }

    #[test]
    fn every_method_can_be_read_back() {
        let services = [SubmissionService::HighVolumeEmail, SubmissionService::CommunicationServices];
        let mut fallback = samples::graph();
        fallback.spec.graph.as_mut().unwrap().fallback = GraphFallback::ClientSubmission;
        let routes = [
            (samples::route(), true),
            (samples::graph(), true),
            (fallback, true),
            (samples::submitted_to(services[0]), false),
            (samples::submitted_to(services[1]), true),
            (samples::relay(true), false),
            (samples::relay(false), false),
            (samples::direct(), false),
        ];
        for (route, leases) in routes {
            let resolved = resolved(&route);
            let config_map = config_map(&resolved, &settings(), "PEM", "");
            let json = &config_map.data.as_ref().unwrap()["route.json"];
            let file = RouteFile::parse(json.as_bytes()).unwrap();
            assert_eq!(file.method, resolved.file.method);
            assert_eq!(
                file.control.unwrap().leases,
                leases,
                "only a mailbox has limits to share, and one of High Volume Email none: {:?}",
                file.method
            );
        }
    }

    #[test]
    fn the_secret_is_named_for_those_who_read_remedies() {
        let named = |route: &MailRoute| route_file(&resolved(route), &settings(), "", "").secret;
        assert_eq!(named(&samples::route()), None);
        let with_secret = samples::with_secret(CredentialType::ClientSecret, Some("client-secret"));
        assert_eq!(named(&with_secret).as_deref(), Some("m365"));
        assert_eq!(named(&samples::relay(true)).as_deref(), Some("relay-tls"));
        assert_eq!(named(&samples::relay(false)), None);
    }

    #[test]
    fn the_route_owns_its_config_map() {
        let (config_map, _) = rendered("PEM");
        assert_eq!(config_map.metadata.name.as_deref(), Some("mailroute-notifications"));
        let owner = &config_map.metadata.owner_references.unwrap()[0];
        assert_eq!((owner.kind.as_str(), owner.uid.as_str()), ("MailRoute", "route-uid"));
        assert_eq!(owner.api_version, "mailroute.dev/v1alpha1");
    }

    #[test]
    fn a_gateway_is_named_with_the_authority_of_its_certificates() {
        let file = |route: &MailRoute| route_file(&resolved(route), &settings(), "PEM", "of identities");
        assert_eq!(file(&samples::with_gateway()).gateway.unwrap().ca_pem, "of identities");
        assert_eq!(file(&samples::route()).gateway, None);
    }

    #[test]
    fn without_an_authority_the_control_service_is_not_named() {
        assert_eq!(rendered("").1.control, None);
    }
}
