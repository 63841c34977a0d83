//! Refusals that Exchange counts against a mailbox: senders it may not use, recipients that do not exist, too many of
//! them at once.
//!
//! Microsoft bars a mailbox whose errors go on (`550 5.2.252 Sender throttled due to continuous send as denied errors`),
//! good mail and all, and says neither after how many nor for how long. So:
//!
//! * the same sender, recipient or number of recipients is refused from memory for a while, with the same reply and a
//!   sentence that says so. What is remembered is what the reply is about: a recipient only where the status code says
//!   that the address itself is bad (`is_about_the_recipient`), else the pair of sender and recipient;
//! * after [`MOST`] refused senders within an hour, or when [`MOST`] recipients and a tenth of all within an hour do not
//!   exist, only senders and recipients that were accepted since the first of them go on; what is unknown waits until
//!   the hour has moved.
//!
//! Pure: time is passed in. Memory is bounded: addresses are kept as hashes, the oldest goes first.

use std::collections::hash_map::RandomState;
use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::BuildHasher;
use std::time::Duration;

use mailroute_quota::window::Window;
use mailroute_route::condition::Reason;

use crate::clock::Instant;
use crate::message::envelope::Address;
use crate::outcome::{AttemptResult, DeliveryOutcome, Observation, RefusedRecipient, Verdict};

/// Errors of one kind in an hour, after which only what is known to be good goes on.
pub const MOST: u64 = 10;

/// Recipients that do not exist are too many only when at least one in so many is bad: an application whose users
/// mistype addresses meets some every hour.
const ONE_IN: u64 = 10;

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
pub struct MessageParties<'a> {
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
pub struct RejectionCache {
    unit: Duration,
    start: Instant,
    hash: RandomState,
    senders: Watch,
    recipients: Watch,
    /// Sender and recipient that were refused together, for a reason that is not the recipient's own.
    pairs: Refusals,
    /// Recipients that were accepted within the hour.
    accepted: Window,
    /// So many recipients were too many.
    crowd: Option<(usize, Remembered)>,
}

/// Errors of one kind.
#[derive(Debug)]
struct Watch {
    errors: Window,
    refused: Refusals,
    good: Good,
}

/// What was refused, by hash.
#[derive(Debug, Default)]
struct Refusals(HashMap<u64, Remembered>);

#[derive(Clone, Debug)]
struct Remembered {
    verdict: Verdict,
    since: Instant,
    until: Instant,
    times: u32,
}

/// What was accepted, the newest of it.
#[derive(Debug, Default)]
struct Good {
    known: HashSet<u64>,
    order: VecDeque<u64>,
}

impl RejectionCache {
    /// Nothing is known. `unit` is a second; tests take less.
    pub fn new(unit: Duration, now: Instant) -> Self {
        Self {
            unit,
            start: now,
            hash: RandomState::new(),
            senders: Watch::new(unit * HOUR),
            recipients: Watch::new(unit * HOUR),
            pairs: Refusals::default(),
            accepted: Window::new(unit * HOUR, 60),
            crowd: None,
        }
    }

    /// Nothing is known any longer.
    pub fn forget(&mut self) {
        *self = Self::new(self.unit, self.start);
    }

    /// Whether the author of a message makes a difference.
    pub fn watches_authors(&self) -> bool {
        self.senders.is_active() || !self.pairs.0.is_empty()
    }

    /// What will come of trying this message.
    pub fn foresees(&mut self, message: &MessageParties<'_>, now: Instant) -> Option<AttemptResult> {
        message.mailbox?;
        self.of_sender(message, now)
            .or_else(|| self.of_recipients(message, now))
            .or_else(|| self.of_crowd(message, now))
    }

