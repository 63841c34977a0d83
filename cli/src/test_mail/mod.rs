//! `test`: a real message from a pod of the route, followed until Microsoft 365 has it.
//!
//! * [`report`]: what was met → text. Pure.
//! * Here: the sidecar's own `send` in a pod, and then what pods know of the message until it is settled.

pub mod report;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tokio::time::sleep;

use self::report::{Sent, followed, sent};
use crate::args::{Output, Test};
use crate::cluster::Cluster;
use crate::cluster::visit::{Kind, Visited};
use crate::error::Error;
use crate::queue::answer;
use crate::terminal::{self, Terminal, clean};
use crate::trace;
use crate::trace::lines::Wanted;
use crate::trace::story::{End, Story};

/// How often pods are asked for a message that waits.
const PAUSE: Duration = Duration::from_secs(2);

/// Longest wait for the answers of one look.
const LOOK: i64 = 600;

/// Sends a message and follows it. The exit code says whether Microsoft 365 has it.
///
/// # Errors
/// When there is no pod to send from, or nothing could be sent.
pub async fn run(options: &Test, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let visited = cluster.visit(&options.route, &options.visit, Kind::Sidecar, terminal).await?;
    let ended = tokio::select! {
        ended = sent_and_followed(options, cluster, &visited, terminal) => Some(ended),
        _ = tokio::signal::ctrl_c() => None,
    };
    cluster.leave(&visited, terminal).await;
    ended.unwrap_or_else(|| Err(Error::Refused("interrupted".into())))
}

async fn sent_and_followed(
    options: &Test,
    cluster: &Cluster,
    visited: &Visited,
    terminal: &mut Terminal<'_>,
) -> Result<u8, Error> {
    let (begun, limit) = (Instant::now(), Duration::from_secs(options.visit.timeout));
    let message = sent_from(options, cluster, visited, limit).await?;
    let is_text = options.output == Output::Text;
    if is_text {
        terminal.say(&format!(
            "from pod {}\n{}",
            clean(&visited.pod.name),
            sent(&message, terminal.style)
        ))?;
    }
    let story = match &message.queue_id {
        Some(id) => Some(settled(options, cluster, id, begun, limit, terminal).await?),
        None => None,
    };
    let delivered = message.accepted && story.as_ref().is_none_or(|story| story.end == End::Delivered);
    if is_text {
        terminal.say(&followed(
            &message,
            story.as_ref(),
            begun.elapsed(),
            terminal.style,
            Timestamp::now(),
        ))?;
    } else {
        let json = json!({"pod": visited.pod.name, "sent": message, "delivered": delivered, "story": story});
        terminal.say(&terminal::json(&json))?;
    }
    Ok(u8::from(!delivered))
}

async fn sent_from(
    options: &Test,
    cluster: &Cluster,
    visited: &Visited,
    limit: Duration,
) -> Result<Sent, Error> {
    let pod = &visited.pod;
    let (seconds, port) = (limit.as_secs().to_string(), pod.port.map(|port| port.to_string()));
    let mut command = vec!["send", "--to", &options.to, "--timeout", &seconds, "-o", "json"];
    for (name, value) in [("--from", &options.from), ("--subject", &options.subject), ("--port", &port)] {
        if let Some(value) = value {
            command.extend([name, value.as_str()]);
        }
    }
    let ran = cluster.sidecar(&pod.namespace, &pod.name, &command, limit + Duration::from_secs(30)).await?;
    let failed = |why: String| Error::Exec { pod: pod.name.clone(), why };
    if ran.out.is_empty() {
        let complaint = ran.complaint();
        let hint =
            if complaint.contains("unrecognized subcommand") || complaint.contains("unexpected argument") {
                "; the sidecar of this pod is older than the command: recreate the pod"
            } else {
                ""
            };
        return Err(failed(format!("{complaint}{hint}")));
    }
    answer::read(&ran.out).map_err(failed)
}

/// What became of the message, once it is settled or the time is over.
async fn settled(
    options: &Test,
    cluster: &Cluster,
    id: &str,
    begun: Instant,
    limit: Duration,
    terminal: &mut Terminal<'_>,
) -> Result<Story, Error> {
    let wanted = Wanted { queue_ids: BTreeSet::from([id.to_owned()]), ..Wanted::default() };
    let mut said = None;
    loop {
        let pods = cluster.route_pods(Some(cluster.namespace()), Some(&options.route)).await?;
        let story = trace::told(cluster, pods, wanted.clone(), Some(LOOK), terminal).await?;
        if !matches!(story.end, End::Waiting | End::Open | End::Unknown) || begun.elapsed() + PAUSE >= limit {
            return Ok(story);
        }
        let state = story
            .kept
            .first()
            .map(|placed| format!("{} in pod {}: {}", placed.row.state, placed.pod, placed.row.why()));
        if options.output == Output::Text
            && state != said
            && let Some(state) = &state
        {
            terminal.note(&clean(state));
        }
        said = state;
        sleep(PAUSE).await;
    }
}
