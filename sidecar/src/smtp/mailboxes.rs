//! Which mailbox sends a message, where the route has several: chosen at MAIL, by the sender of the envelope.
//!
//! Owns the choice. Each mailbox brings its own settings, so that whatever follows in the conversation knows of that mailbox alone.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mailroute_route::file::SendingMailbox;

use super::senders::admits;
use super::transaction::Settings;
use crate::message::envelope::{Address, ReversePath};

/// The mailboxes of a route. The first carries what no other does.
#[derive(Debug, Default)]
pub struct Mailboxes {
    mailboxes: Vec<Mailbox>,
    /// Several that serve a sender share its mail.
    spreads: bool,
    /// Whose turn it is among them.
    turn: AtomicUsize,
    paused: Paused,
}

/// Knows which mailboxes cannot send at the moment; none of them by default.
#[derive(Clone, Default)]
pub struct Paused(Option<Arc<IsPaused>>);

type IsPaused = dyn Fn(&Address) -> bool + Send + Sync;

/// One mailbox among several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mailbox {
    /// Its address.
    pub address: Address,
    /// The senders that it serves besides itself: addresses and `*@domain`.
    pub senders: Vec<Box<str>>,
    /// The settings for mail that it alone carries.
    pub settings: Arc<Settings>,
    /// The settings for mail that it shares with others.
    pub shared: Arc<Settings>,
}

/// The choice for one message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice<'a> {
    /// The mailbox.
    pub mailbox: &'a Address,
    /// The settings for the message.
    pub settings: &'a Arc<Settings>,
}

impl Mailboxes {
    /// The mailboxes of a route. `turn` is where the first of those that share a sender's mail are begun with.
    pub const fn new(mailboxes: Vec<Mailbox>, spreads: bool, turn: usize, paused: Paused) -> Self {
        Self { mailboxes, spreads, turn: AtomicUsize::new(turn), paused }
    }

    /// The mailbox for a sender; none where the route has no choice. The null sender goes by the first.
    pub fn choose(&self, sender: &ReversePath) -> Option<Choice<'_>> {
        let serving: Vec<&Mailbox> = match sender.address() {
            Some(sender) => self.mailboxes.iter().filter(|mailbox| mailbox.serves(sender)).collect(),
            None => vec![],
        };
        let (mailbox, settings) = match serving[..] {
            [] => self.mailboxes.first().map(|first| (first, &first.settings))?,
            [one] => (one, &one.settings),
            [first, ..] if !self.spreads => (first, &first.settings),
            _ => {
                let turn = self.turn.fetch_add(1, Ordering::Relaxed);
                in_turn(&serving, turn, |one| self.paused.has(&one.address)).map(|one| (one, &one.shared))?
            }
        };
        Some(Choice { mailbox: &mailbox.address, settings })
    }
}

impl Paused {
    /// Asks `is_paused`.
    pub fn new(is_paused: impl Fn(&Address) -> bool + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(is_paused)))
    }

    fn has(&self, mailbox: &Address) -> bool {
        self.0.as_ref().is_some_and(|is_paused| is_paused(mailbox))
    }
}

impl fmt::Debug for Paused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Paused")
    }
}

/// Whose turn it is among those that serve a sender: only those that can send take turns, as long as there is one.
fn in_turn<'a>(
    serving: &[&'a Mailbox],
    turn: usize,
    is_paused: impl Fn(&Mailbox) -> bool,
) -> Option<&'a Mailbox> {
    let able: Vec<&Mailbox> = serving.iter().copied().filter(|one| !is_paused(one)).collect();
    let among = if able.is_empty() { serving } else { &able };
    among.get(turn.checked_rem(among.len())?).copied()
}

/// The mailbox for a message that has none of these any more: the first that serves its sender, or else the first of all.
pub fn serving<'a>(mailboxes: &'a [SendingMailbox], sender: &ReversePath) -> Option<&'a SendingMailbox> {
    match sender.address() {
        Some(sender) => serving_all(mailboxes, sender).first().copied(),
        None => mailboxes.first(),
    }
}

/// All that serve a sender, or else the first of all: those that may send its mail.
pub fn serving_all<'a>(mailboxes: &'a [SendingMailbox], sender: &Address) -> Vec<&'a SendingMailbox> {
    let serving: Vec<_> = mailboxes.iter().filter(|mailbox| mailbox_serves(mailbox, sender)).collect();
    if serving.is_empty() { mailboxes.iter().take(1).collect() } else { serving }
}

fn mailbox_serves(mailbox: &SendingMailbox, sender: &Address) -> bool {
    serves(&mailbox.address, mailbox.senders.iter().map(String::as_str), sender)
}

fn serves<'a>(mailbox: &str, mut senders: impl Iterator<Item = &'a str>, sender: &Address) -> bool {
    admits(mailbox, sender) || senders.any(|entry| admits(entry, sender))
}

