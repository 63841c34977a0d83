//! The rules of a route on header fields by name (`spec.headers`), and what became of each for one message.
//!
//! A field that a signature of the message covers stays as it is, since the signature would break; that is counted and logged. Only where
//! a signature comes too late, far behind a field that was removed, it is broken, which is told as well.

use mailroute_route::RouteFile;
use mailroute_route::header::is_changeable;

/// The rules. The default has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldRules(Vec<FieldRule>);

/// What happens to the fields of one name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldRule {
    /// The name, as it is written.
    pub name: Box<str>,
    /// What one field of the name says in place of all others. None: there is none.
    pub value: Option<Box<str>>,
}

/// What became of the fields of one rule.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FieldFate {
    /// So many were removed.
    pub removed: u32,
    /// One was left because a signature covers it.
    pub kept: bool,
    /// A signature covers fields of the name.
    pub covered: bool,
}

/// What the rules did to one message, in rules.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Fields that were removed, and are not set.
    pub removed: u32,
    /// Fields that were set.
    pub set: u32,
    /// Names that a signature covers, so that nothing was changed.
    pub kept: u32,
    /// Names that a signature covers which came too late.
    pub broken: u32,
}

impl FieldRules {
    /// The rules of a route.
    pub fn of(route: &RouteFile) -> Self {
        let Some(headers) = &route.headers else { return Self::default() };
        let removed = headers.remove.iter().map(|name| (name, None));
        let set = headers.set.iter().map(|field| (&field.name, Some(field.value.as_str().into())));
        let changeable = removed.chain(set).filter(|(name, _)| is_changeable(name));
        Self::new(changeable.map(|(name, value)| FieldRule { name: name.as_str().into(), value }))
    }

    /// These rules.
    pub fn new(rules: impl IntoIterator<Item = FieldRule>) -> Self {
        Self(rules.into_iter().collect())
    }

    /// These and one more.
    #[must_use]
    pub fn and(mut self, rule: FieldRule) -> Self {
        self.0.push(rule);
        self
    }

    /// Whether nothing is to be done.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many names have a rule.
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    /// The rule on fields of this name.
    pub fn position(&self, name: &[u8]) -> Option<usize> {
        self.0.iter().position(|rule| name.eq_ignore_ascii_case(rule.name.as_bytes()))
    }

    /// The fields to put in: of those that are set, all but the ones that a signature keeps.
    pub fn added<'r>(&'r self, fates: &'r [FieldFate]) -> impl Iterator<Item = (&'r str, &'r str)> {
        self.with(fates).filter(|(_, fate)| !fate.is_kept()).filter_map(|(rule, _)| {
            let value = rule.value.as_deref()?;
            Some((&*rule.name, value))
        })
    }

    /// What was done, in numbers.
    pub fn applied(&self, fates: &[FieldFate]) -> Applied {
        let mut applied = Applied::default();
        for (rule, fate) in self.with(fates) {
            match rule.value {
                None => applied.removed += fate.removed,
                Some(_) => applied.set += u32::from(!fate.is_kept()),
            }
            applied.kept += u32::from(fate.is_kept() && (fate.kept || rule.value.is_some()));
            applied.broken += u32::from(fate.covered && !fate.is_kept());
        }
        applied
    }

    /// The names whose rule was not applied, or broke a signature.
    pub fn covered<'r>(&'r self, fates: &'r [FieldFate]) -> impl Iterator<Item = &'r str> {
        let was_met = |rule: &FieldRule, fate: FieldFate| {
            fate.covered && (fate.kept || fate.removed > 0 || rule.value.is_some())
        };
        self.with(fates).filter(move |&(rule, fate)| was_met(rule, fate)).map(|(rule, _)| &*rule.name)
    }

    fn with<'r>(&'r self, fates: &'r [FieldFate]) -> impl Iterator<Item = (&'r FieldRule, FieldFate)> {
        self.0.iter().enumerate().map(|(at, rule)| (rule, fates.get(at).copied().unwrap_or_default()))
    }
}

impl FieldFate {
    /// Whether a signature keeps the field from being changed.
    const fn is_kept(self) -> bool {
        self.covered && self.removed == 0
    }

    /// Whether a field that was met goes, which is noted.
    pub(super) fn takes(&mut self) -> bool {
        let is_kept = self.is_kept();
        if is_kept {
            self.kept = true;
        } else {
            self.removed = self.removed.saturating_add(1);
        }
        !is_kept
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules() -> FieldRules {
        let rule =
            |name: &str, value: Option<&str>| FieldRule { name: name.into(), value: value.map(Into::into) };
        FieldRules::new([rule("X-Mailer", None), rule("Auto-Submitted", Some("auto-generated"))])
    }

    #[test]
    fn names_are_compared_without_regard_to_case() {
        assert_eq!((rules().position(b"x-mAILER"), rules().position(b"X-Mailer2")), (Some(0), None));
    }

    #[test]
    fn what_a_signature_covers_is_not_set() {
        let fate = |removed, kept, covered| FieldFate { removed, kept, covered };
        let none = fate(0, false, false);
        for (fates, added, expected) in [
            ([none, none], 1, Applied { set: 1, ..Applied::default() }),
            (
                [fate(2, false, false), fate(1, false, false)],
                1,
                Applied { removed: 2, set: 1, ..Applied::default() },
            ),
            ([fate(0, true, true), fate(0, false, true)], 0, Applied { kept: 2, ..Applied::default() }),
            ([fate(0, false, true), none], 1, Applied { set: 1, ..Applied::default() }),
            (
                [fate(1, true, true), fate(1, false, true)],
                1,
                Applied { removed: 1, set: 1, kept: 0, broken: 2 },
            ),
        ] {
            assert_eq!(rules().added(&fates).count(), added, "{fates:?}");
            assert_eq!(rules().applied(&fates), expected, "{fates:?}");
        }
        let covered = [fate(0, true, true), fate(0, false, true)];
        assert_eq!(rules().covered(&covered).collect::<Vec<_>>(), ["X-Mailer", "Auto-Submitted"]);
        assert_eq!(rules().covered(&[fate(0, false, true), none]).count(), 0, "there was none");
    }
}
