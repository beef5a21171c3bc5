//! A receiver of webhooks that checks signatures by itself and can misbehave.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::Bytes;
use axum::extract::{OriginalUri, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use tokio::net::TcpListener;

/// The example secret of the Standard Webhooks specification, and another one.
pub(crate) const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
pub(crate) const OTHER_SECRET: &str = "whsec_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// Part of its path: what receivers tell their senders by must not get into any log.
pub(crate) const CANARY: &str = "canary-token";

/// What it does with a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Takes,
    /// 500.
    Refuses,
    /// 302 to another path of its own.
    Redirects,
    /// Never answers.
    Hangs,
    /// 429 with Retry-After: 3600.
    Throttles,
    /// 410, and repeats the path it was asked for.
    IsGone,
}

/// One message as it came.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub id: String,
    pub body: String,
    pub traceparent: Option<String>,
    /// Whether it was answered with 200.
    pub taken: bool,
}

pub(crate) struct Receiver {
    pub url: String,
    manner: Arc<Mutex<Manner>>,
    messages: Arc<Mutex<Vec<Message>>>,
    serving: tokio::task::JoinHandle<()>,
}

#[derive(Clone)]
struct Desk {
    manner: Arc<Mutex<Manner>>,
    messages: Arc<Mutex<Vec<Message>>>,
}

impl Receiver {
    pub(crate) async fn start(manner: Manner) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}/hook/{CANARY}", listener.local_addr().expect("an address"));
        let desk = Desk { manner: Arc::new(Mutex::new(manner)), messages: Arc::default() };
        let routes =
            Router::new().route(&format!("/hook/{CANARY}"), post(take)).route("/elsewhere", post(take));
        let serving = tokio::spawn({
            let routes = routes.with_state(desk.clone());
            async move { axum::serve(listener, routes).await.expect("serves") }
        });
        Self { url, manner: desk.manner, messages: desk.messages, serving }
    }

    pub(crate) fn set(&self, manner: Manner) {
        *self.manner.lock().unwrap() = manner;
    }

    pub(crate) fn messages(&self) -> Vec<Message> {
        self.messages.lock().unwrap().clone()
    }

    /// How often each message was taken.
    pub(crate) fn taken(&self) -> BTreeMap<String, usize> {
        let mut taken = BTreeMap::new();
        for message in self.messages().into_iter().filter(|message| message.taken) {
            *taken.entry(message.id).or_default() += 1;
        }
        taken
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn take(
    State(desk): State<Desk>,
    OriginalUri(path): OriginalUri,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let header = |name: &str| headers.get(name).expect(name).to_str().expect("text").to_owned();
    let body = String::from_utf8(body.to_vec()).expect("text");
    let (id, timestamp) = (header("webhook-id"), header("webhook-timestamp"));
    let signed = format!("{id}.{timestamp}.{body}");
    let signature = header("webhook-signature");
    for (secret, signature) in [SECRET, OTHER_SECRET].iter().zip(signature.split(' ')) {
        assert_eq!(signature, format!("v1,{}", STANDARD.encode(hmac_sha256(secret, &signed))), "{body}");
    }
    assert_eq!(signature.split(' ').count(), 2, "one signature per secret");
    let age = now_seconds() - timestamp.parse::<i64>().expect("seconds");
    assert!((-5..300).contains(&age), "{age} s old");
    let manner = *desk.manner.lock().unwrap();
    let taken = manner == Manner::Takes;
    let traceparent = headers.get("traceparent").map(|value| value.to_str().expect("text").to_owned());
    desk.messages.lock().unwrap().push(Message { id, body, traceparent, taken });
    match manner {
        Manner::Takes => StatusCode::OK.into_response(),
        Manner::Refuses => (StatusCode::INTERNAL_SERVER_ERROR, "not today\0".repeat(1_000)).into_response(),
        Manner::Redirects => (StatusCode::FOUND, [("location", "/elsewhere")]).into_response(),
        Manner::Hangs => std::future::pending().await,
        Manner::Throttles => (StatusCode::TOO_MANY_REQUESTS, [("retry-after", "3600")]).into_response(),
        Manner::IsGone => (StatusCode::GONE, format!("nothing at {path} any more")).into_response(),
    }
}

fn now_seconds() -> i64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    i64::try_from(since.as_secs()).expect("before the year 292 billion")
}

/// RFC 2104, by hand: what is tested must not be what tests.
fn hmac_sha256(secret: &str, message: &str) -> Vec<u8> {
    let mut key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("base64");
    key.resize(64, 0);
    let pad = |byte: u8| key.iter().map(move |key| key ^ byte).collect::<Vec<u8>>();
    let inner = Sha256::new().chain_update(pad(0x36)).chain_update(message).finalize();
    Sha256::new().chain_update(pad(0x5c)).chain_update(inner).finalize().to_vec()
}
