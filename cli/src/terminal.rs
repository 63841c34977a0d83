//! What a terminal gets: colour and width as it has them, and nothing that could move its cursor.
//!
//! Everything that comes from a cluster may have been written by somebody else: names, messages, addresses, replies, headers.
//! [`clean`] and [`clean_lines`] take control characters out, for people; [`json`] and [`yaml`] escape them, for programs.

use std::borrow::Cow;
use std::env;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;
use serde_json::Value;

/// The least width that text is wrapped to, columns.
const LEAST_WIDTH: usize = 40;

/// How text is to look.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Style {
    /// Whether colours are used.
    pub colour: bool,
    /// Columns; none where lines may have any length.
    pub width: Option<usize>,
}

/// What a piece of text says by its colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing.
    #[default]
    Plain,
    /// As it should be.
    Good,
    /// To be looked at.
    Warning,
    /// Wrong.
    Bad,
    /// A heading.
    Strong,
    /// By the way.
    Faint,
}

impl Style {
    /// A text in the colour of its tone.
    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => 32,
            Tone::Warning => 33,
            Tone::Bad => 31,
            Tone::Strong => 1,
            Tone::Faint => 2,
        };
        if self.colour && !text.is_empty() { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    /// A paragraph behind an indent of so many columns, broken between words. A word that is too long stays whole, since it may
    /// be one to copy.
    pub fn wrapped(self, text: &str, indent: usize) -> String {
        let margin = " ".repeat(indent);
        let Some(width) = self.width.map(|width| width.max(LEAST_WIDTH)) else {
            return format!("{margin}{}\n", text.trim());
        };
        let room = width.saturating_sub(indent).max(LEAST_WIDTH / 2);
        let mut lines = vec![String::new()];
        for word in text.split_whitespace() {
            let line = lines.last().map_or(0, |line| line.chars().count());
            let needed = word.chars().count() + usize::from(line > 0);
            match lines.last_mut() {
                Some(last) if line == 0 || line + needed <= room => {
                    if line > 0 {
                        last.push(' ');
                    }
                    last.push_str(word);
                }
                _ => lines.push(word.to_owned()),
            }
        }
        lines.iter().map(|line| format!("{margin}{line}\n")).collect()
    }
}

/// Where a command writes.
pub struct Terminal<'a> {
    /// What was asked for.
    pub out: &'a mut (dyn Write + Send),
    /// Errors, and how far long work has come.
    pub err: &'a mut (dyn Write + Send),
    /// How `out` looks.
    pub style: Style,
    /// Whether `err` may be overwritten while work goes on.
    pub shows_progress: bool,
}

impl<'a> Terminal<'a> {
    /// The terminal of this process, as far as it has one.
    pub fn of_process(out: &'a mut (dyn Write + Send), err: &'a mut (dyn Write + Send)) -> Self {
        let is_terminal = io::stdout().is_terminal();
        let says = |name: &str| env::var_os(name).filter(|value| !value.is_empty());
        let is_dumb = says("TERM").is_some_and(|term| term == "dumb");
        let width = terminal_size::terminal_size().map(|(width, _)| usize::from(width.0));
        Self {
            out,
            err,
            style: Style {
                // https://no-color.org
                colour: is_terminal && !is_dumb && says("NO_COLOR").is_none(),
                width: width.filter(|_| is_terminal),
            },
            shows_progress: io::stderr().is_terminal() && !is_dumb,
        }
    }

    /// Writes what was asked for.
    ///
    /// # Errors
    /// When nobody takes it.
    pub fn say(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        self.out.flush()
    }

    /// Writes a line beside what was asked for. That nobody takes it changes nothing.
    pub fn note(&mut self, text: &str) {
        let _ = writeln!(self.err, "{text}");
    }

    /// Shows how far long work has come.
    pub fn progress(&mut self, text: &str) {
        if self.shows_progress {
            let _ = write!(self.err, "\r\x1b[K{text}");
            let _ = self.err.flush();
        }
    }
}

