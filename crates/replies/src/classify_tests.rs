//! The table, met by every line that Microsoft is known to send.

use super::*;
use crate::known_replies::KNOWN_REPLIES;

fn read(line: &str) -> Reply {
    let wire = format!("{line}\r\n");
    let (reply, taken) = Reply::parse(wire.as_bytes()).unwrap().expect("a complete reply");
    assert_eq!(taken, wire.len());
    reply
}

/// Lines that stand for those that nobody has seen yet.
const INVENTED: &[(Stage, &str, DeliveryOutcome)] = &[
    (Stage::Auth, "535 Something new", RouteFault(R::LoginFailed)),
    (Stage::Data, "451 4.3.0 Later", DeliveryOutcome::Transient(None)),
    (Stage::Message, "432 4.3.2 A fourth text", DeliveryOutcome::Transient(None)),
    (Stage::Message, "354 Start mail input", later(R::UpstreamProtocolError)),
];

fn lines() -> impl Iterator<Item = &'static (Stage, &'static str, DeliveryOutcome)> {
    KNOWN_REPLIES.iter().chain(INVENTED)
}

#[test]
fn every_known_line_has_its_meaning() {
    for (stage, line, outcome) in lines() {
        assert_eq!(classify(*stage, &read(line)), *outcome, "{stage:?}: {line}");
    }
}

#[test]
fn diagnostics_of_real_length_change_no_meaning() {
    let diagnostics = "1.84300:0A000000, 5.95292:67000000446F526F70730072, ".repeat(30);
    for (stage, line, outcome) in lines() {
        let code = &line[..3];
        let long = format!("{line} [BeginDiagnosticData]{diagnostics}");
        let lines = format!("{code}-{}\r\n{code} {diagnostics}", &line[4..]);
        for text in [long, lines] {
            assert_eq!(classify(*stage, &read(&text)), *outcome, "{stage:?}: {text}");
        }
    }
}

#[test]
fn unknown_4yz_is_transient_everywhere() {
    for stage in [
        Stage::Greeting,
        Stage::Ehlo,
        Stage::StartTls,
        Stage::Auth,
        Stage::Mail,
        Stage::Rcpt,
        Stage::Data,
        Stage::Message,
        Stage::Quit,
    ] {
        for code in 400..500 {
            let reply = Reply { code, enhanced: None, lines: vec!["never seen".into()] };
            assert!(matches!(classify(stage, &reply), DeliveryOutcome::Transient(_)), "{stage:?} {code}");
        }
    }
}

#[test]
fn unknown_5yz_is_never_the_messages_fault_before_mail() {
    for stage in [Stage::Greeting, Stage::Ehlo, Stage::StartTls, Stage::Auth] {
        for code in 500..600 {
            let reply = Reply { code, enhanced: None, lines: vec!["never seen".into()] };
            let outcome = classify(stage, &reply);
            assert!(
                matches!(outcome, RouteFault(_) | DeliveryOutcome::Transient(_)),
                "{stage:?} {code}: {outcome:?}"
            );
        }
    }
}

#[test]
fn every_row_of_the_table_is_met_by_a_line() {
    for (at, row) in TABLE.iter().enumerate() {
        let met = lines().any(|(stage, line, _)| {
            let (reply, matches) = (read(line), |row: &Row, reply: &Reply| {
                row.matches(*stage, reply.code, reply.enhanced, &reply.text().to_ascii_lowercase())
            });
            matches(row, &reply) && TABLE[..at].iter().all(|before| !matches(before, &reply))
        });
        assert!(met, "row {at} (text {:?}) is not the first match of any line", row.3);
    }
}
