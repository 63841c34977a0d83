//! The ledger, one rule at a time. The simulation shows what they achieve together.

use crate::wire::{Allotment, Claim, Lease, LeaseUse, ShortOf, SlotAssignment};

use super::grant::Decision;
use super::record::LedgerRecord;
use super::reserve::RunningSidecar;
use super::*;

const SHOP: &str = "shop";

pub(super) const LIMITS: MailboxLimits = MailboxLimits::PUBLISHED;

pub(super) fn at(second: u64) -> Duration {
    Duration::from_secs(1_800_000_000 + second)
}

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Timing::default());
    ledger.set_limits(&SHOP.into(), "notifications", LIMITS, at(0));
    ledger
}

pub(super) fn claim(sequence: u64, messages: u32) -> Claim {
    Claim { instance: 1, sequence, messages, recipients: 1, ..Claim::default() }
}

/// One exchange, with every record stored that has to be.
fn exchange(ledger: &mut Ledger, who: u64, claim: &Claim, now: Duration) -> Allotment {
    exchange_of(ledger, &SHOP.into(), who, claim, now)
}

/// The same for a sidecar of this namespace.
pub(super) fn exchange_of(
    ledger: &mut Ledger,
    namespace: &Namespace,
    who: u64,
    claim: &Claim,
    now: Duration,
) -> Allotment {
    assert!(ledger.claim(namespace, SidecarId(who), claim, now));
    for _ in 0..2 {
        if let Decision::Answer(answer) = ledger.decide(SidecarId(who), now) {
            return answer;
        }
        let record = ledger.record(Some(SidecarId(who)), now);
        ledger.persisted(&record, now);
    }
    panic!("a record of what is asked for does not allow it")
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
fn nothing_is_granted_before_it_is_stored() {
    let mut ledger = ledger();
    ledger.claim(&SHOP.into(), SidecarId(1), &claim(1, 1), at(0));
    assert_eq!(ledger.decide(SidecarId(1), at(0)), Decision::NeedsWrite);
    let record = ledger.record(Some(SidecarId(1)), at(0));
    assert_eq!(ledger.decide(SidecarId(1), at(0)), Decision::NeedsWrite, "not before it is stored");
    ledger.persisted(&record, at(0));
    assert!(matches!(ledger.decide(SidecarId(1), at(0)), Decision::Answer(Allotment { lease: Some(_), .. })));
}

#[test]
fn a_lease_that_the_next_claim_does_not_name_was_not_received() {
    let mut ledger = ledger();
    assert!(exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.is_some());
    assert_eq!(ledger.view(at(1)).minute.used, 3);
    exchange(&mut ledger, 1, &claim(2, 0), at(1));
    assert_eq!(ledger.view(at(1)).minute.used, 0);
}

#[test]
fn what_is_not_used_comes_back_and_what_is_used_counts_for_a_minute() {
    let mut ledger = ledger();
    let lease = exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.unwrap();
    let reported = Claim { leases: vec![used(lease, 2)], ..claim(2, 0) };
    exchange(&mut ledger, 1, &reported, at(1));
    assert_eq!(ledger.view(at(60)).minute.used, 2);
    assert_eq!(ledger.view(at(62)).minute.used, 0);
    assert_eq!(ledger.view(at(62)).day.used, 2);
}

#[test]
fn an_end_is_confirmed_when_it_is_stored_and_counted_once() {
    let mut ledger = ledger();
    let lease = exchange(&mut ledger, 1, &claim(1, 1), at(0)).lease.unwrap();
    let reported = |sequence| Claim { leases: vec![used(lease, 1)], ..claim(sequence, 0) };
    assert!(exchange(&mut ledger, 1, &reported(2), at(1)).confirmed.is_empty());
    assert!(!ledger.is_due(at(5)) && ledger.is_due(at(10)));
    let record = ledger.record(None, at(10));
    ledger.persisted(&record, at(10));
    assert_eq!(exchange(&mut ledger, 1, &reported(3), at(11)).confirmed, [lease.id]);
    assert_eq!(ledger.view(at(11)).minute.used, 1);
}

#[test]
fn an_end_that_nobody_knows_of_is_confirmed_and_not_counted() {
    let mut ledger = ledger();
    let foreign = Lease { id: 77, messages: 5, recipients: 5, valid_millis: 0 };
    let reported = Claim { leases: vec![used(foreign, 5)], ..claim(1, 0) };
    assert_eq!(exchange(&mut ledger, 1, &reported, at(1)).confirmed, [77]);
    assert_eq!(ledger.view(at(1)).minute.used, 0);
}

#[test]
fn a_lost_sidecar_counts_in_full_until_it_can_send_nothing_more() {
    let mut ledger = ledger();
    exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.unwrap();
    assert_eq!(
        ledger.view(at(121)).minute.used,
        3,
        "cut off after a minute, and a minute more in the window"
    );
    assert_eq!(ledger.view(at(125)).minute.used, 3);
    ledger.claim(&SHOP.into(), SidecarId(2), &claim(1, 0), at(126));
    assert_eq!(ledger.view(at(126)).minute.used, 3, "counted as it expires, late as that is noticed");
    assert_eq!(ledger.view(at(190)).minute.used, 0);
    assert_eq!(ledger.view(at(190)).day.used, 3);
}

#[test]
fn a_restart_counts_what_the_life_before_had() {
    let mut ledger = ledger();
    exchange(&mut ledger, 1, &claim(1, 3), at(0)).lease.unwrap();
    exchange(&mut ledger, 1, &Claim { instance: 2, ..claim(1, 0) }, at(5));
    assert_eq!((ledger.view(at(64)).minute.used, ledger.view(at(67)).minute.used), (3, 0));
    assert!(
        !ledger.claim(&SHOP.into(), SidecarId(1), &claim(9, 3), at(6)),
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
    let mut ledger = Ledger::new(Timing::default());
    ledger.set_limits(&SHOP.into(), "a", MailboxLimits { connections: 1, ..LIMITS }, at(0));
    let probe = Claim { probe: true, ..claim(1, 0) };
    let lease = exchange(&mut ledger, 1, &probe, at(0)).lease.unwrap();
    assert_eq!((lease.messages, ledger.view(at(0)).minute.used), (0, 0));
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
    let mut ledger = Ledger::new(Timing::default());
    ledger.set_limits(&SHOP.into(), "a", MailboxLimits { connections: 100, ..LIMITS }, at(0));
    let mut given = vec![0_u64; 61];
    for second in 0..=60 {
        for who in 0..40 {
            let answer = exchange(&mut ledger, who, &claim(second + 1, 1), at(second));
            given[usize::try_from(second).unwrap()] += u64::from(answer.lease.is_some());
            // Kept open, so that it counts.
            if let Some(lease) = answer.lease {
                ledger.claim(&SHOP.into(), SidecarId(who + 1000 * second), &claim(1, 0), at(second));
                let issued = ledger.leases.remove(&(SidecarId(who), lease.id)).unwrap();
                let holder = SidecarId(who + 1_000_000 * (second + 1));
                ledger.leases.insert((holder, lease.id), IssuedLease { holder, ..issued });
            }
        }
    }
    assert_eq!(given[0], 15, "{given:?}");
    assert_eq!(given.iter().sum::<u64>(), 30, "{given:?}");
    assert!(given[1..].iter().all(|given| *given <= 2), "{given:?}");
}

#[test]
fn the_smallest_limits_of_a_namespaces_routes_count_while_they_are_in_use() {
    let mut ledger = ledger();
    ledger.set_limits(&SHOP.into(), "other", MailboxLimits { messages: 10, ..LIMITS }, at(0));
    assert_eq!(ledger.view(at(0)).minute.limit, 10);
    ledger.set_limits(&SHOP.into(), "notifications", LIMITS, at(601));
    ledger.forget_unless(|_| true, at(601));
    assert_eq!(ledger.view(at(601)).minute.limit, 30);
}

#[test]
fn throttling_shrinks_the_limits_of_everybody() {
    let mut ledger = ledger();
    let throttled = Some(crate::wire::Throttled::Connections);
    exchange(&mut ledger, 1, &Claim { throttled, ..claim(1, 0) }, at(0));
    assert!(exchange(&mut ledger, 2, &claim(1, 1), at(1)).lease.is_some());
    assert_eq!(exchange(&mut ledger, 3, &claim(1, 1), at(1)).short_of, Some(ShortOf::Connections));
}

#[test]
fn a_new_leader_takes_all_for_used_until_it_hears_from_the_holder() {
    let mut old = ledger();
    let first = exchange(&mut old, 1, &claim(1, 3), at(0)).lease.unwrap();
    let record = old.record(Some(SidecarId(1)), at(1));
    old.persisted(&record, at(1));
    // Granted after the record, which allows it.
    old.claim(&SHOP.into(), SidecarId(1), &Claim { leases: vec![open(first)], ..claim(2, 3) }, at(2));
    let record = old.record(Some(SidecarId(1)), at(2));
    old.persisted(&record, at(2));
    let Decision::Answer(Allotment { lease: Some(second), .. }) = old.decide(SidecarId(1), at(2)) else {
        panic!("the record allows it")
    };
    let mut new = Ledger::restore(Timing::default(), &LedgerRecord::parse(&record.print()).unwrap(), at(10));
    new.set_limits(&SHOP.into(), "notifications", LIMITS, at(10));
    assert_eq!(new.view(at(10)).minute.used, 6);
    let reported = Claim { leases: vec![used(first, 1), open(second)], ..claim(3, 0) };
    exchange(&mut new, 1, &reported, at(11));
    assert_eq!(new.view(at(11)).minute.used, 4, "one used, three under way");
    let reported = Claim { leases: vec![used(first, 1), used(second, 2)], ..claim(4, 0) };
    exchange(&mut new, 1, &reported, at(12));
    assert_eq!(new.view(at(12)).minute.used, 3);
}

#[test]
fn a_new_leader_listens_first_and_reserves_nothing_for_those_it_hears() {
    let mut old = ledger();
    // Until each has slots of its own.
    let mut assignments = [None; 2];
    for second in 0..8 {
        let who = usize::from(second % 2 == 1);
        let reported = Claim { slot_assignment: assignments[who], ..claim(1 + second, 0) };
        let answer = exchange(&mut old, who as u64 + 1, &reported, at(second));
        assignments[who] = answer.slots.map(|slots| slots.assignment());
        let record = old.record(None, at(second));
        old.persisted(&record, at(second));
    }
    assert!(assignments.iter().all(|it| it.is_some_and(|it| it.of == 2)), "{assignments:?}");
    let record = old.record(None, at(9));
    let claim = |sequence, messages, used_slot: bool| Claim {
        no_slots_used: !used_slot,
        ..claim(sequence, messages)
    };
    for (speaks, used_slot) in [(true, false), (true, true), (false, false)] {
        let mut new = Ledger::restore(Timing::default(), &record, at(10));
        new.set_limits(&SHOP.into(), "notifications", LIMITS, at(10));
        let early = exchange(&mut new, 1, &claim(10, 1, false), at(10));
        assert_eq!((early.lease, early.again_millis), (None, 5000));
        if speaks {
            exchange(&mut new, 2, &claim(10, 0, used_slot), at(13));
        }
        assert!(exchange(&mut new, 1, &claim(11, 1, false), at(15)).lease.is_some());
        assert_eq!(
            new.view(at(15)).has_reserve,
            !speaks || used_slot,
            "speaks: {speaks}, used a slot: {used_slot}"
        );
    }
}

#[test]
fn a_sidecar_that_restarted_between_two_leaders_is_not_believed_to_have_used_nothing() {
    let mut old = ledger();
    exchange(&mut old, 1, &claim(1, 3), at(0)).lease.unwrap();
    let record = old.record(None, at(1));
    let mut new = Ledger::restore(Timing::default(), &record, at(10));
    new.set_limits(&SHOP.into(), "notifications", LIMITS, at(10));
    exchange(&mut new, 1, &Claim { instance: 2, ..claim(1, 0) }, at(11));
    assert_eq!(new.view(at(12)).minute.used, 3);
}

#[test]
fn a_lost_record_closes_the_ledger_until_everything_has_left_the_minute() {
    let mut ledger = Ledger::lost(Timing::default(), at(0));
    ledger.set_limits(&SHOP.into(), "a", LIMITS, at(0));
    assert_eq!(exchange(&mut ledger, 1, &claim(1, 1), at(119)).lease, None);
    assert!(exchange(&mut ledger, 1, &claim(2, 1), at(125)).lease.is_some());
}

#[test]
fn there_is_a_reserve_while_a_sidecar_may_use_slots_and_not_otherwise() {
    let mut ledger = ledger();
    for second in [0, 30] {
        exchange(&mut ledger, 1, &claim(second + 1, 0), at(second));
        let record = ledger.record(None, at(second));
        ledger.persisted(&record, at(second));
    }
    let slots = exchange(&mut ledger, 1, &claim(40, 0), at(31)).slots.unwrap();
    assert_eq!((slots.slot_millis, slots.of, slots.messages), (60_000, 1, 10));
    assert!(!ledger.view(at(60)).has_reserve);
    assert!(ledger.view(at(97)).has_reserve);
    assert!(u64::from(u32::try_from(slots.after_millis).unwrap()) > 180_000);
    exchange(&mut ledger, 1, &claim(50, 0), at(1000));
    assert!(ledger.view(at(1001)).has_reserve, "its last slot may have been just now");
    for second in [1030, 1060, 1090, 1120] {
        exchange(&mut ledger, 1, &claim(second, 0), at(second));
    }
    assert!(!ledger.view(at(1140)).has_reserve);
}

/// Sends what there is until nothing more is given, and says how much that was.
fn all_there_is(ledger: &mut Ledger, who: u64, from: u64, seconds: u64) -> u32 {
    let (mut leases, mut given) = (Vec::new(), 0);
    for second in from..from + seconds {
        let reported = Claim { leases: std::mem::take(&mut leases), ..claim(second, 30) };
        if let Some(lease) = exchange(ledger, who, &reported, at(second)).lease {
            given += lease.messages;
            leases.push(used(lease, lease.messages));
        }
    }
    given
}

#[test]
fn there_is_a_reserve_for_a_pod_that_was_never_heard_while_its_slot_is_near() {
    // The first second of a frame.
    let frame = (1_800_000_000_u64).next_multiple_of(16 * 60) - 1_800_000_000;
    let running = |unregistered_index| RunningSidecar {
        id: SidecarId(7),
        namespace: SHOP.into(),
        unregistered_index,
        since: at(frame) - Duration::from_secs(360),
    };
    let given = |index| {
        let mut ledger = ledger();
        ledger.expect([running(index)], at(frame));
        all_there_is(&mut ledger, 1, frame + 1, 58)
    };
    assert_eq!((given(1), given(8)), (29, 30));

    let mut ledger = ledger();
    ledger.expect([RunningSidecar { since: at(frame) - Duration::from_secs(300), ..running(1) }], at(frame));
    assert_eq!(all_there_is(&mut ledger, 1, frame + 1, 58), 30, "it uses no slot so soon");
}

#[test]
fn a_sidecar_that_had_an_answer_is_not_unregistered() {
    let mut ledger = ledger();
    exchange(
        &mut ledger,
        7,
        &Claim { slot_assignment: Some(SlotAssignment { index: 0, of: 1 }), ..claim(1, 0) },
        at(0),
    );
    assert!(ledger.shares[SHOP].unregistered.is_empty());
    let pod = |second| {
        [RunningSidecar {
            id: SidecarId(7),
            namespace: SHOP.into(),
            unregistered_index: 0,
            since: at(second),
        }]
    };
    ledger.expect(pod(0), at(400));
    assert!(
        !ledger.shares[SHOP].unregistered.is_empty(),
        "it had no slots when it was heard, so nobody knows that it had an answer"
    );
    exchange(
        &mut ledger,
        7,
        &Claim { slot_assignment: Some(SlotAssignment { index: 0, of: 1 }), ..claim(2, 0) },
        at(401),
    );
    ledger.expect(pod(0), at(900));
    assert!(ledger.shares[SHOP].unregistered.is_empty(), "it uses the slots that it was assigned");
}

#[test]
fn memory_is_bounded_by_the_sidecars_that_exist() {
    let mut ledger = ledger();
    for who in 0..2000 {
        exchange(&mut ledger, who, &claim(1, 1), at(0));
    }
    ledger.forget_unless(|holder| holder.0 < 10, at(1));
    assert!(ledger.sidecars.len() == 10 && ledger.queue.len() <= 10 && ledger.slots.owners().count() <= 10);
    ledger.forget_unless(|_| false, at(2));
    assert!(ledger.is_empty(at(2 * 86_400)));
}
