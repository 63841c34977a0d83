//! One token at a time for everybody who sends: when to use it, when to ask for the next, when to leave the authority
//! alone.
//!
//! `Life` decides, a pure function of the time handed in; [`Store`] does what it says. Invariants:
//! * never more than one exchange under way, however many sessions wait;
//! * a token that is still good is used, whatever happens to its successor; but no conversation begins with one that
//!   ends within `MIN_LEFT` while another can be had;
//! * after a failure nobody asks again before the authority's `Retry-After` or our own back-off has passed.
//!
//! There is no timer: a token is renewed by the first use after two thirds of its life, in the background. An idle
//! sidecar therefore asks for nothing.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use mailroute_route::condition::Reason;
use tokio::sync::watch;

use crate::clock::{self, Instant};
use crate::{Failure, Token, TokenSource};

/// With less than this left, a new log-in usually waits for another token, so that its own does not end inside a conversation.
/// Ten minutes, and two more for the difference between clocks.
pub const MIN_LEFT: Duration = Duration::from_secs(12 * 60);

/// With less than this left, no log-in begins at all: the other side counts in whole seconds, and the log-in itself
/// takes a moment.
const LEAST_LEFT: Duration = Duration::from_secs(2);

/// First wait after a failure; doubles with each further one.
const BACKOFF_FIRST: Duration = Duration::from_secs(1);

/// Longest wait of our own after a failure.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

/// Longest `Retry-After` that is obeyed: an absurd one must not silence a route until a restart.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(3600);

/// What to do for someone who needs a token now.
#[derive(Debug)]
enum Step {
    /// Use this one.
    Use(Token),
    /// Use this one, and start an exchange for the next.
    UseAndRenew(Token),
    /// Start an exchange and wait for it.
    Ask,
    /// Wait for the exchange under way.
    Wait,
    /// There is none, and asking again has to wait.
    Fail(Failure),
}

/// Everything the decision depends on.
#[derive(Debug)]
struct Life {
    /// With less than this left, a token is scarce.
    margin: Duration,
    token: Option<Held>,
    failed: Option<Failed>,
    asking: bool,
}

#[derive(Debug)]
struct Held {
    token: Token,
    /// From when on a successor is asked for, and this one used meanwhile.
    renew: Instant,
    /// From when on a successor is waited for, and this one used only when there is none.
    scarce: Instant,
    /// From when on it is not used any more.
    last_use: Instant,
}

#[derive(Debug)]
struct Failed {
    failure: Failure,
    times: u32,
    again: Instant,
}

impl Default for Life {
    fn default() -> Self {
        Self { margin: MIN_LEFT, token: None, failed: None, asking: false }
    }
}

impl Life {
    fn step(&self, now: Instant) -> Step {
        let blocked = self.failed.as_ref().filter(|failed| now < failed.again);
        match &self.token {
            Some(held) if now < held.renew => Step::Use(held.token.clone()),
            Some(held) if now < held.last_use && blocked.is_some() => Step::Use(held.token.clone()),
            Some(held) if now < held.scarce && self.asking => Step::Use(held.token.clone()),
            Some(held) if now < held.scarce => Step::UseAndRenew(held.token.clone()),
            _ if self.asking => Step::Wait,
            _ => blocked.map_or(Step::Ask, |failed| Step::Fail(failed.failure.clone())),
        }
    }

    /// Takes a new token into use. `chance` moves the renewal, so that pods started together do not ask together.
    fn succeed(&mut self, token: Token, chance: f64) {
        let life = token.expires.saturating_duration_since(token.obtained);
        // Ten minutes are the least an administrator can set.
        let plenty = life - self.margin.min(life / 2);
        // Between 60 % and 70 % of the life; with a short one, before it becomes scarce.
        let renew = token.obtained + life.mul_f64(0.6 + 0.1 * chance).min(plenty.mul_f64(0.8 + 0.1 * chance));
        let (scarce, last_use) = (token.obtained + plenty, token.expires - LEAST_LEFT.min(life / 2));
        let held = Held { token, renew, scarce, last_use };
        *self = Self { token: Some(held), failed: None, asking: false, ..*self };
    }

    fn fail(&mut self, failure: Failure, now: Instant, chance: f64) {
        let times = self.failed.as_ref().map_or(0, |failed| failed.times) + 1;
        let wait = match failure.retry_after {
            Some(asked) => asked.min(RETRY_AFTER_MAX),
            None => backoff(times).mul_f64(0.75 + 0.5 * chance),
        };
        self.asking = false;
        self.failed = Some(Failed { failure, times, again: now + wait });
    }

    /// The token, if it can be used although it ends soon.
    fn usable(&self, now: Instant) -> Option<&Token> {
        self.token.as_ref().filter(|held| now < held.last_use).map(|held| &held.token)
    }

    /// Waits for a successor of `older` from now on, if it is the one in use.
    fn hasten(&mut self, older: &Token) {
        if let Some(held) = self.token.as_mut().filter(|held| held.token.secret == older.secret) {
            (held.renew, held.scarce) = (held.token.obtained, held.token.obtained);
        }
    }

