//! One lane for each mailbox of the route: its own circuit breaker, budget, rejection cache, route state and health.
//!
//! Owns which lane has which mailbox, and which mailboxes the route names. There are as many lanes as a route may have mailboxes; those without one rest. A mailbox keeps
//! its lane while the route names it, whatever is before or behind it in the route, so that nobody else counts for it meanwhile.

use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mailroute_quota::client::budget::BudgetView;
use mailroute_quota::{Timing, Utilization};
use mailroute_route::control::Usage;
use mailroute_route::file::{MAX_MAILBOXES, SendingMailbox};
use tokio::sync::watch;

use super::{Active, Attempts};
use crate::lock;
use crate::message::envelope::{Address, ReversePath};
use crate::metrics::Metrics;
use crate::outcome::health::{Health, HealthOfAll};
use crate::smtp::mailboxes;

/// The lanes of one sidecar.
pub struct Lanes {
    lanes: Vec<Lane>,
    health: HealthOfAll,
    /// The mailboxes of a route that has several; empty for any other.
    named: Mutex<Arc<[SendingMailbox]>>,
}

struct Lane {
    attempts: Arc<Attempts>,
    /// Where its transport is published.
    active: watch::Sender<Option<Arc<Active>>>,
}

impl Lanes {
    /// Lanes that rest until a route is published. The arguments are those of [`Attempts::new`].
    pub fn new(metrics: &Arc<Metrics>, directory: &Path, timing: Timing, pause: Duration) -> Arc<Self> {
        let health = HealthOfAll::new(MAX_MAILBOXES);
        let lane = |at: usize| {
            let (publish, active) = watch::channel(None);
            let attempts =
                Attempts::new(active, health.lane(at), Arc::clone(metrics), directory, timing, pause);
            Lane { attempts, active: publish }
        };
        Arc::new(Self { lanes: (0..MAX_MAILBOXES).map(lane).collect(), health, named: Mutex::default() })
    }

    /// Every lane, those included that rest.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Attempts>> {
        self.lanes.iter().map(|lane| &lane.attempts)
    }

    /// The lanes that have a route.
    pub fn in_use(&self) -> impl Iterator<Item = &Arc<Attempts>> {
        self.iter().filter(|attempts| attempts.is_active())
    }

    /// The lane at a position, of which there are [`MAX_MAILBOXES`].
    pub fn get(&self, at: usize) -> Option<&Arc<Attempts>> {
        self.lanes.get(at).map(|lane| &lane.attempts)
    }

    /// The lane of a mailbox: of the route's first mailbox for a message that has none, or one that the route no longer names.
    pub fn of(&self, mailbox: Option<&Address>) -> &Arc<Attempts> {
        &self.lanes[self.position(mailbox)].attempts
    }

    /// Where [`Lanes::of`] is among all lanes.
    pub fn position(&self, mailbox: Option<&Address>) -> usize {
        let lane_of = |mailbox: &str| {
            self.iter().position(|attempts| attempts.mailbox().is_some_and(|own| is_same(&own, mailbox)))
        };
        let lane = mailbox.and_then(|mailbox| lane_of(mailbox.as_str())).or_else(|| {
            let named = self.named();
            let Some(first) = named.first() else {
                return self.iter().position(|attempts| attempts.is_active());
            };
            let other = mailbox.is_none_or(|own| !self.names(own)).then(|| lane_of(&first.address)).flatten();
            // Of a mailbox that does not have its lane yet no other mailbox sends the mail.
            other.or_else(|| self.iter().position(|attempts| !attempts.is_active()))
        });
        lane.unwrap_or(0)
    }

    /// Learns which mailboxes the route names, where there are several. Before they have their lanes.
    pub fn name(&self, mailboxes: &[SendingMailbox]) {
        *lock(&self.named) = mailboxes.iter().take(MAX_MAILBOXES).cloned().collect();
    }

    /// Whether a route of several mailboxes names this one.
    pub fn names(&self, mailbox: &Address) -> bool {
        self.named().iter().any(|named| is_same(&named.address, mailbox.as_str()))
    }

    /// Whether a message of this mailbox has to be given another one, as the route has several and this is none of them.
    pub fn is_adrift(&self, mailbox: Option<&Address>) -> bool {
        !self.named().is_empty() && !mailbox.is_some_and(|mailbox| self.names(mailbox))
    }

    /// The mailbox for a message of `sender`: its own, or where the route does not name that one the one that serves the sender.
    pub fn serving(&self, own: Option<&Address>, sender: &ReversePath) -> Option<Address> {
        if let Some(own) = own.filter(|own| self.names(own)) {
            return Some(own.clone());
        }
        mailboxes::serving(&self.named(), sender).and_then(|other| Address::parse(&other.address).ok())
    }

    /// Whether a mailbox is known not to be able to send now: its circuit breaker is open.
    pub fn is_paused(&self, mailbox: &Address) -> bool {
        let own = self
            .iter()
            .find(|attempts| attempts.mailbox().is_some_and(|lane| is_same(&lane, mailbox.as_str())));
        own.is_some_and(|attempts| attempts.known_fault().is_some())
    }

    fn named(&self) -> Arc<[SendingMailbox]> {
        Arc::clone(&lock(&self.named))
    }

    /// Gives a lane its route, or lets it rest.
    pub fn publish(&self, at: usize, active: Option<Arc<Active>>) {
        let Some(lane) = self.lanes.get(at) else { return };
        let mailbox = active.as_ref().and_then(|active| active.route.method.mailbox());
        self.health.name(at, mailbox);
        lane.active.send_replace(active);
    }

    /// What all lanes met: the worst of each condition.
    pub fn health(&self) -> watch::Receiver<Health> {
        self.health.subscribe()
    }

    /// How much of the limits is in use, of whichever mailbox has used most of each.
    pub fn view(&self) -> BudgetView {
        let views = self.in_use().map(|attempts| attempts.budget().view());
        let all = views.reduce(|one, other| BudgetView {
            minute: fuller(one.minute, other.minute),
            hour: fuller(one.hour, other.hour),
            day: fuller(one.day, other.day),
            share: one.share.min(other.share),
        });
        all.unwrap_or_else(|| self.of(None).budget().view())
    }

    /// What all mailboxes have sent.
    pub fn usage(&self) -> Usage {
        self.in_use().map(|attempts| attempts.usage()).fold(Usage::default(), |sum, one| Usage {
            messages_last_minute: sum.messages_last_minute + one.messages_last_minute,
            recipients_last_24h: sum.recipients_last_24h + one.recipients_last_24h,
        })
    }
}

