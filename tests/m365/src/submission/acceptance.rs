//! The end of data: whether the message is accepted, and the record of it.
//!
//! The verdict is pure. Its order is Exchange's as far as it is known: what the front end can see in the bytes, then the
//! mailbox's state and limits, then SendAs (which is why a wrong sender is only refused after DATA).

use jiff::Timestamp;

use super::{
    authentication::Login,
    communication_services,
    data::Content,
    high_volume_email,
    message::{addresses, all, careless_fields, header_block, headers},
    session::{Peer, Session, Step, Turn},
    transaction::Transaction,
};
use crate::{
    config::Limits,
    directory::Tenant,
    limits::Usage,
    mailbox::{Face, Header, Message, Recipient, TokenClaims},
    relay::attribution::{Attribution, By},
    replies::Line,
    tenant_limits,
    violations::Kind,
};

/// `MaxHopCount` of a receive connector.
const MAX_RECEIVED: usize = 30;

/// `MaxHeaderSize` of a receive connector, bytes.
const MAX_HEADER: usize = 256 * 1024;

/// Why a message is refused: the reply, its blanks, and the breach when the client is to blame.
#[derive(Debug)]
pub(crate) struct Refused {
    pub line: Line,
    /// The sender that may not be used.
    sender: String,
    pub breach: Option<(Kind, String)>,
}

impl Session {
    pub(super) fn accept(&mut self, turn: &mut Turn<'_>, content: Content) {
        let (Some(transaction), Some(login)) = (self.transaction.take(), self.login.clone()) else { return };
        let fields = read_headers(turn, &content);
        for (kind, detail) in careless(turn, &transaction, &content, &fields) {
            turn.violation(self, kind, detail);
        }
        let face = self.peer.facts.face;
        let verdict = match face {
            Face::HighVolumeEmail => {
                high_volume_email::verdict(turn, &transaction, &login, &content, &fields)
            }
            Face::CommunicationServices => {
                communication_services::verdict(turn, &transaction, &login, &content, &fields)
            }
            _ => self.verdict(turn, &transaction, &login, &content, &fields),
        };
        if let Err(refused) = verdict {
            if let Some((kind, detail)) = refused.breach {
                turn.violation(self, kind, detail);
            }
            let blanks = [("mailbox", login.mailbox.as_str()), ("sender", refused.sender.as_str())];
            self.say_with(turn, refused.line.text(), &blanks);
            return;
        }
        let attribution = Attribution { tenant: login.token.tenant.clone(), by: By::Login, connector: None };
        let sender = (login.mailbox, login.token);
        let octets = content.length;
        let mut message = record(turn, &self.peer, transaction, sender, attribution, content, fields);
        message.sent_items = face == Face::Submission;
        let id = message.message_id.clone();
        self.keep(turn, message, octets);
        self.say_with(turn, Line::Accepted.text(), &[("id", &id)]);
    }

    /// Keeps an accepted message.
    pub(crate) fn keep(&self, turn: &mut Turn<'_>, message: Message, octets: usize) {
        tracing::info!(
            connection = self.id(),
            mailbox = message.mailbox,
            recipients = message.recipients.len(),
            bytes = octets,
            message_id = message.message_id,
            "accepted"
        );
        turn.office.keep(message, octets);
        let time = turn.office.config.pace.message_milliseconds;
        if time > 0 {
            turn.steps.push(Step::Wait(time));
        }
    }

    fn verdict(
        &self,
        turn: &mut Turn<'_>,
        transaction: &Transaction,
        login: &Login,
        content: &Content,
        fields: &[Header],
    ) -> Result<(), Refused> {
        let office = &mut *turn.office;
        let limits = office.config.limits.clone();
        let Some((tenant, mailbox)) = office.config.directory.mailbox(&login.mailbox) else {
            return Err(Refused::by(Line::TemporaryServerError));
        };
        let largest = mailbox.max_send_bytes.unwrap_or(limits.message_bytes).min(limits.advertised_size);
        check_bytes(transaction, content, largest)?;
        if office.config.record.inspect {
            check_fields(content, fields)?;
        }
        if !office.usage.enter(&mailbox.address, self.id(), &limits) {
            return Err(Refused::breach(
                Line::ConcurrentConnections,
                Kind::SubmittingConnections,
                format!(
                    "more than {} connections of the mailbox are submitting",
                    limits.submitting_connections
                ),
            ));
        }
        if office.usage.is_barred(&mailbox.address, turn.now) {
            return Err(Refused::by(Line::ThrottledSendAsDenied));
        }
        if let Some(sender) = first_denied(transaction, fields, |address| mailbox.may_send_as(address)) {
            office.usage.record_error(&mailbox.address, &limits, turn.now);
            return Err(Refused::sender(Line::SendAsDenied, sender));
        }
        within_tenant_limits(&mut office.usage, &limits, tenant, transaction, fields, turn.now)?;
        if !office.usage.spend_recipients(&mailbox.address, transaction.recipients.len(), &limits, turn.now) {
            let detail = format!("more than {} recipients in a day", limits.recipients_per_day);
            return Err(Refused::breach(Line::SubmissionQuotaExceeded, Kind::RecipientsPerDay, detail));
        }
        Ok(())
    }
}

impl Refused {
    pub fn by(line: Line) -> Self {
        Self { line, sender: String::new(), breach: None }
    }

    pub fn breach(line: Line, kind: Kind, detail: impl Into<String>) -> Self {
        Self { breach: Some((kind, detail.into())), ..Self::by(line) }
    }

