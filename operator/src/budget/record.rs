//! What of a ledger outlives its leader: plain data, and its text.
//!
//! Times are milliseconds since the Unix epoch, rounded up. A sidecar is written as its number, and the number of its namespace in
//! the list of them. Reads what it wrote, and nothing else: a text that it does not understand is the same as a lost one.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::ledger::Out;
use super::turns::Class;
use super::{Amount, Holder, Limits, Namespace};

/// The form of the text.
const VERSION: u32 = 1;

/// What may be given to a sidecar without another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ahead {
    /// Which sidecar.
    pub holder: Holder,
    /// Which life of it.
    pub life: u64,
    /// How much.
    pub amount: Amount,
}

/// What is written down of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct Part {
    /// Its name.
    pub name: Namespace,
    /// What its routes say that the mailbox's limits are.
    pub limits: Limits,
    /// Recipients that it used, by time.
    pub day: Vec<(Duration, u64)>,
    /// When Exchange found it too much last, and the share after that.
    pub restraint: Option<(Duration, f64)>,
}

/// What outlives a leader.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    pub(super) namespaces: Vec<Part>,
    /// The namespace of each sidecar that is named below, as its place in the list.
    pub(super) homes: Vec<(Holder, u32)>,
    pub(super) minute: Vec<(Duration, u64)>,
    pub(super) day: Vec<(Duration, u64)>,
    pub(super) leases: Vec<(u64, Out)>,
    pub(super) ahead: Vec<Ahead>,
    pub(super) ahead_until: Duration,
    pub(super) ended: Vec<(u64, Holder)>,
    pub(super) next_id: u64,
    pub(super) turns: Vec<(Holder, Class)>,
    /// Those of them of whom it is not known that they know.
    pub(super) untold: Vec<Holder>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Text {
    version: u32,
    namespaces: Vec<NamespaceText>,
    /// Holder, namespace.
    homes: Vec<(Hex, u32)>,
    minute: Vec<(u64, u64)>,
    day: Vec<(u64, u64)>,
    /// Number, holder, life, messages, recipients, until.
    leases: Vec<(u64, Hex, u64, u64, u64, u64)>,
    /// Holder, life, messages, recipients.
    ahead: Vec<(Hex, u64, u64, u64)>,
    ahead_until: u64,
    ended: Vec<(u64, Hex)>,
    next_id: u64,
    turns: Vec<(Hex, u32, u32)>,
    #[serde(default)]
    untold: Vec<Hex>,
}

/// Name; limits of messages, recipients and connections; recipients by time; restraint.
type NamespaceText = (String, (u32, u32, u32), Vec<(u64, u64)>, Option<(u64, f64)>);

/// A holder in JSON, whose numbers are not wide enough.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct Hex(Holder);

impl TryFrom<String> for Hex {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(Holder(u64::from_str_radix(&text, 16)?)))
    }
}

impl From<Hex> for String {
    fn from(Hex(Holder(number)): Hex) -> Self {
        format!("{number:x}")
    }
}

impl Record {
    /// The text.
    pub fn print(&self) -> String {
        let counted = |counted: &[(Duration, u64)]| counted.iter().map(|&(at, n)| (millis(at), n)).collect();
        let lease = |&(id, out): &(u64, Out)| {
            let Amount { messages, recipients } = out.amount;
            (id, Hex(out.holder), out.life, messages, recipients, millis(out.until))
        };
        let ahead =
            |ahead: &Ahead| (Hex(ahead.holder), ahead.life, ahead.amount.messages, ahead.amount.recipients);
        let part = |part: &Part| {
            let Limits { messages, recipients, connections } = part.limits;
            let restraint = part.restraint.map(|(at, share)| (millis(at), share));
            (part.name.to_string(), (messages, recipients, connections), counted(&part.day), restraint)
        };
        let text = Text {
            version: VERSION,
            namespaces: self.namespaces.iter().map(part).collect(),
            homes: self.homes.iter().map(|&(holder, home)| (Hex(holder), home)).collect(),
            minute: counted(&self.minute),
            day: counted(&self.day),
            leases: self.leases.iter().map(lease).collect(),
            ahead: self.ahead.iter().map(ahead).collect(),
            ahead_until: millis(self.ahead_until),
            ended: self.ended.iter().map(|&(id, holder)| (id, Hex(holder))).collect(),
            next_id: self.next_id,
            turns: self.turns.iter().map(|&(holder, class)| (Hex(holder), class.index, class.of)).collect(),
            untold: self.untold.iter().copied().map(Hex).collect(),
        };
        serde_json::to_string(&text).expect("plain data serialises")
    }

