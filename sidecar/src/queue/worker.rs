//! Takes what is due, in order, as many at a time as the route allows.
//!
//! While the route is known not to work ([`RouteState::Blocked`]) one message at a time is tried, so that a long queue meets an
//! upstream that has just come back with one connection and not with all it has; the first that gets through releases
//! the others.

use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use mailroute_route::control::{MAX_LEFT, MAX_MESSAGE_ID_BYTES};
use tokio::sync::{Notify, watch};

use super::Queue;
use super::delivery_task::ClaimedMessage;
use super::index::QueueRecord;
use super::schedule::until;
use super::state::LaneState;
use crate::attempt::{Active, Attempts, NoPermit, RouteState};
use crate::clock::{self, Instant};
use crate::lock;
use crate::message::envelope::QueueId;

/// Messages whose time is over and that are looked at in one go.
const GIVE_UP: usize = 16;

/// How often to look for messages whose time is over, as a part of that time.
const EXPIRY_STEPS: u32 = 200;

/// Bounds on the pause between two such looks.
const EXPIRY_LEAST: Duration = Duration::from_millis(20);
const EXPIRY_MOST: Duration = Duration::from_secs(60);

/// Most ids of messages that are named when the process ends without them.
const NAMED: usize = 200;

/// What the worker can do next.
enum Next {
    /// Nothing, until something changes or the time comes.
    Wait(Option<Instant>),
    /// Try this one.
    Try(QueueId, QueueRecord),
}

/// How long the worker has nothing to do.
struct Pause {
    /// When to look again; nothing when only a change can bring something to do.
    until: Option<Instant>,
    /// It is over as soon as the operator answers, which may be long before.
    may_end_sooner: bool,
}

impl Pause {
    const fn until(until: Option<Instant>) -> Self {
        Self { until, may_end_sooner: false }
    }
}

impl Queue {
    /// Works until `stop`, each lane by itself. What is under way then is cut off: [`Queue::drained`] comes first.
    pub async fn run(self: Arc<Self>, stop: watch::Receiver<bool>) {
        let lanes = self.lanes.iter().zip(&self.changed).enumerate();
        join_all(lanes.map(|(lane, (attempts, changed))| {
            self.run_lane(Worker { lane, attempts, queue: &self }, changed, stop.clone())
        }))
        .await;
        lock(&self.tasks).abort_all();
        let mut tasks = std::mem::take(&mut *lock(&self.tasks));
        while tasks.join_next().await.is_some() {}
    }

