//! Conversations as text, and what is expected of them.
//!
//! ```text
//! # a comment
//! = size 4096          settings: `size`, `recipients`, `recipients-of-a-domain`, `recipient-domains a,b`,
//!                      `bare-line-ends Refuse`, `encode-header`, `auth`, `network` (logins are verified, and required with
//!                      `required`, under TLS), `certificate` and `no-certificate`, `mailbox a@b`, `allow a@b,*@c`, `rewrite`, `sender-domains a,b`,
//!                      `recipients-allow a@b,*@c`, `redirect-to a@b`, `header-is-envelope`, `remove NAME`, `set NAME=VALUE`;
//!                      `answer TEXT` is what is said about complete messages
//! = tls                shorthand for STARTTLS and EHLO
//! = ehlo               shorthand for greeting and EHLO; `mail` for MAIL, RCPT and DATA from <a@b.example>
//! C: NOOP              the client sends a line; `c:` the same without CR LF
//! S: 250 2.0.0 *       the server answers a line; `*` stands for any text
//! X:                   the server closes
//! M: <from> <to> …     a message is complete, with `8BITMIME` and `SMTPUTF8` where they apply …
//! H: From: a@b         … these lines that name people are put in front of it; without any `H:`, a `From` with the
//!                      envelope's sender if the message has none …
//! B: text              … and these are its lines; `B-` the same without CR LF
//! ```
//! Escapes: `\r \n \0 \t \\ \xHH`, and `{text*times}`.

use std::path::Path;
use std::sync::Arc;

use mailroute_route::file::{BareLineEnds, OnViolation};
use mailroute_sidecar::message::envelope::Address;
use mailroute_sidecar::smtp::auth::Auth;
use mailroute_sidecar::smtp::header::rules::{FieldRule, FieldRules};
use mailroute_sidecar::smtp::recipients::Recipients;
use mailroute_sidecar::smtp::transaction::{Settings, StartTls};

use super::core::Message;

pub const SENDER: &str = "<a@b.example>";
pub const RECIPIENT: &str = "<c@d.example>";

#[derive(Debug)]
pub struct Script {
    pub name: String,
    pub settings: Settings,
    pub answer: String,
    pub steps: Vec<Step>,
    pub messages: Vec<Message>,
    pub closes: bool,
    /// The lines of `H:`, for each message.
    added: Vec<Option<Vec<u8>>>,
}

#[derive(Debug)]
pub enum Step {
    Send(Vec<u8>),
    Expect(String),
}

impl Script {
    pub fn read(path: &Path) -> Self {
        let name = path.file_stem().unwrap().to_string_lossy().into_owned();
        let mut script = Self {
            name,
            settings: Settings::new("mail.example", 4096, 3),
            answer: "250 2.0.0 taken".into(),
            steps: Vec::new(),
            messages: Vec::new(),
            closes: false,
            added: Vec::new(),
        };
        for line in std::fs::read_to_string(path).unwrap().lines() {
            script.line(line);
        }
        for (message, given) in script.messages.iter_mut().zip(std::mem::take(&mut script.added)) {
            message.added = given.unwrap_or_else(|| from_of_envelope(message));
        }
        script
    }

    fn line(&mut self, line: &str) {
        let (key, rest) = line.split_at_checked(2).unwrap_or((line, ""));
        let text = rest.strip_prefix(' ').unwrap_or(rest);
        match key {
            "" | "# " => {}
            "= " => self.directive(rest),
            "C:" => self.steps.push(Step::Send([unescape(text), b"\r\n".to_vec()].concat())),
            "c:" => self.steps.push(Step::Send(unescape(text))),
            "S:" => self.steps.push(Step::Expect(text.into())),
            "X:" => self.closes = true,
            "M:" => {
                let envelope = String::from_utf8(unescape(text)).unwrap();
                self.messages.push(Message { envelope, added: Vec::new(), content: Vec::new() });
                self.added.push(None);
            }
            "H:" => {
                let added = self.added.last_mut().expect("M: before H:").get_or_insert_default();
                if !text.is_empty() {
                    added.extend([unescape(text), b"\r\n".to_vec()].concat());
                }
            }
            "B:" | "B-" => {
                let content = &mut self.messages.last_mut().expect("M: before B:").content;
                content.extend(unescape(text));
                content.extend_from_slice(if key == "B:" { b"\r\n" } else { b"" });
            }
            _ => panic!("{}: cannot read {line:?}", self.name),
        }
    }

    fn directive(&mut self, text: &str) {
        let (word, value) = text.split_once(' ').unwrap_or((text, ""));
        match word {
            "answer" => self.answer = value.into(),
            "ehlo" => {
                let is_longer =
                    self.settings.auth == Auth::Ignored || self.settings.start_tls == StartTls::Offered;
                let extensions = if is_longer { 7 } else { 6 };
                self.line("S: 220 *");
                self.line("C: EHLO app");
                (1..extensions).for_each(|_| self.line("S: 250-*"));
                self.line("S: 250 *");
            }
            "tls" => {
                for line in ["C: STARTTLS", "S: 220 2.0.0 *", "C: EHLO app"] {
                    self.line(line);
                }
                (1..7).for_each(|_| self.line("S: 250-*"));
                self.line("S: 250 *");
            }
            "mail" => {
                for line in
                    [&format!("C: MAIL FROM:{SENDER}"), "S: 250 *", &format!("C: RCPT TO:{RECIPIENT}")]
                {
                    self.line(line);
                }
                for line in ["S: 250 *", "C: DATA", "S: 354 *"] {
                    self.line(line);
                }
            }
            _ => self.setting(word, value),
        }
    }

