//! `status`: routes, what is wrong with them, and what to do.
//!
//! * [`view`]: an object → what is shown of it. [`print`](mod@print): that → text. Both pure.
//! * Here: what is asked of the cluster, once or whenever something changes.

pub mod print;
pub mod view;

use std::time::Duration;

use futures::{Stream, StreamExt};
use jiff::Timestamp;
use kube::runtime::watcher;
use serde_json::json;
use tokio::time::{sleep, timeout};

use self::print::Shown;
use self::view::RouteView;
use crate::args::{Status, StatusOutput};
use crate::cluster::Cluster;
use crate::error::Error;
use crate::terminal::{self, Terminal};

/// The shortest time between two pictures of `--watch`.
const PAUSE: Duration = Duration::from_millis(500);

/// How often a picture is renewed although nothing changed: ages grow.
const RENEW: Duration = Duration::from_secs(30);

/// Clears a terminal and puts the cursor to its top.
const CLEAR: &str = "\x1b[H\x1b[2J\x1b[3J";

/// Shows what was asked for. Says whether all of it could be seen.
///
/// # Errors
/// The API server's refusal, or when the output cannot be written.
pub async fn run(options: &Status, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    if !options.watch {
        let text = picture(options, cluster, terminal).await?;
        terminal.say(&text)?;
        return Ok(0);
    }
    let changes = changes(options, cluster);
    tokio::pin!(changes);
    let mut shown = String::new();
    loop {
        let text = picture(options, cluster, terminal).await?;
        let clear = if terminal.style.width.is_some() { CLEAR } else { "" };
        // The watch begins with what there is already.
        if text != shown {
            match terminal.say(&format!("{clear}{text}")) {
                Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(0),
                said => said?,
            }
            shown = text;
        }
        sleep(PAUSE).await;
        // An error is one of the watch: the next picture says more, and the watch begins anew.
        let _ = timeout(RENEW, changes.next()).await;
    }
}

/// Whatever happens to the routes that are shown.
fn changes(options: &Status, cluster: &Cluster) -> impl Stream<Item = ()> + use<> {
    let namespace = (!options.all_namespaces).then(|| cluster.namespace().to_owned());
    let config = match &options.route {
        Some(name) => watcher::Config::default().fields(&format!("metadata.name={name}")),
        None => watcher::Config::default(),
    };
    watcher(cluster.routes_api(namespace.as_deref()), config).map(drop)
}

async fn picture(options: &Status, cluster: &Cluster, terminal: &mut Terminal<'_>) -> Result<String, Error> {
    let (style, now) = (terminal.style, Timestamp::now());
    if let Some(name) = &options.route {
        let mut view = RouteView::of(&cluster.route(name).await?);
        match cluster.route_pods(Some(cluster.namespace()), Some(name)).await {
            Ok(pods) => view.pods = Some(pods),
            // The route alone says most of it.
            Err(error) => terminal.note(&format!("its pods are not shown: {error}")),
        }
        return Ok(match options.output {
            Some(StatusOutput::Json) => terminal::json(&view),
            Some(StatusOutput::Yaml) => terminal::yaml(&view),
            Some(StatusOutput::Wide) | None => print::route(&view, style, now),
        });
    }
    let namespace = (!options.all_namespaces).then(|| cluster.namespace());
    let mut views: Vec<_> = cluster.routes(namespace).await?.iter().map(RouteView::of).collect();
    views.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    let shown = |wide| Shown { namespaces: options.all_namespaces, wide };
    Ok(match options.output {
        Some(StatusOutput::Json) => terminal::json(&json!({"routes": views})),
        Some(StatusOutput::Yaml) => terminal::yaml(&json!({"routes": views})),
        _ if views.is_empty() => {
            let place = namespace.map_or_else(|| "the cluster".into(), |name| format!("namespace {name}"));
            format!("There are no MailRoutes in {}.\n", terminal::clean(&place))
        }
        Some(StatusOutput::Wide) => print::list(&views, shown(true), style, now),
        None => print::list(&views, shown(false), style, now),
    })
}
