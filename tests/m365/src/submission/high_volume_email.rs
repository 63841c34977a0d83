//! High Volume Email: who may log in, to whom and as whom it sends.
//!
//! The verdicts are pure. Sources: Exchange, "Manage high volume emails for Microsoft 365", its OAuth page and
//! `Add-HVEAppAccess`; the reply to a token that ends soon as sasl-xoauth2 and other clients met it.

use jiff::Timestamp;

use super::{
    acceptance::{Refused, check_bytes, check_fields, first_denied},
    authentication::{Denied, Login},
    data::Content,
    service::Allowance,
    session::{Session, Turn},
    transaction::Transaction,
    xoauth2::Credentials,
};
use crate::{
    config::{EndingToken, RefusedAt},
    directory::BasicAuth,
    entra::{Credential, token::TokenError},
    mailbox::{Face, Header, TokenClaims},
    office::Office,
    replies::Line,
    violations::Kind,
};

/// Whether these credentials open the account.
///
/// # Errors
/// The reply, and the breach when the client is to blame.
pub(super) fn judge(office: &Office, credentials: &Credentials, now: Timestamp) -> Result<Login, Denied> {
    let settings = &office.config.high_volume_email;
    let by = |line| (line, None);
    if !credentials.user.contains('@') {
        return Err((Line::InvalidXoauth2, Some((Kind::MalformedXoauth2, "the user is no address".into()))));
    }
    let claims =
        office.token_key.verify(&credentials.token, &settings.resource, now).map_err(
            |error| match error {
                TokenError::Expired { .. } => {
                    (Line::TokenExpired, Some((Kind::ExpiredToken, error.to_string())))
                }
                TokenError::Foreign | TokenError::Audience => by(Line::AuthUnsuccessful),
            },
        )?;
    let margin = i64::try_from(settings.token_margin_seconds).unwrap_or(i64::MAX);
    if claims.exp.saturating_sub(now.as_second()) < margin {
        let line = match settings.ending_token {
            EndingToken::InvalidData => Line::TokenEndsWithinMinutes,
            EndingToken::ExpiresSoon => Line::TokenExpiresSoon,
        };
        let detail = format!("the token ends in less than {margin} seconds");
        return Err((line, Some((Kind::ExpiredToken, detail))));
    }
    if !claims.roles.iter().any(|role| role == "Mail.Send") {
        return Err(by(Line::TokenPermissions));
    }
    let tenant = office.config.directory.tenant(&claims.tid);
    let account = tenant.and_then(|tenant| tenant.high_volume_email_account(&credentials.user));
    let account = account.ok_or(by(Line::AuthUnsuccessful))?;
    let app = tenant.and_then(|tenant| tenant.application(&claims.appid));
    if !app.is_some_and(|app| account.admits(app)) {
        return Err(by(Line::ApplicationNotAllowed));
    }
    Ok(Login { mailbox: account.address.clone(), token: claims.into() })
}

/// Whether this password opens the account. The tenant's switches for client submission do not matter; security defaults do.
///
/// # Errors
/// The reply.
pub(super) fn judge_password(office: &Office, user: &str, password: &str) -> Result<Login, Line> {
    let tenants = &office.config.directory.tenants;
    let found = tenants.iter().find_map(|tenant| Some((tenant, tenant.high_volume_email_account(user)?)));
    let (tenant, account) = found.ok_or(Line::CredentialsIncorrect)?;
    if tenant.basic_auth == BasicAuth::SecurityDefaults {
        return Err(Line::OrganizationDisallows);
    }
    if !account.password.as_ref().is_some_and(|right| right.is(password)) {
        return Err(Line::CredentialsIncorrect);
    }
    let credential = Some(Credential::Password);
    let token = TokenClaims { tenant: tenant.id.clone(), credential, ..TokenClaims::default() };
    Ok(Login { mailbox: account.address.clone(), token })
}

/// Whether the recipient is of another organisation than the account.
fn is_external(office: &Office, login: &Login, domain: &str) -> bool {
    let tenant = office.config.directory.tenant(&login.token.tenant);
    !tenant.is_some_and(|tenant| tenant.accepts_domain(domain))
}

impl Session {
    /// Whether High Volume Email takes this recipient now; the refusal is said here.
    pub(super) fn internal_or_refused(&mut self, turn: &mut Turn<'_>, domain: &str) -> bool {
        let Some(login) = &self.login else { return true };
        let at_recipient = turn.office.config.high_volume_email.external_refused_at == RefusedAt::Recipient;
        if !at_recipient || !is_external(turn.office, login, domain) {
            return true;
        }
        turn.violation(self, Kind::ExternalRecipient, format!("a recipient of {domain} is external"));
        self.say(turn, Line::ExternalNotSupported);
        false
    }
}

/// Whether High Volume Email accepts a message.
///
/// # Errors
/// Why not.
pub(super) fn verdict(
    turn: &Turn<'_>,
    transaction: &Transaction,
    login: &Login,
    content: &Content,
    fields: &[Header],
) -> Result<(), Refused> {
    let config = &turn.office.config;
    check_bytes(transaction, content, Allowance::of(Face::HighVolumeEmail, config).size)?;
    if config.record.inspect {
        check_fields(content, fields)?;
    }
    let external = |path: &&super::command::Path| is_external(turn.office, login, path.domain());
    if let Some(path) = transaction.recipients.iter().find(external) {
        let detail = format!("a recipient of {} is external", path.domain());
        return Err(Refused::breach(Line::ExternalNotSupported, Kind::ExternalRecipient, detail));
    }
    match first_denied(transaction, fields, |address| address.eq_ignore_ascii_case(&login.mailbox)) {
        Some(sender) => Err(Refused::sender(Line::SendAsDenied, sender)),
        None => Ok(()),
    }
}
