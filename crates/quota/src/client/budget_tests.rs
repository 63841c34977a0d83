//! The promise, against a counter that stands where Microsoft's does.

use proptest::prelude::*;

use super::*;
use crate::client::journal;

const TIMING: Timing = Timing {
    minute: Duration::from_secs(60),
    hour: Duration::from_secs(3600),
    day: Duration::from_secs(86_400),
};

fn limits(messages: u32, recipients: u32) -> RouteLimits {
    RouteLimits {
        messages: Some(messages),
        recipients: Some(recipients),
        connections: 3,
        ..RouteLimits::NONE
    }
}

fn ms(millis: u64) -> Duration {
    // As after an epoch long ago, which also shows that nothing rests on small numbers.
    Duration::from_secs(1_790_000_000) + Duration::from_millis(millis)
}

/// What stands at Microsoft: the moment at which it counts, and what.
#[derive(Default)]
struct Upstream {
    counted: Vec<(Duration, u64)>,
}

impl Upstream {
    /// The most in any window that ends with a message.
    fn most_within(&mut self, length: Duration) -> u64 {
        self.counted.sort_unstable();
        let (mut from, mut sum, mut most) = (0, 0, 0);
        for &(at, count) in &self.counted {
            sum += count;
            while self.counted[from].0 + length <= at {
                sum -= self.counted[from].1;
                from += 1;
            }
            most = most.max(sum);
        }
        most
    }
}

/// One step of a random day.
#[derive(Clone, Debug)]
struct Step {
    /// Pause before it, ms.
    pause: u64,
    /// Recipients of the message.
    recipients: u64,
    /// From the entry to its settlement, ms.
    takes: u64,
    /// Where in between Microsoft counts.
    counts_at: f64,
    /// What is known afterwards.
    end: End,
}

#[derive(Clone, Copy, Debug)]
enum End {
    Accepted,
    /// Counted by the minute, not by the day.
    Refused,
    /// Never heard of.
    Unsent,
    /// Counted, and refused for the rate.
    Throttled,
}

fn step(longest_pause: u64, longest_time: u64) -> impl Strategy<Value = Step> {
    let end = prop_oneof![
        20 => Just(End::Accepted),
        3 => Just(End::Refused),
        2 => Just(End::Unsent),
        1 => Just(End::Throttled)
    ];
    (0..=longest_pause, 1..50_u64, 0..=longest_time, 0.0..=1.0_f64, end).prop_map(
        |(pause, recipients, takes, counts_at, end)| Step { pause, recipients, takes, counts_at, end },
    )
}

/// A budget in use: entries under way, and Microsoft's two counters.
struct Run {
    budget: Budget,
    now: Duration,
    under_way: Vec<(Duration, BudgetEntry, End)>,
    minute: Upstream,
    day: Upstream,
}

impl Run {
    fn new(limits: RouteLimits, timing: Timing) -> Self {
        let budget = Budget::new(limits, timing);
        Self { budget, now: ms(0), under_way: vec![], minute: Upstream::default(), day: Upstream::default() }
    }

    fn go_to(&mut self, until: Duration) {
        self.under_way.sort_by_key(|(at, ..)| std::cmp::Reverse(*at));
        while self.under_way.last().is_some_and(|(at, ..)| *at <= until) {
            let Some((at, entry, end)) = self.under_way.pop() else { return };
            let full = entry.amount();
            let used = match end {
                End::Accepted => full,
                End::Unsent => Amount::NOTHING,
                End::Refused | End::Throttled => Amount { recipients: 0, ..full },
            };
            if matches!(end, End::Throttled) {
                self.budget.throttled(Throttled::Rate, at);
            }
            self.budget.settle(entry, at, used);
        }
        self.now = self.now.max(until);
    }

    fn try_step(&mut self, step: &Step) -> Result<(), Wait> {
        let entry = self.budget.request(self.now, Amount::message(step.recipients))?;
        let ends = self.now + Duration::from_millis(step.takes);
        let counted = self.now + Duration::from_millis(step.takes).mul_f64(step.counts_at);
        if !matches!(step.end, End::Unsent) {
            self.minute.counted.push((counted, 1));
        }
        if matches!(step.end, End::Accepted) {
            self.day.counted.push((counted, step.recipients));
        }
        self.under_way.push((ends, entry, step.end));
        Ok(())
    }

