//! Why a command could not do its work, in words that say what to do. A right that is missing is named as
//! `kubectl auth can-i` takes it.

use std::fmt;
use std::io;

use kube::client::UpgradeConnectionError;

use crate::terminal::clean;

/// Longest answer of an API server that is shown, octets.
const MAX_ANSWER: usize = 500;

/// A right, as `kubectl auth can-i` takes it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Right {
    /// The verb.
    pub verb: &'static str,
    /// Resource and group: `mailroutes.mailroute.dev`.
    pub resource: &'static str,
    /// The subresource; empty for none.
    pub subresource: &'static str,
    /// The namespace; none for all of them, or for what is in none.
    pub namespace: Option<String>,
}

impl Right {
    /// A right on a resource.
    pub fn new(verb: &'static str, resource: &'static str, namespace: Option<&str>) -> Self {
        Self { verb, resource, subresource: "", namespace: namespace.map(str::to_owned) }
    }

    /// The same on a subresource.
    #[must_use]
    pub fn of(self, subresource: &'static str) -> Self {
        Self { subresource, ..self }
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.subresource.is_empty() {
            write!(f, " --subresource={}", self.subresource)?;
        }
        match &self.namespace {
            Some(namespace) => write!(f, " --namespace {namespace}"),
            None => f.write_str(" --all-namespaces"),
        }
    }
}

/// Why a command could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is no way to a cluster.
    #[error("no cluster can be reached with this kubeconfig: {0}")]
    Kubeconfig(String),
    /// A right is missing.
    #[error(
        "you lack a right: {right}\n  check it: kubectl auth can-i {right}\n  the API server says: {answer}"
    )]
    Denied {
        /// Which.
        right: Right,
        /// The API server's words.
        answer: String,
    },
    /// The API server does not know the resource.
    #[error(
        "the API server knows no {0}: is MailRoute installed? The chart mailroute-crds has the definitions \
         (kubectl mailroute doctor looks at all of it)"
    )]
    Unknown(&'static str),
    /// There is no such object.
    #[error("there is no {0}")]
    Missing(String),
    /// The API server answered something else.
    #[error("the API server does not answer as expected about {what}: {why}")]
    Api {
        /// What was asked about.
        what: String,
        /// What came.
        why: String,
    },
    /// A command in a pod did not end well.
    #[error("{pod}: {why}")]
    Exec {
        /// In which pod.
        pod: String,
        /// What happened.
        why: String,
    },
    /// The work cannot be done as asked for.
    #[error("{0}")]
    Refused(String),
    /// Nobody takes the output.
    #[error("the output cannot be written: {0}")]
    Write(#[from] io::Error),
}

impl Error {
    /// What an API server's answer means when `right` was used.
    pub fn of(error: &kube::Error, right: Right) -> Self {
        let what = right.resource;
        match error {
            kube::Error::Api(status) if status.code == 403 || status.code == 401 => {
                Self::Denied { right, answer: shown(&status.message) }
            }
            kube::Error::Api(status)
                if status.code == 404 && status.details.as_ref().is_none_or(|it| it.name.is_empty()) =>
            {
                Self::Unknown(what)
            }
            kube::Error::Api(status) => Self::Api { what: what.into(), why: shown(&status.message) },
            kube::Error::UpgradeConnection(UpgradeConnectionError::ProtocolSwitch(status))
                if status.as_u16() == 403 =>
            {
                Self::Denied { right, answer: "403 Forbidden".into() }
            }
            other => Self::Api { what: what.into(), why: shown(&mailroute_route::text::chain(other)) },
        }
    }

    /// Whether only a right is missing.
    pub const fn is_denied(&self) -> bool {
        matches!(self, Self::Denied { .. })
    }
}

fn shown(text: &str) -> String {
    clean(&mailroute_route::text::shortened(text, MAX_ANSWER)).into_owned()
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    fn api(code: u16, message: &str) -> kube::Error {
        kube::Error::Api(Box::new(Status { code, message: message.into(), ..Status::default() }))
    }

    #[test]
    fn a_missing_right_is_named_as_kubectl_takes_it() {
        let right = Right::new("create", "pods", Some("shop")).of("exec");
        let error = Error::of(&api(403, "pods \"a\x1b\" is forbidden"), right);
        assert!(error.is_denied());
        assert_eq!(
            error.to_string(),
            "you lack a right: create pods --subresource=exec --namespace shop\n  check it: kubectl auth can-i create \
             pods --subresource=exec --namespace shop\n  the API server says: pods \"a\u{fffd}\" is forbidden"
        );
        let all = Right::new("list", "mailroutes.mailroute.dev", None);
        assert_eq!(all.to_string(), "list mailroutes.mailroute.dev --all-namespaces");
    }

    #[test]
    fn a_missing_definition_is_another_thing_than_a_missing_object() {
        let right = || Right::new("list", "mailroutes.mailroute.dev", None);
        assert!(matches!(Error::of(&api(404, "404 page not found"), right()), Error::Unknown(_)));
        assert!(matches!(Error::of(&api(500, "etcd"), right()), Error::Api { .. }));
    }
}
