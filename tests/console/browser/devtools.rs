//! A real Chromium, steered over its DevTools protocol through a pipe.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::oneshot;

/// How long Chromium may take for one answer.
const PATIENCE: Duration = Duration::from_secs(60);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Value>>>>;

/// A browser with a profile of its own.
pub(super) struct Browser {
    commands: tokio::sync::Mutex<ChildStdin>,
    waiting: Waiting,
    events: Arc<Mutex<Vec<Value>>>,
    next: AtomicU64,
    _child: Child,
    _profile: tempfile::TempDir,
}

/// Where Debian, or whoever set the variable, has Chromium.
fn program() -> PathBuf {
    if let Some(named) = std::env::var_os("TRUNKLINE_TEST_CHROMIUM").filter(|name| !name.is_empty()) {
        return named.into();
    }
    let known = ["/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"];
    let found = known.iter().map(PathBuf::from).find(|path| path.exists());
    found.expect("no Chromium: scripts/setup.sh chromium installs it, TRUNKLINE_TEST_CHROMIUM names another")
}

impl Browser {
    pub(super) async fn start() -> Arc<Self> {
        let profile = tempfile::tempdir().expect("a folder");
        // Chromium reads commands from descriptor 3 and writes answers to 4.
        let mut child = Command::new("sh")
            .arg("-c")
            .arg("exec \"$@\" 3<&0 4>&1 1>/dev/null 2>/dev/null")
            .arg("chromium")
            .arg(program())
            .args([
                "--headless=new",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-dev-shm-usage",
                "--hide-scrollbars",
            ])
            .args([
                "--no-first-run",
                "--disable-extensions",
                "--disable-background-networking",
                "--disable-sync",
            ])
            .args([
                "--disable-component-update",
                "--disable-default-apps",
                "--remote-debugging-pipe",
                "--lang=en",
            ])
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg("about:blank")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("Chromium starts");
        let (waiting, events): (Waiting, Arc<Mutex<Vec<Value>>>) = Default::default();
        let mut answers = BufReader::new(child.stdout.take().expect("piped"));
        let (answered, happened) = (Arc::clone(&waiting), Arc::clone(&events));
        tokio::spawn(async move {
            let mut text = Vec::new();
            while answers.read_until(0, &mut text).await.is_ok_and(|read| read > 0) {
                text.pop_if(|last| *last == 0);
                let Ok(said) = serde_json::from_slice::<Value>(&text) else { break };
                text.clear();
                match said["id"].as_u64().and_then(|id| answered.lock().unwrap().remove(&id)) {
                    Some(asked) => drop(asked.send(said)),
                    None => happened.lock().unwrap().push(said),
                }
            }
        });
        let commands = tokio::sync::Mutex::new(child.stdin.take().expect("piped"));
        Arc::new(Self {
            commands,
            waiting,
            events,
            next: AtomicU64::new(1),
            _child: child,
            _profile: profile,
        })
    }

    async fn ask(&self, session: Option<&str>, method: &str, parameters: Value) -> Value {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let mut command = json!({"id": id, "method": method, "params": parameters});
        if let Some(session) = session {
            command["sessionId"] = session.into();
        }
        let (answer, asked) = oneshot::channel();
        self.waiting.lock().unwrap().insert(id, answer);
        let mut text = command.to_string().into_bytes();
        text.push(0);
        let mut commands = self.commands.lock().await;
        commands.write_all(&text).await.expect("Chromium listens");
        commands.flush().await.expect("Chromium listens");
        drop(commands);
        let said = tokio::time::timeout(PATIENCE, asked).await;
        let said = said.unwrap_or_else(|_| panic!("no answer to {method}")).expect("Chromium answers");
        assert!(said["error"].is_null(), "{method} {parameters}: {}", said["error"]);
        said["result"].clone()
    }

    /// A page of its own, with cookies of its own.
    pub(super) async fn page(self: &Arc<Self>) -> Page {
        let context = self.ask(None, "Target.createBrowserContext", json!({})).await;
        let target = json!({"url": "about:blank", "browserContextId": context["browserContextId"]});
        let target = self.ask(None, "Target.createTarget", target).await;
        let attach = json!({"targetId": target["targetId"], "flatten": true});
        let attached = self.ask(None, "Target.attachToTarget", attach).await;
        let session = attached["sessionId"].as_str().expect("a session").to_owned();
        let page = Page { browser: Arc::clone(self), session };
        for domain in ["Page", "Network", "Runtime", "Log"] {
            page.ask(&format!("{domain}.enable"), json!({})).await;
        }
        page
    }
}

pub(super) struct Page {
    browser: Arc<Browser>,
    session: String,
}

impl Page {
    pub(super) async fn ask(&self, method: &str, parameters: Value) -> Value {
        self.browser.ask(Some(&self.session), method, parameters).await
    }

