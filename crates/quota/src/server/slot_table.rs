//! Which sidecar owns which time slots. No two own the same slot, whatever message is lost.
//!
//! A sidecar owns every `of`th slot, `of` being a power of two, so that an assignment can be halved when there are more sidecars. The
//! half that an owner is told to give up stays reserved for it until it acknowledges: the message may not have arrived.

use std::collections::BTreeMap;

use super::limits::SidecarId;
use crate::wire::SlotAssignment;

/// The longest frame. Sidecars beyond this number have no slots and wait for the operator.
const LONGEST_FRAME: u32 = 4096;

#[derive(Clone, Copy, Debug)]
struct SlotEntry {
    /// What its owner may believe to own.
    held: SlotAssignment,
    /// What its owner is offered.
    offered: SlotAssignment,
    /// Whether that is stored.
    persisted: bool,
    /// Whether its owner has said that it has slots, so that it has had an answer.
    acknowledged: bool,
}

/// The owners of time slots.
#[derive(Clone, Debug, Default)]
pub struct SlotTable {
    entries: BTreeMap<SidecarId, SlotEntry>,
}

impl SlotTable {
    /// The table as it was stored.
    pub fn restored(stored: impl IntoIterator<Item = (SidecarId, SlotAssignment)>) -> Self {
        let entry = |held| SlotEntry { held, offered: held, persisted: true, acknowledged: true };
        Self { entries: stored.into_iter().map(|(who, held)| (who, entry(held))).collect() }
    }

    /// Notes whether a sidecar says that it has slots.
    pub fn set_acknowledged(&mut self, who: SidecarId, acknowledged: bool) {
        if let Some(entry) = self.entries.get_mut(&who) {
            entry.acknowledged = acknowledged;
        }
    }

    /// Whether a sidecar has said that it has slots.
    pub fn has_acknowledged(&self, who: SidecarId) -> bool {
        self.entries.get(&who).is_some_and(|entry| entry.acknowledged)
    }

