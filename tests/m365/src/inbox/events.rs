//! Server-sent events: the figures by which the page sees that something changed. It fetches what it needs itself.

use std::{sync::Arc, time::Duration};

use axum::{
    extract::State,
    http::StatusCode,
    response::{
        IntoResponse, Response,
        sse::{Event, KeepAlive, Sse},
    },
};
use futures::stream;
use serde::Serialize;
use tokio::time::sleep;

use super::{Inbox, switches};
use crate::office::Office;

/// Shortest time between two events, however much mail arrives.
const PAUSE: Duration = Duration::from_millis(200);

/// Everything whose change the page shows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Figures {
    /// Id of the newest message.
    newest: u64,
    /// Messages that are stored.
    messages: usize,
    /// Violations that are recorded.
    violations: usize,
    /// Replies and answers that refused something.
    refusals: u64,
    /// Faults that are on.
    faults: usize,
}

impl Figures {
    fn of(office: &Office) -> Self {
        Self {
            newest: office.messages.back().map_or(0, |message| message.id),
            messages: office.messages.len(),
            violations: office.violations.len(),
            refusals: office.tally.refusals.values().sum::<u64>() + office.exchanges.len() as u64,
            faults: switches::on(&office.faults),
        }
    }
}

/// The figures now, and again after each change.
pub(super) async fn events(State(inbox): State<Inbox>) -> Response {
    let Ok(permit) = Arc::clone(&inbox.streams).try_acquire_owned() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many pages are open\n").into_response();
    };
    let events =
        stream::unfold((inbox.shared, None::<Figures>, permit), |(shared, last, permit)| async move {
            if last.is_some() {
                sleep(PAUSE).await;
            }
            let changed =
                |office: &Office| Some(Figures::of(office)).filter(|now| Some(now) != last.as_ref());
            let now = shared.wait_for(changed).await;
            let event = Event::default().event("change").json_data(&now);
            Some((event, (shared, Some(now), permit)))
        });
    Sse::new(events).keep_alive(KeepAlive::default()).into_response()
}