    /// A sender that may not be used.
    pub fn sender(line: Line, sender: String) -> Self {
        Self { sender, ..Self::by(line) }
    }
}

/// The fields of the header, unless nothing is looked at.
pub(crate) fn read_headers(turn: &Turn<'_>, content: &Content) -> Vec<Header> {
    if turn.office.config.record.inspect { headers(&content.bytes) } else { Vec::new() }
}

/// What can be seen in the bytes: size, line ends, NUL.
pub(crate) fn check_bytes(
    transaction: &Transaction,
    content: &Content,
    largest: usize,
) -> Result<(), Refused> {
    if content.length > largest {
        let detail = format!("{} bytes, over {largest}", content.length);
        return Err(Refused::breach(Line::MessageTooLarge, Kind::MessageSize, detail));
    }
    let forbidden = [
        (content.bare_lf, Kind::BareLineFeed, "a bare line feed in the message"),
        (content.bare_cr, Kind::BareCarriageReturn, "a bare carriage return in the message"),
        (content.nul, Kind::NulByte, "a NUL in the message"),
    ];
    match forbidden.into_iter().find(|(seen, ..)| *seen && !transaction.is_binary()) {
        Some((_, kind, detail)) => Err(Refused::breach(Line::InvalidCharacters, kind, detail)),
        None => Ok(()),
    }
}

/// What can be seen in the header.
pub(crate) fn check_fields(content: &Content, fields: &[Header]) -> Result<(), Refused> {
    if header_block(&content.bytes).len() > MAX_HEADER {
        return Err(Refused::by(Line::HeaderTooLarge));
    }
    if all(fields, "Received").count() > MAX_RECEIVED {
        return Err(Refused::by(Line::HopCount));
    }
    let from: Vec<String> = all(fields, "From").flat_map(addresses).collect();
    if from.is_empty() || all(fields, "From").count() > 1 {
        return Err(Refused::by(Line::FromInvalid));
    }
    let sender: Vec<String> = all(fields, "Sender").flat_map(addresses).collect();
    if from.len() > 1 && sender.len() != 1 {
        return Err(Refused::by(Line::MultipleFrom));
    }
    Ok(())
}

/// The first sender, of envelope or header, that the login may not use. The null path belongs to nobody.
pub(super) fn first_denied(
    transaction: &Transaction,
    fields: &[Header],
    may_send_as: impl Fn(&str) -> bool,
) -> Option<String> {
    let envelope = Some(transaction.sender.address.clone()).filter(|address| !address.is_empty());
    let from = all(fields, "From").flat_map(addresses);
    envelope.into_iter().chain(from).find(|address| !may_send_as(address))
}

/// Counts the external recipients of a message against its tenant's limits.
///
/// # Errors
/// One of them is used up.
pub(crate) fn within_tenant_limits(
    usage: &mut Usage,
    limits: &Limits,
    tenant: &Tenant,
    transaction: &Transaction,
    fields: &[Header],
    now: Timestamp,
) -> Result<(), Refused> {
    let from: Vec<String> = all(fields, "From").flat_map(addresses).collect();
    let senders: Vec<&str> =
        std::iter::once(&transaction.sender.address).chain(&from).map(String::as_str).collect();
    let recipients: Vec<&str> = transaction.recipients.iter().map(|path| path.address.as_str()).collect();
    tenant_limits::spend(usage, limits, tenant, &senders, &recipients, now)
        .map_err(|(line, kind, detail)| Refused::breach(line, kind, detail))
}

/// What Exchange forgives or repairs, but a careful client does not do.
pub(crate) fn careless(
    turn: &Turn<'_>,
    transaction: &Transaction,
    content: &Content,
    fields: &[Header],
) -> Vec<(Kind, String)> {
    if !turn.office.config.record.inspect {
        return Vec::new();
    }
    let mut found = careless_fields(fields);
    let mut note = |seen: bool, kind: Kind, detail: String| {
        if seen {
            found.push((kind, detail));
        }
    };
    note(content.not_stuffed, Kind::NotDotStuffed, "a line began with a dot that was not doubled".into());
    let eight_bit = content.eight_bit && !transaction.is_eight_bit();
    note(eight_bit, Kind::EightBitData, "bytes above 127 in a message without BODY=8BITMIME".into());
    found
}

/// The message as it is kept; `sender` is the mailbox and what is known of its login.
pub(crate) fn record(
    turn: &mut Turn<'_>,
    peer: &Peer,
    transaction: Transaction,
    (mailbox, token): (String, TokenClaims),
    attribution: Attribution,
    content: Content,
    headers: Vec<Header>,
) -> Message {
    turn.office.accepted += 1;
    let (id, now, host) = (turn.office.accepted, turn.now, &peer.host);
    let given = all(&headers, "Message-ID").next().filter(|id| id.starts_with('<')).map(str::to_owned);
    let recipient =
        |path: super::command::Path| Recipient { address: path.address, parameters: path.parameters };
    Message {
        id,
        received_at: now,
        mailbox,
        sent_items: false,
        attribution: Some(attribution),
        mail_from: transaction.sender.address,
        mail_parameters: transaction.sender.parameters,
        recipients: transaction.recipients.into_iter().map(recipient).collect(),
        message_id: given
            .unwrap_or_else(|| format!("<{host}{:x}{id:04x}@{host}.PROD.OUTLOOK.COM>", now.as_millisecond())),
        headers,
        data: content.bytes,
        token,
        connection: peer.facts.clone(),
    }
}
