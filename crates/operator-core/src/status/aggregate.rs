//! From what many sidecars met to one verdict for each condition. Pure.
//!
//! The rule, for one condition and the sidecars whose reports are fresh:
//! * A sidecar's newest observation is its own word: what it met later replaces what it met before.
//! * One failing sidecar makes the condition fail, and the message says how many of how many it is. Of several reasons
//!   the one that most sidecars met is named.
//! * A failure is outlived when another sidecar succeeded ten minutes later. A sidecar with work, or one that
//!   probes, confirms its trouble sooner than that; only one that has fallen silent is passed over.
//! * A success that carries a remedy (a certificate that ends soon) is a warning, and named before one that carries none,
//!   unless it is outlived in the same way.
//! * Without any evidence there is no verdict.

use std::collections::BTreeMap;

use mailroute_route::condition::{ConditionType, Reason, Subject};
use mailroute_route::control::{Observation, Report};

/// Seconds by which a success of another sidecar outlives a failure. Twice the longest pause of a sidecar's own probe.
const OUTLIVED_AFTER: i64 = 600;

/// What all sidecars together say of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionVerdict {
    /// Which condition.
    pub condition: ConditionType,
    /// Whether it holds.
    pub holds: bool,
    /// Why.
    pub reason: Reason,
    /// In words.
    pub message: ConditionMessage,
}

/// The parts of a condition's message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionMessage {
    /// How many are concerned; empty when all is well.
    scope: String,
    /// What was met, literally; it differs from attempt to attempt (host names, session ids).
    quote: String,
    /// The reason's sentence, and what to do.
    explanation: String,
}

impl ConditionMessage {
    /// What `failing` of `reporting` pods met, in the words of one of them.
    pub(super) fn of(
        failing: usize,
        reporting: usize,
        quote: &str,
        reason: Reason,
        subject: &Subject<'_>,
    ) -> Self {
        Self {
            scope: scope(failing, reporting),
            quote: sentence(quote),
            explanation: explanation(reason, subject),
        }
    }

    /// The same for pods that are named.
    pub(super) fn named(names: &str, quote: &str, reason: Reason, subject: &Subject<'_>) -> Self {
        Self { scope: format!("{names}:"), quote: sentence(quote), explanation: explanation(reason, subject) }
    }

    /// The whole text.
    pub fn text(&self) -> String {
        let parts = [&self.scope, &self.quote, &self.explanation];
        parts.into_iter().filter(|part| !part.is_empty()).cloned().collect::<Vec<_>>().join(" ")
    }

    /// Whether a text says the same, apart from the quote: then there is no need to write it again.
    pub fn is_said_by(&self, text: &str) -> bool {
        text == self.text()
            || !self.quote.is_empty() && text.starts_with(&self.scope) && text.ends_with(&self.explanation)
    }
}

/// The verdict on one condition; none without evidence.
pub fn verdict(
    condition: ConditionType,
    reports: &[&Report],
    subject: &Subject<'_>,
) -> Option<ConditionVerdict> {
    let met: Vec<_> =
        reports.iter().flat_map(|r| &r.observations).filter(|o| o.condition == condition).collect();
    let success = met.iter().filter(|o| o.holds).max_by_key(|o| o.at).copied();
    let outlived = |o: &Observation| success.is_some_and(|success| success.at >= o.at + OUTLIVED_AFTER);
    let failures: Vec<_> = met.iter().filter(|o| !o.holds && !outlived(o)).copied().collect();
    if failures.is_empty() {
        let warning = met.iter().filter(|o| o.reason.warns() && !outlived(o)).max_by_key(|o| o.at);
        return Some(held(condition, warning.copied().or(success)?, subject));
    }
    let reason = commonest(&failures)?;
    let newest = failures.iter().filter(|o| o.reason == reason).max_by_key(|o| o.at)?;
    let message = ConditionMessage::of(failures.len(), reports.len(), &newest.message, reason, subject);
    Some(ConditionVerdict { condition, holds: false, reason, message })
}

/// The verdict that it holds: in the reason's words, and with what was met when it is a warning.
fn held(condition: ConditionType, met: &Observation, subject: &Subject<'_>) -> ConditionVerdict {
    let quote = if met.reason.warns() { sentence(&met.message) } else { String::new() };
    let message =
        ConditionMessage { scope: String::new(), quote, explanation: explanation(met.reason, subject) };
    ConditionVerdict { condition, holds: true, reason: met.reason, message }
}

/// The reason's sentence and remedy.
pub fn explanation(reason: Reason, subject: &Subject<'_>) -> String {
    format!("{} {}", reason.sentence(), reason.remedy(subject)).trim_end().to_owned()
}

/// The reason that most observations have; among equals the first of the list of reasons, so that it does not flap.
fn commonest(failures: &[&Observation]) -> Option<Reason> {
    let mut counts = BTreeMap::<Reason, usize>::new();
    for failure in failures {
        *counts.entry(failure.reason).or_default() += 1;
    }
    let most = counts.values().copied().max()?;
    counts.into_iter().find(|(_, count)| *count == most).map(|(reason, _)| reason)
}

fn scope(failing: usize, reporting: usize) -> String {
    format!("{failing} of {reporting} {}:", if reporting == 1 { "pod" } else { "pods" })
}