    /// Learns what became of a message.
    pub fn learn(&mut self, message: &MessageParties<'_>, attempt: &AttemptResult, now: Instant) {
        if message.mailbox.is_none() {
            return;
        }
        let at = now.saturating_duration_since(self.start);
        match attempt.verdict.outcome {
            DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied)) => {
                self.senders.errors.add_forward(at, 1);
                if let Some(key) = self.denied(message, &attempt.verdict) {
                    self.senders.refuse(key, &attempt.verdict, now, self.unit);
                }
            }
            DeliveryOutcome::RejectMessage(None) if is_crowded(&attempt.verdict) => {
                let times = self.crowd.as_ref().map_or(0, |(_, crowd)| crowd.times);
                let crowd = Remembered::again(&attempt.verdict, times, now, self.unit);
                self.crowd = Some((message.recipients.len(), crowd));
            }
            DeliveryOutcome::Delivered if self.senders.is_active() => {
                for sender in self.sender_keys(message) {
                    self.senders.accepted(sender);
                }
            }
            _ => {}
        }
        self.learn_recipients(message, attempt, now);
    }

    fn learn_recipients(&mut self, message: &MessageParties<'_>, attempt: &AttemptResult, now: Instant) {
        let at = now.saturating_duration_since(self.start);
        for (recipient, address) in message.recipients.iter().enumerate() {
            // A refusal at the end of the data does not say whom it is about when there are several.
            let own = attempt.refused.iter().find(|refused| refused.recipient == recipient);
            let verdict = match own {
                Some(refused) => &refused.verdict,
                None if message.recipients.len() == 1 => &attempt.verdict,
                None if attempt.verdict.outcome == DeliveryOutcome::Delivered => &attempt.verdict,
                None => continue,
            };
            let (key, pair) = (self.key(address.as_str()), self.pair_key(message, address));
            match verdict.outcome {
                DeliveryOutcome::RejectRecipient if is_about_the_recipient(verdict) => {
                    self.recipients.errors.add_forward(at, 1);
                    self.recipients.refuse(key, verdict, now, self.unit);
                }
                DeliveryOutcome::RejectRecipient => self.pairs.remember(pair, verdict, now, self.unit),
                DeliveryOutcome::Delivered => {
                    self.accepted.add_forward(at, 1);
                    self.pairs.0.remove(&pair);
                    if self.recipients.is_active() {
                        self.recipients.accepted(key);
                    }
                }
                _ => {}
            }
        }
    }

    fn of_sender(&mut self, message: &MessageParties<'_>, now: Instant) -> Option<AttemptResult> {
        let keys = self.sender_keys(message);
        let pair = self.pair(message);
        let known = keys.iter().chain(&pair).find_map(|key| self.senders.refused.known(*key, now));
        if let Some(verdict) = known {
            return Some(foreseen(verdict, vec![]));
        }
        let good = !keys.is_empty() && keys.iter().all(|key| self.senders.good.known.contains(key));
        let unknown = !good && !self.is_the_mailbox(message);
        (unknown && self.senders.errors.sum(now.saturating_duration_since(self.start)) >= MOST).then(|| {
            held_back(
                "messages within an hour had senders that the mailbox may not use",
                "from unknown senders",
            )
        })
    }

    fn of_recipients(&mut self, message: &MessageParties<'_>, now: Instant) -> Option<AttemptResult> {
        let known = |to: &Address| {
            let own = self.recipients.refused.known(self.key(to.as_str()), now);
            own.or_else(|| self.pairs.known(self.pair_key(message, to), now))
        };
        let known: Option<Vec<_>> = message.recipients.iter().map(known).collect();
        if let Some(verdicts) = known.filter(|verdicts| !verdicts.is_empty()) {
            let first = verdicts[0].clone();
            let refused = verdicts.into_iter().enumerate();
            let refused =
                refused.map(|(recipient, verdict)| RefusedRecipient { recipient, verdict }).collect();
            return Some(foreseen(first, refused));
        }
        let good = &self.recipients.good.known;
        let all_good = message.recipients.iter().all(|to| good.contains(&self.key(to.as_str())));
        (!all_good && self.has_too_many_bad_recipients(now))
            .then(|| held_back("recipients within an hour did not exist", "to unknown recipients"))
    }

    fn has_too_many_bad_recipients(&mut self, now: Instant) -> bool {
        let at = now.saturating_duration_since(self.start);
        let (bad, accepted) = (self.recipients.errors.sum(at), self.accepted.sum(at));
        bad >= MOST && bad * ONE_IN >= bad + accepted
    }

    fn of_crowd(&self, message: &MessageParties<'_>, now: Instant) -> Option<AttemptResult> {
        let (most, crowd) = self.crowd.as_ref()?;
        (message.recipients.len() >= *most && now < crowd.until)
            .then(|| foreseen(crowd.recalled(now), vec![]))
    }

    /// The sender that a refusal is about: the one that it names, else whichever is not the mailbox itself.
    fn denied(&self, message: &MessageParties<'_>, verdict: &Verdict) -> Option<u64> {
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

    fn sender_keys(&self, message: &MessageParties<'_>) -> Vec<u64> {
        let path = message.reverse_path.map(Address::as_str);
        path.into_iter().chain(message.author).map(|address| self.key(address)).collect()
    }

    fn pair(&self, message: &MessageParties<'_>) -> Option<u64> {
        let (path, author) = (message.reverse_path?.as_str(), message.author?);
        Some(self.key(&format!("{path}\0{author}")))
    }

    /// Sender and recipient together. A sender is both of its addresses, as either may be what is refused.
    fn pair_key(&self, message: &MessageParties<'_>, recipient: &Address) -> u64 {
        let path = message.reverse_path.map_or("", Address::as_str);
        self.key(&format!("{path}\0{}\0{recipient}", message.author.unwrap_or_default()))
    }

    fn is_the_mailbox(&self, message: &MessageParties<'_>) -> bool {
        let is = |address: &str| message.mailbox.is_some_and(|mailbox| address.eq_ignore_ascii_case(mailbox));
        message.reverse_path.is_none_or(|path| is(path.as_str())) && message.author.is_some_and(is)
    }

    fn key(&self, address: &str) -> u64 {
        self.hash.hash_one(address.to_ascii_lowercase())
    }
}

