//! What goes over the wire for a message, and what each answer to it comes to.

use jiff::Timestamp;

use super::*;
use crate::delivery::connection::tests::{Peer, connection};
use crate::message::envelope::{Address, QueueId, ReversePath};

/// A message to these.
pub fn envelope(recipients: &[&str]) -> Envelope {
    Envelope {
        id: QueueId::new(Timestamp::UNIX_EPOCH, 1),
        message_id: "<1@contoso.com>".into(),
        client_name: "app".into(),
        reverse_path: ReversePath::Address(Address::parse("noreply@contoso.com").unwrap()),
        recipients: recipients.iter().map(|to| Address::parse(to).unwrap()).collect(),
        body: BodyType::SevenBit,
        smtp_utf8: false,
        size: None,
        archive: None,
        mailbox: None,
    }
}

const EXCHANGE: Capabilities = Capabilities {
    pipelining: true,
    chunking: true,
    eight_bit_mime: true,
    smtp_utf8: true,
    size: true,
    max_size: Some(1000),
    xoauth2: true,
    login: true,
    starttls: false,
};

fn wire(capabilities: Capabilities, envelope: &Envelope, partial: PartialDelivery) -> String {
    commands(capabilities, envelope, 42, partial).into_iter().map(|(_, command)| command).collect()
}

fn replies(lines: &[&str]) -> Vec<Reply> {
    let parse = |line: &&str| Reply::parse(format!("{line}\r\n").as_bytes()).unwrap().unwrap().0;
    lines.iter().map(parse).collect()
}

const ALL: [PartialDelivery; 3] =
    [PartialDelivery::Never, PartialDelivery::UnlessRejected, PartialDelivery::Always];

/// The outcome that stops the message, and the positions of those refused.
fn judged(lines: &[&str], to: &[&str], partial: PartialDelivery) -> (Option<DeliveryOutcome>, Vec<usize>) {
    let EnvelopeVerdict { stop, refused, .. } = judge(&replies(lines), &envelope(to), partial);
    (stop.map(|verdict| verdict.outcome), refused.iter().map(|one| one.recipient).collect())
}

#[test]
fn one_recipient_is_one_round_trip() {
    for partial in ALL {
        assert_eq!(
            wire(EXCHANGE, &envelope(&["a@b.example"]), partial),
            "MAIL FROM:<noreply@contoso.com> SIZE=42\r\nRCPT TO:<a@b.example>\r\nDATA\r\n"
        );
    }
}

#[test]
fn several_recipients_are_one_round_trip_unless_it_is_all_or_none() {
    let to = envelope(&["a@b.example", "c@d.example"]);
    for (partial, end) in ALL.into_iter().zip(["RCPT TO:<c@d.example>\r\n", "DATA\r\n", "DATA\r\n"]) {
        assert!(wire(EXCHANGE, &to, partial).ends_with(end), "{partial:?}");
    }
}

#[test]
fn extensions_are_used_only_when_announced() {
    let mut envelope = envelope(&["é@b.example"]);
    envelope.body = BodyType::EightBitMime;
    assert!(
        wire(EXCHANGE, &envelope, PartialDelivery::Never)
            .starts_with("MAIL FROM:<noreply@contoso.com> SIZE=42 BODY=8BITMIME SMTPUTF8\r\n")
    );
    let plain = Capabilities { size: false, pipelining: false, ..EXCHANGE };
    assert_eq!(
        wire(plain, &self::envelope(&["a@b.example"]), PartialDelivery::Always),
        "MAIL FROM:<noreply@contoso.com>\r\nRCPT TO:<a@b.example>\r\n"
    );
}

fn code(refused: Option<TransactionEnd>) -> u16 {
    refused.unwrap().verdict.reply.unwrap().code
}

#[test]
fn what_the_upstream_cannot_take_is_refused_before_it_is_asked() {
    let mut message = envelope(&["a@b.example"]);
    assert!(unsupported(EXCHANGE, &message, 1000).is_none());
    assert_eq!(code(unsupported(EXCHANGE, &message, 1001)), 552);
    message.body = BodyType::EightBitMime;
    let seven_bit = Capabilities { eight_bit_mime: false, ..EXCHANGE };
    assert_eq!(code(unsupported(seven_bit, &message, 1)), 554);
    let ascii = Capabilities { smtp_utf8: false, ..EXCHANGE };
    assert_eq!(code(unsupported(ascii, &envelope(&["é@b.example"]), 1)), 553);
}

const TWO: [&str; 2] = ["a@b.example", "c@d.example"];
const UNKNOWN: &str = "550 5.1.1 unknown";
const BUSY: &str = "450 4.2.1 busy";

#[test]
fn all_accepted_is_no_refusal() {
    for partial in ALL {
        assert_eq!(judged(&["250 ok", "250 ok", "354 go"], &["a@b.example"], partial), (None, vec![]));
    }
}