    async fn run_lane(&self, worker: Worker<'_>, changed: &Notify, mut stop: watch::Receiver<bool>) {
        let attempts = worker.attempts;
        let (mut route_state, mut routes) = (attempts.route_state(), attempts.routes());
        let budget = Arc::clone(attempts.budget());
        loop {
            let budget_changed = budget.changed();
            let wake = worker.look().await;
            let sleep = async {
                match wake {
                    Some(at) => tokio::time::sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = changed.notified() => {}
                () = budget_changed => {}
                () = sleep => {}
                Ok(()) = route_state.changed() => {}
                Ok(()) = routes.changed() => {
                    let active = routes.borrow_and_update().clone();
                    if let Some(active) = active {
                        self.spool.set_limits(super::limits(Some(&active.route.delivery)));
                    }
                    // Whatever stood in a message's way may be gone.
                    self.state().index.make_all_due(self.now());
                    // It may go by another lane now.
                    self.nudge();
                }
                _ = stop.wait_for(|&stop| stop) => break,
            }
        }
    }

    /// The process ends soon: every message is tried once more, without regard to its own time.
    pub fn drain(&self) {
        {
            let mut state = self.state();
            state.is_draining = true;
            state.index.make_all_due(self.now());
        }
        self.news();
    }

    /// No other pod is going to try `which` of the messages that were left to it: they are tried here.
    pub fn end_reservations(&self, which: impl Fn(&QueueId) -> bool) {
        self.state().index.end_reservations(self.now(), which);
        self.news();
    }

    /// Begins no attempt any more, and completes when those that are under way have ended and their messages are settled, or at
    /// `deadline`.
    pub async fn finished(&self, deadline: Instant) {
        self.state().is_closed = true;
        let mut looks = self.looks.subscribe();
        let under_way = || self.state().index.iter().any(|(_, record)| record.taken);
        let finished = async { while under_way() && looks.changed().await.is_ok() {} };
        // What has not ended by then is cut off.
        let _ = tokio::time::timeout_at(deadline, finished).await;
    }

    /// Completes when nothing is left, when nothing more can be done before `deadline`, or then.
    pub async fn drained(&self, deadline: Instant) {
        let mut looks = self.looks.subscribe();
        let at_rest = async { while !self.is_at_rest(deadline) && looks.changed().await.is_ok() {} };
        // What is not done by then is cut off.
        let _ = tokio::time::timeout_at(deadline, at_rest).await;
    }

    pub(super) fn is_at_rest(&self, deadline: Instant) -> bool {
        let state = self.state();
        let rests = |lane: &LaneState| lane.rest.is_some_and(|wake| wake.is_none_or(|wake| wake > deadline));
        let nothing_before = state.lanes.iter().all(rests);
        state.index.is_empty() || (nothing_before && state.index.iter().all(|(_, record)| !record.taken))
    }

    /// Looks up the Message-IDs of the newest messages that wait, for [`Queue::left`]. The newest are sent last, so they are
    /// the ones that remain when the time is over.
    pub async fn name_left(&self) {
        let newest: Vec<QueueId> = {
            let state = self.state();
            let mut ids: Vec<_> = state.index.iter().map(|(id, _)| id.clone()).collect();
            ids.split_off(ids.len().saturating_sub(MAX_LEFT))
        };
        let mut named = Vec::with_capacity(newest.len());
        for id in newest {
            if let Some(message_id) = self.spool.message_id(&id).await
                && message_id.len() <= MAX_MESSAGE_ID_BYTES
            {
                named.push((id, message_id));
            }
        }
        self.state().named = named;
    }

    /// Message-IDs of messages that wait while the process ends, oldest first.
    pub fn left(&self) -> Vec<String> {
        let state = self.state();
        let waits = |(id, _): &&(QueueId, String)| state.index.record(id).is_some();
        state.named.iter().filter(waits).map(|(_, message_id)| message_id.clone()).collect()
    }

    /// Says what is left behind, by name. Looks up Message-IDs for no longer than `limit`. The spool of a gateway outlives its pod, so
    /// that nothing is lost.
    pub async fn report_left(&self, limit: Duration, is_gateway: bool) {
        let left: Vec<String> = self.state().index.iter().map(|(id, _)| id.to_string()).collect();
        if left.is_empty() {
            return;
        }
        let (named, more) = left.split_at(left.len().min(NAMED));
        if is_gateway {
            tracing::info!(messages = left.len(), "messages stay in the spool, on the gateway's volume");
            return;
        }
        tracing::warn!(
            messages = left.len(),
            queue_ids = named.join(" "),
            not_named = more.len(),
            "messages stay in the spool; they are lost if its volume does not outlive the pod"
        );
        // Those that were looked up before stay named where the disk is slow.
        let _ = tokio::time::timeout(limit, self.name_left()).await;
    }
}

/// Works for one lane.
#[derive(Clone, Copy)]
struct Worker<'a> {
    lane: usize,
    attempts: &'a Arc<Attempts>,
    queue: &'a Arc<Queue>,
}

