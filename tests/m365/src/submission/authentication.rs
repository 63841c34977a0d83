//! AUTH: XOAUTH2 in one line or two, LOGIN with a password, and why a login is refused.
//!
//! The verdicts are pure. Tokens and passwords are looked at and forgotten.

use base64::{Engine, engine::general_purpose::STANDARD};
use jiff::Timestamp;

use super::{
    communication_services, high_volume_email,
    session::{Phase, Session, Step, Turn},
    xoauth2::{self, Credentials},
};
use crate::{
    directory::{BasicAuth, Mailbox, Tenant},
    entra::{Credential, token::TokenError},
    mailbox::{Face, TokenClaims},
    office::Office,
    replies::Line,
    violations::Kind,
};

/// Base64 of `Username:` and `Password:`, the prompts of AUTH LOGIN.
const USERNAME: &str = "334 VXNlcm5hbWU6";
const PASSWORD: &str = "334 UGFzc3dvcmQ6";

/// Google's way to say that a token is refused: `{"status":"400","schemes":"Bearer","scope":"https://mail.google.com/"}`.
const REFUSAL_CHALLENGE: &str =
    "334 eyJzdGF0dXMiOiI0MDAiLCJzY2hlbWVzIjoiQmVhcmVyIiwic2NvcGUiOiJodHRwczovL21haWwuZ29vZ2xlLmNvbS8ifQ==";

/// A successful login.
#[derive(Clone, Debug)]
pub struct Login {
    /// Primary address of the mailbox or account, or the SMTP username.
    pub mailbox: String,
    /// What the token said.
    pub token: TokenClaims,
}

/// What the client's next line answers.
#[derive(Debug)]
pub enum Challenge {
    /// The XOAUTH2 payload.
    Payload,
    /// The user name of AUTH LOGIN.
    Username,
    /// The password of AUTH LOGIN for this user.
    Password(String),
    /// The empty line after a refusal that came as a challenge.
    Refused(Line),
}

/// Why a login is refused: the reply, and the breach when the client is to blame.
pub type Denied = (Line, Option<(Kind, String)>);

/// Whether these credentials open the mailbox.
///
/// # Errors
/// The reply, and the breach when the client is to blame.
pub fn judge(office: &Office, credentials: &Credentials, now: Timestamp) -> Result<Login, Denied> {
    let resource = &office.config.tokens.resource;
    let claims = office.token_key.verify(&credentials.token, resource, now).map_err(|error| {
        let breach =
            matches!(error, TokenError::Expired { .. }).then(|| (Kind::ExpiredToken, error.to_string()));
        (Line::AuthUnsuccessful, breach)
    })?;
    let refused = |line| (line, None);
    let directory = &office.config.directory;
    let found = directory.mailbox(&credentials.user).filter(|(_, mailbox)| !mailbox.inactive);
    let (tenant, mailbox) = found.ok_or(refused(Line::AuthUnsuccessful))?;
    if let Some(line) = switched_off(tenant, mailbox) {
        return Err(refused(line));
    }
    let app =
        tenant.application(&claims.appid).filter(|app| tenant.id == claims.tid && app.may_open(mailbox));
    if app.is_none() {
        return Err(refused(Line::AuthUnsuccessful));
    }
    Ok(Login { mailbox: mailbox.address.clone(), token: claims.into() })
}

/// Whether this password opens the mailbox. What the tenant does with passwords is told before whether it is right.
///
/// # Errors
/// The reply.
fn judge_password(office: &Office, user: &str, password: &str) -> Result<Login, Line> {
    let directory = &office.config.directory;
    let domain = user.rsplit_once('@').map_or("", |(_, domain)| domain);
    let mailbox = directory.mailbox(user);
    let tenant = mailbox.map(|(tenant, _)| tenant).or_else(|| directory.tenant(domain));
    match tenant.ok_or(Line::CredentialsIncorrect)?.basic_auth {
        BasicAuth::Allowed => {}
        BasicAuth::Disabled => return Err(Line::BasicAuthDisabled),
        BasicAuth::Removed => return Err(Line::BasicAuthRemoved),
        BasicAuth::SecurityDefaults => return Err(Line::LockedBySecurityDefaults),
    }
    let (tenant, mailbox) = mailbox.ok_or(Line::CredentialsIncorrect)?;
    if let Some(line) = switched_off(tenant, mailbox) {
        return Err(line);
    }
    if !mailbox.password.as_ref().is_some_and(|right| right.is(password)) {
        return Err(Line::CredentialsIncorrect);
    }
    let token = TokenClaims {
        tenant: tenant.id.clone(),
        credential: Some(Credential::Password),
        ..TokenClaims::default()
    };
    Ok(Login { mailbox: mailbox.address.clone(), token })
}

/// The mailbox's switch wins over the tenant's; absent, it inherits.
fn switched_off(tenant: &Tenant, mailbox: &Mailbox) -> Option<Line> {
    match mailbox.smtp_auth_disabled {
        Some(true) => Some(Line::SmtpAuthDisabledMailbox),
        None if tenant.smtp_auth_disabled => Some(Line::SmtpAuthDisabledTenant),
        Some(false) | None => None,
    }
}

