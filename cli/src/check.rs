//! `check`: the sidecar's own check, in a pod of the route.

use std::time::Duration;

use crate::args::{Check, Output};
use crate::cluster::Cluster;
use crate::cluster::visit::{Kind, Visited};
use crate::error::Error;
use crate::terminal::{Terminal, clean, clean_lines};

/// Runs the check and shows what it says, with its exit code.
///
/// # Errors
/// When there is no pod to run it in, or it cannot be run.
pub async fn run(options: &Check, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let visited = cluster.visit(&options.route, &options.visit, Kind::Any, terminal).await?;
    let ran = tokio::select! {
        ran = checked(options, cluster, &visited) => ran,
        _ = tokio::signal::ctrl_c() => Err(Error::Refused("interrupted".into())),
    };
    cluster.leave(&visited, terminal).await;
    let (text, code) = ran?;
    if options.output == Output::Text {
        terminal.say(&format!("in pod {} ({})\n", clean(&visited.pod.name), visited.pod.role()))?;
    }
    terminal.say(&text)?;
    Ok(code)
}

async fn checked(options: &Check, cluster: &Cluster, visited: &Visited) -> Result<(String, u8), Error> {
    let seconds = options.visit.timeout.to_string();
    let mut command = vec!["check", "--timeout", &seconds];
    for (name, value) in [("--from", &options.from), ("--to", &options.to)] {
        if let Some(value) = value {
            command.extend([name, value.as_str()]);
        }
    }
    if options.output == Output::Json {
        command.extend(["-o", "json"]);
    }
    let limit = Duration::from_secs(options.visit.timeout + 30);
    let pod = &visited.pod;
    let ran = cluster.sidecar(&pod.namespace, &pod.name, &command, limit).await?;
    if ran.out.is_empty() {
        return Err(Error::Exec { pod: pod.name.clone(), why: ran.complaint() });
    }
    Ok((clean_lines(&ran.text()), u8::from(ran.code != 0)))
}
