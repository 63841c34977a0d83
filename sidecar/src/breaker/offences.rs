//! Refusals that Exchange counts against a mailbox: senders it may not use, recipients that do not exist, too many of
//! them at once.
//!
//! Microsoft bars a mailbox whose errors go on (`550 5.2.252 Sender throttled due to continuous send as denied errors`),
//! good mail and all, and says neither after how many nor for how long. So:
//!
//! * the same sender, recipient or number of recipients is refused from memory for a while, with the same reply;
//! * after [`MOST`] errors of a kind within an hour, only senders and recipients that were accepted since the first of
//!   them go on; what is unknown waits until the hour has moved.
//!
//! Pure: time is passed in. Memory is bounded: addresses are kept as hashes, the oldest goes first.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use mailroute_limits::window::Window;
use mailroute_route::condition::Reason;

use crate::clock::Instant;
use crate::delivery::outcome::{Attempt, Met, Outcome, Refused, Verdict};
use crate::envelope::Address;

/// Errors of one kind in an hour, after which only what is known to be good goes on.
pub const MOST: u64 = 10;

/// How long something is refused from memory: the first time, and at most, in units.
const FIRST: u32 = 5 * 60;
const LONGEST: u32 = 60 * 60;

/// The hour in which errors are counted, in units.
const HOUR: u32 = 60 * 60;

/// How many refused and how many good senders or recipients are remembered.
const REFUSED: usize = 256;
const GOOD: usize = 1024;

/// A message, as far as others may meet the same refusal.
#[derive(Clone, Copy, Debug)]
pub struct Message<'a> {
    /// The mailbox that is logged in as. Without one nothing is watched: only log-ins are barred.
    pub mailbox: Option<&'a str>,
    /// The address in MAIL.
    pub reverse_path: Option<&'a Address>,
    /// The address in `From`, where it is known.
    pub author: Option<&'a str>,
    /// To whom.
    pub recipients: &'a [Address],
}

/// What is known.
#[derive(Debug)]
pub struct Offences {
    unit: Duration,
    start: Instant,
    hash: RandomState,
    senders: Watch,
    recipients: Watch,
    /// So many recipients were too many.
    crowd: Option<(usize, Remembered)>,
}

/// Errors of one kind.
#[derive(Debug)]
struct Watch {
    errors: Window,
    refused: HashMap<u64, Remembered>,
    good: Good,
}

#[derive(Clone, Debug)]
struct Remembered {
    verdict: Verdict,
    until: Instant,
    times: u32,
}

/// What was accepted, the newest of it.
#[derive(Debug, Default)]
struct Good {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl Offences {
    /// Nothing is known. `unit` is a second; tests take less.
    pub fn new(unit: Duration, now: Instant) -> Self {
        Self {
            unit,
            start: now,
            hash: RandomState::new(),
            senders: Watch::new(unit * HOUR),
            recipients: Watch::new(unit * HOUR),
            crowd: None,
        }
    }

    /// Nothing is known any longer.
    pub fn forget(&mut self) {
        *self = Self::new(self.unit, self.start);
    }

    /// Whether the author of a message makes a difference.
    pub const fn watches_authors(&self) -> bool {
        self.senders.is_active()
    }

    /// What will come of trying this message.
    pub fn foresees(&mut self, message: &Message<'_>, now: Instant) -> Option<Attempt> {
        message.mailbox?;
        self.of_sender(message, now)
            .or_else(|| self.of_recipients(message, now))
            .or_else(|| self.of_crowd(message, now))
    }

    /// Learns what became of a message.
    pub fn learn(&mut self, message: &Message<'_>, attempt: &Attempt, now: Instant) {
        if message.mailbox.is_none() {
            return;
        }
        let at = now.saturating_duration_since(self.start);
        match attempt.verdict.outcome {
            Outcome::RejectMessage(Some(Reason::SendAsDenied)) => {
                self.senders.errors.add_forward(at, 1);
                if let Some(key) = self.denied(message, &attempt.verdict) {
                    self.senders.remember(key, &attempt.verdict, now, self.unit);
                }
            }
            Outcome::RejectMessage(None) if is_crowded(&attempt.verdict) => {
                let times = self.crowd.as_ref().map_or(0, |(_, crowd)| crowd.times);
                let crowd = Remembered::again(&attempt.verdict, times, now, self.unit);
                self.crowd = Some((message.recipients.len(), crowd));
            }
            Outcome::Delivered if self.senders.is_active() => {
                for sender in self.sender_keys(message) {
                    self.senders.accepted(sender);
                }
            }
            _ => {}
        }
        self.learn_recipients(message, attempt, now);
    }

