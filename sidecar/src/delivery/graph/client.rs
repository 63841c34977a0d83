//! One HTTPS connection to Microsoft Graph that is kept open, and one request over it at a time.
//!
//! Owns the words of a request, the time limits, and what is known of a request that broke off. Refuses to know what an answer
//! means. HTTP/1.1, which Graph speaks as well as HTTP/2: with one request at a time there is nothing to multiplex.

use std::time::Duration;

use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::CONTENT_LENGTH;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use mailroute_entra::web_proxy::{WebProxy, WrongProxy};
use mailroute_route::condition::Reason;
use mailroute_route::file::Graph;
use ring::digest::{SHA256, digest};
use tokio::time::timeout;

use super::content::{Progress, RequestBody};
use crate::clock::{self, Instant};
use crate::delivery::connection::Protection;
use crate::delivery::pool::Reusable;
use crate::delivery::timeouts;
use crate::net::dial::DialError;
use crate::net::https::{self, HttpsError, Peer};
use crate::net::tls::Trust;
use crate::outcome::graph::GraphReply;
use crate::outcome::{DeliveryOutcome, Verdict};
use crate::secret::{Secret, scrub};

/// From the name to verified TLS.
const OPENING: Duration = Duration::from_secs(60);

/// From the last octet of a request to the first of its answer. Graph's own gateways give up after less.
const ANSWER: Duration = Duration::from_secs(180);

/// From the first octet of an answer to its last.
const REST: Duration = Duration::from_secs(30);

/// How long a connection may take to be ready for the next request.
const SETTLE: Duration = Duration::from_millis(100);

/// Octets that wait to be written, at most: a large message is read no faster than it is sent.
const BUFFER: usize = 64 * 1024;

/// An open connection.
pub struct GraphConnection {
    sender: SendRequest<RequestBody>,
    /// How it is protected.
    pub protection: Protection,
    opened: Instant,
    used: Instant,
}

impl Reusable for GraphConnection {
    fn opened(&self) -> Instant {
        self.opened
    }

    fn used(&self) -> Instant {
        self.used
    }

    /// HTTP has no words for it.
    async fn end(self) {}
}

/// A request that got no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// Nothing of it was sent, since the other side had closed the connection.
    Unsent,
    /// It broke off. What that means for the message.
    Broken(Box<Verdict>),
}

/// A request.
pub struct SendMail<'a> {
    /// The token.
    pub bearer: &'a Secret,
    /// What the content is about, for the id by which Microsoft finds the request.
    pub id: &'a str,
    /// Octets of the content.
    pub len: u64,
    /// The content.
    pub content: RequestBody,
    /// How far it has come.
    pub progress: &'a Progress,
}

/// Connects to Graph's host, through the proxy where there is one.
///
/// # Errors
/// The verdict on every message, when there is no connection.
pub async fn connect(
    settings: &Graph,
    proxy: &Result<Option<WebProxy>, WrongProxy>,
) -> Result<GraphConnection, Verdict> {
    let opened = timeout(OPENING, open(settings, proxy)).await;
    opened.unwrap_or_else(|_| {
        let text =
            format!("no connection to {} within {} seconds", settings.endpoint.host, OPENING.as_secs());
        Err(Verdict::without_reply(DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable)), text)
            .unsent())
    })
}

async fn open(
    settings: &Graph,
    proxy: &Result<Option<WebProxy>, WrongProxy>,
) -> Result<GraphConnection, Verdict> {
    let peer = peer(settings);
    let proxy = match proxy {
        Ok(proxy) => proxy.as_ref(),
        Err(wrong) if wrong.is_for(peer.dial, peer.port) => {
            let outcome = DeliveryOutcome::RouteFault(Reason::ConnectFailed);
            return Err(Verdict::without_reply(outcome, wrong.to_string()));
        }
        Err(_) => None,
    };
    let stream = Peer { proxy, ..peer }
        .open(&Trust::of(&settings.endpoint))
        .await
        .map_err(|error| unopened(&error))?;
    let protection = Protection::of(stream.get_ref().1);
    let failed = |error: hyper::Error| broken(Reason::UpstreamProtocolError, &error.to_string());
    let (sender, connection) =
        http1::Builder::new().max_buf_size(BUFFER).handshake(TokioIo::new(stream)).await.map_err(failed)?;
    // Ends with the sender; its error is the request's error too.
    tokio::spawn(connection);
    let now = clock::now();
    Ok(GraphConnection { sender, protection, opened: now, used: now })
}

