//! A message, read for a person: who, what, the text, the parts, and how it came.
//!
//! Pure. MIME is read by the crate `mail-parser`; what is shown is bounded here.

use jiff::Timestamp;
use mail_parser::{Address, MessageParser, MimeHeaders, PartType};
use serde::Serialize;

use super::{cut, html, links};
use crate::{
    dialogue::Dialogue,
    mailbox::{ConnectionFacts, Face, Header, Message, Recipient, TokenClaims},
    relay::attribution::Attribution,
    submission::message::header_block,
};

/// Bytes of text that are shown.
const MAX_TEXT: usize = 256 * 1024;

/// Bytes of a header block that is read for the list.
const MAX_HEADER: usize = 64 * 1024;

/// Bytes of one field that are shown.
const MAX_FIELD: usize = 4096;

/// Fields, addresses and attachments that are shown, of each.
const MAX_ENTRIES: usize = 500;

/// Bytes of a message whose text is searched.
const MAX_SEARCHED: usize = 1024 * 1024;

/// A line of the list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Summary {
    id: u64,
    received_at: Timestamp,
    /// Name or address of the author.
    from: String,
    subject: String,
    /// The first recipient of the envelope.
    to: String,
    /// How many more there are.
    more_recipients: usize,
    face: Face,
    octets: usize,
}

/// Everything of a message that the page shows.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Reading {
    id: u64,
    received_at: Timestamp,
    octets: usize,
    subject: String,
    from: Vec<Person>,
    to: Vec<Person>,
    cc: Vec<Person>,
    reply_to: Vec<Person>,
    /// `Date`, in RFC 3339.
    date: Option<String>,
    message_id: String,
    text: Option<String>,
    /// Whether there is more text than is shown.
    text_cut: bool,
    /// Whether there is HTML.
    html: bool,
    links: Vec<String>,
    attachments: Vec<Attachment>,
    headers: Vec<Header>,
    envelope: Envelope,
    token: TokenClaims,
    connection: ConnectionFacts,
    dialogue: Option<Dialogue>,
}

/// A name and an address; either may be empty.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Person {
    name: String,
    address: String,
}

/// A part to download.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Attachment {
    name: String,
    kind: String,
    octets: usize,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    mailbox: String,
    mail_from: String,
    mail_parameters: Vec<String>,
    recipients: Vec<Recipient>,
    sent_items: bool,
    attribution: Option<Attribution>,
}

impl Summary {
    /// Reads no more than the header.
    pub fn of(message: &Message) -> Self {
        let block = header_of(message);
        let parsed = MessageParser::default().parse_headers(block);
        let author = parsed.as_ref().and_then(|parsed| people(parsed.from()).into_iter().next());
        let from = author.map(|author| if author.name.is_empty() { author.address } else { author.name });
        let subject = parsed.as_ref().and_then(|parsed| parsed.subject()).unwrap_or_default();
        Self {
            id: message.id,
            received_at: message.received_at,
            from: from.unwrap_or_else(|| message.mail_from.clone()),
            subject: field(subject),
            to: message.recipients.first().map(|recipient| recipient.address.clone()).unwrap_or_default(),
            more_recipients: message.recipients.len().saturating_sub(1),
            face: message.connection.face,
            octets: message.data.len(),
        }
    }
}

impl Reading {
    /// Reads a message, and adds the dialogue of its connection.
    pub fn of(message: &Message, dialogue: Option<Dialogue>) -> Self {
        let parsed = MessageParser::default().parse(&message.data);
        let parsed = parsed.as_ref();
        let (text, text_cut) = parsed.map(text_of).unwrap_or_default();
        let html = parsed.and_then(html::parts);
        let mut links = html.as_deref().map(links::in_html).unwrap_or_default();
        if html.is_none() {
            links = links::in_text(text.as_deref().unwrap_or_default());
        }
        Self {
            id: message.id,
            received_at: message.received_at,
            octets: message.data.len(),
            subject: field(parsed.and_then(|parsed| parsed.subject()).unwrap_or_default()),
            from: people(parsed.and_then(|parsed| parsed.from())),
            to: people(parsed.and_then(|parsed| parsed.to())),
            cc: people(parsed.and_then(|parsed| parsed.cc())),
            reply_to: people(parsed.and_then(|parsed| parsed.reply_to())),
            date: parsed.and_then(|parsed| parsed.date()).map(|date| date.to_rfc3339()),
            message_id: field(&message.message_id),
            text,
            text_cut,
            html: html.is_some(),
            links,
            attachments: parsed.map(attachments).unwrap_or_default(),
            headers: message.headers.iter().take(MAX_ENTRIES).map(shown_header).collect(),
            envelope: Envelope::of(message),
            token: message.token.clone(),
            connection: message.connection.clone(),
            dialogue,
        }
    }
}

