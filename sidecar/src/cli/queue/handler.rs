//! A person's commands in the program that runs: what it knows, and what it is to change.
//!
//! Refuses to know sockets. One change at a time, and each is finished once it is begun: whoever drops a future half-way
//! would leave a message that is on disk and not in the queue.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::{Mutex, watch};
use tokio::task::spawn_blocking;

use super::listing::{self, Row, State};
use super::offline;
use super::protocol::{Answer, Changed, Chosen, Id, PAGE, Page, Part, Request};
use crate::clock;
use crate::message::body::Body;
use crate::message::envelope::QueueId;
use crate::queue::{Listed, Obstacle, Queue, QueueCommandError, Shown, header_of};
use crate::spool::{Glance, Shelf, SpoolError, View, is_progress};

/// The running program's side.
pub struct QueueHandler {
    queue: Arc<Queue>,
    view: Arc<View>,
    changing: Mutex<()>,
}

/// An answer, and the octets that follow it.
pub struct Reply {
    /// The answer.
    pub answer: Answer,
    /// The octets, behind [`Answer::Content`].
    pub content: Option<Body>,
}

impl From<Answer> for Reply {
    fn from(answer: Answer) -> Self {
        Self { answer, content: None }
    }
}

impl Reply {
    /// A refusal.
    pub fn refused(why: impl ToString) -> Self {
        Answer::Refused(why.to_string()).into()
    }

    /// A message's octets.
    pub fn content(body: Body) -> Self {
        Self { answer: Answer::Content(body.len()), content: Some(body) }
    }
}

impl QueueHandler {
    /// Commands for `queue`, whose spool is in `directory`.
    pub fn new(queue: Arc<Queue>, directory: &Path) -> Self {
        Self { queue, view: Arc::new(View::new(directory)), changing: Mutex::default() }
    }

    /// Does what is asked for. Long work is left off when `stop` comes, between two messages.
    pub async fn answer(&self, request: Request, stop: &watch::Receiver<bool>) -> Reply {
        match request {
            Request::List { part, after } => self.list(part, after).await,
            Request::Obstacle => Answer::Obstacle(self.queue.obstacle()).into(),
            Request::Show(Id(id)) => self.show(&id).await,
            Request::Export(Id(id)) => match self.queue.show(&id).await {
                Ok(shown) => Reply::content(shown.kept.body),
                Err(error) => Reply::refused(error),
            },
            Request::Retry(chosen) => self.retry(chosen, stop).await,
            Request::Drop { chosen, most } => self.drop_all(chosen, most, stop).await,
        }
    }

    async fn list(&self, part: Part, after: Option<Id>) -> Reply {
        let after = after.map(|id| id.0);
        let ids = match part {
            Part::Waiting => {
                let listed = self.queue.list_behind(after.as_ref(), PAGE + 1);
                listed.into_iter().map(Seen::of).collect()
            }
            Part::Dead => {
                let behind = |id: &QueueId| after.as_ref().is_none_or(|after| id > after);
                let dead = self.queue.list_dead().into_iter().filter(behind).take(PAGE + 1);
                dead.map(Seen::dead).collect()
            }
        };
        let (view, now) = (Arc::clone(&self.view), clock::timestamp());
        let page = spawn_blocking(move || page(&view, part, ids, now)).await;
        match page {
            Ok(Ok(page)) => Answer::Page(page).into(),
            Ok(Err(error)) => Reply::refused(error),
            Err(_) => Reply::refused(SpoolError::Closing),
        }
    }

    async fn show(&self, id: &QueueId) -> Reply {
        let Shown { place, held, waits_for, next, kept } = match self.queue.show(id).await {
            Ok(shown) => shown,
            Err(error) => return Reply::refused(error),
        };
        let header = header_of(&kept.body).await;
        let (shelf, bytes) = (kept.shelf, kept.body.len());
        let glance = Glance { shelf, entry: kept.entry, progress: kept.progress, bytes };
        let row = Row { waits_for, ..listing::row(id, State::of_place(place, held), next, &glance) };
        let message = listing::message(row, &glance.entry, &glance.progress, &header);
        Answer::Message(Box::new(message)).into()
    }

    async fn retry(&self, chosen: Chosen, stop: &watch::Receiver<bool>) -> Reply {
        let _turn = self.changing.lock().await;
        let ids = match chosen {
            Chosen::Waiting => {
                let changed = Changed { done: self.queue.retry_all(), ..Changed::default() };
                return self.looked_at(changed).await;
            }
            Chosen::Dead => self.queue.list_dead(),
            Chosen::Corrupt => return self.restore(stop).await,
            Chosen::Ids(ids) => distinct(ids),
        };
        let mut tally = Tally::default();
        for id in &ids {
            if *stop.borrow() {
                tally.failed.push(left_off(ids.len() - tally.seen()));
                break;
            }
            let tried = match self.queue.retry(id) {
                // Not one that waits; then it may be a dead letter.
                Err(QueueCommandError::Unknown(_)) => self.queue.retry_dead(id).await,
                tried => tried,
            };
            tally.count(id, tried);
        }
        self.looked_at(tally.into_changed()).await
    }

    /// What was made due, and what keeps it from being tried at once all the same.
    async fn looked_at(&self, changed: Changed) -> Reply {
        let waits_for = if changed.done > 0 { self.queue.obstacle_after_a_look().await } else { None };
        Answer::Changed(Changed { waits_for, ..changed }).into()
    }

