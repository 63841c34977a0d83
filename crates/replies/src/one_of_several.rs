//! What a text means that names one mailbox of a route with several.

use mailroute_route::address;

/// How such a text begins.
pub const TEXT: &str = "<mailbox>: …";

/// What it means.
pub const MEANING: &str = "The route has several mailboxes, and this one fails. Messages of this mailbox wait; the others send theirs.";

/// What to do about it.
pub const REMEDY: &str = "The text after the address says what is wrong with this mailbox: look it up. `kubectl mailroute check \
     <route>` tests each mailbox, `kubectl mailroute status <route>` shows the state of each. A mailbox that you do not \
     need any more can be removed from `clientSubmission.mailboxes`; what waits for it then goes by another one ([several \
     mailboxes](guides/mailboxes.md#what-happens-to-a-message)).";

/// The mailbox that a text names in front.
pub fn mailbox_of(text: &str) -> Option<&str> {
    let (mailbox, _) = text.trim_start().split_once(": ")?;
    address::is_address(mailbox).then_some(mailbox)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_an_address_in_front_of_a_text_is_a_mailbox() {
        assert_eq!(mailbox_of("orders@contoso.com: 535 5.7.139 x"), Some("orders@contoso.com"));
        for other in ["550 5.1.1 orders@contoso.com: x", "orders@contoso.com", "Not now: x", "a b@c: x"] {
            assert_eq!(mailbox_of(other), None, "{other}");
        }
    }
}