impl Session {
    pub(super) fn authenticate(&mut self, turn: &mut Turn<'_>, mechanism: &str, initial: Option<String>) {
        if self.peer.facts.face == Face::Relay {
            turn.violation(self, Kind::Protocol, "AUTH on port 25, where it is not offered");
            return self.refuse(turn, Line::UnknownMechanism);
        }
        if !self.is_secure() {
            turn.violation(self, Kind::AuthWithoutTls, "AUTH before STARTTLS");
            return self.refuse(turn, Line::UnknownMechanism);
        }
        if !self.is_greeted() {
            turn.violation(self, Kind::Protocol, "AUTH before EHLO");
            return self.refuse(turn, Line::HelloFirst);
        }
        if self.login.is_some() || self.failed_login.is_some() {
            turn.violation(self, Kind::RepeatedAuth, "AUTH again on the same connection");
        }
        if self.login.is_some() || self.transaction.is_some() {
            return self.refuse(turn, Line::BadSequence);
        }
        match (mechanism, initial) {
            ("XOAUTH2", Some(payload)) => self.log_in(turn, &payload),
            ("XOAUTH2", None) => self.challenge(turn, "334 ", Challenge::Payload),
            ("LOGIN", Some(user)) => self.ask_for_password(turn, &user),
            ("LOGIN", None) => self.challenge(turn, USERNAME, Challenge::Username),
            _ => self.refuse(turn, Line::UnknownMechanism),
        }
    }

    pub(super) fn answer(&mut self, turn: &mut Turn<'_>, challenge: Challenge, line: &str) {
        if line == "*" {
            return self.refuse(turn, Line::AuthCancelled);
        }
        match challenge {
            Challenge::Payload => self.log_in(turn, line),
            Challenge::Username => self.ask_for_password(turn, line),
            Challenge::Password(user) => self.log_in_with_password(turn, &user, line),
            Challenge::Refused(refusal) => {
                if !line.is_empty() {
                    turn.violation(
                        self,
                        Kind::MalformedXoauth2,
                        "the answer to an error challenge must be empty",
                    );
                }
                self.deny(turn, refusal);
            }
        }
    }

    fn log_in(&mut self, turn: &mut Turn<'_>, payload: &str) {
        let face = self.peer.facts.face;
        let verdict = match (xoauth2::parse(payload), face) {
            (Ok(given), Face::HighVolumeEmail) => high_volume_email::judge(turn.office, &given, turn.now),
            (Ok(given), Face::CommunicationServices) => {
                communication_services::judge(turn.office, &given, turn.now)
            }
            (Ok(given), _) => judge(turn.office, &given, turn.now),
            (Err(error), _) => {
                let names_the_fault = face == Face::HighVolumeEmail;
                let line = if names_the_fault { Line::InvalidXoauth2 } else { Line::AuthUnsuccessful };
                Err((line, Some((Kind::MalformedXoauth2, error.to_string()))))
            }
        };
        match verdict {
            Ok(login) => self.welcome(turn, login),
            Err((line, breach)) => {
                if let Some((kind, detail)) = breach {
                    turn.violation(self, kind, detail);
                }
                if turn.office.faults.of(face).is_some_and(|faults| faults.challenge_before_refusal) {
                    return self.challenge(turn, REFUSAL_CHALLENGE, Challenge::Refused(line));
                }
                self.deny(turn, line);
            }
        }
    }

    fn welcome(&mut self, turn: &mut Turn<'_>, login: Login) {
        tracing::info!(
            connection = self.id(),
            mailbox = login.mailbox,
            credential = ?login.token.credential,
            subject = login.token.assertion_subject,
            "logged in"
        );
        self.login = Some(login);
        self.failed_login = None;
        self.say(turn, Line::Authenticated);
    }

    fn ask_for_password(&mut self, turn: &mut Turn<'_>, user: &str) {
        match decoded(user) {
            Some(user) => self.challenge(turn, PASSWORD, Challenge::Password(user)),
            None => self.malformed_login(turn, "the user name is not text in base64"),
        }
    }

    fn log_in_with_password(&mut self, turn: &mut Turn<'_>, user: &str, password: &str) {
        let Some(password) = decoded(password) else {
            return self.malformed_login(turn, "the password is not text in base64");
        };
        let verdict = match self.peer.facts.face {
            Face::HighVolumeEmail => high_volume_email::judge_password(turn.office, user, &password),
            Face::CommunicationServices => {
                communication_services::judge_secret(turn.office, user, &password, turn.now)
            }
            _ => judge_password(turn.office, user, &password),
        };
        match verdict {
            Ok(login) => self.welcome(turn, login),
            Err(line) => self.deny(turn, line),
        }
    }

    fn malformed_login(&mut self, turn: &mut Turn<'_>, detail: &str) {
        turn.violation(self, Kind::MalformedLogin, detail);
        self.deny(turn, Line::CredentialsIncorrect);
    }

    fn deny(&mut self, turn: &mut Turn<'_>, line: Line) {
        let text = self.say_with(turn, line.text(), &[]);
        self.failed_login = Some(text);
    }

    fn challenge(&mut self, turn: &mut Turn<'_>, prompt: &str, challenge: Challenge) {
        turn.steps.push(Step::Send(format!("{prompt}\r\n").into_bytes()));
        self.phase = Phase::Challenge(challenge);
    }
}

fn decoded(text: &str) -> Option<String> {
    String::from_utf8(STANDARD.decode(text).ok()?).ok()
}
