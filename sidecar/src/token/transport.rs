//! The connection to a token authority: one HTTPS POST over its own connection, to the authority itself or to the token
//! proxy that stands for it.

use async_trait::async_trait;
use mailroute_entra::Failure;
use mailroute_entra::exchange::{Answer, Post, Transport, unavailable};
use mailroute_entra::web_proxy::{WebProxy, WrongProxy};
use mailroute_route::condition::Reason;

use super::proxy::TokenProxy;
use crate::net::https::{self, HttpsError};
use crate::net::tls::Trust;

/// Goes to the authority itself, through the proxy that the route or the container's variables name where they name one.
#[derive(Debug)]
pub(super) struct Direct {
    /// Whom to trust.
    pub trust: Trust,
    /// The proxy, or why what names it is of no use. That matters only for hosts that are reached through it.
    pub proxy: Result<Option<WebProxy>, WrongProxy>,
}

#[async_trait]
impl Transport for Direct {
    async fn post(&self, post: Post<'_>) -> Result<Answer, Failure> {
        let proxy = match &self.proxy {
            Ok(proxy) => proxy.as_ref(),
            Err(wrong) if wrong.is_for(post.host, post.port) => return Err(unavailable(wrong.to_string())),
            Err(_) => None,
        };
        exchange(https::Post { proxy, ..form(&post) }, &self.trust).await
    }
}

/// Goes to the token proxy, wherever the authority is said to be. The path stays: it says which tenant is asked.
#[async_trait]
impl Transport for TokenProxy {
    async fn post(&self, post: Post<'_>) -> Result<Answer, Failure> {
        let path = format!("{}{}", self.prefix, post.path);
        let (dial, port, server_name) = (&self.host, self.port, &self.server_name);
        exchange(https::Post { dial, port, server_name, path: &path, ..form(&post) }, &self.trust).await
    }
}

/// The form, for the authority itself.
fn form<'a>(post: &Post<'a>) -> https::Post<'a> {
    https::Post {
        dial: post.host,
        port: post.port,
        proxy: None,
        server_name: post.host,
        path: post.path,
        content_type: "application/x-www-form-urlencoded",
        bearer: None,
        body: post.body.clone(),
    }
}

async fn exchange(post: https::Post<'_>, trust: &Trust) -> Result<Answer, Failure> {
    let answer = https::post(post, trust).await.map_err(failure)?;
    let https::Answer { status, retry_after, body } = answer;
    Ok(Answer { status, retry_after, body })
}

fn failure(error: HttpsError) -> Failure {
    match error {
        HttpsError::Trust(error) => Failure::new(Reason::AuthorityCaBundleMissing, error.to_string()),
        error => unavailable(error.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    #[tokio::test]
    async fn a_ca_bundle_that_is_not_there_is_no_fault_of_the_authority() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let post = Post { host: "localhost", port, path: "/", body: Bytes::new() };
        let failure = Direct { trust: Trust::File("/nowhere/ca.crt".into()), proxy: Ok(None) }
            .post(post)
            .await
            .err()
            .unwrap();
        assert_eq!(failure.reason, Reason::AuthorityCaBundleMissing);
        assert!(failure.message.contains("/nowhere/ca.crt"), "{}", failure.message);
    }

    #[tokio::test]
    async fn a_proxy_that_cannot_be_used_stops_only_what_would_go_through_it() {
        let proxy = WebProxy::of(Some("https://proxy.corp"), Some(".contoso.test"));
        let direct = Direct { trust: Trust::File("/nowhere/ca.crt".into()), proxy };
        for (host, is_stopped) in [("login.contoso.test", false), ("login.example", true)] {
            let post = Post { host, port: 1, path: "/", body: Bytes::new() };
            let failure = direct.post(post).await.err().unwrap();
            assert_eq!(failure.message.contains("HTTPS_PROXY"), is_stopped, "{}", failure.message);
        }
    }
}
