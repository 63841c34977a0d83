//! What is observed in a simulated day.

use super::world::{EPOCH, MINUTE};

/// What was observed.
#[derive(Debug)]
pub struct Seen {
    pub sent: u64,
    /// By sidecars of the other namespace.
    pub sent_elsewhere: u64,
    pub exchanges: u64,
    pub slots: u64,
    pub slots_of_unregistered: u64,
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
    pub away_until: u64,
    /// Messages that wait in sidecars that could be served.
    pub waiting: usize,
    minute: Minute,
}

/// The minute that passes.
#[derive(Debug)]
struct Minute {
    began: u64,
    is_busy: bool,
    counted: u64,
}

impl Seen {
    pub const fn new() -> Self {
        Self {
            sent: 0,
            sent_elsewhere: 0,
            exchanges: 0,
            slots: 0,
            slots_of_unregistered: 0,
            cut: 0,
            falls: 0,
            crashes: 0,
            partitions: 0,
            busy_minutes: 0,
            in_busy_minutes: 0,
            longest_wait: 0,
            most_waiting: 0,
            away_until: 0,
            waiting: 0,
            minute: Minute { began: EPOCH, is_busy: false, counted: 0 },
        }
    }

    /// Microsoft has counted a message.
    pub const fn counted(&mut self) {
        self.minute.counted += 1;
    }

    /// Time has passed until `now`. With `enough` messages that wait, everybody is busy for a minute.
    pub const fn pass(&mut self, now: u64, enough: usize) {
        while now >= self.minute.began + MINUTE {
            if self.minute.is_busy {
                self.busy_minutes += 1;
                self.in_busy_minutes += self.minute.counted;
            }
            let began = self.minute.began + MINUTE;
            let is_busy = self.waiting >= enough && self.away_until < began;
            self.minute = Minute { began, is_busy, counted: 0 };
        }
        self.minute.is_busy &= self.waiting >= enough && self.away_until < now;
    }
}