#[test]
fn all_or_none_is_stopped_by_any_refusal() {
    let to = ["a@b.example", "c@d.example", "e@f.example"];
    let (stop, refused) = judged(&["250 ok", BUSY, UNKNOWN, "250 ok"], &to, PartialDelivery::Never);
    assert_eq!((stop, refused), (Some(DeliveryOutcome::RejectRecipient), vec![0, 1]));
    let (stop, refused) = judged(&["250 ok", "250 ok", BUSY, "250 ok"], &to, PartialDelivery::Never);
    assert_eq!((stop, refused), (Some(DeliveryOutcome::Transient(None)), vec![1]));
}

#[test]
fn a_refusal_for_now_keeps_the_message_from_nobody_else() {
    for partial in [PartialDelivery::UnlessRejected, PartialDelivery::Always] {
        assert_eq!(judged(&["250 ok", BUSY, "250 ok", "354 go"], &TWO, partial), (None, vec![0]));
    }
}

#[test]
fn a_refusal_for_good_stops_the_message_while_the_application_waits() {
    let lines = ["250 ok", UNKNOWN, "250 ok", "354 go"];
    let rejected = (Some(DeliveryOutcome::RejectRecipient), vec![0]);
    assert_eq!(judged(&lines, &TWO, PartialDelivery::UnlessRejected), rejected);
    assert_eq!(judged(&lines, &TWO, PartialDelivery::Always), (None, vec![0]));
}

#[test]
fn a_refused_archive_copy_stops_nothing_and_speaks_for_nobody() {
    let archived = Envelope { archive: Address::parse(TWO[1]).ok(), ..envelope(&TWO) };
    let judged = |lines: &[&str], envelope: &Envelope, partial| {
        let EnvelopeVerdict { stop, refused, .. } = judge(&replies(lines), envelope, partial);
        (stop.map(|verdict| verdict.outcome), refused.iter().map(|one| one.recipient).collect::<Vec<_>>())
    };
    for partial in ALL {
        for refusal in [UNKNOWN, BUSY] {
            assert_eq!(judged(&["250 ok", "250 ok", refusal], &archived, partial), (None, vec![1]));
        }
        let busy = Some(DeliveryOutcome::Transient(None));
        assert_eq!(judged(&["250 ok", BUSY, UNKNOWN], &archived, partial), (busy, vec![0, 1]));
        let alone = Envelope { archive: Address::parse(TWO[0]).ok(), ..envelope(&TWO[..1]) };
        let rejected = Some(DeliveryOutcome::RejectRecipient);
        assert_eq!(judged(&["250 ok", UNKNOWN], &alone, partial), (rejected, vec![0]));
    }
}

#[test]
fn nobody_accepted_is_the_end_whatever_is_allowed() {
    for partial in ALL {
        let (stop, refused) = judged(&["250 ok", BUSY, UNKNOWN, "354 go"], &TWO, partial);
        assert_eq!((stop, refused), (Some(DeliveryOutcome::RejectRecipient), vec![0, 1]), "{partial:?}");
    }
}

#[test]
fn a_fault_of_the_route_speaks_before_a_refused_recipient() {
    let lines = ["250 ok", UNKNOWN, "550 5.7.705 Access denied"];
    let (stop, _) = judged(&lines, &TWO, PartialDelivery::Never);
    assert_eq!(stop, Some(DeliveryOutcome::RouteFault(Reason::TenantBlocked)));
}

#[test]
fn replies_that_never_came_are_transient_for_those_without_one() {
    let three = ["a@b.example", "c@d.example", "e@f.example"];
    for partial in ALL {
        let (stop, refused) = judged(&["250 ok", UNKNOWN, "421 4.3.2 closing"], &three, partial);
        assert_eq!(stop, Some(DeliveryOutcome::Transient(Some(Reason::UpstreamUnavailable))));
        assert_eq!(refused, [0, 1]);
        let (stop, _) = judged(&["250 ok"], &TWO, partial);
        assert!(matches!(stop, Some(DeliveryOutcome::Transient(_))));
    }
}

/// Sends to these recipients while the peer plays its part, and gives both ends of the story.
async fn conversation<T>(
    to: &[&str],
    partial: PartialDelivery,
    play: impl AsyncFnOnce(&mut Peer) -> T,
) -> (Result<TransactionEnd, Interruption>, T) {
    let (mut connection, mut peer) = connection("mx").await;
    let (to, body) = (envelope(to), Body::new("", "Subject: x\r\n\r\n.x\r\n"));
    tokio::join!(send(&mut connection, &to, &body, partial), play(&mut peer))
}

async fn lines(peer: &mut Peer, count: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for _ in 0..count {
        lines.push(peer.line().await);
    }
    lines
}

const REJECTED: &str = "550 5.1.1 unknown\r\n";