/// Which of the `wanted` mailboxes each lane has, given those that the lanes have `now`. A mailbox stays where it is; the others take
/// the first lanes that are free.
pub fn assign(now: &[Option<String>], wanted: &[Option<&str>]) -> Vec<Option<usize>> {
    let same = |own: &Option<String>, other: &Option<&str>| match (own, other) {
        (Some(own), Some(other)) => is_same(own, other),
        _ => false,
    };
    let mut lanes: Vec<Option<usize>> =
        now.iter().map(|own| wanted.iter().position(|other| same(own, other))).collect();
    for at in 0..wanted.len() {
        if !lanes.contains(&Some(at))
            && let Some(free) = lanes.iter_mut().find(|lane| lane.is_none())
        {
            *free = Some(at);
        }
    }
    lanes
}

fn fuller(one: Option<Utilization>, other: Option<Utilization>) -> Option<Utilization> {
    let (Some(this), Some(that)) = (one, other) else { return one.or(other) };
    let is_fuller = this.used.saturating_mul(that.limit) >= that.used.saturating_mul(this.limit);
    if is_fuller { one } else { other }
}

fn is_same(one: &str, other: &str) -> bool {
    one.eq_ignore_ascii_case(other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn assigned(now: &[&str], wanted: &[&str]) -> Vec<Option<usize>> {
        let now: Vec<_> =
            now.iter().map(|own| Some(String::from(*own)).filter(|own| !own.is_empty())).collect();
        let wanted: Vec<_> = wanted.iter().map(|other| Some(*other)).collect();
        assign(&now, &wanted)
    }

    #[test]
    fn a_mailbox_keeps_its_lane_and_new_ones_take_what_is_free() {
        assert_eq!(assigned(&["", "", ""], &["a@x", "b@x"]), [Some(0), Some(1), None]);
        assert_eq!(assigned(&["a@x", "b@x", ""], &["B@x"]), [None, Some(0), None]);
        assert_eq!(assigned(&["", "b@x", ""], &["c@x", "b@x"]), [Some(0), Some(1), None]);
        assert_eq!(assigned(&["a@x"], &["b@x"]), [Some(0)], "one mailbox after another has the same lane");
    }

    #[test]
    fn a_route_without_a_mailbox_has_the_first_lane() {
        assert_eq!(assign(&[None, None], &[None]), [Some(0), None]);
        assert_eq!(assign(&[Some("a@x".into()), None], &[None]), [Some(0), None]);
    }
}