impl Envelope {
    fn of(message: &Message) -> Self {
        Self {
            mailbox: message.mailbox.clone(),
            mail_from: message.mail_from.clone(),
            mail_parameters: message.mail_parameters.clone(),
            recipients: message.recipients.iter().take(MAX_ENTRIES).cloned().collect(),
            sent_items: message.sent_items,
            attribution: message.attribution.clone(),
        }
    }
}

/// Whether every word, in lower case, is somewhere in the message: subject, addresses, identifiers, text.
pub(super) fn contains(message: &Message, words: &[String]) -> bool {
    if words.is_empty() {
        return true;
    }
    let parsed = match message.data.len() {
        0..=MAX_SEARCHED => MessageParser::default().parse(&message.data),
        _ => MessageParser::default().parse_headers(header_of(message)),
    };
    let mut text = format!("{}\n{}\n{}\n", message.mailbox, message.mail_from, message.message_id);
    for address in message.recipient_addresses() {
        text.extend([address, "\n"]);
    }
    if let Some(parsed) = &parsed {
        text.extend([parsed.subject().unwrap_or_default(), "\n"]);
        for person in [parsed.from(), parsed.to(), parsed.cc()].into_iter().flat_map(people) {
            text.extend([person.name.as_str(), "\n", person.address.as_str(), "\n"]);
        }
        text.push_str(text_of(parsed).0.as_deref().unwrap_or_default());
    }
    let text = text.to_lowercase();
    words.iter().all(|word| text.contains(word))
}

/// The header block of a message, if it is one, in bounds.
fn header_of(message: &Message) -> &[u8] {
    let block = header_block(&message.data);
    &block[..block.len().min(MAX_HEADER)]
}

fn field(text: &str) -> String {
    cut(text, MAX_FIELD).0.to_owned()
}

fn shown_header(header: &Header) -> Header {
    Header { name: field(&header.name), value: field(&header.value) }
}

fn people(address: Option<&Address<'_>>) -> Vec<Person> {
    let all = address.into_iter().flat_map(Address::iter).take(MAX_ENTRIES);
    let text = |value: Option<&str>| field(value.unwrap_or_default());
    all.map(|person| Person { name: text(person.name()), address: text(person.address()) }).collect()
}

/// The text of a message, that of its HTML if it has no other, and whether it was cut.
fn text_of(parsed: &mail_parser::Message<'_>) -> (Option<String>, bool) {
    let plain = parsed.text_bodies().filter_map(|part| match &part.body {
        PartType::Text(text) => Some(text.as_ref()),
        _ => None,
    });
    let mut text = plain.collect::<Vec<_>>().join("\n");
    if text.is_empty() {
        text = parsed.body_text(0).unwrap_or_default().into_owned();
    }
    let (shown, is_cut) = cut(&text, MAX_TEXT);
    (Some(shown.replace("\r\n", "\n")).filter(|text| !text.is_empty()), is_cut)
}

