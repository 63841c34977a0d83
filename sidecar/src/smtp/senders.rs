//! Who may be named as the sender, in MAIL, `From` and `Sender`.
//!
//! Owns the rule of `spec.senders` and the one of SMTP relay. Domains are compared without regard to case, and so are
//! local parts, since Exchange has no two mailboxes that differ in case only; anything beyond ASCII is compared as it is
//! written. Refuses to know how a header is read ([`super::authors`]) and how it is changed.
//!
//! Microsoft refuses a foreign sender too, but only after the whole message (`SendAsDenied`), and counts it.

use mailroute_route::RouteFile;
use mailroute_route::file::{Method, OnViolation};

use super::authors;
use crate::message::envelope::{Address, ReversePath};

/// Most entries that a refusal lists.
const MAX_LISTED: usize = 8;

/// The rules on senders. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Senders {
    /// The mailbox of the route: always allowed, and what stands in for a sender that is not. None by the methods that
    /// need none.
    pub mailbox: Option<Box<str>>,
    /// Addresses and `*@domain` that are allowed beside it. None: all are, and the upstream decides.
    pub allow: Option<Vec<Box<str>>>,
    /// Domains, with those below them, in which the sender of MAIL has to be. None: any.
    pub domains: Option<Vec<Box<str>>>,
    /// What happens to others. There is nothing to rewrite to without a mailbox, so then they are refused.
    pub on_violation: OnViolation,
}

/// What the rules say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It can stay.
    Allowed,
    /// The mailbox has to stand in its place.
    Rewrite,
    /// It is refused; who it is, and who is allowed.
    Refused(String),
}

impl Senders {
    /// The rules of a route: its own, and that of its method.
    pub fn of(route: &RouteFile) -> Self {
        let boxed = |texts: &[String]| texts.iter().map(|text| text.as_str().into()).collect();
        Self {
            mailbox: route.method.mailbox().map(Into::into),
            allow: route.senders.as_ref().map(|senders| boxed(&senders.allow)),
            domains: match &route.method {
                Method::SmtpRelay(relay) => Some(boxed(&relay.accepted_domains)),
                Method::ClientSubmission(_) | Method::DirectSend(_) | Method::Graph(_) => None,
            },
            on_violation: route.senders.as_ref().map(|senders| senders.on_violation).unwrap_or_default(),
        }
    }

    /// Whether `From` and `Sender` have to be looked into.
    pub fn restrict_authors(&self) -> bool {
        self.allow.is_some()
    }

    /// Judges the argument of MAIL. The null sender belongs to notifications, and to nobody.
    pub fn judge_reverse_path(&self, reverse_path: &ReversePath) -> Judgement {
        match reverse_path {
            ReversePath::Null => Judgement::Allowed,
            ReversePath::Address(address) if self.allows(address) && self.is_at_home(address) => {
                Judgement::Allowed
            }
            ReversePath::Address(address) => self.violated_by(address.as_str()),
        }
    }

    /// Judges the value of the field `name`, `From` or `Sender`.
    pub fn judge_authors(&self, name: &str, value: &[u8]) -> Judgement {
        if !self.restrict_authors() {
            return Judgement::Allowed;
        }
        let Some(authors) = authors::parse(value) else {
            return self.violated_by(&format!("a {name} that cannot be read in one way only"));
        };
        match authors.addresses.iter().find(|address| !self.allows(address)) {
            Some(address) => self.violated_by(address.as_str()),
            None if authors.addresses.is_empty() => self.violated_by(&format!("a {name} without an address")),
            None => Judgement::Allowed,
        }
    }

    /// What stands in for a sender after [`Judgement::Rewrite`].
    pub fn substitute(&self) -> ReversePath {
        let mailbox = self.mailbox.as_deref().and_then(|mailbox| Address::parse(mailbox).ok());
        mailbox.map_or(ReversePath::Null, ReversePath::Address)
    }

    fn allows(&self, address: &Address) -> bool {
        let Some(allow) = &self.allow else { return true };
        self.mailbox.iter().chain(allow).any(|entry| admits(entry, address))
    }

    fn is_at_home(&self, address: &Address) -> bool {
        self.domains
            .as_ref()
            .is_none_or(|domains| domains.iter().any(|domain| is_within(address.domain(), domain)))
    }

    fn violated_by(&self, who: &str) -> Judgement {
        if self.on_violation == OnViolation::Rewrite && self.mailbox.is_some() {
            return Judgement::Rewrite;
        }
        let allowed: Vec<_> = match &self.allow {
            Some(allow) => self.mailbox.iter().chain(allow).map(|entry| entry.to_string()).collect(),
            None => self.domains.iter().flatten().map(|domain| format!("*@{domain}")).collect(),
        };
        Judgement::Refused(format!("{who}; allowed: {}", listed(allowed)))
    }
}

/// The entries that a refusal lists.
pub(super) fn listed(allowed: Vec<String>) -> String {
    let more = if allowed.len() > MAX_LISTED { ", …" } else { "" };
    format!("{}{more}", allowed[..allowed.len().min(MAX_LISTED)].join(", "))
}

