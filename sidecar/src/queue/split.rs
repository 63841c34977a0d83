//! Which recipients one transaction may have: those that the route's method reaches, within Microsoft's limits on an
//! envelope.
//!
//! Pure. What is split here is joined again in the status of each recipient, so nobody outside sees the parts.

use std::collections::HashMap;

use mailroute_route::RouteFile;
use mailroute_route::file::Method;

use crate::message::envelope::{Address, Envelope, ReversePath};
use crate::smtp::senders::{Judgement, Senders};

/// Most recipients of one domain in one transaction (Microsoft 365: `452 4.5.3 Too many recipients` beyond it).
pub const PER_DOMAIN: usize = 200;

/// The waiting recipients of a kept message, by whether the route's method reaches them.
#[derive(Debug, PartialEq, Eq)]
pub struct Reach {
    /// Positions of those that it reaches.
    pub within: Vec<usize>,
    /// Why it does not reach the others; nothing when it reaches all.
    pub beyond: Option<String>,
}

/// Sorts the recipients at `waiting`, positions in the envelope, by whether the route's method reaches them.
pub fn reach(route: &RouteFile, envelope: &Envelope, waiting: Vec<usize>) -> Reach {
    let mut reach = Reach { within: waiting, beyond: None };
    reach.within.retain(|&position| {
        let to = envelope.recipients.get(position);
        let why = to.and_then(|to| out_of_reach(route, &envelope.reverse_path, to));
        let is_within = why.is_none();
        reach.beyond = why.or(reach.beyond.take());
        is_within
    });
    reach
}

/// Why the route's method can never take a kept message to this recipient, as after a change of method: the rules of the
/// method alone, which MAIL and RCPT had to meet. The upstream would blame the route for it.
fn out_of_reach(route: &RouteFile, sender: &ReversePath, recipient: &Address) -> Option<String> {
    let method = Senders { allow: None, ..Senders::of(route) };
    match (&route.method, method.judge_reverse_path(sender)) {
        (Method::DirectSend(direct), _) => {
            let ours =
                direct.accepted_domains.iter().any(|ours| ours.eq_ignore_ascii_case(recipient.domain()));
            let domains = direct.accepted_domains.join(", ");
            (!ours).then(|| format!("the method DirectSend reaches recipients in {domains} only"))
        }
        (Method::ClientSubmission(submission), _) if submission.is_internal() => {
            let ours = &submission.accepted_domains;
            let is_ours = ours.iter().any(|ours| ours.eq_ignore_ascii_case(recipient.domain()));
            (!is_ours).then(|| format!("High Volume Email reaches recipients in {} only", ours.join(", ")))
        }
        (Method::SmtpRelay(relay), Judgement::Refused(_) | Judgement::Rewrite) => {
            let domains = relay.accepted_domains.join(", ");
            Some(format!("the method SmtpRelay takes mail from senders in {domains} only"))
        }
        _ => None,
    }
}

/// The recipients at `waiting`, positions in `recipients`, in as many groups as the route's method needs: Graph reads the
/// recipients from the header, so a part of them would be all of them.
pub fn groups(route: &RouteFile, recipients: &[Address], waiting: Vec<usize>) -> Vec<Vec<usize>> {
    if waiting.is_empty() {
        return vec![];
    }
    if matches!(route.method, Method::Graph(_)) {
        return vec![waiting];
    }
    grouped(recipients, &waiting, most(route))
}

fn most(route: &RouteFile) -> usize {
    usize::try_from(route.limits.max_recipients).unwrap_or(usize::MAX)
}

/// The recipients at `waiting`, positions in `recipients`, in as few groups as fit the limits, each in the order of
/// the envelope. A domain's later recipients wait for the group after, while other domains fill the one before.
fn grouped(recipients: &[Address], waiting: &[usize], most: usize) -> Vec<Vec<usize>> {
    let most = most.max(1);
    let mut groups: Vec<Group> = Vec::new();
    // Groups before it are full, so that a long list is not looked through again for every recipient.
    let mut open = 0;
    for &position in waiting {
        let domain = recipients.get(position).map_or_else(String::new, |to| to.domain().to_ascii_lowercase());
        while groups.get(open).is_some_and(|group| group.positions.len() >= most) {
            open += 1;
        }
        let found = (open..groups.len()).find(|&at| groups[at].has_room(&domain, most));
        let at = found.unwrap_or_else(|| {
            groups.push(Group::default());
            groups.len() - 1
        });
        groups[at].take(position, domain);
    }
    groups.into_iter().map(|group| group.positions).collect()
}

/// Whether one transaction by the route's method can have all of these recipients.
pub fn fits(route: &RouteFile, recipients: &[Address]) -> bool {
    matches!(route.method, Method::Graph(_)) || are_one_group(recipients, most(route))
}

fn are_one_group(recipients: &[Address], most: usize) -> bool {
    // The common case needs no counting.
    if recipients.len() <= PER_DOMAIN.min(most) {
        return true;
    }
    let all: Vec<usize> = (0..recipients.len()).collect();
    grouped(recipients, &all, most).len() == 1
}

#[derive(Default)]
struct Group {
    positions: Vec<usize>,
    domains: HashMap<String, usize>,
}

impl Group {
    fn has_room(&self, domain: &str, most: usize) -> bool {
        self.positions.len() < most && self.domains.get(domain).is_none_or(|&count| count < PER_DOMAIN)
    }

    fn take(&mut self, position: usize, domain: String) {
        self.positions.push(position);
        *self.domains.entry(domain).or_default() += 1;
    }
}

#[cfg(test)]
mod tests {
    use mailroute_route::file::{
        Chunking, ClientSubmission, DirectSend, Graph, HostName, OnViolation, SmartHost, SmtpRelay,
        SubmissionService, TlsMode,
    };
    use proptest::prelude::*;