fn attachments(parsed: &mail_parser::Message<'_>) -> Vec<Attachment> {
    let parts = parsed.attachments().take(MAX_ENTRIES).enumerate();
    let of = |(number, part): (usize, &mail_parser::MessagePart<'_>)| Attachment {
        name: part.attachment_name().map_or_else(|| format!("attachment-{number}"), field),
        kind: part.content_type().map_or_else(String::new, |kind| {
            field(&format!("{}/{}", kind.ctype(), kind.subtype().unwrap_or("*")))
        }),
        octets: part.contents().len(),
    };
    parts.map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::submission::message::headers;

    fn message(data: &str) -> Message {
        Message {
            id: 1,
            received_at: Timestamp::UNIX_EPOCH,
            mailbox: "noreply@contoso.com".into(),
            sent_items: true,
            attribution: None,
            mail_from: "noreply@contoso.com".into(),
            mail_parameters: Vec::new(),
            recipients: vec![Recipient { address: "ada@example.com".into(), parameters: Vec::new() }],
            message_id: "<one@contoso.com>".into(),
            headers: headers(data.as_bytes()),
            data: data.as_bytes().to_vec(),
            token: TokenClaims::default(),
            connection: ConnectionFacts::default(),
        }
    }

    const MIXED: &str = "From: =?utf-8?q?Caf=C3=A9?= <noreply@contoso.com>\r\nTo: Ada <ada@example.com>, Bob\r\n \
        <bob@example.com>\r\nSubject: =?utf-8?q?Gr=C3=BC=C3=9Fe?=\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\n\
        MIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: multipart/alternative; \
        boundary=a\r\n\r\n--a\r\nContent-Type: text/plain; charset=iso-8859-1\r\nContent-Transfer-Encoding: \
        quoted-printable\r\n\r\nSch=F6nen Gru=DF\r\n--a\r\nContent-Type: text/html\r\n\r\n<p>Hello \
        <a href=\"https://shop.example/\">shop</a></p>\r\n--a--\r\n--m\r\nContent-Type: application/pdf\r\n\
        Content-Disposition: attachment; filename=\"bill.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n--m--\r\n";

    #[test]
    fn a_message_is_read_as_a_person_reads_it() {
        let reading = Reading::of(&message(MIXED), None);
        assert_eq!((reading.subject.as_str(), reading.from[0].name.as_str()), ("Grüße", "Café"));
        assert_eq!(reading.to.len(), 2);
        assert_eq!(reading.to[1], Person { name: "Bob".into(), address: "bob@example.com".into() });
        assert_eq!(reading.date.as_deref(), Some("2026-11-21T10:00:00Z"));
        assert!(reading.text.unwrap().contains("Schönen Gruß"));
        assert!(reading.html);
        assert_eq!(reading.links, ["https://shop.example/"]);
        let attachment = &reading.attachments[0];
        assert_eq!(
            (attachment.name.as_str(), attachment.kind.as_str(), attachment.octets),
            ("bill.pdf", "application/pdf", 4)
        );
    }

    #[test]
    fn a_message_with_html_alone_has_its_text() {
        let reading = Reading::of(&message("Content-Type: text/html\r\n\r\n<p>Hello</p>\r\n"), None);
        assert!(reading.html && reading.text.unwrap().contains("Hello"));
    }

    #[test]
    fn a_line_of_the_list_has_decoded_names() {
        let summary = Summary::of(&message(MIXED));
        assert_eq!((summary.from.as_str(), summary.subject.as_str()), ("Café", "Grüße"));
        assert_eq!(Summary::of(&message("\r\nno header\r\n")).from, "noreply@contoso.com");
    }

    #[test]
    fn every_word_is_searched_for_in_all_that_is_shown() {
        let message = message(MIXED);
        let words = |text: &str| text.split(' ').map(str::to_owned).collect::<Vec<_>>();
        for found in ["grüße", "café", "schönen gruß", "bob@example.com", "one@contoso.com ada"] {
            assert!(contains(&message, &words(found)), "{found}");
        }
        assert!(!contains(&message, &words("grüße nowhere")));
    }

    #[test]
    fn text_is_cut_between_characters() {
        assert_eq!(cut("aé", 2), ("a", true));
        assert_eq!(cut("aé", 3), ("aé", false));
        let long = Reading::of(&message(&format!("Subject: a\r\n\r\n{}", "é".repeat(MAX_TEXT))), None);
        assert!(long.text_cut && long.text.unwrap().len() <= MAX_TEXT);
    }

    #[test]
    fn anything_can_be_read() {
        for data in [
            "",
            "\r\n",
            "Subject",
            "Content-Type: multipart/mixed; boundary=\r\n\r\n--\r\n",
            "From: @\r\n\r\n",
        ] {
            let message = message(data);
            Summary::of(&message);
            Reading::of(&message, None);
            contains(&message, &["word".to_owned()]);
        }
    }
}
