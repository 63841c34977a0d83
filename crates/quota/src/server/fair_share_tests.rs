//! What one namespace can take from another, one attack at a time.

use crate::wire::{Allotment, Claim, LeaseUse, ShortOf, Throttled};

use super::grant::Decision;
use super::record::LedgerRecord;
use super::reserve::RunningSidecar;
use super::tests::{LIMITS, at, claim, exchange_of, open, used};
use super::*;
use crate::slots::unregistered_index;

/// Namespace of the sidecars from 1000 on.
const OTHER: &str = "other";

fn ledger() -> Ledger {
    let mut ledger = Ledger::new(Timing::default());
    ledger.set_limits(&"shop".into(), "notifications", LIMITS, at(0));
    ledger.set_limits(&OTHER.into(), "x", LIMITS, at(0));
    ledger
}

fn namespace(who: u64) -> Namespace {
    if who < 1000 { "shop".into() } else { OTHER.into() }
}

fn exchange(ledger: &mut Ledger, who: u64, claim: &Claim, now: Duration) -> Allotment {
    exchange_of(ledger, &namespace(who), who, claim, now)
}

/// A sidecar that sends what it is leased, each second, for so many seconds. Says how much that was.
fn sends(
    ledger: &mut Ledger,
    who: u64,
    from: u64,
    seconds: u64,
    others: &mut dyn FnMut(&mut Ledger, u64),
) -> u32 {
    let (mut leases, mut sent): (Vec<LeaseUse>, u32) = (vec![], 0);
    for second in from..from + seconds {
        others(ledger, second);
        let reported = Claim { leases: std::mem::take(&mut leases), ..claim(second + 1, 30) };
        if let Some(lease) = exchange(ledger, who, &reported, at(second)).lease {
            sent += lease.messages;
            leases.push(used(lease, lease.messages));
        }
    }
    sent
}

fn nobody(_: &mut Ledger, _: u64) {}

#[test]
fn recipients_that_a_sidecar_claims_for_slots_count_for_no_more_than_it_was_granted() {
    let mut ledger = ledger();
    for sequence in 1..100 {
        let lie = Claim { slot_recipients: u32::MAX, ..claim(sequence, 0) };
        exchange(&mut ledger, 1000, &lie, at(sequence));
    }
    assert!(ledger.view(at(100)).day.used <= 500, "{:?}", ledger.view(at(100)).day);
    assert!(exchange(&mut ledger, 1, &Claim { recipients: 500, ..claim(1, 1) }, at(100)).lease.is_some());
}

#[test]
fn an_hour_is_not_used_up_by_one_namespace_nor_by_what_it_says_nor_forgotten_by_a_new_leader() {
    let hourly = MailboxLimits { messages_per_hour: 40, ..LIMITS };
    let set_limits = |ledger: &mut Ledger, now| {
        ledger.set_limits(&"shop".into(), "notifications", hourly, now);
        ledger.set_limits(&OTHER.into(), "x", hourly, now);
    };
    let mut old = Ledger::new(Timing::default());
    set_limits(&mut old, at(0));
    for sequence in 1..30 {
        exchange(&mut old, 1001, &Claim { slot_messages: 9, ..claim(sequence, 0) }, at(0));
    }
    assert_eq!(old.view(at(0)).hour.unwrap().used, 4, "as much as is kept for time slots");
    let present = &mut |ledger: &mut Ledger, second| set_limits(ledger, at(second));
    // A tenth is kept for time slots, and a quarter of the rest for the other namespace.
    assert_eq!(sends(&mut old, 1000, 0, 600, present), 23);
    exchange(&mut old, 1000, &claim(601, 0), at(600));
    let text = old.record(None, at(600)).print();
    let mut new = Ledger::restore(Timing::default(), &LedgerRecord::parse(&text).unwrap(), at(600));
    set_limits(&mut new, at(600));
    assert_eq!(new.view(at(600)).hour, Some(Utilization { used: 27, limit: 40 }));
    assert_eq!(sends(&mut new, 1, 610, 600, present), 9);
    assert_eq!(sends(&mut new, 1000, 1210, 60, present), 0);
    assert_eq!(sends(&mut new, 1000, 3715, 4, present), 0);
    assert_eq!(sends(&mut new, 1000, 3720, 120, present), 27);
}

