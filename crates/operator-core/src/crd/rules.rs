//! What a route does to messages: whom they may go to (`spec.recipients`), and who gets a copy (`spec.archive`), and
//! which header fields are changed (`spec.headers`).

use kube::KubeSchema;
use mailroute_route::address::{DOMAIN, LOCAL_PART};
use mailroute_route::file;
use mailroute_route::header::{NAME, VALUE, is_protected_in_cel};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whom messages may go to, such as the testers of a staging system. A rule for the recipients that applications name in RCPT.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.onViolation == 'Redirect') == has(self.redirectTo)")
        .message("redirectTo and onViolation Redirect go together: name the address that gets what is meant for others, or leave redirectTo out"),
    validation = Rule::new("self.allow.size() > 0 || self.onViolation == 'Redirect'")
        .message("recipients.allow: list at least one, otherwise every recipient would be refused; onViolation Redirect needs none")
)]
pub struct Recipients {
    /// Addresses, or `*@domain` for all addresses of a domain. The address in redirectTo is always allowed.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 3, max = 254)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(format!(r#"self.all(s, s.matches("^{LOCAL_PART}@{DOMAIN}$"))"#))
            .message("must be addresses such as qa@contoso.com, or *@contoso.com for all of a domain: ASCII letters, digits and the characters that mail allows before the @, a domain with a dot after it; no display name, angle brackets or spaces")
    )]
    pub allow: Vec<String>,
    /// What happens to other recipients. Reject: each is permanently refused at RCPT. Redirect: redirectTo gets the message
    /// instead, once for all of them, and the header field X-MailRoute-Original-To names them.
    #[serde(default)]
    pub on_violation: RecipientViolation,
    /// The address that gets what is meant for other recipients. With DirectSend and the service HighVolumeEmail it must be in one of
    /// tenant.acceptedDomains.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = Rule::new(format!(r#"self.matches("^{LOCAL_PART}@{DOMAIN}$") && !self.startsWith("*@")"#))
        .message("must be one address, such as staging@contoso.com: ASCII letters, digits and the characters that mail allows before the @, a domain with a dot after it; no *, display name, angle brackets or spaces"))]
    pub redirect_to: Option<String>,
}

/// What happens to a recipient that the route does not allow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RecipientViolation {
    /// It is refused.
    #[default]
    Reject,
    /// Another address gets the message.
    Redirect,
}

/// A copy of each message for an archive, as one more recipient whom the others do not see.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Archive {
    /// The address that gets the copies. Each counts as a recipient in the limits, and needs no entry in recipients.allow. A
    /// copy that cannot be delivered does not keep the message from its recipients. With DirectSend and the service
    /// HighVolumeEmail it must be in one of tenant.acceptedDomains.
    #[schemars(length(min = 3, max = 254))]
    #[x_kube(validation = Rule::new(format!(r#"self.matches("^{LOCAL_PART}@{DOMAIN}$") && !self.startsWith("*@")"#))
        .message("must be one address, such as archive@contoso.com: ASCII letters, digits and the characters that mail allows before the @, a domain with a dot after it; no *, display name, angle brackets or spaces"))]
    pub bcc: String,
}

/// What a name must be, for people.
const NAME_SENTENCE: &str =
    "must be names of header fields: ASCII letters, digits, - and _, at most 64; without the colon";

/// Which names are protected, for people.
const PROTECTED_SENTENCE: &str = "these header fields cannot be changed: From, Sender, To, Cc, Bcc, Date, Message-ID, MIME-Version, Content-*, Received, Received-SPF, Return-Path, Authentication-Results, DKIM-Signature, DomainKey-Signature, ARC-*, Resent-*, X-MailRoute-*";

/// Header fields that are removed from messages, or set. Names are compared without regard to case. Fields that a DKIM or ARC
/// signature of the message covers stay as they are, which is counted and logged.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("self.set.all(s, self.set.filter(o, o.name.lowerAscii() == s.name.lowerAscii()).size() == 1 && !self.remove.exists(r, r.lowerAscii() == s.name.lowerAscii()))")
        .message("headers: name each field once, in remove or in set; a field that is set replaces all others of its name")
)]
pub struct Headers {
    /// Names of fields to remove, such as X-Mailer: all fields of the name.
    #[serde(default)]
    #[schemars(length(max = 32), inner(length(min = 1, max = 64)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(format!("self.all(n, n.matches('^{NAME}$'))")).message(NAME_SENTENCE),
        validation = Rule::new(format!("self.all(n, !({}))", is_protected_in_cel("n.lowerAscii()"))).message(PROTECTED_SENTENCE)
    )]
    pub remove: Vec<String>,
    /// Fields to set, such as Auto-Submitted: one field of the name, instead of all that the application wrote.
    #[serde(default)]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub set: Vec<HeaderField>,
}

/// A header field to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeaderField {
    /// Name of the field.
    #[schemars(length(min = 1, max = 64))]
    #[x_kube(
        validation = Rule::new(format!("self.matches('^{NAME}$')")).message(NAME_SENTENCE),
        validation = Rule::new(format!("!({})", is_protected_in_cel("self.lowerAscii()"))).message(PROTECTED_SENTENCE)
    )]
    pub name: String,
    /// Value of the field, in one line.
    #[schemars(length(min = 1, max = 900))]
    #[x_kube(validation = Rule::new(format!("self.matches('^{VALUE}$')"))
        .message("must be printable ASCII without spaces at its ends; write other characters as encoded words (RFC 2047)"))]
    pub value: String,
}

impl From<Headers> for file::Headers {
    fn from(Headers { remove, set }: Headers) -> Self {
        let field = |HeaderField { name, value }| file::HeaderField { name, value };
        Self { remove, set: set.into_iter().map(field).collect() }
    }
}
