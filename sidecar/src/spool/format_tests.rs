//! What is written is read again, and nothing else is.

use proptest::prelude::*;

use super::*;
use crate::spool::entry::tests::{sample, trouble};
use crate::spool::entry::{MAX_TEXT_BYTES, RecipientStatus};

fn progress(statuses: Vec<RecipientStatus>) -> Progress {
    let next = Timestamp::from_second(1_800_000_030).unwrap();
    let last = Some(trouble("451 4.3.2 try later"));
    Progress { attempts: 3, next, since: Some(next), reserved_until: Some(next), statuses, last }
}

#[test]
fn an_entry_is_readable_by_a_person() {
    let entry = sample(1_800_000_000, &["a@b.example"]);
    let head = String::from_utf8(encode_entry(&entry, 5, 0x1234_abcd).unwrap()).unwrap();
    let (first, rest) = head.split_once('\n').unwrap();
    assert!(first.starts_with("mailroute-message 1 "), "{first}");
    assert_eq!(
        rest,
        format!(
            r#"{{"id":"{}","kind":"message","accepted":"2027-01-15T08:00:00Z","from":"noreply@contoso.com","to":["a@b.example"],"messageId":"<1@contoso.com>","clientName":"app","bytes":5,"crc32":"1234abcd"}}"#,
            entry.envelope.id
        ) + "\n\n"
    );
}

#[test]
fn what_a_newer_version_adds_is_ignored() {
    let entry = sample(1_800_000_000, &["a@b.example"]);
    let record = serde_json::to_value(EntryRecord::new(&entry, 5, 6)).unwrap();
    let mut newer = record.as_object().unwrap().clone();
    newer.insert("priority".into(), 9.into());
    let mut head = Vec::new();
    frame::push(&mut head, MESSAGE, &serde_json::to_vec(&newer).unwrap()).unwrap();
    head.push(b'\n');
    assert_eq!(parse_entry(&head).unwrap().entry, entry);
}

#[test]
fn an_entry_that_makes_no_sense_is_refused() {
    let entry = sample(1_800_000_000, &["a@b.example"]);
    let good = serde_json::to_string(&EntryRecord::new(&entry, 5, 6)).unwrap();
    for (from, to) in [
        ("\"a@b.example\"", ""),
        ("\"a@b.example\"", "\"a@b> X\""),
        ("noreply@contoso.com", ""),
        (entry.envelope.id.as_str(), "../../etc/passwd"),
        ("00000006", "six"),
        ("2027-01-15", "2027-13-15"),
        ("\"bytes\":5", "\"bytes\":-5"),
    ] {
        let bad = good.replacen(from, to, 1);
        assert_ne!(bad, good);
        let mut head = Vec::new();
        frame::push(&mut head, MESSAGE, bad.as_bytes()).unwrap();
        head.push(b'\n');
        assert!(matches!(parse_entry(&head), Err(FormatError::Senseless(_))), "{bad}");
    }
}

#[test]
fn no_part_of_a_head_is_taken_for_the_whole() {
    let head = encode_entry(&sample(1_800_000_000, &["a@b.example", "c@d.example"]), 5, 6).unwrap();
    for len in 0..head.len() {
        let cut = parse_entry(&head[..len]);
        assert!(matches!(cut, Err(FormatError::CutOff { needed }) if needed > len), "{len}: {cut:?}");
    }
    assert_eq!(parse_entry(&head).unwrap().len, head.len());
}

#[test]
fn progress_is_read_as_it_was_written() {
    let progress = progress(vec![
        RecipientStatus::Waiting,
        RecipientStatus::Delivered,
        RecipientStatus::Failed(trouble("550 5.1.1 unknown")),
    ]);
    let state = encode_progress(&progress).unwrap();
    assert_eq!(parse_progress(&state, 3), Ok(progress));
    assert!(
        parse_progress(&state, 2).is_err() && parse_progress(&[state, b"\n".to_vec()].concat(), 3).is_err()
    );
}

#[test]
fn a_progress_of_an_older_version_reserves_nothing() {
    let progress = Progress { reserved_until: None, ..progress(vec![RecipientStatus::Waiting]) };
    let older = String::from_utf8(json(&progress).unwrap()).unwrap();
    assert!(!older.contains("reserved"), "{older}");
    let mut state = Vec::new();
    frame::push(&mut state, STATE, older.as_bytes()).unwrap();
    assert_eq!(parse_progress(&state, 1), Ok(progress));
}

