//! The connection to a token authority: one HTTPS POST over its own connection.

use async_trait::async_trait;
use mailroute_entra::exchange::{Answer, Post, Transport};

use crate::net::https;
use crate::net::tls::Trust;

/// Goes to the authority by itself.
#[derive(Debug)]
pub(super) struct Direct(pub(super) Trust);

#[async_trait]
impl Transport for Direct {
    async fn post(&self, post: Post<'_>) -> Result<Answer, String> {
        let post = https::Post {
            dial: post.host,
            port: post.port,
            server_name: post.host,
            path: post.path,
            content_type: "application/x-www-form-urlencoded",
            bearer: None,
            body: post.body,
        };
        let answer = https::post(post, &self.0).await.map_err(|error| error.to_string())?;
        let https::Answer { status, retry_after, body } = answer;
        Ok(Answer { status, retry_after, body })
    }
}
