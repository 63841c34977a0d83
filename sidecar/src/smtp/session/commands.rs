//! What each command does to a [`Session`]: which are taken when, and what they are answered.

use std::sync::Arc;

use super::{Client, Phase, Session, Step};
use crate::message::envelope::{Address, ReversePath};
use crate::smtp::answer::Answer;
use crate::smtp::auth::{self, Auth, Gathering, Next};
use crate::smtp::command::{Command, CommandError, Mail};
use crate::smtp::header::Headers;
use crate::smtp::senders::Judgement;
use crate::smtp::trace::Protocol;
use crate::smtp::transaction::{Incoming, Settings, StartTls, Transaction};

impl Session {
    pub(super) fn command(&mut self, line: &[u8]) -> Option<Step> {
        let behind_data = std::mem::take(&mut self.behind_data);
        let command = match Command::parse(line) {
            Ok(command) => command,
            // A client that does not double dots: its message ended at a line with one dot, and this is the rest.
            Err(CommandError::Unrecognised) if behind_data && !line.is_empty() => {
                self.answer(Answer::HalfMessage);
                return None;
            }
            Err(error) => {
                self.behind_data = behind_data && line.is_empty();
                self.malformed(error);
                return None;
            }
        };
        match command {
            Command::Ehlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::Mail(mail) => self.mail(mail),
            Command::Rcpt(address) => self.rcpt(address),
            Command::Data => return self.begin_data(),
            Command::Rset => {
                self.reset();
                self.answer(Answer::Ok);
            }
            Command::Noop => self.answer(Answer::Ok),
            Command::Quit => self.answer(Answer::Bye),
            Command::Vrfy => self.answer(Answer::CannotVerify),
            Command::Help => self.answer(Answer::Help),
            Command::Expn => self.answer(Answer::NoExpand),
            Command::StartTls => self.start_tls(),
            Command::Auth(request) => self.auth(request, auth::initial_response(line)),
            Command::Bdat => self.answer(Answer::NoChunking),
            Command::Http => self.answer(Answer::NotSmtp),
        }
        None
    }

    fn malformed(&mut self, error: CommandError) {
        if let (Phase::Sender { refused_any, .. }, CommandError::Recipient(_)) = (&mut self.phase, error) {
            *refused_any = true;
        }
        self.answer(error.into());
    }

    /// EHLO and HELO also reset (RFC 5321 §4.1.4).
    fn hello(&mut self, name: String, extended: bool) {
        self.client = Some(Client { name, extended });
        self.reset();
        let Settings { host_name, max_message_bytes, .. } = &*self.settings;
        let offers_auth = self.settings.auth == Auth::Ignored || self.verifies();
        let auth = if offers_auth { format!("250-{}\r\n", auth::OFFERED) } else { String::new() };
        let offers_tls = self.settings.start_tls == StartTls::Offered && !self.tls;
        let start_tls = if offers_tls { "250-STARTTLS\r\n" } else { "" };
        let text = if extended {
            format!(
                "250-{host_name}\r\n250-SIZE {max_message_bytes}\r\n250-PIPELINING\r\n250-8BITMIME\r\n\
                 250-SMTPUTF8\r\n{start_tls}{auth}250 ENHANCEDSTATUSCODES\r\n"
            )
        } else {
            format!("250 {host_name}\r\n")
        };
        self.output.extend_from_slice(text.as_bytes());
    }

    fn reset(&mut self) {
        self.phase = if self.client.is_some() { Phase::Greeted } else { Phase::Fresh };
    }

    fn auth(&mut self, request: auth::Request, response: &[u8]) {
        let (next, mut gathering) = (self.auth_begins(request), Gathering::default());
        let next = if self.verifies() { gathering.gather(next, response) } else { next };
        self.auth_goes_on(next, gathering);
    }

    fn auth_begins(&self, request: auth::Request) -> Next {
        match (&self.phase, &self.client, self.settings.auth) {
            (_, _, Auth::Off) => Next::Over(Answer::NoAuth),
            (_, _, Auth::Verified { .. }) if !self.tls => Next::Over(self.without_tls(Answer::TlsForAuth)),
            (Phase::Greeted, Some(Client { extended: true, .. }), _) if self.logged_in => {
                Next::Over(Answer::AuthGiven)
            }
            (Phase::Greeted, Some(Client { extended: true, .. }), _) => request.begin(),
            (Phase::Fresh | Phase::Greeted, _, _) => Next::Over(Answer::HelloFirst),
            _ => Next::Over(Answer::AuthTooLate),
        }
    }