    /// Forgets `rejected` if it is the one in use. Says whether it was.
    fn reject(&mut self, rejected: &Token) -> bool {
        let is_held = self.token.as_ref().is_some_and(|held| held.token.secret == rejected.secret);
        if is_held {
            self.token = None;
        }
        is_held
    }
}

fn backoff(times: u32) -> Duration {
    BACKOFF_FIRST.saturating_mul(1 << times.saturating_sub(1).min(16)).min(BACKOFF_MAX)
}

/// What an exchange came to, for metrics and logs.
pub trait Observe: Send + Sync {
    /// A token was issued; it ends after `life`.
    fn issued(&self, life: Duration);
    /// None was issued.
    fn refused(&self, failure: &Failure);
}

/// Keeps the token of one (tenant, client, scope).
pub struct Store {
    source: Arc<dyn TokenSource>,
    observer: Arc<dyn Observe>,
    life: Mutex<Life>,
    /// Counts exchanges that ended.
    ended: watch::Sender<u64>,
}

impl Store {
    /// A store without a token yet; nothing is asked for before the first use.
    pub fn new(source: Arc<dyn TokenSource>, observer: Arc<dyn Observe>) -> Arc<Self> {
        Self::with_margin(source, observer, MIN_LEFT)
    }

    /// The same, for a service that wants tokens to have at least `margin` left.
    pub fn with_margin(
        source: Arc<dyn TokenSource>,
        observer: Arc<dyn Observe>,
        margin: Duration,
    ) -> Arc<Self> {
        let life = Mutex::new(Life { margin, ..Life::default() });
        Arc::new(Self { source, observer, life, ended: watch::Sender::new(0) })
    }

    /// A token with enough life left for a conversation.
    ///
    /// # Errors
    /// When there is none and none can be had now.
    pub async fn token(self: &Arc<Self>) -> Result<Token, Failure> {
        let mut ended = self.ended.subscribe();
        let mut waited = false;
        loop {
            match self.decide(waited) {
                Step::Use(token) => return Ok(token),
                Step::UseAndRenew(token) => {
                    self.ask();
                    return Ok(token);
                }
                Step::Fail(failure) => return Err(failure),
                Step::Ask => self.ask(),
                Step::Wait => {}
            }
            // The sender lives in `self`, so it cannot be gone.
            let _ = ended.changed().await;
            waited = true;
        }
    }

    /// A token other than `rejected`, which the upstream refused.
    ///
    /// # Errors
    /// When none can be had now.
    pub async fn renewed(self: &Arc<Self>, rejected: &Token) -> Result<Token, Failure> {
        if self.life().reject(rejected) {
            self.source.refused(rejected);
        }
        self.token().await
    }

    /// A successor of `older`, asked for although that one is still good; while none can be had, `older` is still what
    /// everybody uses.
    ///
    /// # Errors
    /// When there is neither.
    pub async fn newer(self: &Arc<Self>, older: &Token) -> Result<Token, Failure> {
        self.life().hasten(older);
        self.token().await
    }

    /// Why no successor of the token in use could be had, if the last exchange failed.
    pub fn trouble(&self) -> Option<Failure> {
        self.life().failed.as_ref().map(|failed| failed.failure.clone())
    }

    /// Ends the wait after a failure, as when what was refused has been replaced. What the authority asked for itself is
    /// waited for all the same.
    pub fn ask_again(&self) {
        self.life().failed.take_if(|failed| failed.failure.retry_after.is_none());
    }

    fn life(&self) -> MutexGuard<'_, Life> {
        self.life.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The next step, marking an exchange as begun under the same lock that decided on it. Who has `waited` for an
    /// exchange takes its failure, or the old token, also when the wait after it was over at once.
    fn decide(&self, waited: bool) -> Step {
        let (mut life, now) = (self.life(), clock::now());
        let step = match (life.step(now), &life.failed) {
            (Step::Ask, Some(failed)) if waited => match life.usable(now) {
                Some(token) => Step::Use(token.clone()),
                None => Step::Fail(failed.failure.clone()),
            },
            (step, _) => step,
        };
        if matches!(step, Step::Ask | Step::UseAndRenew(_)) {
            life.asking = true;
        }
        step
    }

    /// Runs the exchange in a task of its own: it must end well although the session that began it goes away.
    fn ask(self: &Arc<Self>) {
        let store = Arc::clone(self);
        tokio::spawn(async move {
            let source = Arc::clone(&store.source);
            // A task of its own again, so that a panic in a dependency is a failure and not a wait without end.
            let fetch = tokio::spawn(async move { source.fetch().await });
            store.settle(fetch.await.unwrap_or_else(|_| Err(broken())));
        });
    }

    fn settle(&self, outcome: Result<Token, Failure>) {
        match outcome {
            Ok(token) => {
                self.observer.issued(token.expires.saturating_duration_since(clock::now()));
                self.life().succeed(token, clock::chance());
            }
            Err(failure) => {
                self.observer.refused(&failure);
                self.life().fail(failure, clock::now(), clock::chance());
            }
        }
        self.ended.send_modify(|count| *count += 1);
    }
}

fn broken() -> Failure {
    Failure::new(Reason::TokenServiceUnavailable, "the token exchange ended without an answer")
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
