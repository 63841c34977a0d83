//! A proxy in front of the API server, which passes everything on, or does to it what networks and broken proxies do.
//!
//! It speaks plain HTTP on loopback and adds the credentials of the client it was made with, so that whoever goes through
//! it needs none. Changing what it does cuts the connections that are open, watches among them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use kube::client::Body;
use kube::{Client, Config};
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// What becomes of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Conduct {
    /// It is passed on.
    Through,
    /// It is answered with one of these, a status and a text: each kind of request with one after the other.
    Garbage(Vec<(u16, String)>),
    /// It is never answered.
    Silent,
}

/// The proxy. Dropped, it is gone: connections are cut, and new ones refused.
pub struct Front {
    address: SocketAddr,
    conduct: watch::Sender<Conduct>,
    seen: Arc<Mutex<BTreeMap<String, u64>>>,
    listening: JoinHandle<()>,
}

impl Drop for Front {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

type Answer = Response<UnsyncBoxBody<Bytes, kube::Error>>;

impl Front {
    /// Listens on a free port, and passes on what it gets by way of `behind`.
    ///
    /// # Errors
    /// When there is no free port.
    pub async fn start(behind: Client) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let address = listener.local_addr()?;
        let (conduct, conducts) = watch::channel(Conduct::Through);
        let seen = Arc::default();
        let listening = tokio::spawn(listen(listener, behind, conducts, Arc::clone(&seen)));
        Ok(Self { address, conduct, seen, listening })
    }

    /// A client that goes through the proxy.
    ///
    /// # Errors
    /// None that can be expected.
    pub fn client(&self) -> Result<Client> {
        let url = format!("http://{}", self.address).parse().context("the address of the proxy")?;
        Ok(Client::try_from(Config::new(url))?)
    }

    /// Does this from now on, and cuts all open connections.
    pub fn conduct(&self, conduct: Conduct) {
        self.conduct.send_replace(conduct);
    }

    /// How many requests have come, by method and the last word of the path that is a resource.
    pub fn seen(&self) -> BTreeMap<String, u64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn listen(
    listener: TcpListener,
    behind: Client,
    conducts: watch::Receiver<Conduct>,
    seen: Arc<Mutex<BTreeMap<String, u64>>>,
) {
    let mut open = tokio::task::JoinSet::new();
    loop {
        let stream = tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(_) => continue,
            },
            // Forgets what has ended.
            Some(_) = open.join_next() => continue,
        };
        let (behind, mut conducts, seen) = (behind.clone(), conducts.clone(), Arc::clone(&seen));
        let conduct = conducts.borrow_and_update().clone();
        open.spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let word = format!("{} {}", request.method(), resource(request.uri().path()));
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                let number = seen.entry(word).or_default();
                *number += 1;
                answer(request, behind.clone(), conduct.clone(), *number)
            });
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service);
            tokio::select! {
                // A connection that breaks off is the client's affair.
                _ = connection => {}
                _ = conducts.changed() => {}
            }
        });
    }
}

async fn answer(request: Request<Incoming>, behind: Client, conduct: Conduct, number: u64) -> Result<Answer> {
    match conduct {
        Conduct::Through => pass(request, behind).await,
        Conduct::Garbage(answers) => {
            let number = usize::try_from(number)?.checked_rem(answers.len()).context("an answer to give")?;
            let (status, text) = answers[number].clone();
            let body = Full::new(Bytes::from(text)).map_err(|never| match never {}).boxed_unsync();
            Ok(Response::builder().status(status).header("content-type", "application/json").body(body)?)
        }
        Conduct::Silent => std::future::pending().await,
    }
}

async fn pass(request: Request<Incoming>, behind: Client) -> Result<Answer> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await?.to_bytes();
    let mut onward = Request::builder().method(parts.method);
    onward = onward.uri(parts.uri.path_and_query().map_or("/", |path| path.as_str()));
    for header in ["content-type", "accept"] {
        if let Some(value) = parts.headers.get(header) {
            onward = onward.header(header, value);
        }
    }
    let (parts, body) = behind.send(onward.body(Body::from(body))?).await?.into_parts();
    let mut back = Response::builder().status(parts.status);
    if let Some(value) = parts.headers.get("content-type") {
        back = back.header("content-type", value);
    }
    Ok(back.body(body.boxed_unsync())?)
}

/// `pods` of `/api/v1/namespaces/shop/pods/web-1`.
fn resource(path: &str) -> &str {
    let words: Vec<_> = path.split('/').filter(|word| !word.is_empty()).collect();
    let skip = if words.first() == Some(&"api") { 2 } else { 3 };
    match words.get(skip..).unwrap_or_default() {
        ["namespaces", _, resource, ..] | [resource, ..] => resource,
        [] => "",
    }
}

#[cfg(test)]
mod tests {
    use super::resource;

    #[test]
    fn a_path_names_a_resource() {
        assert_eq!(resource("/api/v1/namespaces/shop/pods/web-1"), "pods");
        assert_eq!(resource("/api/v1/pods"), "pods");
        assert_eq!(resource("/apis/mailroute.dev/v1alpha1/mailroutes"), "mailroutes");
        assert_eq!(resource("/apis/coordination.k8s.io/v1/namespaces/mail/leases/mailroute"), "leases");
        assert_eq!(resource("/version"), "");
    }
}
