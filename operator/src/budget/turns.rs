//! The turns of sidecars that reach nobody: time is cut into slices, and no two sidecars own the same one.
//!
//! A sidecar owns every `of`th slice, a power of two, so that a class of slices can be halved when there are more sidecars. A
//! half that somebody has been told to give up stays theirs until they say that they know: the word may not have reached them.

use std::collections::BTreeMap;

use super::Holder;

/// Every `of`th slice from `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Class {
    /// Below `of`.
    pub index: u32,
    /// A power of two.
    pub of: u32,
}

impl Class {
    /// What a sidecar or a record says, if it makes sense.
    pub fn new(index: u32, of: u32) -> Option<Self> {
        (of.is_power_of_two() && index < of).then_some(Self { index, of })
    }
}

#[derive(Clone, Copy, Debug)]
struct Owned {
    /// What its owner may believe to own.
    class: Class,
    /// What its owner is told.
    told: Class,
    /// Whether that is written down.
    written: bool,
    /// Whether its owner has said that it has turns, so that it has been answered.
    knows: bool,
}

/// Most classes: more sidecars than this have none, and wait for the operator.
const MOST: u32 = 4096;

/// Who owns which slices.
#[derive(Clone, Debug, Default)]
pub struct Turns {
    owned: BTreeMap<Holder, Owned>,
}

impl Turns {
    /// As written down.
    pub fn restored(classes: impl IntoIterator<Item = (Holder, Class)>) -> Self {
        let owned = |class| Owned { class, told: class, written: true, knows: true };
        Self { owned: classes.into_iter().map(|(holder, class)| (holder, owned(class))).collect() }
    }

    /// Somebody says whether it has turns.
    pub fn says(&mut self, who: Holder, knows: bool) {
        if let Some(owned) = self.owned.get_mut(&who) {
            owned.knows = knows;
        }
    }

    /// Whether somebody is known to know of turns.
    pub fn knows(&self, who: Holder) -> bool {
        self.owned.get(&who).is_some_and(|owned| owned.knows)
    }

