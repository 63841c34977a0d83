//! One page: what it shows, and what a person does with keyboard and window.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::pipe::Pipe;

/// A page in a tab.
pub struct Page {
    pipe: Arc<Pipe>,
    session: String,
}

/// Keys that tests press.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// The next element.
    Tab,
    /// The element before.
    ShiftTab,
    /// Follows a link, presses a button.
    Enter,
    /// Presses a button, turns a switch.
    Space,
    /// Down in a list.
    ArrowDown,
    /// Right, or the next of a group of radio buttons.
    ArrowRight,
    /// Deletes.
    Delete,
    /// Closes a dialog.
    Escape,
}

impl Key {
    /// `key` and `code` of its events, the Windows key code, and the text that it types.
    fn events(self) -> (&'static str, u32, &'static str) {
        match self {
            Self::Tab | Self::ShiftTab => ("Tab", 9, ""),
            Self::Enter => ("Enter", 13, "\r"),
            Self::Space => (" ", 32, " "),
            Self::ArrowDown => ("ArrowDown", 40, ""),
            Self::ArrowRight => ("ArrowRight", 39, ""),
            Self::Delete => ("Delete", 46, ""),
            Self::Escape => ("Escape", 27, ""),
        }
    }
}

impl Page {
    pub(super) async fn new(pipe: Arc<Pipe>) -> Result<Self> {
        let target = pipe.call(None, "Target.createTarget", json!({"url": "about:blank"})).await?;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = pipe.call(None, "Target.attachToTarget", attach).await?;
        let session = attached["sessionId"].as_str().context("a session has an id")?.to_owned();
        let page = Self { pipe, session };
        for domain in ["Page", "Runtime", "Network", "Log"] {
            page.call(&format!("{domain}.enable"), json!({})).await?;
        }
        Ok(page)
    }

    /// Goes to an address, and waits until the page is loaded.
    ///
    /// # Errors
    /// When there is no such page.
    pub async fn go(&self, address: &str) -> Result<()> {
        let went = self.call("Page.navigate", json!({"url": address})).await?;
        if let Some(error) = went["errorText"].as_str() {
            bail!("{address}: {error}");
        }
        self.wait("document.readyState === 'complete'").await
    }

    /// The value of an expression of JavaScript; of a promise when it is kept.
    ///
    /// # Errors
    /// When it throws, or its value is of another type.
    pub async fn value<T: DeserializeOwned>(&self, expression: &str) -> Result<T> {
        let evaluate = json!({"expression": expression, "awaitPromise": true, "returnByValue": true});
        let answer = self.call("Runtime.evaluate", evaluate).await?;
        if answer.get("exceptionDetails").is_some() {
            bail!("{expression}: {}", answer["exceptionDetails"]["exception"]["description"]);
        }
        let value = answer["result"]["value"].clone();
        serde_json::from_value(value.clone()).with_context(|| format!("{expression} is {value}"))
    }

    /// Waits until an expression is true.
    ///
    /// # Errors
    /// When it does not become true.
    pub async fn wait(&self, expression: &str) -> Result<()> {
        let wait = format!(
            "new Promise((done) => {{ const look = () => ({expression}) ? done(true) : setTimeout(look, 20); look(); }})"
        );
        let true_in_time = self.value::<bool>(&wait).await;
        match true_in_time {
            Ok(_) => Ok(()),
            Err(error) => {
                let shown: String = self.value("document.body.innerText").await.unwrap_or_default();
                Err(error.context(format!("never true: {expression}; the page shows:\n{shown}")))
            }
        }
    }

    /// Presses a key and lets it go.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn press(&self, key: Key) -> Result<()> {
        let (name, code, text) = key.events();
        let shift = if matches!(key, Key::ShiftTab) { 8 } else { 0 };
        let event = |kind: &str| {
            json!({"type": kind, "key": name, "code": if name == " " { "Space" } else { name },
                   "windowsVirtualKeyCode": code, "modifiers": shift})
        };
        let mut down = event(if text.is_empty() { "rawKeyDown" } else { "keyDown" });
        if !text.is_empty() {
            down["text"] = text.into();
        }
        self.call("Input.dispatchKeyEvent", down).await?;
        self.call("Input.dispatchKeyEvent", event("keyUp")).await?;
        Ok(())
    }

    /// Types a text where the focus is.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn type_text(&self, text: &str) -> Result<()> {
        self.call("Input.insertText", json!({"text": text})).await?;
        Ok(())
    }

    /// Gives the window a size in CSS pixels.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn resize(&self, width: u32, height: u32) -> Result<()> {
        let size = json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": false});
        self.call("Emulation.setDeviceMetricsOverride", size).await?;
        Ok(())
    }

    /// Prefers a colour scheme, `light` or `dark`, as the computer's settings would.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn prefer(&self, scheme: &str) -> Result<()> {
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
        self.call("Emulation.setEmulatedMedia", features).await?;
        Ok(())
    }

    /// Waits until fonts are there and what changed was drawn.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn drawn(&self) -> Result<()> {
        const TWO_FRAMES: &str = "document.fonts.ready.then(() => new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true)))))";
        self.value::<bool>(TWO_FRAMES).await.map(drop)
    }

    /// The window as a PNG.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn picture(&self) -> Result<Vec<u8>> {
        let shot = self.call("Page.captureScreenshot", json!({"format": "png"})).await?;
        Ok(STANDARD.decode(shot["data"].as_str().context("a picture has data")?)?)
    }

    /// The text of the page and of the frames in it, read from outside, as no script of theirs need run.
    ///
    /// # Errors
    /// When the browser does not answer.
    pub async fn text_with_frames(&self) -> Result<String> {
        let snapshot = self.call("DOMSnapshot.captureSnapshot", json!({"computedStyles": []})).await?;
        let strings = snapshot["strings"].as_array().cloned().unwrap_or_default();
        Ok(strings.iter().filter_map(Value::as_str).collect::<Vec<_>>().join("\n"))
    }

    /// What the page's console and the browser's own log said: scripts that failed, policies that refused something.
    pub fn complaints(&self) -> Vec<String> {
        let thrown = self.pipe.events("Runtime.exceptionThrown");
        let logged = self.pipe.events("Log.entryAdded");
        let thrown = thrown.iter().map(|event| event["exceptionDetails"].to_string());
        thrown.chain(logged.iter().map(|event| event["entry"]["text"].to_string())).collect()
    }

    async fn call(&self, method: &str, parameters: Value) -> Result<Value> {
        self.pipe.call(Some(&self.session), method, parameters).await
    }
}
