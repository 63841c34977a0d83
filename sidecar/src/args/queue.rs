//! The command line of `queue`.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand};
use mailroute_route::paths;

use super::Output;
use crate::message::envelope::QueueId;

/// Most ids in one request.
pub const MAX_IDS: usize = 1000;

/// Options of `queue`.
#[derive(Clone, Debug, Args)]
pub struct Queue {
    /// The spool, as given to `run`.
    #[arg(long, value_name = "DIR", default_value = paths::SPOOL_DIR, global = true)]
    pub spool_dir: PathBuf,

    /// Output format.
    #[arg(short, long, value_enum, default_value_t, global = true)]
    pub output: Output,

    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with the queue.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// List what waits, what was given up, and files that could not be read again.
    List(List),
    /// Show one message: envelope, what became of each recipient, last trouble, header.
    Show {
        /// Which message.
        #[arg(value_parser = queue_id)]
        id: QueueId,
        /// The message, too, so that it can be read on a terminal. `export` gives it octet for octet.
        #[arg(long)]
        body: bool,
    },
    /// Write one message to standard output, octet for octet.
    Export {
        /// Which message.
        #[arg(value_parser = queue_id)]
        id: QueueId,
    },
    /// Try messages now. A dead letter goes back into the queue, for those that did not get it, with its time anew.
    Retry(Retry),
    /// Forget messages. Nobody is told, and nothing brings them back.
    Drop(Drop),
}

/// What to list; everything when nothing is said.
#[derive(Clone, Copy, Debug, Args)]
#[group(multiple = false)]
pub struct List {
    /// Only dead letters.
    #[arg(long)]
    pub dead: bool,
    /// Only what waits or is being tried.
    #[arg(long)]
    pub waiting: bool,
}

/// What to try.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct Retry {
    /// Which messages.
    #[arg(value_name = "ID", value_parser = queue_id, num_args = 1..=MAX_IDS)]
    pub ids: Vec<QueueId>,
    /// Everything that waits.
    #[arg(long)]
    pub all: bool,
    /// Every dead letter.
    #[arg(long)]
    pub dead: bool,
    /// Every message whose file was set aside as damaged and can be read after all.
    #[arg(long)]
    pub corrupt: bool,
}

/// What to forget.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").args(["ids", "dead"]).required(true).multiple(false))]
pub struct Drop {
    /// Which messages.
    #[arg(value_name = "ID", value_parser = queue_id, num_args = 1..=MAX_IDS)]
    pub ids: Vec<QueueId>,
    /// Every dead letter.
    #[arg(long)]
    pub dead: bool,
    /// Needed when more than one message is forgotten.
    #[arg(long)]
    pub yes: bool,
}

fn queue_id(text: &str) -> Result<QueueId, &'static str> {
    QueueId::parse(text).ok_or("a queue id has 19 lower-case letters and digits; `queue list` shows them")
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use clap::error::ErrorKind;

    use super::*;
    use crate::args::{Cli, Command};

    const ID: &str = "0000000000000000001";

    fn parse(words: &str) -> Result<Queue, ErrorKind> {
        let cli = Cli::try_parse_from(["mailroute-sidecar", "queue"].into_iter().chain(words.split(' ')));
        match cli.map_err(|error| error.kind())?.into_command() {
            Command::Queue(queue) => Ok(queue),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn spool_and_output_may_stand_before_and_behind_the_verb() {
        for words in ["--spool-dir /x -o json list", "list --spool-dir /x -o json"] {
            let queue = parse(words).unwrap();
            assert_eq!((queue.spool_dir, queue.output), (PathBuf::from("/x"), Output::Json));
        }
        assert_eq!(parse("list").unwrap().spool_dir, PathBuf::from("/var/spool/mailroute"));
    }

    #[test]
    fn what_to_change_has_to_be_said_and_in_one_way() {
        for verb in ["retry", "drop"] {
            assert_eq!(parse(verb).unwrap_err(), ErrorKind::MissingRequiredArgument, "{verb}");
            let said = Cli::try_parse_from(["mailroute-sidecar", "queue", verb]).unwrap_err().to_string();
            assert!(said.contains("--dead"), "{said}");
            assert_eq!(parse(&format!("{verb} {ID} --dead")).unwrap_err(), ErrorKind::ArgumentConflict);
            assert!(parse(&format!("{verb} {ID} {ID}")).is_ok() && parse(&format!("{verb} --dead")).is_ok());
        }
        assert_eq!(parse("retry --all --dead").unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(parse("retry --corrupt --dead").unwrap_err(), ErrorKind::ArgumentConflict);
        assert!(parse("retry --corrupt").is_ok());
        assert_eq!(parse("list --waiting --dead").unwrap_err(), ErrorKind::ArgumentConflict);
        assert_eq!(parse("drop --all").unwrap_err(), ErrorKind::UnknownArgument);
    }

    #[test]
    fn only_a_queue_id_is_one() {
        for verb in ["show", "export", "retry", "drop"] {
            assert_eq!(parse(&format!("{verb} ../../etc/passwd")).unwrap_err(), ErrorKind::ValueValidation);
        }
    }
}
