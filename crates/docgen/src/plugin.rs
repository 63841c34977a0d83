//! `docs/reference/kubectl-mailroute.md`, from the command line of the plugin.

use clap::{Arg, Command};

const HEAD: &str = "\
<!-- Written from cli/src/args.rs; a test compares. See CONTRIBUTING.md, \"Generated files\". -->
# kubectl mailroute

Every command of the plugin with its options. [The guide](../guides/kubectl-plugin.md) has examples, and the rights that each command needs.
The same program alone is called `mailroute`; its commands are the same.
";

/// The page.
pub fn page() -> String {
    let mut command = mailroute_cli::command("kubectl mailroute");
    command.build();
    let mut page = HEAD.to_owned();
    page.push_str("\n## Options of every command\n\n");
    page.push_str(&table(command.get_arguments().filter(|option| option.is_global_set())));
    add(&mut page, &command, "kubectl mailroute");
    page
}

fn add(page: &mut String, command: &Command, path: &str) {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set() && below.get_name() != "help")
    {
        let path = format!("{path} {}", below.get_name());
        let about = below.get_long_about().or(below.get_about()).map(ToString::to_string).unwrap_or_default();
        page.push_str(&format!("\n## {path}\n\n{}\n", escaped(&sentence(&about))));
        if below.get_subcommands().any(|it| it.get_name() != "help") {
            add(page, below, &path);
            continue;
        }
        let own: Vec<_> =
            below.get_arguments().filter(|it| !it.is_global_set() && it.get_id() != "help").collect();
        if !own.is_empty() {
            page.push_str(&format!("\n{}", table(own.into_iter())));
        }
    }
}

fn table<'a>(arguments: impl Iterator<Item = &'a Arg>) -> String {
    let rows = arguments.filter(|it| !it.is_hide_set()).map(|argument| {
        let help =
            argument.get_long_help().or(argument.get_help()).map(ToString::to_string).unwrap_or_default();
        format!(
            "| `{}` | {}{} |\n",
            name(argument),
            escaped(&sentence(&help.replace('\n', " "))),
            defaults(argument)
        )
    });
    let rows: String = rows.collect();
    format!("| Option | Meaning |\n| --- | --- |\n{rows}")
}

fn name(argument: &Arg) -> String {
    let values = || {
        let names = argument.get_value_names().unwrap_or_default();
        names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ").replace('|', "\\|")
    };
    if argument.is_positional() {
        return values();
    }
    let short = argument.get_short().map(|short| format!("-{short}, ")).unwrap_or_default();
    let long = argument.get_long().map(|long| format!("--{long}")).unwrap_or_default();
    let value = if argument.get_action().takes_values() { format!(" {}", values()) } else { String::new() };
    format!("{short}{long}{value}")
}

/// The values that there are, and the one without which.
fn defaults(argument: &Arg) -> String {
    if !argument.get_action().takes_values() {
        return String::new();
    }
    let values = argument.get_possible_values();
    let values: Vec<_> = values.iter().map(|value| format!("`{}`", value.get_name())).collect();
    let values = if values.is_empty() { String::new() } else { format!(" One of {}.", values.join(", ")) };
    let default: Vec<_> =
        argument.get_default_values().iter().map(|it| format!("`{}`", it.to_string_lossy())).collect();
    let default =
        if default.is_empty() { String::new() } else { format!(" Default: {}.", default.join(" ")) };
    format!("{values}{default}")
}

/// clap takes the full stop of a single sentence away.
fn sentence(text: &str) -> String {
    if text.ends_with(['.', '?', '!']) { text.to_owned() } else { format!("{text}.") }
}

/// A sentence in a table.
fn escaped(text: &str) -> String {
    text.replace('|', "\\|").replace('<', "\\<")
}
