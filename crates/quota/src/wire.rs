//! The messages between sidecar and operator: a [`Claim`] in each report, an [`Allotment`] in each reply.
//!
//! Lengths of time, never moments, as clocks differ. Each side counts them so that it errs on the safe side: the sidecar from when it
//! sent the claim, the operator from when it answers. Names in JSON stay as they were first published; sidecars of other releases
//! read them.

use serde::{Deserialize, Serialize};

/// Most leases that one claim names. A sidecar with this many unconfirmed leases asks for no more.
pub const MAX_LEASES: usize = 32;

/// What a sidecar asks of its mailbox's limits, and what it did with its leases.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Which run of the sidecar's process this is: milliseconds since the Unix epoch at its start. Earlier runs have ended.
    pub instance: u64,
    /// Grows with each claim of one run. The operator ignores a claim that arrives after a later one.
    pub sequence: u64,
    /// The mailbox that the sidecar sends as. While the route names another one, nothing is leased.
    #[serde(default)]
    pub mailbox: String,
    /// Messages that wait for a permit now.
    #[serde(default)]
    pub messages: u32,
    /// Recipients of the waiting message that has most.
    #[serde(default)]
    pub recipients: u32,
    /// A connection is wanted to check the upstream without a message.
    #[serde(default)]
    pub probe: bool,
    /// How long something has waited since the last lease, milliseconds.
    #[serde(default)]
    pub waited_millis: u64,
    /// What Microsoft throttled since the last claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub throttled: Option<Throttled>,
    /// Every lease whose end is not confirmed, at most [`MAX_LEASES`]. A lease that was granted and is not named was not received.
    #[serde(default)]
    pub leases: Vec<LeaseUse>,
    /// The time slots that the sidecar would use without contact.
    #[serde(default, rename = "turn", skip_serializing_if = "Option::is_none")]
    pub slot_assignment: Option<SlotAssignment>,
    /// Recipients that Microsoft may have counted in time slots since the last exchange.
    #[serde(default, rename = "aloneRecipients")]
    pub slot_recipients: u32,
    /// Messages of them.
    #[serde(default, rename = "aloneMessages", skip_serializing_if = "is_zero")]
    pub slot_messages: u32,
    /// No time slot was used that is still in a window.
    #[serde(default, rename = "noTurnsTaken")]
    pub no_slots_used: bool,
    /// The sidecar stops: what it has not used is free.
    #[serde(default)]
    pub leaving: bool,
}

/// What Microsoft found too much.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Throttled {
    /// Messages a minute: `421 4.4.2 Message submission rate …`.
    Rate,
    /// Connections at a time: `432 4.3.2 Concurrent connections limit exceeded`.
    Connections,
}

impl Throttled {
    /// Every value.
    pub const ALL: [Self; 2] = [Self::Rate, Self::Connections];

    /// The name in metrics and logs.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Connections => "connections",
        }
    }
}

/// What became of a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LeaseUse {
    /// Its number.
    pub id: u64,
    /// Messages that it allowed.
    pub messages: u32,
    /// Recipients that it allowed.
    pub recipients: u32,
    /// Nothing is being sent under it, and nothing more will be. The fields below are final.
    #[serde(default)]
    pub ended: bool,
    /// Messages that Microsoft may have counted.
    #[serde(default)]
    pub used_messages: u32,
    /// Recipients that Microsoft may have counted.
    #[serde(default)]
    pub used_recipients: u32,
    /// How long ago the last of them was certainly counted, milliseconds.
    #[serde(default)]
    pub age_millis: u64,
}

/// What a sidecar may do with its mailbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Allotment {
    /// A new lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<Lease>,
    /// Why there is none although the claim asked for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub short_of: Option<ShortOf>,
    /// When to make the next exchange, milliseconds from now. Sooner when there is something new to ask for or to give back.
    pub again_millis: u64,
    /// Leases whose end is stored; the sidecar need not name them again.
    #[serde(default)]
    pub confirmed: Vec<u64>,
    /// How long after the last exchange the sidecar aborts what it is sending, milliseconds.
    pub cut_millis: u64,
    /// The time slots to use when no exchange succeeds any more. Absent: none.
    #[serde(default, rename = "alone", skip_serializing_if = "Option::is_none")]
    pub slots: Option<TimeSlots>,
}

