//! The grammar of a mail address that a `MailRoute` may name: RFC 5321 §4.1.2 without quoted strings and address literals,
//! in ASCII, in a domain of at least two labels.
//!
//! [`LOCAL_PART`] and [`DOMAIN`] are for the schema, [`is_address`] reads the same without a regular expression. The
//! sidecar's own parser takes the same local parts, and more domains, since applications name senders such as `root@web-1`.

/// Most octets of an address: a path of 256 without its brackets (RFC 5321 §4.5.3.1.3).
pub const MAX_ADDRESS_BYTES: usize = 254;

/// What `atext` (RFC 5322 §3.2.3) has besides letters and digits.
pub const ATEXT_SYMBOLS: &str = "!#$%&'*+-/=?^_`{|}~";

/// A local part, as a regular expression of RE2: `atext` and dots. Holds no double quote and no backslash, so that it can
/// stand in a string of CEL or JSON as it is.
pub const LOCAL_PART: &str = "[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]+";

/// The domain, likewise.
pub const DOMAIN: &str = "([A-Za-z0-9]([A-Za-z0-9-]*[A-Za-z0-9])?[.])+[A-Za-z]([A-Za-z0-9-]*[A-Za-z0-9])?";

/// Whether `text` is an address that a `MailRoute` may name: `LOCAL_PART@DOMAIN`, at most [`MAX_ADDRESS_BYTES`] octets.
pub fn is_address(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    text.len() <= MAX_ADDRESS_BYTES && is_local_part(local) && is_domain(domain)
}

fn is_local_part(text: &str) -> bool {
    !text.is_empty()
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '.' || ATEXT_SYMBOLS.contains(c))
}

fn is_domain(text: &str) -> bool {
    let is_label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    let last = text.rsplit_once('.').map(|(_, last)| last);
    text.split('.').all(is_label)
        && last.is_some_and(|last| last.starts_with(|c: char| c.is_ascii_alphabetic()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_that_people_have_are_addresses() {
        for text in [
            "noreply@contoso.com",
            "sean.o'brien@contoso.com",
            "a`b{c|d}~!#$%&*+-/=?^_e@mail.contoso.com",
            "odd..dots.@contoso.com",
            "x@1-2.c-3",
        ] {
            assert!(is_address(text), "{text}");
        }
        assert!(is_address(&format!("{}@contoso.com", "a".repeat(242))));
    }

    #[test]
    fn what_exchange_has_no_mailbox_for_is_none() {
        for text in [
            "",
            "noreply",
            "@contoso.com",
            "a@contoso",
            "a@contoso.1com",
            "a@-contoso.com",
            "a@contoso-.com",
            "a@contoso..com",
            "a@contoso.com.",
            "a@b_c.com",
            "a@b@contoso.com",
            "a b@contoso.com",
            "a,b@contoso.com",
            "\"a b\"@contoso.com",
            "a@[192.0.2.1]",
            "ü@contoso.com",
            "a@contoso.com\n",
        ] {
            assert!(!is_address(text), "{text:?}");
        }
        assert!(!is_address(&format!("{}@contoso.com", "a".repeat(243))));
    }

    #[test]
    fn the_expressions_fit_into_a_string_and_have_every_symbol() {
        assert!(!LOCAL_PART.contains(['"', '\\']) && !DOMAIN.contains(['"', '\\']));
        assert!(ATEXT_SYMBOLS.chars().all(|symbol| LOCAL_PART.contains(symbol)));
    }
}
