//! What the operator has leased to this sidecar of its mailbox's limits, and what it may do without the operator.
//!
//! ```text
//!  a message asks ──► lease held? ──► take ──► settle ──► the lease ends ──► named in the next claim until it is confirmed
//!                        │ no
//!                        ├─ the operator was reached lately: a wish, told in the next claim, at once
//!                        └─ not for long: this sidecar's own slices of time, a few messages in each
//! ```
//!
//! Pure: time is passed in, since an epoch that outlives the process. Every length counts from when the claim left, so that
//! this side is always done before the operator takes it to be. Refuses to know how claims travel.

mod lease;
mod turns;
mod wish;

use std::collections::BTreeMap;
use std::time::Duration;

use mailroute_limits::window::Window;
use mailroute_route::control::{Allotment, Claim, MAX_LEASES, ShortOf, Throttled, Turn};

use self::lease::Held;
use self::wish::Wish;
use super::{Amount, Spans, Wait, Why};

/// By what leave something is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// By a lease.
    Lease(u64),
    /// In a turn, which is cut off at this time.
    Turn(Duration),
}

/// What the last claim said and the operator has not answered yet.
#[derive(Clone, Copy, Debug, Default)]
struct Told {
    throttled: Option<Throttled>,
    alone: u64,
    news: u64,
}

/// What outlives the process.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// Number of this life, which grows with each.
    pub life: u64,
    /// Turns that were given.
    pub turn: Option<Turn>,
    /// Recipients of turns taken, and when.
    pub taken: Vec<(Duration, u64)>,
}

/// The leases of one mailbox.
#[derive(Clone, Debug)]
pub struct Holding {
    spans: Spans,
    life: u64,
    sequence: u64,
    leases: BTreeMap<u64, Held>,
    wish: Option<Wish>,
    throttled: Option<Throttled>,
    told: Told,
    /// When the last claim that was answered had left. At the start: the start, as the life before may have been answered.
    contact: Duration,
    cut: Option<Duration>,
    turn: Option<Turn>,
    /// What there is to go on while the operator was never reached.
    stranger: Option<Turn>,
    /// The slice in which a turn was taken last, and how many messages went in it.
    slice: Option<(u64, u32)>,
    alone: Window,
    alone_untold: u64,
    short_of: Option<ShortOf>,
    /// When to claim next, if there is no news.
    again: Duration,
    tried: Duration,
    news: u64,
    memory_changed: bool,
}

impl Holding {
    /// Nothing is leased yet. `memory` is what the life before left behind.
    pub fn new(spans: Spans, memory: &Memory, now: Duration) -> Self {
        let mut alone = Window::new(spans.day, super::DAY_SLOTS);
        memory.taken.iter().for_each(|&(at, recipients)| alone.add_forward(at.min(now), recipients));
        let millis = u64::try_from(now.as_millis()).unwrap_or(u64::MAX);
        Self {
            spans,
            life: millis.max(memory.life + 1),
            sequence: 0,
            leases: BTreeMap::new(),
            wish: None,
            throttled: None,
            told: Told::default(),
            contact: now,
            cut: None,
            turn: memory.turn,
            stranger: None,
            slice: None,
            alone,
            alone_untold: 0,
            short_of: None,
            again: now,
            tried: Duration::ZERO,
            news: 0,
            memory_changed: true,
        }
    }

    /// Until the operator answers for the first time there are these turns.
    #[must_use]
    pub fn or_as_a_stranger(mut self, turn: Option<Turn>) -> Self {
        self.stranger = turn.filter(|_| self.turn.is_none());
        self
    }

    /// What has to outlive the process, when it has changed since it was asked for last.
    pub fn memory(&mut self, now: Duration) -> Option<Memory> {
        if !std::mem::take(&mut self.memory_changed) {
            return None;
        }
        self.alone.sum(now);
        Some(Memory { life: self.life, turn: self.turn, taken: self.alone.counted().collect() })
    }

    /// Whether so much could go now. If not, it is wished for.
    ///
    /// # Errors
    /// Not now; and when to look again, unless there is an answer before.
    pub fn may(&mut self, now: Duration, amount: Amount) -> Result<(), Wait> {
        if self.fitting(now, amount).is_some() || self.turn_now(now, amount).is_some() {
            return Ok(());
        }
        self.wish_for(now, amount);
        Err(Wait { until: self.worth_asking(now), why: self.why() })
    }

    /// Takes it. Nothing when it cannot go now.
    pub fn take(&mut self, now: Duration, amount: Amount) -> Option<Source> {
        if let Some(id) = self.fitting(now, amount) {
            self.leases.get_mut(&id)?.take(amount);
            return Some(Source::Lease(id));
        }
        let (slice, cut) = self.turn_now(now, amount)?;
        self.slice = Some((slice, self.taken_in(slice) + 1));
        self.alone.add_forward(now, amount.recipients);
        self.alone_untold += amount.recipients;
        self.memory_changed = true;
        Some(Source::Turn(cut))
    }

    /// What was taken is over, and so much of it may have been counted.
    pub fn settle(&mut self, source: Source, now: Duration, used: Amount) {
        let Source::Lease(id) = source else { return };
        if let Some(held) = self.leases.get_mut(&id) {
            held.settle(now, used);
        }
        self.tidy(now);
    }

    /// When what goes by this leave has to be cut off.
    pub fn cut_at(&self, source: Source) -> Duration {
        match source {
            Source::Turn(at) => at,
            Source::Lease(_) => self.contact + self.cut.unwrap_or(self.spans.minute),
        }
    }

    /// Microsoft found it too much.
    pub fn throttled(&mut self, what: Throttled) {
        self.throttled = Some(what);
        self.news += 1;
    }

