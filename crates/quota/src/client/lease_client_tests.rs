//! What the client does with leases, and without.

use crate::RouteLimits;
use crate::wire::Lease;

use super::*;

fn at(second: u64) -> Duration {
    Duration::from_secs(1_800_000_000 + second)
}

fn client() -> LeaseClient {
    LeaseClient::new(Timing::default(), &SavedLeases::default(), at(0))
}

fn allotment(lease: Option<Lease>) -> Allotment {
    Allotment { lease, again_millis: 30_000, cut_millis: 60_000, ..Allotment::default() }
}

fn lease(id: u64, messages: u32) -> Option<Lease> {
    Some(Lease { id, messages, recipients: 10 * messages, valid_millis: 10_000 })
}

const ONE: Amount = Amount::message(1);

#[test]
fn demand_is_news_and_is_claimed_at_once() {
    let mut client = client();
    client.claim(at(0));
    client.answered(at(0), at(0), &allotment(None));
    assert_eq!(client.due(at(1)), at(30));
    assert_eq!(client.may(at(2), Amount::message(7)).unwrap_err().why, WaitReason::Lease);
    assert!(client.due(at(2)) <= at(2));
    let claim = client.claim(at(3));
    assert_eq!((claim.messages, claim.recipients, claim.waited_millis), (1, 7, 1000));
    client.answered(at(3), at(3), &allotment(None));
    assert_eq!(client.due(at(3)), at(33), "the same demand again is no news");
    let _ = client.may(at(4), Amount::message(7));
    assert_eq!(client.due(at(4)), at(33));
}

#[test]
fn demand_that_nobody_renews_is_given_up() {
    let mut client = client();
    let _ = client.may(at(0), ONE);
    assert_eq!(client.claim(at(19)).messages, 1);
    assert_eq!(client.claim(at(21)).messages, 0);
}

#[test]
fn a_lease_counts_from_when_it_was_asked_for() {
    let mut client = client();
    client.answered(at(0), at(5), &allotment(lease(1, 2)));
    assert_eq!(client.take(at(9), ONE), Some(LeaseSource::Lease(1)));
    assert_eq!(client.take(at(10), ONE), None);
    assert_eq!(client.cut_off_at(LeaseSource::Lease(1)), at(60));
}

#[test]
fn a_lease_in_use_is_named_until_its_end_is_confirmed() {
    let mut client = client();
    client.answered(at(0), at(0), &allotment(lease(1, 1)));
    let source = client.take(at(1), Amount::message(3)).unwrap();
    assert!(!client.claim(at(2)).leases[0].ended);
    client.settle(source, at(4), Amount::message(3));
    assert!(client.due(at(4)) <= at(4), "somebody else waits for the connection");
    let reported = client.claim(at(6)).leases[0];
    assert_eq!((reported.ended, reported.used_messages, reported.used_recipients), (true, 1, 3));
    assert_eq!(reported.age_millis, 2000);
    client.answered(at(6), at(6), &allotment(None));
    assert_eq!(client.claim(at(7)).leases.len(), 1);
    client.answered(at(7), at(7), &Allotment { confirmed: vec![1], ..allotment(None) });
    assert!(client.claim(at(8)).leases.is_empty());
}

#[test]
fn a_message_that_takes_longer_than_its_lease_is_reported_when_it_ends_and_only_then() {
    let mut client = client();
    client.answered(at(0), at(0), &allotment(lease(1, 1)));
    let source = client.take(at(1), ONE).unwrap();
    assert_eq!(client.due(at(11)), at(30));
    assert!(!client.claim(at(30)).leases[0].ended);
    client.answered(at(30), at(30), &allotment(None));
    assert_eq!(client.due(at(31)), at(60));
    client.settle(source, at(40), ONE);
    assert!(client.due(at(40)) <= at(40));
    assert!(client.claim(at(40)).leases[0].ended);
}

#[test]
fn a_lease_that_is_not_used_is_given_back() {
    let mut client = client();
    client.answered(at(0), at(0), &allotment(lease(1, 2)));
    assert_eq!(client.due(at(1)), at(10));
    let reported = client.claim(at(10)).leases[0];
    assert_eq!((reported.ended, reported.used_messages), (true, 0));
}

#[test]
fn a_check_takes_a_lease_without_messages() {
    let mut client = client();
    assert!(client.may(at(0), Amount::NOTHING).is_err());
    let claim = client.claim(at(0));
    assert_eq!((claim.messages, claim.probe), (0, true));
    client.answered(at(0), at(0), &allotment(lease(1, 0)));
    assert_eq!(client.take(at(1), ONE), None);
    let source = client.take(at(1), Amount::NOTHING).unwrap();
    assert!(!client.claim(at(2)).leases[0].ended);
    client.settle(source, at(3), Amount::NOTHING);
    assert!(client.claim(at(3)).leases[0].ended);
}

/// Slot 3 of 8, 30 seconds each.
fn slots() -> TimeSlots {
    TimeSlots {
        index: 3,
        of: 8,
        slot_millis: 30_000,
        messages: 1,
        begin_millis: 4000,
        last_millis: 9000,
        cut_millis: 26_000,
        after_millis: 189_000,
        recipients: 5,
        messages_per_hour: None,
    }
}

/// The first slot of index 3 after `from`.
fn own_slot(from: Duration) -> Duration {
    let mut start = Duration::from_secs(from.as_secs() / 240 * 240 + 90);
    while start < from {
        start += Duration::from_secs(240);
    }
    start
}

fn without_contact() -> LeaseClient {
    let mut client = client();
    client.answered(at(0), at(0), &Allotment { slots: Some(slots()), ..allotment(None) });
    client
}

