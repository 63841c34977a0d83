//! `kubectl mailroute`: what people do with MailRoute all day, from a terminal.
//!
//! ```text
//!  args ─► run ─► status · check · test_mail · queue · trace · doctor ─► cluster ─► API server, sidecars' own commands
//!                   │                                     explain ─► crate replies, crate route
//!                   └─► values ─► pure functions ─► text, JSON ─► terminal
//! ```
//!
//! * [`cluster`]: all that is asked of a cluster, and how refusals are told. Nothing else does I/O, but for files that are exported.
//! * [`terminal`], [`table`], [`time`]: how things look, and that nothing from a cluster can do anything to a terminal.
//! * The others are one command each; what they say is made by pure functions of values.
//!
//! Refuses to deliver, queue or change mail by itself: that is the sidecar's, whose commands are run in its container.

pub mod args;
pub mod check;
pub mod cluster;
pub mod completion;
pub mod doctor;
pub mod error;
pub mod explain;
pub mod queue;
pub mod status;
pub mod table;
pub mod terminal;
pub mod test_mail;
pub mod time;
pub mod trace;

use std::ffi::OsString;
use std::io;
use std::path::Path;

use clap::{CommandFactory, FromArgMatches};

use self::args::{Cli, Command};
use self::cluster::{Cluster, Place};
use self::error::Error;
use self::terminal::{Terminal, Tone};

/// Exit code for what could not be done or looked at.
const FAILED: u8 = 2;

/// What the commands that change a queue take behind the route: ids or all of a kind, which clap would put before it.
const QUEUE_USAGE: [(&str, &str); 3] =
    [("retry", "ID...|--all|--dead|--corrupt"), ("drop", "ID...|--dead"), ("export", "ID...|--dead")];

/// Runs a command line, whose first word is the name of the program. The result is the exit code.
pub async fn run(words: impl IntoIterator<Item = OsString>, terminal: &mut Terminal<'_>) -> u8 {
    let words: Vec<OsString> = words.into_iter().collect();
    let name = program(words.first());
    // Before clap, which would take the options among the words for its own.
    if let Some(asked) = words.get(1).filter(|word| *word == completion::ASKED).and(words.get(2..)) {
        let asked: Vec<_> = asked.iter().map(|word| word.to_string_lossy().into_owned()).collect();
        return completion::run(&asked, &name, terminal).await.unwrap_or(FAILED);
    }
    let parsed =
        command(&name).try_get_matches_from(words).and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = match parsed {
        Ok(cli) => cli,
        Err(error) => {
            let text = error.render().to_string();
            let written = if error.use_stderr() {
                terminal.err.write_all(text.as_bytes())
            } else {
                terminal.say(&text)
            };
            return if written.is_ok() && !error.use_stderr() { 0 } else { FAILED };
        }
    };
    match done(&cli, &name, terminal).await {
        Ok(code) => code,
        // `kubectl mailroute queue list | head`: whoever reads has seen enough.
        Err(Error::Write(error)) if error.kind() == io::ErrorKind::BrokenPipe => 0,
        Err(error) => {
            terminal.progress("");
            let head = terminal.style.paint(Tone::Bad, "error:");
            terminal.note(&format!("{head} {}", terminal::clean_lines(&error.to_string())));
            FAILED
        }
    }
}

async fn done(cli: &Cli, name: &str, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let place = Place {
        kubeconfig: cli.connection.kubeconfig.as_deref(),
        context: cli.connection.context.as_deref(),
        namespace: cli.connection.namespace.as_deref(),
    };
    match &cli.command {
        Command::Explain(options) => return explain::run(options, terminal),
        Command::Completion(options) => {
            terminal.say(&completion::script(options.shell, &mut command(name)))?;
            return Ok(0);
        }
        _ => {}
    }
    let cluster = Cluster::connect(&place).await?;
    match &cli.command {
        Command::Status(options) => status::run(options, &cluster, terminal).await,
        Command::Check(options) => check::run(options, &cluster, terminal).await,
        Command::Test(options) => test_mail::run(options, &cluster, terminal).await,
        Command::Queue(options) => queue::run(&options.verb, &cluster, terminal).await,
        Command::Trace(options) => trace::run(options, &cluster, terminal).await,
        Command::Doctor(options) => doctor::run(options, &cluster, terminal).await,
        Command::Explain(_) | Command::Completion(_) => Ok(0),
    }
}

