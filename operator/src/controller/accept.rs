//! Whether a route is accepted: what it says makes sense, and the platform lets its namespace have what it names. Pure.
//!
//! The status shows the answer, and nothing is leased to pods of a route that is not accepted.

use kube::ResourceExt;
use serde::Deserialize;

use super::status::Acceptance;
use super::validate::{self, Valid};
use crate::broker::settings::{Rule, Settings};
use crate::crd::MailRoute;
use crate::inject::Refusal;

/// Which namespaces may send as which mailbox, as the chart's values say. Empty: every namespace as every mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailboxRules {
    /// The rules. Once there is one, what no rule allows is refused.
    #[serde(default)]
    pub mailboxes: Vec<Rule>,
}

/// Why the rules cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// Not YAML, or not of this shape.
    #[error("the mailbox rules are not valid: {0}")]
    Shape(#[from] serde_saphyr::Error),
    /// A value that cannot be.
    #[error("mailboxes[{index}].{field}: {wrong}")]
    Value {
        /// Which rule, from 0.
        index: usize,
        /// Which field of it.
        field: &'static str,
        /// What to put there.
        wrong: String,
    },
}

/// The platform does not let the namespace send as the mailbox.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the namespace {namespace} may not send as {mailbox}")]
pub struct MailboxNotAllowed {
    /// Where the route is.
    pub namespace: String,
    /// What the route names.
    pub mailbox: String,
}

impl MailboxRules {
    /// Parses the file with the rules.
    ///
    /// # Errors
    /// With the field that is wrong.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let rules: Self = serde_saphyr::from_str(text)?;
        for (index, rule) in rules.mailboxes.iter().enumerate() {
            if let Some((field, wrong)) = rule.wrong() {
                return Err(RulesError::Value { index, field, wrong });
            }
        }
        Ok(rules)
    }

    /// Whether the namespace of a route may send as the mailbox that it names.
    ///
    /// # Errors
    /// When it may not.
    pub fn allow(&self, route: &MailRoute) -> Result<(), MailboxNotAllowed> {
        let Some(submission) = &route.spec.client_submission else { return Ok(()) };
        let (namespace, mailbox) = (route.namespace().unwrap_or_default(), submission.mailbox.clone());
        let mut rules = self.mailboxes.iter();
        if self.mailboxes.is_empty() || rules.any(|rule| rule.is_for(&namespace) && rule.has(&mailbox)) {
            return Ok(());
        }
        Err(MailboxNotAllowed { namespace, mailbox })
    }
}

/// What a route amounts to, if it is accepted.
///
/// # Errors
/// Why it is not.
pub fn accept(route: &MailRoute, lending: &Settings, rules: &MailboxRules) -> Result<Valid, Acceptance> {
    rules.allow(route).map_err(Acceptance::MailboxNotAllowed)?;
    let lent = lending.lent_to(route).map_err(Acceptance::NotAllowed)?;
    validate::validate_with(route, lent, &lending.entra_audiences).map_err(Acceptance::Invalid)
}

/// Whether pods of the route can have a sidecar, as far as that is the route's to say. One that may not use the operator's
/// identity is looked at without it: its pods start, and its status says why they get no tokens.
///
/// # Errors
/// What the route has wrong.
pub fn injectable(route: &MailRoute, lending: &Settings) -> Result<(), Refusal> {
    let lent = lending.lent_to(route).ok().flatten();
    let valid = validate::validate_with(route, lent, &lending.entra_audiences);
    valid
        .map(drop)
        .map_err(|error| Refusal::InvalidRoute { route: route.name_any(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn accepted(rules: &str) -> Result<(), Acceptance> {
        accept(&samples::route(), &Settings::default(), &MailboxRules::parse(rules).unwrap()).map(drop)
    }

    #[test]
    fn without_rules_every_namespace_may_send_as_every_mailbox() {
        assert_eq!((accepted("{}"), accepted("mailboxes: []")), (Ok(()), Ok(())));
    }

    #[test]
    fn with_rules_a_namespace_may_send_as_what_they_list_for_it_and_nothing_else() {
        let refused = Err(Acceptance::MailboxNotAllowed(MailboxNotAllowed {
            namespace: "shop".into(),
            mailbox: "noreply@contoso.com".into(),
        }));
        for (rules, expected) in [
            ("[{namespaces: [shop], mailboxes: [NoReply@contoso.com]}]", Ok(())),
            ("[{namespaces: ['*'], mailboxes: ['*@contoso.com']}]", Ok(())),
            ("[{namespaces: [billing], mailboxes: [noreply@contoso.com]}]", refused.clone()),
            ("[{namespaces: [shop], mailboxes: [billing@contoso.com]}]", refused.clone()),
            (
                "[{namespaces: [shop], mailboxes: [a@contoso.com]}, {namespaces: [b], mailboxes: ['*@contoso.com']}]",
                refused,
            ),
        ] {
            assert_eq!(accepted(&format!("mailboxes: {rules}")), expected, "{rules}");
        }
    }

    #[test]
    fn a_route_that_is_invalid_or_has_no_leave_for_the_operators_identity_is_not_accepted() {
        let rules = MailboxRules::default();
        let lent = accept(&samples::lent(), &Settings::default(), &rules);
        assert!(matches!(lent, Err(Acceptance::NotAllowed(_))), "{lent:?}");
        let mut broken = samples::route();
        broken.spec.delivery.wait = "soon".into();
        let broken = accept(&broken, &Settings::default(), &rules);
        assert!(matches!(broken, Err(Acceptance::Invalid(_))), "{broken:?}");
    }

    #[test]
    fn a_rule_that_makes_no_sense_is_named() {
        let error =
            MailboxRules::parse("mailboxes: [{namespaces: [], mailboxes: [a@b.example]}]").unwrap_err();
        assert!(error.to_string().starts_with("mailboxes[0].namespaces: "), "{error}");
        assert!(MailboxRules::parse("mailboxes: [{namespaces: [a], mailboxes: ['*']}]").is_err());
        assert!(MailboxRules::parse("mailbox: []").is_err());
    }
}
