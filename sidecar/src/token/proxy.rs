//! The token proxy of an AKS identity binding: where it is and how it is known, from the variables that the webhook of
//! Azure workload identity sets in the containers of such a pod. Pure.
//!
//! An identity binding spares a managed identity its federated credential for each ServiceAccount, of which Entra takes
//! twenty: the pod shows its ServiceAccount token to a proxy in the cluster, at the path of the authority's own token
//! endpoint, and the proxy asks Entra. Source of the variables and of what they mean: Microsoft's Azure Identity
//! libraries, which have them in common.
//!
//! Invariant: the variables come with the container, from whoever makes the pod, whose identity it is. A route has no
//! part in them, and no other credential than the pod's own ServiceAccount goes to the proxy.

use std::path::PathBuf;

use clap::Args;
use hyper::http::uri::{Authority, PathAndQuery};
use mailroute_entra::Failure;
use mailroute_entra::web_proxy::{WebProxy, WrongProxy};
use mailroute_route::condition::Reason;
use rustls::pki_types::ServerName;

use crate::net::tls::{Trust, TrustError, roots_from_pem};

const URL: &str = "AZURE_KUBERNETES_TOKEN_PROXY";
const NAME: &str = "AZURE_KUBERNETES_SNI_NAME";
const CA_FILE: &str = "AZURE_KUBERNETES_CA_FILE";
const CA_DATA: &str = "AZURE_KUBERNETES_CA_DATA";
const TOKEN_FILE: &str = "AZURE_FEDERATED_TOKEN_FILE";

/// What is set in the container. An empty value is none.
#[derive(Clone, Debug, Default, Args)]
pub struct Variables {
    /// Token proxy of an AKS identity binding, which is asked in place of Entra for credentials of type WorkloadIdentity.
    #[arg(long, env = URL, value_name = "URL")]
    pub token_proxy: Option<String>,

    /// Name that the token proxy's certificate carries, in place of the URL's host.
    #[arg(long, env = NAME, value_name = "NAME")]
    pub token_proxy_name: Option<String>,

    /// CA bundle for the token proxy, read at each use.
    #[arg(long, env = CA_FILE, value_name = "FILE")]
    pub token_proxy_ca_file: Option<String>,

    /// CA bundle for the token proxy, PEM.
    #[arg(long, env = CA_DATA, value_name = "PEM", hide_env_values = true)]
    pub token_proxy_ca_data: Option<String>,

    /// Service-account token for the token proxy, in place of the one that the operator mounts for Entra.
    #[arg(long, env = TOKEN_FILE, value_name = "FILE")]
    pub federated_token_file: Option<String>,

    /// HTTP proxy for token requests to Entra. SMTP does not go through it.
    #[arg(long, env = "HTTPS_PROXY", value_name = "URL", hide_env_values = true)]
    pub https_proxy: Option<String>,

    /// Hosts, domains and networks that are reached without that proxy, separated by commas.
    #[arg(long, env = "NO_PROXY", value_name = "LIST")]
    pub no_proxy: Option<String>,

    /// The same variables as some programs write them; those in capitals come first.
    #[arg(long, env = "https_proxy", hide = true, hide_env_values = true)]
    pub https_proxy_lower_case: Option<String>,

    /// The same.
    #[arg(long, env = "no_proxy", hide = true)]
    pub no_proxy_lower_case: Option<String>,
}

impl Variables {
    /// The proxy between here and the Internet; none when none is named.
    ///
    /// # Errors
    /// When what is named is none.
    pub fn web_proxy(&self) -> Result<Option<WebProxy>, WrongProxy> {
        let url = set(&self.https_proxy).or(set(&self.https_proxy_lower_case));
        WebProxy::of(url, self.no_proxy())
    }

    /// What is reached without that proxy.
    pub fn no_proxy(&self) -> Option<&str> {
        set(&self.no_proxy).or(set(&self.no_proxy_lower_case))
    }
}

/// A token proxy to go to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenProxy {
    /// Host to connect to: a name or an address.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Name the certificate must carry, sent as SNI and `Host`.
    pub server_name: String,
    /// What comes before the path of the authority's token endpoint; empty, or with a slash in front and none behind.
    pub prefix: String,
    /// Whom the proxy's certificate has to chain to, and nobody else.
    pub trust: Trust,
    /// The service-account token with the audience of the proxy; without it the route's own is shown.
    pub token_file: Option<PathBuf>,
}