    /// Tries what was set aside, as far as it is whole after all.
    async fn restore(&self, stop: &watch::Receiver<bool>) -> Reply {
        let view = Arc::clone(&self.view);
        let names = match spawn_blocking(move || view.corrupt()).await {
            Ok(Ok(names)) => names,
            Ok(Err(error)) => return Reply::refused(error),
            Err(_) => return Reply::refused(SpoolError::Closing),
        };
        // A message's progress comes along with its message.
        let names: Vec<_> = names.into_iter().filter(|name| !is_progress(name)).collect();
        let mut tally = Tally::default();
        for name in &names {
            if *stop.borrow() {
                tally.failed.push(left_off(names.len() - tally.seen()));
                break;
            }
            match self.queue.restore(name).await {
                Ok(()) => tally.done += 1,
                Err(QueueCommandError::Spool(error)) => {
                    tally.failed.push(format!("{name}: {}", listing::sentence(&error)));
                }
                Err(error) => tally.failed.push(format!("{name}: {error}")),
            }
        }
        self.looked_at(tally.into_changed()).await
    }

    async fn drop_all(&self, chosen: Chosen, most: Option<usize>, stop: &watch::Receiver<bool>) -> Reply {
        let _turn = self.changing.lock().await;
        let ids = match chosen {
            Chosen::Waiting => return Reply::refused("what waits is dropped by its ids only"),
            Chosen::Dead => self.queue.list_dead(),
            Chosen::Corrupt => {
                return Reply::refused("files that were set aside are not dropped; remove them by hand");
            }
            Chosen::Ids(ids) => distinct(ids),
        };
        if most.is_some_and(|most| ids.len() > most) {
            return Reply::refused(format!(
                "{} messages would be permanently deleted; confirm with --yes",
                ids.len()
            ));
        }
        let mut tally = Tally::default();
        for id in &ids {
            if *stop.borrow() {
                tally.failed.push(left_off(ids.len() - tally.seen()));
                break;
            }
            tally.count(id, self.queue.discard(id).await);
        }
        Answer::Changed(tally.into_changed()).into()
    }
}

/// What the queue knows of a message that is to be listed.
struct Seen {
    id: QueueId,
    state: State,
    next: Option<Timestamp>,
    waits_for: Option<Obstacle>,
}

impl Seen {
    fn of(listed: Listed) -> Self {
        let Listed { id, place, held, waits_for, next, .. } = listed;
        Self { id, state: State::of_place(place, held), next, waits_for }
    }

    const fn dead(id: QueueId) -> Self {
        Self { id, state: State::Dead, next: None, waits_for: None }
    }
}

/// A page of the messages in `ids`, of which there is one more than a page holds when more follow. Blocking.
fn page(view: &View, part: Part, mut ids: Vec<Seen>, now: Timestamp) -> Result<Page, SpoolError> {
    let more = ids.len() > PAGE;
    ids.truncate(PAGE);
    let next = ids.last().filter(|_| more).map(|seen| Id(seen.id.clone()));
    let rows = ids.into_iter().filter_map(|seen| row(view, part, seen)).collect();
    let corrupt = if part == Part::Dead && !more { offline::corrupt(view)? } else { vec![] };
    Ok(Page { now, rows, next, corrupt })
}

/// The line for a message; nothing when it has gone meanwhile, or has gone to the other part.
fn row(view: &View, part: Part, seen: Seen) -> Option<Row> {
    let Seen { id, state, next, waits_for } = seen;
    match view.glance(&id) {
        Ok(Some(glance)) if (glance.shelf == Shelf::Dead) == (part == Part::Dead) => {
            Some(Row { waits_for, ..listing::row(&id, state, next, &glance) })
        }
        Ok(_) => None,
        Err(error) => Some(Row { waits_for, ..listing::unreadable(&id, state, next, &error) }),
    }
}

/// What came of one message after the other.
#[derive(Default)]
struct Tally {
    done: usize,
    failed: Vec<String>,
}

impl Tally {
    const fn seen(&self) -> usize {
        self.done + self.failed.len()
    }

    fn count(&mut self, id: &QueueId, outcome: Result<(), QueueCommandError>) {
        match outcome {
            Ok(()) => self.done += 1,
            // The disk's errors do not all say which message they are about.
            Err(QueueCommandError::Spool(error)) => self.failed.push(format!("message {id}: {error}")),
            Err(error) => self.failed.push(error.to_string()),
        }
    }

    fn into_changed(self) -> Changed {
        Changed { done: self.done, failed: self.failed, waits_for: None }
    }
}

fn left_off(left: usize) -> String {
    format!("the sidecar is stopping; {left} messages are as they were")
}

/// Each id once, in the order given.
fn distinct(ids: Vec<Id>) -> Vec<QueueId> {
    let mut seen = std::collections::HashSet::new();
    ids.into_iter().map(|id| id.0).filter(|id| seen.insert(id.clone())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_said_twice_is_meant_once() {
        let id = |number| QueueId::new(Timestamp::UNIX_EPOCH, number);
        assert_eq!(distinct([2, 1, 2].map(|number| Id(id(number))).into()), [id(2), id(1)]);
    }

    #[test]
    fn each_failure_names_its_message() {
        let id = QueueId::new(Timestamp::UNIX_EPOCH, 1);
        let mut tally = Tally::default();
        tally.count(&id, Ok(()));
        tally.count(&id, Err(QueueCommandError::Trying(id.clone())));
        tally.count(&id, Err(SpoolError::Closing.into()));
        assert_eq!((tally.done, tally.seen()), (1, 3));
        assert!(tally.failed.iter().all(|why| why.contains(id.as_str())), "{:?}", tally.failed);
    }
}
