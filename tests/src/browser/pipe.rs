//! The DevTools protocol over a pipe: JSON documents that end with a NUL, answers by number, events by name.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{ChildStdin, ChildStdout};
use tokio::sync::{Mutex as AsyncMutex, oneshot, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::PATIENCE;

/// A connection to a browser.
pub(super) struct Pipe {
    input: AsyncMutex<ChildStdin>,
    last: AtomicU64,
    heard: Arc<Heard>,
    reader: JoinHandle<()>,
}

/// What came from the browser.
struct Heard {
    waiting: Mutex<HashMap<u64, oneshot::Sender<Value>>>,
    events: watch::Sender<Vec<Value>>,
}

impl Pipe {
    /// Speaks by `input` and listens to `output` until the browser ends.
    pub fn new(input: ChildStdin, output: ChildStdout) -> Self {
        let heard = Arc::new(Heard { waiting: Mutex::default(), events: watch::Sender::default() });
        let reader = tokio::spawn(listen(output, Arc::clone(&heard)));
        Self { input: AsyncMutex::new(input), last: AtomicU64::new(0), heard, reader }
    }

    /// Calls a method, in the session of a page or of the browser itself.
    pub async fn call(&self, session: Option<&str>, method: &str, parameters: Value) -> Result<Value> {
        let id = self.last.fetch_add(1, Ordering::Relaxed) + 1;
        let mut call = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            call["sessionId"] = session.into();
        }
        let (tell, answer) = oneshot::channel();
        self.heard.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(id, tell);
        let mut bytes = serde_json::to_vec(&call)?;
        bytes.push(0);
        let mut input = self.input.lock().await;
        input.write_all(&bytes).await.context("the browser is gone")?;
        input.flush().await?;
        drop(input);
        let answer = timeout(PATIENCE, answer).await.with_context(|| format!("{method}: no answer"))?;
        let answer = answer.with_context(|| format!("{method}: the browser is gone"))?;
        ensure!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        Ok(answer["result"].clone())
    }

    /// The parameters of the first event of this name that `matches`, also of one that came before.
    pub async fn event(&self, name: &str, matches: impl Fn(&Value) -> bool) -> Result<Value> {
        let mut events = self.heard.events.subscribe();
        let wanted = |event: &&Value| event["method"] == name && matches(&event["params"]);
        let find = |events: &Vec<Value>| events.iter().find(wanted).cloned();
        match timeout(PATIENCE, events.wait_for(|events| find(events).is_some())).await {
            Ok(Ok(found)) => Ok(find(&found).map(|event| event["params"].clone()).unwrap_or_default()),
            Ok(Err(_)) => bail!("{name}: the browser is gone"),
            Err(_) => bail!("{name}: no such event"),
        }
    }

    /// Every event of this name so far.
    pub fn events(&self, name: &str) -> Vec<Value> {
        let events = self.heard.events.borrow();
        let named = events.iter().filter(|event| event["method"] == name);
        named.map(|event| event["params"].clone()).collect()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.reader.abort();
    }
}

async fn listen(output: ChildStdout, heard: Arc<Heard>) {
    let mut output = BufReader::new(output);
    let mut bytes = Vec::new();
    while output.read_until(0, &mut bytes).await.is_ok_and(|read| read > 0) {
        bytes.pop();
        if let Ok(document) = serde_json::from_slice::<Value>(&bytes) {
            take(document, &heard);
        }
        bytes.clear();
    }
    // Nobody waits for a browser that is gone.
    heard.waiting.lock().unwrap_or_else(PoisonError::into_inner).clear();
}

fn take(document: Value, heard: &Heard) {
    match document["id"].as_u64() {
        Some(id) => {
            let waiting = heard.waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&id);
            if let Some(tell) = waiting {
                // Whoever asked may have given up.
                let _ = tell.send(document);
            }
        }
        None => heard.events.send_modify(|events| events.push(document)),
    }
}