/// Why the variables are of no use.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// Something about a proxy, and no proxy.
    #[error("{0} is set, but {URL} is not")]
    WithoutProxy(&'static str),
    /// Two bundles, of which one would be passed over.
    #[error("{CA_FILE} and {CA_DATA} are both set")]
    TwoBundles,
    /// The bundle has no certificate in it.
    #[error("{CA_DATA} is not usable: {0}")]
    Bundle(String),
    /// Not a place to post to.
    #[error("{URL} is {url:?}, and {what}")]
    Url {
        /// What is set.
        url: String,
        /// What is wrong with it.
        what: &'static str,
    },
    /// Not a name that a certificate can carry.
    #[error("{NAME} is {0:?}, which no certificate can carry")]
    Name(String),
}

impl From<Misfit> for Failure {
    fn from(misfit: Misfit) -> Self {
        Self::new(Reason::TokenProxyInvalid, misfit.to_string())
    }
}

impl TokenProxy {
    /// The proxy that the variables describe; none when they name none.
    ///
    /// # Errors
    /// When they contradict each other or are malformed.
    pub fn of(variables: &Variables) -> Result<Option<Self>, Misfit> {
        let name = set(&variables.token_proxy_name);
        let (file, data) = (set(&variables.token_proxy_ca_file), set(&variables.token_proxy_ca_data));
        let Some(url) = set(&variables.token_proxy) else {
            let alone = [(name, NAME), (file, CA_FILE), (data, CA_DATA)];
            let alone = alone.into_iter().find(|(value, _)| value.is_some());
            return alone.map_or(Ok(None), |(_, variable)| Err(Misfit::WithoutProxy(variable)));
        };
        let trust = trust(file, data)?;
        let (host, port, prefix) =
            place(url).map_err(|what| Misfit::Url { url: url.chars().take(200).collect(), what })?;
        let server_name = name.map_or_else(|| host.clone(), str::to_owned);
        if ServerName::try_from(server_name.as_str()).is_err() {
            return Err(Misfit::Name(server_name));
        }
        let token_file = set(&variables.federated_token_file).map(PathBuf::from);
        Ok(Some(Self { host, port, server_name, prefix, trust, token_file }))
    }

    /// The files that it reads again at each exchange.
    pub fn files(&self) -> impl Iterator<Item = PathBuf> + use<> {
        let bundle = match &self.trust {
            Trust::File(path) => Some(path.clone()),
            Trust::PublicRoots | Trust::Pem(_) => None,
        };
        bundle.into_iter().chain(self.token_file.clone())
    }
}

fn set(variable: &Option<String>) -> Option<&str> {
    variable.as_deref().filter(|value| !value.is_empty())
}

/// The bundle that is named, and nobody else; the public roots when none is.
fn trust(file: Option<&str>, data: Option<&str>) -> Result<Trust, Misfit> {
    match (file, data) {
        (Some(_), Some(_)) => Err(Misfit::TwoBundles),
        (Some(file), None) => Ok(Trust::File(file.into())),
        (None, Some(data)) => {
            let unusable = |error: TrustError| Misfit::Bundle(error.to_string());
            roots_from_pem(data.as_bytes()).map(|_| Trust::Pem(data.to_owned())).map_err(unusable)
        }
        (None, None) => Ok(Trust::PublicRoots),
    }
}

