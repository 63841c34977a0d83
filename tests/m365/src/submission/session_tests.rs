//! Conversations as values: waits, faults, and input that nobody should send.

use super::*;
use crate::{
    config::{Config, OverRate},
    directory::{SAMPLE_MAILBOX, SAMPLE_SUBJECT},
    entra::{AccessTokenKey, Resource},
    faults::{Rule, SmtpAction},
    submission::{line::MAX_LINE, xoauth2},
};

fn now() -> Timestamp {
    Timestamp::from_second(1_790_000_000).unwrap()
}

fn office() -> Office {
    Office::new(Config::contoso(), AccessTokenKey::generate(), vec!["localhost".into()])
}

/// A conversation that is logged in.
fn logged_in(office: &mut Office) -> Session {
    let mut session = Session::new(Peer::default());
    let handshake = Handshake { version: "TLSv1_3".into(), sni: Some("localhost".into()), certificate: None };
    session.secured(handshake, office, now());
    let payload = xoauth2::render(
        SAMPLE_MAILBOX,
        &office.sample_token(Resource::Submission, SAMPLE_SUBJECT, now(), 600),
    );
    session.receive(format!("EHLO a\r\nAUTH XOAUTH2 {payload}\r\n").as_bytes(), office, now());
    assert!(session.login.is_some());
    session
}

fn waits(steps: &[Step]) -> Vec<u64> {
    steps.iter().filter_map(|step| if let Step::Wait(time) = step { Some(*time) } else { None }).collect()
}

#[test]
fn a_permanent_refusal_waits_and_nothing_else_does() {
    let mut office = office();
    let mut session = Session::new(Peer::default());
    assert_eq!(waits(&session.receive(b"EHLO a\r\nNOOP\r\n", &mut office, now())), Vec::<u64>::new());
    let steps = session.receive(b"XYZZY\r\n", &mut office, now());
    assert!(matches!(&steps[..], [Step::Wait(5000), Step::Send(text)] if text.starts_with(b"500 5.3.3 ")));
}

#[test]
fn over_the_rate_mail_may_be_delayed_until_the_minute_has_room() {
    let mut office = office();
    office.config.limits.messages_per_minute = 1;
    office.config.limits.over_rate = OverRate::Delay;
    let mut session = logged_in(&mut office);
    let mail = b"MAIL FROM:<noreply@contoso.com>\r\nRSET\r\n";
    assert_eq!(waits(&session.receive(mail, &mut office, now())), Vec::<u64>::new());
    assert_eq!(waits(&session.receive(mail, &mut office, now())), [60_000]);
}

/// A service with one fault at a stage.
fn office_with(stage: Stage, action: SmtpAction) -> Office {
    let mut office = office();
    office.faults.submission.rules = vec![Rule::always(stage, action)];
    office
}

#[test]
fn a_reply_may_be_dripped_and_the_next_one_is_not() {
    let mut office = office_with(Stage::Ehlo, SmtpAction::Drip(7));
    let mut session = Session::new(Peer::default());
    let steps = session.receive(b"HELO a\r\nNOOP\r\n", &mut office, now());
    assert!(
        matches!(&steps[..], [Step::Drip(7), Step::Send(_), Step::Drip(0), Step::Send(noop)] if noop.starts_with(b"250 2.0.0"))
    );
}

#[test]
fn plaintext_may_come_in_the_packet_of_the_reply_to_starttls() {
    let mut office = office_with(Stage::StartTls, SmtpAction::Append("250 injected\r\n".into()));
    let mut session = Session::new(Peer::default());
    let steps = session.receive(b"HELO a\r\nSTARTTLS\r\n", &mut office, now());
    let [Step::Send(_), Step::Send(reply), Step::StartTls] = &steps[..] else { panic!("{steps:?}") };
    assert_eq!(reply, b"220 2.0.0 SMTP server ready\r\n250 injected\r\n");
}

#[test]
fn a_message_takes_its_time_before_its_reply() {
    let mut office = office();
    office.config.pace.message_milliseconds = 50;
    let mut session = logged_in(&mut office);
    let message = b"MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<a@b.example>\r\nDATA\r\n\
                    From: noreply@contoso.com\r\n\r\n.\r\n";
    assert_eq!(waits(&session.receive(message, &mut office, now())), [50]);
}

#[test]
fn a_line_without_end_is_cut_off_early() {
    let (mut office, mut session) = (office(), Session::new(Peer::default()));
    session.receive(&vec![b'x'; MAX_LINE + 1], &mut office, now());
    assert!(session.is_over());
    session.receive(&vec![b'x'; 1 << 20], &mut office, now());
    assert_eq!(session.buffer.len(), 0);
}

#[test]
fn no_input_makes_the_session_fail_or_grow() {
    let words: [&[u8]; 14] = [
        b"EHLO a",
        b"MAIL FROM:<noreply@contoso.com>",
        b"RCPT TO:<a@b.example>",
        b"DATA",
        b"BDAT 5 LAST",
        b"BDAT 0",
        b"RSET",
        b"AUTH XOAUTH2",
        b"AUTH LOGIN",
        b"\r\n",
        b"\n",
        b".",
        b"\0\xff",
        b" ",
    ];
    // A linear congruential generator (Numerical Recipes): the same conversations on every run.
    let mut state = 1_u32;
    let mut next = |below: usize| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as usize % below
    };
    for _ in 0..300 {
        let mut office = office();
        let mut session = logged_in(&mut office);
        for _ in 0..60 {
            let word = words[next(words.len())];
            session.receive(word, &mut office, now());
            if next(3) > 0 {
                session.receive(b"\r\n", &mut office, now());
            }
            assert!(session.buffer.len() <= MAX_LINE);
        }
        session.ended(&mut office, now());
    }
}
