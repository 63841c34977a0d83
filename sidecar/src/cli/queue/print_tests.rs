//! What a person and a program read.

use mailroute_route::condition::Reason;

use super::*;
use crate::cli::queue::listing::Counts;
use crate::spool::Kind;

fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_800_000_000 + second).unwrap()
}

fn trouble(reason: Option<Reason>, text: &str) -> DeliveryProblem {
    let host = Some("FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM".into());
    DeliveryProblem {
        at: at(20),
        outcome: "transient".into(),
        reason,
        text: text.into(),
        replied: true,
        host,
    }
}

fn row(id: &str, state: State, next: Option<Timestamp>, trouble: Option<DeliveryProblem>) -> Row {
    let about = About {
        accepted: at(0),
        kind: Kind::Message,
        attempts: 3,
        bytes: 14_540,
        message_id: "<1@contoso.com>".into(),
        from: "noreply@contoso.com".into(),
        to: Counts { waiting: 1, delivered: 2, failed: 0 },
        trouble,
    };
    Row { id: id.into(), state, next, waits_for: None, about: Some(about), unreadable: None }
}

fn sample() -> List {
    let unreadable = Some("cut off".into());
    List {
        running: true,
        messages: vec![
            row(
                "01kfx0000000000000a",
                State::Held,
                Some(at(50)),
                Some(trouble(Some(Reason::SmtpAuthDisabledTenant), "535")),
            ),
            row(
                "01kfx0000000000000b",
                State::Waiting,
                Some(at(400)),
                Some(trouble(None, "452 4.2.2 \x1b[31mfull")),
            ),
            row("01kfx0000000000000c", State::Trying, Some(at(50)), None),
            Row {
                id: "01kfx0000000000000d".into(),
                state: State::Dead,
                next: None,
                waits_for: None,
                about: None,
                unreadable,
            },
        ],
        corrupt: vec!["notes.txt".into()],
        route_deleted: false,
    }
}

