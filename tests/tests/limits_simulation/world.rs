//! A cluster's day: sidecars, the operator and Microsoft, with everything that can go wrong between them.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet};
use std::time::Duration;

use mailroute_operator::budget::terms::Terms;
use mailroute_operator::budget::{Holder, Limits};
use mailroute_route::control::{Allotment, Claim};
use mailroute_sidecar::budget::holding::Source;
use mailroute_sidecar::budget::{self, Amount, Spans};

use super::chance::Chance;
use super::leader::{Asker, Leader};
use super::sidecar::Sidecar;
use super::upstream::Upstream;

/// When a day begins. Clocks are ahead of true time by about an hour, so that none is behind it.
const EPOCH: u64 = 1_800_000_000_000;

pub const SECOND: u64 = 1000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;

/// What happens.
enum Event {
    /// A sidecar looks at its queue and at what to say.
    Look(usize),
    Claim(Asker, Box<Claim>),
    Answer(Asker, Box<Allotment>),
    /// An exchange comes to nothing.
    Failed(usize, u64),
    /// Microsoft counts the message.
    Counted(usize, u64),
    Sent(usize, u64),
    Written(u64),
    LeaderFalls,
    LeaderRises,
    CutOff(usize, u64),
    Healed(usize),
    Crash(usize),
    Restart(usize),
    /// The pod is replaced by another one.
    Replace(usize),
    Gone(Holder),
    Burst,
    Sweep,
}

/// What is to happen in a day.
#[derive(Clone, Copy)]
pub struct Plan {
    pub seed: u64,
    pub sidecars: usize,
    pub length: u64,
    pub limits: Limits,
    pub day: u64,
    /// Messages of a burst, and the time between two.
    pub burst: (u64, u64),
    /// Most recipients of a message.
    pub recipients: u64,
    /// What goes wrong.
    pub trouble: Trouble,
}

/// What goes wrong in a day.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Trouble {
    /// Changes of leader, each hour.
    pub falls: u64,
    /// Processes that are killed, each hour, and as many pods that are replaced by others.
    pub crashes: u64,
    /// Whether it is those that are just sending.
    pub at_work: bool,
    /// Sidecars that are cut off, in all.
    pub partitions: u64,
    /// Whether those are of pods that were just made.
    pub newborn: bool,
    /// One message in so many takes minutes.
    pub slow: u64,
    /// One word in so many is lost.
    pub lost: u64,
}

impl Trouble {
    /// None at all.
    pub const NONE: Self = Self {
        falls: 0,
        crashes: 0,
        at_work: false,
        partitions: 0,
        newborn: false,
        slow: u64::MAX,
        lost: u64::MAX,
    };

    /// As it is for so many sidecars, in so many hours.
    pub const fn usual(sidecars: u64, hours: u64) -> Self {
        let partitions = if hours * sidecars / 400 > 3 { hours * sidecars / 400 } else { 3 };
        Self {
            falls: 1,
            crashes: sidecars / 12,
            at_work: false,
            partitions,
            newborn: false,
            slow: 300,
            lost: 2000,
        }
    }
}

pub struct World {
    plan: Plan,
    pub now: u64,
    chance: Chance,
    /// Time, order, and where the event is.
    events: BinaryHeap<Reverse<(u64, u64, usize)>>,
    bodies: Vec<Option<Event>>,
    free: Vec<usize>,
    number: u64,
    pub sidecars: Vec<Sidecar>,
    pub leader: Leader,
    leader_life: u64,
    pub upstream: Upstream,
    next_holder: u64,
    next_exchange: u64,
    next_message: u64,
    /// When the message under way by its number is counted.
    counted: HashSet<u64>,
    pub seen: Seen,
}

/// What was observed.
#[derive(Debug, Default)]
pub struct Seen {
    pub sent: u64,
    pub exchanges: u64,
    pub turns: u64,
    pub turns_of_strangers: u64,
    pub cut: u64,
    pub falls: u64,
    pub crashes: u64,
    pub partitions: u64,
    /// Minutes in which a minute's worth of messages waited all the time, and messages counted in them.
    pub busy_minutes: u64,
    pub in_busy_minutes: u64,
    /// The longest that a sidecar waited for a lease while it was in contact with a leader.
    pub longest_wait: u64,
    pub most_waiting: usize,
    /// Until when there is no operator at all, rather than another replica soon.
    away_until: u64,
    waiting: usize,
    minute_began: u64,
    minute_busy: bool,
    minute_counted: u64,
}

