//! The ledger, one rule at a time. What they are for together is shown by the simulation in the scenarios.

use mailroute_route::control::{Allotment, Claim, Lease, LeaseUse, ShortOf};

use super::*;
use crate::budget::record::Record;

const SHOP: &str = "shop";

pub(super) const LIMITS: Limits = Limits { messages: 30, recipients: 10_000, connections: 3 };

pub(super) fn at(second: u64) -> Duration {
    Duration::from_secs(1_800_000_000 + second)
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Terms::default());
    ledger.limit(&SHOP.into(), "notifications", LIMITS, at(0));
    ledger
}

pub(super) fn claim(sequence: u64, messages: u32) -> Claim {
    Claim { instance: 1, sequence, messages, recipients: 1, ..Claim::default() }
}

/// One exchange, with everything written down that has to be.
fn exchange(ledger: &mut Ledger, who: u64, claim: &Claim, now: Duration) -> Allotment {
    exchange_of(ledger, &SHOP.into(), who, claim, now)
}

/// The same by a sidecar of this namespace.
pub(super) fn exchange_of(
    ledger: &mut Ledger,
    home: &Namespace,
    who: u64,
    claim: &Claim,
    now: Duration,
) -> Allotment {
    assert!(ledger.hear(home, Holder(who), claim, now));
    for _ in 0..2 {
        if let Decision::Answer(answer) = ledger.decide(Holder(who), now) {
            return answer;
        }
        let record = ledger.record(Some(Holder(who)), now);
        ledger.recorded(&record, now);
    }
    panic!("a record of what is asked for does not allow for it")
}

pub(super) fn used(lease: Lease, messages: u32) -> LeaseUse {
    LeaseUse {
        id: lease.id,
        messages: lease.messages,
        recipients: lease.recipients,
        ended: true,
        used_messages: messages,
        used_recipients: messages,
        age_millis: 0,
    }
}

pub(super) fn open(lease: Lease) -> LeaseUse {
    LeaseUse { ended: false, used_messages: 0, used_recipients: 0, ..used(lease, 0) }
}

#[test]
fn nothing_is_given_out_that_is_not_written_down() {
    let mut ledger = ledger();
    ledger.hear(&SHOP.into(), Holder(1), &claim(1, 1), at(0));
    assert_eq!(ledger.decide(Holder(1), at(0)), Decision::NeedsWrite);
    let record = ledger.record(Some(Holder(1)), at(0));
    assert_eq!(ledger.decide(Holder(1), at(0)), Decision::NeedsWrite, "not before it is there");
    ledger.recorded(&record, at(0));
    assert!(matches!(ledger.decide(Holder(1), at(0)), Decision::Answer(Allotment { lease: Some(_), .. })));
}

#[test]
fn a_lease_that_was_answered_and_is_not_named_was_not_received() {
    let mut ledger = ledger();
    assert!(exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.is_some());
    assert_eq!(ledger.view(at(1)).minute.0, 3);
    exchange(&mut ledger, 1, &claim(2, 0), at(1));
    assert_eq!(ledger.view(at(1)).minute.0, 0);
}

#[test]
fn what_is_not_used_comes_back_and_what_is_used_counts_for_a_minute() {
    let mut ledger = ledger();
    let lease = exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.unwrap();
    let told = Claim { leases: vec![used(lease, 2)], ..claim(2, 0) };
    exchange(&mut ledger, 1, &told, at(1));
    assert_eq!(ledger.view(at(60)).minute.0, 2);
    assert_eq!(ledger.view(at(62)).minute.0, 0);
    assert_eq!(ledger.view(at(62)).day.0, 2);
}