/// Whether an entry of a list, an address or `*@domain`, holds for an address.
pub(super) fn admits(entry: &str, address: &Address) -> bool {
    let Some((local, domain)) = entry.rsplit_once('@') else { return false };
    let text = address.as_str();
    let own = text.len().checked_sub(address.domain().len() + 1).map_or(text, |len| &text[..len]);
    domain.eq_ignore_ascii_case(address.domain()) && (local == "*" || local.eq_ignore_ascii_case(own))
}

/// Whether `domain` is `parent` or below it.
fn is_within(domain: &str, parent: &str) -> bool {
    let front = domain.len().checked_sub(parent.len());
    front.is_some_and(|len| {
        domain.is_char_boundary(len)
            && domain[len..].eq_ignore_ascii_case(parent)
            && (len == 0 || domain[..len].ends_with('.'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn senders(on_violation: OnViolation) -> Senders {
        Senders {
            mailbox: Some("noreply@contoso.com".into()),
            allow: Some(vec!["billing@contoso.com".into(), "*@alerts.contoso.com".into()]),
            domains: None,
            on_violation,
        }
    }

    fn path(text: &str) -> ReversePath {
        ReversePath::Address(Address::parse(text).unwrap())
    }

    #[test]
    fn mailbox_listed_addresses_and_whole_domains_are_allowed() {
        let senders = senders(OnViolation::Reject);
        for address in [
            "NoReply@Contoso.com",
            "billing@CONTOSO.COM",
            "any.one@alerts.contoso.com",
            "\"a b\"@alerts.contoso.com",
        ] {
            assert_eq!(senders.judge_reverse_path(&path(address)), Judgement::Allowed, "{address}");
            assert_eq!(
                senders.judge_authors("From", format!("X <{address}>").as_bytes()),
                Judgement::Allowed,
                "{address}"
            );
        }
        assert_eq!(senders.judge_reverse_path(&ReversePath::Null), Judgement::Allowed);
    }

    #[test]
    fn all_others_are_refused_and_told_who_is_allowed() {
        let senders = senders(OnViolation::Reject);
        for address in [
            "ceo@contoso.com",
            "x@sub.alerts.contoso.com",
            "x@notalerts.contoso.com",
            "x@contoso.com.evil",
            "postmaster",
        ] {
            let refused = Judgement::Refused(format!(
                "{address}; allowed: noreply@contoso.com, billing@contoso.com, *@alerts.contoso.com"
            ));
            assert_eq!(senders.judge_reverse_path(&path(address)), refused);
        }
        for value in [
            "noreply@contoso.com, ceo@contoso.com",
            "ceo@contoso.com <noreply@contoso.com>",
            "nobody",
            "\"x <noreply@contoso.com>",
        ] {
            assert!(
                matches!(senders.judge_authors("From", value.as_bytes()), Judgement::Refused(_)),
                "{value}"
            );
        }
    }

    #[test]
    fn others_are_rewritten_where_the_route_says_so_and_there_is_a_mailbox() {
        let mut senders = senders(OnViolation::Rewrite);
        assert_eq!(senders.judge_reverse_path(&path("x@y")), Judgement::Rewrite);
        assert_eq!(senders.judge_authors("From", b"x@y"), Judgement::Rewrite);
        senders.mailbox = None;
        assert!(matches!(senders.judge_reverse_path(&path("x@y")), Judgement::Refused(_)));
    }

    #[test]
    fn without_a_list_everybody_is_allowed() {
        let senders = Senders { mailbox: Some("noreply@contoso.com".into()), ..Senders::default() };
        assert_eq!(senders.judge_reverse_path(&path("x@y")), Judgement::Allowed);
        assert_eq!(senders.judge_authors("From", b"nobody"), Judgement::Allowed);
    }

    #[test]
    fn a_relay_sends_for_its_domains_and_those_below() {
        let senders = Senders { domains: Some(vec!["contoso.com".into()]), ..Senders::default() };
        for address in ["a@contoso.com", "a@Mail.Contoso.Com"] {
            assert_eq!(senders.judge_reverse_path(&path(address)), Judgement::Allowed, "{address}");
        }
        for address in ["a@notcontoso.com", "a@contoso.com.evil", "a@com", "a@жcontoso.com"] {
            let refused = Judgement::Refused(format!("{address}; allowed: *@contoso.com"));
            assert_eq!(senders.judge_reverse_path(&path(address)), refused);
        }
        assert_eq!(senders.judge_authors("From", b"x@y"), Judgement::Allowed, "Exchange looks at MAIL only");
    }

    #[test]
    fn a_long_list_is_cut() {
        let allow = (0..100).map(|at| format!("a{at}@b").into()).collect();
        let senders = Senders { allow: Some(allow), ..Senders::default() };
        let Judgement::Refused(text) = senders.judge_reverse_path(&path("x@y")) else { panic!("refused") };
        assert!(text.ends_with("a7@b, …"), "{text}");
    }
}
