//! What is measured: sizes, sessions, modes and upstream delays, and who brings the messages.

use mailroute_route::file::DeliveryMode;

/// One thing to do.
#[derive(Clone, Copy, Debug)]
pub struct Work {
    /// Octets of a message.
    pub bytes: usize,
    /// SMTP sessions at a time.
    pub sessions: usize,
    /// What 250 means; Postfix knows one mode, which is `Queue`.
    pub mode: DeliveryMode,
    /// How long the upstream thinks about a message, milliseconds.
    pub delay: u64,
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

/// Sizes of a message: a notification, one with a picture, one with a file.
const SIZES: [usize; 3] = [4 << 10, 100 << 10, 10 << 20];

/// Sizes and sessions of messages that are handed over to a gateway.
const HAND_OVERS: [(usize, usize); 4] = [(10 << 10, 1), (10 << 10, 10), (100 << 10, 1), (100 << 10, 10)];

/// Every combination of what applications send, small messages first; then what sidecars hand over.
pub fn all() -> Vec<Work> {
    let mut works = Vec::new();
    for bytes in SIZES {
        for delay in [0, 50] {
            for sessions in [1, 10, 50] {
                for mode in [DeliveryMode::Queue, DeliveryMode::DeliverOrQueue] {
                    works.push(Work { bytes, sessions, mode, delay, origin: Origin::Application });
                }
            }
        }
    }
    let mode = DeliveryMode::Queue;
    let hand_over = |(bytes, sessions)| Work { bytes, sessions, mode, delay: 0, origin: Origin::Pods };
    works.extend(HAND_OVERS.map(hand_over));
    works
}

impl Work {
    /// The name in the table and in the JSON.
    pub fn name(&self) -> String {
        let size = match self.bytes {
            ..1_048_576 => format!("{} KiB", self.bytes >> 10),
            _ => format!("{} MiB", self.bytes >> 20),
        };
        match self.origin {
            Origin::Application => format!("{size} x{} {:?} +{}ms", self.sessions, self.mode, self.delay),
            Origin::Pods => format!("{size} x{} hand-over", self.sessions),
        }
    }

    /// Most messages: enough to measure, and no backlog that takes minutes to drain through a slow upstream.
    pub fn messages(&self) -> u64 {
        match (self.bytes, self.delay) {
            (..=10_240, 0) => 20_000,
            (..1_048_576, 0) => 3_000,
            (..1_048_576, _) => 600,
            (_, _) => 30,
        }
    }
}
