//! The authorities of one installation and when each takes over: a state machine over values, with time passed in.
//!
//! ```text
//!            Found            Stage             NotePublished           Promote             Prune
//!  (nothing) ────► signing ─────────► signing ────────────► signing ─────────► signing ─────────► signing
//!                                     next                  next, since T      retired
//! ```
//!
//! Invariants, shown by the simulation in `operator/tests/pki_rotation.rs`:
//! * An authority signs only after it has been in the published bundle for the settling time of [`Lifetimes`]: whoever
//!   checks a leaf has had that long to learn of its authority. The exceptions are those where waiting helps nobody: the
//!   very first one, and one whose predecessor has ended.
//! * An authority that no longer signs stays in the bundle until it ends, and no leaf outlives its authority. So every
//!   leaf that is served chains to the bundle, at any instant.
//!
//! Refuses to know about Secrets, webhooks and clocks.

use std::time::Duration;

use jiff::Timestamp;

use super::authority::{Authority, CaCertificate};
use super::bundle::Bundle;

/// How long things live.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    ca: Duration,
    leaf: Duration,
    settle: Duration,
}

/// The lifetimes do not leave room for an overlap.
#[derive(Debug, thiserror::Error)]
#[error("a CA must live more than three times as long as a leaf and the settling time together")]
pub struct NoOverlap;

impl Lifetimes {
    /// Checks that a rotation fits: the next CA is made when a third of the life is left, and needs `settle` before
    /// it signs; until then the present one still has to sign leaves of full length.
    ///
    /// # Errors
    /// [`NoOverlap`] when it does not fit.
    pub fn new(ca: Duration, leaf: Duration, settle: Duration) -> Result<Self, NoOverlap> {
        if leaf.is_zero() || ca / 3 <= leaf + settle {
            return Err(NoOverlap);
        }
        Ok(Self { ca, leaf, settle })
    }

    /// Life of a CA.
    pub const fn ca(&self) -> Duration {
        self.ca
    }

    /// Life of a server certificate; renewed when a third of it is left.
    pub const fn leaf(&self) -> Duration {
        self.leaf
    }

    fn stage_before(&self) -> Duration {
        self.ca / 3
    }
}

impl Default for Lifetimes {
    /// A CA for a year, leaves for a week. A published CA settles for an hour: an API server learns of it in a moment,
    /// but a sidecar reads the bundle from a mounted ConfigMap, which a kubelet refreshes within some minutes.
    fn default() -> Self {
        let day = Duration::from_secs(24 * 60 * 60);
        Self { ca: 365 * day, leaf: 7 * day, settle: Duration::from_secs(60 * 60) }
    }
}

/// The authority that will sign next.
#[derive(Clone, Debug)]
pub struct Next {
    /// It.
    pub authority: Authority,
    /// Since when it is known to be in the published bundle.
    pub published: Option<Timestamp>,
}

/// The authorities of one installation.
#[derive(Clone, Debug)]
pub struct Keyring {
    /// Signs leaves now.
    pub signing: Authority,
    /// Is being made known.
    pub next: Option<Next>,
    /// Signed leaves that may still be served.
    pub retired: Vec<CaCertificate>,
}

/// What the leader has to do to the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Due {
    /// Begin with a new authority: there is none, or it has ended.
    Found,
    /// Make the next authority, so that it becomes known.
    Stage,
    /// Write down that the next authority is published.
    NotePublished,
    /// Let the next authority sign.
    Promote,
    /// Forget retired authorities that have ended.
    Prune,
}

