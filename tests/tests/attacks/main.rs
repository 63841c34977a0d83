//! What a tenant with rights in one namespace can do to the others: each attack against the operator as a process of its own, on
//! a real API server, while the sidecars of another namespace send.
//!
//! ```text
//!  victims: sidecars, a queue of mail each ──► operator ◄── attackers: tokens of pods in a namespace of their own
//!           └──► simulator, which counts         ▲
//!  questions to the webhook, at a steady rate ───┘
//! ```
//! Every attack is given the same time. In it the victims have to keep nine tenths of their mailbox's limit, the 99th percentile
//! of admission has to stay under 50 ms, and the operator's memory under 128 MiB.

mod admission;
mod attacks;
mod ground;
mod pods;
mod victims;
mod wire;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use ground::Ground;
use kube::Client;

#[path = "../../../sidecar/tests/relay/route.rs"]
mod route;

/// How long each attack goes on. A second of it is one message and twenty questions.
const WINDOW: Duration = Duration::from_secs(40);

/// Of the mailbox's limit, for the victims.
const SHARE: f64 = 0.9;

/// For the 99th percentile of admission, milliseconds.
const ADMISSION: f64 = 50.0;

/// For the operator's memory, bytes.
const MEMORY: u64 = 128 * 1024 * 1024;

/// For questions to the API server about tokens, a second. Nine pods need one in a minute each.
const REVIEWS: f64 = 2.0;

/// Names the attacks that are wanted, to try one alone; all of them without it.
const ONLY: &str = "MAILROUTE_ATTACKS";

/// What was seen while one attack went on.
struct Seen {
    /// Of the mailbox's limit.
    share: f64,
    /// The 99th percentile of admission, milliseconds.
    admission: f64,
    /// The most, bytes.
    memory: u64,
    /// Questions to the API server about tokens, a second.
    reviews: f64,
}

impl Seen {
    fn broken(&self) -> Vec<String> {
        let mut broken = Vec::new();
        if self.share < SHARE {
            broken.push(format!("the victims had {:.0} % of the limit", 100.0 * self.share));
        }
        if self.admission.is_nan() || self.admission > ADMISSION {
            broken.push(format!("admission took {:.0} ms", self.admission));
        }
        if self.memory > MEMORY {
            broken.push(format!("the operator had {} MiB", self.memory >> 20));
        }
        if self.reviews > REVIEWS {
            broken.push(format!("the API server was asked about {:.0} tokens a second", self.reviews));
        }
        broken
    }
}

// Eight minutes on programs as they are shipped; a debug build on two busy cores says nothing about milliseconds.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "measures, for ten minutes: `make attacks`"]
async fn no_attack_takes_a_tenth_of_the_limit_or_fifty_milliseconds_of_admission() -> Result<()> {
    let mut ground = Ground::prepare().await?;
    let wanted = std::env::var(ONLY).unwrap_or_default();
    let mut broken = Vec::new();
    println!("{:<34} {:>9} {:>13} {:>10} {:>12}", "", "of limit", "admission p99", "memory", "reviews/s");
    for (name, attack) in attacks::ALL {
        if !wanted.is_empty() && !wanted.split(',').any(|one| one == name) {
            continue;
        }
        let seen = under(&mut ground, attack).await.with_context(|| name.to_owned())?;
        println!(
            "{name:<34} {:>8.0}% {:>10.1} ms {:>6} MiB {:>12.1}",
            100.0 * seen.share,
            seen.admission,
            seen.memory >> 20,
            seen.reviews
        );
        broken.extend(seen.broken().into_iter().map(|what| format!("{name}: {what}")));
    }
    ground.finish().await?;
    ensure!(broken.is_empty(), "\n{}", broken.join("\n"));
    Ok(())
}

/// Lets one attack go on for a while, and looks at what it does to the others.
async fn under(ground: &mut Ground, attack: attacks::Attack) -> Result<Seen> {
    let (namespace, attackers) = ground.attackers().await?;
    let attacking = attack(Arc::new(attackers)).await?;
    let (client, asking) = (ground.stage.client(), ground.questions());
    let (before, reviewed) = (ground.victims.delivered(), reviews(&client).await?);
    let window = async {
        tokio::select! {
            ended = attacking => Err(ended.err().unwrap_or_else(|| anyhow::anyhow!("it ended by itself"))),
            asked = admission::ask(asking, WINDOW) => asked,
        }
    };
    let (took, memory) = ground.operator.watched(window).await?;
    let (delivered, reviewed) = (ground.victims.delivered() - before, reviews(&client).await? - reviewed);
    namespace.finish()?;
    let seconds = WINDOW.as_secs_f64();
    Ok(Seen {
        share: delivered as f64 / (f64::from(victims::LIMIT) / 60.0 * seconds),
        admission: admission::percentile(&took),
        memory,
        reviews: reviewed / seconds,
    })
}

/// How many tokens the API server was asked to review.
async fn reviews(client: &Client) -> Result<f64> {
    let metrics = client.request_text(hyper::Request::get("/metrics").body(Vec::new())?).await?;
    let lines = metrics.lines().filter(|line| {
        line.starts_with("apiserver_request_total{") && line.contains("resource=\"tokenreviews\"")
    });
    Ok(lines.filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum())
}
