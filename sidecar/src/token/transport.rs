//! The connection to a token authority: one HTTPS POST over its own connection, to the authority itself or to the token
//! proxy that stands for it.

use async_trait::async_trait;
use mailroute_entra::exchange::{Answer, Post, Transport};
use mailroute_entra::web_proxy::WebProxy;

use super::proxy::TokenProxy;
use crate::net::https;
use crate::net::tls::Trust;

/// Goes to the authority itself, through the proxy that the container's variables name where they name one.
#[derive(Debug)]
pub(super) struct Direct {
    /// Whom to trust.
    pub trust: Trust,
    /// The proxy, or why what names it is of no use.
    pub proxy: Result<Option<WebProxy>, String>,
}

#[async_trait]
impl Transport for Direct {
    async fn post(&self, post: Post<'_>) -> Result<Answer, String> {
        let proxy = self.proxy.as_ref().map_err(String::clone)?.as_ref();
        exchange(https::Post { proxy, ..form(&post) }, &self.trust).await
    }
}

/// Goes to the token proxy, wherever the authority is said to be. The path stays: it says which tenant is asked.
#[async_trait]
impl Transport for TokenProxy {
    async fn post(&self, post: Post<'_>) -> Result<Answer, String> {
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

async fn exchange(post: https::Post<'_>, trust: &Trust) -> Result<Answer, String> {
    let answer = https::post(post, trust).await.map_err(|error| error.to_string())?;
    let https::Answer { status, retry_after, body } = answer;
    Ok(Answer { status, retry_after, body })
}
