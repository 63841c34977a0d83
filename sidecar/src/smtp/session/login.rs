//! STARTTLS (RFC 3207) and logins that are verified: what a [`Session`] asks its caller for, and what follows from the answer.
//!
//! Owns the order of the two: nothing that was learned before TLS is known after it, and credentials are taken under TLS alone.

use super::{Client, MAX_FAILED_LOGINS, Phase, Session, Step};
use crate::smtp::answer::Answer;
use crate::smtp::auth::{Auth, LoginResult};
use crate::smtp::line::LineReader;
use crate::smtp::trace::Protocol;
use crate::smtp::transaction::StartTls;

impl Session {
    /// TLS protects the connection now: the client begins anew.
    pub fn secured(&mut self) {
        self.tls = true;
        self.logged_in = false;
        self.client = None;
        self.line = LineReader::default();
        self.behind_data = false;
        self.phase = Phase::Fresh;
    }

    /// The client has sent something between STARTTLS and its reply. Somebody on the way may have put it there, for it to be taken as
    /// if it had come under TLS; so it is not looked at, and the session ends.
    pub fn refuse_tls(&mut self) {
        self.answer(Answer::TlsPipelined);
    }

    /// What came of the credentials of [`Step::Verify`].
    pub fn verified(&mut self, login: LoginResult) {
        self.phase = Phase::Greeted;
        match login {
            LoginResult::Accepted => {
                self.logged_in = true;
                self.answer(Answer::Authenticated);
            }
            LoginResult::Refused => {
                self.failed_logins += 1;
                self.answer(Answer::LoginRefused);
                if self.failed_logins >= MAX_FAILED_LOGINS && !matches!(self.phase, Phase::Closed) {
                    self.answer(Answer::TooManyLogins);
                }
            }
            LoginResult::Unavailable => self.answer(Answer::LoginUnavailable),
        }
    }

    /// Whether credentials are taken, and verified.
    pub(super) fn verifies(&self) -> bool {
        self.tls && matches!(self.settings.auth, Auth::Verified { .. })
    }

    /// Whether nobody has logged in who has to.
    pub fn is_stranger(&self) -> bool {
        self.settings.auth == Auth::Verified { required: true } && !(self.tls && self.logged_in)
    }

    /// What a stranger is told.
    pub(super) fn login_first(&self) -> Answer {
        if self.tls { Answer::LoginFirst } else { self.without_tls(Answer::TlsFirst) }
    }

    /// What a client is told that has to start TLS: `first`, unless it cannot.
    pub(super) fn without_tls(&self, first: Answer) -> Answer {
        if self.settings.start_tls == StartTls::Offered { first } else { Answer::NoTls }
    }

    pub(super) fn start_tls(&mut self) {
        match (self.settings.start_tls, &self.phase) {
            (StartTls::No, _) => self.answer(Answer::NoStartTls),
            _ if self.tls => self.answer(Answer::TlsActive),
            (StartTls::Unavailable, _) => self.answer(Answer::NoTls),
            (StartTls::Offered, Phase::Greeted) => self.phase = Phase::StartTls,
            (StartTls::Offered, Phase::Fresh) => self.answer(Answer::HelloFirst),
            (StartTls::Offered, _) => self.answer(Answer::TlsTooLate),
        }
    }

    /// Asks the caller for what the session cannot do. When it does not answer, the session goes on without.
    pub(super) fn wait_for_caller(&mut self) -> Option<Step> {
        match std::mem::replace(&mut self.phase, Phase::Greeted) {
            Phase::Login(credentials) => {
                self.phase = Phase::Verifying;
                Some(Step::Verify(credentials))
            }
            Phase::StartTls => {
                self.phase = Phase::Handshake;
                Some(Step::StartTls(Answer::StartTls.reply().to_string().into_bytes()))
            }
            Phase::Verifying => {
                self.verified(LoginResult::Unavailable);
                None
            }
            Phase::Handshake => {
                self.end(Answer::NoTls);
                None
            }
            phase => {
                self.phase = phase;
                None
            }
        }
    }

    /// How a message of this client comes in.
    pub(super) const fn protocol(&self, client: &Client, smtp_utf8: bool) -> Protocol {
        match (client.extended || smtp_utf8, smtp_utf8, self.tls, self.tls && self.logged_in) {
            (false, ..) => Protocol::Smtp,
            (true, false, false, _) => Protocol::Esmtp,
            (true, false, true, false) => Protocol::EsmtpS,
            (true, false, true, true) => Protocol::EsmtpSa,
            (true, true, false, _) => Protocol::Utf8Smtp,
            (true, true, true, false) => Protocol::Utf8SmtpS,
            (true, true, true, true) => Protocol::Utf8SmtpSa,
        }
    }
}