    /// Owners who may not know that they are.
    pub fn untold(&self) -> impl Iterator<Item = Holder> + '_ {
        self.owned.iter().filter(|(_, owned)| !owned.knows).map(|(holder, _)| *holder)
    }

    /// What has to be written down.
    pub fn classes(&self) -> impl Iterator<Item = (Holder, Class)> + '_ {
        self.owned.iter().map(|(holder, owned)| (*holder, owned.class))
    }

    /// What somebody may believe to own.
    pub fn class(&self, who: Holder) -> Option<Class> {
        self.owned.get(&who).map(|owned| owned.class)
    }

    /// Everybody who owns any.
    pub fn owners(&self) -> impl Iterator<Item = Holder> + '_ {
        self.owned.keys().copied()
    }

    /// Whether somebody owns any.
    pub fn owns(&self, who: Holder) -> bool {
        self.owned.contains_key(&who)
    }

    /// This is written down.
    pub fn written(&mut self, classes: &[(Holder, Class)]) {
        for (holder, class) in classes {
            if let Some(owned) = self.owned.get_mut(holder).filter(|owned| owned.class == *class) {
                owned.written = true;
            }
        }
    }

    /// Somebody needs none any more.
    pub fn release(&mut self, who: Holder) {
        self.owned.remove(&who);
    }

    /// Gives somebody a class, among so many sidecars. `known` is the one that they say they know. Says whether there is
    /// something new to write down.
    pub fn assign(&mut self, who: Holder, known: Option<Class>, sidecars: usize) -> bool {
        let of = u32::try_from(sidecars.max(1)).unwrap_or(MOST).min(MOST).next_power_of_two();
        let Some(owned) = self.owned.get_mut(&who) else {
            let Some(index) = self.free(of, None) else { return false };
            let class = Class { index, of };
            self.owned.insert(who, Owned { class, told: class, written: false, knows: false });
            return true;
        };
        if known == Some(owned.told) && owned.class != owned.told {
            owned.class = owned.told;
            return true;
        }
        if owned.told.of < of {
            owned.told.of = of;
            return false;
        }
        if owned.class.of > 2 * of && self.free(of, Some(who)).is_some() {
            return self.widen(who, of);
        }
        false
    }

    /// What somebody is told; nothing before it is written down.
    pub fn told(&self, who: Holder) -> Option<Class> {
        self.owned.get(&who).filter(|owned| owned.written).map(|owned| owned.told)
    }

    /// Fewer sidecars: a class that contains the present one, if nobody else owns of it.
    fn widen(&mut self, who: Holder, of: u32) -> bool {
        let taken = self.taken(of, Some(who));
        let Some(owned) = self.owned.get_mut(&who) else { return false };
        let index = owned.class.index % of;
        if taken.get(index as usize) != Some(&false) {
            return false;
        }
        let class = Class { index, of };
        *owned = Owned { class, told: class, written: false, knows: owned.knows };
        true
    }

    fn free(&self, of: u32, but: Option<Holder>) -> Option<u32> {
        let free = self.taken(of, but).iter().position(|taken| !taken)?;
        u32::try_from(free).ok()
    }

    /// Which of `of` classes somebody owns a part of.
    fn taken(&self, of: u32, but: Option<Holder>) -> Vec<bool> {
        let mut taken = vec![false; of as usize];
        for (_, Owned { class, .. }) in self.owned.iter().filter(|(holder, _)| Some(**holder) != but) {
            let step = class.of.min(of) as usize;
            taken.iter_mut().skip(class.index as usize % step).step_by(step).for_each(|it| *it = true);
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn collide(a: Class, b: Class) -> bool {
        let of = a.of.min(b.of);
        a.index % of == b.index % of
    }

    /// What each believes to own, after they were told what they could be told.
    fn assert_apart(believed: &BTreeMap<Holder, Class>) {
        for (one, a) in believed {
            for (other, b) in believed.iter().filter(|(other, _)| *other != one) {
                assert!(!collide(*a, *b), "{one:?} {a:?} and {other:?} {b:?}");
            }
        }
    }

    #[test]
    fn no_two_own_a_slice_whatever_words_are_lost_and_all_get_some_in_the_end() {
        let (mut turns, mut believed) = (Turns::default(), BTreeMap::new());
        let mut random = 7_u64;
        for round in 0..12_000_u64 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            let number = if round < 6_000 { 5 + round / 100 } else { 40 };
            let who = Holder(random >> 33).0 % number;
            let who = Holder(who);
            if random & 0xff == 3 {
                turns.release(who);
                believed.remove(&who);
                continue;
            }
            turns.assign(who, believed.get(&who).copied(), usize::try_from(number).unwrap());
            if random & 0xf00 != 0 {
                let classes: Vec<_> = turns.classes().collect();
                turns.written(&classes);
            }
            // One word in four is lost.
            if let Some(told) = turns.told(who).filter(|_| random & 0x3000 != 0) {
                believed.insert(who, told);
            }
            assert_apart(&believed);
        }
        assert!(believed.len() >= 35, "{}", believed.len());
    }

    #[test]
    fn what_is_restored_stays_with_its_owner() {
        let mut turns = Turns::default();
        for n in 0..5 {
            turns.assign(Holder(n), None, 5);
        }
        let mut again = Turns::restored(turns.classes());
        assert!(!again.assign(Holder(3), None, 5));
        assert_eq!(again.told(Holder(3)), Some(Class { index: 3, of: 8 }));
    }

    #[test]
    fn nobody_is_told_before_it_is_written_down() {
        let mut turns = Turns::default();
        assert!(turns.assign(Holder(1), None, 1));
        assert_eq!(turns.told(Holder(1)), None);
        turns.written(&[(Holder(2), Class { index: 0, of: 1 })]);
        assert_eq!(turns.told(Holder(1)), None);
        let classes: Vec<_> = turns.classes().collect();
        turns.written(&classes);
        assert!(turns.told(Holder(1)).is_some());
    }
}