#[test]
fn an_end_is_confirmed_when_it_is_written_down_and_counted_once() {
    let mut ledger = ledger();
    let lease = exchange(&mut ledger, 1, &claim(1, 1), at(0)).lease.unwrap();
    let told = |sequence| Claim { leases: vec![used(lease, 1)], ..claim(sequence, 0) };
    assert!(exchange(&mut ledger, 1, &told(2), at(1)).confirmed.is_empty());
    assert!(!ledger.is_due(at(5)) && ledger.is_due(at(10)));
    let record = ledger.record(None, at(10));
    ledger.recorded(&record, at(10));
    assert_eq!(exchange(&mut ledger, 1, &told(3), at(11)).confirmed, [lease.id]);
    assert_eq!(ledger.view(at(11)).minute.0, 1);
}

#[test]
fn an_end_that_nobody_knows_of_is_confirmed_and_not_counted() {
    let mut ledger = ledger();
    let foreign = Lease { id: 77, messages: 5, recipients: 5, valid_millis: 0 };
    let told = Claim { leases: vec![used(foreign, 5)], ..claim(1, 0) };
    assert_eq!(exchange(&mut ledger, 1, &told, at(1)).confirmed, [77]);
    assert_eq!(ledger.view(at(1)).minute.0, 0);
}

#[test]
fn who_is_lost_counts_in_full_until_nothing_of_it_can_be_under_way() {
    let mut ledger = ledger();
    exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.unwrap();
    assert_eq!(ledger.view(at(121)).minute.0, 3, "cut off after a minute, and a minute more in the window");
    assert_eq!(ledger.view(at(125)).minute.0, 3);
    ledger.hear(&SHOP.into(), Holder(2), &claim(1, 0), at(126));
    assert_eq!(ledger.view(at(126)).minute.0, 3, "counted as it expires, late as that is noticed");
    assert_eq!(ledger.view(at(190)).minute.0, 0);
    assert_eq!(ledger.view(at(190)).day.0, 3);
}

#[test]
fn a_restart_counts_what_the_life_before_had() {
    let mut ledger = ledger();
    exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.unwrap();
    exchange(&mut ledger, 1, &Claim { instance: 2, ..claim(1, 0) }, at(5));
    assert_eq!((ledger.view(at(64)).minute.0, ledger.view(at(67)).minute.0), (3, 0));
    assert!(
        !ledger.hear(&SHOP.into(), Holder(1), &claim(9, 3), at(6)),
        "a word of the life before comes too late"
    );
}

#[test]
fn connections_are_shared_and_one_that_is_free_goes_to_the_first_in_the_line() {
    let mut ledger = ledger();
    let leases: Vec<Lease> =
        (1..=3).map(|who| exchange(&mut ledger, who, &claim(1, 1), at(0)).lease.unwrap()).collect();
    for who in 4..=5 {
        let answer = exchange(&mut ledger, who, &claim(1, 1), at(who));
        assert_eq!((answer.lease, answer.short_of), (None, Some(ShortOf::Connections)));
    }
    exchange(&mut ledger, 2, &Claim { leases: vec![used(leases[1], 1)], ..claim(2, 1) }, at(6));
    assert_eq!(exchange(&mut ledger, 5, &claim(2, 1), at(6)).lease, None, "there is one before it");
    assert!(exchange(&mut ledger, 4, &claim(2, 1), at(6)).lease.is_some());
}

#[test]
fn a_probe_takes_a_connection_and_no_message() {
    let mut ledger = Ledger::new(Terms::default());
    ledger.limit(&SHOP.into(), "a", Limits { connections: 1, ..LIMITS }, at(0));
    let probe = Claim { probe: true, ..claim(1, 0) };
    let lease = exchange(&mut ledger, 1, &probe, at(0)).lease.unwrap();
    assert_eq!((lease.messages, ledger.view(at(0)).minute.0), (0, 0));
    assert_eq!(exchange(&mut ledger, 2, &claim(1, 1), at(0)).short_of, Some(ShortOf::Connections));
}