    fn learn_recipients(&mut self, message: &Message<'_>, attempt: &Attempt, now: Instant) {
        let at = now.saturating_duration_since(self.start);
        for (recipient, address) in message.recipients.iter().enumerate() {
            // A refusal at the end of the data does not say whom it is about when there are several.
            let own = attempt.refused.iter().find(|refused| refused.recipient == recipient);
            let verdict = match own {
                Some(refused) => &refused.verdict,
                None if message.recipients.len() == 1 => &attempt.verdict,
                None if attempt.verdict.outcome == Outcome::Delivered => &attempt.verdict,
                None => continue,
            };
            match verdict.outcome {
                Outcome::RejectRecipient => {
                    self.recipients.errors.add_forward(at, 1);
                    let key = self.key(address.as_str());
                    self.recipients.remember(key, verdict, now, self.unit);
                }
                Outcome::Delivered if self.recipients.is_active() => {
                    let key = self.key(address.as_str());
                    self.recipients.accepted(key);
                }
                _ => {}
            }
        }
    }

    fn of_sender(&mut self, message: &Message<'_>, now: Instant) -> Option<Attempt> {
        let keys = self.sender_keys(message);
        let pair = self.pair(message);
        let known = keys.iter().chain(&pair).find_map(|key| self.senders.known(*key, now));
        if let Some(verdict) = known {
            return Some(foreseen(verdict.clone(), vec![]));
        }
        let good = !keys.is_empty() && keys.iter().all(|key| self.senders.good.known.contains(key));
        let unknown = !good && !self.is_the_mailbox(message);
        (unknown && self.senders.errors.sum(now.saturating_duration_since(self.start)) >= MOST)
            .then(|| held_back("senders that the mailbox may not use"))
    }

    fn of_recipients(&mut self, message: &Message<'_>, now: Instant) -> Option<Attempt> {
        if !self.recipients.is_active() {
            return None;
        }
        let keys: Vec<_> = message.recipients.iter().map(|to| self.key(to.as_str())).collect();
        let known: Option<Vec<_>> = keys.iter().map(|key| self.recipients.known(*key, now)).collect();
        if let Some(verdicts) = known.filter(|verdicts| !verdicts.is_empty()) {
            let refused = verdicts.iter().enumerate();
            let refused =
                refused.map(|(recipient, verdict)| Refused { recipient, verdict: (*verdict).clone() });
            return Some(foreseen(verdicts[0].clone(), refused.collect()));
        }
        let good = keys.iter().all(|key| self.recipients.good.known.contains(key));
        (!good && self.recipients.errors.sum(now.saturating_duration_since(self.start)) >= MOST)
            .then(|| held_back("recipients that do not exist"))
    }

    fn of_crowd(&self, message: &Message<'_>, now: Instant) -> Option<Attempt> {
        let (most, crowd) = self.crowd.as_ref()?;
        (message.recipients.len() >= *most && now < crowd.until)
            .then(|| foreseen(crowd.verdict.clone(), vec![]))
    }

    /// The sender that a refusal is about: the one that it names, else whichever is not the mailbox itself.
    fn denied(&self, message: &Message<'_>, verdict: &Verdict) -> Option<u64> {
        if let Some(named) = named_in(&verdict.text) {
            return Some(self.key(named));
        }
        let mailbox = message.mailbox?;
        let others = |address: &&str| !address.eq_ignore_ascii_case(mailbox);
        let path = message.reverse_path.map(Address::as_str).filter(others);
        match (path, message.author.filter(others)) {
            (Some(path), Some(author)) if path.eq_ignore_ascii_case(author) => Some(self.key(path)),
            (Some(_), Some(_)) => self.pair(message),
            // Without the author nobody knows which of the two it was.
            (Some(path), None) if message.author.is_some() => Some(self.key(path)),
            (None, Some(author)) => Some(self.key(author)),
            _ => None,
        }
    }

