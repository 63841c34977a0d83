//! `queue`: the sidecar's own queue commands in all pods of a route, gateways included, and their answers as one.
//!
//! * [`answer`]: what one pod says. [`merge`](mod@merge): what all of them say. Both pure.
//! * Here: which command is run in which pod. Messages are changed by their id, in the pod that has them.

pub mod answer;
pub mod merge;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::{Value, json};

use self::answer::{Changed, List};
use self::merge::{Merged, Sum, merge};
use crate::args::{self, Output, Verb};
use crate::cluster::Cluster;
use crate::cluster::each::each;
use crate::cluster::exec::Ran;
use crate::cluster::pods::RoutePod;
use crate::error::Error;
use crate::terminal::{self, Terminal, clean};

/// Longest time for one command in a pod. To give a thousand dead letters another chance on a slow disk takes a minute or two.
const LIMIT: Duration = Duration::from_secs(300);

/// Ids in one command: they are part of a URL.
const IDS: usize = 100;

/// What a sidecar says of an id that it does not have.
const NOT_HERE: &str = "is stored here";

/// Does as asked for. The exit code says whether all of it was done.
///
/// # Errors
/// When nothing could be done: no right, no route, no pod.
pub async fn run(verb: &Verb, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let queue = Queue { cluster };
    match verb {
        Verb::List(options) => queue.list(options, terminal).await,
        Verb::Show(options) => queue.show(options, terminal).await,
        Verb::Retry(options) => queue.retry(options, terminal).await,
        Verb::Drop(options) => queue.drop(options, terminal).await,
        Verb::Export(options) => queue.export(options, terminal).await,
    }
}

/// The queues of these pods as one.
///
/// # Errors
/// When the right is missing.
pub async fn merged(
    cluster: &Cluster,
    pods: Vec<RoutePod>,
    part: &[&str],
    terminal: &mut Terminal<'_>,
) -> Result<Merged, Error> {
    let command = [&["queue", "list", "-o", "json"], part].concat();
    let outcome = each(pods, terminal, |pod| {
        let command = command.clone();
        async move {
            let ran = cluster.sidecar(&pod.namespace, &pod.name, &command, LIMIT).await?;
            understood::<List>(&pod, &ran)
        }
    })
    .await?;
    let complaints = outcome.complaints();
    Ok(merge(outcome.done, complaints))
}

/// The answer that a command printed.
fn understood<T: serde::de::DeserializeOwned>(pod: &RoutePod, ran: &Ran) -> Result<T, Error> {
    let failed = |why| Error::Exec { pod: pod.name.clone(), why };
    // A command that was not carried out in full prints what it did, and exits with 1.
    match answer::read(&ran.out) {
        Ok(answer) if ran.code == 0 || !ran.out.is_empty() => Ok(answer),
        Err(why) if ran.code == 0 => Err(failed(why)),
        _ => Err(failed(ran.complaint())),
    }
}

struct Queue<'a> {
    cluster: &'a Cluster,
}

