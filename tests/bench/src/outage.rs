//! An upstream that is away for ten seconds while mail comes in: when the last message has arrived, counted from its return.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use mailroute_route::file::DeliveryMode;
use tokio::time::sleep;

use crate::measure::{Bench, Sink};
use crate::table::Measurement;
use crate::work::{self, Work};

/// How long the upstream is away.
const AWAY: Duration = Duration::from_secs(10);

/// Messages that come meanwhile.
const MESSAGES: u64 = 1_000;

/// The name in the table and in the JSON.
pub const NAME: &str = "outage of 10 s";

impl Bench {
    /// One outage for every program.
    ///
    /// # Errors
    /// When a program refuses a message or does not start.
    pub async fn outages(&self) -> Result<Vec<Measurement>> {
        let mut measurements = Vec::new();
        for program in self.programs() {
            let took = self.outage(program).await.context(program)?;
            let (work, metric, value) = (NAME.to_owned(), "last message after its end", took.as_secs_f64());
            measurements.push(Measurement { work, program, metric, value, unit: "s" });
        }
        Ok(measurements)
    }

    async fn outage(&self, program: &str) -> Result<Duration> {
        let folder = tempfile::tempdir()?;
        let work = Work::new(work::SMALL, 10, DeliveryMode::Queue);
        let sink = Sink::start(folder.path(), &work).await?;
        let running = self.start(program, folder.path(), &sink.upstream(folder.path(), &work), &work).await?;
        let load = |messages| crate::generator::Load {
            messages,
            time: Duration::MAX,
            ..self.load(&work, running.port())
        };
        // It knows a way that works.
        running.take(load(1)).await?;
        sink.reached(1).await?;
        let port = sink.end().await?;
        let began = Instant::now();
        running.take(load(MESSAGES)).await?;
        sleep(AWAY.saturating_sub(began.elapsed())).await;
        let returned = Instant::now();
        let sink = Sink::listening(folder.path(), &work, port).await?;
        sink.reached(MESSAGES).await?;
        let took = returned.elapsed();
        running.stop().await?;
        Ok(took)
    }
}
