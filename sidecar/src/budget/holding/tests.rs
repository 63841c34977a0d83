//! What this side does with leases, and without.

use mailroute_route::control::Lease;

use super::*;

fn at(second: u64) -> Duration {
    Duration::from_secs(1_800_000_000 + second)
}

fn holding() -> Holding {
    Holding::new(Spans::default(), &Memory::default(), at(0))
}

fn allotment(lease: Option<Lease>) -> Allotment {
    Allotment { lease, again_millis: 30_000, cut_millis: 60_000, ..Allotment::default() }
}

fn lease(id: u64, messages: u32) -> Option<Lease> {
    Some(Lease { id, messages, recipients: 10 * messages, valid_millis: 10_000 })
}

const ONE: Amount = Amount::message(1);

#[test]
fn a_wish_is_news_and_asks_at_once() {
    let mut holding = holding();
    holding.claim(at(0));
    holding.answered(at(0), at(0), &allotment(None));
    assert_eq!(holding.due(at(1)), at(30));
    assert_eq!(holding.may(at(2), Amount::message(7)).unwrap_err().why, Why::Lease);
    assert!(holding.due(at(2)) <= at(2));
    let claim = holding.claim(at(3));
    assert_eq!((claim.messages, claim.recipients, claim.waited_millis), (1, 7, 1000));
    holding.answered(at(3), at(3), &allotment(None));
    assert_eq!(holding.due(at(3)), at(33), "the same wish again is no news");
    let _ = holding.may(at(4), Amount::message(7));
    assert_eq!(holding.due(at(4)), at(33));
}

#[test]
fn a_wish_that_nobody_renews_is_given_up() {
    let mut holding = holding();
    let _ = holding.may(at(0), ONE);
    assert_eq!(holding.claim(at(19)).messages, 1);
    assert_eq!(holding.claim(at(21)).messages, 0);
}

#[test]
fn a_lease_counts_from_when_it_was_asked_for() {
    let mut holding = holding();
    holding.answered(at(0), at(5), &allotment(lease(1, 2)));
    assert_eq!(holding.take(at(9), ONE), Some(Source::Lease(1)));
    assert_eq!(holding.take(at(10), ONE), None);
    assert_eq!(holding.cut_at(Source::Lease(1)), at(60));
}

#[test]
fn what_is_under_way_is_told_until_its_end_is_confirmed() {
    let mut holding = holding();
    holding.answered(at(0), at(0), &allotment(lease(1, 1)));
    let source = holding.take(at(1), Amount::message(3)).unwrap();
    assert!(!holding.claim(at(2)).leases[0].ended);
    holding.settle(source, at(4), Amount::message(3));
    assert!(holding.due(at(4)) <= at(4), "somebody else waits for the connection");
    let told = holding.claim(at(6)).leases[0];
    assert_eq!((told.ended, told.used_messages, told.used_recipients), (true, 1, 3));
    assert_eq!(told.age_millis, 2000);
    holding.answered(at(6), at(6), &allotment(None));
    assert_eq!(holding.claim(at(7)).leases.len(), 1);
    holding.answered(at(7), at(7), &Allotment { confirmed: vec![1], ..allotment(None) });
    assert!(holding.claim(at(8)).leases.is_empty());
}

#[test]
fn what_takes_longer_than_its_lease_is_told_of_when_it_ends_and_not_again_and_again() {
    let mut holding = holding();
    holding.answered(at(0), at(0), &allotment(lease(1, 1)));
    let source = holding.take(at(1), ONE).unwrap();
    assert_eq!(holding.due(at(11)), at(30));
    assert!(!holding.claim(at(30)).leases[0].ended);
    holding.answered(at(30), at(30), &allotment(None));
    assert_eq!(holding.due(at(31)), at(60));
    holding.settle(source, at(40), ONE);
    assert!(holding.due(at(40)) <= at(40));
    assert!(holding.claim(at(40)).leases[0].ended);
}

#[test]
fn what_nobody_uses_is_given_back() {
    let mut holding = holding();
    holding.answered(at(0), at(0), &allotment(lease(1, 2)));
    assert_eq!(holding.due(at(1)), at(10));
    let told = holding.claim(at(10)).leases[0];
    assert_eq!((told.ended, told.used_messages), (true, 0));
}

#[test]
fn a_look_at_the_way_takes_a_lease_without_messages() {
    let mut holding = holding();
    assert!(holding.may(at(0), Amount::NOTHING).is_err());
    let claim = holding.claim(at(0));
    assert_eq!((claim.messages, claim.probe), (0, true));
    holding.answered(at(0), at(0), &allotment(lease(1, 0)));
    assert_eq!(holding.take(at(1), ONE), None);
    let source = holding.take(at(1), Amount::NOTHING).unwrap();
    assert!(!holding.claim(at(2)).leases[0].ended);
    holding.settle(source, at(3), Amount::NOTHING);
    assert!(holding.claim(at(3)).leases[0].ended);
}

/// Slice 3 of 8, 30 seconds each.
fn turn() -> Turn {
    Turn {
        index: 3,
        of: 8,
        slice_millis: 30_000,
        messages: 1,
        begin_millis: 4000,
        last_millis: 9000,
        cut_millis: 26_000,
        after_millis: 189_000,
        recipients: 5,
    }
}