#[test]
fn hundreds_that_start_at_once_look_at_the_way_three_at_a_time_within_their_patience() {
    const CROWD: u64 = 300;
    let (second, tenth) = (Duration::from_secs(1), Duration::from_millis(100));
    let mut ledger = ledger();
    // When each comes next, and with which lease.
    let mut coming: BTreeMap<u64, (Duration, Option<Lease>)> =
        (0..CROWD).map(|who| (who, (at(0), None))).collect();
    let (mut now, mut sequence) = (at(0), 0);
    while !coming.is_empty() {
        assert!(now < at(300), "{} have not looked", coming.len());
        for who in 0..CROWD {
            let Some(&(_, lease)) = coming.get(&who).filter(|(next, _)| *next <= now) else { continue };
            sequence += 1;
            if let Some(lease) = lease {
                exchange(
                    &mut ledger,
                    who,
                    &Claim { leases: vec![used(lease, 0)], ..claim(sequence, 0) },
                    now,
                );
                coming.remove(&who);
                continue;
            }
            let answer = exchange(&mut ledger, who, &Claim { probe: true, ..claim(sequence, 0) }, now);
            let pause = answer.lease.map_or(Duration::from_millis(answer.again_millis), |_| second);
            coming.insert(who, (now + pause, answer.lease));
        }
        assert!(coming.values().filter(|(_, lease)| lease.is_some()).count() <= 3);
        now += tenth;
    }
}

#[test]
fn half_of_a_minute_goes_at_once_and_the_rest_at_its_pace() {
    let mut ledger = Ledger::new(Terms::default());
    ledger.limit(&SHOP.into(), "a", Limits { connections: 100, ..LIMITS }, at(0));
    let mut given = vec![0_u64; 61];
    for second in 0..=60 {
        for who in 0..40 {
            let answer = exchange(&mut ledger, who, &claim(second + 1, 1), at(second));
            given[usize::try_from(second).unwrap()] += u64::from(answer.lease.is_some());
            // Kept open, so that it counts.
            if let Some(lease) = answer.lease {
                ledger.hear(&SHOP.into(), Holder(who + 1000 * second), &claim(1, 0), at(second));
                let out = ledger.leases.remove(&(Holder(who), lease.id)).unwrap();
                let holder = Holder(who + 1_000_000 * (second + 1));
                ledger.leases.insert((holder, lease.id), Out { holder, ..out });
            }
        }
    }
    assert_eq!(given[0], 15, "{given:?}");
    assert_eq!(given.iter().sum::<u64>(), 30, "{given:?}");
    assert!(given[1..].iter().all(|given| *given <= 2), "{given:?}");
}

#[test]
fn the_smallest_of_what_routes_of_a_namespace_say_counts_while_they_are_in_use() {
    let mut ledger = ledger();
    ledger.limit(&SHOP.into(), "other", Limits { messages: 10, ..LIMITS }, at(0));
    assert_eq!(ledger.view(at(0)).minute.1, 10);
    ledger.limit(&SHOP.into(), "notifications", LIMITS, at(601));
    ledger.forget_unless(|_| true, at(601));
    assert_eq!(ledger.view(at(601)).minute.1, 30);
}

#[test]
fn too_much_shrinks_it_for_everybody() {
    let mut ledger = ledger();
    let throttled = Some(mailroute_route::control::Throttled::Connections);
    exchange(&mut ledger, 1, &Claim { throttled, ..claim(1, 0) }, at(0));
    assert!(exchange(&mut ledger, 2, &claim(1, 1), at(1)).lease.is_some());
    assert_eq!(exchange(&mut ledger, 3, &claim(1, 1), at(1)).short_of, Some(ShortOf::Connections));
}

