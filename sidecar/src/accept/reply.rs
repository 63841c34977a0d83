//! What the application is told, from what came of its message.
//!
//! Pure. An upstream's yes and its final no are passed on in its own words; everything else is 451, so that the
//! application keeps the message, with the name of the trouble and where a person finds more.

use mailroute_route::RouteFile;
use mailroute_route::condition::{ConditionType, Reason};

use crate::message::envelope::{Envelope, QueueId};
use crate::outcome::{AttemptResult, DeliveryOutcome, Verdict, one_line};
use crate::smtp::reply::{EnhancedCode, Reply};

/// Longest upstream text that goes into a reply of ours, octets; the command to run must fit behind it.
const MAX_QUOTE: usize = 200;

const NO_ROUTE: &str = "This pod has no valid mail route yet; see the log of its container mailroute";
const SPOOL_FULL: &str = "The mail queue of this pod is full; try again later";
const SPOOL_BROKEN: &str =
    "The mail queue of this pod cannot be written; see the log of its container mailroute";
const GATEWAY_UNAVAILABLE: &str =
    "GatewayReady is False: no gateway of the mail route can store the message now; try again later.";
const TOO_MANY_RECIPIENTS: &str =
    "Too many recipients for one message without a queue; send to fewer at a time";
const NOT_NOW: &str = "Not now: ";

/// Every text of the sidecar's own with which a message is not accepted, or its beginning where the upstream's words follow.
pub const OWN_TEXTS: [&str; 6] =
    [NO_ROUTE, SPOOL_FULL, SPOOL_BROKEN, GATEWAY_UNAVAILABLE, TOO_MANY_RECIPIENTS, NOT_NOW];

/// The answer for a message that was tried.
pub fn of_attempt(attempt: &AttemptResult, envelope: &Envelope, route: &RouteFile) -> Reply {
    // With one recipient it is plain which one was refused; with several the refusal has to say so.
    let spoken_for = attempt.refused.iter().find(|refused| refused.verdict == attempt.verdict);
    let named = spoken_for.filter(|_| envelope.recipients.len() > 1);
    let address = named.and_then(|refused| envelope.recipients.get(refused.recipient));
    let mut reply = of_verdict(&attempt.verdict, route);
    if let (Some(address), Some(first)) = (address, reply.lines.first_mut()) {
        *first = format!("<{address}>: {first}");
        reply.lines.push("The message was not sent to any recipient".into());
    }
    reply
}

/// The answer that follows from a verdict.
pub fn of_verdict(verdict: &Verdict, route: &RouteFile) -> Reply {
    match (verdict.outcome, &verdict.reply) {
        (DeliveryOutcome::Delivered, Some(reply)) => reply.clone(),
        (DeliveryOutcome::Delivered, None) => Reply::new(250, EnhancedCode::new(2, 0, 0), "OK"),
        (DeliveryOutcome::RejectMessage(_) | DeliveryOutcome::RejectRecipient, Some(reply))
            if reply.is_permanent() =>
        {
            reply.clone()
        }
        (outcome, _) => match outcome.reason() {
            Some(reason) => for_reason(reason, route),
            None => for_now(verdict, route),
        },
    }
}

/// The answer while no valid route is there.
pub fn without_route() -> Reply {
    Reply::new(451, EnhancedCode::new(4, 3, 5), NO_ROUTE)
}

/// The answer for a message that is kept.
pub fn queued(id: &QueueId) -> Reply {
    Reply::new(250, EnhancedCode::new(2, 0, 0), format!("OK queued as {id}"))
}

/// The answer when there is no room to keep a message (RFC 3463: mail system full).
pub fn spool_full() -> Reply {
    Reply::new(452, EnhancedCode::new(4, 3, 1), SPOOL_FULL)
}

/// The answer when the disk refuses a message for another reason.
pub fn spool_broken() -> Reply {
    Reply::new(451, EnhancedCode::new(4, 3, 0), SPOOL_BROKEN)
}

/// The answer when a message has to be with a gateway, and none can be reached or has room.
pub fn gateway_unavailable(route: &RouteFile) -> Reply {
    Reply::new(451, EnhancedCode::new(4, 3, 0), format!("{GATEWAY_UNAVAILABLE} {}", see(route)))
}

/// The answer in mode `Transport` for more recipients than one transaction may have.
pub fn too_many_recipients() -> Reply {
    Reply::new(452, EnhancedCode::new(4, 5, 3), TOO_MANY_RECIPIENTS)
}

fn for_reason(reason: Reason, route: &RouteFile) -> Reply {
    let text = format!("{reason}: {} {}", reason.sentence(), see(route));
    Reply::new(451, enhanced(reason), text)
}