    /// What a text says; nothing when it is not one of ours.
    pub fn parse(text: &str) -> Option<Self> {
        let text: Text = serde_json::from_str(text).ok()?;
        if text.version != VERSION {
            return None;
        }
        let counted = |counted: Vec<(u64, u64)>| {
            let mut counted: Vec<_> = counted.into_iter().map(|(at, n)| (time(at), n)).collect();
            counted.sort_unstable();
            counted
        };
        let lease = |(id, Hex(holder), life, messages, recipients, until)| {
            let amount = Amount { messages, recipients };
            let until = time(until);
            (id, Out { holder, life, amount, sequence: u64::MAX, until, since: until })
        };
        let ahead = |(Hex(holder), life, messages, recipients)| Ahead {
            holder,
            life,
            amount: Amount { messages, recipients },
        };
        let turns =
            text.turns.into_iter().map(|(Hex(holder), index, of)| Some((holder, Class::new(index, of)?)));
        let part =
            |(name, (messages, recipients, connections), day, restraint): (String, _, _, Option<_>)| Part {
                name: name.into(),
                limits: Limits { messages, recipients, connections },
                day: counted(day),
                restraint: restraint.map(|(at, share)| (time(at), share)),
            };
        let namespaces: Vec<Part> = text.namespaces.into_iter().map(part).collect();
        let homes: Vec<_> = text.homes.into_iter().map(|(Hex(holder), home)| (holder, home)).collect();
        if homes.iter().any(|(_, home)| *home as usize >= namespaces.len()) {
            return None;
        }
        Some(Self {
            namespaces,
            homes,
            minute: counted(text.minute),
            day: counted(text.day),
            leases: text.leases.into_iter().map(lease).collect(),
            ahead: text.ahead.into_iter().map(ahead).collect(),
            ahead_until: time(text.ahead_until),
            ended: text.ended.into_iter().map(|(id, Hex(holder))| (id, holder)).collect(),
            next_id: text.next_id,
            turns: turns.collect::<Option<_>>()?,
            untold: text.untold.into_iter().map(|Hex(holder)| holder).collect(),
        })
    }
}

fn millis(at: Duration) -> u64 {
    u64::try_from(at.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

fn time(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Record {
        let (holder, amount) = (Holder(u64::MAX), Amount { messages: 2, recipients: 7 });
        let at = Duration::from_millis(1_800_000_000_123);
        let limits = Limits { messages: 30, recipients: 10_000, connections: 3 };
        let part = Part { name: "shop".into(), limits, day: vec![(at, 12)], restraint: Some((at, 0.5)) };
        Record {
            namespaces: vec![part],
            homes: vec![(holder, 0)],
            minute: vec![(at, 3)],
            day: vec![(at, 12)],
            leases: vec![(9, Out { holder, life: 5, amount, sequence: u64::MAX, until: at, since: at })],
            ahead: vec![Ahead { holder, life: 5, amount }],
            ahead_until: at,
            ended: vec![(8, holder)],
            next_id: 1009,
            turns: vec![(holder, Class::new(3, 8).unwrap())],
            untold: vec![holder],
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        assert_eq!(Record::parse(&sample().print()), Some(sample()));
    }

    #[test]
    fn what_is_not_ours_is_not_read() {
        let text = sample().print();
        for other in [
            String::new(),
            text.replace("\"version\":1", "\"version\":2"),
            text.replace(",3,8]", ",8,8]"),
            text.replace("\"homes\":[[\"ffffffffffffffff\",0]]", "\"homes\":[[\"ffffffffffffffff\",1]]"),
            text[..text.len() / 2].to_owned(),
        ] {
            assert_eq!(Record::parse(&other), None, "{other}");
        }
    }
}
