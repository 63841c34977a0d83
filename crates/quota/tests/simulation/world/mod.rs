//! A cluster's day: sidecars, the operator and Microsoft, with everything that can go wrong between them.

mod exchange;
mod failures;
mod sending;

use std::collections::HashSet;
use std::time::Duration;

use mailroute_quota::RouteLimits;
use mailroute_quota::Timing;
use mailroute_quota::server::limits::{MailboxLimits, NO_LIMIT, SidecarId};
use mailroute_quota::wire::{Allotment, Claim};

use super::agenda::Agenda;
use super::chance::Chance;
use super::leader::{Asker, Leader};
use super::plan::Plan;
use super::seen::Seen;
use super::sidecar::Sidecar;
use super::upstream::Upstream;

/// When a day begins. Clocks are ahead of true time by about an hour, so that none is behind it.
pub const EPOCH: u64 = 1_800_000_000_000;

pub const SECOND: u64 = 1000;
pub const MINUTE: u64 = 60 * SECOND;
pub const HOUR: u64 = 60 * MINUTE;

/// How often the operator looks through the pods that live.
const SWEEP: u64 = 30 * SECOND;

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
    Gone(SidecarId),
    Burst,
    Sweep,
}

pub struct World {
    plan: Plan,
    pub now: u64,
    chance: Chance,
    agenda: Agenda<Event>,
    pub sidecars: Vec<Sidecar>,
    pub leader: Leader,
    leader_life: u64,
    pub upstream: Upstream,
    next_id: u64,
    next_exchange: u64,
    next_message: u64,
    /// When the message under way by its number is counted.
    counted: HashSet<u64>,
    pub seen: Seen,
}

impl World {
    pub fn new(plan: Plan) -> Self {
        let day = Duration::from_millis(plan.day);
        let timing = Timing { day, ..Timing::default() };
        let mut world = Self {
            plan,
            now: EPOCH,
            chance: Chance::new(plan.seed),
            agenda: Agenda::new(),
            sidecars: Vec::new(),
            leader: Leader::new(timing, plan.limits),
            leader_life: 0,
            upstream: Upstream::new(MINUTE, plan.day),
            next_id: 0,
            next_exchange: 0,
            next_message: 0,
            counted: HashSet::new(),
            seen: Seen::new(),
        };
        for n in 0..plan.sidecars {
            let sidecar = world.sidecar(n);
            world.sidecars.push(sidecar);
            let at = world.now + world.chance.between(0, 30 * SECOND);
            world.look(n, at);
        }
        world.at(world.now + 2 * MINUTE, Event::Burst);
        world.at(world.now + SWEEP, Event::Sweep);
        world.plan_failures();
        world
    }

    /// Lets the day pass.
    pub fn run(&mut self) {
        let end = self.now + self.plan.length;
        while let Some((at, event)) = self.agenda.next()
            && at <= end
        {
            self.now = at;
            self.seen.pass(at, self.plan.limits.messages as usize);
            self.happen(event);
        }
    }

    /// Messages that wait anywhere.
    pub fn waiting(&self) -> usize {
        self.sidecars.iter().map(|sidecar| sidecar.queue.len()).sum()
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Look(who) => self.looks(who),
            Event::Claim(asker, claim) => self.claimed(asker, &claim),
            Event::Answer(asker, allotment) => self.answered(asker, &allotment),
            Event::Failed(who, exchange) => self.failed(who, exchange),
            Event::Counted(who, number) => self.is_counted(who, number),
            Event::Sent(who, number) => self.sent(who, number),
            Event::Written(life) => self.written(life),
            Event::LeaderFalls => self.leader_falls(),
            Event::LeaderRises => self.leader_rises(),
            Event::CutOff(who, length) => self.cut_off(who, length),
            Event::Healed(who) => self.healed(who),
            Event::Crash(who) => self.crashes(who),
            Event::Restart(who) => self.restart(who),
            Event::Replace(who) => self.replace(who),
            Event::Gone(id) => self.leader.gone(id, self.now),
            Event::Burst => self.burst(),
            Event::Sweep => self.sweep(),
        }
    }

    /// Some sidecars get messages, all at once.
    fn burst(&mut self) {
        let (messages, every) = self.plan.burst;
        for _ in 0..messages {
            let who = self.anybody();
            let recipients = self.chance.between(1, self.plan.recipients + 1);
            self.sidecars[who].queue.push_back(recipients);
            self.weigh(who);
            let at = self.now + self.chance.between(0, SECOND);
            self.look(who, at);
        }
        self.at(self.now + every, Event::Burst);
    }

    /// The operator looks through the pods that live.
    fn sweep(&mut self) {
        let running = self.sidecars.iter().map(Sidecar::pod).collect();
        self.leader.sweep(running, self.now);
        self.at(self.now + SWEEP, Event::Sweep);
    }

    /// Counts what waits in a sidecar that could be served.
    fn weigh(&mut self, who: usize) {
        let sidecar = &mut self.sidecars[who];
        let in_contact = !sidecar.is_cut_off && !sidecar.is_down;
        let waiting = if in_contact { sidecar.queue.len() } else { 0 };
        self.seen.waiting += waiting;
        self.seen.waiting -= std::mem::replace(&mut sidecar.weight, waiting);
    }

    fn stops_waiting(&mut self, who: usize) {
        if let Some(since) = self.sidecars[who].waits_since.take() {
            self.seen.longest_wait = self.seen.longest_wait.max(self.now - since);
        }
        self.seen.most_waiting = self.seen.most_waiting.max(self.seen.waiting);
    }

    /// Whether a sidecar is in the other namespace.
    const fn is_elsewhere(&self, who: usize) -> bool {
        who < self.plan.elsewhere
    }

    /// A sidecar of a new pod.
    fn sidecar(&mut self, who: usize) -> Sidecar {
        self.next_id += 1;
        let timing = Timing { day: Duration::from_millis(self.plan.day), ..Timing::default() };
        let MailboxLimits { messages, messages_per_hour, recipients, .. } = self.plan.limits;
        let limits = RouteLimits {
            messages: Some(messages),
            messages_per_hour: Some(messages_per_hour).filter(|limit| *limit < NO_LIMIT),
            recipients: Some(recipients),
            connections: 1,
        };
        let offset = HOUR + self.chance.between(0, 2 * SECOND);
        let namespace = if self.is_elsewhere(who) { "elsewhere" } else { "shop" };
        Sidecar::new(namespace.into(), self.next_id, offset, limits, timing, self.now)
    }

    fn anybody(&mut self) -> usize {
        self.chance.between(0, self.plan.sidecars as u64) as usize
    }

    fn at(&mut self, at: u64, event: Event) {
        self.agenda.at(at.max(self.now), event);
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
}