fn peer(settings: &Graph) -> Peer<'_> {
    let endpoint = &settings.endpoint;
    Peer { dial: &endpoint.host, port: endpoint.port, proxy: None, server_name: &endpoint.host }
}

/// The verdict on every message when there is no connection.
fn unopened(error: &HttpsError) -> Verdict {
    let outcome = match error {
        HttpsError::Dial(DialError::Resolve { .. }) => {
            DeliveryOutcome::Transient(Some(Reason::NameNotResolved))
        }
        HttpsError::Dial(DialError::Connect { .. }) | HttpsError::Proxy { .. } => {
            DeliveryOutcome::Transient(Some(Reason::ConnectFailed))
        }
        HttpsError::Trust(_) => DeliveryOutcome::RouteFault(Reason::CaBundleMissing),
        HttpsError::ServerName(_) | HttpsError::Tls { .. } => DeliveryOutcome::RouteFault(Reason::TlsFailed),
        HttpsError::Http { .. } | HttpsError::TooLarge | HttpsError::Timeout(_) => {
            DeliveryOutcome::Transient(Some(Reason::UpstreamProtocolError))
        }
    };
    Verdict::without_reply(outcome, error.to_string()).unsent()
}

/// The verdict when a new connection is closed before anything was sent over it.
pub fn closed() -> Verdict {
    broken(Reason::UpstreamProtocolError, "it was closed before a request").unsent()
}

fn broken(reason: Reason, what: &str) -> Verdict {
    let text = format!("the connection to Microsoft Graph was lost: {}", scrub(what));
    Verdict::without_reply(DeliveryOutcome::Transient(Some(reason)), text)
}

impl GraphConnection {
    /// Whether another request may follow. Not behind an answer that came before all of the content was read.
    pub async fn is_reusable(&mut self) -> bool {
        timeout(SETTLE, self.sender.ready()).await.is_ok_and(|ready| ready.is_ok())
    }

    /// Sends one message, or what is none, as `mailbox` of `settings`, and reads the answer.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn send(&mut self, settings: &Graph, mail: SendMail<'_>) -> Result<GraphReply, NoAnswer> {
        let SendMail { bearer, id, len, content, progress } = mail;
        let request = request(settings, bearer, id, len, content)?;
        if self.sender.ready().await.is_err() {
            return Err(NoAnswer::Unsent);
        }
        let longest = timeouts::content(len) + ANSWER;
        let response = match timeout(longest, self.sender.try_send_request(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(mut error)) => {
                return Err(match error.take_message() {
                    Some(_) => NoAnswer::Unsent,
                    None => interrupted(progress, &error.into_error().to_string()),
                });
            }
            Err(_) => {
                return Err(interrupted(
                    progress,
                    &format!("no answer within {} seconds", longest.as_secs()),
                ));
            }
        };
        let reply = read(response, &settings.endpoint.host).await;
        self.used = clock::now();
        Ok(reply)
    }
}

/// What is known of a message whose request broke off: while some of its content was missing nobody can have sent it.
fn interrupted(progress: &Progress, what: &str) -> NoAnswer {
    let verdict = if progress.is_unreadable() {
        Verdict::without_reply(DeliveryOutcome::Transient(None), "the message cannot be read from the spool")
            .unsent()
    } else if progress.is_handed_over() {
        broken(Reason::GraphResultUnknown, &format!("{what}; whether the message was accepted is unknown"))
    } else {
        broken(Reason::UpstreamProtocolError, what).unsent()
    };
    NoAnswer::Broken(Box::new(verdict))
}