#[test]
fn a_new_leader_counts_on_nothing_of_whom_it_has_not_heard() {
    let mut old = ledger();
    let first = exchange(&mut old, 1, &claim(1, 3), at(0)).lease.unwrap();
    let record = old.record(Some(Holder(1)), at(1));
    old.recorded(&record, at(1));
    // Given out after the record, and allowed for by it.
    old.hear(&SHOP.into(), Holder(1), &Claim { leases: vec![open(first)], ..claim(2, 3) }, at(2));
    let record = old.record(Some(Holder(1)), at(2));
    old.recorded(&record, at(2));
    let Decision::Answer(Allotment { lease: Some(second), .. }) = old.decide(Holder(1), at(2)) else {
        panic!("allowed for")
    };
    let mut new = Ledger::restore(Terms::default(), &Record::parse(&record.print()).unwrap(), at(10));
    new.limit(&SHOP.into(), "notifications", LIMITS, at(10));
    assert_eq!(new.view(at(10)).minute.0, 6);
    let told = Claim { leases: vec![used(first, 1), open(second)], ..claim(3, 0) };
    exchange(&mut new, 1, &told, at(11));
    assert_eq!(new.view(at(11)).minute.0, 4, "one used, three under way");
    let told = Claim { leases: vec![used(first, 1), used(second, 2)], ..claim(4, 0) };
    exchange(&mut new, 1, &told, at(12));
    assert_eq!(new.view(at(12)).minute.0, 3);
}

#[test]
fn a_new_leader_listens_first_and_sets_nothing_aside_for_those_who_speak() {
    let mut old = ledger();
    // Until each has turns of its own.
    let mut turns = [None; 2];
    for second in 0..8 {
        let who = usize::from(second % 2 == 1);
        let told = Claim { turn: turns[who], ..claim(1 + second, 0) };
        let answer = exchange(&mut old, who as u64 + 1, &told, at(second));
        turns[who] = answer.alone.map(|turn| (turn.index, turn.of));
        let record = old.record(None, at(second));
        old.recorded(&record, at(second));
    }
    assert!(turns.iter().all(|turn| turn.is_some_and(|(_, of)| of == 2)), "{turns:?}");
    let record = old.record(None, at(9));
    let claim =
        |sequence, messages, alone: bool| Claim { no_turns_taken: !alone, ..claim(sequence, messages) };
    for (speaks, alone) in [(true, false), (true, true), (false, false)] {
        let mut new = Ledger::restore(Terms::default(), &record, at(10));
        new.limit(&SHOP.into(), "notifications", LIMITS, at(10));
        let early = exchange(&mut new, 1, &claim(10, 1, false), at(10));
        assert_eq!((early.lease, early.again_millis), (None, 5000));
        if speaks {
            exchange(&mut new, 2, &claim(10, 0, alone), at(13));
        }
        assert!(exchange(&mut new, 1, &claim(11, 1, false), at(15)).lease.is_some());
        assert_eq!(new.view(at(15)).reserved, !speaks || alone, "speaks: {speaks}, was alone: {alone}");
    }
}

#[test]
fn a_sidecar_that_restarted_between_two_leaders_is_not_believed_to_have_used_nothing() {
    let mut old = ledger();
    exchange(&mut old, 1, &claim(1, 3), at(0)).lease.unwrap();
    let record = old.record(None, at(1));
    let mut new = Ledger::restore(Terms::default(), &record, at(10));
    new.limit(&SHOP.into(), "notifications", LIMITS, at(10));
    exchange(&mut new, 1, &Claim { instance: 2, ..claim(1, 0) }, at(11));
    assert_eq!(new.view(at(12)).minute.0, 3);
}

#[test]
fn a_lost_record_shuts_the_ledger_until_everything_has_left_the_minute() {
    let mut ledger = Ledger::lost(Terms::default(), at(0));
    ledger.limit(&SHOP.into(), "a", LIMITS, at(0));
    assert_eq!(exchange(&mut ledger, 1, &claim(1, 1), at(119)).lease, None);
    assert!(exchange(&mut ledger, 1, &claim(2, 1), at(125)).lease.is_some());
}

