//! How a route's mail leaves, resolved: presets of the cloud looked up, references turned into mounted paths. Pure.
//!
//! The same answers serve the rendered route, the status and the pod's mounts, so that they cannot disagree.

use mailroute_route::file::{self, Authority, SubmissionService};

use super::credential::{credential, pair};
use super::endpoints::{
    SUBMISSION_PORT, accepted_domains, authority, endpoint, fallback_endpoint, graph_endpoint, smart_host,
};
use super::invalid::Invalid;
use super::limits::largest_by_graph;
use super::operator_identity::Application;
use crate::crd::MailRouteSpec;
use crate::crd::method::{ClientSubmission, GraphFallback, Method};

/// The method with everything that the sidecar needs for it. `lent` is what the platform lends the route, where it uses the
/// operator's identity.
///
/// # Errors
/// When something is missing that the method needs.
pub fn method(spec: &MailRouteSpec, lent: Option<&Application>) -> Result<file::Method, Invalid> {
    match spec.method {
        Method::ClientSubmission => submission(spec, lent).map(file::Method::ClientSubmission),
        Method::Graph => graph(spec).map(file::Method::Graph),
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
    let credential = credential("clientSubmission", &block.credential)?;
    let preset = spec.tenant.cloud.service(block.service);
    let (authority, endpoint) = match &credential {
        file::Credential::Operator { .. } if block.service != SubmissionService::ExchangeOnline => {
            return Err(Invalid::OperatorOfAnotherScope("clientSubmission"));
        }
        file::Credential::Operator { .. } => platforms(spec, lent)?,
        _ => (authority(spec, preset.scope), endpoint(spec, preset.host)?),
    };
    let accepted_domains = match block.service {
        SubmissionService::HighVolumeEmail if spec.tenant.accepted_domains.is_empty() => {
            return Err(Invalid::InternalDomainsMissing);
        }
        SubmissionService::HighVolumeEmail => spec.tenant.accepted_domains.clone(),
        SubmissionService::ExchangeOnline | SubmissionService::CommunicationServices => vec![],
    };
    let mailboxes = mailboxes(spec, block)?;
    if !mailboxes.is_empty()
        && (block.service != SubmissionService::ExchangeOnline || is_password(&credential))
    {
        return Err(Invalid::MailboxesOfOneLogin);
    }
    Ok(file::ClientSubmission {
        service: block.service,
        mailboxes,
        spread: block.spread.then_some(block.spread_from),
        username: block.username.clone(),
        accepted_domains,
        ..file::ClientSubmission::new(block.mailbox.as_str(), credential, authority, endpoint)
    })
}

const fn is_password(credential: &file::Credential) -> bool {
    matches!(credential, file::Credential::Password { .. })
}

/// All mailboxes with their senders, the one for everything else first; none where it is alone.
fn mailboxes(spec: &MailRouteSpec, block: &ClientSubmission) -> Result<Vec<file::SendingMailbox>, Invalid> {
    if block.mailboxes.is_empty() {
        return Ok(vec![]);
    }
    let senders = |address: &str| {
        let listed = block.mailboxes.iter().filter(|it| it.address.eq_ignore_ascii_case(address));
        listed.flat_map(|it| it.senders.clone()).collect()
    };
    let mut mailboxes: Vec<file::SendingMailbox> = Vec::new();
    for address in block.addresses() {
        let domains = &spec.tenant.accepted_domains;
        if !domains.is_empty() && !domains.iter().any(|domain| is_below(address, domain)) {
            return Err(Invalid::MailboxOfAnotherDomain(address.to_owned()));
        }
        if !mailboxes.iter().any(|known| known.address.eq_ignore_ascii_case(address)) {
            mailboxes.push(file::SendingMailbox { address: address.to_owned(), senders: senders(address) });
        }
    }
    if mailboxes.len() > file::MAX_MAILBOXES {
        return Err(Invalid::TooManyMailboxes);
    }
    Ok(mailboxes)
}

/// Whether an address is in a domain or below it.
fn is_below(address: &str, domain: &str) -> bool {
    let (address, domain) = (address.to_ascii_lowercase(), domain.to_ascii_lowercase());
    address.ends_with(&format!("@{domain}")) || address.ends_with(&format!(".{domain}"))
}

fn graph(spec: &MailRouteSpec) -> Result<file::Graph, Invalid> {
    let block = spec.graph.as_ref().ok_or(Invalid::BlockMissing("graph"))?;
    let credential = credential("graph", &block.credential)?;
    match credential {
        file::Credential::Password { .. } => return Err(Invalid::PasswordByGraph),
        file::Credential::Operator { .. } => return Err(Invalid::OperatorOfAnotherScope("graph")),
        _ => {}
    }
    let preset = spec.tenant.cloud.preset();
    let fallback = match block.fallback {
        GraphFallback::None => None,
        GraphFallback::ClientSubmission => Some(file::Submission {
            scope: preset.scope.to_owned(),
            endpoint: fallback_endpoint(spec, block.fallback_endpoint.as_ref())?,
        }),
    };
    Ok(file::Graph {
        mailbox: block.mailbox.clone(),
        credential,
        authority: authority(spec, preset.graph_scope),
        endpoint: graph_endpoint(spec)?,
        max_message_bytes: largest_by_graph(block)?,
        fallback,
    })
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
            let authority = authority(spec, spec.tenant.cloud.preset().scope);
            Ok((authority, file::Endpoint::new(host, SUBMISSION_PORT)))
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

    pub(in crate::resolve) fn by_graph(spec: &MailRouteSpec) -> file::Graph {
        let file::Method::Graph(graph) = method(spec, None).unwrap() else { panic!("another method") };
        graph
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
