//! The servers that a route leads to: those of its cloud, and over them what the route says.

use std::path::{Path, PathBuf};

use mailroute_route::file::{self, Authority, Chunking, HostName, SmartHost, TlsMode};
use mailroute_route::paths;

use super::invalid::Invalid;
use crate::crd::MailRouteSpec;
use crate::crd::method::{Endpoint, FallbackEndpoint, Method};

/// Port of client submission where the route does not say (RFC 6409, and Microsoft's guide).
pub(super) const SUBMISSION_PORT: u16 = 587;

/// Port of SMTP relay and Direct Send (Microsoft's guide).
const RELAY_PORT: u16 = 25;

/// Port of Microsoft Graph where the route does not say.
const GRAPH_PORT: u16 = 443;

/// Where tokens of a scope come from: the cloud's preset, and over it what the route says.
pub fn authority(spec: &MailRouteSpec, scope: &str) -> Authority {
    let preset = spec.tenant.cloud.preset();
    let own = spec.tenant.authority.clone().unwrap_or_default();
    Authority {
        host: own.host.unwrap_or_else(|| preset.authority_host.to_owned()),
        tenant: spec.tenant.id.clone(),
        scope: own.scope.unwrap_or_else(|| scope.to_owned()),
        ca_file: own.ca_bundle_ref.map(|_| ca_file(paths::AUTHORITY_CA_DIR)),
        proxy: own.proxy,
    }
}

/// Where mail is submitted: the preset of service and cloud, and over it what the route says.
///
/// # Errors
/// When neither names a host, or the route gives TLS up.
pub(super) fn endpoint(spec: &MailRouteSpec, preset: Option<&str>) -> Result<file::Endpoint, Invalid> {
    named_endpoint(spec, preset, SUBMISSION_PORT)
}

/// Microsoft Graph: the cloud's preset, and over it what the route says.
///
/// # Errors
/// When the route gives TLS up.
pub(super) fn graph_endpoint(spec: &MailRouteSpec) -> Result<file::Endpoint, Invalid> {
    named_endpoint(spec, Some(spec.tenant.cloud.preset().graph_host), GRAPH_PORT)
}

/// Where Graph's fallback submits mail.
///
/// # Errors
/// When neither cloud nor route names a host.
pub(super) fn fallback_endpoint(
    spec: &MailRouteSpec,
    own: Option<&FallbackEndpoint>,
) -> Result<file::Endpoint, Invalid> {
    let cloud = spec.tenant.cloud;
    let FallbackEndpoint { host, port, ca_bundle_ref } = own.cloned().unwrap_or_default();
    let host = host.or_else(|| cloud.preset().submission_host.map(str::to_owned));
    Ok(file::Endpoint {
        host: host.ok_or(Invalid::HostMissing("graph.fallbackEndpoint", cloud))?,
        port: port.unwrap_or(SUBMISSION_PORT),
        ca_file: ca_bundle_ref.map(|_| ca_file(paths::FALLBACK_CA_DIR)),
        ca_pem: None,
        chunking: Chunking::Never,
    })
}

fn named_endpoint(
    spec: &MailRouteSpec,
    preset: Option<&str>,
    default_port: u16,
) -> Result<file::Endpoint, Invalid> {
    let own = spec.endpoint.clone().unwrap_or_default();
    if own.tls == Some(TlsMode::Opportunistic) {
        return Err(Invalid::LogInWithoutTls(spec.method));
    }
    let host = own.host.or_else(|| preset.map(str::to_owned));
    Ok(file::Endpoint {
        host: host.ok_or(Invalid::HostMissing("endpoint", spec.tenant.cloud))?,
        port: own.port.unwrap_or(default_port),
        ca_file: own.ca_bundle_ref.map(|_| ca_file(paths::ENDPOINT_CA_DIR)),
        ca_pem: None,
        chunking: own.chunking.unwrap_or_default(),
    })
}

/// Where mail is handed over: the host that the route names, or the MX record of the first accepted domain. The name is
/// never made from a domain, as new tenants' names cannot be.
///
/// # Errors
/// When there is no accepted domain to ask for.
pub(super) fn smart_host(spec: &MailRouteSpec) -> Result<SmartHost, Invalid> {
    let Endpoint { host, port, tls, ca_bundle_ref, chunking } = spec.endpoint.clone().unwrap_or_default();
    let host = match host {
        Some(host) => HostName::Fixed(host),
        None => HostName::MxOf(accepted_domains(spec)?.swap_remove(0)),
    };
    Ok(SmartHost {
        host,
        port: port.unwrap_or(RELAY_PORT),
        tls: tls.unwrap_or(default_tls(spec.method)),
        ca_file: ca_bundle_ref.map(|_| ca_file(paths::ENDPOINT_CA_DIR)),
        chunking: chunking.unwrap_or_default(),
    })
}

