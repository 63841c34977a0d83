//! Azure Communication Services: who may log in, as whom it sends, and how much.
//!
//! The verdicts are pure. Sources: Azure, "SMTP authentication for Azure Communication Services" and "Service limits". The
//! replies after a login are not published; they are those of Exchange, or settings.

use jiff::Timestamp;

use super::{
    acceptance::{Refused, check_bytes, check_fields, first_denied},
    authentication::{Denied, Login},
    command::Path,
    data::Content,
    service::Allowance,
    session::{Session, Step, Turn},
    transaction::Transaction,
    xoauth2::Credentials,
};
use crate::{
    directory::{Application, Tenant},
    entra::{Credential, client_secret, token::TokenError},
    limits::Counter,
    mailbox::{Face, Header, TokenClaims},
    office::Office,
    replies::Line,
    violations::Kind,
};

/// Whether a token opens the resource by this SMTP username.
///
/// # Errors
/// The reply, and the breach when the client is to blame.
pub(super) fn judge(office: &Office, credentials: &Credentials, now: Timestamp) -> Result<Login, Denied> {
    let resource = &office.config.communication_services.resource;
    let claims = office.token_key.verify(&credentials.token, resource, now).map_err(|error| {
        let breach =
            matches!(error, TokenError::Expired { .. }).then(|| (Kind::ExpiredToken, error.to_string()));
        (Line::AuthUnsuccessful, breach)
    })?;
    let (tenant, app) = behind(office, &credentials.user).ok_or((Line::AuthUnsuccessful, None))?;
    if tenant.id != claims.tid || !app.client_id.eq_ignore_ascii_case(&claims.appid) {
        return Err((Line::AuthUnsuccessful, None));
    }
    Ok(Login { mailbox: credentials.user.clone(), token: claims.into() })
}

/// Whether a client secret of the application behind this SMTP username opens the resource.
///
/// # Errors
/// The reply.
pub(super) fn judge_secret(office: &Office, user: &str, secret: &str, now: Timestamp) -> Result<Login, Line> {
    let (tenant, app) = behind(office, user).ok_or(Line::AuthUnsuccessful)?;
    client_secret::check(app, secret, now).map_err(|_| Line::AuthUnsuccessful)?;
    let token = TokenClaims {
        tenant: tenant.id.clone(),
        client_id: app.client_id.clone(),
        credential: Some(Credential::Secret),
        ..TokenClaims::default()
    };
    Ok(Login { mailbox: user.to_owned(), token })
}

/// The application behind an SMTP username.
fn behind<'a>(office: &'a Office, username: &str) -> Option<(&'a Tenant, &'a Application)> {
    office.config.directory.tenants.iter().find_map(|tenant| {
        let username = tenant.communication_services.username(username)?;
        let app = tenant.application(&username.client_id).filter(|app| !app.disabled)?;
        Some((tenant, app))
    })
}

/// Whether the address is a sender of a domain that is linked to the resource.
fn may_send_as(office: &Office, login: &Login, address: &str) -> bool {
    let tenant = office.config.directory.tenant(&login.token.tenant);
    tenant.is_some_and(|tenant| tenant.communication_services.has_sender(address))
}

impl Session {
    /// MAIL: the sender, and the rates.
    pub(super) fn communication_services_mail(&mut self, turn: &mut Turn<'_>, path: Path) {
        let Some(login) = &self.login else { return };
        if !may_send_as(turn.office, login, &path.address) {
            return self.say(turn, Line::NoSendAsPermission);
        }
        let settings = &turn.office.config.communication_services;
        let (minute, hour) = (
            (settings.messages_per_minute, settings.minute_milliseconds),
            (settings.messages_per_hour, settings.hour_milliseconds),
        );
        let (usage, tenant) = (&mut turn.office.usage, login.token.tenant.as_str());
        let within = usage
            .spend((Counter::ServiceMinute, tenant), 1, minute, turn.now)
            .and_then(|()| usage.spend((Counter::ServiceHour, tenant), 1, hour, turn.now));
        if within.is_ok() {
            self.transaction = Some(Transaction { sender: path, ..Transaction::default() });
            return self.say(turn, Line::SenderOk);
        }
        let reply = settings.over_rate.clone();
        turn.violation(
            self,
            Kind::ServiceRate,
            "more messages in a minute or an hour than the resource may send",
        );
        self.say_with(turn, reply.template(), &[]);
        if reply.template().starts_with("421") {
            self.close(turn, Step::Close);
        }
    }
}

/// Whether Communication Services accepts a message.
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
    check_bytes(transaction, content, Allowance::of(Face::CommunicationServices, config).size)?;
    if config.record.inspect {
        check_fields(content, fields)?;
    }
    match first_denied(transaction, fields, |address| may_send_as(turn.office, login, address)) {
        Some(sender) => Err(Refused::sender(Line::NoSendAsPermission, sender)),
        None => Ok(()),
    }
}