/// Whether a character could do more on a terminal than stand there: control characters, and those that change the direction
/// of what follows.
pub fn is_active(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// One line of text, with a mark in the place of each character that could do something.
pub fn clean(text: &str) -> Cow<'_, str> {
    if text.contains(is_active) {
        Cow::Owned(text.chars().map(|c| if is_active(c) { char::REPLACEMENT_CHARACTER } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

/// The same for a text of several lines, which keeps its line ends and tabs.
pub fn clean_lines(text: &str) -> String {
    let text = text.replace("\r\n", "\n");
    let keep = |c: char| if is_active(c) && c != '\n' && c != '\t' { char::REPLACEMENT_CHARACTER } else { c };
    text.chars().map(keep).collect()
}

/// A value as JSON, ending in a newline, whose strings hold no character that could do something.
pub fn json(value: &impl Serialize) -> String {
    // Only maps with odd keys and failing `Serialize` impls can fail, and there are none here.
    let plain = serde_json::to_string_pretty(value).unwrap_or_default();
    let mut json = String::with_capacity(plain.len() + 1);
    for c in plain.chars() {
        // Outside of strings there are line ends alone, and within them JSON has escaped the others below U+0020.
        if is_active(c) && c != '\n' {
            let mut units = [0; 2];
            for unit in c.encode_utf16(&mut units) {
                json.push_str(&format!("\\u{unit:04x}"));
            }
        } else {
            json.push(c);
        }
    }
    json.push('\n');
    json
}

/// A value as YAML, ending in a newline, with the strings cleaned.
pub fn yaml(value: &impl Serialize) -> String {
    let value = cleaned(serde_json::to_value(value).unwrap_or_default());
    let mut yaml = serde_saphyr::to_string(&value).unwrap_or_default();
    if !yaml.ends_with('\n') {
        yaml.push('\n');
    }
    yaml
}

fn cleaned(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(clean_lines(&text)),
        Value::Array(items) => items.into_iter().map(cleaned).collect(),
        Value::Object(fields) => {
            fields.into_iter().map(|(key, value)| (clean(&key).into_owned(), cleaned(value))).collect()
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn colour_is_only_where_it_is_wanted() {
        let coloured = Style { colour: true, width: None };
        assert_eq!(coloured.paint(Tone::Bad, "no"), "\x1b[31mno\x1b[0m");
        assert_eq!(Style::default().paint(Tone::Bad, "no"), "no");
        assert_eq!(coloured.paint(Tone::Bad, ""), "");
    }

    #[test]
    fn a_paragraph_is_broken_between_words_alone() {
        let style = Style { colour: false, width: Some(44) };
        let text = "SMTP AUTH is switched off for the mailbox: Set-CASMailbox-with-a-very-long-argument-that-stays-whole";
        let expected = "  SMTP AUTH is switched off for the mailbox:\n  \
                        Set-CASMailbox-with-a-very-long-argument-that-stays-whole\n";
        assert_eq!(style.wrapped(text, 2), expected);
        assert_eq!(Style::default().wrapped("as  it is", 1), " as  it is\n");
    }

    #[test]
    fn what_could_move_the_cursor_is_taken_out_or_escaped() {
        assert_eq!(clean("a\x1b[2Jb\u{9b}c\u{202e}d"), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
        assert_eq!(clean_lines("a\r\n\tb\rc\x07"), "a\n\tb\u{fffd}c\u{fffd}");
        let shown = json(&json!({"a": "x\x1b\u{9b}\u{202e}\n"}));
        assert_eq!(shown, "{\n  \"a\": \"x\\u001b\\u009b\\u202e\\n\"\n}\n");
        let shown = yaml(&json!({"a\x1b": ["\x1b[2J"]}));
        assert!(!shown.contains(|c| is_active(c) && c != '\n') && shown.contains("[2J"), "{shown:?}");
    }

    proptest! {
        #[test]
        fn whatever_comes_nothing_of_it_is_active(text in any::<String>()) {
            prop_assert!(!clean(&text).contains(is_active));
            prop_assert!(!clean_lines(&text).contains(|c| is_active(c) && c != '\n' && c != '\t'));
            let shown = json(&text);
            prop_assert!(!shown.trim_end().contains(is_active));
            prop_assert_eq!(serde_json::from_str::<String>(&shown).unwrap(), text);
        }
    }
}
