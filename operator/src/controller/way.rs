//! How a route's mail leaves, resolved: presets of the cloud looked up, references turned into mounted paths. Pure.
//!
//! The same answers serve the rendered route, the status and the pod's mounts, so that they cannot disagree.

use std::path::{Path, PathBuf};

use mailroute_route::file::{self, Authority, CertificateFiles, HostName, SmartHost};
use mailroute_route::paths;

use super::validate::Invalid;
use crate::broker::settings::Application;
use crate::crd::MailRouteSpec;
use crate::crd::method::{Credential, CredentialType, Endpoint, Method, SecretRef, Subject, TlsMode};

/// Port of client submission where the route does not say (RFC 6409, and Microsoft's guide).
const SUBMISSION_PORT: u16 = 587;

/// Port of the other two methods (Microsoft's guide).
const RELAY_PORT: u16 = 25;

/// The method with everything that the sidecar needs for it. `lent` is what the platform lends the route, where it uses the
/// operator's identity.
///
/// # Errors
/// When something is missing that the method needs.
pub fn method(spec: &MailRouteSpec, lent: Option<&Application>) -> Result<file::Method, Invalid> {
    match spec.method {
        Method::ClientSubmission => submission(spec, lent).map(file::Method::ClientSubmission),
        Method::SmtpRelay => relay(spec).map(file::Method::SmtpRelay),
        Method::DirectSend => {
            spec.direct_send.ok_or(Invalid::BlockMissing("directSend"))?;
            Ok(file::Method::DirectSend(file::DirectSend {
                accepted_domains: accepted_domains(spec)?,
                smart_host: smart_host(spec)?,
            }))
        }
    }
}

fn submission(spec: &MailRouteSpec, lent: Option<&Application>) -> Result<file::ClientSubmission, Invalid> {
    let block = spec.client_submission.as_ref().ok_or(Invalid::BlockMissing("clientSubmission"))?;
    let credential = credential(&block.credential)?;
    let is_lent = matches!(credential, file::Credential::Operator { .. });
    let (authority, endpoint) =
        if is_lent { platforms(spec, lent)? } else { (authority(spec), endpoint(spec)?) };
    Ok(file::ClientSubmission { mailbox: block.mailbox.clone(), credential, authority, endpoint })
}

/// Where the operator's tokens come from and where they are used: never what the route says, which could carry them
/// elsewhere.
fn platforms(
    spec: &MailRouteSpec,
    lent: Option<&Application>,
) -> Result<(Authority, file::Endpoint), Invalid> {
    if spec.endpoint.is_some() {
        return Err(Invalid::Lent("endpoint"));
    }
    if spec.tenant.authority.is_some() {
        return Err(Invalid::Lent("tenant.authority"));
    }
    let host_missing = || Invalid::LentHostMissing(spec.tenant.cloud);
    match lent {
        Some(lent) => Ok((lent.token_authority(), lent.submission_endpoint().ok_or_else(host_missing)?)),
        None => {
            let host = spec.tenant.cloud.preset().submission_host.ok_or_else(host_missing)?;
            Ok((authority(spec), file::Endpoint::new(host, SUBMISSION_PORT)))
        }
    }
}

fn relay(spec: &MailRouteSpec) -> Result<file::SmtpRelay, Invalid> {
    let block = spec.smtp_relay.as_ref().ok_or(Invalid::BlockMissing("smtpRelay"))?;
    let certificate = block.certificate_secret_ref.as_ref().map(|_| pair());
    let smart_host = smart_host(spec)?;
    if certificate.is_some() && smart_host.tls != file::TlsMode::Required {
        return Err(Invalid::CertificateWithoutTls);
    }
    Ok(file::SmtpRelay { certificate, accepted_domains: accepted_domains(spec)?, smart_host })
}