    /// Owners that have not said so.
    pub fn unacknowledged(&self) -> impl Iterator<Item = SidecarId> + '_ {
        self.entries.iter().filter(|(_, entry)| !entry.acknowledged).map(|(who, _)| *who)
    }

    /// What has to be stored.
    pub fn assignments(&self) -> impl Iterator<Item = (SidecarId, SlotAssignment)> + '_ {
        self.entries.iter().map(|(who, entry)| (*who, entry.held))
    }

    /// What a sidecar may believe to own.
    pub fn assignment(&self, who: SidecarId) -> Option<SlotAssignment> {
        self.entries.get(&who).map(|entry| entry.held)
    }

    /// All owners.
    pub fn owners(&self) -> impl Iterator<Item = SidecarId> + '_ {
        self.entries.keys().copied()
    }

    /// Whether a sidecar owns slots.
    pub fn owns(&self, who: SidecarId) -> bool {
        self.entries.contains_key(&who)
    }

    /// Notes that these assignments are stored.
    pub fn persisted(&mut self, stored: &[(SidecarId, SlotAssignment)]) {
        for (who, held) in stored {
            if let Some(entry) = self.entries.get_mut(who).filter(|entry| entry.held == *held) {
                entry.persisted = true;
            }
        }
    }

    /// Frees the slots of a sidecar.
    pub fn release(&mut self, who: SidecarId) {
        self.entries.remove(&who);
    }

    /// Assigns slots to a sidecar, one of this many. `known` is what it says that it owns. Returns whether there is
    /// something new to store.
    pub fn assign(&mut self, who: SidecarId, known: Option<SlotAssignment>, sidecars: usize) -> bool {
        let sidecars = u32::try_from(sidecars.max(1)).unwrap_or(LONGEST_FRAME);
        let of = sidecars.min(LONGEST_FRAME).next_power_of_two();
        let Some(entry) = self.entries.get_mut(&who) else {
            let Some(index) = self.free(of, None) else { return false };
            let held = SlotAssignment { index, of };
            self.entries
                .insert(who, SlotEntry { held, offered: held, persisted: false, acknowledged: false });
            return true;
        };
        if known == Some(entry.offered) && entry.held != entry.offered {
            entry.held = entry.offered;
            return true;
        }
        if entry.offered.of < of {
            entry.offered.of = of;
            return false;
        }
        if entry.held.of > 2 * of && self.free(of, Some(who)).is_some() {
            return self.widen(who, of);
        }
        false
    }

    /// What to offer a sidecar; nothing before it is stored.
    pub fn offered(&self, who: SidecarId) -> Option<SlotAssignment> {
        self.entries.get(&who).filter(|entry| entry.persisted).map(|entry| entry.offered)
    }

    /// With fewer sidecars: assigns more slots, including the present ones, unless another sidecar owns one of them.
    fn widen(&mut self, who: SidecarId, of: u32) -> bool {
        let taken = self.taken(of, Some(who));
        let Some(entry) = self.entries.get_mut(&who) else { return false };
        let index = entry.held.index % of;
        if taken.get(index as usize) != Some(&false) {
            return false;
        }
        let held = SlotAssignment { index, of };
        *entry = SlotEntry { held, offered: held, persisted: false, acknowledged: entry.acknowledged };
        true
    }

    fn free(&self, of: u32, except: Option<SidecarId>) -> Option<u32> {
        let free = self.taken(of, except).iter().position(|taken| !taken)?;
        u32::try_from(free).ok()
    }

    /// Which slots of a frame of `of` another sidecar owns, at least now and then.
    fn taken(&self, of: u32, except: Option<SidecarId>) -> Vec<bool> {
        let mut taken = vec![false; of as usize];
        for (_, SlotEntry { held, .. }) in self.entries.iter().filter(|(who, _)| Some(**who) != except) {
            let step = held.of.min(of) as usize;
            taken.iter_mut().skip(held.index as usize % step).step_by(step).for_each(|it| *it = true);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collide(a: SlotAssignment, b: SlotAssignment) -> bool {
        let of = a.of.min(b.of);
        a.index % of == b.index % of
    }

    /// Asserts that no two sidecars believe to own the same slot.
    fn assert_apart(believed: &BTreeMap<SidecarId, SlotAssignment>) {
        for (one, a) in believed {
            for (other, b) in believed.iter().filter(|(other, _)| *other != one) {
                assert!(!collide(*a, *b), "{one:?} {a:?} and {other:?} {b:?}");
            }
        }
    }

    #[test]
    fn no_two_own_a_slice_whatever_words_are_lost_and_all_get_some_in_the_end() {
        let (mut table, mut believed) = (SlotTable::default(), BTreeMap::new());
        let mut random = 7_u64;
        for round in 0..12_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = if round < 6_000 { 5 + round / 100 } else { 40 };
            let who = SidecarId(random >> 33).0 % number;
            let who = SidecarId(who);
            if random & 0xff == 3 {
                table.release(who);
                believed.remove(&who);
                continue;
            }
            table.assign(who, believed.get(&who).copied(), usize::try_from(number).unwrap());
            if random & 0xf00 != 0 {
                let stored: Vec<_> = table.assignments().collect();
                table.persisted(&stored);
            }
            // One message in four is lost.
            if let Some(told) = table.offered(who).filter(|_| random & 0x3000 != 0) {
                believed.insert(who, told);
            }
            assert_apart(&believed);
        }
        assert!(believed.len() >= 35, "{}", believed.len());
    }

    #[test]
    fn what_is_restored_stays_with_its_owner() {
        let mut table = SlotTable::default();
        for n in 0..5 {
            table.assign(SidecarId(n), None, 5);
        }
        let mut again = SlotTable::restored(table.assignments());
        assert!(!again.assign(SidecarId(3), None, 5));
        assert_eq!(again.offered(SidecarId(3)), Some(SlotAssignment { index: 3, of: 8 }));
    }

    #[test]
    fn nothing_is_offered_before_it_is_stored() {
        let mut table = SlotTable::default();
        assert!(table.assign(SidecarId(1), None, 1));
        assert_eq!(table.offered(SidecarId(1)), None);
        table.persisted(&[(SidecarId(2), SlotAssignment { index: 0, of: 1 })]);
        assert_eq!(table.offered(SidecarId(1)), None);
        let stored: Vec<_> = table.assignments().collect();
        table.persisted(&stored);
        assert!(table.offered(SidecarId(1)).is_some());
    }
}
