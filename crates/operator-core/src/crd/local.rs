//! Whom applications may name as the sender: `spec.senders`.

use kube::KubeSchema;
use mailroute_route::address::{DOMAIN, LOCAL_PART};
use mailroute_route::file::{self, OnViolation};
use serde::{Deserialize, Serialize};

/// Who may be named as the sender, in the envelope, in `From` and in `Sender`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Senders {
    // `*` is a local part by itself.
    /// Addresses, or `*@domain` for all addresses of a domain. The mailbox of ClientSubmission or Graph is always
    /// allowed.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 3, max = 254)))]
    #[x_kube(
        merge_strategy = ListMerge::Set,
        validation = Rule::new(format!(r#"self.all(s, s.matches("^{LOCAL_PART}@{DOMAIN}$"))"#))
            .message("must be addresses such as noreply@contoso.com, or *@contoso.com for all of a domain: ASCII letters, digits and the characters that mail allows before the @, a domain with a dot after it; no display name, angle brackets or spaces")
    )]
    pub allow: Vec<String>,
    /// What happens to a message from another sender. Reject: it is permanently refused. Rewrite, for ClientSubmission
    /// and Graph: `From` and `Sender` become the mailbox, and the original `From` becomes `Reply-To` unless there is one. Default:
    /// Reject; without senders, with the service HighVolumeEmail, Rewrite.
    #[serde(default)]
    pub on_violation: OnViolation,
}

impl From<Senders> for file::Senders {
    fn from(Senders { allow, on_violation }: Senders) -> Self {
        Self { allow, on_violation }
    }
}
