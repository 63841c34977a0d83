//! What goes out in one flight, and what each of its replies comes to.

use std::time::Duration;

use super::*;
use crate::delivery::connection::tests::{Peer, connection};
use crate::delivery::transaction::tests::envelope;
use crate::outcome::DeliveryOutcome;

const TO: [&str; 2] = ["a@b.example", "c@d.example"];
const MESSAGE: &str = "Subject: x\r\n\r\n.\r\n..\r\nRSET\r\n";

fn flight(to: &[&str]) -> String {
    let recipients: String = to.iter().map(|to| format!("RCPT TO:<{to}>\r\n")).collect();
    format!("MAIL FROM:<noreply@contoso.com>\r\n{recipients}BDAT {} LAST\r\n{MESSAGE}", MESSAGE.len())
}

async fn expect(peer: &mut Peer, text: &str) {
    let mut sent = String::new();
    while sent.len() < text.len() {
        sent.push_str(&peer.line().await);
    }
    assert_eq!(sent, text);
}

/// A flight that is answered like this at once, and the answer to RSET if that follows.
async fn sent(to: &[&str], replies: &str, reset: Option<&str>) -> Result<FlightEnd, Interruption> {
    let (mut connection, mut peer) = connection("mx").await;
    let (envelope, body) = (envelope(to), Body::new("", MESSAGE));
    let server = async {
        expect(&mut peer, &flight(to)).await;
        peer.say(replies).await;
        if let Some(reset) = reset {
            assert_eq!(peer.line().await, "RSET\r\n");
            peer.say(reset).await;
        } else if !replies.ends_with("taken\r\n") {
            peer.hang_up();
        }
    };
    tokio::join!(send(&mut connection, &envelope, &body, PartialDelivery::Always), server).0
}

fn ended(end: Result<FlightEnd, Interruption>) -> TransactionEnd {
    match end.unwrap() {
        FlightEnd::Ended(ended) => ended,
        other => panic!("{other:?}"),
    }
}

fn refused(end: &TransactionEnd) -> Vec<usize> {
    end.refused.iter().map(|one| one.recipient).collect()
}

#[tokio::test]
async fn all_of_it_goes_out_before_the_first_reply_octet_for_octet() {
    let end = ended(sent(&TO, "250 s\r\n250 r\r\n250 r\r\n250 2.6.0 taken\r\n", None).await);
    assert_eq!((end.verdict.outcome, end.clean, end.accepted), (DeliveryOutcome::Delivered, true, true));
    assert!(end.refused.is_empty());
}

#[tokio::test]
async fn a_recipient_refused_while_the_content_is_under_way_keeps_it_from_nobody_else() {
    let end = ended(sent(&TO, "250 s\r\n550 5.1.1 r\r\n250 r\r\n250 2.6.0 taken\r\n", None).await);
    assert_eq!((end.verdict.outcome, refused(&end)), (DeliveryOutcome::Delivered, vec![0]));
}

#[tokio::test]
async fn with_nobody_left_the_refusal_of_the_recipients_counts_and_not_that_of_bdat() {
    let replies = "250 s\r\n550 5.1.1 r\r\n550 5.1.1 r\r\n503 5.5.1 No valid recipients\r\n";
    let end = ended(sent(&TO, replies, Some("250 2.0.0 ok\r\n")).await);
    assert_eq!((end.verdict.outcome, refused(&end)), (DeliveryOutcome::RejectRecipient, vec![0, 1]));
    assert!(end.clean && !end.accepted);
}

#[tokio::test]
async fn a_refused_mail_counts_and_what_follows_from_it_does_not() {
    let replies = "451 4.3.2 later\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n503 5.5.1 no\r\n";
    let end = ended(sent(&TO, replies, Some("250 2.0.0 ok\r\n")).await);
    assert!(matches!(end.verdict.outcome, DeliveryOutcome::Transient(_)), "{end:?}");
    assert!(end.clean && end.refused.is_empty());
    // A server that reads on where it should drop the content is one that nobody speaks to again.
    let end = ended(sent(&TO, replies, Some("500 5.5.2 what\r\n")).await);
    assert!(!end.clean);
    let end = ended(sent(&TO, "451 4.3.2 later\r\n503 5.5.1 no\r\n", None).await);
    assert!(!end.clean && matches!(end.verdict.outcome, DeliveryOutcome::Transient(_)), "{end:?}");
}

