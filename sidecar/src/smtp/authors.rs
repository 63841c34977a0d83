//! The addresses in the value of a `From` field, for deciding whether they may stand there.
//!
//! Owns just enough of RFC 5322 §3.4 for that: comments, quoted strings, folded lines, groups (RFC 6854), angle brackets.
//! Display names are not decoded, so what is kept of them is kept octet for octet.
//!
//! Made for a check, so it errs on one side: every `@` that is neither quoted nor in a comment has to belong to an
//! address that is returned, and where readers of mail could come to different addresses there is no result at all. In
//! return it lets through what names nobody, such as the unquoted comma of `Doe, John <a@b>`.

use crate::message::envelope::Address;

/// What a `From` field says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Authors {
    /// Every address that any reader could find in it.
    pub addresses: Vec<Address>,
    /// The first display name as it was written, quotes, encoded words and folding included; fit to stand before an
    /// address in angle brackets again.
    pub name: Option<Vec<u8>>,
}

/// One element of the list while it is read.
#[derive(Default)]
struct Item {
    /// Where it begins in the value.
    start: usize,
    /// What stands outside of angle brackets.
    outside: Run,
    /// What stands between them, and where they open.
    angle: Option<(Run, usize)>,
    /// Between them now.
    inside: bool,
}

/// Octets without comments and white space, quoted strings with their quotes.
#[derive(Default)]
struct Run {
    octets: Vec<u8>,
    /// White space or a comment stood behind the last of them.
    gap: bool,
    /// It stood between two words, so that as an address they could be read in two ways.
    split: bool,
    /// There is an unquoted `@`.
    at_sign: bool,
}

/// Reads the value of a `From` field. `None`: it cannot be read in one way only.
pub fn parse(value: &[u8]) -> Option<Authors> {
    let (mut authors, mut item, mut at) = (Authors::default(), Item::default(), 0);
    while let Some(&octet) = value.get(at) {
        let len = match octet {
            b'"' => closed(&value[at..])?,
            b'(' => comment(&value[at..])?,
            _ => 1,
        };
        match octet {
            b'(' | b' ' | b'\t' | b'\r' | b'\n' => item.run().gap = true,
            b',' | b';' | b':' if !item.inside => {
                item.end(value, &mut authors)?;
                item = Item { start: at + 1, ..Item::default() };
            }
            b'<' if item.angle.is_none() => {
                item.angle = Some((Run::default(), at));
                item.inside = true;
            }
            b'>' if item.inside => item.inside = false,
            b'<' | b'>' | b'\\' => return None,
            // Behind the closing bracket there is nothing but comments.
            _ if item.angle.is_some() && !item.inside => return None,
            _ => item.run().put(&value[at..at + len]),
        }
        at += len;
    }
    item.end(value, &mut authors)?;
    Some(authors)
}

impl Run {
    fn put(&mut self, piece: &[u8]) {
        let joins = |octet: Option<&u8>| octet.is_none_or(|octet| b"@.".contains(octet));
        self.split |= std::mem::take(&mut self.gap) && !joins(self.octets.last()) && !joins(piece.first());
        self.at_sign |= piece == b"@";
        self.octets.extend_from_slice(piece);
    }

    fn address(&self) -> Option<Address> {
        let text = std::str::from_utf8(&self.octets).ok().filter(|_| !self.split)?;
        Address::parse(text).ok()
    }
}

impl Item {
    fn run(&mut self) -> &mut Run {
        match &mut self.angle {
            Some((run, _)) => run,
            None => &mut self.outside,
        }
    }

    fn end(self, value: &[u8], authors: &mut Authors) -> Option<()> {
        let Self { start, outside, angle, inside } = self;
        if let Some((angle, _)) = &angle {
            authors.addresses.push(angle.address().filter(|_| !inside)?);
        }
        if outside.at_sign {
            // In front of an angle bracket, a name that some take for an address.
            authors.addresses.push(outside.address()?);
        }
        let phrase = angle.map_or(&[][..], |(_, open)| value[start..open].trim_ascii());
        let name = if outside.at_sign { quoted(phrase) } else { Some(phrase.to_vec()) };
        authors.name = authors.name.take().or(name.filter(|name| !name.is_empty()));
        Some(())
    }
}

/// A phrase that is no phrase, made one. Only where that is simple.
fn quoted(phrase: &[u8]) -> Option<Vec<u8>> {
    let simple = !phrase.is_empty() && !phrase.iter().any(|b| b"\"\\()\r\n".contains(b));
    simple.then(|| [b"\"", phrase, b"\""].concat())
}

