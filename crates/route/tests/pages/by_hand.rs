//! Pages that are written by hand: what their tables say of conditions, reasons and replies is so.
//!
//! That the trouble of each row of the way in really shows so is tested with a sidecar and a simulator
//! (`sidecar/tests/relay/first_mail.rs`), which looks at the same rows: they have to be of one form.

use mailroute_route::condition::{ConditionType, Reason};

use crate::page::read;

const WAY_IN: &str = "docs/getting-started.md";

/// The head of a table of what is shown while something is missing.
const MISSING: &str = "| Missing | Condition | Reason |";

#[test]
fn every_step_of_the_way_in_has_commands_and_what_is_shown_while_it_is_missing() {
    let page = read(WAY_IN);
    let steps = page.split("\n## ").filter(|part| part.starts_with(|first: char| first.is_ascii_digit()));
    let mut count = 0;
    for step in steps {
        let title = step.lines().next().unwrap_or_default();
        assert!(step.contains("\n```"), "{title}: no command");
        let rows = rows(step, MISSING);
        assert!(!rows.is_empty(), "{title}: nothing says what is shown while it is missing");
        for row in rows {
            let [_, condition, reason] = &row[..] else { panic!("{title}: {row:?}") };
            let known = reasons_in(reason);
            assert_eq!(known.len(), 1, "{title}: {row:?}");
            let status = if known[0].condition() == ConditionType::Ready { "Unknown" } else { "False" };
            assert_eq!(*condition, format!("`{}` {status}", known[0].condition()), "{title}");
            assert_eq!(*reason, format!("`{}`", known[0]), "{title}");
        }
        count += 1;
    }
    assert!(count >= 7, "only {count} steps were found");
}

#[test]
fn what_is_missing_shows_under_a_condition_that_has_the_reason() {
    for path in [WAY_IN, "docs/guides/operator-identity.md"] {
        let page = read(path);
        let rows = rows(&page, MISSING);
        assert!(rows.len() > 2, "{path}: the table is not read right: {rows:?}");
        for row in rows {
            let [_, condition, reasons] = &row[..] else { panic!("{path}: {row:?}") };
            let named = reasons_in(reasons);
            assert!(!named.is_empty(), "{path}: {row:?}");
            for reason in named {
                let shown = format!("`{}` ", reason.condition());
                assert!(condition.starts_with(&shown), "{path}: {reason} is no reason of {condition}");
            }
        }
    }
}

#[test]
fn replies_on_the_pages_of_methods_have_the_reasons_of_the_table() {
    let known = read("docs/troubleshooting.md");
    for path in ["docs/methods/smtp-relay.md", "docs/methods/direct-send.md"] {
        let page = read(path);
        let rows = rows(&page, "| Reply | Reason |");
        assert!(rows.len() > 4, "{path}: the table is not read right: {rows:?}");
        for row in rows {
            // The second of two is the end of a range, or another code for the same.
            let said = row[0].split('`').nth(1).unwrap_or_default();
            let meanings = meanings(&known, said);
            assert!(!meanings.is_empty(), "{path}: troubleshooting knows no reply {said:?}");
            match reasons_in(row[1])[..] {
                [] => assert!(
                    meanings.iter().all(|it| !it.contains("Reason [")),
                    "{path}: {said:?} has a reason"
                ),
                [reason] => {
                    let link = format!("Reason [{reason}]");
                    assert!(meanings.iter().any(|it| it.contains(&link)), "{path}: {said:?} is not {reason}");
                }
                _ => panic!("{path}: {row:?}"),
            }
        }
    }
}

/// The rows of the tables with this head, as cells.
fn rows<'p>(page: &'p str, head: &str) -> Vec<Vec<&'p str>> {
    let tables = page.split("\n\n").filter_map(|part| Some(&part[part.find(head)?..]));
    let rows = tables.flat_map(|table| table.lines().skip(2));
    rows.map(|row| row.trim_matches('|').split(" | ").map(str::trim).collect()).collect()
}

/// The reasons that a cell names, as code or as links.
fn reasons_in(cell: &str) -> Vec<Reason> {
    let mut words: Vec<_> = cell.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    words.dedup();
    words
        .iter()
        .filter_map(|word| Reason::ALL.iter().find(|reason| reason.as_str() == *word).copied())
        .collect()
}

/// What troubleshooting says of every reply that has these words, in this order.
fn meanings<'p>(page: &'p str, said: &str) -> Vec<&'p str> {
    let entries = page.split("\n### `").filter_map(|entry| entry.split_once("`\n"));
    entries.filter(|(heading, _)| has_in_order(heading, said)).map(|(_, meaning)| meaning).collect()
}

fn has_in_order(heading: &str, said: &str) -> bool {
    let mut rest = heading;
    said.split(' ').all(|word| match rest.find(word) {
        Some(at) => {
            rest = &rest[at + word.len()..];
            true
        }
        None => false,
    })
}
