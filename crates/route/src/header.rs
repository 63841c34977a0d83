//! Header fields that a route may remove or set: by name, and what a value may hold.
//!
//! Protected are fields that tell where a message has been and who vouches for it, who it is from and to, and how its content is to
//! be read. The expressions are for CEL, in single quotes; the functions say the same.

/// Names that no rule may touch, in lower case.
pub const PROTECTED: [&str; 14] = [
    "authentication-results",
    "bcc",
    "cc",
    "date",
    "dkim-signature",
    "domainkey-signature",
    "from",
    "message-id",
    "mime-version",
    "received",
    "received-spf",
    "return-path",
    "sender",
    "to",
];

/// How names begin that no rule may touch, in lower case.
pub const PROTECTED_PREFIXES: [&str; 4] = ["arc-", "content-", "resent-", "x-mailroute-"];

/// Longest name, octets.
pub const MAX_NAME_BYTES: usize = 64;

/// Longest value, octets: with its name it fits into one line of RFC 5322 section 2.1.1 (998), so that nothing is ever folded.
pub const MAX_VALUE_BYTES: usize = 900;

/// A name as CEL matches it.
pub const NAME: &str = "[A-Za-z0-9_-]+";

/// A value as CEL matches it: printable ASCII, and no white space at its ends.
pub const VALUE: &str = "[!-~]([ -~]*[!-~])?";

/// Whether a rule may be about fields of this name.
pub fn is_changeable(name: &str) -> bool {
    let is_name = (1..=MAX_NAME_BYTES).contains(&name.len())
        && name.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"_-".contains(&octet));
    let name = name.to_ascii_lowercase();
    let is_protected = PROTECTED.contains(&name.as_str())
        || PROTECTED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    is_name && !is_protected
}

/// Whether a field may have this value.
pub fn is_value(value: &str) -> bool {
    (1..=MAX_VALUE_BYTES).contains(&value.len())
        && value.bytes().all(|octet| (b' '..=b'~').contains(&octet))
        && value.trim() == value
}

/// The CEL expression that is true of names that no rule may touch, for an expression that is the name in lower case.
pub fn is_protected_in_cel(name: &str) -> String {
    let listed: Vec<_> = PROTECTED.iter().map(|name| format!("'{name}'")).collect();
    let begins: Vec<_> =
        PROTECTED_PREFIXES.iter().map(|prefix| format!("{name}.startsWith('{prefix}')")).collect();
    format!("{name} in [{}] || {}", listed.join(", "), begins.join(" || "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_of_the_applications_own_may_be_changed() {
        for name in
            ["X-Mailer", "Reply-To", "Subject", "auto-submitted", "List-Unsubscribe", "X_Y", "Archived-At"]
        {
            assert!(is_changeable(name), "{name}");
        }
    }

    #[test]
    fn others_and_what_is_no_name_may_not() {
        for name in [
            "Received",
            "RETURN-PATH",
            "DKIM-Signature",
            "Arc-Seal",
            "Authentication-Results",
            "From",
            "Bcc",
            "Resent-To",
            "Content-Type",
            "X-MailRoute-Original-To",
            "",
            "X Y",
            "X:",
            "X\r\nBcc",
            "Ä",
        ] {
            assert!(!is_changeable(name), "{name:?}");
        }
        assert!(is_changeable(&"x".repeat(64)) && !is_changeable(&"x".repeat(65)));
    }

    #[test]
    fn a_value_is_one_line_of_printable_ascii() {
        assert!(is_value("auto-generated") && is_value("<mailto:a@b>, <https://x>") && is_value("x"));
        for value in ["", " x", "x ", "x\r\nBcc: y", "x\ty", "x\0", "ü"] {
            assert!(!is_value(value), "{value:?}");
        }
        assert!(is_value(&"x".repeat(900)) && !is_value(&"x".repeat(901)));
    }
}