fn credential(credential: &Credential) -> Result<file::Credential, Invalid> {
    let client_id = || credential.client_id.clone().ok_or(Invalid::ClientIdMissing(credential.type_));
    let secret = || credential.secret_ref.as_ref().ok_or(Invalid::SecretMissing(credential.type_));
    let value_file = || match secret()? {
        SecretRef { key: Some(_), .. } => Ok(mounted(paths::SECRET_FILE)),
        SecretRef { key: None, .. } => Err(Invalid::SecretKeyMissing(credential.type_)),
    };
    Ok(match credential.type_ {
        CredentialType::WorkloadIdentity if credential.subject == Subject::Operator => {
            file::Credential::Operator { client_id: client_id()? }
        }
        CredentialType::WorkloadIdentity => file::Credential::WorkloadIdentity {
            client_id: client_id()?,
            token_file: Path::new(paths::TOKENS_DIR).join(paths::ENTRA_TOKEN_FILE),
        },
        CredentialType::ClientSecret => {
            file::Credential::ClientSecret { client_id: client_id()?, secret_file: value_file()? }
        }
        CredentialType::ClientCertificate => file::Credential::ClientCertificate {
            client_id: client_id()?,
            files: certificate_files(secret()?),
        },
        CredentialType::Password => file::Credential::Password { password_file: value_file()? },
    })
}

/// Chain and key, from the two keys of a `kubernetes.io/tls` Secret or from the one that the reference names.
fn certificate_files(secret: &SecretRef) -> CertificateFiles {
    match secret.key {
        None => pair(),
        Some(_) => CertificateFiles {
            certificate_file: mounted(paths::CERTIFICATE_FILE),
            key_file: mounted(paths::CERTIFICATE_FILE),
        },
    }
}

fn pair() -> CertificateFiles {
    CertificateFiles {
        certificate_file: mounted(paths::CERTIFICATE_FILE),
        key_file: mounted(paths::KEY_FILE),
    }
}

fn mounted(file: &str) -> PathBuf {
    Path::new(paths::CREDENTIAL_DIR).join(file)
}

/// Where tokens come from: the cloud's preset, and over it what the route says.
pub fn authority(spec: &MailRouteSpec) -> Authority {
    let preset = spec.tenant.cloud.preset();
    let own = spec.tenant.authority.clone().unwrap_or_default();
    Authority {
        host: own.host.unwrap_or_else(|| preset.authority_host.to_owned()),
        tenant: spec.tenant.id.clone(),
        scope: own.scope.unwrap_or_else(|| preset.scope.to_owned()),
        ca_file: own.ca_bundle_ref.map(|_| ca_file(paths::AUTHORITY_CA_DIR)),
    }
}

/// Where mail is submitted: the cloud's preset, and over it what the route says.
fn endpoint(spec: &MailRouteSpec) -> Result<file::Endpoint, Invalid> {
    let preset = spec.tenant.cloud.preset().submission_host.map(str::to_owned);
    let own = spec.endpoint.clone().unwrap_or_default();
    if own.tls == Some(TlsMode::Opportunistic) {
        return Err(Invalid::SubmissionWithoutTls);
    }
    Ok(file::Endpoint {
        host: own.host.or(preset).ok_or(Invalid::HostMissing(spec.tenant.cloud))?,
        port: own.port.unwrap_or(SUBMISSION_PORT),
        ca_file: own.ca_bundle_ref.map(|_| ca_file(paths::ENDPOINT_CA_DIR)),
        ca_pem: None,
    })
}

/// Where mail is handed over: the host that the route names, or the MX record of the first accepted domain. The name is
/// never made from a domain, as new tenants' names cannot be.
fn smart_host(spec: &MailRouteSpec) -> Result<SmartHost, Invalid> {
    let Endpoint { host, port, tls, ca_bundle_ref } = spec.endpoint.clone().unwrap_or_default();
    let host = match host {
        Some(host) => HostName::Fixed(host),
        None => HostName::MxOf(accepted_domains(spec)?.swap_remove(0)),
    };
    Ok(SmartHost {
        host,
        port: port.unwrap_or(RELAY_PORT),
        tls: tls.unwrap_or(default_tls(spec.method)).into(),
        ca_file: ca_bundle_ref.map(|_| ca_file(paths::ENDPOINT_CA_DIR)),
    })
}

const fn default_tls(method: Method) -> TlsMode {
    match method {
        Method::DirectSend => TlsMode::Opportunistic,
        Method::ClientSubmission | Method::SmtpRelay => TlsMode::Required,
    }
}

/// At least one.
fn accepted_domains(spec: &MailRouteSpec) -> Result<Vec<String>, Invalid> {
    let domains = spec.tenant.accepted_domains.clone();
    if domains.is_empty() { Err(Invalid::AcceptedDomainsMissing(spec.method)) } else { Ok(domains) }
}

