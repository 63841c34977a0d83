//! The way as people are shown it: where mail goes, and from whom.

use mailroute_route::RouteFile;
use mailroute_route::file::{self, HostName};

/// Where mail is handed to, for people: `host:port`, or whose MX record says.
pub fn place(method: &file::Method) -> String {
    let smart_host = match method {
        file::Method::ClientSubmission(submission) => {
            return format!("{}:{}", submission.endpoint.host, submission.endpoint.port);
        }
        file::Method::Graph(graph) => {
            return format!("{}:{}", graph.endpoint.host, graph.endpoint.port);
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
pub fn sender(file: &RouteFile) -> Option<String> {
    let accepted = match &file.method {
        file::Method::ClientSubmission(submission) => return Some(submission.mailbox.clone()),
        file::Method::Graph(graph) => return Some(graph.mailbox.clone()),
        file::Method::SmtpRelay(relay) => &relay.accepted_domains,
        file::Method::DirectSend(direct) => &direct.accepted_domains,
    };
    let named = match &file.senders {
        Some(senders) => senders.allow.clone(),
        None => accepted.iter().map(|domain| format!("*@{domain}")).collect(),
    };
    match named.as_slice() {
        [] => None,
        [one] => Some(one.clone()),
        [first, others @ ..] => Some(format!("{first} and {} more", others.len())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crd::MailRoute;
    use crate::crd::local::Senders;
    use crate::samples;

    #[test]
    fn every_method_has_a_sender_to_show() {
        let shown = |route: &MailRoute| sender(&samples::resolved(route).file);
        assert_eq!(shown(&samples::route()).as_deref(), Some("noreply@contoso.com"));
        let mut relay = samples::relay(true);
        assert_eq!(shown(&relay).as_deref(), Some("*@contoso.com and 1 more"));
        relay.spec.senders =
            Some(Senders { allow: vec!["a@contoso.com".into()], on_violation: Default::default() });
        assert_eq!(shown(&relay).as_deref(), Some("a@contoso.com"));
    }
}