    fn setting(&mut self, word: &str, value: &str) {
        let list = || value.split(',').map(Into::into).collect::<Vec<_>>();
        let rule = || Recipients { allow: vec![], redirect_to: None };
        let Settings { senders, recipients, fields, .. } = &mut self.settings;
        match word {
            "size" => self.settings.max_message_bytes = value.parse().unwrap(),
            "recipients" => self.settings.max_recipients = value.parse().unwrap(),
            "recipients-of-a-domain" => {
                self.settings.max_recipients_of_one_domain = Some(value.parse().unwrap());
            }
            "recipient-domains" => self.settings.recipient_domains = Some(list()),
            "bare-line-ends" if value == "Refuse" => self.settings.bare_line_ends = BareLineEnds::Refuse,
            "auth" => self.settings.auth = Auth::Ignored,
            "network" => self.settings.auth = Auth::Verified { required: value == "required" },
            "certificate" => self.settings.start_tls = StartTls::Offered,
            "no-certificate" => self.settings.start_tls = StartTls::Unavailable,
            "encode-header" => self.settings.encode_header = true,
            "mailbox" => senders.mailbox = Some(value.into()),
            "allow" => senders.allow = Some(list()),
            "sender-domains" => senders.domains = Some(list()),
            "recipients-allow" => recipients.get_or_insert_with(rule).allow = list(),
            "redirect-to" => {
                recipients.get_or_insert_with(rule).redirect_to = Address::parse(value).ok();
            }
            "remove" => rule_on(fields, value, None),
            "set" => {
                let (name, value) = value.split_once('=').unwrap();
                rule_on(fields, name, Some(value.into()));
            }
            "header-is-envelope" => self.settings.header_is_envelope = true,
            "rewrite" => senders.on_violation = OnViolation::Rewrite,
            _ => panic!("{}: unknown directive {word:?} {value:?}", self.name),
        }
    }

    /// Whether it takes more than a socket on localhost.
    pub fn is_of_network(&self) -> bool {
        self.settings.start_tls != StartTls::No
    }

    /// All that the client sends.
    pub fn input(&self) -> Vec<u8> {
        self.steps
            .iter()
            .flat_map(|step| if let Step::Send(octets) = step { octets.as_slice() } else { &[] })
            .copied()
            .collect()
    }

    /// All that the server is expected to send.
    pub fn expected(&self) -> Vec<&str> {
        self.steps
            .iter()
            .filter_map(|step| if let Step::Expect(line) = step { Some(line.as_str()) } else { None })
            .collect()
    }
}

fn rule_on(fields: &mut Arc<FieldRules>, name: &str, value: Option<Box<str>>) {
    *fields = Arc::new((**fields).clone().and(FieldRule { name: name.into(), value }));
}

/// The `From` that a message without one gets.
fn from_of_envelope(message: &Message) -> Vec<u8> {
    let header = message.content.split(|&b| b == b'\n').take_while(|line| line.contains(&b':'));
    let has_from = header.into_iter().any(|line| line.to_ascii_lowercase().starts_with(b"from:"));
    let sender = message.envelope.split("> ").next().unwrap().trim_start_matches('<');
    if has_from || sender.is_empty() { Vec::new() } else { format!("From: {sender}\r\n").into_bytes() }
}

/// Whether `text` is what `pattern` says, `*` standing for anything.
pub fn matches(pattern: &str, text: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == text,
        Some((front, rest)) => text.strip_prefix(front).is_some_and(|text| {
            (0..=text.len()).any(|at| text.is_char_boundary(at) && matches(rest, &text[at..]))
        }),
    }
}

fn unescape(text: &str) -> Vec<u8> {
    let mut octets = Vec::new();
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let (escaped, len) = match c {
            '\\' => escape(rest),
            '{' => repeat(rest),
            c => (c.to_string().into_bytes(), c.len_utf8()),
        };
        octets.extend(escaped);
        rest = &rest[len..];
    }
    octets
}

fn escape(text: &str) -> (Vec<u8>, usize) {
    match text.as_bytes().get(1) {
        Some(b'r') => (vec![b'\r'], 2),
        Some(b'n') => (vec![b'\n'], 2),
        Some(b't') => (vec![b'\t'], 2),
        Some(b'0') => (vec![0], 2),
        Some(b'\\') => (vec![b'\\'], 2),
        Some(b'x') => (vec![u8::from_str_radix(&text[2..4], 16).unwrap()], 4),
        other => panic!("unknown escape {other:?}"),
    }
}

/// `{text*times}`; anything else in braces stands for itself.
fn repeat(text: &str) -> (Vec<u8>, usize) {
    let inner = text[1..].split_once('}').map(|(inner, _)| inner);
    match inner.and_then(|inner| Some((inner, inner.rsplit_once('*')?))) {
        Some((inner, (what, times))) => (unescape(what).repeat(times.parse().unwrap()), inner.len() + 2),
        None => (vec![b'{'], 1),
    }
}
