//! The command line.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::Shell;

/// Mail of Kubernetes through Microsoft 365: routes, queues and messages.
///
/// Works with the cluster, the namespace and the rights of your kubeconfig. Reads unless a command says otherwise.
#[derive(Debug, Parser)]
#[command(name = "mailroute", version, subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// Which cluster.
    #[command(flatten)]
    pub connection: Connection,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which cluster, and where in it.
#[derive(Clone, Debug, Default, Args)]
pub struct Connection {
    /// The namespace. Default: that of the context.
    #[arg(short, long, global = true, value_name = "NAMESPACE", help_heading = "Which cluster")]
    pub namespace: Option<String>,
    /// The context of the kubeconfig.
    #[arg(long, global = true, value_name = "NAME", help_heading = "Which cluster")]
    pub context: Option<String>,
    /// The kubeconfig. Default: $KUBECONFIG, or ~/.kube/config.
    #[arg(long, global = true, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Which cluster")]
    pub kubeconfig: Option<PathBuf>,
}

/// What to do.
#[derive(Clone, Debug, Subcommand)]
pub enum Command {
    /// Show routes: whether mail flows, why not and what to do, pods, queue, used budget, gateway.
    ///
    /// With a route: all its conditions, pods and mailboxes.
    ///
    /// Exit code: 0 if it could be shown, whatever it shows, 2 if not. Scripts read `-o json`, or use `doctor`.
    Status(Status),
    /// Test the connection to Microsoft 365 from a pod of the route, without sending mail, and explain each step.
    ///
    /// Runs `check` in the sidecar of a running pod. If the route has none, makes a pod that sends nothing and removes it
    /// afterwards.
    ///
    /// Exit code: 0 if a message could be sent, 1 if not, 2 if it could not be tested.
    Check(Check),
    /// Send a real message from a pod of the route, and follow it until Microsoft 365 has it.
    ///
    /// Exit code: 0 if Microsoft 365 accepted it, 1 if not, 2 if it could not be sent.
    Test(Test),
    /// Manage queued messages and dead letters of all pods of a route, its gateway included.
    ///
    /// Exit code: 0 if all was done, 1 if some of it was not, 2 if nothing could be done.
    Queue(Queue),
    /// Tell the story of one message: from the 250 to the application to Microsoft's answer.
    ///
    /// Reads logs, queues and dead letters of all pods of the namespace that use a route. Logs of pods that are gone are gone too.
    ///
    /// Exit code: 0 if the message is known, 1 if not, 2 if not all pods could be asked.
    Trace(Trace),
    /// Explain a reason, a reply of Microsoft 365 or of the sidecar, or an error of Entra. Needs no cluster.
    ///
    /// Exit code: 0 if the text is known, 1 if not.
    Explain(Explain),
    /// Look at the installation: operator, webhook, policy, definitions, certificates, versions, DNS.
    ///
    /// Exit code: 0 if all is well, 1 if there are problems, 2 if something could not be looked at.
    Doctor(Doctor),
    /// Print a script that completes commands in a shell.
    Completion(Completion),
}

/// Options of `status`.
#[derive(Clone, Debug, Args)]
pub struct Status {
    /// The route. Default: all of the namespace.
    #[arg(value_name = "ROUTE")]
    pub route: Option<String>,
    /// The routes of all namespaces.
    #[arg(short = 'A', long, conflicts_with = "route")]
    pub all_namespaces: bool,
    /// Show it again when something changes, until Ctrl-C.
    #[arg(short, long, conflicts_with = "output")]
    pub watch: bool,
    /// Output format.
    #[arg(short, long, value_enum)]
    pub output: Option<StatusOutput>,
}

/// How `status` looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum StatusOutput {
    /// More columns.
    Wide,
    /// JSON.
    Json,
    /// YAML.
    Yaml,
}

/// Options of `check`.
#[derive(Clone, Debug, Args)]
pub struct Check {
    /// The route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    /// Sender to try. Default: the route's mailbox, or postmaster of its first accepted domain.
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Recipient to try. Default: the default sender.
    #[arg(long, value_name = "ADDRESS")]
    pub to: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Which pod.
    #[command(flatten)]
    pub visit: Visit,
}

