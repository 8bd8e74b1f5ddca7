//! A real Chromium, driven through a pair of pipes: the DevTools protocol, JSON with a zero byte after each message. That needs
//! no driver, no port and no library: a shell gives the browser its stdin and stdout as the files 3 and 4, where it
//! looks for them.

use serde_json::{Value, json};
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A browser that has not answered by now never will; the machine may be loaded.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// Between two looks at a page.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A browser with one page. It ends with the value.
pub struct Browser {
    child: Child,
    to: ChildStdin,
    from: Receiver<Value>,
    /// What it said unasked.
    events: VecDeque<Value>,
    session: Option<String>,
    next: u64,
    _profile: TempDir,
}

impl Browser {
    /// Starts a browser with an empty page of this size, in pixels.
    pub fn start(width: u32, height: u32) -> Self {
        let profile = tempfile::Builder::new().prefix("quorate-test-").tempdir().expect("a folder");
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("exec \"$@\" 3<&0 4>&1 </dev/null >/dev/null 2>&1")
            .args(["sh", browser(), "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"])
            .args(["--no-first-run", "--hide-scrollbars", "--disable-sync", "--disable-background-networking"])
            .args(["--disable-component-update", "--disable-dev-shm-usage", "--force-color-profile=srgb"])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a shell starts");
        let to = child.stdin.take().expect("a pipe");
        let messages = BufReader::new(child.stdout.take().expect("a pipe")).split(0);
        let (sender, from) = channel();
        std::thread::spawn(move || {
            let decoded = messages.map_while(Result::ok).filter_map(|it| serde_json::from_slice(&it).ok());
            decoded.into_iter().try_for_each(|it| sender.send(it))
        });
        let events = VecDeque::new();
        let mut browser = Self { child, to, from, events, session: None, next: 0, _profile: profile };
        let target = browser.ask("Target.createTarget", json!({ "url": "about:blank" }));
        let attach = json!({ "targetId": target["targetId"], "flatten": true });
        let session = browser.ask("Target.attachToTarget", attach);
        browser.session = session["sessionId"].as_str().map(str::to_owned);
        browser.ask("Page.enable", json!({}));
        browser.ask("Runtime.enable", json!({}));
        browser.ask("Log.enable", json!({}));
        browser.size(width, height);
        browser
    }