/// Whose turn it is makes no difference to what the mailboxes are.
impl PartialEq for Mailboxes {
    fn eq(&self, other: &Self) -> bool {
        (&self.mailboxes, self.spreads) == (&other.mailboxes, other.spreads)
    }
}

impl Eq for Mailboxes {}

impl Mailbox {
    fn serves(&self, sender: &Address) -> bool {
        serves(self.address.as_str(), self.senders.iter().map(AsRef::as_ref), sender)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailboxes(list: &[(&str, &[&str])], spreads: bool) -> Mailboxes {
        avoiding(list, spreads, Paused::default())
    }

    fn avoiding(list: &[(&str, &[&str])], spreads: bool, paused: Paused) -> Mailboxes {
        let mailbox = |(address, senders): &(&str, &[&str])| Mailbox {
            address: Address::parse(address).unwrap(),
            senders: senders.iter().map(|sender| Box::from(*sender)).collect(),
            settings: Arc::new(Settings::new("own", 1, 1)),
            shared: Arc::new(Settings::new("shared", 1, 1)),
        };
        Mailboxes::new(list.iter().map(mailbox).collect(), spreads, 1, paused)
    }

    fn chosen<'a>(mailboxes: &'a Mailboxes, sender: &str) -> Option<(&'a str, &'a str)> {
        let sender = Address::parse(sender).map_or(ReversePath::Null, ReversePath::Address);
        let choice = mailboxes.choose(&sender)?;
        Some((choice.mailbox.as_str(), &choice.settings.host_name))
    }

    const THREE: [(&str, &[&str]); 3] = [
        ("noreply@contoso.com", &[]),
        ("orders@contoso.com", &["*@shop.contoso.com", "sales@contoso.com"]),
        ("alerts@contoso.com", &["*@shop.contoso.com"]),
    ];

    #[test]
    fn the_first_that_serves_the_sender_has_it_and_the_first_of_all_what_nobody_serves() {
        let mailboxes = mailboxes(&THREE, false);
        for (sender, expected) in [
            ("Alerts@Contoso.com", "alerts@contoso.com"),
            ("ann@shop.contoso.com", "orders@contoso.com"),
            ("Sales@contoso.com", "orders@contoso.com"),
            ("else@contoso.com", "noreply@contoso.com"),
            ("", "noreply@contoso.com"),
        ] {
            assert_eq!(chosen(&mailboxes, sender), Some((expected, "own")), "{sender}");
        }
        assert_eq!(chosen(&Mailboxes::default(), "a@b"), None);
    }

    #[test]
    fn those_that_share_a_sender_take_turns() {
        let mailboxes = mailboxes(&THREE, true);
        let next = || chosen(&mailboxes, "ann@shop.contoso.com").unwrap();
        let (one, two) = (("alerts@contoso.com", "shared"), ("orders@contoso.com", "shared"));
        assert_eq!([next(), next(), next(), next()], [one, two, one, two]);
        assert_eq!(chosen(&mailboxes, "sales@contoso.com"), Some(("orders@contoso.com", "own")));
    }

    #[test]
    fn those_that_cannot_send_have_no_turn_while_another_can() {
        let chosen_without = |paused: Vec<&'static str>| {
            let paused = Paused::new(move |mailbox| paused.contains(&mailbox.as_str()));
            let mailboxes = avoiding(&THREE, true, paused);
            [0; 4].map(|_| chosen(&mailboxes, "ann@shop.contoso.com").unwrap().0.to_owned())
        };
        let (one, two) = ("alerts@contoso.com", "orders@contoso.com");
        assert_eq!(chosen_without(vec![two]), [one; 4]);
        assert_eq!(chosen_without(vec![one]), [two; 4]);
        assert_eq!(
            chosen_without(vec![one, two]),
            [one, two, one, two],
            "where none can, all wait for theirs"
        );
        let alone = avoiding(&THREE, true, Paused::new(|_| true));
        assert_eq!(chosen(&alone, "sales@contoso.com"), Some((two, "own")), "nobody else serves her");
    }

    #[test]
    fn a_message_without_a_mailbox_of_the_route_goes_by_the_first_that_serves_its_sender() {
        let named = |(address, senders): &(&str, &[&str])| SendingMailbox {
            address: (*address).into(),
            senders: senders.iter().map(|sender| (*sender).to_owned()).collect(),
        };
        let mailboxes: Vec<_> = THREE.iter().map(named).collect();
        let serving = |sender: &str| {
            let sender = Address::parse(sender).map_or(ReversePath::Null, ReversePath::Address);
            serving(&mailboxes, &sender).unwrap().address.as_str()
        };
        assert_eq!(serving("ann@shop.contoso.com"), "orders@contoso.com");
        assert_eq!(serving("alerts@contoso.com"), "alerts@contoso.com");
        assert_eq!(serving("else@contoso.com"), "noreply@contoso.com");
        assert_eq!(serving(""), "noreply@contoso.com", "a notification");
    }
}