#[test]
fn a_list_is_a_table_with_the_reason_at_the_end() {
    let expected = "\
ID                   STATE    AGE  NEXT  TRIES      SIZE  FROM                  TO  REASON
01kfx0000000000000a  held     60s   now      3  14.1 KiB  noreply@contoso.com  1/3  SmtpAuthDisabledTenant
01kfx0000000000000b  waiting  60s    5m      3  14.1 KiB  noreply@contoso.com  1/3  452 4.2.2 \u{fffd}[31mfull
01kfx0000000000000c  trying   60s   now      3  14.1 KiB  noreply@contoso.com  1/3  -
01kfx0000000000000d  dead       -     -      -         -  -                      -  cut off
notes.txt            corrupt    -     -      -         -  -                      -  -
";
    assert_eq!(list(&sample(), at(60)), expected);
}

#[test]
fn an_empty_list_and_a_program_that_does_not_run_are_said() {
    let empty = List { running: false, messages: vec![], corrupt: vec![], route_deleted: false };
    let expected = "The queue is empty.\n\nNo sidecar uses this spool: this is what is on disk.\n";
    assert_eq!(list(&empty, at(0)), expected);
}

#[test]
fn programs_read_what_is_known_by_name() {
    let json: serde_json::Value = serde_json::from_str(&json(&sample())).unwrap();
    assert_eq!((&json["running"], &json["corrupt"][0]), (&true.into(), &"notes.txt".into()));
    let first = serde_json::json!({
        "id": "01kfx0000000000000a", "state": "held", "next": "2027-01-15T08:00:50Z",
        "accepted": "2027-01-15T08:00:00Z", "kind": "message", "attempts": 3, "bytes": 14540,
        "from": "noreply@contoso.com", "messageId": "<1@contoso.com>", "to": {"waiting": 1, "delivered": 2, "failed": 0},
        "trouble": {
            "at": "2027-01-15T08:00:20Z", "outcome": "transient", "reason": "SmtpAuthDisabledTenant",
            "text": "535", "replied": true, "host": "FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM",
        },
    });
    assert_eq!(json["messages"][0], first);
    let last = serde_json::json!({"id": "01kfx0000000000000d", "state": "dead", "unreadable": "cut off"});
    assert_eq!(json["messages"][3], last);
}

#[test]
fn every_row_is_read_again_as_it_was() {
    for row in sample().messages {
        assert_eq!(serde_json::from_str::<Row>(&json(&row)).unwrap(), row);
    }
}

#[test]
fn a_message_is_told_from_its_envelope_to_its_header() {
    let failed = RecipientStatus::Failed(trouble(None, "550 5.1.10 unknown"));
    let one = Message {
        row: row("01kfx0000000000000b", State::Waiting, Some(at(180)), Some(trouble(None, "452 4.2.2 full"))),
        client: "app\x1b[2J".into(),
        recipients: [("ann@fabrikam.com", RecipientStatus::Waiting), ("bob@fabrikam.com", failed)]
            .map(|(address, fate)| Recipient { address: address.into(), fate })
            .into(),
        header: "Subject: \x07bell\r\n\r\n".into(),
    };
    let expected = "\
Message       01kfx0000000000000b
State         waiting, next try in 2m (2027-01-15T08:03:00Z)
Accepted      2027-01-15T08:00:00Z (60s ago) from app\u{fffd}[2J
Tries         3
Size          14.1 KiB
From          <noreply@contoso.com>
Message-ID    <1@contoso.com>
Last error    2027-01-15T08:00:20Z transient: 452 4.2.2 full (from FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM)
Recipients
  <ann@fabrikam.com> waiting
  <bob@fabrikam.com> failed: 2027-01-15T08:00:20Z transient: 550 5.1.10 unknown (from FR0P281MB0123.DEUP281.PROD.OUTLOOK.COM)

Subject: \u{fffd}bell

";
    assert_eq!(message(&one, at(60)), expected);
}

#[test]
fn sizes_and_ages_have_few_digits() {
    assert_eq!(
        [0, 1023, 1024, 1_048_575, 36_700_160].map(size),
        ["0 B", "1023 B", "1.0 KiB", "1023.9 KiB", "35.0 MiB"]
    );
    let ages = [119, 120, 7199, 7200, 172_799, 172_800].map(|seconds| ago(at(0), at(seconds)));
    assert_eq!(ages, ["119s", "2m", "119m", "2h", "47h", "2d"]);
    assert_eq!(ago(at(5), at(0)), "0s");
}

#[test]
fn what_was_not_done_is_said_below_what_was() {
    let failed = vec!["no message x is kept here".into()];
    assert_eq!(
        changed(&Changed { done: 1, failed, waits_for: None }, "dropped", at(0)),
        "1 message dropped\nno message x is kept here\n"
    );
    let two = Changed { done: 2, ..Changed::default() };
    assert_eq!(changed(&two, "due now", at(0)), "2 messages due now\n");
}

fn quota(until: Option<Timestamp>) -> Obstacle {
    let text = "limits of the mailbox: the 24-hour recipient limit is used up".into();
    Obstacle { reason: Some(Reason::DailyQuotaExceeded), text, until, limits: true }
}

#[test]
fn what_a_message_waits_for_comes_before_what_it_met_last() {
    let mut fresh = row("01kfx0000000000000a", State::Held, Some(at(240)), None);
    fresh.waits_for = Some(quota(Some(at(240))));
    let mut tried = row("01kfx0000000000000b", State::Held, None, Some(trouble(None, "452 4.2.2 full")));
    tried.waits_for = Some(quota(None));
    let listed = List { running: true, route_deleted: false, messages: vec![fresh, tried], corrupt: vec![] };
    let table = list(&listed, at(60));
    let cells: Vec<Vec<&str>> = table.lines().skip(1).map(|line| line.split_whitespace().collect()).collect();
    assert_eq!((cells[0][1], cells[0][3], cells[0].last()), ("held", "3m", Some(&"DailyQuotaExceeded")));
    assert_eq!((cells[1][1], cells[1][3], cells[1].last()), ("held", "-", Some(&"DailyQuotaExceeded")));
}

#[test]
fn a_person_is_told_what_keeps_messages_from_being_tried() {
    let changed_now = Changed { done: 44, waits_for: Some(quota(Some(at(200)))), ..Changed::default() };
    let expected = "44 messages will be tried now\n\
        Held, next try in 3m (2027-01-15T08:03:20Z): DailyQuotaExceeded: limits of the mailbox: the 24-hour recipient \
        limit is used up\n";
    assert_eq!(changed(&changed_now, "will be tried now", at(20)), expected);
}

#[test]
fn a_character_that_is_cut_in_two_pieces_is_shown_whole() {
    let text = "Grüße, \u{1f600}\r\n\tend\x1b".as_bytes();
    for cut in 0..=text.len() {
        let mut terminal = Terminal::default();
        let shown = terminal.show(&text[..cut]) + &terminal.show(&text[cut..]);
        assert_eq!(shown, "Grüße, \u{1f600}\n\tend\u{fffd}", "cut at {cut}");
    }
    assert_eq!(Terminal::default().show(b"a\xffb"), "a\u{fffd}b");
}
