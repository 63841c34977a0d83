//! Tells a person which step is running, how many there are, and how long each took.

use std::io::Write;
use std::time::Instant;

/// Progress through a known number of steps.
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
        print!("[{}/{}] {what} ", self.current, self.total);
        flush();
    }

    /// Ends the running step.
    pub fn end(&mut self) {
        if self.current > 0 {
            println!("… {:.1} s", self.since.elapsed().as_secs_f32());
        }
    }
}

/// Progress is for the eye: an output that cannot be written to does not stop the work.
fn flush() {
    std::io::stdout().flush().ok();
}
