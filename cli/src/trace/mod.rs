//! `trace`: one message from the application's 250 to Microsoft's answer, out of logs, queues and dead letters of all pods.
//!
//! * [`lines`]: logs → the lines about the message. [`story`](mod@story): those lines and what is kept → what became of it. Both pure.
//! * Here: which pods are asked for what.

pub mod lines;
pub mod story;

use jiff::Timestamp;

use self::lines::{Line, Wanted};
use self::story::{End, Event, Story, story};
use crate::args::{Output, Trace};
use crate::cluster::Cluster;
use crate::cluster::each::each;
use crate::cluster::exec::Since;
use crate::cluster::pods::RoutePod;
use crate::error::Error;
use crate::queue;
use crate::terminal::{self, Terminal, clean};

/// Tells the story of a message. The exit code says whether it is known.
///
/// # Errors
/// The API server's refusal, or when the output cannot be written.
pub async fn run(options: &Trace, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let pods = cluster.route_pods(Some(cluster.namespace()), options.route.as_deref()).await?;
    if let (Some(route), true) = (&options.route, pods.is_empty()) {
        // It may not be known because its name is wrong.
        cluster.route(route).await?;
    }
    let story = told(cluster, pods, Wanted::of(&options.id), options.since, terminal).await?;
    let text = match options.output {
        Output::Text => story.print(terminal.style, Timestamp::now()),
        Output::Json => terminal::json(&story),
    };
    terminal.say(&text)?;
    for complaint in &story.not_seen {
        terminal.note(&format!("not seen: {complaint}"));
    }
    Ok(match (story.end, story.not_seen.is_empty()) {
        (End::Unknown, true) => 1,
        (_, false) => 2,
        _ => 0,
    })
}

/// What these pods know of a message.
///
/// # Errors
/// When a right is missing.
pub async fn told(
    cluster: &Cluster,
    pods: Vec<RoutePod>,
    mut wanted: Wanted,
    since: Option<i64>,
    terminal: &mut Terminal<'_>,
) -> Result<Story, Error> {
    let running = pods.iter().filter(|pod| pod.runs).cloned().collect();
    let merged = queue::merged(cluster, running, &[], terminal).await?;
    for placed in &merged.messages {
        wanted.learn(&placed.row.id, &placed.row.message_id);
    }
    let read = |pod: RoutePod| {
        let mut wanted = wanted.clone();
        async move {
            let lines = lines_of(cluster, &pod, &mut wanted, since).await?;
            Ok((wanted, lines))
        }
    };
    let outcome = each(pods, terminal, read).await?;
    let mut not_seen = merged.not_seen;
    not_seen.extend(outcome.complaints());
    let mut events = Vec::new();
    for (pod, (learned, lines)) in outcome.done {
        wanted.queue_ids.extend(learned.queue_ids);
        if wanted.message_id.is_empty() {
            wanted.message_id = learned.message_id;
        }
        events.extend(lines.into_iter().map(|line| Event { pod: pod.name.clone(), line }));
    }
    let kept = merged.messages.into_iter().filter(|placed| wanted.is(&placed.row.id, &placed.row.message_id));
    Ok(story(&wanted, events, kept.collect(), not_seen))
}

/// The lines of a pod's log about the message, that of the container before it was started again included.
async fn lines_of(
    cluster: &Cluster,
    pod: &RoutePod,
    wanted: &mut Wanted,
    seconds: Option<i64>,
) -> Result<Vec<Line>, Error> {
    let log = |previous| cluster.log(&pod.namespace, &pod.name, Since { seconds, previous });
    let mut text = if pod.restarts > 0 { log(true).await.unwrap_or_default() } else { String::new() };
    match log(false).await {
        Ok(current) => text.push_str(&current),
        Err(error @ Error::Denied { .. }) => return Err(error),
        Err(error) => return Err(Error::Exec { pod: clean(&pod.name).into_owned(), why: error.to_string() }),
    }
    Ok(wanted.lines(&text))
}
