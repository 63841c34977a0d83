//! What is measured: sizes, sessions, modes and upstream delays, and who brings the messages.

use mailroute_route::file::{Chunking, DeliveryMode};

/// One thing to do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Octets of a message.
    pub bytes: usize,
    /// SMTP sessions at a time.
    pub sessions: usize,
    /// Each message has a session of its own.
    pub per_session: bool,
    /// What 250 means; Postfix knows one mode, which is `Queue`.
    pub mode: DeliveryMode,
    /// How long the upstream thinks about a message, milliseconds.
    pub delay: u64,
    /// How far away it is: the time there and back, milliseconds.
    pub round_trip: u64,
    /// Whether the sidecar uses BDAT.
    pub chunking: Chunking,
    /// Who brings the messages.
    pub origin: Origin,
}

/// Who brings the messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An application in the same pod, by SMTP on localhost.
    Application,
    /// Sidecars of other pods, over TLS with certificates on both sides: the program is a gateway.
    Pods,
}

/// Sizes and sessions of messages that are handed over to a gateway.
const HAND_OVERS: [(usize, usize); 4] = [(SMALL, 1), (SMALL, 10), (MIDDLE, 1), (MIDDLE, 10)];

/// A notification.
pub const SMALL: usize = 10 << 10;
/// One with a picture.
const MIDDLE: usize = 100 << 10;
/// One with a file.
const LARGE: usize = 10 << 20;

/// Everything that is measured, question by question.
pub fn all() -> Vec<Work> {
    let (queue, direct) = (DeliveryMode::Queue, DeliveryMode::DeliverOrQueue);
    let modes = [direct, queue];
    let mut works = Vec::new();
    for sessions in [1, 10, 50] {
        works.extend(modes.map(|mode| Work::new(SMALL, sessions, mode)));
    }
    works.extend(modes.map(|mode| Work { per_session: true, ..Work::new(SMALL, 10, mode) }));
    works.extend(modes.map(|mode| Work::new(MIDDLE, 4, mode)));
    works.push(Work::new(LARGE, 2, direct));
    works.push(Work { delay: 50, ..Work::new(SMALL, 10, direct) });
    let far = Work { round_trip: 20, ..Work::new(SMALL, 10, direct) };
    works.extend([far, Work { chunking: Chunking::WhenOffered, ..far }]);
    let hand_over = |(bytes, sessions)| Work { origin: Origin::Pods, ..Work::new(bytes, sessions, queue) };
    works.extend(HAND_OVERS.map(hand_over));
    works
}

impl Work {
    /// Messages of an application to an upstream that is near and answers at once.
    pub const fn new(bytes: usize, sessions: usize, mode: DeliveryMode) -> Self {
        let (chunking, origin) = (Chunking::Never, Origin::Application);
        Self { bytes, sessions, per_session: false, mode, delay: 0, round_trip: 0, chunking, origin }
    }

    /// The name in the table and in the JSON.
    pub fn name(&self) -> String {
        let size = match self.bytes {
            ..1_048_576 => format!("{} KiB", self.bytes >> 10),
            _ => format!("{} MiB", self.bytes >> 20),
        };
        if self.origin == Origin::Pods {
            return format!("{size} x{} hand-over", self.sessions);
        }
        let mut name = format!("{size} x{} {:?}", self.sessions, self.mode);
        if self.per_session {
            name.push_str(", a session each");
        }
        if self.delay > 0 {
            name.push_str(&format!(" +{}ms", self.delay));
        }
        if self.round_trip > 0 {
            name.push_str(&format!(" far {}ms", self.round_trip));
        }
        if self.chunking == Chunking::WhenOffered {
            name.push_str(" BDAT");
        }
        name
    }

    /// Most messages: enough to measure, and no backlog that takes minutes to drain through a slow upstream.
    pub fn messages(&self) -> u64 {
        match (self.bytes, self.delay + self.round_trip) {
            (..=10_240, 0) => 20_000,
            (..1_048_576, 0) => 3_000,
            (..1_048_576, _) => 600,
            (_, _) => 30,
        }
    }
}