/// Ends a quote with a full stop when it has no end of its own.
fn sentence(quote: &str) -> String {
    let quote = quote.trim();
    if quote.is_empty() || quote.ends_with(['.', '!', '?', ']']) {
        quote.to_owned()
    } else {
        format!("{quote}.")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::samples::{observation, report};
    use mailroute_route::condition::Reason::{
        CertificateExpiring, CertificateValid, ConnectFailed, Connected, ExchangeRejectedToken, LoggedIn,
        LoginFailed, SmtpAuthDisabledMailbox,
    };

    const SUBJECT: Subject<'_> = Subject {
        route: "notifications",
        mailbox: "noreply@contoso.com",
        client_id: "1b2c3d4e",
        tenant: "contoso.com",
        endpoint: "smtp.office365.com:587",
        authority: "login.microsoftonline.com",
        secret: "",
        key: "",
    };

    fn judged(observations: Vec<Observation>) -> Option<ConditionVerdict> {
        let reports: Vec<_> = observations.into_iter().map(|o| report(vec![o])).collect();
        verdict(ConditionType::Authenticated, &reports.iter().collect::<Vec<_>>(), &SUBJECT)
    }

    #[test]
    fn a_fault_seen_by_one_of_twelve_pods_shows_and_is_counted() {
        let mut met = vec![observation(LoggedIn, "", 100); 11];
        met.push(observation(
            SmtpAuthDisabledMailbox,
            "535 5.7.139 SmtpClientAuthentication is disabled",
            90,
        ));
        let verdict = judged(met).unwrap();
        assert_eq!((verdict.holds, verdict.reason), (false, SmtpAuthDisabledMailbox));
        assert_eq!(
            verdict.message.text(),
            "1 of 12 pods: 535 5.7.139 SmtpClientAuthentication is disabled. SMTP AUTH is switched off for the \
             mailbox. Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false"
        );
    }

    #[test]
    fn a_fault_that_its_sidecar_got_over_is_gone() {
        let verdict = judged(vec![observation(LoggedIn, "", 100), observation(LoggedIn, "", 300)]).unwrap();
        assert_eq!((verdict.holds, verdict.message.text().as_str()), (true, LoggedIn.sentence()));
    }

    #[test]
    fn a_silent_sidecars_fault_is_outlived_by_the_later_success_of_another() {
        let old = observation(LoginFailed, "535", 1000);
        assert!(!judged(vec![old.clone(), observation(LoggedIn, "", 1599)]).unwrap().holds);
        assert!(judged(vec![old.clone(), observation(LoggedIn, "", 1600)]).unwrap().holds);
        assert!(!judged(vec![old]).unwrap().holds, "alone it stays");
    }

    #[test]
    fn the_reason_that_most_met_is_named_with_their_newest_words() {
        let verdict = judged(vec![
            observation(LoginFailed, "535 odd", 9),
            observation(ExchangeRejectedToken, "535 first", 1),
            observation(ExchangeRejectedToken, "535 second", 2),
        ])
        .unwrap();
        assert_eq!(verdict.reason, ExchangeRejectedToken);
        assert!(verdict.message.text().starts_with("3 of 3 pods: 535 second. The token is good"));
    }

    #[test]
    fn equally_common_reasons_do_not_take_turns() {
        let [a, b] = [observation(LoginFailed, "", 1), observation(ExchangeRejectedToken, "", 2)];
        let [c, d] = [observation(LoginFailed, "", 2), observation(ExchangeRejectedToken, "", 1)];
        assert_eq!(judged(vec![a, b]).unwrap().reason, judged(vec![d, c]).unwrap().reason);
    }

    #[test]
    fn without_evidence_there_is_no_verdict() {
        assert_eq!(judged(vec![]), None);
        assert_eq!(judged(vec![observation(Connected, "", 1), observation(ConnectFailed, "", 1)]), None);
    }

    #[test]
    fn a_warning_is_named_before_a_success_without_one() {
        let judged = |ending: i64, valid: i64| {
            let met = [
                observation(CertificateExpiring, "it ends on 2026-12-01", ending),
                observation(CertificateValid, "", valid),
            ];
            let reports = met.map(|o| report(vec![o]));
            verdict(ConditionType::CertificateValid, &reports.iter().collect::<Vec<_>>(), &SUBJECT).unwrap()
        };
        let warned = judged(100, 200);
        assert_eq!((warned.holds, warned.reason), (true, CertificateExpiring));
        let text = warned.message.text();
        assert!(text.starts_with("it ends on 2026-12-01. The certificate expires soon. Renew"), "{text}");
        assert_eq!(judged(100, 700).reason, CertificateValid, "it was renewed");
    }

    #[test]
    fn another_session_id_in_the_quote_says_the_same() {
        let met = |quote| judged(vec![observation(LoginFailed, quote, 1)]).unwrap().message;
        let written = met("535 5.7.3 Authentication unsuccessful [AM0PR01.eurprd01]").text();
        assert!(met("535 5.7.3 Authentication unsuccessful [DB9PR02.eurprd02]").is_said_by(&written));
        assert!(!judged(vec![observation(LoggedIn, "", 1)]).unwrap().message.is_said_by(&written));
        let two =
            judged(vec![observation(LoginFailed, "535", 1), observation(LoginFailed, "535", 1)]).unwrap();
        assert!(!two.message.is_said_by(&written), "another number of pods is news");
    }
}