fn request(
    settings: &Graph,
    bearer: &Secret,
    id: &str,
    len: u64,
    content: RequestBody,
) -> Result<Request<RequestBody>, NoAnswer> {
    let path = format!("/v1.0/users/{}/sendMail", percent_encoded(&settings.mailbox));
    let request = peer(settings)
        .post(&path, "text/plain", Some(bearer))
        .header("client-request-id", request_id(id))
        .header(CONTENT_LENGTH, len)
        .body(content);
    // The error's text would be about a header's name only, but the request must not be part of it.
    request.map_err(|_| {
        NoAnswer::Broken(Box::new(broken(
            Reason::UpstreamProtocolError,
            "the request has an invalid path or header",
        )))
    })
}

/// Reads an answer. What its status says holds, whatever becomes of the rest of it.
async fn read(response: Response<Incoming>, host: &str) -> GraphReply {
    let status = response.status().as_u16();
    let id = response.headers().get("request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let request_id: String = id.chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').take(36).collect();
    let retry_after = https::retry_after(&response);
    let reply = match timeout(REST, https::read(response, host)).await {
        Ok(Ok(answer)) => read_body(status, retry_after, &answer.body),
        Ok(Err(_)) | Err(_) => GraphReply { status, retry_after, ..GraphReply::default() },
    };
    GraphReply { request_id, ..reply }
}

/// An answer without what looks like a token.
fn read_body(status: u16, retry_after: Option<Duration>, body: &[u8]) -> GraphReply {
    GraphReply::read(status, retry_after, body, |text| scrub(text).into_owned())
}

/// The address as one segment of a path (RFC 3986 §3.3).
fn percent_encoded(address: &str) -> String {
    let mut encoded = String::with_capacity(address.len());
    for octet in address.bytes() {
        if octet.is_ascii_alphanumeric() || b"-._~@".contains(&octet) {
            encoded.push(char::from(octet));
        } else {
            encoded.push_str(&format!("%{octet:02X}"));
        }
    }
    encoded
}

/// The id of every request about the same message, in the form of a UUID (RFC 9562 §5.8).
fn request_id(id: &str) -> String {
    let digest = digest(&SHA256, id.as_bytes());
    let hex: String = digest.as_ref().iter().take(16).map(|octet| format!("{octet:02x}")).collect();
    format!("{}-{}-8{}-a{}-{}", &hex[..8], &hex[8..12], &hex[13..16], &hex[17..20], &hex[20..32])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_stays_one_segment_of_the_path() {
        assert_eq!(percent_encoded("noreply@contoso.com"), "noreply@contoso.com");
        assert_eq!(percent_encoded("a/../b?c#d%e @f"), "a%2F..%2Fb%3Fc%23d%25e%20@f");
        assert_eq!(percent_encoded("o'brien+ü@x"), "o%27brien%2B%C3%BC@x");
    }

    #[test]
    fn an_answer_that_quotes_a_token_does_not_show_it() {
        let token = format!("eyJ0eXAi{}", "A1b2".repeat(40));
        let body = format!(r#"{{"error":{{"code":"InvalidAuthenticationToken","message":"{token}"}}}}"#);
        let reply = read_body(401, None, body.as_bytes());
        assert!(reply.code == "InvalidAuthenticationToken" && !reply.message.contains("A1b2"), "{reply}");
    }

    #[test]
    fn the_id_of_a_request_is_a_uuid_and_the_same_in_every_attempt() {
        let id = request_id("20261130T201500.000001Z-1");
        assert_eq!(id, request_id("20261130T201500.000001Z-1"));
        assert_ne!(id, request_id("20261130T201500.000001Z-2"));
        let groups: Vec<_> = id.split('-').map(str::len).collect();
        assert_eq!(groups, [8, 4, 4, 4, 12], "{id}");
        assert!(id.chars().all(|c| c == '-' || c.is_ascii_hexdigit()));
    }
}
