//! What of a ledger outlives its leader: plain data, and its text.
//!
//! Times are milliseconds since the Unix epoch, rounded up. A sidecar is written as its id, and its namespace as the place in the
//! list of namespaces. Only text of this version is read. Any other text counts as a lost record. Names in the text stay as they
//! are: the leader of another release reads them. What only some mailboxes have, such as a limit of the hour, is left out of the
//! text of the others, so that leaders that do not know it read those.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::limits::{MailboxLimits, NO_LIMIT, Namespace, SidecarId};
use crate::Amount;
use crate::throttle::LastThrottle;
use crate::wire::SlotAssignment;

/// Version of the text.
const VERSION: u32 = 1;

/// A lease whose end is not known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IssuedLease {
    /// Which sidecar has it.
    pub holder: SidecarId,
    /// Which run of the sidecar asked for it. A run that is over does not report what it used.
    pub instance: u64,
    /// How much it allows.
    pub amount: Amount,
    /// Which claim of its holder it answers. A later claim names it, or the holder did not receive it.
    pub sequence: u64,
    /// When it counts as used in full.
    pub until: Duration,
    /// When it was granted.
    pub since: Duration,
}

/// What may be granted to a sidecar without another record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Preallocation {
    /// Which sidecar.
    pub holder: SidecarId,
    /// Which run of it.
    pub instance: u64,
    /// How much.
    pub amount: Amount,
}

/// What is stored of one namespace.
#[derive(Clone, Debug, PartialEq)]
pub struct NamespaceRecord {
    /// Its name.
    pub name: Namespace,
    /// The limits that its routes name.
    pub limits: MailboxLimits,
    /// Messages of the hour that it used, by time; none without a limit of the hour.
    pub hour: Vec<(Duration, u64)>,
    /// Recipients that it used, by time.
    pub day: Vec<(Duration, u64)>,
    /// When Microsoft last throttled it.
    pub throttle: Option<LastThrottle>,
}

/// What outlives a leader.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LedgerRecord {
    pub(super) namespaces: Vec<NamespaceRecord>,
    /// The namespace of each sidecar that is named below, as its place in the list.
    pub(super) members: Vec<(SidecarId, u32)>,
    pub(super) minute: Vec<(Duration, u64)>,
    /// None without a limit of the hour.
    pub(super) hour: Vec<(Duration, u64)>,
    pub(super) day: Vec<(Duration, u64)>,
    pub(super) leases: Vec<(u64, IssuedLease)>,
    pub(super) preallocated: Vec<Preallocation>,
    pub(super) preallocated_until: Duration,
    pub(super) ended: Vec<(u64, SidecarId)>,
    pub(super) next_id: u64,
    pub(super) slots: Vec<(SidecarId, SlotAssignment)>,
    /// Owners of slots that have not acknowledged them.
    pub(super) unacknowledged: Vec<SidecarId>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecordText {
    version: u32,
    namespaces: Vec<NamespaceText>,
    /// Sidecar, namespace.
    homes: Vec<(HexId, u32)>,
    minute: Vec<(u64, u64)>,
    day: Vec<(u64, u64)>,
    /// Number, sidecar, instance, messages, recipients, until.
    leases: Vec<(u64, HexId, u64, u64, u64, u64)>,
    /// Sidecar, instance, messages, recipients.
    ahead: Vec<(HexId, u64, u64, u64)>,
    ahead_until: u64,
    ended: Vec<(u64, HexId)>,
    next_id: u64,
    turns: Vec<(HexId, u32, u32)>,
    #[serde(default)]
    untold: Vec<HexId>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hour: Vec<(u64, u64)>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hour_limits: Vec<HourText>,
}

/// Namespace; limit of messages in an hour; messages by time.
type HourText = (u32, u32, Vec<(u64, u64)>);

/// Name; limits of messages, recipients and connections; recipients by time; throttle.
type NamespaceText = (String, (u32, u32, u32), Vec<(u64, u64)>, Option<(u64, f64)>);

/// A sidecar's id in JSON, whose numbers are not wide enough.
#[derive(Clone, Copy, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
struct HexId(SidecarId);

impl TryFrom<String> for HexId {
    type Error = std::num::ParseIntError;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        Ok(Self(SidecarId(u64::from_str_radix(&text, 16)?)))
    }
}

impl From<HexId> for String {
    fn from(HexId(SidecarId(number)): HexId) -> Self {
        format!("{number:x}")
    }
}

impl LedgerRecord {
    /// The text.
    pub fn print(&self) -> String {
        let counted = |counted: &[(Duration, u64)]| counted.iter().map(|&(at, n)| (millis(at), n)).collect();
        let lease = |&(id, lease): &(u64, IssuedLease)| {
            let Amount { messages, recipients } = lease.amount;
            (id, HexId(lease.holder), lease.instance, messages, recipients, millis(lease.until))
        };
        let preallocation =
            |it: &Preallocation| (HexId(it.holder), it.instance, it.amount.messages, it.amount.recipients);
        let namespace = |it: &NamespaceRecord| {
            let MailboxLimits { messages, recipients, connections, .. } = it.limits;
            let throttle = it.throttle.map(|last| (millis(last.at), last.share));
            (it.name.to_string(), (messages, recipients, connections), counted(&it.day), throttle)
        };
        let hour = |(it, place): (&NamespaceRecord, u32)| {
            let limit = it.limits.messages_per_hour;
            (limit < NO_LIMIT).then(|| (place, limit, counted(&it.hour)))
        };
        let text = RecordText {
            version: VERSION,
            namespaces: self.namespaces.iter().map(namespace).collect(),
            homes: self.members.iter().map(|&(who, place)| (HexId(who), place)).collect(),
            minute: counted(&self.minute),
            day: counted(&self.day),
            leases: self.leases.iter().map(lease).collect(),
            ahead: self.preallocated.iter().map(preallocation).collect(),
            ahead_until: millis(self.preallocated_until),
            ended: self.ended.iter().map(|&(id, who)| (id, HexId(who))).collect(),
            next_id: self.next_id,
            turns: self.slots.iter().map(|&(who, slots)| (HexId(who), slots.index, slots.of)).collect(),
            untold: self.unacknowledged.iter().copied().map(HexId).collect(),
            hour: counted(&self.hour),
            hour_limits: self.namespaces.iter().zip(0..).filter_map(hour).collect(),
        };
        serde_json::to_string(&text).expect("plain data serialises")
    }

