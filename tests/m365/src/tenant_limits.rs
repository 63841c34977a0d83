//! The limits of a whole tenant: external recipients of a day, of all its senders and of those at `*.onmicrosoft.com`.
//!
//! Pure. They hold for client submission, relay and Graph; High Volume Email and Communication Services do not count.
//! Sources: Exchange, "Introducing Exchange Online Tenant Outbound Email Limits" (non-delivery reports 5.7.232, 5.7.233), and
//! "Limiting Onmicrosoft Domain Usage for Sending Emails" (5.7.236).

use jiff::Timestamp;

use crate::{
    config::Limits,
    directory::Tenant,
    limits::{Counter, Usage},
    replies::Line,
    violations::Kind,
};

/// Why a tenant may not send: the reply, and the breach.
pub type OverTenantLimit = (Line, Kind, String);

/// Counts the external recipients of a message with these senders (MAIL and From), unless they do not fit.
///
/// # Errors
/// A limit of the tenant's is used up.
pub fn spend(
    usage: &mut Usage,
    limits: &Limits,
    tenant: &Tenant,
    senders: &[&str],
    recipients: &[&str],
    now: Timestamp,
) -> Result<(), OverTenantLimit> {
    let external = recipients.iter().filter(|address| !tenant.accepts_domain(domain(address))).count() as u64;
    if external == 0 {
        return Ok(());
    }
    let mut within = |counter, most| {
        usage.spend((counter, &tenant.id), external, (most, limits.day_milliseconds), now).is_ok()
    };
    let most = limits.onmicrosoft_recipients_per_day;
    if senders.iter().any(|address| is_onmicrosoft(domain(address)))
        && !within(Counter::OnmicrosoftRecipients, most)
    {
        let detail = format!("more than {most} external recipients of onmicrosoft.com senders in a day");
        return Err((Line::OnmicrosoftExternalRecipients, Kind::OnmicrosoftRecipients, detail));
    }
    let most = tenant.external_recipients_per_day;
    // Zero is no limit to a window, but "none" to a tenant.
    if most == Some(0) || !within(Counter::TenantRecipients, most.unwrap_or(0)) {
        let line = if tenant.trial { Line::TrialExternalRecipients } else { Line::TenantExternalRecipients };
        let detail = format!("more than {} external recipients of the tenant in a day", most.unwrap_or(0));
        return Err((line, Kind::TenantRecipients, detail));
    }
    Ok(())
}

fn is_onmicrosoft(domain: &str) -> bool {
    domain.to_ascii_lowercase().ends_with(".onmicrosoft.com")
}

fn domain(address: &str) -> &str {
    address.rsplit_once('@').map_or("", |(_, domain)| domain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::directory::Directory;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_790_000_000 + second).unwrap()
    }

    #[test]
    fn external_recipients_are_counted_and_internal_ones_are_not() {
        let (mut usage, limits) = (Usage::default(), Limits::default());
        let mut tenant = Directory::contoso().tenants.remove(0);
        tenant.external_recipients_per_day = Some(3);
        let outcome = |usage: &mut Usage, tenant: &Tenant, to: &[&str], second| {
            spend(usage, &limits, tenant, &["a@contoso.com"], to, at(second))
                .err()
                .map(|(line, kind, _)| (line, kind))
        };
        let two = ["x@example.com", "alice@contoso.com", "y@example.com", "B@Contoso.onmicrosoft.com"];
        assert_eq!(outcome(&mut usage, &tenant, &two, 0), None);
        let over = Some((Line::TenantExternalRecipients, Kind::TenantRecipients));
        assert_eq!(outcome(&mut usage, &tenant, &two, 1), over);
        assert_eq!(outcome(&mut usage, &tenant, &["alice@contoso.com"], 1), None);
        assert_eq!(outcome(&mut usage, &tenant, &two, 86_400), None, "the window has moved");
        tenant.trial = true;
        let over = Some((Line::TrialExternalRecipients, Kind::TenantRecipients));
        assert_eq!(outcome(&mut usage, &tenant, &two, 86_401), over);
    }

    #[test]
    fn onmicrosoft_senders_have_a_limit_of_their_own() {
        let (mut usage, mut limits) = (Usage::default(), Limits::default());
        let tenant = Directory::contoso().tenants.remove(0);
        limits.onmicrosoft_recipients_per_day = 1;
        let mut outcome = |senders: &[&str]| {
            spend(&mut usage, &limits, &tenant, senders, &["x@example.com"], at(0))
                .err()
                .map(|(line, ..)| line)
        };
        assert_eq!(outcome(&["", "a@contoso.onmicrosoft.com"]), None);
        assert_eq!(outcome(&["a@Contoso.OnMicrosoft.com"]), Some(Line::OnmicrosoftExternalRecipients));
        assert_eq!(outcome(&["a@contoso.com"]), None);
    }
}