    use super::*;
    use crate::config::tests::SAMPLE;

    fn addresses(domains: impl IntoIterator<Item = usize>) -> Vec<Address> {
        let address = |(n, domain)| Address::parse(&format!("u{n}@d{domain}.example")).unwrap();
        domains.into_iter().enumerate().map(address).collect()
    }

    fn all(recipients: &[Address]) -> Vec<usize> {
        (0..recipients.len()).collect()
    }

    #[test]
    fn what_goes_by_graph_is_never_sent_in_parts() {
        let mut route = RouteFile::parse(SAMPLE.as_bytes()).unwrap();
        let to = addresses(std::iter::repeat_n(1, 450));
        assert!(!fits(&route, &to) && groups(&route, &to, all(&to)).len() > 1);
        let Method::ClientSubmission(submission) = route.method else { panic!("the sample's method") };
        let ClientSubmission { mailbox, credential, authority, endpoint, .. } = submission;
        let (max_message_bytes, fallback) = (3 << 20, None);
        route.method =
            Method::Graph(Graph { mailbox, credential, authority, endpoint, max_message_bytes, fallback });
        assert!(fits(&route, &to));
        assert_eq!(groups(&route, &to, all(&to)), [all(&to)]);
        assert!(groups(&route, &to, vec![]).is_empty());
    }

    #[test]
    fn high_volume_email_reaches_the_tenants_own() {
        let mut route = RouteFile::parse(SAMPLE.as_bytes()).unwrap();
        let Method::ClientSubmission(submission) = &mut route.method else { panic!("the sample's method") };
        (submission.service, submission.accepted_domains) =
            (SubmissionService::HighVolumeEmail, vec!["D1.example".into()]);
        let to = addresses([1, 2]);
        let (sender, beyond) = (ReversePath::Null, "High Volume Email reaches recipients in D1.example only");
        assert_eq!(out_of_reach(&route, &sender, &to[0]), None);
        assert_eq!(out_of_reach(&route, &sender, &to[1]).as_deref(), Some(beyond));
    }

    #[test]
    fn a_usual_envelope_is_one_group_in_its_order() {
        let to = addresses([0, 1, 0]);
        assert_eq!(grouped(&to, &all(&to), 500), [[0, 1, 2]]);
        assert!(are_one_group(&to, 500));
    }

    #[test]
    fn more_than_two_hundred_of_one_domain_are_two_groups() {
        let to = addresses([0; 201]);
        let groups = grouped(&to, &all(&to), 500);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [200, 1]);
        assert!(!are_one_group(&to, 500) && are_one_group(&to[..200], 500));
    }

    #[test]
    fn other_domains_fill_the_group_that_one_domain_is_done_with() {
        let to = addresses([0; 250].into_iter().chain([1; 50]));
        let groups = grouped(&to, &all(&to), 500);
        assert_eq!(groups.iter().map(Vec::len).collect::<Vec<_>>(), [250, 50]);
        assert_eq!(groups[0][200..], (250..300).collect::<Vec<_>>());
    }

    #[test]
    fn spelling_makes_no_second_domain() {
        let mut to = addresses([0; 200]);
        to.push(Address::parse("x@D0.EXAMPLE").unwrap());
        assert!(!are_one_group(&to, 500));
    }

    #[test]
    fn only_the_methods_own_rules_put_kept_mail_out_of_reach() {
        let address = |text: &str| Address::parse(text).unwrap();
        let reach = |route: &RouteFile, from: &str, to: &str| {
            out_of_reach(route, &ReversePath::Address(address(from)), &address(to)).is_none()
        };
        let mut route = RouteFile::parse(SAMPLE.as_bytes()).unwrap();
        let accepted_domains = vec!["contoso.com".to_owned()];
        route.senders =
            Some(mailroute_route::file::Senders { allow: vec![], on_violation: OnViolation::Reject });
        assert!(reach(&route, "ceo@fabrikam.com", "ann@fabrikam.com"), "the upstream decides");
        let host = HostName::MxOf("contoso.com".into());
        let smart_host = SmartHost {
            host,
            port: 25,
            tls: TlsMode::Opportunistic,
            ca_file: None,
            chunking: Chunking::default(),
        };
        let relay = SmtpRelay {
            certificate: None,
            accepted_domains: accepted_domains.clone(),
            smart_host: smart_host.clone(),
        };
        route.method = Method::SmtpRelay(relay);
        assert!(reach(&route, "app@Contoso.com", "ann@fabrikam.com"));
        assert!(!reach(&route, "app@fabrikam.com", "ann@contoso.com"));
        assert!(out_of_reach(&route, &ReversePath::Null, &address("ann@contoso.com")).is_none());
        route.method = Method::DirectSend(DirectSend { accepted_domains, smart_host });
        assert!(reach(&route, "app@fabrikam.com", "ann@CONTOSO.com"));
        assert!(!reach(&route, "app@contoso.com", "ann@fabrikam.com"));
    }

    proptest! {
        #[test]
        fn every_recipient_is_in_exactly_one_group_within_the_limits(
            domains in proptest::collection::vec(0_usize..4, 0..900), most in 1_usize..600,
        ) {
            let to = addresses(domains);
            let groups = grouped(&to, &all(&to), most);
            let mut seen: Vec<usize> = groups.concat();
            seen.sort_unstable();
            prop_assert_eq!(seen, all(&to));
            for group in &groups {
                prop_assert!(!group.is_empty() && group.len() <= most);
                for domain in 0..4 {
                    let name = format!("d{domain}.example");
                    prop_assert!(group.iter().filter(|&&at| to[at].domain() == name).count() <= PER_DOMAIN);
                }
            }
        }
    }
}