const fn default_tls(method: Method) -> TlsMode {
    match method {
        Method::DirectSend => TlsMode::Opportunistic,
        Method::ClientSubmission | Method::Graph | Method::SmtpRelay => TlsMode::Required,
    }
}

/// The accepted domains, at least one.
///
/// # Errors
/// When there is none.
pub(super) fn accepted_domains(spec: &MailRouteSpec) -> Result<Vec<String>, Invalid> {
    let domains = spec.tenant.accepted_domains.clone();
    if domains.is_empty() { Err(Invalid::AcceptedDomainsMissing(spec.method)) } else { Ok(domains) }
}

fn ca_file(directory: &str) -> PathBuf {
    Path::new(directory).join(paths::CA_FILE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mailroute_route::file::SubmissionService;

    use crate::crd::cloud::Cloud;
    use crate::crd::method::GraphFallback;
    use crate::crd::tenant::{self, CaBundleRef};
    use crate::resolve::method::method;
    use crate::resolve::method::tests::{by_graph, relayed, submitted};
    use crate::resolve::place;
    use crate::samples;

    #[test]
    fn presets_fill_what_the_route_leaves_out() {
        let table = [
            (
                Cloud::Global,
                "login.microsoftonline.com",
                "https://outlook.office365.com/.default",
                "smtp.office365.com",
            ),
            (
                Cloud::USGovernment,
                "login.microsoftonline.us",
                "https://outlook.office365.us/.default",
                "smtp.office365.us",
            ),
            (
                Cloud::China,
                "login.partner.microsoftonline.cn",
                "https://partner.outlook.cn/.default",
                "smtp.partner.outlook.cn",
            ),
        ];
        for (cloud, authority, scope, host) in table {
            let mut spec = samples::route().spec;
            spec.tenant.cloud = cloud;
            let valid = submitted(&spec);
            assert_eq!((valid.authority.host.as_str(), valid.authority.scope.as_str()), (authority, scope));
            assert_eq!((valid.endpoint.host.as_str(), valid.endpoint.port), (host, 587));
            assert_eq!(valid.endpoint.ca_file, None);
        }
    }

    #[test]
    fn every_cloud_has_a_graph_and_its_fallback_the_clouds_smtp_host() {
        let table = [
            (Cloud::Global, "graph.microsoft.com", Some("smtp.office365.com")),
            (Cloud::USGovernment, "graph.microsoft.us", Some("smtp.office365.us")),
            (Cloud::USGovernmentDoD, "dod-graph.microsoft.us", None),
            (Cloud::China, "microsoftgraph.chinacloudapi.cn", Some("smtp.partner.outlook.cn")),
        ];
        for (cloud, host, smtp) in table {
            let mut spec = samples::graph().spec;
            spec.tenant.cloud = cloud;
            let graph = by_graph(&spec);
            assert_eq!((graph.endpoint.host.as_str(), graph.endpoint.port), (host, 443));
            assert_eq!(graph.authority.scope, format!("https://{host}/.default"));
            assert_eq!(graph.authority.host, cloud.preset().authority_host);
            assert_eq!((graph.max_message_bytes, graph.fallback), (3 << 20, None));
            assert_eq!(place(&method(&spec, None).unwrap()), format!("{host}:443"));
            spec.graph.as_mut().unwrap().fallback = GraphFallback::ClientSubmission;
            let Some(smtp) = smtp else {
                assert!(method(&spec, None).is_err());
                continue;
            };
            let fallback = by_graph(&spec).fallback.unwrap();
            assert_eq!(fallback.endpoint, file::Endpoint::new(smtp, 587));
            assert_eq!(fallback.scope, cloud.preset().scope);
        }
    }

    #[test]
    fn graph_and_its_fallback_have_endpoints_of_their_own() {
        let mut spec = samples::graph().spec;
        let ca = || Some(CaBundleRef { name: "m365-ca".into(), key: "ca.crt".into() });
        let host = Some("graph.m365.svc".to_owned());
        spec.endpoint = Some(Endpoint { host, port: Some(8443), ca_bundle_ref: ca(), ..Default::default() });
        let graph = spec.graph.as_mut().unwrap();
        graph.fallback = GraphFallback::ClientSubmission;
        let host = Some("smtp.m365.svc".to_owned());
        graph.fallback_endpoint = Some(FallbackEndpoint { host, port: Some(25), ca_bundle_ref: ca() });
        let graph = by_graph(&spec);
        assert_eq!((graph.endpoint.host.as_str(), graph.endpoint.port), ("graph.m365.svc", 8443));
        assert_eq!(graph.endpoint.ca_file, Some("/etc/mailroute/endpoint-ca/ca.crt".into()));
        let fallback = graph.fallback.unwrap().endpoint;
        assert_eq!((fallback.host.as_str(), fallback.port), ("smtp.m365.svc", 25));
        assert_eq!(fallback.ca_file, Some("/etc/mailroute/fallback-ca/ca.crt".into()));
    }

    #[test]
    fn each_service_of_client_submission_has_its_host_and_scope() {
        let table = [
            (
                SubmissionService::HighVolumeEmail,
                "smtp.hve.mx.microsoft",
                "https://outlook.office.com/.default",
                vec!["contoso.com".to_owned()],
            ),
            (
                SubmissionService::CommunicationServices,
                "smtp.azurecomm.net",
                "https://communication.azure.com/.default",
                vec![],
            ),
        ];
        for (service, host, scope, domains) in table {
            let mut spec = samples::submitted_to(service).spec;
            spec.client_submission.as_mut().unwrap().username = Some("contoso-smtp".into());
            let valid = submitted(&spec);
            assert_eq!(valid.endpoint, file::Endpoint::new(host, 587));
            assert_eq!((valid.authority.scope.as_str(), valid.service), (scope, service));
            assert_eq!(
                valid.accepted_domains, domains,
                "recipients outside are refused with High Volume Email alone"
            );
            assert_eq!((valid.mailbox.as_str(), valid.username()), ("noreply@contoso.com", "contoso-smtp"));
            spec.tenant.cloud = Cloud::USGovernment;
            assert!(method(&spec, None).is_err(), "no host is known there");
        }
    }

    #[test]
    fn each_field_of_the_route_replaces_its_preset_alone() {
        let mut spec = samples::route().spec;
        let ca = CaBundleRef { name: "m365-ca".into(), key: "ca.crt".into() };
        spec.tenant.authority = Some(tenant::Authority {
            host: Some("login.m365.svc:8443".into()),
            proxy: Some("http://proxy.corp.example:3128".into()),
            ca_bundle_ref: Some(ca.clone()),
            ..Default::default()
        });
        spec.endpoint = Some(Endpoint { port: Some(25), ca_bundle_ref: Some(ca), ..Default::default() });
        let valid = submitted(&spec);
        assert_eq!(valid.authority.host, "login.m365.svc:8443");
        assert_eq!(valid.authority.scope, "https://outlook.office365.com/.default");
        assert_eq!(valid.authority.proxy.as_deref(), Some("http://proxy.corp.example:3128"));
        assert_eq!(valid.authority.ca_file, Some("/etc/mailroute/authority-ca/ca.crt".into()));
        assert_eq!((valid.endpoint.host.as_str(), valid.endpoint.port), ("smtp.office365.com", 25));
        assert_eq!(valid.endpoint.ca_file, Some("/etc/mailroute/endpoint-ca/ca.crt".into()));
    }

    #[test]
    fn the_smart_host_is_the_mx_of_the_first_accepted_domain_unless_it_is_named() {
        let mut route = samples::relay(true);
        let found = relayed(&route.spec);
        assert_eq!(found.host, HostName::MxOf("contoso.com".into()));
        assert_eq!((found.port, found.tls), (25, TlsMode::Required));
        assert_eq!(place(&method(&route.spec, None).unwrap()), "MX of contoso.com:25");
        let named = "contoso-com.mail.protection.outlook.com";
        route.spec.endpoint = Some(Endpoint { host: Some(named.into()), ..Default::default() });
        assert_eq!(relayed(&route.spec).host, HostName::Fixed(named.into()));
        assert_eq!(place(&method(&route.spec, None).unwrap()), format!("{named}:25"));
    }

    #[test]
    fn only_direct_send_goes_without_tls_unless_it_is_told_to() {
        assert_eq!(relayed(&samples::relay(false).spec).tls, TlsMode::Required);
        assert_eq!(relayed(&samples::direct().spec).tls, TlsMode::Opportunistic);
        let chunked = Endpoint { chunking: Some(Chunking::WhenOffered), ..Default::default() };
        let mut relay = samples::relay(false);
        assert_eq!(relayed(&relay.spec).chunking, Chunking::Never);
        relay.spec.endpoint = Some(chunked.clone());
        assert_eq!(relayed(&relay.spec).chunking, Chunking::WhenOffered);
        let mut submission = samples::route();
        submission.spec.endpoint = Some(chunked);
        assert_eq!(submitted(&submission.spec).endpoint.chunking, Chunking::WhenOffered);
        let opportunistic = Some(Endpoint { tls: Some(TlsMode::Opportunistic), ..Default::default() });
        let mut by_address = samples::relay(false);
        by_address.spec.endpoint.clone_from(&opportunistic);
        assert_eq!(relayed(&by_address.spec).tls, TlsMode::Opportunistic);
        for mut route in [samples::relay(true), samples::route(), samples::graph()] {
            route.spec.endpoint.clone_from(&opportunistic);
            assert!(method(&route.spec, None).is_err());
        }
    }
}