impl Watch {
    fn new(hour: Duration) -> Self {
        Self { errors: Window::new(hour, 60), refused: Refusals::default(), good: Good::default() }
    }

    /// Whether anything was refused so far.
    const fn is_active(&self) -> bool {
        !self.errors.is_untouched()
    }

    fn refuse(&mut self, key: u64, verdict: &Verdict, now: Instant, unit: Duration) {
        self.good.forget(key);
        self.refused.remember(key, verdict, now, unit);
    }

    fn accepted(&mut self, key: u64) {
        self.refused.0.remove(&key);
        self.good.add(key);
    }
}

impl Refusals {
    fn known(&self, key: u64, now: Instant) -> Option<Verdict> {
        self.0.get(&key).filter(|known| now < known.until).map(|known| known.recalled(now))
    }

    fn remember(&mut self, key: u64, verdict: &Verdict, now: Instant, unit: Duration) {
        let times = self.0.get(&key).map_or(0, |known| known.times);
        if self.0.len() >= REFUSED && !self.0.contains_key(&key) {
            let oldest = self.0.iter().min_by_key(|(_, known)| known.until).map(|(key, _)| *key);
            oldest.map(|key| self.0.remove(&key));
        }
        self.0.insert(key, Remembered::again(verdict, times, now, unit));
    }
}

impl Remembered {
    fn again(verdict: &Verdict, times: u32, now: Instant, unit: Duration) -> Self {
        let pause = FIRST.saturating_mul(1 << times.min(16)).min(LONGEST);
        Self {
            verdict: verdict.clone(),
            since: now,
            until: now + unit * pause,
            times: times.saturating_add(1),
        }
    }

    /// The verdict as it is given without asking, which it says.
    fn recalled(&self, now: Instant) -> Verdict {
        let minutes = |span: Duration| match span.as_secs() {
            0..60 => "less than a minute".to_owned(),
            seconds => format!("{} min", seconds.div_ceil(60)),
        };
        let note = format!(
            "From memory: refused {} ago, asked again in {}",
            minutes(now.saturating_duration_since(self.since)),
            minutes(self.until.saturating_duration_since(now))
        );
        let mut verdict = self.verdict.clone();
        verdict.text = format!("{} ({note})", verdict.text);
        if let Some(reply) = &mut verdict.reply {
            reply.lines.push(note);
        }
        verdict
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
fn foreseen(verdict: Verdict, refused: Vec<RefusedRecipient>) -> AttemptResult {
    AttemptResult { verdict, refused, observations: vec![], host: None }
}

fn held_back(what: &str, others: &str) -> AttemptResult {
    let reason = Reason::ErrorsHeldBack;
    let text = format!("{MOST} {what}; messages {others} wait");
    let observations = vec![Observation::new(reason, text.clone())];
    AttemptResult {
        observations,
        ..foreseen(Verdict::without_reply(DeliveryOutcome::Transient(Some(reason)), text), vec![])
    }
}

/// 5.5.3: too many recipients for this mailbox.
fn is_crowded(verdict: &Verdict) -> bool {
    let enhanced = verdict.reply.as_ref().and_then(|reply| reply.enhanced);
    enhanced.is_some_and(|code| (code.subject, code.detail) == (5, 3))
}

/// Whether a refusal says that the recipient's address is bad, whoever writes to it: RFC 3463's x.1.1 to x.1.4 (no such
/// mailbox or system, bad syntax, ambiguous), x.1.6 (moved) and x.2.1 (disabled); Exchange's x.1.10 (not found), x.4.1
/// (not in the directory) and x.4.310 (no such domain). Any other is about the two together, as far as can be told.
fn is_about_the_recipient(verdict: &Verdict) -> bool {
    let enhanced = verdict.reply.as_ref().and_then(|reply| reply.enhanced);
    enhanced.is_some_and(|code| {
        matches!((code.subject, code.detail), (1, 1..=4 | 6 | 10) | (2, 1) | (4, 1 | 310))
    })
}

/// The address in `SendAsDenied; noreply@contoso.com not allowed to send as boss@contoso.com; STOREDRV…`.
fn named_in(text: &str) -> Option<&str> {
    let (_, behind) = text.split_once(" not allowed to send as ")?;
    let named = behind.split([';', ' ']).next()?;
    named.contains('@').then_some(named)
}

#[cfg(test)]
#[path = "rejection_cache_tests.rs"]
mod tests;