/// In which pod to work.
#[derive(Clone, Debug, Default, Args)]
pub struct Visit {
    /// A pod of the route, instead of the first that is ready.
    #[arg(long, value_name = "POD")]
    pub pod: Option<String>,
    /// Make a pod for this and remove it afterwards, although the route has some.
    #[arg(long, conflicts_with = "pod")]
    pub new_pod: bool,
    /// ServiceAccount of a pod that is made.
    #[arg(long, value_name = "NAME", default_value = "default", conflicts_with = "pod")]
    pub service_account: String,
    /// Image of the only container of a pod that is made, beside the sidecar. It has to do nothing until it is stopped.
    #[arg(long, value_name = "IMAGE", default_value = PAUSE, conflicts_with = "pod")]
    pub image: String,
    /// Maximum time for all of it, in seconds.
    #[arg(long, value_name = "SECONDS", default_value = "180", value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub timeout: u64,
}

/// What Kubernetes itself runs in every pod.
pub const PAUSE: &str = "registry.k8s.io/pause:3.10";

/// Options of `test`.
#[derive(Clone, Debug, Args)]
pub struct Test {
    /// The route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    /// Who gets the message.
    #[arg(long, value_name = "ADDRESS")]
    pub to: String,
    /// Sender. Default: the route's mailbox, or postmaster of its first accepted domain.
    #[arg(long, value_name = "ADDRESS")]
    pub from: Option<String>,
    /// Subject.
    #[arg(long, value_name = "TEXT")]
    pub subject: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
    /// Which pod.
    #[command(flatten)]
    pub visit: Visit,
}

/// How an answer looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// Options of `queue`.
#[derive(Clone, Debug, Args)]
pub struct Queue {
    /// What to do.
    #[command(subcommand)]
    pub verb: Verb,
}

/// What to do with the queue.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// List queued messages, dead letters and damaged files.
    List(List),
    /// Show one message: envelope, what became of each recipient, last problem, header.
    Show(Show),
    /// Try messages now. A dead letter returns to the queue, for the recipients that did not get it.
    Retry(Retry),
    /// Delete messages for good. Nobody is notified.
    Drop(Drop),
    /// Write messages byte for byte: one to standard output, several to a folder.
    Export(Export),
}

