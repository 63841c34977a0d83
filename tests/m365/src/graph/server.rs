//! Graph over HTTP: requests in, answers out, every one recorded.
//!
//! The only part of Graph that touches bodies, sleeps and the clock. It decides nothing itself.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Request, Response, StatusCode,
    body::{Body as _, Incoming},
    header::{self, HeaderName, HeaderValue},
};
use jiff::Timestamp;
use thiserror::Error;

use super::{
    admission::{Admitted, Authorization, Head, admit},
    answer,
    submission::{Body, deliver, take},
};
use crate::{
    dialogue::Speaker,
    faults::{GraphAction, GraphAnswer},
    mailbox::ConnectionFacts,
    office::{Office, Shared},
    random,
    records::GraphRequest,
};

/// What is kept of a body beyond the largest message: base64 makes four bytes of three, and lines have ends.
const ROOM: usize = 64 * 1024;

/// Which machine answered, in the form that Graph shows.
const DIAGNOSTIC: &str = r#"{"ServerInfo":{"DataCenter":"Germany West Central","Slice":"E","Ring":"2","ScaleUnit":"002","RoleInstance":"FR3PEPF000004A2"}}"#;

/// Serves one connection.
#[derive(Clone, Debug)]
pub struct Graph {
    /// The service.
    pub shared: Arc<Shared>,
    /// The connection.
    pub facts: ConnectionFacts,
}

/// The connection ends without an answer.
#[derive(Debug, Error)]
pub enum Unanswered {
    /// A fault cuts it.
    #[error("the connection is cut")]
    Cut,
    /// The client's body ended early.
    #[error("the body cannot be read: {0}")]
    Body(#[from] hyper::Error),
}

/// A place among the requests under way, given up when the answer is decided or the client is gone.
struct Place(Arc<Shared>, String);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.with(|office| office.usage.end_request(&self.1));
    }
}

