//! Which fields a signature covers: the tag `h=` of a signature field (RFC 6376 §3.5).
//!
//! Made for leaving alone what is covered, so it errs on one side: a signature that cannot be read in one way only covers everything.

/// Fields that hold a signature over others.
const SIGNATURES: [&str; 3] = ["dkim-signature", "arc-message-signature", "domainkey-signature"];

/// Whether a field of this name holds a signature over others.
pub fn is_signature(name: &[u8]) -> bool {
    SIGNATURES.iter().any(|signature| name.eq_ignore_ascii_case(signature.as_bytes()))
}

/// The names of the fields that a signature with this value covers, as they are written. `None`: any.
pub fn covered(value: &[u8]) -> Option<Vec<&[u8]>> {
    let mut found = None;
    for tag in value.split(|&octet| octet == b';') {
        let Some(equals) = tag.iter().position(|&octet| octet == b'=') else { continue };
        let (name, rest) = tag.split_at(equals);
        if !name.trim_ascii().eq_ignore_ascii_case(b"h") {
            continue;
        }
        // Twice: readers could take either.
        if found.replace(&rest[1..]).is_some() {
            return None;
        }
    }
    let names: Vec<_> = found?.split(|&octet| octet == b':').map(<[u8]>::trim_ascii).collect();
    names.iter().all(|name| is_name(name)).then_some(names)
}

/// A name in the tag: no white space within, nothing beyond ASCII.
fn is_name(name: &[u8]) -> bool {
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(value: &str) -> Option<Vec<&str>> {
        covered(value.as_bytes())
            .map(|names| names.into_iter().map(|it| std::str::from_utf8(it).unwrap()).collect())
    }

    #[test]
    fn the_names_are_found_among_the_tags() {
        let names = ["From", "to", "Subject"];
        for value in [
            "h=From:to:Subject",
            " v=1; a=rsa-sha256; d=contoso.com; h=From:to:Subject; bh=x=; b=h\r\n",
            " v=1;\r\n\th = From : to\r\n\t : Subject ;\r\n b=",
            "H=From:to:Subject; hh=x; bh=y",
        ] {
            assert_eq!(read(value).as_deref(), Some(&names[..]), "{value:?}");
        }
    }

    #[test]
    fn what_cannot_be_read_in_one_way_covers_everything() {
        for value in ["", "v=1; b=x", "h=", "h=a::b", "h=a; h=b", "h=a b", "h=\u{e9}", "h", "h=a\0b"] {
            assert_eq!(read(value), None, "{value:?}");
        }
    }

    #[test]
    fn signatures_are_known_by_their_names() {
        assert!(is_signature(b"dkim-SIGNATURE") && is_signature(b"ARC-Message-Signature"));
        assert!(!is_signature(b"ARC-Seal") && !is_signature(b"X-DKIM-Signature"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(names in prop::collection::vec("[!-9<-~]{1,12}", 1..20), fold in any::<bool>()) {
            let written = names.join(if fold { "\r\n\t: " } else { ":" });
            let value = format!(" v=1; h={written}; bh=abc=; b=def");
            prop_assert_eq!(read(&value), Some(names.iter().map(String::as_str).collect()));
        }
    }
}
