//! Fetches and remembers the public keys of trusted issuers: the one part of the token endpoint that reads files and calls
//! out.
//!
//! Invariants: one fetch at a time; a known key is never fetched again; an unknown one at most once per interval.

use std::{collections::HashMap, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Method, Request, StatusCode, header, header::HeaderValue, http::request};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use jiff::Timestamp;
use rustls::{
    ClientConfig, RootCertStore, crypto::ring, pki_types::CertificateDer, pki_types::pem::PemObject,
};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use thiserror::Error;
use tokio::sync::Mutex;

use crate::{
    directory::Issuer,
    entra::assertion::IssuerNames,
    keys::{Fetched, KeySource, Remote, jws::KeySet},
    stand_in,
};

/// Time for one fetch, connection included.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A JWKS or discovery document larger than this is not read.
const MAX_BODY: usize = 1024 * 1024;

/// Why keys could not be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    File {
        /// Which.
        path: String,
        /// Why.
        source: std::io::Error,
    },
    /// The answer or file is not what it should be.
    #[error("{from} is not a {what}: {source}")]
    Json {
        /// Where it came from.
        from: String,
        /// What was expected.
        what: &'static str,
        /// Why.
        source: serde_json::Error,
    },
    /// The CA bundle holds no certificate.
    #[error("{path} holds no usable certificate")]
    Ca {
        /// Which.
        path: String,
    },
    /// The address is malformed or not HTTPS.
    #[error("{url} is not an https address")]
    Address {
        /// Which.
        url: String,
    },
    /// No answer.
    #[error("cannot fetch {url}: {reason}")]
    Connection {
        /// Where.
        url: String,
        /// Why.
        reason: String,
    },
    /// An answer other than 200.
    #[error("{url} answered {status}")]
    Status {
        /// Where.
        url: String,
        /// With what.
        status: StatusCode,
    },
}

/// The keys of all trusted issuers.
#[derive(Debug, Default)]
pub struct Issuers {
    fetched: Mutex<HashMap<String, (KeySource, Fetched)>>,
}

#[derive(Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
}

impl Issuers {
    /// The `iss` behind every issuer's short name. Discovery documents that were not read yet are read; one that cannot
    /// be read is left out and reported in the log.
    pub async fn names(&self, issuers: &[Issuer], now: Timestamp) -> IssuerNames {
        let mut names = IssuerNames::new();
        for issuer in issuers {
            let known = match (&issuer.issuer, &issuer.keys) {
                (Some(known), _) => Ok(known.clone()),
                (None, KeySource::StandIn) => Ok(stand_in::ISSUER.to_owned()),
                (None, _) => self.current(issuer, None, now, u64::MAX).await.map(|fetched| fetched.issuer),
            };
            match known {
                Ok(iss) => drop(names.insert(issuer.name.clone(), iss)),
                Err(error) => tracing::warn!(issuer = issuer.name, "issuer cannot be identified: {error}"),
            }
        }
        names
    }

    /// The keys of the issuer of `iss`, with the one called `kid` among them if it can be had. `None` when no issuer of
    /// the list is called so.
    ///
    /// # Errors
    /// The keys were never fetched and cannot be now.
    pub async fn keys(
        &self,
        issuers: &[Issuer],
        names: &IssuerNames,
        iss: &str,
        kid: Option<&str>,
        now: Timestamp,
        interval: u64,
    ) -> Option<Result<KeySet, FetchError>> {
        let issuer =
            issuers.iter().find(|issuer| names.get(&issuer.name).is_some_and(|known| known == iss))?;
        Some(self.current(issuer, kid, now, interval).await.map(|fetched| fetched.keys))
    }

    async fn current(
        &self,
        issuer: &Issuer,
        kid: Option<&str>,
        now: Timestamp,
        interval: u64,
    ) -> Result<Fetched, FetchError> {
        let mut all = self.fetched.lock().await;
        let known =
            all.get(&issuer.name).filter(|(source, _)| *source == issuer.keys).map(|(_, fetched)| fetched);
        if let Some(known) = known
            && !known.is_stale_for(kid, now, interval)
        {
            return Ok(known.clone());
        }
        let (iss, keys) = match fetch(issuer).await {
            Ok(fresh) => fresh,
            // What is known is kept when a renewal fails; the token that asked for it is refused all the same.
            Err(error) => match known {
                Some(known) => {
                    tracing::warn!(issuer = issuer.name, "keys could not be renewed: {error}");
                    (known.issuer.clone(), known.keys.clone())
                }
                None => return Err(error),
            },
        };
        tracing::info!(issuer = iss, keys = keys.keys.len(), "keys fetched");
        let fetched = Fetched { issuer: iss, keys, at: now };
        all.insert(issuer.name.clone(), (issuer.keys.clone(), fetched.clone()));
        Ok(fetched)
    }
}