    fn mail(&mut self, mut mail: Mail) {
        let answer = match (&self.phase, &self.client) {
            (Phase::Greeted, Some(_)) if self.is_stranger() => self.login_first(),
            (Phase::Greeted, Some(_)) if self.throttled => Answer::TooManyMessages,
            (Phase::Greeted, Some(_))
                if mail.size.is_some_and(|size| size > self.settings.max_message_bytes) =>
            {
                Answer::TooLarge
            }
            (Phase::Greeted, Some(_))
                if mail.reverse_path == ReversePath::Null && !self.settings.null_sender =>
            {
                Answer::NullSender
            }
            (Phase::Greeted, Some(client)) => {
                let (settings, mailbox) = self.settings_for(&mail.reverse_path);
                match settings.senders.judge_reverse_path(&mail.reverse_path) {
                    Judgement::Refused(who) => {
                        return self.answer_as(
                            Answer::SenderNotAllowed,
                            &Answer::SenderNotAllowed.reply_about(&who),
                        );
                    }
                    judgement => {
                        if judgement == Judgement::Rewrite {
                            mail.reverse_path = settings.senders.substitute();
                        }
                        let protocol = self.protocol(client, mail.smtp_utf8);
                        let transaction =
                            Transaction { mailbox, ..client.transaction(mail, protocol, settings) };
                        let transaction = Box::new(transaction);
                        self.transactions += 1;
                        self.phase = Phase::Sender { transaction, refused_any: false };
                        Answer::SenderOk
                    }
                }
            }
            (Phase::Fresh, _) | (_, None) => Answer::HelloFirst,
            _ => Answer::SenderGiven,
        };
        self.answer(answer);
    }

    /// The settings for the mail of a sender, and the mailbox that sends it where there are several.
    fn settings_for(&self, sender: &ReversePath) -> (Arc<Settings>, Option<Address>) {
        match self.settings.mailboxes.as_ref().and_then(|mailboxes| mailboxes.choose(sender)) {
            Some(choice) => (Arc::clone(choice.settings), Some(choice.mailbox.clone())),
            None => (Arc::clone(&self.settings), None),
        }
    }

    fn rcpt(&mut self, address: Address) {
        let transaction = match &mut self.phase {
            Phase::Sender { transaction, .. } | Phase::Recipients(transaction) => transaction,
            Phase::Fresh => return self.answer(Answer::HelloFirst),
            _ => return self.answer(Answer::SenderFirst),
        };
        let admitted = transaction.admit(&address);
        match (admitted, &mut self.phase) {
            (Err((answer, detail)), phase) => {
                if let Phase::Sender { refused_any, .. } = phase {
                    *refused_any = true;
                }
                if answer == Answer::RecipientNotListed {
                    self.unlisted = Some(address);
                }
                let reply = if detail.is_empty() { answer.reply() } else { answer.reply_about(&detail) };
                self.answer_as(answer, &reply);
            }
            (Ok(()), phase) => {
                *phase = match std::mem::replace(phase, Phase::Greeted) {
                    Phase::Sender { mut transaction, .. } | Phase::Recipients(mut transaction) => {
                        transaction.add(address);
                        Phase::Recipients(transaction)
                    }
                    phase => phase,
                };
                self.answer(Answer::RecipientOk);
            }
        }
    }

    fn begin_data(&mut self) -> Option<Step> {
        let answer = match std::mem::replace(&mut self.phase, Phase::Greeted) {
            Phase::Recipients(transaction) => {
                self.phase = Phase::Body(Box::new(Incoming::new(transaction)));
                self.answer(Answer::StartData);
                return Some(Step::Begin);
            }
            phase => {
                let answer = match &phase {
                    Phase::Fresh => Answer::HelloFirst,
                    Phase::Sender { refused_any: true, .. } => Answer::NoValidRecipient,
                    Phase::Sender { .. } => Answer::RecipientFirst,
                    _ => Answer::SenderFirst,
                };
                self.phase = phase;
                answer
            }
        };
        self.answer(answer);
        None
    }
}

impl Client {
    fn transaction(&self, mail: Mail, protocol: Protocol, settings: Arc<Settings>) -> Transaction {
        Transaction {
            settings,
            client_name: self.name.clone(),
            protocol,
            reverse_path: mail.reverse_path,
            mailbox: None,
            recipients: Vec::new(),
            redirected: Vec::new(),
            body: mail.body,
            smtp_utf8: mail.smtp_utf8,
            size: mail.size,
            headers: Headers::default(),
            repaired: false,
        }
    }
}