/// Options of `queue list`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("kind").args(["dead", "waiting"]))]
pub struct List {
    /// The route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    /// Only dead letters.
    #[arg(long)]
    pub dead: bool,
    /// Only what waits or is being tried.
    #[arg(long)]
    pub waiting: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `queue show`.
#[derive(Clone, Debug, Args)]
pub struct Show {
    /// The route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    /// The message.
    #[arg(value_name = "ID", value_parser = queue_id)]
    pub id: String,
    /// The whole message, made safe for a terminal.
    #[arg(long, conflicts_with = "output")]
    pub body: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `queue retry`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").args(["ids", "all", "dead", "corrupt"]).required(true))]
pub struct Retry {
    /// The route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    /// Messages.
    #[arg(value_name = "ID", value_parser = queue_id)]
    pub ids: Vec<String>,
    /// Everything that waits.
    #[arg(long)]
    pub all: bool,
    /// Every dead letter.
    #[arg(long)]
    pub dead: bool,
    /// Every message whose file was set aside as damaged and can be read after all.
    #[arg(long)]
    pub corrupt: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `queue drop`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").args(["ids", "dead"]).required(true))]
pub struct Drop {
    /// The route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    /// Messages.
    #[arg(value_name = "ID", value_parser = queue_id)]
    pub ids: Vec<String>,
    /// Every dead letter.
    #[arg(long)]
    pub dead: bool,
    /// Required if more than one message is deleted.
    #[arg(long)]
    pub yes: bool,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `queue export`.
#[derive(Clone, Debug, Args)]
#[command(group = ArgGroup::new("what").args(["ids", "dead"]).required(true))]
pub struct Export {
    /// The route.
    #[arg(value_name = "ROUTE")]
    pub route: String,
    /// Messages.
    #[arg(value_name = "ID", value_parser = queue_id)]
    pub ids: Vec<String>,
    /// Every dead letter.
    #[arg(long)]
    pub dead: bool,
    /// Where to write ID.eml. Default: standard output, for one message.
    #[arg(short, long, value_name = "FOLDER", value_hint = ValueHint::DirPath)]
    pub directory: Option<PathBuf>,
}

/// Options of `trace`.
#[derive(Clone, Debug, Args)]
pub struct Trace {
    /// Message-ID, with or without angle brackets, or the id in the queue: 19 letters and digits.
    #[arg(value_name = "MESSAGE-ID|QUEUE-ID")]
    pub id: String,
    /// Only the pods of this route.
    #[arg(long, value_name = "ROUTE")]
    pub route: Option<String>,
    /// How far to read logs back, such as 30m, 12h or 2d. Default: all that there is.
    #[arg(long, value_name = "TIME", value_parser = age)]
    pub since: Option<i64>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `explain`.
#[derive(Clone, Debug, Args)]
pub struct Explain {
    /// A reason such as SmtpAuthDisabledMailbox, a condition such as Authenticated, a reply such as `550 5.7.60 SendAsDenied …`, a line of a
    /// log, or an error such as AADSTS700016.
    #[arg(value_name = "TEXT", required = true, num_args = 1..)]
    pub text: Vec<String>,
    /// To which command the reply was, if that is known.
    #[arg(long, value_enum, value_name = "COMMAND")]
    pub at: Option<At>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// The command that a reply answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum At {
    /// The greeting.
    Greeting,
    /// EHLO.
    Ehlo,
    /// STARTTLS.
    Starttls,
    /// AUTH.
    Auth,
    /// MAIL.
    Mail,
    /// RCPT.
    Rcpt,
    /// DATA.
    Data,
    /// The end of the data.
    Message,
}

/// Options of `doctor`.
#[derive(Clone, Debug, Args)]
pub struct Doctor {
    /// Namespace of the operator. Default: searched for.
    #[arg(long, value_name = "NAMESPACE")]
    pub operator_namespace: Option<String>,
    /// Output format.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: Output,
}

/// Options of `completion`.
#[derive(Clone, Copy, Debug, Args)]
pub struct Completion {
    /// The shell.
    #[arg(value_enum)]
    pub shell: Shell,
}

/// A queue id: 19 digits of base 32.
fn queue_id(text: &str) -> Result<String, &'static str> {
    if is_queue_id(text) {
        Ok(text.to_owned())
    } else {
        Err("a queue id has 19 lower-case letters and digits; `queue list` shows them")
    }
}

/// Whether a text has the form of a queue id.
pub fn is_queue_id(text: &str) -> bool {
    text.len() == 19 && text.bytes().all(|octet| octet.is_ascii_lowercase() || octet.is_ascii_digit())
}

/// A number with a unit, in seconds.
fn age(text: &str) -> Result<i64, String> {
    let wrong = || "a number with s, m, h or d behind it, such as 12h".to_owned();
    let units = [('s', 1), ('m', 60), ('h', 3600), ('d', 86_400)];
    let read = units.iter().find_map(|&(unit, factor)| Some((text.strip_suffix(unit)?, factor)));
    let (number, factor) = read.ok_or_else(wrong)?;
    let seconds =
        number.parse::<u32>().ok().filter(|&number| number > 0).map(|number| i64::from(number) * factor);
    seconds.ok_or_else(wrong)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    use super::*;

    fn parse(words: &str) -> Result<Cli, ErrorKind> {
        Cli::try_parse_from(words.split(' ')).map_err(|error| error.kind())
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn global_options_stand_anywhere() {
        for words in
            ["mailroute -n shop status", "mailroute status -n shop", "mailroute status x --namespace=shop"]
        {
            assert_eq!(parse(words).unwrap().connection.namespace.as_deref(), Some("shop"), "{words}");
        }
        assert_eq!(parse("mailroute status -A x").unwrap_err(), ErrorKind::ArgumentConflict);
    }

    #[test]
    fn what_to_change_has_to_be_said_and_in_one_way() {
        let id = "0000000000000000001";
        for verb in ["retry", "drop", "export"] {
            let missing = parse(&format!("mailroute queue {verb} notifications"));
            assert_eq!(missing.unwrap_err(), ErrorKind::MissingRequiredArgument, "{verb}");
            let both = parse(&format!("mailroute queue {verb} notifications {id} --dead"));
            assert_eq!(both.unwrap_err(), ErrorKind::ArgumentConflict, "{verb}");
            assert!(parse(&format!("mailroute queue {verb} notifications {id} {id}")).is_ok(), "{verb}");
            let path = parse(&format!("mailroute queue {verb} notifications ../../../etc/pass"));
            assert_eq!(path.unwrap_err(), ErrorKind::ValueValidation, "{verb}");
        }
        assert!(parse("mailroute queue retry notifications --all").is_ok());
        assert!(parse("mailroute queue list notifications --dead --waiting").is_err());
    }

    #[test]
    fn a_reply_is_explained_as_it_was_copied() {
        let Command::Explain(explain) = parse("mailroute explain 550 5.1.1 no - user").unwrap().command
        else {
            panic!("explain");
        };
        assert_eq!(explain.text.join(" "), "550 5.1.1 no - user");
    }

    #[test]
    fn ages_have_a_unit() {
        assert_eq!((age("12h"), age("2d"), age("90s")), (Ok(43_200), Ok(172_800), Ok(90)));
        for wrong in ["", "h", "0h", "12", "-1h", "1w", "1ü"] {
            assert!(age(wrong).is_err(), "{wrong}");
        }
    }
}
