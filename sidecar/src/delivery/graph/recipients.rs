//! Recipients of a message that goes by Microsoft Graph: Graph has no envelope, and reads `To`, `Cc` and `Bcc`.
//!
//! Everybody in `To` and `Cc` would get the message, so all of them have to be in the envelope. Whoever is in the envelope
//! alone goes into one added `Bcc`, which Graph removes before it delivers. A `Bcc` of the application's is taken out: who is to
//! get the message, the envelope says.
//!
//! Pure. Each address list is read twice: by [`authors`], which gives no result where readers of mail could come to different
//! addresses, and by `mail-parser`, which decodes and guesses. What either finds counts.

use std::collections::HashSet;

use mail_parser::parsers::MessageStream;

use crate::message::envelope::Address;
use crate::smtp::authors;

/// Most addresses that a refusal names.
const MAX_NAMED: usize = 3;

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
    /// The first line continues no field, and would continue one that is put in front of it.
    #[error("the header begins with a folded line")]
    Folded,
}

/// The header section `header`, without the empty line behind it, such that Graph sends to `envelope` and to nobody else.
///
/// # Errors
/// When that cannot be had by changing `Bcc` alone.
pub fn for_graph(header: &[u8], envelope: &[Address]) -> Result<Vec<u8>, HeaderProblem> {
    if header.starts_with(b" ") || header.starts_with(b"\t") {
        return Err(HeaderProblem::Folded);
    }
    let allowed: HashSet<String> = envelope.iter().map(|to| comparable(to.as_str())).collect();
    let (mut visible, mut foreign) = (HashSet::new(), Vec::new());
    let mut kept = Vec::with_capacity(header.len());
    for field in fields(header) {
        let (name, value) = match recipient_field(field) {
            Some(("Bcc", _)) => continue,
            Some(found) => found,
            None => {
                kept.extend_from_slice(field);
                continue;
            }
        };
        for address in addresses(value).ok_or(HeaderProblem::Ambiguous(name))? {
            if !allowed.contains(&address) && !foreign.contains(&address) && foreign.len() <= MAX_NAMED {
                foreign.push(address.clone());
            }
            visible.insert(address);
        }
        kept.extend_from_slice(field);
    }
    if !foreign.is_empty() {
        return Err(HeaderProblem::NotInEnvelope(named(&foreign)));
    }
    let mut result = bcc(envelope, visible);
    result.append(&mut kept);
    Ok(result)
}

/// The fields of a header section, each with the lines that continue it. A line that is no field stands for itself, and for some
/// readers a folded line behind it is a field.
fn fields(header: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = header;
    std::iter::from_fn(move || {
        let mut len = 0;
        for line in rest.split_inclusive(|&b| b == b'\n') {
            let is_folded = line.starts_with(b" ") || line.starts_with(b"\t");
            if len > 0 && !(is_folded && begins_field(&rest[..len])) {
                break;
            }
            len += line.len();
        }
        let (field, behind) = rest.split_at(len);
        rest = behind;
        (!field.is_empty()).then_some(field)
    })
}

/// Whether a line has the name of a field.
pub fn begins_field(line: &[u8]) -> bool {
    let Some(colon) = line.iter().position(|&b| b == b':') else { return false };
    let name = line[..colon].trim_ascii();
    !name.is_empty() && name.iter().all(u8::is_ascii_graphic)
}

/// Name and value of a field that names recipients. Space before the colon is obsolete, and met.
fn recipient_field(field: &[u8]) -> Option<(&'static str, &[u8])> {
    let colon = field.iter().position(|&b| b == b':')?;
    let name = field[..colon].trim_ascii();
    let known = ["To", "Cc", "Bcc"].into_iter().find(|known| name.eq_ignore_ascii_case(known.as_bytes()))?;
    Some((known, &field[colon + 1..]))
}

/// Every address that a reader could find in a list, comparable. None: it cannot be read in one way only.
fn addresses(value: &[u8]) -> Option<Vec<String>> {
    let strict = authors::parse(value)?.addresses;
    let mut found: Vec<_> = strict.iter().map(|address| comparable(address.as_str())).collect();
    let lenient = MessageStream::new(value).parse_address().into_address();
    for address in lenient.iter().flat_map(|list| list.iter()).filter_map(|address| address.address()) {
        // Of a quoted local part it takes the quotes off, or the domain alone.
        if Address::parse(address).is_ok() {
            found.push(comparable(address));
        }
    }
    Some(found)
}

/// An address as Exchange compares it: without regard to case, and to quotes that are not needed.
pub fn comparable(address: &str) -> String {
    let Some((local, domain)) = address.rsplit_once('@') else { return address.to_lowercase() };
    let inner = local.strip_prefix('"').and_then(|local| local.strip_suffix('"'));
    let is_plain = |local: &&str| Address::parse(&format!("{local}@{domain}")).is_ok();
    let local = inner.filter(is_plain).unwrap_or(local);
    format!("{local}@{domain}").to_lowercase()
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
            "To : \"ann\"@fabrikam.com\r\n",
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
        assert_eq!(foreign("no field\r\n\tTo: c@d\r\n", &["a@b"]), "c@d");
        assert_eq!(foreign("To: Ann @home <a@b>\r\n", &["a@b"]), "ann@home");
        let many: String = (0..5000).map(|at| format!("a{at}@b,\r\n ")).collect();
        assert_eq!(foreign(&format!("To: {many}z@b\r\n"), &["a@b"]), "a0@b, a1@b, a2@b, …");
    }

    #[test]
    fn what_can_be_read_in_two_ways_is_not_sent() {
        for value in ["a@b c@d", "\"open a@b", "<a@b", "(open a@b", "my x@y <a@b>", "<@c:a@b>"] {
            let outcome = sent(&format!("To: {value}\r\n"), &["a@b", "c@d"]);
            assert_eq!(outcome, Err(HeaderProblem::Ambiguous("To")), "{value}");
        }
        assert_eq!(for_graph(b"Cc: \xff@b\r\n", &envelope(&["a@b"])), Err(HeaderProblem::Ambiguous("Cc")));
    }

    #[test]
    fn a_first_line_that_is_folded_does_not_become_part_of_the_added_field() {
        assert_eq!(sent(" c@d\r\nTo: a@b\r\n", &["a@b"]), Err(HeaderProblem::Folded));
    }

    #[test]
    fn what_is_no_recipients_field_is_left_alone() {
        let header = "Received: from x\r\n\tby y; z\r\nReply-To: c@d\r\nToo: e@f\r\nno field\r\n  folded To: g@h\r\nTo: a@b\r\n";
        assert_eq!(sent(header, &["a@b"]).as_deref(), Ok(header));
    }

    #[test]
    fn a_header_as_large_as_is_taken_costs_no_time() {
        let started = std::time::Instant::now();
        let list = "x <a@b>, ".repeat(28_000);
        sent(&format!("To: {list}\r\n"), &["a@b"]).unwrap();
        let deep = format!("To: {}{} a@b\r\n", "(".repeat(120_000), ")".repeat(120_000));
        sent(&deep, &["a@b"]).unwrap();
        let to: Vec<_> = (0..500).map(|at| format!("someone{at}@fabrikam.com")).collect();
        let to: Vec<_> = to.iter().map(String::as_str).collect();
        assert_eq!(
            sent(&"To: a@b\r\n".repeat(9), &[&to[..], &["a@b"]].concat()).unwrap().matches("someone").count(),
            500
        );
        assert!(started.elapsed().as_secs() < 10);
    }
}