impl Event {
    /// Whose queue or contact it may change.
    fn sidecar(&self) -> Option<usize> {
        match self {
            Self::Look(who) | Self::CutOff(who, _) | Self::Healed(who) | Self::Restart(who) => Some(*who),
            _ => None,
        }
    }
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let day = Duration::from_millis(plan.day);
        let terms = Terms { day, ..Terms::default() };
        let mut world = Self {
            plan,
            now: EPOCH,
            chance: Chance::new(plan.seed),
            events: BinaryHeap::new(),
            bodies: Vec::new(),
            free: Vec::new(),
            number: 0,
            sidecars: Vec::new(),
            leader: Leader::new(terms, plan.limits),
            leader_life: 0,
            upstream: Upstream::new(MINUTE, plan.day),
            next_holder: 0,
            next_exchange: 0,
            next_message: 0,
            counted: HashSet::new(),
            seen: Seen { minute_began: EPOCH, ..Seen::default() },
        };
        for n in 0..plan.sidecars {
            let sidecar = world.sidecar();
            world.sidecars.push(sidecar);
            let at = world.now + world.chance.between(0, 30 * SECOND);
            world.look(n, at);
        }
        world.at(world.now + 2 * MINUTE, Event::Burst);
        world.at(world.now + 30 * SECOND, Event::Sweep);
        world.plan_trouble();
        world
    }

    fn sidecar(&mut self) -> Sidecar {
        self.next_holder += 1;
        let spans =
            Spans { minute: Duration::from_millis(MINUTE), day: Duration::from_millis(self.plan.day) };
        let Limits { messages, recipients, .. } = self.plan.limits;
        let limits =
            budget::Limits { messages: Some(messages), recipients: Some(recipients), connections: 1 };
        let offset = HOUR + self.chance.between(0, 2 * SECOND);
        Sidecar::new(format!("uid-{}", self.next_holder), offset, limits, spans, self.now)
    }

    fn plan_trouble(&mut self) {
        let end = self.now + self.plan.length;
        let (hours, sidecars) = (self.plan.length / HOUR, self.plan.sidecars as u64);
        let trouble = self.plan.trouble;
        let when = |chance: &mut Chance| chance.between(EPOCH + 3 * MINUTE, end);
        for _ in 0..hours * trouble.falls {
            let at = when(&mut self.chance);
            self.at(at, Event::LeaderFalls);
        }
        for _ in 0..hours * trouble.crashes {
            let (at, who) = (when(&mut self.chance), self.chance.between(0, sidecars) as usize);
            self.at(at, Event::Crash(who));
            let (at, who) = (when(&mut self.chance), self.chance.between(0, sidecars) as usize);
            self.at(at, Event::Replace(who));
        }
        for _ in 0..trouble.partitions {
            let (at, who) = (when(&mut self.chance), self.chance.between(0, sidecars) as usize);
            let length = if self.chance.one_in(3) {
                self.chance.between(4 * MINUTE, 40 * MINUTE)
            } else {
                self.chance.between(SECOND, 2 * MINUTE)
            };
            self.at(at, Event::CutOff(who, length));
            if trouble.newborn {
                self.at(at, Event::Replace(who));
            }
        }
    }

    fn at(&mut self, at: u64, event: Event) {
        self.number += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.bodies.push(None);
            self.bodies.len() - 1
        });
        self.bodies[place] = Some(event);
        self.events.push(Reverse((at.max(self.now), self.number, place)));
    }

    fn look(&mut self, who: usize, at: u64) {
        let at = at.max(self.now);
        if let Some(sidecar) = self.sidecars.get_mut(who)
            && at < sidecar.next_look
        {
            sidecar.next_look = at;
            self.at(at, Event::Look(who));
        }
    }

    /// Lets the day pass, and then everything that waits.
    pub fn run(&mut self) {
        let end = self.now + self.plan.length;
        while let Some(Reverse((at, _, place))) = self.events.pop() {
            if at > end {
                break;
            }
            self.now = at;
            self.watch();
            let event = self.bodies[place].take().expect("an event happens once");
            self.free.push(place);
            self.happen(event);
        }
    }

    /// What keeps everybody busy for a minute.
    const fn enough(&self) -> usize {
        self.plan.limits.messages as usize
    }

    fn watch(&mut self) {
        let enough = self.enough();
        while self.now >= self.seen.minute_began + MINUTE {
            let seen = &mut self.seen;
            if seen.minute_busy {
                seen.busy_minutes += 1;
                seen.in_busy_minutes += seen.minute_counted;
            }
            seen.minute_began += MINUTE;
            seen.minute_counted = 0;
            seen.minute_busy = seen.waiting >= enough && seen.away_until < seen.minute_began;
        }
        self.seen.minute_busy &= self.seen.waiting >= self.enough() && self.seen.away_until < self.now;
    }

    fn happen(&mut self, event: Event) {
        let touched = event.sidecar();
        match event {
            Event::Look(who) => self.looks(who),
            Event::Claim(asker, claim) => self.claimed(asker, &claim),
            Event::Answer(asker, allotment) => self.answered(asker, &allotment),
            Event::Failed(who, exchange) => self.failed(who, exchange),
            Event::Counted(who, number) => self.is_counted(who, number),
            Event::Sent(who, number) => self.sent(who, number),
            Event::Written(life) => self.written(life),
            Event::LeaderFalls => self.leader_falls(),
            Event::LeaderRises => {
                self.leader.is_up = true;
                self.leader.offset = HOUR + self.chance.between(0, 2 * SECOND);
            }
            Event::CutOff(who, length) => {
                self.sidecars[who].is_cut_off = true;
                self.seen.partitions += 1;
                self.stops_waiting(who);
                self.at(self.now + length, Event::Healed(who));
            }
            Event::Healed(who) => self.sidecars[who].is_cut_off = false,
            Event::Crash(who) => {
                let who = self.aim(who);
                self.crash(who);
                self.weigh(who);
                let pause = self.chance.between(SECOND, 20 * SECOND);
                self.at(self.now + pause, Event::Restart(who));
            }
            Event::Restart(who) => {
                let now = self.now;
                self.sidecars[who].restart(now);
                self.look(who, now);
            }
            Event::Replace(who) => {
                let who = self.aim(who);
                self.replace(who);
                self.weigh(who);
            }
            Event::Gone(holder) => self.leader.gone(holder, self.now),
            Event::Burst => self.burst(),
            Event::Sweep => {
                let living = self.sidecars.iter().map(Sidecar::pod).collect();
                self.leader.sweep(living, self.now);
                self.at(self.now + 30 * SECOND, Event::Sweep);
            }
        }
        if let Some(who) = touched {
            self.weigh(who);
        }
    }

    /// Counts what waits in a sidecar that could be served.
    fn weigh(&mut self, who: usize) {
        let sidecar = &mut self.sidecars[who];
        let in_contact = !sidecar.is_cut_off && !sidecar.is_down;
        let waiting = if in_contact { sidecar.queue.len() } else { 0 };
        self.seen.waiting += waiting;
        self.seen.waiting -= std::mem::replace(&mut sidecar.weight, waiting);
    }

    /// Some sidecars get messages, all at once.
    fn burst(&mut self) {
        let (messages, every) = self.plan.burst;
        for _ in 0..messages {
            let who = self.chance.between(0, self.plan.sidecars as u64) as usize;
            let recipients = self.chance.between(1, self.plan.recipients + 1);
            self.sidecars[who].queue.push_back(recipients);
            self.weigh(who);
            let at = self.now + self.chance.between(0, SECOND);
            self.look(who, at);
        }
        self.at(self.now + every, Event::Burst);
    }

    fn looks(&mut self, who: usize) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        // One look is enough; others were planned for what this one sees.
        if now < sidecar.next_look || sidecar.is_down {
            return;
        }
        sidecar.next_look = u64::MAX;
        self.try_to_send(who);
        self.try_to_claim(who);
    }

    fn try_to_send(&mut self, who: usize) {
        let (now, number) = (self.now, self.next_message);
        match self.sidecars[who].send(number, now) {
            Ok(true) => self.sending(who),
            Ok(false) => {}
            Err(again) => {
                let sidecar = &mut self.sidecars[who];
                if !sidecar.is_cut_off && self.leader.is_up {
                    sidecar.waits_since.get_or_insert(now);
                }
                self.look(who, again);
            }
        }
    }

    fn sending(&mut self, who: usize) {
        let (now, number) = (self.now, self.next_message);
        self.next_message += 1;
        self.stops_waiting(who);
        self.upstream.opened();
        let chance = &mut self.chance;
        let takes = if chance.one_in(self.plan.trouble.slow) {
            chance.between(10 * SECOND, 150 * SECOND)
        } else {
            chance.between(200, 2 * SECOND)
        };
        let counted = now + chance.between(0, takes);
        if matches!(self.sidecars[who].sending.as_ref().map(|it| it.source), Some(Source::Turn(_))) {
            self.seen.turns += 1;
            self.seen.turns_of_strangers += u64::from(self.sidecars[who].is_stranger());
        }
        if let Some(sending) = &mut self.sidecars[who].sending {
            sending.ends = now + takes;
        }
        self.at(counted, Event::Counted(who, number));
        self.at(now + takes, Event::Sent(who, number));
        self.look_at_cut(who, number);
    }

    /// What is under way is cut off when its leave says so.
    fn look_at_cut(&mut self, who: usize, number: u64) {
        let sidecar = &self.sidecars[who];
        let Some(sending) = &sidecar.sending else { return };
        let cut = sidecar.true_time(sidecar.holding.cut_at(sending.source));
        if cut < sending.ends {
            self.at(cut, Event::Sent(who, number));
        }
    }

    fn is_counted(&mut self, who: usize, number: u64) {
        if self.sidecars[who].sending.as_ref().is_some_and(|sending| sending.number == number) {
            self.count(number);
        }
    }

    fn count(&mut self, number: u64) {
        if self.counted.insert(number) {
            self.upstream.message(self.now);
            self.seen.minute_counted += 1;
        }
    }

    fn sent(&mut self, who: usize, number: u64) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        let Some(sending) = sidecar.sending.as_ref().filter(|sending| sending.number == number) else {
            return;
        };
        let recipients = sending.recipients;
        if now < sending.ends {
            if sidecar.holding.cut_at(sending.source) > sidecar.local(now) {
                // That has moved since this was planned; the end comes later.
                return;
            }
            // Whether Microsoft counts what was cut off is not known, so here it does.
            self.seen.cut += 1;
            self.count(number);
        }
        self.counted.remove(&number);
        self.upstream.closed();
        self.upstream.accepted(recipients, now);
        self.sidecars[who].settle(Amount::message(recipients), now);
        self.seen.sent += 1;
        self.look(who, now);
    }

    fn try_to_claim(&mut self, who: usize) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        if sidecar.exchange.is_some() {
            return;
        }
        let local = sidecar.local(now);
        let due = sidecar.holding.due(local);
        let due = sidecar.true_time(due);
        if due > now {
            return self.look(who, due);
        }
        let mut claim = sidecar.holding.claim(local);
        if claim.messages > 0 {
            claim.messages = claim.messages.max(u32::try_from(sidecar.queue.len()).unwrap_or(u32::MAX));
        }
        self.next_exchange += 1;
        let exchange = self.next_exchange;
        sidecar.exchange = Some((exchange, local));
        let (holder, cut_off) = (sidecar.holder, sidecar.is_cut_off);
        self.seen.exchanges += 1;
        if cut_off || !self.leader.is_up || self.lost() {
            let after = self.chance.between(10, 10 * SECOND);
            return self.at(now + after, Event::Failed(who, exchange));
        }
        let delay = self.delay();
        self.at(now + delay, Event::Claim((who, exchange, holder), Box::new(claim)));
    }

    fn lost(&mut self) -> bool {
        self.chance.one_in(self.plan.trouble.lost)
    }

    fn delay(&mut self) -> u64 {
        if self.plan.trouble.lost < u64::MAX && self.chance.one_in(300) {
            self.chance.between(SECOND, 8 * SECOND)
        } else {
            self.chance.between(1, 20)
        }
    }

    fn claimed(&mut self, asker: Asker, claim: &Claim) {
        if !self.leader.is_up {
            return self.unanswered(asker);
        }
        let (answer, writes) = self.leader.claim(asker, claim, self.now);
        if let Some(answer) = answer {
            self.answer(asker, answer);
        }
        if writes {
            self.at(self.now + 10, Event::Written(self.leader_life));
        }
    }

    fn answer(&mut self, asker: Asker, answer: Allotment) {
        if self.lost() {
            return self.unanswered(asker);
        }
        let delay = self.delay();
        self.at(self.now + delay, Event::Answer(asker, Box::new(answer)));
    }

    /// No answer comes, which is known after a while.
    fn unanswered(&mut self, (who, exchange, _): Asker) {
        let after = self.chance.between(SECOND, 10 * SECOND);
        self.at(self.now + after, Event::Failed(who, exchange));
    }

    fn written(&mut self, life: u64) {
        if life != self.leader_life {
            return;
        }
        let (answers, more) = self.leader.wrote(self.now);
        for (asker, answer) in answers {
            self.answer(asker, answer);
        }
        if more {
            self.at(self.now + 10, Event::Written(life));
        }
    }

    fn answered(&mut self, (who, exchange, _): Asker, allotment: &Allotment) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        let Some((_, sent)) = sidecar.exchange.filter(|(current, _)| *current == exchange) else { return };
        sidecar.exchange = None;
        if sidecar.is_cut_off {
            return self.gives_up(who);
        }
        sidecar.failures = 0;
        let local = sidecar.local(now);
        sidecar.holding.answered(sent, local, allotment);
        sidecar.remember(now);
        // What was to be cut off may go on.
        if let Some(number) = sidecar.sending.as_ref().map(|it| it.number) {
            self.look_at_cut(who, number);
        }
        self.look(who, now);
    }

    fn failed(&mut self, who: usize, exchange: u64) {
        if self.sidecars[who].exchange.is_some_and(|(current, _)| current == exchange) {
            self.sidecars[who].exchange = None;
            self.gives_up(who);
        }
    }

    fn gives_up(&mut self, who: usize) {
        let now = self.now;
        let sidecar = &mut self.sidecars[who];
        sidecar.failures += 1;
        let local = sidecar.local(now);
        let longest = if sidecar.holding.is_wanted(local) { 3 } else { 120 };
        let pause = (5_u64 << (sidecar.failures - 1).min(6)).min(longest);
        sidecar.holding.unanswered(local + Duration::from_secs(pause));
        self.look(who, now);
    }

    fn leader_falls(&mut self) {
        if !self.leader.is_up {
            return;
        }
        self.seen.falls += 1;
        self.leader_life += 1;
        let landed = self.chance.one_in(2);
        for asker in self.leader.crash(landed) {
            self.unanswered(asker);
        }
        // Mostly an orderly change; sometimes the whole operator is away.
        let away = if self.chance.one_in(12) {
            let away = self.chance.between(4 * MINUTE, 12 * MINUTE);
            self.seen.away_until = self.now + away;
            away
        } else {
            self.chance.between(SECOND, 20 * SECOND)
        };
        self.at(self.now + away, Event::LeaderRises);
        (0..self.sidecars.len()).for_each(|who| self.stops_waiting(who));
    }

    fn stops_waiting(&mut self, who: usize) {
        let now = self.now;
        if let Some(since) = self.sidecars[who].waits_since.take() {
            self.seen.longest_wait = self.seen.longest_wait.max(now - since);
        }
        let waiting = self.seen.waiting;
        self.seen.most_waiting = self.seen.most_waiting.max(waiting);
    }

    /// Whom it hits: somebody who is sending, if there is one and that is the plan.
    fn aim(&self, who: usize) -> usize {
        let count = self.sidecars.len();
        let mut others = (0..count).map(|step| (who + step) % count);
        let at_work = others.find(|other| self.sidecars[*other].sending.is_some());
        at_work.filter(|_| self.plan.trouble.at_work).unwrap_or(who)
    }

    fn crash(&mut self, who: usize) {
        let now = self.now;
        self.seen.crashes += 1;
        let sidecar = &mut self.sidecars[who];
        sidecar.next_look = u64::MAX;
        if let Some(sending) = sidecar.crash(now) {
            // What was on the wire may still be counted, and the message is tried again.
            if self.chance.one_in(2) {
                self.count(sending.number);
                self.upstream.accepted(sending.recipients, now);
            }
            self.counted.remove(&sending.number);
            self.upstream.closed();
            self.sidecars[who].queue.push_front(sending.recipients);
        }
    }

    fn replace(&mut self, who: usize) {
        if self.sidecars[who].is_down {
            return;
        }
        self.crash(who);
        let holder = self.sidecars[who].holder;
        let seen = self.chance.between(10, 5 * SECOND);
        self.at(self.now + seen, Event::Gone(holder));
        let mut fresh = self.sidecar();
        fresh.queue = std::mem::take(&mut self.sidecars[who].queue);
        fresh.is_cut_off = self.sidecars[who].is_cut_off;
        fresh.weight = self.sidecars[who].weight;
        self.sidecars[who] = fresh;
        let now = self.now;
        self.look(who, now);
    }

    /// Messages that wait anywhere.
    pub fn waiting(&self) -> usize {
        self.sidecars.iter().map(|sidecar| sidecar.queue.len()).sum()
    }
}
