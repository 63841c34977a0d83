//! The list: the newest messages, or those with certain words, a page at a time.

use std::collections::VecDeque;

use axum::{
    Json,
    extract::{Query, State},
};
use serde::{Deserialize, Serialize};

use super::{
    Inbox,
    reading::{Summary, contains},
};
use crate::mailbox::Message;

/// Messages in one answer.
const PAGE: usize = 100;

/// Messages that are looked at before others get a turn.
const BATCH: usize = 25;

/// Words of a search.
const MAX_WORDS: usize = 10;

/// `?search=…&before=N`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Wanted {
    search: String,
    before: Option<u64>,
}

/// Part of the list.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Page {
    /// Messages that are stored, found or not.
    total: usize,
    /// Whether there are older ones that were found.
    more: bool,
    /// Newest first.
    messages: Vec<Summary>,
}

/// The newest messages before an id that have every word of the search.
pub(super) async fn messages(State(inbox): State<Inbox>, Query(wanted): Query<Wanted>) -> Json<Page> {
    let words: Vec<String> =
        wanted.search.to_lowercase().split_whitespace().take(MAX_WORDS).map(str::to_owned).collect();
    let mut page = Page { total: inbox.shared.read(|office| office.messages.len()), ..Page::default() };
    let mut before = Some(wanted.before.unwrap_or(u64::MAX));
    while let Some(id) = before.filter(|_| page.messages.len() <= PAGE) {
        let (found, next) = inbox.shared.read(|office| batch(&office.messages, id, &words));
        page.messages.extend(found);
        before = next;
        tokio::task::yield_now().await;
    }
    page.more = page.messages.len() > PAGE;
    page.messages.truncate(PAGE);
    Json(page)
}

/// What is found in the next messages before an id, newest first, and where to go on.
fn batch(messages: &VecDeque<Message>, before: u64, words: &[String]) -> (Vec<Summary>, Option<u64>) {
    let end = messages.partition_point(|message| message.id < before);
    let start = end.saturating_sub(BATCH);
    let looked_at = messages.range(start..end).rev();
    let found = looked_at.filter(|message| contains(message, words)).map(Summary::of).collect();
    let next = messages.get(start).filter(|_| start > 0).map(|message| message.id);
    (found, next)
}