    fn sender_keys(&self, message: &Message<'_>) -> Vec<u64> {
        let path = message.reverse_path.map(Address::as_str);
        path.into_iter().chain(message.author).map(|address| self.key(address)).collect()
    }

    fn pair(&self, message: &Message<'_>) -> Option<u64> {
        let (path, author) = (message.reverse_path?.as_str(), message.author?);
        Some(self.key(&format!("{path}\0{author}")))
    }

    fn is_the_mailbox(&self, message: &Message<'_>) -> bool {
        let is = |address: &str| message.mailbox.is_some_and(|mailbox| address.eq_ignore_ascii_case(mailbox));
        message.reverse_path.is_none_or(|path| is(path.as_str())) && message.author.is_some_and(is)
    }

    fn key(&self, address: &str) -> u64 {
        self.hash.hash_one(address.to_ascii_lowercase())
    }
}

impl Watch {
    fn new(hour: Duration) -> Self {
        Self { errors: Window::new(hour, 60), refused: HashMap::new(), good: Good::default() }
    }

    /// Whether anything was refused so far.
    const fn is_active(&self) -> bool {
        !self.errors.is_untouched()
    }

    fn known(&self, key: u64, now: Instant) -> Option<&Verdict> {
        self.refused.get(&key).filter(|known| now < known.until).map(|known| &known.verdict)
    }

    fn remember(&mut self, key: u64, verdict: &Verdict, now: Instant, unit: Duration) {
        let times = self.refused.get(&key).map_or(0, |known| known.times);
        if self.refused.len() >= REFUSED && !self.refused.contains_key(&key) {
            let oldest = self.refused.iter().min_by_key(|(_, known)| known.until).map(|(key, _)| *key);
            oldest.map(|key| self.refused.remove(&key));
        }
        self.good.forget(key);
        self.refused.insert(key, Remembered::again(verdict, times, now, unit));
    }

    fn accepted(&mut self, key: u64) {
        self.refused.remove(&key);
        self.good.add(key);
    }
}

impl Remembered {
    fn again(verdict: &Verdict, times: u32, now: Instant, unit: Duration) -> Self {
        let pause = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        Self { verdict: verdict.clone(), until: now + unit * pause, times: times.saturating_add(1) }
    }
}

impl Good {
    fn add(&mut self, key: u64) {
        if self.known.insert(key) {
            self.order.push_back(key);
            if self.order.len() > GOOD
                && let Some(oldest) = self.order.pop_front()
            {
                self.known.remove(&oldest);
            }
        }
    }

    fn forget(&mut self, key: u64) {
        if self.known.remove(&key) {
            self.order.retain(|known| *known != key);
        }
    }
}

/// What comes of a message that is not tried.
fn foreseen(verdict: Verdict, refused: Vec<Refused>) -> Attempt {
    Attempt { verdict, refused, met: vec![], host: None }
}

fn held_back(what: &str) -> Attempt {
    let reason = Reason::ErrorsHeldBack;
    let text = format!("{MOST} messages within an hour met {what}; others that may be like them wait");
    let met = vec![Met::new(reason, text.clone())];
    Attempt { met, ..foreseen(Verdict::without_reply(Outcome::Transient(Some(reason)), text), vec![]) }
}

/// 5.5.3: too many recipients for this mailbox.
fn is_crowded(verdict: &Verdict) -> bool {
    let enhanced = verdict.reply.as_ref().and_then(|reply| reply.enhanced);
    enhanced.is_some_and(|code| (code.subject, code.detail) == (5, 3))
}

/// The address in `SendAsDenied; noreply@contoso.com not allowed to send as boss@contoso.com; STOREDRV…`.
fn named_in(text: &str) -> Option<&str> {
    let (_, behind) = text.split_once(" not allowed to send as ")?;
    let named = behind.split([';', ' ']).next()?;
    named.contains('@').then_some(named)
}

#[cfg(test)]
#[path = "offences_tests.rs"]
mod tests;
