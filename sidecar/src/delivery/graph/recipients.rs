//! Recipients of a message that goes by Microsoft Graph: Graph has no envelope, and reads `To`, `Cc` and `Bcc`.
//!
//! Everybody in `To` and `Cc` would get the message, so all of them have to be in the envelope. Whoever is in the envelope
//! alone goes into one added `Bcc`, which Graph removes before it delivers. A `Bcc` of the application's is taken out: who is to
//! get the message, the envelope says.
//!
//! Pure. Each address list is read twice: by [`authors`], which gives no result where readers of mail could come to different
//! addresses, and by `mail-parser`, which decodes and guesses. Whom either finds has to be in the envelope. Whoever is not found by
//! both, in a header that no reader can take for another, goes into `Bcc` as well: better named twice than left out.

use std::collections::HashSet;

use mail_parser::parsers::MessageStream;

use crate::message::envelope::Address;
use crate::smtp::authors;

/// Most addresses that a refusal names.
const MAX_NAMED: usize = 3;

/// Longest encoded word, octets: RFC 2047 section 2 allows 75, and some programs write longer ones.
const MAX_ENCODED_WORD: usize = 1000;

/// Why the header cannot go as it is.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderProblem {
    /// `To` or `Cc` names somebody who is not in the envelope.
    #[error(
        "To or Cc names recipients that the envelope (RCPT) does not, and Microsoft Graph would send the message to them, \
         too: {0}"
    )]
    NotInEnvelope(String),
    /// Readers could find different addresses in a field.
    #[error("the field {0} cannot be read in one way only, and Microsoft Graph takes the recipients from it")]
    Ambiguous(&'static str),
    /// A line is no field and continues none. Readers differ in what they make of it and of what follows.
    #[error(
        "the header has a line that is no field, and Microsoft Graph takes the recipients from the header"
    )]
    NoField,
}

/// The header section `header`, without the empty line behind it, such that Graph sends to `envelope` and to nobody else.
///
/// # Errors
/// When that cannot be had by changing `Bcc` alone.
pub fn for_graph(header: &[u8], envelope: &[Address]) -> Result<Vec<u8>, HeaderProblem> {
    let allowed: HashSet<String> = envelope.iter().map(|to| comparable(to.as_str())).collect();
    let (mut visible, mut foreign) = (HashSet::new(), Vec::new());
    let (mut met, mut is_plain) = (Vec::new(), true);
    let mut kept = Vec::with_capacity(header.len());
    for field in fields(header) {
        let (name, value) = parted(field).ok_or(HeaderProblem::NoField)?;
        let Some(name) = recipient_field(name) else {
            kept.extend_from_slice(field);
            continue;
        };
        if name == "Bcc" {
            continue;
        }
        let found = addresses(value).ok_or(HeaderProblem::Ambiguous(name))?;
        for address in found.by_any {
            if !allowed.contains(&address) && !foreign.contains(&address) && foreign.len() <= MAX_NAMED {
                foreign.push(address);
            }
        }
        // Of several fields of a name, some readers take the first alone.
        is_plain &= !met.contains(&name);
        met.push(name);
        visible.extend(found.by_all);
        kept.extend_from_slice(field);
    }
    if !foreign.is_empty() {
        return Err(HeaderProblem::NotInEnvelope(named(&foreign)));
    }
    let mut result = bcc(envelope, if is_plain { visible } else { HashSet::new() });
    result.append(&mut kept);
    Ok(result)
}

/// The fields of a header section, each with the lines that continue it.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut len = 0;
        for line in rest.split_inclusive(|&b| b == b'\n') {
            if len > 0 && !(line.starts_with(b" ") || line.starts_with(b"\t")) {
                break;
            }
            len += line.len();
        }
        let (field, behind) = rest.split_at(len);
        rest = behind;
        (!field.is_empty()).then_some(field)
    })
}

/// Name and value of a field; none of what is no field to each reader. Space before the colon is obsolete, and met. A line of white
/// space ends the header for some.
fn parted(field: &[u8]) -> Option<(&[u8], &[u8])> {
    let colon = field.iter().position(|&b| b == b':')?;
    let end = field[..colon].iter().rposition(|b| !b" \t".contains(b))? + 1;
    let name = &field[..end];
    let is_name = name.iter().all(u8::is_ascii_graphic);
    let has_gap = field.split_inclusive(|&b| b == b'\n').any(|line| line.trim_ascii().is_empty());
    (is_name && !has_gap).then(|| (name, &field[colon + 1..]))
}

/// The field that names recipients, if it is one.
fn recipient_field(name: &[u8]) -> Option<&'static str> {
    ["To", "Cc", "Bcc"].into_iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes()))
}

/// Whom a list names, comparable.
struct Found {
    /// Every address that some reader could find.
    by_any: Vec<String>,
    /// Those that every reader finds.
    by_all: Vec<String>,
}

