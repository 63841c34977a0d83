//! Findings as text for people and as JSON for programs. Pure.

use super::places::Place;
use super::steps::{Findings, State, Step};
use crate::args::Output;
use crate::route_deleted;

/// Width of the column with the state, and of that with the place.
const COLUMNS: (usize, usize) = (8, 12);

/// Most characters of what was met that are shown to people: refusals of Exchange go on with diagnostics for pages.
const MAX_MET: usize = 300;

/// The findings, ending in a newline.
pub fn print(findings: &Findings, output: Output) -> String {
    match output {
        Output::Text => text(findings),
        Output::Json => {
            // Only maps with odd keys and failing `Serialize` impls can fail, and there are none here.
            let mut json = serde_json::to_string_pretty(findings).expect("plain data serialises");
            json.push('\n');
            json
        }
    }
}

fn text(findings: &Findings) -> String {
    let mut text = match &findings.mailbox {
        None => findings.steps.iter().map(line).collect(),
        Some(mailbox) => of_mailboxes(findings, mailbox),
    };
    if !findings.fallback.is_empty() {
        text.push_str("\nThe fallback, for what Microsoft Graph cannot carry:\n");
        text.extend(findings.fallback.iter().map(line));
    }
    let failing = findings.failing_mailboxes();
    text.push_str(&match (findings.is_well(), &failing[..]) {
        (true, _) => "\nA message would be sent.\n".to_owned(),
        (false, []) => "\nA message would not be sent. Fix what failed and run check again.\n".into(),
        (false, _) => format!(
            "\nA message of {} would not be sent. Fix what failed and run check again.\n",
            failing.join(", ")
        ),
    });
    if findings.route_deleted {
        text.push_str(&format!("{}\n", route_deleted::NOTE));
    }
    text
}

/// The steps of each mailbox under its address, and at the end what concerns all of them.
fn of_mailboxes(findings: &Findings, first: &str) -> String {
    let is_of_all = |step: &&Step| step.step == Place::Sidecar;
    let of_first: String = findings.steps.iter().filter(|step| !is_of_all(step)).map(line).collect();
    let mut text = format!("{first}\n{of_first}");
    for one in &findings.mailboxes {
        let steps: String = one.steps.iter().map(line).collect();
        text.push_str(&format!("\n{}\n{steps}", one.mailbox));
    }
    let of_all: String = findings.steps.iter().filter(is_of_all).map(line).collect();
    if !of_all.is_empty() {
        text.push_str(&format!("\n{of_all}"));
    }
    text
}

fn line(step: &Step) -> String {
    let state = match step.state {
        State::Ok => "ok",
        State::Warning => "WARNING",
        State::Failed => "FAILED",
        State::NotReached => "-",
    };
    let (left, right) = COLUMNS;
    let mut text = format!("{state:left$} {:right$}", step.step.as_str());
    let named = step.reason.filter(|_| matches!(step.state, State::Warning | State::Failed));
    let named = named.map(|reason| format!("{reason}: ")).unwrap_or_default();
    let end = step.met.char_indices().nth(MAX_MET).map(|(at, _)| at);
    let (met, more) = end.map_or((&*step.met, ""), |end| (&step.met[..end], "…"));
    text.push_str(&format!(" {named}{met}{more}"));
    let mut text = format!("{}\n", text.trim_end());
    // Not wrapped: a remedy is often a command to copy.
    for line in [&step.meaning, &step.remedy].into_iter().filter(|line| !line.is_empty()) {
        text.push_str(&format!("{:indent$}{line}\n", "", indent = left + right + 2));
    }
    text
}

#[cfg(test)]
mod tests {
    use mailroute_route::condition::Reason;

    use super::*;