#[tokio::test]
async fn a_goodbye_in_the_middle_ends_it_for_all() {
    for replies in [
        "421 4.3.2 bye\r\n",
        "250 s\r\n250 r\r\n421 4.3.2 bye\r\n",
        "250 s\r\n250 r\r\n250 r\r\n421 4.3.2 bye\r\n",
    ] {
        let end = ended(sent(&TO, replies, None).await);
        assert!(
            !end.clean && matches!(end.verdict.outcome, DeliveryOutcome::Transient(_)),
            "{replies}: {end:?}"
        );
    }
}

#[tokio::test]
async fn a_refusal_of_bdat_is_no_verdict_on_the_message() {
    let replies = "250 s\r\n250 r\r\n250 r\r\n552 5.3.4 Header size exceeds fixed maximum size\r\n";
    for (reset, is_clean) in [("250 2.0.0 ok\r\n", true), ("503 5.5.1 no\r\n", false)] {
        match sent(&TO, replies, Some(reset)).await.unwrap() {
            FlightEnd::Refused { reply, clean } => assert_eq!((reply.code, clean), (552, is_clean)),
            other => panic!("{other:?}"),
        }
    }
    // What may be different the next time is.
    let replies = "250 s\r\n250 r\r\n250 r\r\n451 4.7.0 later\r\n";
    let end = ended(sent(&TO, replies, Some("250 2.0.0 ok\r\n")).await);
    assert!(end.clean && matches!(end.verdict.outcome, DeliveryOutcome::Transient(_)), "{end:?}");
}

#[tokio::test]
async fn a_connection_that_ends_early_leaves_the_message_in_doubt() {
    for (replies, repeatable) in [("", true), ("250 s\r\n", false), ("250 s\r\n250 r\r\n250 r\r\n", false)] {
        let interrupted = sent(&TO, replies, None).await.unwrap_err();
        assert!(!interrupted.undelivered, "{replies}");
        assert_eq!(interrupted.repeatable, repeatable, "{replies}");
    }
}

#[tokio::test(start_paused = true)]
async fn silence_is_noticed_after_two_minutes() {
    for replies in ["", "250 s\r\n250 r\r\n250 r\r\n"] {
        let (mut connection, mut peer) = connection("mx").await;
        let (envelope, body) = (envelope(&TO), Body::new("", MESSAGE));
        let began = crate::clock::now();
        let silent = async {
            expect(&mut peer, &flight(&TO)).await;
            peer.say(replies).await;
            std::future::pending::<()>().await;
        };
        let end = tokio::select! {
            end = send(&mut connection, &envelope, &body, PartialDelivery::Always) => end,
            () = silent => unreachable!(),
        };
        assert!(matches!(end, Ok(FlightEnd::Silent)), "{end:?}");
        assert_eq!(began.elapsed(), Duration::from_secs(120));
    }
}

#[test]
fn only_what_cannot_be_wrong_for_others_goes_in_one_flight() {
    let can = Capabilities { pipelining: true, chunking: true, ..Capabilities::default() };
    let possible =
        |capabilities, to: &[&str], len, partial| is_possible(capabilities, &envelope(to), len, partial);
    for partial in [PartialDelivery::Never, PartialDelivery::UnlessRejected, PartialDelivery::Always] {
        assert!(possible(can, &TO[..1], MAX_OCTETS, partial));
        assert_eq!(possible(can, &TO, 1, partial), partial == PartialDelivery::Always);
        assert!(!possible(can, &TO[..1], MAX_OCTETS + 1, partial));
    }
    assert!(!possible(Capabilities { chunking: false, ..can }, &TO[..1], 1, PartialDelivery::Always));
    assert!(!possible(Capabilities { pipelining: false, ..can }, &TO[..1], 1, PartialDelivery::Always));
    let many: Vec<String> = (0..99).map(|n| format!("{n}@b.example")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert!(possible(can, &many[..98], 1, PartialDelivery::Always));
    assert!(!possible(can, &many, 1, PartialDelivery::Always), "their replies must fit between the two ends");
}