#[test]
fn a_part_is_set_aside_while_somebody_may_be_alone_and_not_otherwise() {
    let mut ledger = ledger();
    for second in [0, 30] {
        exchange(&mut ledger, 1, &claim(second + 1, 0), at(second));
        let record = ledger.record(None, at(second));
        ledger.recorded(&record, at(second));
    }
    let turn = exchange(&mut ledger, 1, &claim(40, 0), at(31)).alone.unwrap();
    assert_eq!((turn.slice_millis, turn.of, turn.messages), (60_000, 1, 10));
    assert!(!ledger.view(at(60)).reserved);
    assert!(ledger.view(at(97)).reserved);
    assert!(u64::from(u32::try_from(turn.after_millis).unwrap()) > 180_000);
    exchange(&mut ledger, 1, &claim(50, 0), at(1000));
    assert!(ledger.view(at(1001)).reserved, "its last turn may have been just now");
    for second in [1030, 1060, 1090, 1120] {
        exchange(&mut ledger, 1, &claim(second, 0), at(second));
    }
    assert!(!ledger.view(at(1140)).reserved);
}

/// Sends what there is until nothing more is given, and says how much that was.
fn all_there_is(ledger: &mut Ledger, who: u64, from: u64, seconds: u64) -> u32 {
    let (mut leases, mut given) = (Vec::new(), 0);
    for second in from..from + seconds {
        let told = Claim { leases: std::mem::take(&mut leases), ..claim(second, 30) };
        if let Some(lease) = exchange(ledger, who, &told, at(second)).lease {
            given += lease.messages;
            leases.push(used(lease, lease.messages));
        }
    }
    given
}

#[test]
fn room_is_left_for_a_pod_that_was_never_heard_while_its_slice_is_near() {
    // The first second of a round of slices.
    let round = (1_800_000_000_u64).next_multiple_of(16 * 60) - 1_800_000_000;
    let living = |slice| Living {
        holder: Holder(7),
        home: SHOP.into(),
        slice,
        since: at(round) - Duration::from_secs(360),
    };
    let given = |slice| {
        let mut ledger = ledger();
        ledger.expect([living(slice)], at(round));
        all_there_is(&mut ledger, 1, round + 1, 58)
    };
    assert_eq!((given(1), given(8)), (29, 30));

    let mut ledger = ledger();
    ledger.expect([Living { since: at(round) - Duration::from_secs(300), ..living(1) }], at(round));
    assert_eq!(all_there_is(&mut ledger, 1, round + 1, 58), 30, "it takes no turn so soon");
}

#[test]
fn who_was_answered_is_no_stranger() {
    let mut ledger = ledger();
    exchange(&mut ledger, 7, &Claim { turn: Some((0, 1)), ..claim(1, 0) }, at(0));
    assert!(ledger.shares[SHOP].strangers.is_empty());
    let pod = |second| [Living { holder: Holder(7), home: SHOP.into(), slice: 0, since: at(second) }];
    ledger.expect(pod(0), at(400));
    assert!(
        !ledger.shares[SHOP].strangers.is_empty(),
        "it had no turns when it was heard, so nobody knows that it was answered"
    );
    exchange(&mut ledger, 7, &Claim { turn: Some((0, 1)), ..claim(2, 0) }, at(401));
    ledger.expect(pod(0), at(900));
    assert!(ledger.shares[SHOP].strangers.is_empty(), "it takes the turns that it was told");
}

#[test]
fn memory_is_bounded_by_the_sidecars_that_live() {
    let mut ledger = ledger();
    for who in 0..2000 {
        exchange(&mut ledger, who, &claim(1, 1), at(0));
    }
    ledger.forget_unless(|holder| holder.0 < 10, at(1));
    assert!(ledger.sidecars.len() == 10 && ledger.line.len() <= 10 && ledger.turns.owners().count() <= 10);
    ledger.forget_unless(|_| false, at(2));
    assert!(ledger.is_empty(at(2 * 86_400)));
}