#[tokio::test(start_paused = true)]
async fn the_whole_envelope_is_sent_before_anything_is_answered() {
    let (ended, ()) = conversation(&TWO, PartialDelivery::Always, async |peer| {
        // Would wait for ever if the client waited for a reply.
        assert_eq!(lines(peer, 4).await[3], "DATA\r\n");
        peer.say(&format!("250 ok\r\n{REJECTED}250 ok\r\n354 go\r\n")).await;
        assert_eq!(lines(peer, 4).await.concat(), "Subject: x\r\n\r\n..x\r\n.\r\n");
        peer.say("250 2.0.0 taken\r\n").await;
    })
    .await;
    let ended = ended.unwrap();
    assert_eq!(
        (ended.verdict.outcome, ended.accepted, ended.clean),
        (DeliveryOutcome::Delivered, true, true)
    );
    assert_eq!(ended.refused.len(), 1);
    assert_eq!(ended.refused[0].verdict.outcome, DeliveryOutcome::RejectRecipient);
}

#[tokio::test(start_paused = true)]
async fn a_refusal_for_good_while_the_application_waits_leaves_no_message_behind() {
    let (ended, rest) = conversation(&TWO, PartialDelivery::UnlessRejected, async |peer| {
        lines(peer, 4).await;
        peer.say(&format!("250 ok\r\n{REJECTED}250 ok\r\n354 go\r\n")).await;
        peer.silence(Duration::from_secs(60)).await
    })
    .await;
    let ended = ended.unwrap();
    assert_eq!((ended.verdict.outcome, ended.clean), (DeliveryOutcome::RejectRecipient, false));
    assert_eq!(rest, "", "no end of the data, which would send an empty message");
}

#[tokio::test(start_paused = true)]
async fn a_354_for_nobody_is_ended_at_once_and_the_connection_goes_on() {
    for partial in [PartialDelivery::UnlessRejected, PartialDelivery::Always] {
        let (ended, ()) = conversation(&TWO, partial, async |peer| {
            lines(peer, 4).await;
            peer.say(&format!("250 ok\r\n{REJECTED}{REJECTED}354 go\r\n")).await;
            assert_eq!(peer.line().await, ".\r\n");
            peer.say("554 5.5.1 no valid recipients\r\n").await;
            assert_eq!(peer.line().await, "RSET\r\n");
            peer.say("250 2.0.0 reset\r\n").await;
        })
        .await;
        let ended = ended.unwrap();
        assert_eq!(
            (ended.verdict.outcome, ended.clean),
            (DeliveryOutcome::RejectRecipient, true),
            "{partial:?}"
        );
        assert_eq!(ended.refused.len(), 2);
    }
}

#[tokio::test(start_paused = true)]
async fn a_goodbye_at_any_point_is_transient_and_the_connection_is_not_used_again() {
    let before = ["", "250 ok\r\n", "250 ok\r\n250 ok\r\n", "250 ok\r\n250 ok\r\n250 ok\r\n"];
    for said in before {
        let (ended, ()) = conversation(&TWO, PartialDelivery::Always, async |peer| {
            lines(peer, 4).await;
            peer.say(&format!("{said}421 4.3.2 closing\r\n")).await;
        })
        .await;
        let ended = ended.unwrap();
        assert!(
            matches!(ended.verdict.outcome, DeliveryOutcome::Transient(_)),
            "{said}: {:?}",
            ended.verdict
        );
        assert!(!ended.clean, "{said}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_cut_before_the_content_cannot_have_delivered_and_one_behind_it_can() {
    let (ended, ()) = conversation(&TWO, PartialDelivery::Always, async |peer| {
        lines(peer, 4).await;
        peer.say("250 ok\r\n250 ok\r\n").await;
        peer.hang_up();
    })
    .await;
    let cut = ended.unwrap_err();
    assert!(cut.repeatable && cut.undelivered, "{cut:?}");
    let (ended, ()) = conversation(&TWO, PartialDelivery::Always, async |peer| {
        lines(peer, 4).await;
        peer.say("250 ok\r\n250 ok\r\n250 ok\r\n354 go\r\n").await;
        lines(peer, 4).await;
        peer.hang_up();
    })
    .await;
    let cut = ended.unwrap_err();
    assert!(!cut.repeatable && !cut.undelivered, "{cut:?}");
    assert!(cut.verdict().text.contains("unknown"), "{:?}", cut.verdict());
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_drips_does_not_collect_the_limits_of_all_replies() {
    let started = crate::clock::now();
    let many: Vec<String> = (0..90).map(|n| format!("reader{n}@fabrikam.com")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let ((mut connection, mut peer), to) = (connection("mx").await, envelope(&many));
    let body = Body::new("", "x\r\n");
    let drip = async {
        lines(&mut peer, 92).await;
        peer.drip(&format!("250 {}\r\n", "ok ".repeat(60)).repeat(92)).await;
    };
    let ended = tokio::select! {
        ended = send(&mut connection, &to, &body, PartialDelivery::Always) => ended,
        () = drip => panic!("the replies ended"),
    };
    assert!(matches!(ended.unwrap_err().error, ConnectionError::Timeout(_)));
    assert_eq!(started.elapsed(), timeouts::ENVELOPE);
}