/// The addresses of a list. None: it cannot be read in one way only, or names somebody without an address.
fn addresses(value: &[u8]) -> Option<Found> {
    let mut by_any: Vec<_> =
        authors::parse(value)?.addresses.iter().map(|address| comparable(address.as_str())).collect();
    if !ends_its_encoded_words(value) {
        return None;
    }
    let lenient = MessageStream::new(value).parse_address().into_address();
    let lenient: Vec<_> = lenient.iter().flat_map(|list| list.iter()).collect();
    // A name alone, or an address in an encoded word.
    if lenient.len() > by_any.len() {
        return None;
    }
    // Of a quoted local part it takes the quotes off, or the domain alone.
    let plain = lenient.iter().filter_map(|it| it.address()).filter(|it| Address::parse(it).is_ok());
    let lenient: HashSet<_> = plain.map(comparable).collect();
    let by_all = by_any.iter().filter(|address| lenient.contains(*address)).cloned().collect();
    by_any.extend(lenient);
    Some(Found { by_any, by_all })
}

/// Whether each encoded word has its end where one may be. Decoders look for it up to the end of the field, for each of them anew.
fn ends_its_encoded_words(value: &[u8]) -> bool {
    let starts = value.windows(2).enumerate().filter(|(_, two)| two == b"=?").map(|(at, _)| at + 2);
    starts.into_iter().all(|at| {
        let word = &value[at..value.len().min(at + MAX_ENCODED_WORD)];
        word.windows(2).any(|two| two == b"?=")
    })
}

/// An address as Exchange compares it: without regard to case, and to quotes that are not needed.
pub fn comparable(address: &str) -> String {
    let Some((local, domain)) = address.rsplit_once('@') else { return address.to_ascii_lowercase() };
    let inner = local.strip_prefix('"').and_then(|local| local.strip_suffix('"'));
    let is_plain = |local: &&str| Address::parse(&format!("{local}@{domain}")).is_ok();
    let local = inner.filter(is_plain).unwrap_or(local);
    format!("{local}@{domain}").to_ascii_lowercase()
}

fn named(addresses: &[String]) -> String {
    let more = if addresses.len() > MAX_NAMED { ", …" } else { "" };
    format!("{}{more}", addresses[..addresses.len().min(MAX_NAMED)].join(", "))
}

