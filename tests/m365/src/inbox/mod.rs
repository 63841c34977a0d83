//! The inbox: a page on the control port that shows a person what arrived, what was refused, and which faults are on.
//!
//! ```text
//!  browser ── GET /inbox/ ──────────────────────► page        HTML, CSS and JavaScript, in the program
//!          ── GET /inbox/events ────────────────► events      tells that something changed
//!          ── GET /inbox/messages?search=… ─────► list        newest first, a page at a time
//!          ── GET /inbox/messages/{id} ─────────► reading     one message, read for a person
//!          ── GET /inbox/messages/{id}/html ────► html        what the sandboxed frame shows
//!          ── GET /inbox/messages/{id}/… ───────► download    attachments, the whole message
//!          ── GET /inbox/refusals ──────────────► refusals    violations, refused commands and token requests
//!          ── GET, PUT /inbox/faults/{id} ──────► switches    common faults, by name
//! ```
//! Mail is hostile. The page sets everything from a message as text. What a message itself has as HTML is served for a
//! sandboxed frame only, under a policy that runs nothing and loads nothing. Addresses are relative, so that the page also
//! works behind a proxy that adds a path. Sizes and numbers are bounded; nothing here knows a token or a password.

mod download;
mod events;
mod html;
mod links;
mod list;
mod page;
mod reading;
mod refusals;
mod switches;

use std::sync::Arc;

use axum::{
    Json, Router,
    extract::{Path, State},
    http::{HeaderName, HeaderValue, StatusCode, header},
    middleware::map_response,
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use tokio::sync::Semaphore;

use self::{page::ASSETS, reading::Reading};
use crate::{mailbox::Message, office::Shared};

/// Pages that are told of changes at the same time, at most.
const MAX_STREAMS: usize = 64;

/// The policy of everything that is not the page itself.
const NOTHING: &str = "default-src 'none'; frame-ancestors 'none'; sandbox";

/// What the handlers work with.
#[derive(Clone, Debug)]
struct Inbox {
    shared: Arc<Shared>,
    streams: Arc<Semaphore>,
}

/// Every path of the inbox, `/` among them, which leads to it.
pub fn routes(shared: Arc<Shared>) -> Router {
    let to_page = get(async || Redirect::to("inbox/"));
    let mut router = Router::new()
        .route("/", to_page.clone())
        .route("/inbox", to_page)
        .route("/inbox/events", get(events::events))
        .route("/inbox/messages", get(list::messages))
        .route("/inbox/messages/{id}", get(message))
        .route("/inbox/messages/{id}/html", get(html::frame))
        .route("/inbox/messages/{id}/message.eml", get(download::whole))
        .route("/inbox/messages/{id}/attachments/{number}", get(download::attachment))
        .route("/inbox/refusals", get(refusals::refusals))
        .route("/inbox/faults", get(switches::list))
        .route("/inbox/faults/{id}", get(switches::one).put(switches::put));
    for asset in ASSETS {
        router = router.route(asset.path, get(move || async move { asset.into_response() }));
    }
    router
        .layer(map_response(harden))
        .with_state(Inbox { shared, streams: Arc::new(Semaphore::new(MAX_STREAMS)) })
}

impl Inbox {
    /// A copy of a message, so that reading it holds up nobody.
    fn find(&self, id: u64) -> Result<Message, NotFound> {
        let found = |message: &&Message| message.id == id;
        self.shared.read(|office| office.messages.iter().rev().find(found).cloned()).ok_or(NotFound)
    }
}

/// There is no such message, part or fault.
#[derive(Debug)]
struct NotFound;

impl IntoResponse for NotFound {
    fn into_response(self) -> Response {
        (StatusCode::NOT_FOUND, "not found\n").into_response()
    }
}

async fn message(State(inbox): State<Inbox>, Path(id): Path<u64>) -> Result<Json<Reading>, NotFound> {
    let message = inbox.find(id)?;
    let dialogue = inbox.shared.read(|office| office.dialogues.of(message.connection.id).cloned());
    Ok(Json(Reading::of(&message, dialogue)))
}

/// At most so many bytes of a text, and whether something was left out.
fn cut(text: &str, most: usize) -> (&str, bool) {
    (&text[..text.floor_char_boundary(most)], text.len() > most)
}

/// Adds what every answer has, unless the handler said otherwise.
async fn harden(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, NOTHING),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("x-dns-prefetch-control"), "off"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}