#[test]
fn a_long_reply_is_kept_in_part() {
    let state =
        encode_progress(&progress(vec![RecipientStatus::Failed(trouble(&"ä".repeat(MAX_TEXT_BYTES)))]))
            .unwrap();
    let RecipientStatus::Failed(trouble) = &parse_progress(&state, 1).unwrap().statuses[0] else {
        panic!("another fate")
    };
    assert_eq!(trouble.text, format!("{} …", "ä".repeat(MAX_TEXT_BYTES / 2 - 2)));
}

#[test]
fn a_reason_nobody_knows_does_not_cost_the_fates() {
    let known = String::from_utf8(json(&progress(vec![RecipientStatus::Delivered])).unwrap()).unwrap();
    let unknown = known.replace("SendAsDenied", "FromTheFuture");
    assert_ne!(known, unknown);
    let mut state = Vec::new();
    frame::push(&mut state, STATE, unknown.as_bytes()).unwrap();
    let read = parse_progress(&state, 1).unwrap();
    assert_eq!((read.statuses, read.last.unwrap().reason), (vec![RecipientStatus::Delivered], None));
}

#[test]
fn the_largest_state_can_be_read_again() {
    let progress = progress(vec![RecipientStatus::Failed(trouble(&"x".repeat(MAX_TEXT_BYTES))); 1000]);
    let state = encode_progress(&progress).unwrap();
    assert!(state.len() < frame::MAX_JSON_BYTES / 3, "{}", state.len());
    assert_eq!(parse_progress(&state, 1000), Ok(progress));
}

#[test]
fn the_seeds_of_the_fuzz_target_are_whole() {
    let mut head = Vec::new();
    frame::push(&mut head, MESSAGE, include_bytes!("../../fuzz/seeds/spool_entry/message")).unwrap();
    head.push(b'\n');
    assert_eq!(parse_entry(&head).unwrap().entry.envelope.recipients.len(), 2);
    let mut state = Vec::new();
    frame::push(&mut state, STATE, include_bytes!("../../fuzz/seeds/spool_entry/state")).unwrap();
    let RecipientStatus::Failed(_) = &parse_progress(&state, 3).unwrap().statuses[2] else {
        panic!("another fate")
    };
}

fn entry() -> impl Strategy<Value = Entry> {
    let address =
        "[a-z.+_äж-]{1,8}@[a-z0-9]{1,5}(\\.[a-z]{1,5}){0,2}|\"([ -!#-\\[\\]-~]|\\\\[ -~]){0,8}\"@[a-z]{1,5}";
    let address = address.prop_filter_map("an address", |text| Address::parse(&text).ok());
    let from = prop_oneof![Just(ReversePath::Null), address.clone().prop_map(ReversePath::Address)];
    let to = prop::collection::vec(address, 1..5);
    let flags = (any::<bool>(), any::<bool>(), any::<bool>(), any::<Option<u64>>());
    (0..4_000_000_000_i64, 0..1_000_000_000, any::<u64>(), from, to, "\\PC{0,20}", "\\PC{0,20}", flags)
        .prop_map(|(second, nano, random, reverse_path, recipients, message_id, client_name, flags)| {
            let accepted = Timestamp::new(second, nano).unwrap();
            let (notification, eight_bit, smtp_utf8, size) = flags;
            let envelope = Envelope {
                id: QueueId::new(accepted, random),
                message_id,
                client_name,
                reverse_path,
                archive: recipients.last().filter(|_| notification).cloned(),
                mailbox: recipients.first().filter(|_| notification).cloned(),
                recipients,
                body: if eight_bit { BodyType::EightBitMime } else { BodyType::SevenBit },
                smtp_utf8,
                size,
            };
            Entry { envelope, kind: if notification { Kind::Notification } else { Kind::Message }, accepted }
        })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn any_entry_is_read_as_it_was_written(entry in entry(), bytes: u64, crc32: u32, message in prop::collection::vec(any::<u8>(), 0..40)) {
        let head = encode_entry(&entry, bytes, crc32).unwrap();
        let len = head.len();
        prop_assert_eq!(parse_entry(&[head, message].concat()), Ok(Head { entry, bytes, crc32, len }));
    }

    #[test]
    fn any_octet_that_changes_is_noticed(entry in entry(), at: prop::sample::Index, bit in 0_u32..8) {
        let mut head = encode_entry(&entry, 5, 6).unwrap();
        let at = at.index(head.len());
        head[at] ^= 1_u8 << bit;
        prop_assert!(parse_entry(&head).is_err());
    }

    #[test]
    fn any_octets_are_an_entry_or_not(octets in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(parse_entry(&octets).is_err() && parse_progress(&octets, 1).is_err());
    }
}
