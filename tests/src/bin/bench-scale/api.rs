//! An API server in memory: as much of one as the operator calls, for any kind of object, with lists in pages and watches. It counts
//! what is said to it, and takes next to no processor time of the operator's machine.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::Result;
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use futures::stream;
use serde_json::{Value, json};

use crate::objects::{Objects, merge};

/// The server, and what was said to it.
#[derive(Default)]
pub struct ApiServer {
    /// The objects.
    pub objects: Objects,
    /// What was said.
    pub traffic: Traffic,
}

/// What the operator said to the API server, and was told.
#[derive(Default)]
pub struct Traffic {
    /// Requests.
    pub requests: AtomicU64,
    /// Of these, reviews of tokens.
    pub reviews: AtomicU64,
    /// Octets of bodies, both ways, and of paths.
    pub octets: Arc<AtomicU64>,
}

/// What was asked for: `/apis/group/version/namespaces/a/plural/name/sub`.
struct Target {
    plural: String,
    namespace: String,
    name: Option<String>,
    is_status: bool,
}

impl Target {
    fn of(path: &str) -> Option<Self> {
        let parts: Vec<&str> = path.trim_matches('/').split('/').collect();
        let (version, rest) = parts.split_at_checked(if parts[0] == "api" { 2 } else { 3 })?;
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            _ => ("", rest),
        };
        // Two kinds of Events share a plural.
        let group = if version[0] == "api" { "" } else { version[1] };
        let plural = format!("{}.{group}", rest.first()?);
        let name = rest.get(1).map(|name| (*name).to_owned());
        Some(Self {
            plural,
            namespace: namespace.to_owned(),
            name,
            is_status: rest.get(2) == Some(&"status"),
        })
    }
}

impl ApiServer {
    /// Serves on a free port of this machine.
    ///
    /// # Errors
    /// When there is none.
    pub async fn serve(self: &Arc<Self>) -> Result<SocketAddr> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let router = Router::new().fallback(answer).with_state(Arc::clone(self));
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }

    fn read(&self, target: &Target, query: &HashMap<String, String>, headers: &HeaderMap) -> Response {
        let named = query.get("fieldSelector").and_then(|it| it.strip_prefix("metadata.name="));
        let key = |name: &str| format!("{}/{name}", target.namespace);
        if let Some(name) = &target.name {
            let found = self.objects.get(&target.plural, &key(name));
            return found.map_or_else(missing, |object| self.json(StatusCode::OK, object));
        }
        let only = named.map(key);
        if query.get("watch").is_some_and(|it| it == "1" || it == "true") {
            let since = query.get("resourceVersion").and_then(|it| it.parse().ok()).unwrap_or_default();
            let watch = self.objects.watch(&target.plural, since, only);
            let octets = Arc::clone(&self.traffic.octets);
            let lines = stream::unfold((watch, octets), |(mut watch, octets)| async {
                let line = watch.next().await?;
                octets.fetch_add(line.len() as u64, Ordering::Relaxed);
                Some((Ok::<_, std::convert::Infallible>(line), (watch, octets)))
            });
            return ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(lines)).into_response();
        }
        let limit = query.get("limit").and_then(|it| it.parse().ok()).unwrap_or(usize::MAX);
        let after = query.get("continue").map(String::as_str);
        let is_partial = headers
            .get(header::ACCEPT)
            .and_then(|it| it.to_str().ok())
            .is_some_and(|it| it.contains("PartialObjectMetadata"));
        let list =
            self.objects.list(&target.plural, &target.namespace, only.as_deref(), after, limit, is_partial);
        self.json(StatusCode::OK, list)
    }

    fn write(&self, method: &Method, target: &Target, body: &[u8]) -> Response {
        let Ok(sent) = serde_json::from_slice::<Value>(body) else { return missing() };
        if target.plural.starts_with("tokenreviews.") {
            self.traffic.reviews.fetch_add(1, Ordering::Relaxed);
            return self.json(StatusCode::CREATED, reviewed(sent).to_string().into());
        }
        if target.plural.starts_with("events.") {
            return self.json(StatusCode::CREATED, body.to_vec().into());
        }
        let name = target.name.as_deref().or_else(|| sent["metadata"]["name"].as_str());
        let name = &name.unwrap_or_default().to_owned();
        let key = format!("{}/{name}", target.namespace);
        let old = self.objects.get(&target.plural, &key);
        let old = old.and_then(|it| serde_json::from_slice::<Value>(&it).ok());
        let written = match (method.as_str(), old) {
            ("PATCH", Some(mut old)) if target.is_status => {
                let refused = old["status"]["refused"].take();
                old["status"] = sent["status"].clone();
                if !refused.is_null() && old["status"]["refused"].is_null() {
                    old["status"]["refused"] = refused;
                }
                old
            }
            ("PATCH", Some(mut old)) => {
                merge(&mut old, sent);
                old
            }
            (_, _) => sent,
        };
        let stored = self.objects.put(&target.plural, &target.namespace, name, written);
        self.json(if method == Method::POST { StatusCode::CREATED } else { StatusCode::OK }, stored)
    }

    fn json(&self, status: StatusCode, body: Bytes) -> Response {
        self.traffic.octets.fetch_add(body.len() as u64, Ordering::Relaxed);
        (status, [(header::CONTENT_TYPE, "application/json")], body).into_response()
    }
}

async fn answer(
    State(api): State<Arc<ApiServer>>,
    method: Method,
    uri: Uri,
    Query(query): Query<HashMap<String, String>>,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    api.traffic.requests.fetch_add(1, Ordering::Relaxed);
    api.traffic.octets.fetch_add((body.len() + uri.to_string().len()) as u64, Ordering::Relaxed);
    if uri.path() == "/version" {
        let version = json!({"major": "1", "minor": "34", "gitVersion": "v1.34.0", "gitCommit": "", "gitTreeState": "",
            "buildDate": "", "goVersion": "", "compiler": "", "platform": ""});
        return api.json(StatusCode::OK, version.to_string().into());
    }
    let Some(target) = Target::of(uri.path()) else { return missing() };
    match method {
        Method::GET => api.read(&target, &query, &headers),
        Method::DELETE => {
            api.objects
                .remove(&target.plural, &format!("{}/{}", target.namespace, target.name.unwrap_or_default()));
            api.json(StatusCode::OK, json!({"kind": "Status", "status": "Success"}).to_string().into())
        }
        _ => api.write(&method, &target, &body),
    }
}

fn missing() -> Response {
    let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "reason": "NotFound", "code": 404,
        "message": "not found"});
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], status.to_string()).into_response()
}

/// Every token is good, and of the pod that it claims to be of.
fn reviewed(mut review: Value) -> Value {
    let token = review["spec"]["token"].as_str().unwrap_or_default();
    let claims = token.split('.').nth(1).and_then(|it| URL_SAFE_NO_PAD.decode(it).ok()).unwrap_or_default();
    let bound = serde_json::from_slice::<Value>(&claims).unwrap_or_default()["kubernetes.io"].take();
    review["status"] = json!({
        "authenticated": true,
        "audiences": ["mailroute.dev"],
        "user": {
            "username": format!("system:serviceaccount:{}:default", bound["namespace"].as_str().unwrap_or_default()),
            "extra": {
                "authentication.kubernetes.io/pod-name": [bound["pod"]["name"]],
                "authentication.kubernetes.io/pod-uid": [bound["pod"]["uid"]],
            },
        },
    });
    review
}
