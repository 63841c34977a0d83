//! MAIL, RCPT, DATA and BDAT: a message's envelope, up to the first byte of the message.
//!
//! Pure. The message itself is judged in `super::acceptance`.

use super::{
    command::Path,
    data::{Content, DataReader},
    service::Allowance,
    session::{Phase, Session, Step, Turn},
};
use crate::{
    config::OverRate, mailbox::Face, relay::attribution::Attribution, replies::Line, violations::Kind,
};

/// ESMTP parameters that EHLO announces (RFC 1870, 6152, 3030, 6531, 3461, 4954).
const MAIL_PARAMETERS: [&str; 6] = ["SIZE", "BODY", "SMTPUTF8", "RET", "ENVID", "AUTH"];
const RCPT_PARAMETERS: [&str; 2] = ["NOTIFY", "ORCPT"];

/// A message that is being submitted.
#[derive(Debug, Default)]
pub struct Transaction {
    /// MAIL.
    pub sender: Path,
    /// RCPT, in order.
    pub recipients: Vec<Path>,
    /// Chunks of BDAT so far.
    pub chunks: Content,
    /// The connector that the connection and MAIL match (port 25).
    pub attribution: Option<Attribution>,
    /// Whether a chunk came.
    pub chunked: bool,
}

impl Transaction {
    /// Whether the message may hold any bytes at all (`BODY=BINARYMIME`).
    #[must_use]
    pub fn is_binary(&self) -> bool {
        self.sender.parameter("BODY").is_some_and(|body| body.eq_ignore_ascii_case("BINARYMIME"))
    }

    /// Whether bytes above 127 were announced.
    #[must_use]
    pub fn is_eight_bit(&self) -> bool {
        self.is_binary()
            || self.sender.parameter("SMTPUTF8").is_some()
            || self.sender.parameter("BODY").is_some_and(|body| body.eq_ignore_ascii_case("8BITMIME"))
    }
}

impl Session {
    pub(super) fn mail(&mut self, turn: &mut Turn<'_>, path: Path) {
        if let Some((line, breach)) =
            self.out_of_order(self.transaction.is_some(), Line::SenderAlreadySpecified)
        {
            turn.violation(self, breach, "MAIL out of order");
            return self.refuse_mail(turn, line);
        }
        let size = Allowance::of(self.peer.facts.face, &turn.office.config).size;
        if let Some((line, breach, detail)) = refusal_of_sender(&path, size) {
            turn.violation(self, breach, detail);
            return self.refuse(turn, line);
        }
        match self.peer.facts.face {
            Face::Relay => return self.relay_mail(turn, path),
            Face::CommunicationServices => return self.communication_services_mail(turn, path),
            Face::Submission => {
                if !self.within_rate(turn) {
                    return;
                }
            }
            Face::HighVolumeEmail | Face::Graph => {}
        }
        self.transaction = Some(Transaction { sender: path, ..Transaction::default() });
        self.say(turn, Line::SenderOk);
    }

    pub(super) fn recipient(&mut self, turn: &mut Turn<'_>, path: Path) {
        let Some(transaction) = &self.transaction else {
            let breach = self.breach_of_order();
            turn.violation(self, breach, "RCPT without MAIL");
            return self.refuse(turn, Line::NeedMail);
        };
        if let Some((line, breach, detail)) = refusal_of_recipient(&path, transaction) {
            turn.violation(self, breach, detail);
            return self.refuse(turn, line);
        }
        if let Some((line, detail)) = self.too_many(turn, &path) {
            turn.violation(self, Kind::RecipientsPerMessage, detail);
            return self.say(turn, line);
        }
        let admitted = match self.peer.facts.face {
            Face::Relay => self.relay_admits(turn, &path),
            Face::HighVolumeEmail => self.internal_or_refused(turn, path.domain()),
            _ => true,
        };
        if !admitted {
            return;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.recipients.push(path);
        }
        self.say(turn, Line::RecipientOk);
    }

    pub(super) fn data(&mut self, turn: &mut Turn<'_>) {
        if !self.may_send_message(turn) {
            return;
        }
        if self.transaction.as_ref().is_some_and(|open| open.chunked || open.is_binary()) {
            turn.violation(self, Kind::Protocol, "DATA after BDAT or with BODY=BINARYMIME (RFC 3030)");
            return self.refuse(turn, Line::BadSequence);
        }
        let config = &turn.office.config;
        let keep = config.record.bytes_kept(config.limits.advertised_size);
        self.phase = Phase::Data(DataReader::new(keep));
        self.say(turn, Line::StartInput);
    }

    pub(super) fn chunk(&mut self, turn: &mut Turn<'_>, size: usize, last: bool) {
        if !self.may_send_message(turn) {
            // The chunk follows whatever the reply is; there is no way to tell it from commands but to read it.
            self.transaction = None;
            self.phase = Phase::Chunk { size, left: size, last, is_refused: true };
            return;
        }
        if let Some(transaction) = &mut self.transaction {
            transaction.chunked = true;
        }
        self.phase = Phase::Chunk { size, left: size, last, is_refused: false };
    }

    fn may_send_message(&mut self, turn: &mut Turn<'_>) -> bool {
        let line = match &self.transaction {
            None => Line::NeedMail,
            Some(open) if open.recipients.is_empty() => Line::NeedRcpt,
            Some(_) => {
                if let Some(login) = &self.login
                    && self.peer.facts.face == Face::Submission
                {
                    turn.office.usage.enter(&login.mailbox, self.peer.facts.id, &turn.office.config.limits);
                }
                return true;
            }
        };
        // With PIPELINING this is what follows when every recipient was refused; it is no breach.
        if line == Line::NeedMail {
            let breach = self.breach_of_order();
            turn.violation(self, breach, "DATA without MAIL");
        }
        self.refuse(turn, line);
        false
    }

