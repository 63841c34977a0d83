//! Whom messages may go to: the rule of `spec.recipients`.
//!
//! Owns which recipients the route allows and what becomes of others: each is refused, or one address gets the message in place of
//! all of them. Addresses are compared as [`super::senders`] compares them. Refuses to know which recipients the route's method reaches.

use mailroute_route::RouteFile;

use super::senders::{admits, listed};
use crate::message::envelope::Address;

/// The header field that names recipients in whose place another address gets the message.
pub const ORIGINAL_TO: &str = "X-MailRoute-Original-To";

/// What the names of `To` and `Cc` begin with where they may not name recipients any more.
pub const ORIGINAL_HEADER: &str = "X-MailRoute-Header-";

/// Most addresses that the header field names, so that it stays well below the header that Exchange takes.
const MAX_NAMED: usize = 100;

/// The rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recipients {
    /// Addresses and `*@domain` that are allowed.
    pub allow: Vec<Box<str>>,
    /// Who gets what is meant for others. None: others are refused.
    pub redirect_to: Option<Address>,
}

/// What the rule says of one recipient.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Judgement<'r> {
    /// It can stay.
    Allowed,
    /// This one gets the message instead.
    Redirected(&'r Address),
    /// It is refused; who is allowed.
    Refused(String),
}

impl Recipients {
    /// The rule of a route, if it has one.
    pub fn of(route: &RouteFile) -> Option<Self> {
        let rule = route.recipients.as_ref()?;
        Some(Self {
            allow: rule.allow.iter().map(|entry| entry.as_str().into()).collect(),
            redirect_to: rule.redirect_to.as_deref().and_then(|to| Address::parse(to).ok()),
        })
    }

    /// Judges one recipient.
    pub fn judge(&self, address: &Address) -> Judgement<'_> {
        match &self.redirect_to {
            _ if self.allow.iter().any(|entry| admits(entry, address)) => Judgement::Allowed,
            Some(to) if is_same(to, address) => Judgement::Allowed,
            Some(to) => Judgement::Redirected(to),
            None => Judgement::Refused(listed(self.allow.iter().map(|entry| entry.to_string()).collect())),
        }
    }
}

/// Whether two addresses are one mailbox's.
pub fn is_same(one: &Address, other: &Address) -> bool {
    one.as_str().eq_ignore_ascii_case(other.as_str())
}

/// The header field for recipients that were `redirected`. Others who get the message as well, `among_others`, could learn
/// from it who was in Bcc: then it gives their number alone.
pub fn original_to(redirected: &[Address], among_others: bool) -> String {
    let mut field = format!("{ORIGINAL_TO}: ");
    if among_others {
        let count = redirected.len();
        field.push_str(&format!("not named, as others get the message as well (recipients: {count})"));
    } else {
        // One address a line: no line is longer than an address may be.
        let named: Vec<_> = redirected.iter().take(MAX_NAMED).map(Address::as_str).collect();
        field.push_str(&named.join(",\r\n "));
        if redirected.len() > MAX_NAMED {
            field.push_str(&format!(",\r\n (and {} more)", redirected.len() - MAX_NAMED));
        }
    }
    field.push_str("\r\n");
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn rule(redirect_to: Option<&str>) -> Recipients {
        let allow = vec!["qa@fabrikam.com".into(), "*@contoso.com".into()];
        Recipients { allow, redirect_to: redirect_to.map(address) }
    }

    #[test]
    fn listed_addresses_and_whole_domains_are_allowed() {
        for to in ["QA@Fabrikam.com", "any.one@CONTOSO.com", "\"a b\"@contoso.com"] {
            for rule in [rule(None), rule(Some("staging@x.example"))] {
                assert_eq!(rule.judge(&address(to)), Judgement::Allowed, "{to}");
            }
        }
        let staging = rule(Some("staging@x.example"));
        assert_eq!(staging.judge(&address("Staging@X.example")), Judgement::Allowed);
    }

    #[test]
    fn others_are_refused_or_redirected() {
        for to in ["ann@fabrikam.com", "a@sub.contoso.com", "a@contoso.com.evil", "postmaster"] {
            let refused = Judgement::Refused("qa@fabrikam.com, *@contoso.com".into());
            assert_eq!(rule(None).judge(&address(to)), refused, "{to}");
            let staging = address("staging@x.example");
            assert_eq!(
                rule(Some("staging@x.example")).judge(&address(to)),
                Judgement::Redirected(&staging),
                "{to}"
            );
        }
    }

    #[test]
    fn the_field_names_them_one_in_a_line() {
        let field = original_to(&[address("ann@fabrikam.com"), address("\"a b\"@c")], false);
        assert_eq!(field, "X-MailRoute-Original-To: ann@fabrikam.com,\r\n \"a b\"@c\r\n");
    }

    #[test]
    fn nobody_is_named_to_others() {
        let field = original_to(&[address("ann@fabrikam.com"), address("bob@fabrikam.com")], true);
        assert!(field.ends_with(" (recipients: 2)\r\n") && !field.contains('@'), "{field}");
    }

    #[test]
    fn the_field_is_bounded() {
        let many: Vec<_> = (0..1000).map(|at| address(&format!("{at}{}@c", "a".repeat(300)))).collect();
        let field = original_to(&many, false);
        assert!(field.len() < 40_000 && field.ends_with(",\r\n (and 900 more)\r\n"), "{}", field.len());
    }
}