fn ca_file(directory: &str) -> PathBuf {
    Path::new(directory).join(paths::CA_FILE)
}

/// Where mail is handed to, for people: `host:port`, or whose MX record says.
pub fn place(method: &file::Method) -> String {
    let smart_host = match method {
        file::Method::ClientSubmission(submission) => {
            return format!("{}:{}", submission.endpoint.host, submission.endpoint.port);
        }
        file::Method::SmtpRelay(relay) => &relay.smart_host,
        file::Method::DirectSend(direct) => &direct.smart_host,
    };
    match &smart_host.host {
        HostName::Fixed(host) => format!("{host}:{}", smart_host.port),
        HostName::MxOf(domain) => format!("MX of {domain}:{}", smart_host.port),
    }
}

/// Who mail is from, for people: the mailbox; else the senders that are allowed, or the domains that are accepted.
pub fn sender(spec: &MailRouteSpec) -> Option<String> {
    if let Some(submission) = &spec.client_submission {
        return Some(submission.mailbox.clone());
    }
    let allowed = spec.senders.iter().flat_map(|senders| &senders.allow).cloned();
    let accepted = spec.tenant.accepted_domains.iter().map(|domain| format!("*@{domain}"));
    let named: Vec<_> = if spec.senders.is_some() { allowed.collect() } else { accepted.collect() };
    match named.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [first, others @ ..] => Some(format!("{first} and {} more", others.len())),
    }
}