/// The field for those of the envelope who are not `known` from the others; nothing when all are.
fn bcc(envelope: &[Address], mut known: HashSet<String>) -> Vec<u8> {
    let hidden: Vec<_> =
        envelope.iter().filter(|to| known.insert(comparable(to.as_str()))).map(Address::as_str).collect();
    // One address a line: no line is longer than an address may be.
    if hidden.is_empty() { vec![] } else { format!("Bcc: {}\r\n", hidden.join(",\r\n ")).into_bytes() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn envelope(to: &[&str]) -> Vec<Address> {
        to.iter().map(|to| Address::parse(to).unwrap()).collect()
    }

    fn sent(header: &str, to: &[&str]) -> Result<String, HeaderProblem> {
        for_graph(header.as_bytes(), &envelope(to)).map(|header| String::from_utf8(header).unwrap())
    }

    fn foreign(header: &str, to: &[&str]) -> String {
        match sent(header, to) {
            Err(HeaderProblem::NotInEnvelope(who)) => who,
            other => panic!("{header:?}: {other:?}"),
        }
    }

    #[test]
    fn a_header_that_names_the_envelope_stays_as_it_is() {
        for header in [
            "To: ann@fabrikam.com\r\nSubject: x\r\n",
            "to:Ann <ANN@Fabrikam.COM>\r\n",
            "To : ann@fabrikam.com\r\n",
            "To:\r\n =?utf-8?Q?Ann_=C3=84?=\r\n\t<ann@fabrikam.com> (her (own) address: bob@x)\r\n",
            "To: Team: \"Ann, A.\" <ann@fabrikam.com>;\r\n",
            "To: undisclosed-recipients:;\r\nCc: ann@fabrikam.com\r\n",
            "Cc: ann@fabrikam.com, ann@fabrikam.com\r\n",
            "To: \"bob@fabrikam.com\" <ann@fabrikam.com>\r\n",
        ] {
            assert_eq!(sent(header, &["ann@fabrikam.com"]).as_deref(), Ok(header));
        }
    }

    #[test]
    fn who_is_in_the_envelope_alone_goes_into_one_bcc() {
        assert_eq!(
            sent(
                "Subject: x\r\nTo: ann@fabrikam.com\r\n",
                &["ann@fabrikam.com", "bob@x.example", "Bob@X.example", "c@d"]
            )
            .unwrap(),
            "Bcc: bob@x.example,\r\n c@d\r\nSubject: x\r\nTo: ann@fabrikam.com\r\n"
        );
        assert_eq!(sent("", &["a@b"]).unwrap(), "Bcc: a@b\r\n");
    }

    #[test]
    fn the_applications_own_bcc_is_replaced() {
        let header = "To: a@b\r\nBCC: secret@x,\r\n more@x\r\nbcc : x\r\nSubject: Bcc: y\r\n";
        assert_eq!(sent(header, &["a@b"]).unwrap(), "To: a@b\r\nSubject: Bcc: y\r\n");
        assert_eq!(
            sent("Bcc: a@b, secret@x\r\n", &["a@b"]).unwrap(),
            "Bcc: a@b\r\n",
            "whom RCPT did not name does not get it"
        );
    }

    #[test]
    fn whoever_is_in_to_or_cc_and_not_in_the_envelope_is_named() {
        assert_eq!(foreign("To: a@b, Team: c@d;, \"x\" <e@f>\r\n", &["a@b"]), "c@d, e@f");
        assert_eq!(foreign("To: a@b\r\nCc:\r\n c@d\r\n", &["a@b"]), "c@d");
        assert_eq!(foreign("To: a@b\r\nTo: c@d\r\n", &["a@b"]), "c@d", "each of several");
        assert_eq!(foreign("To: c@d <a@b>\r\n", &["a@b"]), "c@d", "some take the name for an address");
        assert_eq!(foreign("To: Ann @home <a@b>\r\n", &["a@b"]), "ann@home");
        let many: String = (0..5000).map(|at| format!("a{at}@b,\r\n ")).collect();
        assert_eq!(foreign(&format!("To: {many}z@b\r\n"), &["a@b"]), "a0@b, a1@b, a2@b, …");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_sent() {
        for value in [
            "a@b c@d",
            "\"open a@b",
            "<a@b",
            "(open a@b",
            "my x@y <a@b>",
            "<@c:a@b>",
            "root",
            "=?utf-8?Q?c=40d?=",
            "=?utf-8?Q?Ann <a@b>",
        ] {
            let outcome = sent(&format!("To: {value}\r\n"), &["a@b", "c@d"]);
            assert_eq!(outcome, Err(HeaderProblem::Ambiguous("To")), "{value}");
        }
        assert_eq!(for_graph(b"Cc: \xff@b\r\n", &envelope(&["a@b"])), Err(HeaderProblem::Ambiguous("Cc")));
    }

    #[test]
    fn whoever_some_readers_do_not_find_in_the_header_is_in_bcc_as_well() {
        for (header, to, bcc) in [
            ("To: c@d <a@b>\r\n", &["a@b", "c@d"][..], "Bcc: c@d\r\n"),
            ("To: a@b\r\nTo: c@d\r\n", &["a@b", "c@d"], "Bcc: a@b,\r\n c@d\r\n"),
            ("To: \"ann\"@x\r\n", &["ann@x"], "Bcc: ann@x\r\n"),
            ("To: \"a b\"@c\r\n", &["\"a b\"@c"], "Bcc: \"a b\"@c\r\n"),
        ] {
            assert_eq!(sent(header, to), Ok(format!("{bcc}{header}")), "{header:?}");
        }
    }

    #[test]
    fn a_header_with_a_line_that_is_no_field_is_not_sent() {
        for header in [
            " c@d\r\nTo: a@b\r\n",
            "no field\r\nTo: a@b\r\n",
            ":cc:\r\n\tc@d\r\nTo: a@b\r\n",
            "X: y\r\n \r\nTo: a@b\r\n",
            "B cc: e@x\r\nTo: a@b\r\n",
            "T\x7fo: e@x\r\n",
            "a\r\n\t:\r\n\t:cc:<e@x>\r\n",
        ] {
            assert_eq!(sent(header, &["a@b"]), Err(HeaderProblem::NoField), "{header:?}");
        }
        assert_eq!(foreign("To: bo\u{212a}@x\r\n", &["bok@x"]), "bo\u{212a}@x");
    }

    #[test]
    fn what_is_no_recipients_field_is_left_alone() {
        let header =
            "Received: from x\r\n\tby y; z\r\nReply-To: c@d\r\nToo: e@f\r\n  folded To: g@h\r\nTo: a@b\r\n";
        assert_eq!(sent(header, &["a@b"]).as_deref(), Ok(header));
    }

    #[test]
    fn a_header_as_large_as_is_taken_costs_no_time() {
        let started = std::time::Instant::now();
        let list = "x <a@b>, ".repeat(28_000);
        sent(&format!("To: {list}\r\n"), &["a@b"]).unwrap();
        let deep = format!("To: {}{} a@b\r\n", "(".repeat(120_000), ")".repeat(120_000));
        sent(&deep, &["a@b"]).unwrap();
        let words = format!("To: {} a@b\r\n", "=?aa?q? ".repeat(32_000));
        assert_eq!(sent(&words, &["a@b"]), Err(HeaderProblem::Ambiguous("To")));
        let to: Vec<_> = (0..500).map(|at| format!("someone{at}@fabrikam.com")).collect();
        let to: Vec<_> = to.iter().map(String::as_str).collect();
        assert_eq!(
            sent(&"To: a@b\r\n".repeat(9), &[&to[..], &["a@b"]].concat()).unwrap().matches("someone").count(),
            500
        );
        assert!(started.elapsed().as_secs() < 10);
    }
}