/// The command line under the name by which it was called.
pub fn command(name: &str) -> clap::Command {
    let display = name.split(' ').next_back().unwrap_or(name).to_owned();
    let verb = |verb: clap::Command| match QUEUE_USAGE.iter().find(|(named, _)| *named == verb.get_name()) {
        Some((named, what)) => {
            verb.override_usage(format!("{name} queue {named} [OPTIONS] <ROUTE> <{what}>"))
        }
        None => verb,
    };
    // All of them, as that keeps their order.
    let command = |command: clap::Command| match command.get_name() {
        "queue" => command.mut_subcommands(verb),
        _ => command,
    };
    Cli::command().bin_name(name.to_owned()).display_name(display).mut_subcommands(command)
}

/// How the program was called: `kubectl-mailroute` is what kubectl runs for `kubectl mailroute`.
fn program(first: Option<&OsString>) -> String {
    let stem =
        first.and_then(|path| Path::new(path).file_stem()).map(|stem| stem.to_string_lossy().into_owned());
    match stem.as_deref() {
        Some("kubectl-mailroute") | None => "kubectl mailroute".into(),
        Some(name) => name.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::terminal::Style;

    async fn said(words: &[&str]) -> (u8, String, String) {
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let mut terminal =
            Terminal { out: &mut out, err: &mut err, style: Style::default(), shows_progress: false };
        let code = run(words.iter().map(OsString::from), &mut terminal).await;
        (code, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[tokio::test]
    async fn help_has_the_name_by_which_the_program_was_called() {
        for (called, shown) in [
            ("/usr/local/bin/kubectl-mailroute", "Usage: kubectl mailroute [OPTIONS] <COMMAND>"),
            ("mailroute", "Usage: mailroute [OPTIONS] <COMMAND>"),
        ] {
            let (code, out, _) = said(&[called, "--help"]).await;
            assert!(code == 0 && out.contains(shown), "{called}: {out}");
        }
        let (code, out, _) = said(&["kubectl-mailroute", "queue", "list", "--help"]).await;
        assert!(code == 0 && out.contains("Usage: kubectl mailroute queue list [OPTIONS] <ROUTE>"), "{out}");
        for (verb, what) in QUEUE_USAGE {
            let (code, out, _) = said(&["kubectl-mailroute", "queue", verb, "--help"]).await;
            let usage = format!("Usage: kubectl mailroute queue {verb} [OPTIONS] <ROUTE> <{what}>\n");
            assert!(code == 0 && out.contains(&usage), "the route comes first, as it has to: {out}");
        }
    }

    #[tokio::test]
    async fn kubectl_gets_candidates_as_cobra_prints_them() {
        let (code, out, _) = said(&["kubectl-mailroute", "__complete", "-n", "shop", "sta"]).await;
        assert!(code == 0 && out.starts_with("status\tShow routes") && out.ends_with("\n:4\n"), "{out}");
    }

    #[tokio::test]
    async fn a_mistake_on_the_command_line_is_2() {
        let (code, out, err) = said(&["mailroute", "queue", "drop", "notifications"]).await;
        assert!(code == 2 && out.is_empty() && err.contains("--dead"), "{err}");
    }

    #[tokio::test]
    async fn explain_needs_no_cluster() {
        let (code, out, _) =
            said(&["mailroute", "--kubeconfig", "/nonexistent", "explain", "SecretMissing"]).await;
        assert!(code == 0 && out.contains("kubectl create secret generic <secret>"), "{out}");
        let (code, out, _) = said(&["mailroute", "explain", "nothing", "-o", "json"]).await;
        assert_eq!((code, out.as_str()), (1, "{\n  \"explanations\": []\n}\n"));
    }

    #[tokio::test]
    async fn without_a_kubeconfig_it_says_so() {
        let (code, _, err) = said(&["mailroute", "--kubeconfig", "/nonexistent", "status"]).await;
        assert!(
            code == 2 && err.starts_with("error: no cluster can be reached with this kubeconfig: "),
            "{err}"
        );
    }
}
