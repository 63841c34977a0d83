//! The federated assertion: the projected service-account token that Entra exchanges for an access token.
//!
//! Owns reading the file, each time it is needed, since the kubelet renews it, and describing the assertion by the three
//! claims that a federated credential must match and its end. Refuses to verify it: that is Entra's work.
//!
//! Invariant: a token that another service takes, the API server or the control service, is never shown to an authority,
//! whatever file a route or a setting names.

use std::path::{Path, PathBuf};

use async_trait::async_trait;
use mailroute_route::condition::Reason;
use mailroute_route::file::Authority;
use mailroute_route::jwt::{self, Audiences};
use mailroute_route::paths::{ENTRA_AUDIENCE, is_for_entra};
use serde::Deserialize;

use crate::secret::{self, Secret};
use crate::{Failure, Kind, Presented, Proof, Shown};

/// Where a projected service-account token lies, and whose it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Federated {
    /// The file.
    pub file: PathBuf,
    /// Whose token it is, for people: `the pod's`.
    pub whose: &'static str,
}

#[async_trait]
impl Proof for Federated {
    type Presented = Assertion;

    /// # Errors
    /// `AssertionUnavailable` when the file cannot be read, is empty or is too large to be a token, or when the token is for
    /// somebody else than Entra.
    async fn read(&self) -> Result<Assertion, Failure> {
        let token = read(&self.file).await?;
        for_entra(&self.file, &token)?;
        Ok(Assertion { token, whose: self.whose })
    }
}

/// A service-account token as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assertion {
    token: Secret,
    whose: &'static str,
}

impl Presented for Assertion {
    fn kind(&self) -> Kind {
        Kind::Federated
    }

    fn shown(&self, _: &Authority, _: &str) -> Option<Shown> {
        Some(Shown::Assertion(self.token.clone()))
    }

    fn described_for(&self, reason: Reason) -> Option<String> {
        match reason {
            Reason::FederationNotTrusted | Reason::WaitingForPropagation | Reason::AssertionRejected => {
                Claims::of(&self.token).map(|claims| format!("{} token has {claims}", self.whose))
            }
            _ => None,
        }
    }

    fn redact(&self, text: &str) -> String {
        self.token.redact(text)
    }
}

async fn read(path: &Path) -> Result<Secret, Failure> {
    secret::read_file(path).await.map_err(|error| {
        let what = format!("cannot read the service-account token {}: {error}", path.display());
        Failure::new(Reason::AssertionUnavailable, what)
    })
}

fn for_entra(path: &Path, token: &Secret) -> Result<(), Failure> {
    let audiences = Claims::of(token).map(|claims| claims.audiences).unwrap_or_default();
    if !audiences.is_empty() && audiences.iter().all(|audience| is_for_entra(audience)) {
        return Ok(());
    }
    let what = format!(
        "{} is not a service-account token for Entra and is not sent: its audience is {:?}, and not one such as {ENTRA_AUDIENCE}",
        path.display(),
        audiences.join(",").chars().take(200).collect::<String>()
    );
    Err(Failure::new(Reason::AssertionUnavailable, what))
}

/// What a federated credential is compared with. Not secret: they name the cluster and the service account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `iss`
    pub issuer: String,
    /// `sub`
    pub subject: String,
    /// `aud`
    pub audiences: Vec<String>,
    /// `exp`, seconds since the epoch
    pub expires: Option<i64>,
}

impl Claims {
    /// Decodes the claims of a JWT without verifying it; nothing when it is not a JWT.
    pub fn of(assertion: &Secret) -> Option<Self> {
        #[derive(Deserialize)]
        struct Payload {
            iss: String,
            sub: String,
            aud: Audiences,
            exp: Option<i64>,
        }
        let Payload { iss, sub, aud: Audiences(audiences), exp } = jwt::payload(assertion.expose())?;
        Some(Self { issuer: iss, subject: sub, audiences, expires: exp })
    }
}

impl std::fmt::Display for Claims {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let audience = self.audiences.join(",");
        write!(f, "issuer {} subject {} audience {audience}", self.issuer, self.subject)?;
        match self.expires.map(jiff::Timestamp::from_second) {
            Some(Ok(end)) => write!(f, " end {}", end.strftime("%Y-%m-%dT%H:%M:%SZ")),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn jwt(payload: &str) -> Secret {
        Secret::new(format!("e30.{}.c2ln", URL_SAFE_NO_PAD.encode(payload)))
    }

    #[test]
    fn the_three_claims_and_the_end_are_shown() {
        let token = jwt(
            r#"{"aud":["api://AzureADTokenExchange"],"iss":"https://oidc.example/","sub":"system:serviceaccount:shop:default","exp":1790000000}"#,
        );
        assert_eq!(
            Claims::of(&token).unwrap().to_string(),
            "issuer https://oidc.example/ subject system:serviceaccount:shop:default audience api://AzureADTokenExchange end 2026-09-21T14:13:20Z"
        );
    }

    #[test]
    fn what_is_not_a_jwt_has_no_claims() {
        assert_eq!(Claims::of(&Secret::new("not a token".into())), None);
        assert_eq!(Claims::of(&Secret::new("a.%%%.c".into())), None);
    }

    #[tokio::test]
    async fn only_a_token_for_entra_is_read() {
        let read = async |aud: &str| {
            let file = tempfile::NamedTempFile::new().unwrap();
            let payload = format!(r#"{{"aud":{aud},"iss":"https://oidc.example/","sub":"s","exp":1}}"#);
            std::fs::write(file.path(), jwt(&payload).expose()).unwrap();
            Federated { file: file.path().to_owned(), whose: "the pod's" }.read().await
        };
        for aud in [
            r#"["api://AzureADTokenExchange"]"#,
            r#""api://AzureADTokenExchangeChina""#,
            r#"["api://AKSIdentityBinding"]"#,
        ] {
            assert!(read(aud).await.is_ok(), "{aud}");
        }
        for aud in [
            r#"["mailroute.dev"]"#,
            r#"["https://kubernetes.default.svc.cluster.local","k3s"]"#,
            r#"["api://AzureADTokenExchange","mailroute.dev"]"#,
            r#"["api://AzureADTokenExchange,mailroute.dev"]"#,
            "[]",
            "null",
        ] {
            let failure = read(aud).await.unwrap_err();
            assert_eq!(failure.reason, Reason::AssertionUnavailable, "{aud}");
        }
    }

    #[tokio::test]
    async fn a_missing_file_is_named() {
        let failure = read(Path::new("/nonexistent/token")).await.unwrap_err();
        assert_eq!(failure.reason, Reason::AssertionUnavailable);
        assert!(failure.message.contains("/nonexistent/token"), "{failure}");
    }

    #[tokio::test]
    async fn an_empty_file_is_not_an_assertion() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(read(file.path()).await.unwrap_err().message.ends_with("it is empty"));
    }
}