    /// Reads a text; nothing if this version did not write it.
    pub fn parse(text: &str) -> Option<Self> {
        let text: RecordText = serde_json::from_str(text).ok()?;
        if text.version != VERSION {
            return None;
        }
        let counted = |counted: Vec<(u64, u64)>| {
            let mut counted: Vec<_> = counted.into_iter().map(|(at, n)| (time(at), n)).collect();
            counted.sort_unstable();
            counted
        };
        let lease = |(id, HexId(holder), instance, messages, recipients, until)| {
            let amount = Amount { messages, recipients };
            let until = time(until);
            (id, IssuedLease { holder, instance, amount, sequence: u64::MAX, until, since: until })
        };
        let preallocation = |(HexId(holder), instance, messages, recipients)| Preallocation {
            holder,
            instance,
            amount: Amount { messages, recipients },
        };
        let slots = text.turns.into_iter().map(|(HexId(who), index, of)| {
            let slots = SlotAssignment { index, of };
            slots.is_valid().then_some((who, slots))
        });
        let namespace =
            |(name, (messages, recipients, connections), day, throttle): (String, _, _, Option<_>)| {
                NamespaceRecord {
                    name: name.into(),
                    limits: MailboxLimits { messages, messages_per_hour: NO_LIMIT, recipients, connections },
                    hour: vec![],
                    day: counted(day),
                    throttle: throttle.map(|(at, share)| LastThrottle { at: time(at), share }),
                }
            };
        let mut namespaces: Vec<NamespaceRecord> = text.namespaces.into_iter().map(namespace).collect();
        for (place, limit, hour) in text.hour_limits {
            let namespace = namespaces.get_mut(place as usize)?;
            namespace.limits.messages_per_hour = limit;
            namespace.hour = counted(hour);
        }
        let members: Vec<_> = text.homes.into_iter().map(|(HexId(who), place)| (who, place)).collect();
        if members.iter().any(|(_, place)| *place as usize >= namespaces.len()) {
            return None;
        }
        Some(Self {
            namespaces,
            members,
            minute: counted(text.minute),
            hour: counted(text.hour),
            day: counted(text.day),
            leases: text.leases.into_iter().map(lease).collect(),
            preallocated: text.ahead.into_iter().map(preallocation).collect(),
            preallocated_until: time(text.ahead_until),
            ended: text.ended.into_iter().map(|(id, HexId(who))| (id, who)).collect(),
            next_id: text.next_id,
            slots: slots.collect::<Option<_>>()?,
            unacknowledged: text.untold.into_iter().map(|HexId(who)| who).collect(),
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

    fn sample() -> LedgerRecord {
        let (holder, amount) = (SidecarId(u64::MAX), Amount { messages: 2, recipients: 7 });
        let at = Duration::from_millis(1_800_000_000_123);
        let limits = MailboxLimits { messages_per_hour: 100, ..MailboxLimits::PUBLISHED };
        let namespace = NamespaceRecord {
            name: "shop".into(),
            limits,
            hour: vec![(at, 4)],
            day: vec![(at, 12)],
            throttle: Some(LastThrottle { at, share: 0.5 }),
        };
        LedgerRecord {
            namespaces: vec![namespace],
            members: vec![(holder, 0)],
            minute: vec![(at, 3)],
            hour: vec![(at, 5)],
            day: vec![(at, 12)],
            leases: vec![(
                9,
                IssuedLease { holder, instance: 5, amount, sequence: u64::MAX, until: at, since: at },
            )],
            preallocated: vec![Preallocation { holder, instance: 5, amount }],
            preallocated_until: at,
            ended: vec![(8, holder)],
            next_id: 1009,
            slots: vec![(holder, SlotAssignment { index: 3, of: 8 })],
            unacknowledged: vec![holder],
        }
    }

    #[test]
    fn what_is_printed_is_read_back() {
        assert_eq!(LedgerRecord::parse(&sample().print()), Some(sample()));
    }

    #[test]
    fn a_mailbox_without_a_limit_of_the_hour_has_the_text_of_earlier_releases() {
        let mut record = sample();
        record.hour.clear();
        record.namespaces[0].hour.clear();
        record.namespaces[0].limits.messages_per_hour = NO_LIMIT;
        let text = record.print();
        assert_eq!(
            text,
            r#"{"version":1,"namespaces":[["shop",[30,10000,3],[[1800000000123,12]],[1800000000123,0.5]]],"homes":[["ffffffffffffffff",0]],"minute":[[1800000000123,3]],"day":[[1800000000123,12]],"leases":[[9,"ffffffffffffffff",5,2,7,1800000000123]],"ahead":[["ffffffffffffffff",5,2,7]],"aheadUntil":1800000000123,"ended":[[8,"ffffffffffffffff"]],"nextId":1009,"turns":[["ffffffffffffffff",3,8]],"untold":["ffffffffffffffff"]}"#
        );
        assert_eq!(LedgerRecord::parse(&text), Some(record));
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
            assert_eq!(LedgerRecord::parse(&other), None, "{other}");
        }
    }
}