/// Host, port and path of the URL. Whatever else a URL may have is refused rather than passed over.
fn place(url: &str) -> Result<(String, u16, String), &'static str> {
    let rest = url.strip_prefix("https://").ok_or("it has to begin with https://")?;
    if rest.contains(['?', '#']) {
        return Err("it must have no query and no fragment");
    }
    let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
    if authority.contains('@') {
        return Err("it must have no user");
    }
    let authority: Authority = authority.parse().map_err(|_| "its host or port is malformed")?;
    let host = authority.host();
    let port = match authority.as_str()[host.len()..].strip_prefix(':') {
        None => 443,
        Some(port) => port.parse().ok().filter(|port| *port != 0).ok_or("its port is malformed")?,
    };
    if !path.is_empty() && PathAndQuery::try_from(path).is_err() {
        return Err("its path is malformed");
    }
    let host = host.trim_start_matches('[').trim_end_matches(']');
    Ok((host.to_owned(), port, path.trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Option<TokenProxy>, Misfit> {
        let value = |name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        TokenProxy::of(&Variables {
            token_proxy: value(URL),
            token_proxy_name: value(NAME),
            token_proxy_ca_file: value(CA_FILE),
            token_proxy_ca_data: value(CA_DATA),
            federated_token_file: value(TOKEN_FILE),
            ..Variables::default()
        })
    }

    #[test]
    fn a_pod_without_a_binding_has_no_proxy() {
        assert_eq!(of(&[]), Ok(None));
        let plain = [(TOKEN_FILE, "/var/run/secrets/azure/wi/token/azure-identity-token")];
        assert_eq!(of(&plain), Ok(None), "workload identity without a binding sets this one too");
        assert_eq!(of(&[(URL, ""), (NAME, ""), (CA_FILE, ""), (CA_DATA, "")]), Ok(None));
    }

    #[test]
    fn what_the_webhook_sets_is_a_proxy_known_by_its_name_and_its_own_authority() {
        let proxy = of(&[
            (URL, "https://10.0.0.1"),
            (NAME, "0123.sni.ests.aks"),
            (CA_FILE, "/var/run/secrets/azure/wi/ca-cert/ca.crt"),
            (TOKEN_FILE, "/var/run/secrets/azure/wi/token/azure-identity-token"),
        ])
        .unwrap()
        .unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port, proxy.prefix.as_str()), ("10.0.0.1", 443, ""));
        assert_eq!(proxy.server_name, "0123.sni.ests.aks");
        assert_eq!(proxy.trust, Trust::File("/var/run/secrets/azure/wi/ca-cert/ca.crt".into()));
        assert_eq!(proxy.files().count(), 2, "both are replaced while they are in use");
    }

    #[test]
    fn host_port_and_path_are_taken_from_the_url() {
        for (url, host, port, prefix) in [
            ("https://proxy.example", "proxy.example", 443, ""),
            ("https://proxy.example/", "proxy.example", 443, ""),
            ("https://proxy.example:6443/a/b/", "proxy.example", 6443, "/a/b"),
            ("https://[fd00::1]:6443", "fd00::1", 6443, ""),
        ] {
            let proxy = of(&[(URL, url)]).unwrap().unwrap();
            assert_eq!((proxy.host.as_str(), proxy.port, proxy.prefix.as_str()), (host, port, prefix));
            assert_eq!((proxy.server_name.as_str(), proxy.trust), (host, Trust::PublicRoots));
        }
    }

    #[test]
    fn a_url_that_is_no_place_to_post_to_is_refused() {
        for url in [
            "http://proxy.example",
            "proxy.example",
            "https://",
            "https:///path",
            "https://user@proxy.example",
            "https://proxy.example?x=y",
            "https://proxy.example/#x",
            "https://proxy.example:",
            "https://proxy.example:0",
            "https://proxy.example:70000",
            "https://proxy example",
            "https://proxy.example/a b",
            "https://proxy.example/\r\nX: y",
        ] {
            let misfit = of(&[(URL, url)]).unwrap_err();
            assert!(matches!(misfit, Misfit::Url { .. }), "{url}: {misfit}");
        }
    }

    #[test]
    fn half_of_the_variables_is_a_mistake_that_names_them() {
        let pem = rcgen::generate_simple_self_signed(["ca.example".into()]).unwrap().cert.pem();
        let url = (URL, "https://proxy.example");
        let table: [(&[_], &[&str]); 6] = [
            (&[(NAME, "sni.example")], &[NAME, URL]),
            (&[(CA_FILE, "/ca.crt")], &[CA_FILE, URL]),
            (&[(CA_DATA, &pem)], &[CA_DATA, URL]),
            (&[url, (CA_FILE, "/ca.crt"), (CA_DATA, &pem)], &[CA_FILE, CA_DATA]),
            (&[url, (CA_DATA, "nothing")], &[CA_DATA]),
            (&[url, (NAME, "two words")], &[NAME]),
        ];
        for (variables, named) in table {
            let failure = Failure::from(of(variables).unwrap_err());
            assert_eq!(failure.reason, Reason::TokenProxyInvalid);
            assert!(named.iter().all(|name| failure.message.contains(name)), "{failure}");
        }
        assert_eq!(of(&[url, (CA_DATA, &pem)]).unwrap().unwrap().trust, Trust::Pem(pem));
    }
}
