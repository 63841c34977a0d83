//! Which namespaces may send as which mailbox. Pure.

use kube::ResourceExt;
use serde::Deserialize;

use super::operator_identity::MailboxRule;
use crate::crd::MailRoute;

/// Which namespaces may send as which mailbox, as the chart's values say. Empty: every namespace as every mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MailboxRules {
    /// The rules. Once there is one, what no rule allows is refused.
    #[serde(default)]
    pub mailboxes: Vec<MailboxRule>,
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

    /// Whether the namespace of a route may send as each mailbox that it names.
    ///
    /// # Errors
    /// When it may not.
    pub fn allow(&self, route: &MailRoute) -> Result<(), MailboxNotAllowed> {
        let namespace = route.namespace().unwrap_or_default();
        let has =
            |mailbox: &str| self.mailboxes.iter().any(|rule| rule.is_for(&namespace) && rule.has(mailbox));
        let mut mailboxes = route.spec.mailboxes().into_iter();
        match mailboxes.find(|mailbox| !self.mailboxes.is_empty() && !has(mailbox)) {
            None => Ok(()),
            Some(mailbox) => {
                let mailbox = mailbox.to_owned();
                Err(MailboxNotAllowed { namespace, mailbox })
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples;

    fn allowed(rules: &str) -> Result<(), MailboxNotAllowed> {
        MailboxRules::parse(rules).unwrap().allow(&samples::route())
    }

    #[test]
    fn without_rules_every_namespace_may_send_as_every_mailbox() {
        assert_eq!((allowed("{}"), allowed("mailboxes: []")), (Ok(()), Ok(())));
    }

    #[test]
    fn with_rules_a_namespace_may_send_as_what_they_list_for_it_and_nothing_else() {
        let refused =
            Err(MailboxNotAllowed { namespace: "shop".into(), mailbox: "noreply@contoso.com".into() });
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
            assert_eq!(allowed(&format!("mailboxes: {rules}")), expected, "{rules}");
        }
    }

    #[test]
    fn graph_sends_as_a_mailbox_too() {
        let rules = |namespace: &str| {
            format!("mailboxes: [{{namespaces: [{namespace}], mailboxes: [noreply@contoso.com]}}]")
        };
        let allowed = |rules: String| MailboxRules::parse(&rules).unwrap().allow(&samples::graph());
        assert!(allowed(rules("shop")).is_ok() && allowed(rules("billing")).is_err());
    }

    #[test]
    fn each_of_several_mailboxes_has_to_be_allowed() {
        let rules = |more: &str| {
            let text = format!("mailboxes: [{{namespaces: [shop], mailboxes: [noreply@contoso.com{more}]}}]");
            MailboxRules::parse(&text).unwrap().allow(&samples::several())
        };
        assert_eq!(rules(", alerts@contoso.com"), Ok(()));
        assert_eq!(rules("").unwrap_err().mailbox, "alerts@contoso.com");
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
