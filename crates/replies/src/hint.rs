//! What a person may want to know about a refusal that concerns one message or recipient alone.
//!
//! Such a refusal is no condition of the route, so it has no reason with a remedy. The hint goes where the refusal is
//! quoted: into the log, the dead letter and the notification; the application gets Microsoft's words alone. Pure.

use crate::reply::Reply;

/// The hint for a recipient that this cmdlet opens for everybody.
macro_rules! authenticated_only {
    ($cmdlet:literal) => {
        concat!(
            "the recipient accepts only authenticated senders: use the method ClientSubmission or SmtpRelay, or let \
             it accept all: ",
            $cmdlet,
            " -RequireSenderAuthenticationEnabled $false"
        )
    };
}

/// Subject and detail of the enhanced code, and the hint.
pub static HINTS: &[(u16, u16, &str)] = &[
    (1, 20, "the message has several From addresses and no Sender"),
    (
        4,
        1,
        "the tenant has no such recipient, or the domain is not the tenant's: DirectSend reaches only the tenant's own \
         recipients",
    ),
    (5, 105, "High Volume Email reaches only the tenant's own recipients"),
    (6, 11, "the message has line ends that are not CR LF: set spec.listen.bareLineEnds to Normalize"),
    (7, 12, authenticated_only!("Set-DistributionGroup")),
    (
        7,
        124,
        "the group takes mail from the senders of its list only: Set-DistributionGroup \
            -AcceptMessagesOnlyFromSendersOrMembers",
    ),
    (7, 133, authenticated_only!("Set-DistributionGroup")),
    (7, 134, authenticated_only!("Set-Mailbox")),
    (7, 136, authenticated_only!("Set-MailUser")),
    (7, 512, "the message has no valid From address"),
    (7, 703, "the tenant's allow/block list has one of the recipients: Get-TenantAllowBlockListItems"),
];

/// The hint for a refusal, where there is one.
pub fn of(reply: &Reply) -> Option<&'static str> {
    let code = reply.enhanced?;
    let hint = HINTS.iter().find(|(subject, detail, _)| (code.subject, code.detail) == (*subject, *detail));
    hint.map(|(_, _, hint)| *hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outcome::{DeliveryOutcome, Verdict};

    fn read(line: &str) -> Reply {
        Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn a_refusal_is_quoted_with_its_hint_and_passed_on_without() {
        let reply = read("550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup; authentication required");
        let verdict = Verdict::of_reply(DeliveryOutcome::RejectRecipient, reply.clone());
        assert!(verdict.text.ends_with("-RequireSenderAuthenticationEnabled $false)"), "{}", verdict.text);
        assert_eq!(verdict.reply, Some(reply));
    }

    #[test]
    fn each_kind_of_recipient_has_the_cmdlet_that_opens_it() {
        for (line, cmdlet) in [
            ("550 5.7.124 Sender not in allowed-senders list", "-AcceptMessagesOnlyFromSendersOrMembers"),
            ("550 5.7.133 RESOLVER.RST.SenderNotAuthenticatedForGroup", "Set-DistributionGroup -Require"),
            ("550 5.7.134 RESOLVER.RST.SenderNotAuthenticatedForMailbox", "Set-Mailbox -Require"),
            ("550 5.7.136 RESOLVER.RST.SenderNotAuthenticatedForMailUser", "Set-MailUser -Require"),
        ] {
            let hint = of(&read(line)).unwrap();
            assert!(hint.contains(cmdlet), "{line}: {hint}");
        }
    }

    #[test]
    fn what_is_no_final_refusal_has_no_hint() {
        let verdict =
            Verdict::of_reply(DeliveryOutcome::Transient(None), read("450 4.4.1 Connection timed out"));
        assert_eq!(verdict.text, "450 4.4.1 Connection timed out");
    }
}