#[test]
fn more_recipients_than_a_message_can_have_are_not_allowed_for() {
    let mut ledger = ledger();
    ledger.claim(
        &OTHER.into(),
        SidecarId(1000),
        &Claim { recipients: u32::MAX, ..claim(1, u32::MAX) },
        at(0),
    );
    let record = ledger.record(Some(SidecarId(1000)), at(0));
    let mut new = Ledger::restore(Timing::default(), &LedgerRecord::parse(&record.print()).unwrap(), at(1));
    assert!(new.view(at(1)).day.used <= 3000, "{:?}", new.view(at(1)).day);
}

#[test]
fn leases_that_were_never_granted_count_for_no_more_than_was_allowed() {
    let mut old = ledger();
    exchange(&mut old, 1000, &claim(1, 1), at(0));
    let record = old.record(Some(SidecarId(1000)), at(0));
    let lie = |id| LeaseUse { id, messages: u32::MAX, recipients: u32::MAX, ..LeaseUse::default() };
    let lies = Claim { leases: (500..532).map(lie).collect(), ..claim(2, 0) };
    let mut restored = Ledger::restore(Timing::default(), &record, at(5));
    let mut lost = Ledger::lost(Timing::default(), at(5));
    lost.set_limits(&OTHER.into(), "x", LIMITS, at(5));
    for new in [&mut restored, &mut lost] {
        exchange(new, 1000, &lies, at(6));
        assert!(new.view(at(6)).minute.used <= 6, "{:?}", new.view(at(6)));
    }
}

#[test]
fn a_sidecar_that_makes_up_leases_after_a_record_was_lost_uses_up_no_more_than_a_part_of_the_day() {
    let mut lost = Ledger::lost(Timing::default(), at(0));
    lost.set_limits(&OTHER.into(), "x", LIMITS, at(0));
    let lies = |ledger: &mut Ledger, who, second: u64| {
        let ended = |id| LeaseUse {
            id,
            messages: 3,
            recipients: 3000,
            used_messages: 3,
            used_recipients: 3000,
            ended: true,
            age_millis: 0,
        };
        let first = 1000 * who + 40 * second;
        let leases = (first..first + 32).map(ended).collect();
        exchange(ledger, who, &Claim { leases, ..claim(second, 0) }, at(second));
    };
    for second in 1..=20 {
        lies(&mut lost, 1000, second);
        assert!(
            lost.view(at(second)).minute.used <= 3,
            "{:?}: what it is given at once",
            lost.view(at(second))
        );
    }
    for who in 1001..1040 {
        lies(&mut lost, who, 21);
    }
    assert_eq!(lost.view(at(21)).day.used, 500, "a twentieth for all pods of the namespace");
    for second in 200..220 {
        lies(&mut lost, 1000, second);
        lies(&mut lost, 2000, second);
    }
    assert_eq!(
        (lost.view(at(220)).minute.used, lost.view(at(220)).day.used),
        (0, 500),
        "it knows its leases by then"
    );
}

#[test]
fn a_number_that_another_sidecar_named_before_is_counted_and_confirmed_to_its_holder() {
    let mut old = ledger();
    old.claim(&OTHER.into(), SidecarId(1000), &claim(1, 1), at(0));
    let record = old.record(Some(SidecarId(1000)), at(0));
    old.persisted(&record, at(0));
    let Decision::Answer(Allotment { lease: Some(lease), .. }) = old.decide(SidecarId(1000), at(0)) else {
        panic!("the record allows it")
    };
    let mut new = Ledger::restore(Timing::default(), &record, at(5));
    let reported = Claim { leases: vec![used(lease, 1)], ..claim(2, 0) };
    assert_eq!(exchange(&mut new, 1, &reported, at(6)).confirmed, [lease.id], "it is not its own");
    exchange(&mut new, 1000, &reported, at(7));
    assert_eq!(new.view(at(7)).minute.used, 1);
    let record = new.record(None, at(8));
    new.persisted(&record, at(8));
    assert_eq!(exchange(&mut new, 1000, &Claim { sequence: 3, ..reported }, at(9)).confirmed, [lease.id]);
}

#[test]
fn a_lease_is_neither_taken_over_nor_ended_by_another_sidecar_that_names_its_number_first() {
    let mut old = ledger();
    for who in [1, 1000] {
        old.claim(&namespace(who), SidecarId(who), &claim(1, 3), at(0));
    }
    let record = old.record(Some(SidecarId(1)), at(0));
    old.persisted(&record, at(0));
    let Decision::Answer(Allotment { lease: Some(lease), .. }) = old.decide(SidecarId(1), at(0)) else {
        panic!("the record allows it")
    };
    let mut new = Ledger::restore(Timing::default(), &record, at(5));
    let stolen = LeaseUse { messages: 1, ..open(lease) };
    exchange(&mut new, 1000, &Claim { leases: vec![stolen], ..claim(2, 0) }, at(6));
    exchange(&mut new, 1, &Claim { leases: vec![open(lease)], ..claim(2, 0) }, at(6));
    assert_eq!(new.view(at(6)).minute.used, u64::from(lease.messages) + 1, "both count");
    exchange(&mut new, 1000, &Claim { leases: vec![used(lease, 0)], ..claim(3, 0) }, at(7));
    assert_eq!(new.view(at(7)).minute.used, u64::from(lease.messages), "its holder's still counts");
}