impl Worker<'_> {
    /// Tries what may be tried now, and says so to whoever waits for the queue to come to rest.
    async fn look(self) -> Option<Instant> {
        let before = self.queue.state().nudges;
        let pause = self.launch().await;
        {
            let mut state = self.queue.state();
            // What changed meanwhile is looked at in the next round.
            let is_seen = state.nudges == before;
            if let Some(lane) = state.lanes.get_mut(self.lane) {
                lane.rest = (is_seen && !pause.may_end_sooner).then_some(pause.until);
            }
        }
        self.queue.looks.send_modify(|_| {});
        pause.until
    }

    /// What waited for the route need not wait any more.
    fn release(self) {
        let now = self.queue.now();
        let mut state = self.queue.state();
        let own = state.goes_by(&self.queue.lanes, self.lane);
        state.index.release(now, own);
    }

    /// Tries what may be tried now. Says when there may be more to try, if nothing else changes before.
    async fn launch(self) -> Pause {
        let Some(active) = self.attempts.active() else { return Pause::until(None) };
        if *self.attempts.route_state().borrow() == RouteState::Open {
            self.release();
        }
        self.update(|lane| lane.denied = None);
        loop {
            let (id, record) = match self.next(self.places(&active)) {
                Next::Wait(wake) => {
                    self.attempts.queue_waits(false);
                    return Pause::until(wake);
                }
                Next::Try(id, record) => (id, record),
            };
            if self.queue.is_adrift(&record) {
                self.reassign(id);
                continue;
            }
            let recipients = u64::from(record.recipients.min(active.route.limits.max_recipients));
            match self.attempts.permit(recipients).await {
                Ok(permit) => {
                    let record = self.queue.state().index.take(&id);
                    // Somebody may have dropped it meanwhile.
                    let Some(record) = record else {
                        permit.unused();
                        continue;
                    };
                    self.attempts.queue_waits(false);
                    self.queue.spawn(
                        ClaimedMessage::counted(self.queue, self.lane, id, record)
                            .deliver(Arc::clone(&active), permit),
                    );
                }
                Err(denied) => {
                    let may_end_sooner = denied.may_end_sooner();
                    return Pause { until: Some(self.wait_for(denied, &active)), may_end_sooner };
                }
            }
        }
    }

    /// Has a message go by another mailbox, as the route no longer names its own. Needs no permit of either.
    fn reassign(self, id: QueueId) {
        let record = self.queue.state().index.take(&id);
        if let Some(record) = record {
            let message = ClaimedMessage::counted(self.queue, self.lane, id, record);
            self.queue.spawn(message.reassign());
        }
    }

    /// How many may be under way at once.
    fn places(self, active: &Active) -> usize {
        let connections = active.route.limits.connections.min(self.attempts.budget().connections());
        match *self.attempts.route_state().borrow() {
            RouteState::Blocked => 1,
            // One more than there are connections: it is read from the disk while the others are on their way.
            RouteState::Open => usize::try_from(connections.max(1)).map_or(1, |connections| connections + 1),
        }
    }

    fn next(self, places: usize) -> Next {
        let state = self.queue.state();
        if state.is_closed || state.lanes.get(self.lane).is_some_and(|lane| lane.in_delivery >= places) {
            return Next::Wait(None);
        }
        let own = state.goes_by(&self.queue.lanes, self.lane);
        let Some((id, record)) = state.index.first(own) else { return Next::Wait(None) };
        let wait = until(record.due, self.queue.now());
        if wait.is_zero() { Next::Try(id.clone(), *record) } else { Next::Wait(Some(clock::now() + wait)) }
    }

    /// Nothing may go now. Gives up what has waited for too long, and says when to look again.
    fn wait_for(self, denied: NoPermit, active: &Active) -> Instant {
        self.attempts.queue_waits(denied.is_limit());
        let until = denied.until;
        let now = clock::now();
        let next_look = self.update(|lane| {
            lane.denied = Some(denied);
            lane.next_look
        });
        let look = next_look.flatten().is_none_or(|at| at <= now);
        if look {
            self.give_up_old(Duration::from_secs(active.route.delivery.max_age_seconds));
        }
        let next = self.update(|lane| lane.next_look).flatten().unwrap_or(now);
        until.min(next).max(now + EXPIRY_LEAST)
    }

    fn give_up_old(self, max_age: Duration) {
        let over = {
            let state = self.queue.state();
            let own = state.goes_by(&self.queue.lanes, self.lane);
            state.index.expired(self.queue.now(), max_age, GIVE_UP, own)
        };
        let more = over.len() == GIVE_UP;
        for id in over {
            let record = self.queue.state().index.take(&id);
            if let Some(record) = record {
                self.queue.spawn(ClaimedMessage::new(self.queue, id, record).give_up());
            }
        }
        let pause = (max_age / EXPIRY_STEPS).clamp(EXPIRY_LEAST, EXPIRY_MOST);
        let next = clock::now() + if more { EXPIRY_LEAST } else { pause };
        self.update(|lane| lane.next_look = Some(next));
    }

    /// Changes what is known of this lane.
    fn update<T>(self, change: impl FnOnce(&mut LaneState) -> T) -> Option<T> {
        self.queue.state().lanes.get_mut(self.lane).map(change)
    }
}