/// What is due at `now`, when `live` is the bundle that the API server uses.
pub fn due(now: Timestamp, keyring: Option<&Keyring>, live: &Bundle, lifetimes: &Lifetimes) -> Option<Due> {
    let Some(keyring) = keyring else { return Some(Due::Found) };
    let ended = |certificate: &CaCertificate| certificate.not_after() <= now;
    let late = |certificate: &CaCertificate| certificate.not_after() <= now + lifetimes.stage_before();
    if ended(keyring.signing.certificate()) {
        let heir = keyring.next.as_ref().filter(|next| !ended(next.authority.certificate()));
        return Some(if heir.is_some() { Due::Promote } else { Due::Found });
    }
    match &keyring.next {
        Some(next) if late(next.authority.certificate()) => return Some(Due::Stage),
        Some(next) if live.contains(next.authority.certificate()) => match next.published {
            None => return Some(Due::NotePublished),
            Some(since) if since + lifetimes.settle <= now => return Some(Due::Promote),
            Some(_) => {}
        },
        None if late(keyring.signing.certificate()) => return Some(Due::Stage),
        Some(_) | None => {}
    }
    keyring.retired.iter().any(ended).then_some(Due::Prune)
}

/// The keyring after `due` was done to it. `mint` makes a new authority and is called at most once.
///
/// # Errors
/// As `mint`.
pub fn advance<E>(
    due: Due,
    keyring: Option<Keyring>,
    now: Timestamp,
    mint: impl FnOnce() -> Result<Authority, E>,
) -> Result<Keyring, E> {
    let Some(keyring) = keyring else { return mint().map(Keyring::found) };
    Ok(match due {
        Due::Found => Keyring::found(mint()?),
        Due::Stage => keyring.stage(mint()?),
        Due::NotePublished => keyring.note_published(now),
        Due::Promote => keyring.promote(),
        Due::Prune => keyring.prune(now),
    })
}

impl Keyring {
    /// A keyring that begins with this authority.
    pub const fn found(authority: Authority) -> Self {
        Self { signing: authority, next: None, retired: Vec::new() }
    }

    /// With this authority as the next one.
    #[must_use]
    pub fn stage(self, authority: Authority) -> Self {
        Self { next: Some(Next { authority, published: None }), ..self }
    }

    /// With the next authority known to be published since `now`.
    #[must_use]
    pub fn note_published(self, now: Timestamp) -> Self {
        Self { next: self.next.map(|next| Next { published: Some(now), ..next }), ..self }
    }

    /// With the next authority signing, and the one before retired. Unchanged when there is no next one.
    #[must_use]
    pub fn promote(mut self) -> Self {
        if let Some(next) = self.next.take() {
            self.retired.push(self.signing.certificate().clone());
            self.signing = next.authority;
        }
        self
    }

    /// Without the retired authorities that have ended.
    #[must_use]
    pub fn prune(mut self, now: Timestamp) -> Self {
        self.retired.retain(|certificate| certificate.not_after() > now);
        self
    }

    /// Everything to trust: the signing authority first, then the next, then the retired ones.
    pub fn bundle(&self) -> Bundle {
        let next = self.next.iter().map(|next| next.authority.certificate());
        std::iter::once(self.signing.certificate()).chain(next).chain(&self.retired).cloned().collect()
    }