    /// When to claim: at once when there is news, but not in a flood.
    pub fn due(&mut self, now: Duration) -> Duration {
        self.tidy(now);
        let soonest = self.tried + self.spans.minute / 600;
        if self.news > 0 {
            return soonest;
        }
        let over = self.leases.values().filter_map(Held::due);
        over.chain([self.again]).min().unwrap_or(self.again).max(soonest)
    }

    /// Whether anybody waits for a lease.
    pub fn is_wanted(&self, now: Duration) -> bool {
        self.wish.is_some_and(|wish| now < wish.renewed + self.spans.minute / 3)
    }

    /// What to tell the operator now. The number of messages is for who knows what waits.
    pub fn claim(&mut self, now: Duration) -> Claim {
        self.tidy(now);
        if !self.is_wanted(now) {
            self.wish = None;
        }
        self.sequence += 1;
        self.told = Told { throttled: self.throttled, alone: self.alone_untold, news: self.news };
        let wish = self.wish;
        let waited = wish.map_or(Duration::ZERO, |wish| now.saturating_sub(wish.since));
        Claim {
            instance: self.life,
            sequence: self.sequence,
            mailbox: String::new(),
            messages: wish.map_or(0, |wish| u32::from(wish.messages)),
            recipients: wish.map_or(0, |wish| number(wish.recipients)),
            probe: wish.is_some_and(|wish| wish.probe),
            waited_millis: millis(waited),
            throttled: self.throttled,
            leases: self.leases.iter().map(|(id, held)| held.told(*id, now)).take(MAX_LEASES).collect(),
            turn: self.turn.map(|turn| (turn.index, turn.of)),
            alone_recipients: number(self.alone_untold),
            no_turns_taken: self.alone.sum(now) == 0,
            leaving: false,
        }
    }

    /// The operator answered the claim that left at `sent`.
    pub fn answered(&mut self, sent: Duration, now: Duration, allotment: &Allotment) {
        self.contact = self.contact.max(sent);
        self.tried = now;
        if self.throttled == self.told.throttled {
            self.throttled = None;
        }
        self.alone_untold = self.alone_untold.saturating_sub(self.told.alone);
        self.news = self.news.saturating_sub(self.told.news);
        self.told = Told::default();
        self.cut = Some(Duration::from_millis(allotment.cut_millis));
        self.again = now + Duration::from_millis(allotment.again_millis);
        self.short_of = allotment.short_of;
        self.stranger = None;
        for id in &allotment.confirmed {
            self.leases.remove(id);
        }
        if self.turn != allotment.alone {
            self.turn = allotment.alone;
            self.memory_changed = true;
        }
        if let Some(lease) = allotment.lease {
            self.leases.insert(lease.id, Held::new(&lease, sent));
            self.wish = None;
        }
    }

    /// The claim came to nothing; it is worth another one at `again`.
    pub const fn unanswered(&mut self, again: Duration) {
        self.tried = again;
        self.again = again;
    }

    /// Whether the operator has not been reached for so long that only turns are left.
    pub fn is_alone(&self, now: Duration) -> bool {
        now >= self.contact
            + self.turn().map_or(self.spans.minute, |turn| Duration::from_millis(turn.after_millis))
    }

    /// Whether no exchange has succeeded for longer than what is under way may go on.
    pub fn is_cut_off(&self, now: Duration) -> bool {
        now >= self.contact + self.cut.unwrap_or(self.spans.minute / 4)
    }

    const fn turn(&self) -> Option<Turn> {
        match self.turn {
            Some(given) => Some(given),
            None => self.stranger,
        }
    }

    fn fitting(&self, now: Duration, amount: Amount) -> Option<u64> {
        self.leases.iter().find(|(_, held)| held.covers(now, amount)).map(|(id, _)| *id)
    }

    /// The slice that is this sidecar's now, and when it has to be over. A look at the way is no reason to use it up.
    fn turn_now(&mut self, now: Duration, amount: Amount) -> Option<(u64, Duration)> {
        let turn = self.turn().filter(|_| amount.messages == 1 && self.is_alone(now))?;
        let (number, cut) = turns::running(turn, now)?;
        let fits = self.alone.sum(now) + amount.recipients <= u64::from(turn.recipients);
        (fits && self.taken_in(number) < turn.messages).then_some((number, cut))
    }

    fn taken_in(&self, slice: u64) -> u32 {
        self.slice.filter(|(last, _)| *last == slice).map_or(0, |(_, taken)| taken)
    }

    fn wish_for(&mut self, now: Duration, amount: Amount) {
        let lasting = self.wish.filter(|_| self.is_wanted(now));
        let mut wish = lasting.unwrap_or(Wish::begun(now));
        self.news += u64::from(wish.add(now, amount));
        self.wish = Some(wish);
    }

    /// When it is worth looking again, if no answer comes before.
    fn worth_asking(&self, now: Duration) -> Duration {
        let soon = now + self.spans.minute / 6;
        match self.turn().filter(|_| self.is_alone(now)) {
            Some(turn) => turns::next(turn, now).min(soon),
            None => soon.min(self.again.max(now + self.spans.minute / 60)),
        }
    }

    fn why(&self) -> Why {
        match self.short_of {
            Some(ShortOf::Recipients) => Why::Day,
            _ => Why::Lease,
        }
    }

    /// Leases that are used up or over end, which is news.
    fn tidy(&mut self, now: Duration) {
        let ended = self.leases.values_mut().filter_map(|held| held.ends(now).then_some(1_u64));
        self.news += ended.sum::<u64>();
    }
}

fn number(count: u64) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

fn millis(length: Duration) -> u64 {
    u64::try_from(length.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