#[test]
fn numbers_that_were_never_granted_are_not_taken_from_later_leases() {
    let mut old = ledger();
    exchange(&mut old, 1000, &claim(1, 1), at(0));
    let record = old.record(Some(SidecarId(1000)), at(0));
    let mut new = Ledger::restore(Timing::default(), &record, at(5));
    let leases = new.leases.len();
    let future = LeaseUse { id: new.next_id, messages: 1, recipients: 1, ..LeaseUse::default() };
    exchange(&mut new, 1000, &Claim { leases: vec![future], ..claim(2, 0) }, at(6));
    assert!(new.leases.len() <= leases && !new.leases.contains_key(&(SidecarId(1000), future.id)));
}

#[test]
fn small_limits_of_a_route_bind_its_own_namespace_alone() {
    let mut ledger = ledger();
    let one = MailboxLimits { messages: 1, recipients: 1, connections: 1, ..LIMITS };
    ledger.set_limits(&OTHER.into(), "x", one, at(0));
    assert!(exchange(&mut ledger, 1000, &claim(1, 30), at(0)).lease.is_some_and(|lease| lease.messages == 1));
    let mut greedy =
        |ledger: &mut Ledger, second| drop(exchange(ledger, 1000, &claim(second + 2, 30), at(second)));
    let sent = sends(&mut ledger, 1, 0, 60, &mut greedy);
    assert!(sent >= 28, "{sent}");
    ledger.set_limits(&OTHER.into(), "x", MailboxLimits { messages: 5000, ..LIMITS }, at(60));
    assert_eq!(ledger.view(at(60)).minute.limit, 30, "nor does a great one");
}

#[test]
fn throttling_that_one_namespace_claims_counts_against_that_namespace() {
    let mut ledger = ledger();
    let mut cries = |ledger: &mut Ledger, second| {
        let throttled = Some(Throttled::Rate);
        drop(exchange(ledger, 1000, &Claim { throttled, ..claim(second + 1, 0) }, at(second)));
    };
    let sent = sends(&mut ledger, 1, 0, 120, &mut cries);
    assert!(sent >= 56, "{sent}");
    let sent = sends(&mut ledger, 1000, 200, 60, &mut nobody);
    assert!(sent <= 22, "{sent}: it is throttled itself");
}

#[test]
fn a_silent_pod_of_one_namespace_costs_the_others_no_more_than_its_part_of_the_reserve() {
    let mut ledger = Ledger::new(Timing::default());
    ledger.set_limits(&OTHER.into(), "x", LIMITS, at(0));
    // It owns all slots before any other sidecar comes, and then it is silent.
    let first = exchange(&mut ledger, 1000, &claim(1, 0), at(0));
    let record = ledger.record(None, at(0));
    ledger.persisted(&record, at(0));
    assert!(first.slots.is_none() && exchange(&mut ledger, 1000, &claim(2, 0), at(1)).slots.is_some());
    ledger.set_limits(&"shop".into(), "notifications", LIMITS, at(60));
    let sent = sends(&mut ledger, 1, 60, 600, &mut nobody);
    assert!(sent >= 180, "{sent} of 300");
}

#[test]
fn unregistered_sidecars_of_one_namespace_leave_the_others_most_of_the_limit() {
    let mut ledger = ledger();
    let crowd = |second| {
        let since = at(0) - Duration::from_secs(3600);
        (0..800).map(move |n| RunningSidecar {
            id: SidecarId(5000 + n + second / 3600 * 800),
            namespace: OTHER.into(),
            unregistered_index: unregistered_index(&format!("uid-{n}")),
            since,
        })
    };
    let mut sweeps = |ledger: &mut Ledger, second: u64| {
        if second.is_multiple_of(30) {
            ledger.expect(crowd(second), at(second));
        }
    };
    let sent = sends(&mut ledger, 1, 0, 600, &mut sweeps);
    assert!(sent >= 180, "{sent} of 300");
    // All of them are gone, and were never heard.
    ledger.expect([], at(1200));
    assert!(ledger.view(at(1200)).day.used <= u64::from(sent) + 500, "{:?}", ledger.view(at(1200)));
}