fn for_now(verdict: &Verdict, route: &RouteFile) -> Reply {
    let quoted = verdict.reply.as_ref().map_or_else(|| verdict.text.clone(), one_line);
    let quoted = &quoted[..quoted.floor_char_boundary(MAX_QUOTE)];
    let code = verdict.reply.as_ref().and_then(|reply| reply.enhanced).filter(|code| code.class == 4);
    let text = format!("{NOT_NOW}{quoted}; {}", see(route));
    Reply::new(451, code.unwrap_or(EnhancedCode::new(4, 3, 0)), text)
}

fn see(route: &RouteFile) -> String {
    format!("See: kubectl describe mailroute {} -n {}", route.name, route.namespace)
}

/// RFC 3463: security, routing, or other mail system status.
fn enhanced(reason: Reason) -> EnhancedCode {
    match reason.condition() {
        ConditionType::CredentialReady | ConditionType::Authenticated => EnhancedCode::new(4, 7, 0),
        ConditionType::UpstreamReachable => EnhancedCode::new(4, 4, 1),
        _ => EnhancedCode::new(4, 3, 0),
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::config;
    use crate::message::envelope::{Address, BodyType, ReversePath};
    use crate::outcome::RefusedRecipient;

    fn route() -> RouteFile {
        config::parse(config::tests::SAMPLE.as_bytes()).unwrap()
    }

    fn read(line: &str) -> Reply {
        Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0
    }

    fn envelope(recipients: &[&str]) -> Envelope {
        Envelope {
            id: QueueId::new(Timestamp::UNIX_EPOCH, 1),
            message_id: "<1@contoso.com>".into(),
            client_name: "app".into(),
            reverse_path: ReversePath::Null,
            recipients: recipients.iter().map(|to| Address::parse(to).unwrap()).collect(),
            body: BodyType::SevenBit,
            smtp_utf8: false,
            size: None,
            archive: None,
            mailbox: None,
        }
    }

    fn printed(outcome: DeliveryOutcome, line: &str) -> String {
        of_verdict(&Verdict::of_reply(outcome, read(line)), &route()).to_string()
    }

    #[test]
    fn a_yes_is_passed_on_with_its_id() {
        let line = "250 2.0.0 OK <1@contoso.com> [Hostname=FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM]";
        assert_eq!(printed(DeliveryOutcome::Delivered, line), format!("{line}\r\n"));
    }

    #[test]
    fn a_final_no_is_passed_on_as_it_is() {
        let line = "554 5.2.252 SendAsDenied; noreply@contoso.com not allowed to send as boss@contoso.com";
        let outcome = DeliveryOutcome::RejectMessage(Some(Reason::SendAsDenied));
        assert_eq!(printed(outcome, line), format!("{line}\r\n"));
    }

    #[test]
    fn a_fault_of_the_route_names_it_and_the_command_to_run() {
        let outcome = DeliveryOutcome::RouteFault(Reason::SmtpAuthDisabledTenant);
        assert_eq!(
            printed(outcome, "535 5.7.139 Authentication unsuccessful"),
            "451 4.7.0 SmtpAuthDisabledTenant: SMTP AUTH is switched off for the tenant. See: kubectl describe mailroute \
             notifications -n shop\r\n"
        );
    }

    #[test]
    fn every_reason_fits_into_its_line_with_the_command() {
        for reason in Reason::ALL {
            let printed = for_reason(*reason, &route()).to_string();
            assert!(printed.len() <= 512 && printed.ends_with("-n shop\r\n"), "{printed}");
        }
    }

    #[test]
    fn what_may_pass_is_quoted() {
        assert_eq!(
            printed(DeliveryOutcome::Transient(None), "452 4.5.3 Too many recipients"),
            "451 4.5.3 Not now: 452 4.5.3 Too many recipients; See: kubectl describe mailroute notifications -n shop\r\n"
        );
    }

    #[test]
    fn one_refused_recipient_of_several_is_named() {
        let verdict = Verdict::of_reply(DeliveryOutcome::RejectRecipient, read("550 5.1.1 unknown"));
        let refused = vec![RefusedRecipient { recipient: 1, verdict: verdict.clone() }];
        let attempt = AttemptResult { verdict, refused, observations: vec![], host: None };
        let several = of_attempt(&attempt, &envelope(&["a@b.example", "c@d.example"]), &route());
        assert_eq!(
            several.to_string(),
            "550-5.1.1 <c@d.example>: unknown\r\n550 5.1.1 The message was not sent to any recipient\r\n"
        );
    }

    #[test]
    fn a_refusal_without_a_permanent_reply_is_not_permanent() {
        let verdict = Verdict::without_reply(DeliveryOutcome::RejectMessage(None), "odd");
        assert_eq!(of_verdict(&verdict, &route()).code, 451);
    }
}
