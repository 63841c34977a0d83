//! The way as people are shown it: where mail goes, and from whom.

use mailroute_route::file::{self, HostName};

use crate::crd::MailRouteSpec;

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

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