    /// What an envelope out of order is: in the clear, where a login is needed, it is worse.
    fn breach_of_order(&self) -> Kind {
        let may_be_plain = self.is_secure() || self.peer.facts.face == Face::Relay;
        if may_be_plain { Kind::Protocol } else { Kind::MailWithoutTls }
    }

    /// The reply and breach when MAIL may not come now.
    fn out_of_order(&self, open: bool, already: Line) -> Option<(Line, Kind)> {
        if !self.is_greeted() {
            Some((Line::HelloFirst, Kind::Protocol))
        } else if self.peer.facts.face == Face::Relay {
            open.then_some((already, Kind::Protocol))
        } else if !self.is_secure() {
            Some((Line::NotAuthenticated, Kind::MailWithoutTls))
        } else if self.login.is_none() {
            Some((Line::NotAuthenticated, Kind::MailWithoutAuth))
        } else {
            open.then_some((already, Kind::Protocol))
        }
    }

    /// 530 quotes the login that failed before.
    fn refuse_mail(&mut self, turn: &mut Turn<'_>, line: Line) {
        match (&self.failed_login, line) {
            (Some(failure), Line::NotAuthenticated) => {
                let failure = failure.clone();
                self.say_with(turn, Line::NotAuthenticatedAfter.text(), &[("failure", &failure)]);
            }
            _ => self.refuse(turn, line),
        }
    }

    fn within_rate(&mut self, turn: &mut Turn<'_>) -> bool {
        let Some(login) = &self.login else { return false };
        let limits = &turn.office.config.limits;
        let Err(free) = turn.office.usage.start_message(&login.mailbox, limits, turn.now) else {
            return true;
        };
        let over_rate = limits.over_rate;
        turn.violation(self, Kind::MessageRate, "more messages in a minute than the mailbox may send");
        match over_rate {
            OverRate::Refuse => {
                self.say(turn, Line::MessageRate);
                self.close(turn, Step::Close);
                false
            }
            OverRate::Delay => {
                let wait = free.duration_since(turn.now).as_millis();
                turn.steps.push(Step::Wait(u64::try_from(wait).unwrap_or(0)));
                true
            }
        }
    }

    fn too_many(&self, turn: &Turn<'_>, path: &Path) -> Option<(Line, String)> {
        let transaction = self.transaction.as_ref()?;
        let allowance = Allowance::of(self.peer.facts.face, &turn.office.config);
        let submission = self.peer.facts.face == Face::Submission;
        let login = self.login.as_ref().filter(|_| submission);
        let mailbox = login.and_then(|login| turn.office.config.directory.mailbox(&login.mailbox));
        let mailbox = mailbox.map(|(_, mailbox)| mailbox);
        let allowed = mailbox.and_then(|mailbox| mailbox.recipient_limit).unwrap_or(allowance.recipients);
        if transaction.recipients.len() >= allowed {
            return Some((Line::RecipientLimit, format!("more than {allowed} recipients in a message")));
        }
        let domain = path.domain();
        let of_domain =
            transaction.recipients.iter().filter(|known| known.domain().eq_ignore_ascii_case(domain)).count();
        let most = allowance.recipients_of_domain;
        (of_domain >= most)
            .then(|| (Line::TooManyRecipients, format!("more than {most} recipients of one domain")))
    }
}

type Refused = Option<(Line, Kind, String)>;

fn refusal_of_sender(path: &Path, max_size: usize) -> Refused {
    if let Some(unknown) = unknown_parameter(path, &MAIL_PARAMETERS) {
        return Some((Line::UnknownParameter, Kind::Protocol, format!("unknown MAIL parameter {unknown:?}")));
    }
    let body = path.parameter("BODY").map(str::to_ascii_uppercase);
    if body.is_some_and(|body| !["7BIT", "8BITMIME", "BINARYMIME"].contains(&body.as_str())) {
        return Some((
            Line::InvalidArguments,
            Kind::Protocol,
            "BODY is none of 7BIT, 8BITMIME, BINARYMIME".into(),
        ));
    }
    match path.parameter("SIZE").map(str::parse::<usize>) {
        Some(Err(_)) => return Some((Line::InvalidArguments, Kind::Protocol, "SIZE is no number".into())),
        Some(Ok(size)) if size > max_size => {
            return Some((
                Line::MessageTooLarge,
                Kind::MessageSize,
                format!("SIZE={size} is over {max_size}"),
            ));
        }
        _ => {}
    }
    needs_utf8(path, path)
}

fn refusal_of_recipient(path: &Path, transaction: &Transaction) -> Refused {
    if let Some(unknown) = unknown_parameter(path, &RCPT_PARAMETERS) {
        return Some((Line::UnknownParameter, Kind::Protocol, format!("unknown RCPT parameter {unknown:?}")));
    }
    needs_utf8(path, &transaction.sender)
}

fn needs_utf8(path: &Path, sender: &Path) -> Refused {
    (!path.address.is_ascii() && sender.parameter("SMTPUTF8").is_none()).then(|| {
        (Line::NeedsSmtpUtf8, Kind::EightBitCommand, "an international address without SMTPUTF8".into())
    })
}

fn unknown_parameter(path: &Path, known: &[&str]) -> Option<String> {
    path.parameters.iter().find_map(|parameter| {
        let name = parameter.split('=').next().unwrap_or_default();
        (!known.iter().any(|known| known.eq_ignore_ascii_case(name))).then(|| name.to_owned())
    })
}