    fn findings() -> Findings {
        let step = |step, state, reason, met: &str, (meaning, remedy): (&str, &str)| Step {
            step,
            state,
            reason,
            met: met.into(),
            meaning: meaning.into(),
            remedy: remedy.into(),
        };
        let steps = vec![
            step(
                Place::Token,
                State::Ok,
                Some(Reason::TokenAcquired),
                "a token with 59 minutes left",
                ("", ""),
            ),
            step(
                Place::LogIn,
                State::Failed,
                Some(Reason::SmtpAuthDisabledMailbox),
                "535 5.7.139 Authentication unsuccessful",
                (
                    "SMTP AUTH is switched off for the mailbox.",
                    "Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false",
                ),
            ),
            step(Place::Sender, State::NotReached, None, "", ("", "")),
        ];
        Findings { route: Some("shop/notifications".into()), steps, ..Findings::default() }
    }

    #[test]
    fn people_read_one_line_for_a_step_and_what_to_do_below() {
        let expected = "\
ok       token        a token with 59 minutes left
FAILED   log-in       SmtpAuthDisabledMailbox: 535 5.7.139 Authentication unsuccessful
                      SMTP AUTH is switched off for the mailbox.
                      Set-CASMailbox -Identity noreply@contoso.com -SmtpClientAuthenticationDisabled $false
-        sender

A message would not be sent. Fix what failed and run check again.
";
        assert_eq!(print(&findings(), Output::Text), expected);
    }

    #[test]
    fn the_second_way_comes_behind_the_first() {
        let findings = Findings { fallback: findings().steps, ..findings() };
        let text = print(&findings, Output::Text);
        let (_, second) =
            text.split_once("\nThe fallback, for what Microsoft Graph cannot carry:\n").unwrap();
        assert!(second.starts_with("ok       token "), "{second}");
    }

    #[test]
    fn each_mailbox_of_several_has_its_steps_and_the_end_names_those_that_fail() {
        let (failing, first) = (findings(), findings());
        let ok = Step { state: State::Ok, ..first.steps[0].clone() };
        let first =
            Findings { well: true, steps: vec![ok], mailbox: Some("noreply@contoso.com".into()), ..first };
        let failing = Findings { mailbox: Some("orders@contoso.com".into()), ..failing };
        let all = Findings::of_mailboxes(vec![first.clone(), failing]);
        let text = print(&all, Output::Text);
        let expected = "\
noreply@contoso.com
ok       token        a token with 59 minutes left

orders@contoso.com
ok       token        a token with 59 minutes left
FAILED   log-in ";
        assert!(text.starts_with(expected), "{text}");
        assert!(text.contains("\nA message of orders@contoso.com would not be sent."), "{text}");
        let json: serde_json::Value = serde_json::from_str(&print(&all, Output::Json)).unwrap();
        assert_eq!((&json["well"], &json["mailbox"]), (&false.into(), &"noreply@contoso.com".into()));
        assert_eq!(json["mailboxes"][0]["mailbox"], "orders@contoso.com");
        let alone = Findings::of_mailboxes(vec![first]);
        assert!(alone.is_well() && alone.mailbox.is_none(), "one mailbox is not named");
    }

    #[test]
    fn a_long_reply_is_cut_for_people_and_whole_for_programs() {
        let mut findings = findings();
        findings.steps[1].met = format!("554 5.2.0 {}", "1.84300:0A000000, é ".repeat(60));
        let text = print(&findings, Output::Text);
        assert!(text.lines().all(|line| line.chars().count() < 350) && text.contains('…'), "{text}");
        let json: serde_json::Value = serde_json::from_str(&print(&findings, Output::Json)).unwrap();
        assert_eq!(json["steps"][1]["met"], *findings.steps[1].met);
    }

    #[test]
    fn programs_read_states_and_reasons_by_name() {
        let json: serde_json::Value = serde_json::from_str(&print(&findings(), Output::Json)).unwrap();
        assert_eq!(json["route"], "shop/notifications");
        assert_eq!(json["well"], false);
        assert_eq!(json["steps"][0]["step"], "Token");
        assert_eq!(json["steps"][1]["reason"], "SmtpAuthDisabledMailbox");
        assert_eq!(json["steps"][1]["state"], "Failed");
        assert_eq!(json["steps"][2], serde_json::json!({"step": "Sender", "state": "NotReached"}));
    }
}
