//! The same commands on a spool that no program has open: as much as the disk tells. Changes nothing.
//!
//! What would change something is refused: it belongs to whoever holds the spool, and a sidecar that starts in between
//! would have read the old state already.

use std::path::Path;

use jiff::Timestamp;

use super::handler::Reply;
use super::listing::{self, Row, State};
use super::protocol::{Answer, Id, PAGE, Page, Part, Request};
use crate::message::envelope::QueueId;
use crate::queue::header_of;
use crate::spool::{Glance, Kept, Shelf, SpoolError, View};

/// Most set-aside files that are named.
const MAX_CORRUPT: usize = 1000;

/// Answers from the spool in `directory`.
pub async fn answer(directory: &Path, request: Request, now: Timestamp) -> Reply {
    if !directory.is_dir() {
        return Reply::refused(format!("there is no spool in {}; see --spool-dir", directory.display()));
    }
    let view = View::new(directory);
    match request {
        Request::List { part, after } => match page(&view, part, after.map(|id| id.0).as_ref(), now) {
            Ok(page) => Answer::Page(page).into(),
            Err(error) => Reply::refused(error),
        },
        Request::Show(Id(id)) => match whole(&view, &id) {
            Ok(kept) => show(&id, kept).await,
            Err(why) => Reply::refused(why),
        },
        Request::Export(Id(id)) => match whole(&view, &id) {
            Ok(kept) => Reply::content(kept.body),
            Err(why) => Reply::refused(why),
        },
        Request::Obstacle => Answer::Obstacle(None).into(),
        Request::Retry(_) | Request::Drop { .. } => Reply::refused(format!(
            "no sidecar runs on the spool in {}; start it, as only it changes the queue",
            directory.display()
        )),
    }
}

/// Names of the files that were set aside.
pub(super) fn corrupt(view: &View) -> Result<Vec<String>, SpoolError> {
    let mut names = view.corrupt()?;
    names.truncate(MAX_CORRUPT);
    Ok(names)
}

fn page(view: &View, part: Part, after: Option<&QueueId>, now: Timestamp) -> Result<Page, SpoolError> {
    let shelf = match part {
        Part::Waiting => Shelf::Queue,
        Part::Dead => Shelf::Dead,
    };
    let ids = view.ids(shelf)?;
    let ids = &ids[after.map_or(0, |after| ids.partition_point(|id| id <= after))..];
    let (these, more) = (&ids[..ids.len().min(PAGE)], ids.len() > PAGE);
    Ok(Page {
        now,
        rows: these.iter().filter_map(|id| row(view, shelf, id)).collect(),
        next: these.last().filter(|_| more).map(|id| Id(id.clone())),
        corrupt: if part == Part::Dead && !more { corrupt(view)? } else { vec![] },
    })
}

fn row(view: &View, shelf: Shelf, id: &QueueId) -> Option<Row> {
    let state = State::of_shelf(shelf);
    match view.glance(id) {
        Ok(Some(glance)) => Some(listing::row(id, state, next(state, &glance), &glance)),
        Ok(None) => None,
        Err(error) => Some(listing::unreadable(id, state, None, &error)),
    }
}

fn next(state: State, glance: &Glance) -> Option<Timestamp> {
    (state != State::Dead).then_some(glance.progress.next)
}

/// A message whose content is what was written.
fn whole(view: &View, id: &QueueId) -> Result<Kept, String> {
    let unknown = || format!("no message {id} is stored here");
    view.check(id).map_err(|error| listing::sentence(&error))?.ok_or_else(unknown)?;
    view.read(id).map_err(|error| listing::sentence(&error))?.ok_or_else(unknown)
}

async fn show(id: &QueueId, Kept { shelf, entry, progress, body }: Kept) -> Reply {
    let (header, state) = (header_of(&body).await, State::of_shelf(shelf));
    let glance = Glance { shelf, entry, progress, bytes: body.len() };
    let row = listing::row(id, state, next(state, &glance), &glance);
    Answer::Message(Box::new(listing::message(row, &glance.entry, &glance.progress, &header))).into()
}