/// Octets of the quoted string at the front. `None`: it does not end.
pub(super) fn closed(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    let end = text[1..].iter().position(|&b| {
        let ends = b == b'"' && !escaped;
        escaped = b == b'\\' && !escaped;
        ends
    });
    end.map(|end| end + 2)
}

/// Octets of the comment at the front, with those inside it. `None`: it does not end.
pub(super) fn comment(text: &[u8]) -> Option<usize> {
    let (mut depth, mut escaped) = (0_usize, false);
    let end = text.iter().position(|&b| {
        let literal = std::mem::take(&mut escaped);
        match b {
            _ if literal => {}
            b'\\' => escaped = true,
            b'(' => depth += 1,
            b')' => depth -= 1,
            _ => {}
        }
        depth == 0
    });
    end.map(|end| end + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Addresses and name, as text.
    fn read(value: &str) -> Option<(Vec<String>, Option<String>)> {
        parse(value.as_bytes()).map(|Authors { addresses, name }| {
            let name = name.map(|name| String::from_utf8(name).unwrap());
            (addresses.iter().map(Address::to_string).collect(), name)
        })
    }

    fn addresses(value: &str) -> Option<Vec<String>> {
        read(value).map(|(addresses, _)| addresses)
    }

    #[test]
    fn the_usual_forms_are_read() {
        for (value, name) in [
            (" a@b.example\r\n", None),
            ("<a@b.example>", None),
            (" Shop <a@b.example>\r\n", Some("Shop")),
            ("\"Doe, John (x) <x@y>\" <a@b.example>", Some("\"Doe, John (x) <x@y>\"")),
            (
                "=?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?Q?_x?= <a@b.example>",
                Some("=?utf-8?Q?Gr=C3=BC=C3=9Fe?=\r\n =?utf-8?Q?_x?="),
            ),
            ("Grüße aus dem Shop <a@b.example>", Some("Grüße aus dem Shop")),
            ("John Q. Public<a@b.example>", Some("John Q. Public")),
            ("a@b.example (Shop)", None),
            ("a (in (deep) \\) x@y) @ b.\r\n\texample", None),
            ("(<x@y>) <a(x)@b.example> (x)", Some("(<x@y>)")),
        ] {
            let expected = (vec!["a@b.example".to_owned()], name.map(str::to_owned));
            assert_eq!(read(value), Some(expected), "{value:?}");
        }
    }

    #[test]
    fn lists_and_groups_name_all_of_theirs() {
        for value in
            ["a@b, C <c@d>", "Both: a@b, C <c@d>;", "Both:a@b;,c@d", "a@b,,c@d,", "Doe, <a@b>, John <c@d>"]
        {
            assert_eq!(addresses(value).unwrap(), ["a@b", "c@d"], "{value:?}");
        }
    }

    #[test]
    fn an_address_in_place_of_a_name_counts_and_is_quoted() {
        let expected = (vec!["a@b".to_owned(), "x@y".to_owned()], Some("\"x@y\"".to_owned()));
        assert_eq!(read("x@y <a@b>"), Some(expected));
    }

    #[test]
    fn what_names_nobody_names_nobody() {
        for value in ["", " \r\n", "nobody", "undisclosed-recipients:;", "\"x@y\"", "(x@y)"] {
            assert_eq!(addresses(value), Some(vec![]), "{value:?}");
        }
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_read() {
        for value in [
            "\"open <x@y>, a@b",
            "(open a@b",
            "<x@y> <a@b>",
            "<x@y> a@b",
            "<a@b",
            "a@b>",
            "<<a@b>>",
            "x@y a@b",
            "John a@b",
            "a(x)b@c",
            "<a b@c>",
            "my x@y <a@b>",
            "\\\"<x@y>\\\" <a@b>",
            "<@x:a@b>",
            "<a@b, c@d>",
            "<>",
            "a@",
            "a@b@c",
        ] {
            assert_eq!(addresses(value), None, "{value:?}");
        }
        assert_eq!(parse(b"a\xff@b"), None);
    }

    #[test]
    fn a_deep_comment_costs_no_stack() {
        let deep = format!("{}{} a@b", "(".repeat(8000), ")".repeat(8000));
        assert_eq!(addresses(&deep).unwrap(), ["a@b"]);
    }
}