    /// As an impatient sender: waits as told, and sometimes asks too early.
    fn drive(&mut self, steps: &[Step]) {
        for step in steps {
            self.go_to(self.now + Duration::from_millis(step.pause));
            while let Err(wait) = self.try_step(step) {
                assert!(wait.until > self.now, "{wait:?} at {:?}", self.now);
                let next = self.under_way.iter().map(|(at, ..)| *at).min();
                self.go_to(next.map_or(wait.until, |next| next.min(wait.until)));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_window_of_the_upstream_holds_more_than_the_limit(
        messages in 1..40_u32,
        steps in prop::collection::vec(step(4000, 30_000), 1..300),
    ) {
        let mut run = Run::new(limits(messages, u32::MAX), TIMING);
        run.drive(&steps);
        prop_assert!(run.minute.most_within(TIMING.minute) <= u64::from(messages));
    }

    #[test]
    fn no_day_of_the_upstream_holds_more_recipients_than_the_limit(
        recipients in 50..500_u32,
        steps in prop::collection::vec(step(3_600_000, 60_000), 1..200),
    ) {
        let mut run = Run::new(limits(1000, recipients), TIMING);
        run.drive(&steps);
        prop_assert!(run.day.most_within(TIMING.day) <= u64::from(recipients));
    }

    #[test]
    fn no_entry_is_lost(
        messages in 1..40_u32,
        steps in prop::collection::vec(step(4000, 30_000), 1..100),
    ) {
        let mut run = Run::new(limits(messages, 10_000), TIMING);
        run.drive(&steps);
        run.go_to(run.now + 3 * TIMING.day);
        prop_assert!(run.under_way.is_empty());
        prop_assert_eq!(run.budget.room(run.now), (Some(u64::from(messages)), Some(10_000)));
        prop_assert_eq!(run.budget.snapshot(run.now), BudgetSnapshot::default());
    }

    #[test]
    fn a_restart_at_any_moment_keeps_both_promises(
        messages in 1..20_u32,
        before in prop::collection::vec(step(4000, 20_000), 1..60),
        after in prop::collection::vec(step(4000, 20_000), 1..60),
        down in 0..100_000_u64,
    ) {
        let limits = limits(messages, 500);
        let mut run = Run::new(limits, TIMING);
        run.drive(&before);
        let text = journal::print(&run.budget.snapshot(run.now));
        let snapshot = journal::parse(&text).unwrap().snapshot;
        // What was under way ended with the process: what Microsoft saw of it, it saw until now.
        let end = run.now;
        for upstream in [&mut run.minute, &mut run.day] {
            upstream.counted.iter_mut().for_each(|(at, _)| *at = (*at).min(end));
        }
        run.under_way.clear();
        run.now += Duration::from_millis(down);
        run.budget = Budget::restore(limits, TIMING, &snapshot, run.now);
        run.drive(&after);
        prop_assert!(run.minute.most_within(TIMING.minute) <= u64::from(messages));
        prop_assert!(run.day.most_within(TIMING.day) <= 500);
    }

    #[test]
    fn a_long_queue_runs_at_97_percent_of_the_limit_at_least(
        messages in 1..100_u32,
        takes in 0..700_u64,
        late in 0..20_u64,
    ) {
        let mut run = Run::new(limits(messages, u32::MAX), TIMING);
        let step = Step { pause: 0, recipients: 1, takes, counts_at: 1.0, end: End::Accepted };
        let end = ms(20 * 60 * 1000);
        while run.now < end {
            let wait = run.try_step(&step).err().map_or(run.now, |wait| wait.until);
            let next = run.under_way.iter().map(|(at, ..)| *at).min();
            run.go_to(next.map_or(wait, |next| next.min(wait)) + Duration::from_millis(late));
        }
        let sent = run.minute.counted.len() as f64;
        prop_assert!(sent >= 0.97 * 20.0 * f64::from(messages), "{sent} of {messages} a minute");
    }
}

#[test]
fn half_of_the_minute_may_go_at_once_and_the_rest_is_spread() {
    let mut budget = Budget::new(limits(30, 10_000), TIMING);
    let mut at_once = vec![];
    let wait = loop {
        match budget.request(ms(0), Amount::message(1)) {
            Ok(entry) => at_once.push(entry),
            Err(wait) => break wait,
        }
    };
    assert_eq!(at_once.len(), 15);
    assert_eq!(wait, Wait { until: ms(2000), why: WaitReason::Pace });
}

#[test]
fn a_queue_settles_into_an_even_pace() {
    let mut run = Run::new(limits(30, u32::MAX), TIMING);
    let step = Step { pause: 0, recipients: 1, takes: 100, counts_at: 0.0, end: End::Accepted };
    run.drive(&vec![step; 200]);
    let settled = &run.minute.counted[100..];
    for (at, _) in &settled[..settled.len() - 6] {
        let ten_seconds =
            settled.iter().filter(|(other, _)| *at <= *other && *other < *at + ms(10_000) - ms(0));
        let count = ten_seconds.count();
        assert!((4..=6).contains(&count), "{count} from {at:?}");
    }
}

#[test]
fn without_limits_everything_goes_and_is_counted() {
    let none = RouteLimits { connections: 2, ..RouteLimits::NONE };
    let mut budget = Budget::new(none, TIMING);
    for n in 0..10_000 {
        let entry = budget.request(ms(n), Amount::message(3)).unwrap();
        budget.settle(entry, ms(n), Amount::message(3));
    }
    assert_eq!(budget.usage(ms(10_000)), Amount { messages: 10_000, recipients: 30_000 });
    assert_eq!(budget.usage(ms(71_000)).messages, 0);
    assert!(!budget.is_limited());
}

#[test]
fn a_day_that_is_used_up_says_when_it_has_room() {
    let mut budget = Budget::new(limits(100, 10), TIMING);
    let entry = budget.request(ms(0), Amount::message(8)).unwrap();
    budget.settle(entry, ms(100), Amount::message(8));
    let wait = budget.request(ms(200), Amount::message(3)).unwrap_err();
    assert_eq!(wait.why, WaitReason::Day);
    assert!((ms(86_400_000)..=ms(86_400_000 + 1_200_000)).contains(&wait.until), "{wait:?}");
    assert!(budget.request(ms(200), Amount::message(2)).is_ok(), "a smaller message still fits");
    assert!(budget.request(wait.until, Amount::message(3)).is_ok());
}

#[test]
fn an_hour_that_is_used_up_says_when_it_has_room_also_after_a_restart() {
    let hourly = RouteLimits { messages_per_hour: Some(3), ..limits(100, 1000) };
    let mut budget = Budget::new(hourly, TIMING);
    for _ in 0..3 {
        let entry = budget.request(ms(0), Amount::message(1)).unwrap();
        budget.settle(entry, ms(100), Amount::message(1));
    }
    let mut restarted = Budget::restore(hourly, TIMING, &budget.snapshot(ms(90_000)), ms(90_000));
    for budget in [&mut budget, &mut restarted] {
        assert_eq!(budget.room(ms(90_000)), (Some(0), Some(997)));
        assert_eq!(budget.view(ms(90_000)).hour, Some(Utilization { used: 3, limit: 3 }));
        let wait = budget.request(ms(90_000), Amount::message(1)).unwrap_err();
        assert_eq!(wait.why, WaitReason::Hour);
        assert!((ms(3_600_000)..=ms(3_600_000 + 120_000)).contains(&wait.until), "{wait:?}");
        assert!(budget.request(wait.until, Amount::message(1)).is_ok());
    }
}

#[test]
fn what_was_not_sent_gives_its_place_back_at_once() {
    let mut budget = Budget::new(limits(1, 10), TIMING);
    let entry = budget.request(ms(0), Amount::message(10)).unwrap();
    assert!(budget.request(ms(10), Amount::message(1)).is_err());
    budget.settle(entry, ms(20), Amount::NOTHING);
    assert_eq!(budget.room(ms(20)), (Some(1), Some(10)));
}

#[test]
fn a_refusal_for_too_much_makes_it_smaller_and_slower_and_it_recovers() {
    let mut budget = Budget::new(limits(30, 10_000), TIMING);
    assert_eq!(budget.connections(ms(0)), 3);
    budget.throttled(Throttled::Connections, ms(0));
    assert_eq!(budget.connections(ms(0)), 1);
    let wait = budget.request(ms(1), Amount::message(1)).unwrap_err();
    assert_eq!(wait, Wait { until: ms(3000), why: WaitReason::Restraint });
    assert_eq!(budget.room(ms(3000)).0, Some(15));
    assert_eq!(budget.connections(ms(250_000)), 3);
    assert_eq!(budget.room(ms(250_000)).0, Some(30));
}

#[test]
fn other_limits_count_what_was_used_before() {
    let mut budget = Budget::new(limits(30, 10_000), TIMING);
    for _ in 0..10 {
        let entry = budget.request(ms(0), Amount::message(100)).unwrap();
        budget.settle(entry, ms(0), Amount::message(100));
    }
    budget.reconfigure(limits(10, 1050));
    assert_eq!(budget.room(ms(1)), (Some(0), Some(50)));
    assert_eq!(budget.request(ms(1), Amount::message(51)).unwrap_err().why, WaitReason::Day);
}

#[test]
fn a_lease_of_many_messages_is_one_entry() {
    let mut budget = Budget::new(limits(30, 10_000), TIMING);
    let lease = budget.request(ms(0), Amount { messages: 20, recipients: 400 }).unwrap();
    assert_eq!(budget.room(ms(50_000)), (Some(10), Some(9600)));
    budget.settle(lease, ms(60_000), Amount { messages: 12, recipients: 90 });
    assert_eq!(budget.room(ms(61_000)), (Some(18), Some(9910)));
}

#[test]
fn a_clock_that_was_set_back_keeps_counting() {
    let counted = vec![(ms(5_000_000), Amount { messages: 10, recipients: 10 })];
    let snapshot = BudgetSnapshot { counted, open: vec![] };
    let mut budget = Budget::restore(limits(30, 100), TIMING, &snapshot, ms(0));
    assert_eq!(budget.room(ms(1)), (Some(20), Some(90)));
    assert_eq!(budget.room(ms(2 * 86_400_000)), (Some(30), Some(100)));
}

#[test]
fn a_snapshot_is_plain_data() {
    let counted = vec![(ms(7), Amount::message(2))];
    let snapshot = BudgetSnapshot { counted, open: vec![(3, Amount::message(1))] };
    let json = serde_json::to_string(&snapshot).unwrap();
    assert_eq!(serde_json::from_str::<BudgetSnapshot>(&json).unwrap(), snapshot);
}