    /// The page's size, in pixels.
    pub fn size(&mut self, width: u32, height: u32) {
        let size = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600 });
        self.ask("Emulation.setDeviceMetricsOverride", size);
    }

    /// Forbids pages to run scripts.
    pub fn without_scripts(&mut self) {
        self.ask("Emulation.setScriptExecutionDisabled", json!({ "value": true }));
    }

    /// Light or dark.
    pub fn colours(&mut self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        self.ask("Emulation.setEmulatedMedia", json!({ "features": features }));
    }

    /// Opens a page and waits until it is loaded.
    pub fn open(&mut self, url: &str) {
        self.events.clear();
        let opened = self.ask("Page.navigate", json!({ "url": url }));
        assert_eq!(opened.get("errorText"), None, "{url}");
        self.wait_for("Page.loadEventFired");
    }

    /// Waits for something that the browser says unasked.
    fn wait_for(&mut self, name: &str) {
        let until = Instant::now() + PATIENCE;
        while !self.events.iter().any(|event| event["method"] == name) {
            let left = until.saturating_duration_since(Instant::now());
            let event = self.from.recv_timeout(left).unwrap_or_else(|_| panic!("no {name} within {PATIENCE:?}"));
            self.events.push_back(event);
        }
    }

    /// Errors of the page's scripts and policy so far: there must be none.
    pub fn troubles(&mut self) -> Vec<String> {
        self.events.extend(self.from.try_iter());
        let wrong = |event: &&Value| {
            event["method"] == "Runtime.exceptionThrown"
                || (event["method"] == "Log.entryAdded" && event["params"]["entry"]["level"] == "error")
        };
        self.events.iter().filter(wrong).map(Value::to_string).collect()
    }

    /// The page's document, as it is now.
    pub fn document(&mut self) -> String {
        loop {
            let root = self.ask("DOM.getDocument", json!({ "depth": 0 }));
            let html = self.try_ask("DOM.getOuterHTML", json!({ "nodeId": root["root"]["nodeId"] }));
            if let Ok(html) = html {
                return html["outerHTML"].as_str().expect("a document").to_owned();
            } // otherwise another page has taken its place meanwhile
        }
    }

    /// What an expression of the page's is worth.
    pub fn value(&mut self, expression: &str) -> Value {
        let asked = json!({ "expression": expression, "returnByValue": true, "awaitPromise": true });
        let answer = self.ask("Runtime.evaluate", asked);
        assert_eq!(answer.get("exceptionDetails"), None, "{expression}");
        answer["result"]["value"].clone()
    }

    /// The text in the first element of a selector, without tags; empty if there is none.
    pub fn text(&mut self, selector: &str) -> String {
        let selector = Value::from(selector);
        let text = self.value(&format!("document.querySelector({selector})?.innerText ?? ''"));
        text.as_str().unwrap_or_default().to_owned()
    }

    /// Presses the mouse in the middle of the first element of a selector, whatever lies on top there.
    pub fn click(&mut self, selector: &str) {
        let until = Instant::now() + PATIENCE;
        let (x, y) = loop {
            match self.middle(selector) {
                Ok(place) => break place,
                // A newer drawing may have taken its place between two questions.
                Err(error) => assert!(Instant::now() < until, "there is no {selector} to click: {error}"),
            }
            std::thread::sleep(LOOK_EVERY);
        };
        for kind in ["mousePressed", "mouseReleased"] {
            let press = json!({ "type": kind, "x": x, "y": y, "button": "left", "clickCount": 1 });
            self.ask("Input.dispatchMouseEvent", press);
        }
    }

    /// Where the middle of an element is, once it is on the screen.
    fn middle(&mut self, selector: &str) -> Result<(f64, f64), Value> {
        let root = self.try_ask("DOM.getDocument", json!({ "depth": 0 }))?;
        let wanted = json!({ "nodeId": root["root"]["nodeId"], "selector": selector });
        let found = self.try_ask("DOM.querySelector", wanted)?;
        let node = json!({ "nodeId": found["nodeId"] });
        self.try_ask("DOM.scrollIntoViewIfNeeded", node.clone())?;
        let model = self.try_ask("DOM.getBoxModel", node)?;
        let corner = |index: usize| model["model"]["content"][index].as_f64().unwrap_or_default();
        Ok(((corner(0) + corner(4)) / 2.0, (corner(1) + corner(5)) / 2.0))
    }

    /// Presses a key of the keyboard.
    pub fn key(&mut self, key: &str, code: u32) {
        for kind in ["keyDown", "keyUp"] {
            let text = if key == "Enter" { "\r" } else { "" };
            let press = json!({ "type": kind, "key": key, "windowsVirtualKeyCode": code, "text": text });
            self.ask("Input.dispatchKeyEvent", press);
        }
    }

    /// Waits until the document says something.
    pub fn until(&mut self, what: &str, mut says: impl FnMut(&str) -> bool) -> String {
        let until = Instant::now() + PATIENCE;
        loop {
            let document = self.document();
            if says(&document) {
                return document;
            }
            assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}\n{document}");
            std::thread::sleep(LOOK_EVERY);
        }
    }

    /// What the page looks like, whole, as a WebP file.
    pub fn picture(&mut self) -> Vec<u8> {
        let options = json!({ "format": "webp", "quality": 82, "captureBeyondViewport": true });
        let picture = self.ask("Page.captureScreenshot", options);
        base64(picture["data"].as_str().expect("a picture"))
    }

    fn ask(&mut self, method: &str, params: Value) -> Value {
        self.try_ask(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    fn try_ask(&mut self, method: &str, params: Value) -> Result<Value, Value> {
        self.next += 1;
        let mut command = json!({ "id": self.next, "method": method, "params": params });
        if let Some(session) = &self.session {
            command["sessionId"] = session.as_str().into();
        }
        let mut bytes = serde_json::to_vec(&command).expect("JSON");
        bytes.push(0);
        self.to.write_all(&bytes).expect("the browser listens");
        let until = Instant::now() + PATIENCE;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let said = self.from.recv_timeout(left).unwrap_or_else(|error| panic!("{method}: {error}"));
            if said["id"] == self.next {
                return said.get("error").map_or_else(|| Ok(said["result"].clone()), |error| Err(error.clone()));
            }
            self.events.push_back(said);
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn browser() -> &'static str {
    let names = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
    let runs = |name: &&str| Command::new(name).arg("--version").output().is_ok_and(|output| output.status.success());
    names.into_iter().find(runs).unwrap_or_else(|| {
        panic!("the dashboard is tested in a real browser and there is none: install one (`apt-get install chromium`)")
    })
}

/// Decodes RFC 4648's alphabet; what is not in it is skipped.
fn base64(text: &str) -> Vec<u8> {
    let digit = |byte: u8| match byte {
        b'A'..=b'Z' => Some(byte - b'A'),
        b'a'..=b'z' => Some(byte - b'a' + 26),
        b'0'..=b'9' => Some(byte - b'0' + 52),
        b'+' => Some(62),
        b'/' => Some(63),
        _ => None,
    };
    let (mut bytes, mut bits, mut held) = (Vec::new(), 0_u32, 0);
    for six in text.bytes().filter_map(digit) {
        bits = (bits << 6 | u32::from(six)) & 0xfff;
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).expect("eight bits"));
        }
    }
    bytes
}