impl Graph {
    /// Answers one request.
    ///
    /// # Errors
    /// See [`Unanswered`].
    pub async fn answer(self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Unanswered> {
        let head = head(&request, self.facts.id);
        let (delay, fault) = self.shared.with(|office| office.faults.graph.take());
        let admitted = self.shared.with(|office| admit(office, &head, Timestamp::now()));
        let _place = admitted.as_ref().ok().map(|own| Place(Arc::clone(&self.shared), own.place.clone()));
        let (largest, pace) = self
            .shared
            .read(|office| (office.config.graph.mime_bytes, office.config.pace.message_milliseconds));
        let body = read(request.into_body(), largest / 3 * 8 + ROOM).await?;
        let wait = if admitted.is_ok() { delay + pace } else { delay };
        if wait > 0 {
            tokio::time::sleep(Duration::from_millis(wait)).await;
        }
        let now = Timestamp::now();
        let answer = self.shared.with(|office| {
            let answer = self.decide(office, &head, admitted, &body, fault, now);
            self.record(office, &head, &body, answer.as_ref(), now);
            answer.map(|(answer, _)| answer)
        });
        answer.map(|answer| respond(&answer, &head, now)).ok_or(Unanswered::Cut)
    }

    /// The answer and the client id of its application; `None` to cut the connection.
    fn decide(
        &self,
        office: &mut Office,
        head: &Head,
        admitted: Result<Admitted, GraphAnswer>,
        body: &Body,
        fault: Option<GraphAction>,
        now: Timestamp,
    ) -> Option<(GraphAnswer, String)> {
        let client = admitted.as_ref().map(|own| own.token.client_id.clone()).unwrap_or_default();
        let (accepts, copies) = match &fault {
            Some(GraphAction::Answer(answer)) => (answer.accepted, 1),
            Some(GraphAction::Cut { accepted }) => (*accepted, 1),
            Some(GraphAction::Duplicate) => (true, 2),
            Some(GraphAction::Delay(_)) | None => (true, 1),
        };
        let mut answer = GraphAnswer::new(202);
        if accepts {
            let taken = admitted.and_then(|own| Ok((take(office, head, &own, body, now)?, own)));
            match taken {
                Ok((taken, own)) => deliver(office, &own, &taken, &self.facts, copies, now),
                Err(refusal) => answer = refusal,
            }
        }
        let refused = answer.status != 202;
        match fault {
            Some(GraphAction::Cut { .. }) => None,
            Some(GraphAction::Answer(fault)) if !refused => Some((fault, client)),
            _ => Some((answer, client)),
        }
    }

    fn record(
        &self,
        office: &mut Office,
        head: &Head,
        body: &Body,
        answer: Option<&(GraphAnswer, String)>,
        now: Timestamp,
    ) {
        let (status, code) = answer.map_or((0, String::new()), |(answer, _)| {
            (answer.status, answer.code.clone().unwrap_or_default())
        });
        if status >= 400 {
            office.tally.refused_by_graph(status, &code);
        }
        let mailbox = head.mailbox().unwrap_or_default();
        self.transcribe(office, head, body, (status, &code), now);
        tracing::info!(connection = self.facts.id, mailbox, octets = body.octets, status, code, "sendMail");
        office.request(GraphRequest {
            at: now,
            connection: self.facts.id,
            client_id: answer.map(|(_, client)| client.clone()).unwrap_or_default(),
            mailbox,
            octets: body.octets,
            chunked: head.chunked,
            client_request_id: head.client_request_id.clone(),
            status,
            code,
            retry_after: answer.and_then(|(answer, _)| answer.retry_after),
        });
    }

    /// The request and its answer as lines of a dialogue; without header fields, one of which is the token.
    fn transcribe(
        &self,
        office: &mut Office,
        head: &Head,
        body: &Body,
        (status, code): (u16, &str),
        now: Timestamp,
    ) {
        let request = format!("{} {} ({} octets)", head.method, head.path, body.octets);
        office.transcribe(now, self.facts.id, Speaker::Client, &request);
        let (by, answer) = match status {
            0 => (Speaker::Event, "(connection cut)".to_owned()),
            _ => (Speaker::Server, format!("{status} {code}").trim_end().to_owned()),
        };
        office.transcribe(now, self.facts.id, by, &answer);
    }
}

fn head(request: &Request<Incoming>, connection: u64) -> Head {
    let text = |name: HeaderName| text(request.headers(), &name).unwrap_or_default().to_owned();
    Head {
        connection,
        method: request.method().to_string(),
        path: request.uri().path().to_owned(),
        authorization: Authorization(text(header::AUTHORIZATION)),
        content_type: text(header::CONTENT_TYPE),
        client_request_id: self::text(request.headers(), &HeaderName::from_static("client-request-id"))
            .map(str::to_owned),
        chunked: request.body().size_hint().exact().is_none(),
    }
}

fn text<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

/// The whole body, of which at most so many bytes are kept.
async fn read(mut body: Incoming, keep: usize) -> Result<Body, hyper::Error> {
    let mut read = Body::default();
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame?.into_data() else { continue };
        read.octets += data.len();
        let room = keep.saturating_sub(read.bytes.len()).min(data.len());
        read.bytes.extend_from_slice(&data[..room]);
    }
    Ok(read)
}

fn respond(answer: &GraphAnswer, head: &Head, now: Timestamp) -> Response<Full<Bytes>> {
    let request_id = random::guid();
    let (kind, body) = answer::body(answer, &request_id, now);
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(answer.status).unwrap_or(StatusCode::IM_A_TEAPOT);
    let client_request_id = head.client_request_id.as_deref().unwrap_or(&request_id);
    let headers = response.headers_mut();
    let mut set = |name: &'static str, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    };
    set("cache-control", "private");
    set("request-id", &request_id);
    set("client-request-id", client_request_id);
    set("x-ms-ags-diagnostic", DIAGNOSTIC);
    if let Some(kind) = kind {
        set("content-type", kind);
    }
    if let Some(seconds) = answer.retry_after {
        set("retry-after", &seconds.to_string());
    }
    if answer.status == 401 {
        set(
            "www-authenticate",
            r#"Bearer realm="", authorization_uri="https://login.microsoftonline.com/common/oauth2/authorize", client_id="00000003-0000-0000-c000-000000000000""#,
        );
    }
    response
}
