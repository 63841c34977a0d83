//! Tells a person which step is running, how many there are, and how long each took.

use std::time::Instant;

/// Progress through a known number of steps. Every line is whole, as others write between them.
pub struct Steps {
    total: usize,
    current: usize,
    since: Instant,
}

impl Steps {
    /// Nothing has begun yet.
    pub fn new(total: usize) -> Self {
        Self { total, current: 0, since: Instant::now() }
    }

    /// Ends the step before and begins the next one.
    pub fn begin(&mut self, what: &str) {
        self.end();
        self.current += 1;
        self.since = Instant::now();
        println!("[{}/{}] {what} …", self.current, self.total);
    }

    /// Ends the running step.
    pub fn end(&self) {
        if self.current > 0 {
            let seconds = self.since.elapsed().as_secs_f32();
            println!("[{}/{}] done in {seconds:.1} s", self.current, self.total);
        }
    }
}
