//! Which mailbox sends a message, where the route has several: chosen at MAIL, by the sender of the envelope.
//!
//! Owns the choice. Each mailbox brings its own settings, so that whatever follows in the conversation knows of that mailbox alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

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
}

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
    pub const fn new(mailboxes: Vec<Mailbox>, spreads: bool, turn: usize) -> Self {
        Self { mailboxes, spreads, turn: AtomicUsize::new(turn) }
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
                let turn = self.turn.fetch_add(1, Ordering::Relaxed) % serving.len();
                serving.get(turn).map(|one| (*one, &one.shared))?
            }
        };
        Some(Choice { mailbox: &mailbox.address, settings })
    }
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
        admits(self.address.as_str(), sender) || self.senders.iter().any(|entry| admits(entry, sender))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailboxes(list: &[(&str, &[&str])], spreads: bool) -> Mailboxes {
        let mailbox = |(address, senders): &(&str, &[&str])| Mailbox {
            address: Address::parse(address).unwrap(),
            senders: senders.iter().map(|sender| Box::from(*sender)).collect(),
            settings: Arc::new(Settings::new("own", 1, 1)),
            shared: Arc::new(Settings::new("shared", 1, 1)),
        };
        Mailboxes::new(list.iter().map(mailbox).collect(), spreads, 1)
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
}
