//! Completion: scripts for shells, and the answers that kubectl asks `kubectl_complete-mailroute` for.
//!
//! kubectl runs a program of that name with the words so far and takes what Cobra programs print: one candidate a line, with a
//! description behind a tab, and a last line with a directive.

use std::path::Path;
use std::time::Duration;

use clap_complete::Shell;
use kube::ResourceExt;
use tokio::time::timeout;

use crate::cluster::{Cluster, Place};
use crate::error::Error;
use crate::terminal::{Terminal, clean};

/// Cobra's directive: no names of files.
const NO_FILES: &str = ":4\n";

/// Cobra's directive: names of files, as the shell has them.
const FILES: &str = ":0\n";

/// Longest wait for the names of routes.
const PATIENCE: Duration = Duration::from_secs(3);

/// The word by which kubectl's program asks.
pub const ASKED: &str = "__complete";

/// Subcommands whose first argument is a route.
const WITH_ROUTE: [&str; 8] = ["status", "check", "test", "list", "show", "retry", "drop", "export"];

/// The script for a shell. It completes the program by its own name; kubectl does so for itself.
pub fn script(shell: Shell, command: &mut clap::Command) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, command, "mailroute", &mut script);
    String::from_utf8_lossy(&script).into_owned()
}

/// Prints the candidates for the last of the words.
///
/// # Errors
/// When the output cannot be written.
pub async fn run(words: &[String], name: &str, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let candidates = match candidates(words, &crate::command(name)) {
        Candidates::Words(words) => words.join("\n") + "\n" + NO_FILES,
        Candidates::Routes(prefix) => routes(&prefix, words).await.join("\n") + "\n" + NO_FILES,
        Candidates::Files => FILES.to_owned(),
    };
    terminal.say(candidates.trim_start_matches('\n'))?;
    Ok(0)
}

/// What may stand in the last place.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Candidates {
    /// One of these.
    Words(Vec<String>),
    /// The name of a route with this beginning.
    Routes(String),
    /// The name of a file.
    Files,
}

fn candidates(words: &[String], command: &clap::Command) -> Candidates {
    let mut command = command.clone();
    command.build();
    let (last, before) = words.split_last().map_or(("", words), |(last, before)| (last.as_str(), before));
    let (mut at, mut arguments, mut value_of) = (&command, 0, None);
    for word in before {
        if value_of.take().is_some() {
            // What stands behind an option that takes a value may be anything.
        } else if word.starts_with('-') {
            value_of = option(at, word).filter(|option| takes_value(option) && !word.contains('='));
        } else if let Some(below) = at.find_subcommand(word) {
            at = below;
        } else {
            arguments += 1;
        }
    }
    if let Some(option) = value_of {
        return values(option, last);
    }
    if last.starts_with('-') {
        let options = at.get_arguments().filter(|option| !option.is_hide_set());
        let long =
            options.filter_map(|option| Some((format!("--{}", option.get_long()?), option.get_help())));
        return Candidates::Words(matching(long, last));
    }
    let below = at.get_subcommands().filter(|below| !below.is_hide_set());
    let below: Vec<_> = below.map(|below| (below.get_name().to_owned(), below.get_about())).collect();
    if !below.is_empty() {
        return Candidates::Words(matching(below.into_iter(), last));
    }
    let positionals = at.get_positionals().nth(arguments);
    match positionals {
        Some(_) if arguments == 0 && WITH_ROUTE.contains(&at.get_name()) => {
            Candidates::Routes(last.to_owned())
        }
        Some(positional) => values(positional, last),
        None => Candidates::Words(Vec::new()),
    }
}

fn option<'a>(command: &'a clap::Command, word: &str) -> Option<&'a clap::Arg> {
    let name = word.split('=').next().unwrap_or(word);
    command.get_arguments().find(|option| {
        let long = option.get_long().is_some_and(|long| name.strip_prefix("--") == Some(long));
        long || option
            .get_short()
            .is_some_and(|short| name.strip_prefix('-') == Some(short.to_string().as_str()))
    })
}

fn takes_value(option: &clap::Arg) -> bool {
    option.get_action().takes_values()
}

fn values(option: &clap::Arg, beginning: &str) -> Candidates {
    match option.get_value_hint() {
        clap::ValueHint::FilePath | clap::ValueHint::DirPath => Candidates::Files,
        _ => {
            let values = option.get_possible_values();
            let values = values.iter().map(|value| (value.get_name().to_owned(), value.get_help()));
            Candidates::Words(matching(values, beginning))
        }
    }
}

fn matching<'a>(
    words: impl Iterator<Item = (String, Option<&'a clap::builder::StyledStr>)>,
    beginning: &str,
) -> Vec<String> {
    let described = |(word, about): (String, Option<&clap::builder::StyledStr>)| match about {
        Some(about) => format!("{word}\t{}", about.to_string().lines().next().unwrap_or_default()),
        None => word,
    };
    words.filter(|(word, _)| word.starts_with(beginning)).map(described).collect()
}

/// Names of routes; none where the cluster does not answer at once.
async fn routes(beginning: &str, words: &[String]) -> Vec<String> {
    let named = |long: &str, short: &str| {
        let follows =
            words.windows(2).find(|pair| pair[0] == long || pair[0] == short).map(|pair| pair[1].as_str());
        let joined = words.iter().find_map(|word| word.strip_prefix(long)?.strip_prefix('='));
        follows.or(joined)
    };
    let place = Place {
        namespace: named("--namespace", "-n"),
        context: named("--context", "--context"),
        kubeconfig: named("--kubeconfig", "--kubeconfig").map(Path::new),
    };
    let asked = async {
        let cluster = Cluster::connect(&place).await?;
        cluster.routes(Some(cluster.namespace())).await
    };
    match timeout(PATIENCE, asked).await {
        Ok(Ok(routes)) => {
            let names = routes.iter().map(|route| clean(&route.name_any()).into_owned());
            names.filter(|name| name.starts_with(beginning)).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(words: &str) -> Candidates {
        let words: Vec<String> = words.split(' ').map(String::from).collect();
        candidates(&words, &crate::command("kubectl mailroute"))
    }

    fn names(candidates: Candidates) -> Vec<String> {
        let Candidates::Words(words) = candidates else { panic!("{candidates:?}") };
        words.iter().map(|word| word.split('\t').next().unwrap().to_owned()).collect()
    }

    #[test]
    fn what_may_come_next_is_said() {
        assert_eq!(names(of("sta")), ["status"]);
        assert!(names(of("")).contains(&"doctor".to_owned()));
        assert_eq!(names(of("-n shop queue re")), ["retry"]);
        assert_eq!(names(of("queue retry x --de")), ["--dead"]);
        assert_eq!(names(of("status -o ")), ["wide", "json", "yaml"]);
        assert_eq!(of("check noti"), Candidates::Routes("noti".into()));
        assert_eq!(of("queue list "), Candidates::Routes(String::new()));
        assert_eq!(of("--kubeconfig "), Candidates::Files);
        assert_eq!(names(of("completion ")).len(), 5);
    }

    #[test]
    fn every_shell_has_its_script() {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish, Shell::PowerShell] {
            let script = script(shell, &mut crate::command("mailroute"));
            assert!(script.contains("mailroute") && script.contains("doctor"), "{shell}");
        }
    }
}