impl Queue<'_> {
    async fn all(&self, route: &str, part: &[&str], terminal: &mut Terminal<'_>) -> Result<Merged, Error> {
        let pods = self.cluster.running_pods(route).await?;
        merged(self.cluster, pods, part, terminal).await
    }

    async fn list(&self, options: &args::List, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
        let part: &[&str] = match (options.dead, options.waiting) {
            (true, _) => &["--dead"],
            (_, true) => &["--waiting"],
            _ => &[],
        };
        let merged = self.all(&options.route, part, terminal).await?;
        let text = match options.output {
            Output::Text => merged.print(terminal.style, Timestamp::now()),
            Output::Json => terminal::json(&merged),
        };
        terminal.say(&text)?;
        Ok(not_seen(&merged, terminal))
    }

    async fn show(&self, options: &args::Show, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
        let mut command = vec!["queue", "show", options.id.as_str()];
        match options.output {
            Output::Json => command.extend(["-o", "json"]),
            Output::Text if options.body => command.push("--body"),
            Output::Text => {}
        }
        let pods = self.cluster.running_pods(&options.route).await?;
        let asked = pods.len();
        let outcome = each(pods, terminal, |pod| {
            let command = command.clone();
            async move { self.cluster.sidecar(&pod.namespace, &pod.name, &command, LIMIT).await }
        })
        .await?;
        let mut complaints = outcome.complaints();
        let mut found = Vec::new();
        for (pod, ran) in outcome.done {
            match ran.code {
                0 => found.push((pod, ran)),
                _ if ran.complaint().contains(NOT_HERE) => {}
                _ => complaints.push(format!("pod {}: {}", clean(&pod.name), ran.complaint())),
            }
        }
        let is_found = !found.is_empty();
        let text = match options.output {
            Output::Json => {
                let read = |(pod, ran): (RoutePod, Ran)| {
                    let message = answer::read::<Value>(&ran.out).unwrap_or_default();
                    json!({"pod": pod.name, "gateway": pod.gateway, "message": message})
                };
                let copies: Vec<Value> = found.into_iter().map(read).collect();
                terminal::json(&json!({"copies": copies, "notSeen": complaints}))
            }
            Output::Text => {
                let shown = |(pod, ran): (RoutePod, Ran)| {
                    format!(
                        "Pod           {} ({})\n{}",
                        clean(&pod.name),
                        pod.role(),
                        terminal::clean_lines(&ran.text())
                    )
                };
                found.into_iter().map(shown).collect::<Vec<_>>().join("\n")
            }
        };
        terminal.say(&text)?;
        if !is_found {
            terminal.note(&format!("no message {} in the queues of {asked} pods", options.id));
        }
        for complaint in &complaints {
            terminal.note(complaint);
        }
        Ok(u8::from(!is_found))
    }

    async fn retry(&self, options: &args::Retry, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
        let what = "will be tried now";
        let part = match (options.all, options.dead, options.corrupt) {
            (true, ..) => "--all",
            (_, true, _) => "--dead",
            (_, _, true) => "--corrupt",
            _ => {
                let merged = self.all(&options.route, &[], terminal).await?;
                let sum = self.change(&merged, &options.ids, &["queue", "retry"], terminal).await?;
                return said(&sum, what, options.output, terminal);
            }
        };
        let pods = self.cluster.running_pods(&options.route).await?;
        let outcome = each(pods, terminal, |pod| async move {
            let command = ["queue", "retry", part, "-o", "json"];
            let ran = self.cluster.sidecar(&pod.namespace, &pod.name, &command, LIMIT).await?;
            understood::<Changed>(&pod, &ran)
        })
        .await?;
        let mut sum = Sum { failed: outcome.complaints(), ..Sum::default() };
        for (pod, changed) in outcome.done {
            sum.add(&pod.name, changed);
        }
        said(&sum, what, options.output, terminal)
    }

    async fn drop(&self, options: &args::Drop, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
        let merged = self.all(&options.route, &[], terminal).await?;
        let ids = if options.dead { merged.dead() } else { options.ids.clone() };
        if ids.len() > 1 && !options.yes {
            let text = format!("{} messages would be permanently deleted; confirm with --yes", ids.len());
            return Err(Error::Refused(text));
        }
        // Those that were counted, and none that came since.
        let sum = self.change(&merged, &ids, &["queue", "drop", "--yes"], terminal).await?;
        said(&sum, "dropped", options.output, terminal)
    }

    /// Runs a command that takes ids, in each pod for those that it has.
    async fn change(
        &self,
        merged: &Merged,
        ids: &[String],
        command: &[&str],
        terminal: &mut Terminal<'_>,
    ) -> Result<Sum, Error> {
        let (places, unknown) = merged.places(ids);
        let mut sum = Sum { failed: merged.not_seen.clone(), ..Sum::default() };
        sum.failed.extend(unknown.iter().map(|id| format!("no pod that was asked has the message {id}")));
        let changed = each(self.pods_of(&places), terminal, |pod| {
            let ids = places.get(&pod.name).cloned().unwrap_or_default();
            async move {
                let mut sum = Changed::default();
                for ids in ids.chunks(IDS) {
                    let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
                    let command = [command, &["-o", "json"], &ids].concat();
                    let ran = self.cluster.sidecar(&pod.namespace, &pod.name, &command, LIMIT).await?;
                    let changed: Changed = understood(&pod, &ran)?;
                    sum.done = sum.done.saturating_add(changed.done);
                    sum.failed.extend(changed.failed);
                    sum.waits_for = changed.waits_for.or(sum.waits_for);
                }
                Ok(sum)
            }
        })
        .await?;
        sum.failed.extend(changed.complaints());
        for (pod, changed) in changed.done {
            sum.add(&pod.name, changed);
        }
        Ok(sum)
    }

    async fn export(&self, options: &args::Export, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
        if options.directory.is_none() && terminal.style.width.is_some() {
            let text = "a message is written as it is, which may do anything to a terminal: redirect it, or give \
                        --directory; `queue show --body` shows it safely";
            return Err(Error::Refused(text.into()));
        }
        let merged = self.all(&options.route, &[], terminal).await?;
        let ids = if options.dead { merged.dead() } else { options.ids.clone() };
        if options.directory.is_none() && ids.len() != 1 {
            return Err(Error::Refused(format!("{} messages need a --directory", ids.len())));
        }
        let mut failed = merged.not_seen.clone();
        let mut written = 0;
        for id in &ids {
            match self.exported(&merged, id).await {
                Err(error @ Error::Denied { .. }) => return Err(error),
                Err(error) => failed.push(error.to_string()),
                Ok(octets) => {
                    match &options.directory {
                        Some(directory) => keep(directory, id, &octets)?,
                        None => terminal.out.write_all(&octets)?,
                    }
                    written += 1;
                    terminal.progress(&format!("{written} of {} messages …", ids.len()));
                }
            }
        }
        terminal.progress("");
        terminal.out.flush()?;
        for why in &failed {
            terminal.note(&clean(why));
        }
        if let Some(directory) = &options.directory {
            terminal.note(&format!("{written} of {} messages written to {}", ids.len(), directory.display()));
        }
        Ok(u8::from(!failed.is_empty() || written < ids.len()))
    }

    /// The octets of a message, all of them.
    async fn exported(&self, merged: &Merged, id: &str) -> Result<Vec<u8>, Error> {
        let copies: Vec<_> = merged.messages.iter().filter(|it| it.row.id == id).collect();
        let mut error = Error::Refused(format!("no pod that was asked has the message {id}"));
        for copy in copies {
            let failed = |why: String| Error::Exec { pod: copy.pod.clone(), why };
            let ran = self
                .cluster
                .sidecar(self.cluster.namespace(), &copy.pod, &["queue", "export", id], LIMIT)
                .await;
            error = match ran {
                Ok(ran) if ran.code == 0 && ran.out.len() as u64 == copy.row.bytes => return Ok(ran.out),
                Ok(ran) if ran.code == 0 => {
                    failed(format!("{} of {} octets of message {id} came", ran.out.len(), copy.row.bytes))
                }
                Ok(ran) => failed(ran.complaint()),
                Err(error) => error,
            };
        }
        Err(error)
    }

    fn pods_of(&self, places: &BTreeMap<String, Vec<String>>) -> Vec<RoutePod> {
        let pod = |name: &String| RoutePod {
            namespace: self.cluster.namespace().to_owned(),
            name: name.clone(),
            ..RoutePod::default()
        };
        places.keys().map(pod).collect()
    }
}

/// Writes a message to its file.
fn keep(directory: &Path, id: &str, octets: &[u8]) -> Result<(), Error> {
    fs::create_dir_all(directory)?;
    fs::write(directory.join(format!("{id}.eml")), octets)?;
    Ok(())
}

fn said(sum: &Sum, what: &str, output: Output, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let text = match output {
        Output::Text => sum.print(what),
        Output::Json => terminal::json(sum),
    };
    terminal.say(&text)?;
    Ok(u8::from(!sum.failed.is_empty()))
}

/// Names the pods that could not be asked.
fn not_seen(merged: &Merged, terminal: &mut Terminal<'_>) -> u8 {
    for complaint in &merged.not_seen {
        terminal.note(&format!("not seen: {complaint}"));
    }
    u8::from(!merged.not_seen.is_empty())
}
