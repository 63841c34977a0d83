//! What each mailbox of a route with several meets and has sent.

use mailroute_route::control::{MailboxReport, Report};

use crate::crd::status::MailboxStatus;

/// The status of each of these mailboxes; none where there is one alone.
pub(super) fn statuses(mailboxes: &[&str], reports: &[&Report]) -> Vec<MailboxStatus> {
    let several = mailboxes.iter().filter(|_| mailboxes.len() > 1);
    several.map(|address| status(address, reports)).collect()
}

fn status(address: &str, reports: &[&Report]) -> MailboxStatus {
    let is_it = |of: &&MailboxReport| of.mailbox.eq_ignore_ascii_case(address);
    let own: Vec<_> = reports.iter().flat_map(|report| &report.mailboxes).filter(is_it).collect();
    let sum = |of: fn(&MailboxReport) -> u64| own.iter().fold(0_u64, |sum, one| sum.saturating_add(of(one)));
    let trouble = own.iter().filter_map(|one| one.trouble.as_ref()).max_by_key(|met| met.at);
    MailboxStatus {
        address: address.to_owned(),
        ready: !own.is_empty() && trouble.is_none(),
        reason: trouble.map(|met| met.reason.as_str().to_owned()),
        message: trouble.map(|met| met.message.clone()),
        messages_last_minute: sum(|one| one.usage.messages_last_minute),
        recipients_last_24h: sum(|one| one.usage.recipients_last_24h),
    }
}

#[cfg(test)]
mod tests {
    use mailroute_route::condition::Reason;
    use mailroute_route::control::Usage;

    use super::*;
    use crate::samples::{observation, report};

    fn of(mailbox: &str, trouble: Option<Reason>, sent: u64) -> MailboxReport {
        MailboxReport {
            mailbox: mailbox.into(),
            trouble: trouble.map(|reason| observation(reason, "met", 1)),
            usage: Usage { messages_last_minute: sent, recipients_last_24h: 10 * sent },
            claim: None,
        }
    }

    #[test]
    fn each_mailbox_has_what_all_pods_say_of_it() {
        let mailboxes = ["a@contoso.com", "b@contoso.com", "c@contoso.com"];
        let one = Report {
            mailboxes: vec![of("A@contoso.com", None, 2), of(mailboxes[1], None, 1)],
            ..report(vec![])
        };
        let failing = Some(Reason::LoginFailed);
        let two = Report {
            mailboxes: vec![of(mailboxes[0], None, 3), of(mailboxes[1], failing, 0)],
            ..report(vec![])
        };
        let shown = statuses(&mailboxes, &[&one, &two]);
        let numbers: Vec<_> =
            shown.iter().map(|it| (it.ready, it.messages_last_minute, it.recipients_last_24h)).collect();
        assert_eq!(numbers, [(true, 5, 50), (false, 1, 10), (false, 0, 0)]);
        let reasons: Vec<_> = shown.iter().map(|it| it.reason.as_deref()).collect();
        assert_eq!(reasons, [None, Some("LoginFailed"), None]);
        assert!(statuses(&mailboxes[..1], &[&one]).is_empty());
    }
}
