//! How a route's mail leaves, resolved: presets of the cloud looked up, references turned into mounted paths. Pure.
//!
//! The same answers serve the rendered route, the status and the pod's mounts, so that they cannot disagree.

use mailroute_route::file::{self, Authority};

use super::credential::{credential, pair};
use super::endpoints::{SUBMISSION_PORT, accepted_domains, authority, endpoint, smart_host};
use super::invalid::Invalid;
use super::operator_identity::Application;
use crate::crd::MailRouteSpec;
use crate::crd::method::Method;

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
    Ok(file::ClientSubmission::new(block.mailbox.as_str(), credential, authority, endpoint))
}

/// Where the operator's tokens come from and where they are used: never what the route says, which could carry them
/// elsewhere.
fn platforms(
    spec: &MailRouteSpec,
    lent: Option<&Application>,
) -> Result<(Authority, file::Endpoint), Invalid> {
    if spec.endpoint.is_some() {
        return Err(Invalid::SetByPlatform("endpoint"));
    }
    if spec.tenant.authority.is_some() {
        return Err(Invalid::SetByPlatform("tenant.authority"));
    }
    let host_missing = || Invalid::PlatformHostMissing(spec.tenant.cloud);
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

#[cfg(test)]
pub(super) mod tests {
    use mailroute_route::file::SmartHost;

    use super::*;
    use crate::resolve::operator_identity::OperatorIdentity;
    use crate::samples;

    pub(in crate::resolve) fn submitted(spec: &MailRouteSpec) -> file::ClientSubmission {
        let file::Method::ClientSubmission(submission) = method(spec, None).unwrap() else {
            panic!("another method")
        };
        submission
    }

    pub(in crate::resolve) fn relayed(spec: &MailRouteSpec) -> SmartHost {
        match method(spec, None).unwrap() {
            file::Method::SmtpRelay(relay) => relay.smart_host,
            file::Method::DirectSend(direct) => direct.smart_host,
            file::Method::ClientSubmission(_) | file::Method::Graph(_) => panic!("another method"),
        }
    }

    #[test]
    fn the_operators_tokens_go_where_the_platform_says() {
        let settings = OperatorIdentity::parse(&format!(
            "applications: [{{tenantId: contoso.com, clientId: {}, authority: {{host: 'login.m365.svc:8443'}}, \
             endpoint: {{host: smtp.m365.svc, port: 25, caPem: PEM}}, \
             allow: [{{namespaces: [shop], mailboxes: ['*@contoso.com']}}]}}]",
            samples::CLIENT_ID
        ));
        let file::Method::ClientSubmission(submission) =
            method(&samples::with_operator_identity().spec, settings.unwrap().applications.first()).unwrap()
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
        assert_eq!(
            submitted(&samples::with_operator_identity().spec).endpoint,
            file::Endpoint::new("smtp.office365.com", 587)
        );
    }
}
