//! Somebody who listens to the event stream, and does not always want to.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use serde_json::{Value, json};

/// One request that came.
pub(crate) struct Posted {
    pub at: Instant,
    pub authorization: Option<String>,
    pub envelopes: Vec<Value>,
    pub status: u16,
}

type Rule = Box<dyn FnMut(usize, &[Value]) -> (u16, Option<&'static str>, Value) + Send>;

#[derive(Clone)]
pub(crate) struct Receiver {
    pub url: String,
    pub posted: Arc<Mutex<Vec<Posted>>>,
}

#[derive(Clone)]
struct Inside {
    posted: Arc<Mutex<Vec<Posted>>>,
    rule: Arc<Mutex<Rule>>,
}

impl Receiver {
    /// Takes everything.
    pub(crate) async fn start() -> Self {
        Self::with(Box::new(|_, envelopes| (200, None, json!({ "accepted": envelopes.len() })))).await
    }

    /// Answers the `n`th request (from 0) as the rule says: status, `Retry-After`, body.
    pub(crate) async fn with(rule: Rule) -> Self {
        let posted = Arc::new(Mutex::new(Vec::new()));
        let inside = Inside { posted: posted.clone(), rule: Arc::new(Mutex::new(rule)) };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/v1/events", listener.local_addr().unwrap());
        let router = Router::new().route("/v1/events", post(take)).with_state(inside);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { url, posted }
    }

    /// Envelopes of the requests that were taken.
    pub(crate) fn taken(&self) -> Vec<Value> {
        let posted = self.posted.lock().unwrap();
        posted.iter().filter(|it| it.status == 200).flat_map(|it| it.envelopes.clone()).collect()
    }
}

async fn take(State(inside): State<Inside>, headers: HeaderMap, body: Bytes) -> Response {
    let envelopes: Vec<Value> = serde_json::from_slice(&body).unwrap();
    let mut posted = inside.posted.lock().unwrap();
    let (status, retry_after, reply) = (inside.rule.lock().unwrap())(posted.len(), &envelopes);
    let authorization = headers.get("authorization").map(|value| value.to_str().unwrap().to_owned());
    posted.push(Posted { at: Instant::now(), authorization, envelopes, status });
    let mut response = (StatusCode::from_u16(status).unwrap(), axum::Json(reply)).into_response();
    if let Some(text) = retry_after {
        response.headers_mut().insert("retry-after", text.parse().unwrap());
    }
    response
}
