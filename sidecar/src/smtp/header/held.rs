//! A header from the first field that is changed, until it is known which fields signatures cover; and how fields are changed.

use super::line::split_field;
use super::{MAX_HELD_BYTES, Pass, Place, signature};
use crate::smtp::encoded_word;

/// Most changes that wait.
const MAX_CHANGES: usize = 256;

/// Octets that wait, and the changes to them.
#[derive(Clone, Debug, Default)]
pub(super) struct Held {
    raw: Vec<u8>,
    changes: Vec<Change>,
}

/// A field and what it becomes.
#[derive(Clone, Debug)]
struct Change {
    start: usize,
    len: usize,
    to: Changed,
}

/// What a field becomes.
#[derive(Clone, Debug)]
pub(super) enum Changed {
    /// The same, with raw UTF-8 encoded.
    Encoded(Vec<u8>),
    /// Nothing, by this rule.
    Removed(usize),
}

impl Held {
    /// Octets that pass as they are.
    pub(super) fn push(&mut self, octets: &[u8]) {
        self.raw.extend_from_slice(octets);
    }

    /// A field that is changed.
    pub(super) fn change(&mut self, field: &[u8], to: Changed) {
        self.changes.push(Change { start: self.raw.len(), len: field.len(), to });
        self.push(field);
    }

    /// Octets that it takes.
    #[cfg(test)]
    pub(super) fn octets(&self) -> usize {
        let encoded = self.changes.iter().map(|change| match &change.to {
            Changed::Encoded(encoded) => encoded.len(),
            Changed::Removed(_) => 0,
        });
        self.raw.len() + encoded.sum::<usize>()
    }

    /// Whether no more can wait.
    pub(super) fn is_full(&self) -> bool {
        self.raw.len() > MAX_HELD_BYTES || self.changes.len() >= MAX_CHANGES
    }

    /// Appends everything to `message`, with the changes that `applies` wants.
    pub(super) fn release(self, message: &mut Vec<u8>, mut applies: impl FnMut(&Changed) -> bool) {
        let mut at = 0;
        for Change { start, len, to } in self.changes {
            if !applies(&to) {
                continue;
            }
            message.extend_from_slice(&self.raw[at..start]);
            if let Changed::Encoded(encoded) = to {
                message.extend_from_slice(&encoded);
            }
            at = start + len;
        }
        message.extend_from_slice(&self.raw[at..]);
    }
}

impl Pass {
    /// A field becomes longer than can be held back. One that is to be removed cannot wait for a signature.
    pub(super) fn outgrown(&mut self, octets: &[u8], message: &mut Vec<u8>) {
        self.is_long = true;
        let front = std::mem::take(&mut self.field);
        match self.at {
            Place::Removed(rule) if self.found.fates[rule].takes() => {
                self.at = Place::Dropped;
                return;
            }
            Place::Removed(_) => self.at = Place::Passing,
            Place::Signature => self.covers_all(),
            _ => {}
        }
        self.emit(&front, message);
        self.emit(octets, message);
    }

    /// Lets go what is held back; fields that a signature covers as they were.
    pub(super) fn release(&mut self, message: &mut Vec<u8>) {
        let Some(held) = self.held.take() else { return };
        let (signed, found) = (self.signed, &mut self.found);
        held.release(message, |change| match change {
            Changed::Encoded(_) => {
                found.encoded += u32::from(!signed);
                !signed
            }
            Changed::Removed(rule) => found.fates[*rule].takes(),
        });
    }

    /// Notes what a signature covers.
    pub(super) fn learn_signature(&mut self, field: &[u8]) {
        let Some(names) = split_field(field).and_then(|(_, value)| signature::covered(value)) else {
            return self.covers_all();
        };
        for rule in names.into_iter().filter_map(|name| self.rules.position(name)) {
            self.found.fates[rule].covered = true;
        }
    }

    fn covers_all(&mut self) {
        self.found.fates.iter_mut().for_each(|fate| fate.covered = true);
    }

    /// Passes a complete field on, encoded where it has to be.
    pub(super) fn pass_field(&mut self, field: &[u8], message: &mut Vec<u8>) {
        let encodes = self.encode && !self.signed && !self.unclear && !field.is_ascii();
        let Some(encoded) = encodes.then(|| encoded_word::field(field)).flatten() else {
            return self.emit(field, message);
        };
        self.hold(field, Changed::Encoded(encoded), message);
    }

    /// Holds back a field that is changed unless a signature covers it.
    pub(super) fn hold(&mut self, field: &[u8], to: Changed, message: &mut Vec<u8>) {
        let held = self.held.get_or_insert_default();
        held.change(field, to);
        if held.is_full() {
            self.release(message);
        }
    }
}