/// Permission to send some messages over one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Lease {
    /// Its number, unique for the mailbox.
    pub id: u64,
    /// Messages; zero for a probe, which sends none.
    pub messages: u32,
    /// Recipients of all messages together.
    pub recipients: u32,
    /// How long after the claim a message may still begin, milliseconds.
    pub valid_millis: u64,
}

/// Which limit is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum ShortOf {
    /// Messages a minute, or others are first in the queue for them.
    Messages,
    /// Recipients a day.
    Recipients,
    /// Connections at a time.
    Connections,
}

/// Every `of`th time slot, starting at `index`. An array of the two in JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "(u32, u32)", into = "(u32, u32)")]
pub struct SlotAssignment {
    /// Which slot of the frame, below `of`.
    pub index: u32,
    /// Slots in a frame, a power of two.
    pub of: u32,
}

impl SlotAssignment {
    /// Whether the numbers make sense together.
    pub const fn is_valid(&self) -> bool {
        self.of.is_power_of_two() && self.index < self.of
    }
}

impl From<(u32, u32)> for SlotAssignment {
    fn from((index, of): (u32, u32)) -> Self {
        Self { index, of }
    }
}

impl From<SlotAssignment> for (u32, u32) {
    fn from(SlotAssignment { index, of }: SlotAssignment) -> Self {
        (index, of)
    }
}

/// The time slots of a sidecar without contact. Time since the Unix epoch is divided into slots; the sidecar owns one in each frame
/// of `of` slots and may send some messages in it over one connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TimeSlots {
    /// Which slot of the frame, below `of`.
    pub index: u32,
    /// Slots in a frame, a power of two.
    pub of: u32,
    /// Length of a slot, milliseconds.
    #[serde(rename = "sliceMillis")]
    pub slot_millis: u64,
    /// Messages in each slot.
    pub messages: u32,
    /// Milliseconds after the slot's start at which the first message may begin,
    pub begin_millis: u64,
    /// the last may begin,
    pub last_millis: u64,
    /// and every message is aborted.
    pub cut_millis: u64,
    /// How long after the last exchange the first slot may be used, milliseconds.
    pub after_millis: u64,
    /// Recipients in any day, all slots together.
    pub recipients: u32,
    /// Messages in any hour, all slots together. Absent: no such limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub messages_per_hour: Option<u32>,
}

/// Whether to leave a number out.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
const fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_json_stay_as_published() {
        let slots = TimeSlots {
            index: 3,
            of: 8,
            slot_millis: 60_000,
            messages: 1,
            begin_millis: 4000,
            last_millis: 30_000,
            cut_millis: 56_000,
            after_millis: 189_000,
            recipients: 5,
            messages_per_hour: None,
        };
        let allotment = Allotment { slots: Some(slots), ..Allotment::default() };
        let claim = Claim { slot_assignment: Some(slots.assignment()), ..Claim::default() };
        assert_eq!(
            serde_json::to_string(&allotment).unwrap(),
            r#"{"againMillis":0,"confirmed":[],"cutMillis":0,"alone":{"index":3,"of":8,"sliceMillis":60000,"messages":1,"beginMillis":4000,"lastMillis":30000,"cutMillis":56000,"afterMillis":189000,"recipients":5}}"#
        );
        assert_eq!(
            serde_json::to_string(&claim).unwrap(),
            r#"{"instance":0,"sequence":0,"mailbox":"","messages":0,"recipients":0,"probe":false,"waitedMillis":0,"leases":[],"turn":[3,8],"aloneRecipients":0,"noTurnsTaken":false,"leaving":false}"#
        );
        assert_eq!(serde_json::from_str::<Claim>(&serde_json::to_string(&claim).unwrap()).unwrap(), claim);
    }
}
