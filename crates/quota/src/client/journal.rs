//! The budget's journal: lines of text for what was taken, what was settled, and sums of what is older.
//!
//! ```text
//! mailroute budget 1
//! sum 1790000000123 1 0          at (ms), messages, recipients
//! take 17 1 3                    entry, messages, recipients
//! settle 17 1790000000456 1 3    entry, at (ms), messages, recipients
//! ```
//!
//! Lines that cannot be read are skipped and counted. A process that is killed while it writes tears at most the last line,
//! and the caller sends a message only after its `take` line is written whole.

use std::fmt::Write;
use std::time::Duration;

use super::budget::BudgetSnapshot;
use crate::Amount;

/// The first line.
const HEAD: &str = "mailroute budget 1\n";

/// One line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalLine {
    /// Counted at a time.
    Sum {
        /// When.
        at: Duration,
        /// How much.
        amount: Amount,
    },
    /// An entry was taken.
    Take {
        /// Its number.
        id: u64,
        /// What it is for.
        amount: Amount,
    },
    /// An entry was settled.
    Settle {
        /// Its number.
        id: u64,
        /// When.
        at: Duration,
        /// What was used.
        amount: Amount,
    },
}

impl JournalLine {
    /// Appends the line.
    pub fn print(&self, text: &mut String) {
        // Writing to a String cannot fail.
        let _ = match self {
            Self::Sum { at, amount } => writeln!(text, "sum {} {}", millis(*at), numbers(*amount)),
            Self::Take { id, amount } => writeln!(text, "take {id} {}", numbers(*amount)),
            Self::Settle { id, at, amount } => {
                writeln!(text, "settle {id} {} {}", millis(*at), numbers(*amount))
            }
        };
    }

    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split(' ');
        let kind = words.next()?;
        let numbers: Vec<u64> = words.map(str::parse).collect::<Result<_, _>>().ok()?;
        let amount = |messages, recipients| Amount { messages, recipients };
        match (kind, &numbers[..]) {
            ("sum", &[at, messages, recipients]) => {
                Some(Self::Sum { at: Duration::from_millis(at), amount: amount(messages, recipients) })
            }
            ("take", &[id, messages, recipients]) => {
                Some(Self::Take { id, amount: amount(messages, recipients) })
            }
            ("settle", &[id, at, messages, recipients]) => {
                Some(Self::Settle { id, at: Duration::from_millis(at), amount: amount(messages, recipients) })
            }
            _ => None,
        }
    }
}

/// Rounded up: what is counted later leaves later.
fn millis(at: Duration) -> u128 {
    at.as_nanos().div_ceil(1_000_000)
}

fn numbers(amount: Amount) -> String {
    format!("{} {}", amount.messages, amount.recipients)
}

/// The journal of a budget, written anew.
pub fn print(snapshot: &BudgetSnapshot) -> String {
    let mut text = HEAD.to_owned();
    for &(at, amount) in &snapshot.counted {
        JournalLine::Sum { at, amount }.print(&mut text);
    }
    for &(id, amount) in &snapshot.open {
        JournalLine::Take { id, amount }.print(&mut text);
    }
    text
}

/// What a journal says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ParsedJournal {
    /// The budget.
    pub snapshot: BudgetSnapshot,
    /// Lines that cannot be read.
    pub unread: usize,
}

/// Reads a journal; nothing without the first line.
pub fn parse(text: &str) -> Option<ParsedJournal> {
    let body = text.strip_prefix(HEAD)?;
    let (mut snapshot, mut unread) = (BudgetSnapshot::default(), 0);
    // The last line counts only when it was written to its end: `take 1 1 50` may have been meant as 500.
    for line in body.split_inclusive('\n') {
        let parsed = line.strip_suffix('\n').and_then(JournalLine::parse);
        match parsed {
            Some(JournalLine::Sum { at, amount }) => snapshot.counted.push((at, amount)),
            Some(JournalLine::Take { id, amount }) => snapshot.open.push((id, amount)),
            Some(JournalLine::Settle { id, at, amount }) => {
                snapshot.open.retain(|(open, _)| *open != id);
                snapshot.counted.push((at, amount));
            }
            None if line == "\n" => {}
            None => unread += 1,
        }
    }
    snapshot.counted.sort_by_key(|(at, _)| *at);
    Some(ParsedJournal { snapshot, unread })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn amount() -> impl Strategy<Value = Amount> {
        (0..100_u64, 0..100_000_u64).prop_map(|(messages, recipients)| Amount { messages, recipients })
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(
            counted in prop::collection::vec((0..u64::from(u32::MAX), amount()), 0..50),
            open in prop::collection::btree_map(any::<u64>(), amount(), 0..5),
        ) {
            let mut counted: Vec<_> =
                counted.into_iter().map(|(at, amount)| (Duration::from_millis(at), amount)).collect();
            counted.sort_by_key(|(at, _)| *at);
            let snapshot = BudgetSnapshot { counted, open: open.into_iter().collect() };
            prop_assert_eq!(parse(&print(&snapshot)), Some(ParsedJournal { snapshot, unread: 0 }));
        }

        #[test]
        fn a_text_cut_anywhere_loses_at_most_its_last_line(
            counted in prop::collection::vec((0..u64::from(u32::MAX), amount()), 1..10),
            cut in 0.0..1.0_f64,
        ) {
            let counted = counted.into_iter().map(|(at, amount)| (Duration::from_millis(at), amount)).collect();
            let text = print(&BudgetSnapshot { counted, open: vec![] });
            let body = text.len() - HEAD.len();
            let kept = &text[..HEAD.len() + (body as f64 * cut) as usize];
            let ParsedJournal { snapshot: read, unread } = parse(kept).unwrap();
            prop_assert!(unread <= 1);
            prop_assert_eq!(read.counted.len(), kept.matches('\n').count() - 1);
        }

        #[test]
        fn any_text_is_survived(text in "\\PC*", lines in prop::collection::vec("(sum|take|settle)( [0-9a]{1,25}){0,5}", 0..8)) {
            parse(&text);
            parse(&(HEAD.to_owned() + &lines.join("\n")));
        }
    }

    #[test]
    fn a_settled_entry_is_counted_as_it_was_settled() {
        let text = format!("{HEAD}take 1 1 5\ntake 2 1 7\nsettle 1 2000 1 4\n");
        let ParsedJournal { snapshot, unread } = parse(&text).unwrap();
        assert_eq!(unread, 0);
        assert_eq!(snapshot.counted, [(Duration::from_secs(2), Amount::message(4))]);
        assert_eq!(snapshot.open, [(2, Amount::message(7))]);
    }

    #[test]
    fn another_format_is_not_read() {
        assert_eq!(parse("mailroute budget 2\nsum 1 1 1\n"), None);
        assert_eq!(parse(""), None);
    }
}
