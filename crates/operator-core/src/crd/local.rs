//! The application's side: where it connects and whom it may name as the sender. `spec.listen` and `spec.senders`.

use kube::KubeSchema;
use mailroute_route::address::{DOMAIN, LOCAL_PART};
use mailroute_route::file::{self, BareLineEnds, ListenAuth, OnViolation};
use serde::{Deserialize, Serialize};

/// Where applications connect: on the loopback addresses of the pod, IPv4 and IPv6.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Listen {
    /// TCP port, on 127.0.0.1 and ::1.
    #[serde(default = "Listen::default_port")]
    #[schemars(range(min = 1, max = 65535))]
    #[x_kube(validation = Rule::new("self != 9025")
        .message("the sidecar serves its metrics on 9025; choose another port"))]
    pub port: u16,
    /// Whether applications may log in. None: AUTH is not offered. Ignore: AUTH PLAIN and LOGIN are offered for applications
    /// that insist on a login; any user name and password are accepted and discarded.
    #[serde(default)]
    pub auth: ListenAuth,
    /// What happens to a bare LF or CR in a message; neither is ever passed on. Normalize: LF and CR CR LF become CR LF, any
    /// other CR a space. Refuse: the message is refused.
    #[serde(default)]
    pub bare_line_ends: BareLineEnds,
}

impl Listen {
    /// The port that applications expect of a mail relay.
    const fn default_port() -> u16 {
        25
    }
}

impl Default for Listen {
    fn default() -> Self {
        Self {
            port: Self::default_port(),
            auth: ListenAuth::default(),
            bare_line_ends: BareLineEnds::default(),
        }
    }
}

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

impl From<Listen> for file::Listen {
    fn from(Listen { port, auth, bare_line_ends }: Listen) -> Self {
        Self { port, auth, bare_line_ends }
    }
}

impl From<Senders> for file::Senders {
    fn from(Senders { allow, on_violation }: Senders) -> Self {
        Self { allow, on_violation }
    }
}
