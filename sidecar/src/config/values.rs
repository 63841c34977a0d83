//! Which values of a route can be used: those that can be written into a command or a URL, and do not contradict each other. Pure.

use std::net::IpAddr;

use mailroute_route::RouteFile;
use mailroute_route::file::{
    ClientSubmission, Credential, Headers, HostName, LogInSettings, MAX_MAILBOXES, Method, SmartHost, TlsMode,
};
use mailroute_route::header::{is_changeable, is_value};

use super::ConfigError;
use crate::message::envelope::Address;

/// Checks each value of a route.
///
/// # Errors
/// The first that cannot be used.
pub(super) fn check(route: &RouteFile) -> Result<(), ConfigError> {
    name("ehloName", &route.ehlo_name)?;
    route.method.log_in().map_or(Ok(()), check_log_in)?;
    let redirect_to = route.recipients.as_ref().and_then(|rule| rule.redirect_to.as_deref());
    redirect_to.map_or(Ok(()), |to| address("recipients.redirectTo", to))?;
    let archive = route.archive.as_ref().map(|archive| archive.bcc.as_str());
    archive.map_or(Ok(()), |bcc| address("archive.bcc", bcc))?;
    route.headers.as_ref().map_or(Ok(()), check_headers)?;
    match &route.method {
        Method::ClientSubmission(ClientSubmission { mailboxes, .. }) if mailboxes.len() > MAX_MAILBOXES => {
            Err(ConfigError::Value { field: "mailboxes", value: mailboxes.len().to_string() })
        }
        Method::ClientSubmission(ClientSubmission { mailboxes, .. }) if !mailboxes.is_empty() => {
            mailboxes.iter().try_for_each(|mailbox| address("mailboxes.address", &mailbox.address))
        }
        Method::ClientSubmission(submission) => match submission.username.as_deref() {
            Some(username) if !is_username(username) => {
                Err(ConfigError::Value { field: "username", value: username.to_owned() })
            }
            _ => Ok(()),
        },
        Method::Graph(graph) => {
            if let Credential::Password { .. } = graph.credential {
                let value = "Password, with Graph".into();
                return Err(ConfigError::Value { field: "credential.type", value });
            }
            let fallback = graph.fallback.as_ref();
            fallback.map_or(Ok(()), |fallback| name("fallback.endpoint.host", &fallback.endpoint.host))
        }
        Method::SmtpRelay(relay) => {
            check_smart_host(&relay.accepted_domains, &relay.smart_host)?;
            // The certificate is the credential: what it vouches for must not go to whoever answers.
            if relay.certificate.is_some() && relay.smart_host.tls != TlsMode::Required {
                let value = "Opportunistic, with a certificate".into();
                return Err(ConfigError::Value { field: "smartHost.tls", value });
            }
            Ok(())
        }
        Method::DirectSend(direct) => check_smart_host(&direct.accepted_domains, &direct.smart_host),
    }
}

fn check_log_in(log_in: LogInSettings<'_>) -> Result<(), ConfigError> {
    address("mailbox", log_in.mailbox)?;
    name("authority.host", &log_in.authority.host)?;
    name("authority.tenant", &log_in.authority.tenant)?;
    name("endpoint.host", &log_in.endpoint.host)
}

/// Checks names and values that become part of messages.
fn check_headers(headers: &Headers) -> Result<(), ConfigError> {
    let mut names = headers.remove.iter().chain(headers.set.iter().map(|field| &field.name));
    let wrong = |field, value: &String| Err(ConfigError::Value { field, value: value.clone() });
    if let Some(name) = names.find(|name| !is_changeable(name)) {
        return wrong("headers", name);
    }
    let field = headers.set.iter().find(|field| !is_value(&field.value));
    field.map_or(Ok(()), |field| wrong("headers.set", &field.value))
}

/// Checks the address of one mailbox.
fn address(field: &'static str, value: &str) -> Result<(), ConfigError> {
    match Address::parse(value) {
        Ok(_) => Ok(()),
        Err(_) => Err(ConfigError::Value { field, value: value.to_owned() }),
    }
}

/// Whether a log-in can hold it: no character that ends a field of XOAUTH2, and no control character.
fn is_username(text: &str) -> bool {
    !text.is_empty() && text.len() <= 254 && text.chars().all(|it| !it.is_control())
}

fn check_smart_host(domains: &[String], smart_host: &SmartHost) -> Result<(), ConfigError> {
    if domains.is_empty() {
        return Err(ConfigError::Value { field: "acceptedDomains", value: String::new() });
    }
    domains.iter().try_for_each(|domain| name("acceptedDomains", domain))?;
    match &smart_host.host {
        HostName::MxOf(domain) => name("smartHost.host", domain),
        // Addresses of Exchange Online change, and no certificate is issued for one.
        HostName::Fixed(host) if host.parse::<IpAddr>().is_ok() => {
            Err(ConfigError::Value { field: "smartHost.host", value: host.clone() })
        }
        HostName::Fixed(host) => name("smartHost.host", host),
    }
}

/// Refuses what ends a line, an argument or a host name, and nothing at all.
fn name(field: &'static str, value: &str) -> Result<(), ConfigError> {
    if value.is_empty() || value.chars().any(|c| c.is_control() || c.is_whitespace() || "<>/".contains(c)) {
        return Err(ConfigError::Value { field, value: value.to_owned() });
    }
    Ok(())
}