    /// The next instant at which [`due`] may change its answer without anything else having changed.
    pub fn look_again(&self, lifetimes: &Lifetimes) -> Timestamp {
        let rotation = match &self.next {
            Some(Next { published: Some(since), .. }) => *since + lifetimes.settle,
            Some(Next { authority, published: None }) => {
                authority.certificate().not_after() - lifetimes.stage_before()
            }
            None => self.signing.certificate().not_after() - lifetimes.stage_before(),
        };
        self.retired.iter().map(CaCertificate::not_after).chain([rotation]).min().unwrap_or(rotation)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn lifetimes() -> Lifetimes {
        Lifetimes::new(300 * HOUR, 20 * HOUR, 2 * HOUR).unwrap()
    }

    fn hour(n: u32) -> Timestamp {
        Timestamp::from_second(1_700_000_000).unwrap() + n * HOUR
    }

    fn authority(made: u32) -> Authority {
        Authority::mint(hour(made), lifetimes().ca()).unwrap()
    }

    #[test]
    fn nothing_is_due_in_the_quiet_part_of_a_life() {
        let keyring = Keyring::found(authority(0));
        for n in [0, 1, 199] {
            assert_eq!(due(hour(n), Some(&keyring), &keyring.bundle(), &lifetimes()), None, "hour {n}");
        }
    }

    #[test]
    fn the_next_authority_is_made_when_a_third_is_left() {
        let keyring = Keyring::found(authority(0));
        assert_eq!(due(hour(200), Some(&keyring), &keyring.bundle(), &lifetimes()), Some(Due::Stage));
        assert_eq!(keyring.look_again(&lifetimes()), hour(200));
    }

    #[test]
    fn an_unpublished_authority_does_not_sign_however_long_it_waits() {
        let old = Keyring::found(authority(0));
        let live = old.bundle();
        let staged = old.stage(authority(200));
        assert_eq!(due(hour(290), Some(&staged), &live, &lifetimes()), None);
    }

    #[test]
    fn settling_begins_with_publication() {
        let staged = Keyring::found(authority(0)).stage(authority(200));
        let live = staged.bundle();
        assert_eq!(due(hour(205), Some(&staged), &live, &lifetimes()), Some(Due::NotePublished));
        let noted = staged.note_published(hour(205));
        assert_eq!(due(hour(206), Some(&noted), &live, &lifetimes()), None);
        assert_eq!(noted.look_again(&lifetimes()), hour(207));
        assert_eq!(due(hour(207), Some(&noted), &live, &lifetimes()), Some(Due::Promote));
    }

    #[test]
    fn a_published_authority_that_vanished_from_the_bundle_does_not_sign() {
        let first = Keyring::found(authority(0));
        let without = first.bundle();
        let noted = first.stage(authority(200)).note_published(hour(200));
        assert_eq!(due(hour(250), Some(&noted), &without, &lifetimes()), None);
    }

    #[test]
    fn a_retired_authority_stays_until_it_ends() {
        let promoted = Keyring::found(authority(0)).stage(authority(200)).note_published(hour(200)).promote();
        assert_eq!(promoted.bundle().iter().count(), 2);
        assert_eq!(due(hour(299), Some(&promoted), &promoted.bundle(), &lifetimes()), None);
        assert_eq!(due(hour(300), Some(&promoted), &promoted.bundle(), &lifetimes()), Some(Due::Prune));
        assert_eq!(promoted.prune(hour(300)).bundle().iter().count(), 1);
    }

    #[test]
    fn after_a_sleep_longer_than_a_life_it_begins_anew() {
        let keyring = Keyring::found(authority(0));
        assert_eq!(due(hour(300), Some(&keyring), &keyring.bundle(), &lifetimes()), Some(Due::Found));
        assert_eq!(due(hour(0), None, &Bundle::default(), &lifetimes()), Some(Due::Found));
    }

    #[test]
    fn when_the_signing_authority_has_ended_the_next_one_does_not_settle_first() {
        let staged = Keyring::found(authority(0)).stage(authority(290)).note_published(hour(299));
        assert_eq!(due(hour(300), Some(&staged), &staged.bundle(), &lifetimes()), Some(Due::Promote));
    }

    #[test]
    fn a_next_authority_that_grew_old_unpublished_is_made_again() {
        let first = Keyring::found(authority(100));
        let staged = first.clone().stage(authority(0));
        assert_eq!(due(hour(201), Some(&staged), &first.bundle(), &lifetimes()), Some(Due::Stage));
    }

    #[test]
    fn lifetimes_without_room_for_an_overlap_are_refused() {
        assert!(Lifetimes::new(3 * HOUR, HOUR, HOUR).is_err());
        assert!(Lifetimes::new(7 * HOUR, HOUR, HOUR).is_ok());
        let usual = Lifetimes::default();
        assert!(Lifetimes::new(usual.ca, usual.leaf, usual.settle).is_ok());
    }
}