    /// Events of this page so far, by their method.
    pub(super) fn events(&self, method: &str) -> Vec<Value> {
        let events = self.browser.events.lock().unwrap();
        let own =
            events.iter().filter(|event| event["sessionId"] == *self.session && event["method"] == method);
        own.map(|event| event["params"].clone()).collect()
    }

    /// Goes there and waits until it is loaded.
    pub(super) async fn open(&self, url: &str) {
        let before = self.events("Page.loadEventFired").len();
        let gone = self.ask("Page.navigate", json!({"url": url})).await;
        assert!(gone["errorText"].is_null(), "{url}: {gone}");
        crate::support::until("the page to load", || async {
            (self.events("Page.loadEventFired").len() > before).then_some(())
        })
        .await;
    }

    /// What an expression comes to.
    pub(super) async fn eval(&self, expression: &str) -> Value {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let answer = self.ask("Runtime.evaluate", asked).await;
        assert!(answer["exceptionDetails"].is_null(), "{expression}: {answer}");
        answer["result"]["value"].clone()
    }

    pub(super) async fn text(&self, selector: &str) -> String {
        let found = self.eval(&format!("document.querySelector({selector:?})?.innerText ?? ''")).await;
        found.as_str().unwrap_or_default().to_owned()
    }

    /// Waits until an expression is true. While the page goes elsewhere there may be nothing to look at.
    pub(super) async fn until(&self, what: &str, expression: &str) {
        let asked = json!({"expression": expression, "returnByValue": true, "awaitPromise": true});
        let is_true = async || {
            let answer = self.ask("Runtime.evaluate", asked.clone()).await;
            (answer["result"]["value"] == true).then_some(())
        };
        crate::support::until(what, is_true).await;
    }

    /// Clicks in the middle of what a selector finds.
    pub(super) async fn click(&self, selector: &str) {
        let place = format!(
            "(() => {{ const e = document.querySelector({selector:?}); e.scrollIntoView({{block: 'center'}});
               const r = e.getBoundingClientRect(); return [r.x + r.width / 2, r.y + r.height / 2]; }})()"
        );
        let place = self.eval(&place).await;
        for (kind, count) in [("mousePressed", 1), ("mouseReleased", 1)] {
            let mouse =
                json!({"type": kind, "x": place[0], "y": place[1], "button": "left", "clickCount": count});
            self.ask("Input.dispatchMouseEvent", mouse).await;
        }
    }

    pub(super) async fn type_text(&self, text: &str) {
        self.ask("Input.insertText", json!({"text": text})).await;
    }

    pub(super) async fn press(&self, key: &str) {
        let code = match key {
            "Tab" => 9,
            "Enter" => 13,
            "Escape" => 27,
            _ => 0,
        };
        let text = if key == "Enter" { "\r" } else { "" };
        for kind in ["keyDown", "keyUp"] {
            let pressed =
                json!({"type": kind, "key": key, "code": key, "text": text, "windowsVirtualKeyCode": code});
            self.ask("Input.dispatchKeyEvent", pressed).await;
        }
    }

    /// So many CSS pixels wide.
    pub(super) async fn set_width(&self, width: u32, height: u32) {
        let metrics =
            json!({"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500});
        self.ask("Emulation.setDeviceMetricsOverride", metrics).await;
    }

    pub(super) async fn set_dark(&self, dark: bool) {
        let value = if dark { "dark" } else { "light" };
        let features = json!({"features": [{"name": "prefers-color-scheme", "value": value}]});
        self.ask("Emulation.setEmulatedMedia", features).await;
    }

    /// A picture of what is seen, as PNG.
    pub(super) async fn picture(&self) -> Vec<u8> {
        use base64::Engine as _;
        let shot = self.ask("Page.captureScreenshot", json!({"format": "png"})).await;
        let text = shot["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(text).expect("base64")
    }

    /// Errors that scripts and the browser have told of.
    pub(super) fn errors(&self) -> Vec<String> {
        let thrown = self.events("Runtime.exceptionThrown").into_iter().map(|event| event.to_string());
        let logged =
            self.events("Log.entryAdded").into_iter().filter(|event| event["entry"]["level"] == "error");
        let said =
            self.events("Runtime.consoleAPICalled").into_iter().filter(|event| event["type"] == "error");
        thrown
            .chain(logged.map(|event| event.to_string()))
            .chain(said.map(|event| event.to_string()))
            .collect()
    }

    /// Addresses that were asked for.
    pub(super) fn requests(&self) -> Vec<String> {
        let sent = self.events("Network.requestWillBeSent");
        sent.iter().filter_map(|event| event["request"]["url"].as_str().map(str::to_owned)).collect()
    }
}
