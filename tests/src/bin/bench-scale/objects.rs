//! Objects of any kind, as JSON, by plural and then by `namespace/name`; with versions, pages and watches.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;
use serde_json::{Value, json};
use tokio::sync::Notify;

/// Changes of one kind that a watch can still be told of.
const MOST_CHANGES: usize = 200_000;

/// All objects.
#[derive(Default)]
pub struct Objects {
    kinds: Arc<Mutex<Kinds>>,
    changed: Arc<Notify>,
}

#[derive(Default)]
struct Kinds {
    version: u64,
    kinds: HashMap<String, Kind>,
}

#[derive(Default)]
struct Kind {
    objects: BTreeMap<String, Bytes>,
    changes: VecDeque<Change>,
}

#[derive(Clone)]
struct Change {
    version: u64,
    key: String,
    line: Bytes,
}

impl Objects {
    /// One object.
    pub fn get(&self, plural: &str, key: &str) -> Option<Bytes> {
        self.lock().kinds.get(plural)?.objects.get(key).cloned()
    }

    /// Stores an object, gives it a version and a uid, and tells watches.
    pub fn put(&self, plural: &str, namespace: &str, name: &str, mut object: Value) -> Bytes {
        let key = format!("{namespace}/{name}");
        let mut kinds = self.lock();
        kinds.version += 1;
        let version = kinds.version;
        let kind = kinds.kinds.entry(plural.to_owned()).or_default();
        let metadata = &mut object["metadata"];
        metadata["name"] = json!(name);
        if !namespace.is_empty() {
            metadata["namespace"] = json!(namespace);
        }
        metadata["resourceVersion"] = json!(version.to_string());
        if metadata["uid"].is_null() {
            metadata["uid"] = json!(format!("{version:08x}-0000-4000-8000-{version:012x}"));
        }
        if metadata["creationTimestamp"].is_null() {
            metadata["creationTimestamp"] = json!("2026-11-01T00:00:00Z");
        }
        let stored = Bytes::from(object.to_string());
        let is_new = kind.objects.insert(key.clone(), stored.clone()).is_none();
        kind.tell(version, key, if is_new { "ADDED" } else { "MODIFIED" }, &stored);
        drop(kinds);
        self.changed.notify_waiters();
        stored
    }

    /// Removes an object, and tells watches.
    pub fn remove(&self, plural: &str, key: &str) {
        let mut kinds = self.lock();
        kinds.version += 1;
        let version = kinds.version;
        let Some(kind) = kinds.kinds.get_mut(plural) else { return };
        if let Some(old) = kind.objects.remove(key) {
            kind.tell(version, key.to_owned(), "DELETED", &old);
        }
        drop(kinds);
        self.changed.notify_waiters();
    }

    /// A page of a kind: after this key, so many, of a namespace or all.
    pub fn list(
        &self,
        plural: &str,
        namespace: &str,
        only: Option<&str>,
        after: Option<&str>,
        limit: usize,
        is_partial: bool,
    ) -> Bytes {
        let kinds = self.lock();
        let empty = BTreeMap::new();
        let objects = kinds.kinds.get(plural).map_or(&empty, |kind| &kind.objects);
        let prefix = format!("{namespace}/");
        let from = after.map_or(Bound::Unbounded, |after| Bound::Excluded(after.to_owned()));
        let mut found = objects.range((from, Bound::Unbounded)).filter(|(key, _)| {
            (namespace.is_empty() || key.starts_with(&prefix)) && only.is_none_or(|only| *key == only)
        });
        let page: Vec<_> = found.by_ref().take(limit).collect();
        let more = found.next().and(page.last()).map(|(key, _)| (*key).clone());
        let mut text = json!({"resourceVersion": kinds.version.to_string(), "continue": more}).to_string();
        text.insert_str(0, r#"{"kind":"List","apiVersion":"v1","metadata":"#);
        text.push_str(r#","items":["#);
        for (number, (_, object)) in page.iter().enumerate() {
            if number > 0 {
                text.push(',');
            }
            if is_partial {
                let object: Value = serde_json::from_slice(object).unwrap_or_default();
                text.push_str(&json!({"metadata": object["metadata"]}).to_string());
            } else {
                text.push_str(&String::from_utf8_lossy(object));
            }
        }
        text.push_str("]}");
        text.into()
    }

    /// What changes after this version.
    pub fn watch(&self, plural: &str, since: u64, only: Option<String>) -> Watch {
        let (kinds, changed) = (Arc::clone(&self.kinds), Arc::clone(&self.changed));
        Watch { kinds, changed, plural: plural.to_owned(), since, only }
    }

    fn lock(&self) -> MutexGuard<'_, Kinds> {
        self.kinds.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kind {
    fn tell(&mut self, version: u64, key: String, what: &str, object: &Bytes) {
        let mut line = format!(r#"{{"type":"{what}","object":"#).into_bytes();
        line.extend_from_slice(object);
        line.extend_from_slice(b"}\n");
        self.changes.push_back(Change { version, key, line: line.into() });
        if self.changes.len() > MOST_CHANGES {
            self.changes.pop_front();
        }
    }
}

/// What changes of a kind from now on.
pub struct Watch {
    kinds: Arc<Mutex<Kinds>>,
    changed: Arc<Notify>,
    plural: String,
    since: u64,
    only: Option<String>,
}

impl Watch {
    /// The next lines.
    pub async fn next(&mut self) -> Option<Bytes> {
        loop {
            let changed = Arc::clone(&self.changed);
            let notified = changed.notified();
            let lines = self.take();
            if !lines.is_empty() {
                return Some(lines);
            }
            notified.await;
        }
    }

    fn take(&mut self) -> Bytes {
        let kinds = self.kinds.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(kind) = kinds.kinds.get(&self.plural) else { return Bytes::new() };
        let first = kind.changes.partition_point(|change| change.version <= self.since);
        let mut lines = Vec::new();
        for change in kind.changes.range(first..).take(64) {
            self.since = change.version;
            if self.only.as_ref().is_none_or(|only| *only == change.key) {
                lines.extend_from_slice(&change.line);
            }
        }
        lines.into()
    }
}

/// Merges what was sent into an object. Lists of named things are merged by name.
pub fn merge(old: &mut Value, sent: Value) {
    match (old, sent) {
        (Value::Object(old), Value::Object(sent)) => {
            for (key, value) in sent {
                merge(old.entry(key).or_insert(Value::Null), value);
            }
        }
        (Value::Array(old), Value::Array(sent)) if sent.iter().all(|it| it["name"].is_string()) => {
            for value in sent {
                match old.iter_mut().find(|it| it["name"] == value["name"]) {
                    Some(found) => merge(found, value),
                    None => old.push(value),
                }
            }
        }
        (old, sent) => *old = sent,
    }
}
