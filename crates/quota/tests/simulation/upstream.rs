//! What stands at Microsoft: exact counters, and the most that they ever showed.

use std::collections::VecDeque;

/// Times are milliseconds.
#[derive(Debug, Default)]
pub struct Upstream {
    minute: u64,
    day: u64,
    messages: VecDeque<u64>,
    in_hour: VecDeque<u64>,
    recipients: VecDeque<(u64, u64)>,
    recipients_in_day: u64,
    connections: u64,
    pub most_messages: usize,
    pub most_in_hour: usize,
    pub most_recipients: u64,
    pub most_connections: u64,
    pub counted: u64,
}

impl Upstream {
    pub fn new(minute: u64, day: u64) -> Self {
        Self { minute, day, ..Self::default() }
    }

    pub fn opened(&mut self) {
        self.connections += 1;
        self.most_connections = self.most_connections.max(self.connections);
    }

    pub fn closed(&mut self) {
        self.connections -= 1;
    }

    pub fn message(&mut self, now: u64) {
        let count = |counted: &mut VecDeque<u64>, length| {
            while counted.front().is_some_and(|at| at + length <= now) {
                counted.pop_front();
            }
            counted.push_back(now);
            counted.len()
        };
        self.most_messages = self.most_messages.max(count(&mut self.messages, self.minute));
        self.most_in_hour = self.most_in_hour.max(count(&mut self.in_hour, 60 * self.minute));
        self.counted += 1;
    }

    pub fn accepted(&mut self, recipients: u64, now: u64) {
        while let Some(&(at, count)) = self.recipients.front()
            && at + self.day <= now
        {
            self.recipients_in_day -= count;
            self.recipients.pop_front();
        }
        self.recipients.push_back((now, recipients));
        self.recipients_in_day += recipients;
        self.most_recipients = self.most_recipients.max(self.recipients_in_day);
    }
}