#[test]
fn without_contact_one_message_goes_in_each_own_slot_and_no_other() {
    let mut client = without_contact();
    let second = Duration::from_secs(1);
    let mut went = Vec::new();
    let mut now = at(0);
    while now < at(1200) {
        if client.take(now, ONE).is_some() {
            went.push(now);
        }
        now += second;
    }
    let first = own_slot(at(189)) + 4 * second;
    let expected: Vec<_> = (0..5).map(|n| first + n * 240 * second).filter(|at| *at < now).collect();
    assert_eq!(went, expected);
}

fn unregistered() -> Option<TimeSlots> {
    let limits = RouteLimits { messages: Some(30), ..RouteLimits::NONE };
    TimeSlots::of_unregistered("uid", limits, Timing::default())
}

#[test]
fn a_sidecar_that_never_had_an_answer_sends_a_message_every_sixteen_minutes() {
    let mut never = client().or_unregistered(unregistered());
    let went: Vec<u64> = (0..4 * 16 * 60).filter(|second| never.take(at(*second), ONE).is_some()).collect();
    assert!(went[0] >= 600 && went.len() == 4 - usize::from(went[0] >= 16 * 60), "{went:?}");
    assert!(went.windows(2).all(|pair| pair[1] - pair[0] == 16 * 60), "{went:?}");
    let claim = never.claim(at(4000));
    assert_eq!((claim.slot_assignment, claim.slot_recipients), (None, narrow(went.len() as u64)));

    let mut reached = client().or_unregistered(unregistered());
    reached.answered(at(0), at(0), &allotment(None));
    assert!((0..4 * 16 * 60).all(|second| reached.take(at(second), ONE).is_none()), "it was given none");
}

#[test]
fn a_slot_takes_as_many_messages_as_it_is_for() {
    let mut client = client();
    let slots = Some(TimeSlots { messages: 3, ..slots() });
    client.answered(at(0), at(0), &Allotment { slots, ..allotment(None) });
    let slot = own_slot(at(189)) + Duration::from_secs(5);
    let went = (0..5).filter(|_| client.take(slot, ONE).is_some()).count();
    assert_eq!(went, 3);
}

#[test]
fn messages_in_slots_are_limited_by_the_hour_also_after_a_restart() {
    let mut client = client();
    let slots = Some(TimeSlots { messages: 3, messages_per_hour: Some(2), ..slots() });
    client.answered(at(0), at(0), &Allotment { slots, ..allotment(None) });
    let slot = own_slot(at(189)) + Duration::from_secs(5);
    assert_eq!((0..5).filter(|_| client.take(slot, ONE).is_some()).count(), 2);
    assert_eq!(client.claim(slot).slot_messages, 2);
    let restart = slot + Duration::from_secs(100);
    let mut again = LeaseClient::new(Timing::default(), &client.save(slot).unwrap(), restart);
    let later = |after| own_slot(restart + Duration::from_secs(after)) + Duration::from_secs(5);
    assert!(again.take(later(189), ONE).is_none());
    assert!(again.take(later(3600), ONE).is_some());
}

#[test]
fn recipients_in_slots_are_limited_by_the_day_also_after_a_restart() {
    let mut client = without_contact();
    let slot = own_slot(at(189)) + Duration::from_secs(5);
    assert!(client.take(slot, Amount::message(6)).is_none());
    assert!(
        matches!(client.take(slot, Amount::message(4)), Some(LeaseSource::Slot { cut_off }) if cut_off == slot + Duration::from_secs(21))
    );
    let saved = client.save(slot).unwrap();
    let restart = slot + Duration::from_secs(100);
    let mut again = LeaseClient::new(Timing::default(), &saved, restart);
    let later = own_slot(restart + Duration::from_secs(189)) + Duration::from_secs(5);
    assert!(
        again.take(own_slot(restart) + Duration::from_secs(5), ONE).is_none(),
        "perhaps it was heard just before"
    );
    assert!(again.take(later, Amount::message(2)).is_none());
    assert!(again.take(later, Amount::message(1)).is_some());
    assert_eq!(again.claim(later).slot_recipients, 1);
    assert!(again.claim(later).instance > saved.instance);
}

#[test]
fn used_slots_are_reported_as_long_as_they_are_in_a_window_also_after_a_restart() {
    let mut client = without_contact();
    assert!(client.claim(at(1)).no_slots_used);
    let slot = own_slot(at(189)) + Duration::from_secs(4);
    assert!(client.take(slot, ONE).is_some());
    assert!(!client.claim(slot).no_slots_used);
    let saved = client.save(slot).unwrap();
    let mut restarted = LeaseClient::new(Timing::default(), &saved, slot);
    assert!(!restarted.claim(slot).no_slots_used);
    let day = Duration::from_secs(25 * 3600);
    assert!(restarted.claim(slot + day).no_slots_used && client.claim(slot + day).no_slots_used);
}

#[test]
fn without_contact_waiting_means_waiting_for_the_own_slot() {
    let mut client = without_contact();
    let now = own_slot(at(189)) + Duration::from_secs(235);
    let until = client.may(now, ONE).unwrap_err().until;
    assert_eq!(until, own_slot(now) + Duration::from_secs(4));
}

#[test]
fn runs_have_different_numbers_also_when_the_clock_was_set_back() {
    let saved =
        SavedLeases { instance: u64::try_from(at(1000).as_millis()).unwrap(), ..SavedLeases::default() };
    assert!(LeaseClient::new(Timing::default(), &saved, at(0)).claim(at(0)).instance > saved.instance);
}

#[test]
fn after_a_failure_news_waits_for_the_next_try() {
    let mut client = client();
    let _ = client.may(at(0), ONE);
    client.claim(at(0));
    client.unanswered(at(3));
    let _ = client.may(at(1), Amount::message(9));
    assert!(client.due(at(1)) >= at(3));
}