/// The Secret with the credential or the certificate, and its key where the route names one.
pub fn secret(spec: &MailRouteSpec) -> Option<(&str, Option<&str>)> {
    let credential = spec.client_submission.as_ref().and_then(|it| it.credential.secret_ref.as_ref());
    let certificate = spec.smtp_relay.as_ref().and_then(|it| it.certificate_secret_ref.as_ref());
    credential
        .map(|secret| (secret.name.as_str(), secret.key.as_deref()))
        .or_else(|| certificate.map(|secret| (secret.name.as_str(), None)))
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;
    use crate::broker::settings::Settings;
    use crate::crd::cloud::Cloud;
    use crate::crd::tenant::{self, CaBundleRef};

    fn submitted(spec: &MailRouteSpec) -> file::ClientSubmission {
        let file::Method::ClientSubmission(submission) = method(spec, None).unwrap() else {
            panic!("another method")
        };
        submission
    }

    fn relayed(spec: &MailRouteSpec) -> SmartHost {
        match method(spec, None).unwrap() {
            file::Method::SmtpRelay(relay) => relay.smart_host,
            file::Method::DirectSend(direct) => direct.smart_host,
            file::Method::ClientSubmission(_) => panic!("another method"),
        }
    }

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
    fn each_field_of_the_route_replaces_its_preset_alone() {
        let mut spec = samples::route().spec;
        let ca = CaBundleRef { name: "m365-ca".into(), key: "ca.crt".into() };
        spec.tenant.authority = Some(tenant::Authority {
            host: Some("login.m365.svc:8443".into()),
            ca_bundle_ref: Some(ca.clone()),
            ..Default::default()
        });
        spec.endpoint = Some(Endpoint { port: Some(25), ca_bundle_ref: Some(ca), ..Default::default() });
        let valid = submitted(&spec);
        assert_eq!(valid.authority.host, "login.m365.svc:8443");
        assert_eq!(valid.authority.scope, "https://outlook.office365.com/.default");
        assert_eq!(valid.authority.ca_file, Some("/etc/mailroute/authority-ca/ca.crt".into()));
        assert_eq!((valid.endpoint.host.as_str(), valid.endpoint.port), ("smtp.office365.com", 25));
        assert_eq!(valid.endpoint.ca_file, Some("/etc/mailroute/endpoint-ca/ca.crt".into()));
    }

    #[test]
    fn a_secret_becomes_the_files_that_it_is_mounted_as() {
        let dir = "/var/run/secrets/mailroute/credential";
        let of = |type_, key: Option<&str>| {
            let spec = samples::with_secret(type_, key).spec;
            (submitted(&spec).credential, secret(&spec).map(|(name, _)| name.to_owned()))
        };
        let client_id = || samples::CLIENT_ID.to_owned();
        let secret_file = PathBuf::from(format!("{dir}/secret"));
        let name = Some("m365".to_owned());
        assert_eq!(
            of(CredentialType::ClientSecret, Some("client-secret")),
            (
                file::Credential::ClientSecret { client_id: client_id(), secret_file: secret_file.clone() },
                name.clone()
            )
        );
        assert_eq!(
            of(CredentialType::Password, Some("password")),
            (file::Credential::Password { password_file: secret_file }, name.clone())
        );
        for (key, key_file) in [(None, "tls.key"), (Some("both.pem"), "tls.crt")] {
            let files = CertificateFiles {
                certificate_file: format!("{dir}/tls.crt").into(),
                key_file: format!("{dir}/{key_file}").into(),
            };
            assert_eq!(
                of(CredentialType::ClientCertificate, key),
                (file::Credential::ClientCertificate { client_id: client_id(), files }, name.clone())
            );
        }
    }

    #[test]
    fn the_operators_tokens_go_where_the_platform_says() {
        let settings = Settings::parse(&format!(
            "applications: [{{tenantId: contoso.com, clientId: {}, authority: {{host: 'login.m365.svc:8443'}}, \
             endpoint: {{host: smtp.m365.svc, port: 25, caPem: PEM}}, \
             allow: [{{namespaces: [shop], mailboxes: ['*@contoso.com']}}]}}]",
            samples::CLIENT_ID
        ));
        let file::Method::ClientSubmission(submission) =
            method(&samples::lent().spec, settings.unwrap().applications.first()).unwrap()
        else {
            panic!("another method")
        };
        let client_id = samples::CLIENT_ID.to_owned();
        assert_eq!(submission.credential, file::Credential::Operator { client_id });
        assert_eq!(
            (submission.authority.host.as_str(), submission.authority.tenant.as_str()),
            ("login.m365.svc:8443", "contoso.com")
        );
        assert_eq!((submission.endpoint.host.as_str(), submission.endpoint.port), ("smtp.m365.svc", 25));
        assert_eq!(submission.endpoint.ca_pem.as_deref(), Some("PEM"));
        assert_eq!(submitted(&samples::lent().spec).endpoint, file::Endpoint::new("smtp.office365.com", 587));
    }

    #[test]
    fn the_smart_host_is_the_mx_of_the_first_accepted_domain_unless_it_is_named() {
        let mut route = samples::relay(true);
        let found = relayed(&route.spec);
        assert_eq!(found.host, HostName::MxOf("contoso.com".into()));
        assert_eq!((found.port, found.tls), (25, file::TlsMode::Required));
        assert_eq!(place(&method(&route.spec, None).unwrap()), "MX of contoso.com:25");
        let named = "contoso-com.mail.protection.outlook.com";
        route.spec.endpoint = Some(Endpoint { host: Some(named.into()), ..Default::default() });
        assert_eq!(relayed(&route.spec).host, HostName::Fixed(named.into()));
        assert_eq!(place(&method(&route.spec, None).unwrap()), format!("{named}:25"));
    }

    #[test]
    fn only_direct_send_goes_without_tls_unless_it_is_told_to() {
        assert_eq!(relayed(&samples::relay(false).spec).tls, file::TlsMode::Required);
        assert_eq!(relayed(&samples::direct().spec).tls, file::TlsMode::Opportunistic);
        let opportunistic = Some(Endpoint { tls: Some(TlsMode::Opportunistic), ..Default::default() });
        let mut by_address = samples::relay(false);
        by_address.spec.endpoint.clone_from(&opportunistic);
        assert_eq!(relayed(&by_address.spec).tls, file::TlsMode::Opportunistic);
        for mut route in [samples::relay(true), samples::route()] {
            route.spec.endpoint.clone_from(&opportunistic);
            assert!(method(&route.spec, None).is_err());
        }
    }

    #[test]
    fn every_method_has_a_sender_to_show() {
        assert_eq!(sender(&samples::route().spec).as_deref(), Some("noreply@contoso.com"));
        let mut relay = samples::relay(true).spec;
        assert_eq!(sender(&relay).as_deref(), Some("*@contoso.com and 1 more"));
        relay.senders = Some(crate::crd::local::Senders {
            allow: vec!["a@contoso.com".into()],
            on_violation: Default::default(),
        });
        assert_eq!(sender(&relay).as_deref(), Some("a@contoso.com"));
    }
}
