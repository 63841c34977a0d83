//! Which credential gets its tokens from whom: the authority, the token proxy of an AKS identity binding, or the operator.
//!
//! Owns that choice, and keeps what it depends on besides the route. Refuses to know when a token is needed.

use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use mailroute_entra::application::Application;
use mailroute_entra::federated::Federated;
use mailroute_entra::web_proxy::{WebProxy, WrongProxy};
use mailroute_entra::{Failure, Token, TokenSource};
use mailroute_route::file::{Authority, Credential};
use tokio::sync::watch;

use super::broker::Broker;
use super::credential::Proof;
use super::proxy::{Misfit, TokenProxy, Variables};
use super::transport::Direct;
use crate::config::Config;
use crate::net::tls::Trust;

/// Everybody who can be asked for tokens.
#[derive(Clone, Debug)]
pub struct Sources {
    config: watch::Receiver<Config>,
    proxy: Result<Option<TokenProxy>, Misfit>,
    web_proxy: Result<Option<WebProxy>, WrongProxy>,
    no_proxy: Option<String>,
}

impl Sources {
    /// `config` says where the operator is; `variables`, whether the pod has an identity binding, and which proxy is
    /// between it and the Internet.
    pub fn new(config: watch::Receiver<Config>, variables: &Variables) -> Self {
        Self {
            config,
            proxy: TokenProxy::of(variables),
            web_proxy: variables.web_proxy(),
            no_proxy: variables.no_proxy().map(str::to_owned),
        }
    }

    /// What issues tokens to the application of `credential`; none for a password, which no token is had with.
    pub fn of(&self, credential: &Credential, authority: &Authority) -> Option<Arc<dyn TokenSource>> {
        match (credential, &self.proxy) {
            (Credential::Operator { .. }, _) => Some(Arc::new(Broker::new(self.config.clone()))),
            (Credential::WorkloadIdentity { .. }, Err(misfit)) => Some(Arc::new(Nobody(misfit.clone()))),
            (Credential::WorkloadIdentity { client_id, token_file }, Ok(Some(proxy))) => {
                Some(Arc::new(Proxied::new(proxy, client_id, token_file.clone(), authority)))
            }
            _ => {
                let (client_id, proof) = Proof::of(credential)?;
                let trust = Trust::from_file(authority.ca_file.as_ref());
                let transport = Arc::new(Direct { trust, proxy: self.proxy_to(authority) });
                Some(Arc::new(Application::new(authority.clone(), client_id, proof, transport)))
            }
        }
    }

    /// The proxy on the way to Microsoft: the one that the route names, or else the container's variables; what is reached without one is the variables' to say.
    pub fn proxy_to(&self, authority: &Authority) -> Result<Option<WebProxy>, WrongProxy> {
        match &authority.proxy {
            Some(url) => WebProxy::of(Some(url), self.no_proxy.as_deref()),
            None => self.web_proxy.clone(),
        }
    }

    /// What `credential` has read at each exchange besides its own files.
    pub fn files(&self, credential: &Credential) -> Vec<PathBuf> {
        match (credential, &self.proxy) {
            (Credential::WorkloadIdentity { .. }, Ok(Some(proxy))) => proxy.files().collect(),
            _ => vec![],
        }
    }
}

/// The token proxy, as a source of tokens. What goes wrong there is told as met there.
struct Proxied {
    application: Application<Federated>,
    place: String,
}

impl Proxied {
    fn new(proxy: &TokenProxy, client_id: &str, token_file: PathBuf, authority: &Authority) -> Self {
        let TokenProxy { host, port, server_name, .. } = proxy;
        let place = format!("{host}:{port} ({server_name})");
        tracing::info!(proxy = %place, "tokens are requested from the token proxy of an AKS identity binding");
        let file = proxy.token_file.clone().unwrap_or(token_file);
        let proof = Federated { file, whose: "the pod's" };
        let transport = Arc::new(proxy.clone());
        Self {
            application: Application::new(authority.clone(), client_id.to_owned(), proof, transport),
            place,
        }
    }
}

#[async_trait]
impl TokenSource for Proxied {
    async fn fetch(&self) -> Result<Token, Failure> {
        self.application.fetch().await.map_err(|failure| {
            let message = format!("through the token proxy {}: {}", self.place, failure.message);
            Failure { message, ..failure }
        })
    }
}

/// Nobody can be asked, since it is not clear who.
struct Nobody(Misfit);

#[async_trait]
impl TokenSource for Nobody {
    async fn fetch(&self) -> Result<Token, Failure> {
        Err(self.0.clone().into())
    }
}

#[cfg(test)]
mod tests {
    use mailroute_route::condition::Reason;

    use super::*;

    /// The reason for which `credential` gets no token in a pod with these variables.
    async fn refused(credential: &Credential, variables: &Variables) -> Reason {
        let authority = Authority {
            host: "127.0.0.1:1".into(),
            tenant: "contoso.com".into(),
            scope: "https://outlook.office365.com/.default".into(),
            ca_file: None,
            proxy: None,
        };
        let (_config, read) = watch::channel(Config::default());
        let source = Sources::new(read, variables).of(credential, &authority).unwrap();
        source.fetch().await.unwrap_err().reason
    }

    #[tokio::test]
    async fn an_identity_binding_is_for_the_pods_own_identity_alone() {
        let half = Variables { token_proxy_name: Some("sni.example".into()), ..Variables::default() };
        let own = Credential::WorkloadIdentity { client_id: "1b2c".into(), token_file: "/x/entra".into() };
        assert_eq!(refused(&own, &half).await, Reason::TokenProxyInvalid);
        assert_eq!(refused(&own, &Variables::default()).await, Reason::AssertionUnavailable);
        let lent = Credential::Operator { client_id: "1b2c".into() };
        assert_eq!(refused(&lent, &half).await, Reason::OperatorUnavailable);
        let secret = Credential::ClientSecret { client_id: "1b2c".into(), secret_file: "/x/secret".into() };
        assert_eq!(refused(&secret, &half).await, Reason::SecretMissing);
    }

    #[test]
    fn the_files_of_the_proxy_are_watched_with_those_of_the_credential() {
        let variables = Variables {
            token_proxy: Some("https://10.0.0.1".into()),
            token_proxy_ca_file: Some("/wi/ca.crt".into()),
            federated_token_file: Some("/wi/token".into()),
            ..Variables::default()
        };
        let (_config, read) = watch::channel(Config::default());
        let sources = Sources::new(read, &variables);
        let own = Credential::WorkloadIdentity { client_id: "1b2c".into(), token_file: "/x/entra".into() };
        assert_eq!(sources.files(&own), [PathBuf::from("/wi/ca.crt"), "/wi/token".into()]);
        assert!(sources.files(&Credential::Password { password_file: "/x/password".into() }).is_empty());
    }
}
