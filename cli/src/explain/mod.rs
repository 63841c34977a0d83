//! `explain`: what a reason, a reply or an error means, from the tables by which the programs act and of which the
//! documentation is made. Needs no cluster. Pure, but for the output.

pub mod find;

use mailroute_replies::classify::Stage;
use serde_json::json;

use self::find::Explanation;
use crate::args::{At, Explain, Output};
use crate::error::Error;
use crate::terminal::{self, Style, Terminal, Tone, clean};

/// Explains what was asked about. The exit code says whether it is known.
///
/// # Errors
/// When the output cannot be written.
pub fn run(options: &Explain, terminal: &mut Terminal<'_>) -> Result<u8, Error> {
    let text = options.text.join(" ");
    let found = find::explain(&text, options.at.map(stage));
    let shown = match options.output {
        Output::Json => terminal::json(&json!({"explanations": found})),
        Output::Text if found.is_empty() => NOT_KNOWN.to_owned(),
        Output::Text => print(&found, terminal.style),
    };
    terminal.say(&shown)?;
    Ok(u8::from(found.is_empty()))
}

const NOT_KNOWN: &str = "\
This is in none of the tables. Give a reason (SmtpAuthDisabledMailbox), a whole reply (550 5.7.60 …) in quotes, or an error of Entra
(AADSTS700016). docs/troubleshooting.md lists every known text.
";

const fn stage(at: At) -> Stage {
    match at {
        At::Greeting => Stage::Greeting,
        At::Ehlo => Stage::Ehlo,
        At::Starttls => Stage::StartTls,
        At::Auth => Stage::Auth,
        At::Mail => Stage::Mail,
        At::Rcpt => Stage::Rcpt,
        At::Data => Stage::Data,
        At::Message => Stage::Message,
    }
}

/// Explanations as text.
fn print(found: &[Explanation], style: Style) -> String {
    let mut text = String::new();
    for (at, it) in found.iter().enumerate() {
        if at > 0 {
            text.push('\n');
        }
        text.push_str(&style.wrapped(&style.paint(Tone::Strong, &clean(&it.subject)), 0));
        text.push_str(&style.wrapped(&format!("({})", it.kind), 2));
        text.push_str(&style.wrapped(&clean(&it.meaning), 2));
        if !it.remedy.is_empty() {
            text.push_str(&style.wrapped(&format!("What to do: {}", it.remedy), 2));
        }
        if let Some(page) = &it.page {
            text.push_str(&style.wrapped(&style.paint(Tone::Faint, &format!("More: {page}")), 2));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_person_reads_what_it_means_and_what_to_do() {
        let found = find::explain(
            "535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.",
            None,
        );
        let expected = "\
535 5.7.139 Authentication unsuccessful, SmtpClientAuthentication is disabled for the Mailbox.
  (reply of Microsoft 365 at AUTH)
  Not a fault of the message: mail is held until the route works again, and none is returned. SmtpAuthDisabledMailbox: SMTP AUTH is switched off for the mailbox.
  What to do: Set-CASMailbox -Identity <mailbox> -SmtpClientAuthenticationDisabled $false
  More: docs/reference/reasons.md#smtpauthdisabledmailbox
";
        assert_eq!(print(&found, Style::default()), expected);
    }
}
