//! What is going to happen, in the order of time; what is to happen at one time keeps the order in which it was planned.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Events to come, each with its time in milliseconds.
pub struct Agenda<E> {
    /// Time, order, and where the event is.
    order: BinaryHeap<Reverse<(u64, u64, usize)>>,
    events: Vec<Option<E>>,
    free: Vec<usize>,
    planned: u64,
}

impl<E> Agenda<E> {
    pub const fn new() -> Self {
        Self { order: BinaryHeap::new(), events: Vec::new(), free: Vec::new(), planned: 0 }
    }

    /// Plans an event.
    pub fn at(&mut self, at: u64, event: E) {
        self.planned += 1;
        let place = self.free.pop().unwrap_or_else(|| {
            self.events.push(None);
            self.events.len() - 1
        });
        self.events[place] = Some(event);
        self.order.push(Reverse((at, self.planned, place)));
    }

    /// Takes what happens next, with its time.
    pub fn next(&mut self) -> Option<(u64, E)> {
        let Reverse((at, _, place)) = self.order.pop()?;
        self.free.push(place);
        self.events[place].take().map(|event| (at, event))
    }
}
