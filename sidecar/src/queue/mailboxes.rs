//! The mailboxes that queued messages name, by number: what the index orders messages by.
//!
//! Pure. Names come with messages, also from other pods and from routes as they were, so there are only so many numbers: a name
//! beyond them is as good as none, since a message of a mailbox that the route does not name gets another one anyway.

use mailroute_route::file::MAX_MAILBOXES;

use super::index::MailboxNumber;
use crate::message::envelope::Address;

/// Most names: those of a route, and those of a few routes before it.
const MOST: usize = 4 * MAX_MAILBOXES;

/// The names that have a number, from 1 on; 0 is for messages that name none.
#[derive(Debug, Default)]
pub(super) struct MailboxNumbers(Vec<Address>);

impl MailboxNumbers {
    /// The number of a mailbox, and the same again where another mailbox had it until now. Only what the route names, as
    /// `is_named` knows, takes the number of another mailbox, one that it does not name.
    pub(super) fn number(
        &mut self,
        mailbox: Option<&Address>,
        is_named: impl Fn(&Address) -> bool,
    ) -> (MailboxNumber, Option<MailboxNumber>) {
        let Some(mailbox) = mailbox else { return (0, None) };
        let number = |at: usize| MailboxNumber::try_from(at + 1).unwrap_or(0);
        if let Some(known) = self.0.iter().position(|name| name == mailbox) {
            return (number(known), None);
        }
        if self.0.len() < MOST {
            self.0.push(mailbox.clone());
            return (number(self.0.len() - 1), None);
        }
        if is_named(mailbox)
            && let Some((at, name)) = self.0.iter_mut().enumerate().find(|(_, name)| !is_named(name))
        {
            name.clone_from(mailbox);
            return (number(at), Some(number(at)));
        }
        (0, None)
    }

    /// The mailbox of a number.
    pub(super) fn name(&self, number: MailboxNumber) -> Option<&Address> {
        self.0.get(usize::from(number).checked_sub(1)?)
    }

    /// What the messages of each number name, from 0 on.
    pub(super) fn names(&self) -> impl Iterator<Item = Option<&Address>> {
        std::iter::once(None).chain(self.0.iter().map(Some))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(n: usize) -> Address {
        Address::parse(&format!("m{n}@contoso.com")).unwrap()
    }

    #[test]
    fn a_name_keeps_its_number() {
        let mut numbers = MailboxNumbers::default();
        assert_eq!(numbers.number(None, |_| true), (0, None));
        for expected in [(0, 1), (1, 2), (0, 1)] {
            assert_eq!(numbers.number(Some(&address(expected.0)), |_| false), (expected.1, None));
        }
        assert_eq!((numbers.name(0), numbers.name(2)), (None, Some(&address(1))));
        assert_eq!(numbers.names().count(), 3);
    }

    #[test]
    fn no_number_of_names_takes_more_memory_nor_the_place_of_what_the_route_names() {
        let mut numbers = MailboxNumbers::default();
        let named = |mailbox: &Address| [address(0), address(1000)].contains(mailbox);
        for n in 0..MOST {
            numbers.number(Some(&address(n)), named);
        }
        for n in MOST..1000 {
            assert_eq!(numbers.number(Some(&address(n)), named), (0, None), "as if it named none");
        }
        assert_eq!(numbers.names().count(), MOST + 1);
        assert_eq!(numbers.number(Some(&address(1000)), named), (2, Some(2)), "the first that may go");
        assert_eq!(numbers.number(Some(&address(1)), named), (0, None));
        assert_eq!(numbers.number(Some(&address(0)), named), (1, None));
    }
}