#[test]
fn a_namespace_that_takes_all_it_can_get_and_lets_nothing_go_leaves_the_other_its_part() {
    let mut ledger = ledger();
    let mut held = HashMap::<u64, Vec<LeaseUse>>::new();
    let mut grabs = |ledger: &mut Ledger, second: u64| {
        for who in 1000..1020 {
            let leases = held.entry(who).or_default();
            let reported = Claim {
                recipients: 500,
                probe: true,
                waited_millis: u64::MAX,
                leases: leases.clone(),
                ..claim(second + 1, 30)
            };
            if let Some(lease) = exchange(ledger, who, &reported, at(second)).lease {
                leases.push(open(lease));
            }
        }
    };
    (0..60).for_each(|second| grabs(&mut ledger, second));
    let sent = sends(&mut ledger, 1, 60, 600, &mut grabs);
    assert!(sent >= 135, "{sent} of 150");
}

#[test]
fn a_namespace_that_asks_and_does_not_use_what_it_gets_does_not_slow_the_other_down() {
    let mut ledger = ledger();
    let mut churns = |ledger: &mut Ledger, second: u64| {
        (1000..1003).for_each(|who| drop(exchange(ledger, who, &claim(second + 1, 1), at(second))));
    };
    let sent = sends(&mut ledger, 1, 0, 300, &mut churns);
    assert!(sent >= 120, "{sent} of 150");
}

#[test]
fn of_the_day_half_of_its_part_is_kept_for_a_namespace_that_is_there() {
    let mut ledger = ledger();
    exchange(&mut ledger, 1, &claim(1, 0), at(0));
    let (mut leases, mut taken) = (vec![], 0);
    for second in 1..2000 {
        // It is there, and has nothing to send.
        exchange(&mut ledger, 1, &claim(second + 1, 0), at(second));
        let reported = Claim { recipients: 500, leases: std::mem::take(&mut leases), ..claim(second, 30) };
        let answer = exchange(&mut ledger, 1000, &reported, at(second));
        taken += answer.lease.map_or(0, |lease| lease.recipients);
        leases.extend(
            answer
                .lease
                .map(|lease| LeaseUse { used_recipients: lease.recipients, ..used(lease, lease.messages) }),
        );
    }
    assert!((6500..=7500).contains(&taken), "{taken}");
    let wanted = Claim { recipients: 500, ..claim(9000, 1) };
    let answer = exchange(&mut ledger, 1, &wanted, at(2000));
    assert!(answer.lease.is_some() && answer.short_of != Some(ShortOf::Recipients), "{answer:?}");
}

#[test]
fn a_lease_is_in_use_for_no_longer_than_a_message_can_take() {
    let mut ledger = ledger();
    let lease = exchange(&mut ledger, 1000, &claim(1, 1), at(0)).lease.unwrap();
    for second in (30..10_000).step_by(30) {
        exchange(&mut ledger, 1000, &Claim { leases: vec![open(lease)], ..claim(second, 0) }, at(second));
    }
    assert_eq!(ledger.leases.len(), 0);
}

#[test]
fn ends_of_leases_that_were_never_granted_are_not_stored() {
    let mut ledger = ledger();
    let forged = |id| LeaseUse { id, ended: true, ..LeaseUse::default() };
    for who in 1000..1100 {
        let claim = Claim { leases: (who * 100..who * 100 + 32).map(forged).collect(), ..claim(1, 0) };
        assert_eq!(exchange(&mut ledger, who, &claim, at(0)).confirmed.len(), 32);
    }
    assert_eq!(ledger.record(None, at(1)).ended, []);
}

#[test]
fn a_new_leader_knows_what_each_namespace_has_had() {
    let mut old = ledger();
    let lease = exchange(&mut old, 1000, &claim(1, 3), at(0)).lease.unwrap();
    let throttled = Some(Throttled::Rate);
    exchange(&mut old, 1000, &Claim { throttled, leases: vec![used(lease, 3)], ..claim(2, 0) }, at(1));
    let record = LedgerRecord::parse(&old.record(None, at(2)).print()).unwrap();
    let mut new = Ledger::restore(Timing::default(), &record, at(3));
    let other = new.shares.get_mut(OTHER).unwrap();
    assert_eq!((other.limits, other.used.day.sum(at(3))), (LIMITS, 3));
    assert!(other.throttle.share(at(3), Timing::default().minute) < 1.0);
    assert_eq!(new.view(at(3)).namespaces, [Namespace::from(OTHER), "shop".into()]);
}