async fn fetch(issuer: &Issuer) -> Result<(String, KeySet), FetchError> {
    let named = issuer.issuer.clone();
    match &issuer.keys {
        // The server answers for the stand-in itself, since its keys change with its rotation.
        KeySource::StandIn => Ok((stand_in::ISSUER.to_owned(), KeySet::default())),
        KeySource::Inline(keys) => Ok((named.unwrap_or_default(), keys.clone())),
        KeySource::File(path) => {
            let text = read(path).await?;
            Ok((named.unwrap_or_default(), json(&text, &path.display().to_string(), "JWKS")?))
        }
        KeySource::Url(remote) => {
            Ok((named.unwrap_or_default(), document(remote, &remote.url, "JWKS").await?))
        }
        KeySource::Discovery(remote) => {
            let found: Discovery = document(remote, &remote.url, "discovery document").await?;
            let keys_url = remote.keys_url.as_ref().unwrap_or(&found.jwks_uri);
            Ok((named.unwrap_or(found.issuer), document(remote, keys_url, "JWKS").await?))
        }
    }
}

async fn document<T: DeserializeOwned>(
    remote: &Remote,
    url: &str,
    what: &'static str,
) -> Result<T, FetchError> {
    let failed = |reason: String| FetchError::Connection { url: url.to_owned(), reason };
    let body = tokio::time::timeout(TIMEOUT, download(remote, url))
        .await
        .map_err(|_| failed(format!("no answer within {} seconds", TIMEOUT.as_secs())))??;
    json(&body, url, what)
}

/// One request to `remote`, with the type and content of its body: JSON comes back.
///
/// # Errors
/// There is no answer in time, or not that one.
pub async fn call<T: DeserializeOwned>(
    remote: &Remote,
    method: Method,
    body: Option<(HeaderValue, Value)>,
) -> Result<T, FetchError> {
    let failed = |reason: String| FetchError::Connection { url: remote.url.clone(), reason };
    let mut request = Request::builder().method(method).uri(&remote.url);
    let mut content = Bytes::new();
    if let Some((kind, value)) = body {
        request = request.header(header::CONTENT_TYPE, kind);
        content = value.to_string().into();
    }
    let answer = tokio::time::timeout(TIMEOUT, exchange(remote, &remote.url, request, content))
        .await
        .map_err(|_| failed(format!("no answer within {} seconds", TIMEOUT.as_secs())))??;
    json(&answer, &remote.url, "Kubernetes object")
}

async fn download(remote: &Remote, url: &str) -> Result<Bytes, FetchError> {
    exchange(remote, url, Request::get(url), Bytes::new()).await
}

async fn exchange(
    remote: &Remote,
    url: &str,
    mut request: request::Builder,
    body: Bytes,
) -> Result<Bytes, FetchError> {
    let failed = |reason: String| FetchError::Connection { url: url.to_owned(), reason };
    if let Some(path) = &remote.bearer_token_file {
        let token = read(path).await?;
        request = request.header(header::AUTHORIZATION, [b"Bearer ", token.trim_ascii()].concat());
    }
    let request = request
        .body(Full::new(body))
        .ok()
        .filter(|request| request.uri().scheme_str() == Some("https"))
        .ok_or_else(|| FetchError::Address { url: url.to_owned() })?;
    let connector = HttpsConnectorBuilder::new()
        .with_tls_config(trust(remote).await?)
        .https_only()
        .enable_http1()
        .build();
    let client = Client::builder(TokioExecutor::new()).build(connector);
    let response = client.request(request).await.map_err(|error| failed(causes(&error)))?;
    if response.status() != StatusCode::OK {
        return Err(FetchError::Status { url: url.to_owned(), status: response.status() });
    }
    let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
    body.map(http_body_util::Collected::to_bytes).map_err(|error| failed(error.to_string()))
}

async fn trust(remote: &Remote) -> Result<ClientConfig, FetchError> {
    let mut roots = RootCertStore::empty();
    match &remote.ca_file {
        Some(path) => {
            let pem = read(path).await?;
            roots.add_parsable_certificates(CertificateDer::pem_slice_iter(&pem).filter_map(Result::ok));
            if roots.is_empty() {
                return Err(FetchError::Ca { path: path.display().to_string() });
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    Ok(ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("ring has ciphers for TLS 1.2 and 1.3")
        .with_root_certificates(roots)
        .with_no_client_auth())
}

async fn read(path: &Path) -> Result<Vec<u8>, FetchError> {
    tokio::fs::read(path)
        .await
        .map_err(|source| FetchError::File { path: path.display().to_string(), source })
}

fn json<T: DeserializeOwned>(text: &[u8], from: &str, what: &'static str) -> Result<T, FetchError> {
    serde_json::from_slice(text).map_err(|source| FetchError::Json { from: from.to_owned(), what, source })
}

/// An error with its causes, because hyper's own text stops at the first.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        text = format!("{text}: {cause}");
        next = cause.source();
    }
    text
}