/// The first slice of index 3 after `from`.
fn own_slice(from: Duration) -> Duration {
    let mut start = Duration::from_secs(from.as_secs() / 240 * 240 + 90);
    while start < from {
        start += Duration::from_secs(240);
    }
    start
}

fn left_alone() -> Holding {
    let mut holding = holding();
    holding.answered(at(0), at(0), &Allotment { alone: Some(turn()), ..allotment(None) });
    holding
}

#[test]
fn alone_one_message_goes_in_each_of_the_own_slices_and_no_other() {
    let mut holding = left_alone();
    let second = Duration::from_secs(1);
    let mut went = Vec::new();
    let mut now = at(0);
    while now < at(1200) {
        if holding.take(now, ONE).is_some() {
            went.push(now);
        }
        now += second;
    }
    let first = own_slice(at(189)) + 4 * second;
    let expected: Vec<_> = (0..5).map(|n| first + n * 240 * second).filter(|at| *at < now).collect();
    assert_eq!(went, expected);
}

fn stranger() -> Option<Turn> {
    let limits = crate::budget::Limits { messages: Some(30), recipients: None, connections: 1 };
    crate::budget::stranger::turn("uid", limits, Spans::default())
}

#[test]
fn who_never_reached_the_operator_sends_a_message_every_sixteen_minutes() {
    let mut never = holding().or_as_a_stranger(stranger());
    let went: Vec<u64> = (0..4 * 16 * 60).filter(|second| never.take(at(*second), ONE).is_some()).collect();
    assert!(went[0] >= 600 && went.len() == 4 - usize::from(went[0] >= 16 * 60), "{went:?}");
    assert!(went.windows(2).all(|pair| pair[1] - pair[0] == 16 * 60), "{went:?}");
    let claim = never.claim(at(4000));
    assert_eq!((claim.turn, claim.alone_recipients), (None, number(went.len() as u64)));

    let mut reached = holding().or_as_a_stranger(stranger());
    reached.answered(at(0), at(0), &allotment(None));
    assert!((0..4 * 16 * 60).all(|second| reached.take(at(second), ONE).is_none()), "it was given none");
}

#[test]
fn alone_a_slice_is_for_so_many_messages() {
    let mut holding = holding();
    let alone = Some(Turn { messages: 3, ..turn() });
    holding.answered(at(0), at(0), &Allotment { alone, ..allotment(None) });
    let slice = own_slice(at(189)) + Duration::from_secs(5);
    let went = (0..5).filter(|_| holding.take(slice, ONE).is_some()).count();
    assert_eq!(went, 3);
}

#[test]
fn alone_a_day_has_an_end_and_a_restart_does_not_forget_it() {
    let mut holding = left_alone();
    let slice = own_slice(at(189)) + Duration::from_secs(5);
    assert!(holding.take(slice, Amount::message(6)).is_none());
    assert!(
        matches!(holding.take(slice, Amount::message(4)), Some(Source::Turn(cut)) if cut == slice + Duration::from_secs(21))
    );
    let memory = holding.memory(slice).unwrap();
    let restart = slice + Duration::from_secs(100);
    let mut again = Holding::new(Spans::default(), &memory, restart);
    let later = own_slice(restart + Duration::from_secs(189)) + Duration::from_secs(5);
    assert!(
        again.take(own_slice(restart) + Duration::from_secs(5), ONE).is_none(),
        "perhaps it was heard just before"
    );
    assert!(again.take(later, Amount::message(2)).is_none());
    assert!(again.take(later, Amount::message(1)).is_some());
    assert_eq!(again.claim(later).alone_recipients, 1);
    assert!(again.claim(later).instance > memory.life);
}

#[test]
fn turns_that_were_taken_are_told_as_long_as_they_are_in_a_window_also_after_a_restart() {
    let mut holding = left_alone();
    assert!(holding.claim(at(1)).no_turns_taken);
    let slice = own_slice(at(189)) + Duration::from_secs(4);
    assert!(holding.take(slice, ONE).is_some());
    assert!(!holding.claim(slice).no_turns_taken);
    let memory = holding.memory(slice).unwrap();
    let mut restarted = Holding::new(Spans::default(), &memory, slice);
    assert!(!restarted.claim(slice).no_turns_taken);
    let day = Duration::from_secs(25 * 3600);
    assert!(restarted.claim(slice + day).no_turns_taken && holding.claim(slice + day).no_turns_taken);
}

#[test]
fn waiting_alone_means_waiting_for_the_own_slice() {
    let mut holding = left_alone();
    let now = own_slice(at(189)) + Duration::from_secs(235);
    let until = holding.may(now, ONE).unwrap_err().until;
    assert_eq!(until, own_slice(now) + Duration::from_secs(4));
}

#[test]
fn lives_are_told_apart_also_when_the_clock_was_set_back() {
    let memory = Memory { life: u64::try_from(at(1000).as_millis()).unwrap(), ..Memory::default() };
    assert!(Holding::new(Spans::default(), &memory, at(0)).claim(at(0)).instance > memory.life);
}

#[test]
fn after_a_failure_news_waits_for_the_next_try() {
    let mut holding = holding();
    let _ = holding.may(at(0), ONE);
    holding.claim(at(0));
    holding.unanswered(at(3));
    let _ = holding.may(at(1), Amount::message(9));
    assert!(holding.due(at(1)) >= at(3));
}
