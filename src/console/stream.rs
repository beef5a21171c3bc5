//! `/v1/stream`: what happens, as server-sent events. One look at the database a second serves all
//! who listen, however many they are.

use std::collections::{HashMap, HashSet};
use std::pin::Pin;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use http_body::{Body as HttpBody, Frame};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Shared;
use super::problem::{Kind, Problem};
use super::routes::{Answer, Content};
use crate::clock;
use crate::model::decision::{DecisionId, Loop};
use crate::model::pause::Pauses;
use crate::postgres::console::DecisionLine;
use crate::postgres::{Database, Error};

/// How often everybody is told how things stand.
const BEAT: Duration = Duration::from_secs(1);
/// Listeners at the same time.
const MOST_LISTENERS: usize = 256;
/// Events that one listener may be behind before it is let go.
const MOST_BEHIND: usize = 256;
/// Decisions of one loop that are told one by one in one beat; more show in the ledger alone.
const MOST_TOLD: i64 = 50;

pub(super) const ANSWERS: &[Answer] = &[
    Answer {
        status: 200,
        description: "Events without end: `beat` every second with the time and the ledger's version, `decision` \
                      for each decision but routing's, `pause` when loops are paused or go on",
        content: Content::Text("text/event-stream"),
    },
    Answer { status: 503, description: "Too many listen already", content: Content::Problem },
];

/// All who listen.
#[derive(Debug, Default)]
pub(super) struct Listeners(Mutex<Vec<mpsc::Sender<Bytes>>>);

impl Listeners {
    fn all(&self) -> MutexGuard<'_, Vec<mpsc::Sender<Bytes>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn join(&self) -> Option<mpsc::Receiver<Bytes>> {
        let mut all = self.all();
        all.retain(|listener| !listener.is_closed());
        if all.len() >= MOST_LISTENERS {
            return None;
        }
        let (listener, told) = mpsc::channel(MOST_BEHIND);
        // Whoever loses the connection comes back after so long.
        let _ = listener.try_send(Bytes::from_static(b"retry: 1000\n\n"));
        all.push(listener);
        Some(told)
    }

    fn are_none(&self) -> bool {
        let mut all = self.all();
        all.retain(|listener| !listener.is_closed());
        all.is_empty()
    }

    /// Who does not keep up is let go, and comes back by itself.
    fn tell(&self, event: &Bytes) {
        self.all().retain(|listener| listener.try_send(event.clone()).is_ok());
    }
}

fn event(name: &str, data: &Value) -> Bytes {
    // JSON in one line: line breaks in texts are escaped in it.
    Bytes::from(format!("event: {name}\ndata: {data}\n\n"))
}

/// What was told last.
#[derive(Default)]
struct Told {
    pauses: Option<Pauses>,
    decisions: HashMap<&'static str, HashSet<DecisionId>>,
}

/// Tells everybody until `shutdown`, then lets them go.
pub(super) async fn tell(shared: Shared, shutdown: CancellationToken) {
    let mut every = tokio::time::interval(BEAT);
    every.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        tokio::select! {
            _ = every.tick() => {}
            () = shutdown.cancelled() => break,
        }
        if shared.listeners.are_none() {
            told = Told::default();
            continue;
        }
        match look(&shared.database, &mut told).await {
            Ok(events) => events.iter().for_each(|event| shared.listeners.tell(event)),
            // Without a beat listeners know that nobody knows how things stand.
            Err(error) => tracing::debug!(%error, "listeners were not told how things stand"),
        }
    }
    shared.listeners.all().clear();
}

/// One look at how things stand.
async fn look(database: &Database, told: &mut Told) -> Result<Vec<Bytes>, Error> {
    let version = database.ledger_version().await?;
    let pauses = database.pauses().await?;
    let mut events = Vec::new();
    if told.pauses.as_ref().is_some_and(|known| *known != pauses) {
        let items: Vec<_> = pauses.iter().map(|(_, pause)| pause).collect();
        events.push(event("pause", &json!({ "at": clock::now(), "items": items })));
    }
    told.pauses = Some(pauses);
    for of in Loop::ALL.into_iter().filter(|of| *of != Loop::Route).map(Loop::name) {
        let newest = database.newest_decisions(of, MOST_TOLD).await?;
        let ids = newest.iter().map(|line| line.decision_id).collect();
        // What stood there before anybody listened is no news.
        if let Some(known) = told.decisions.insert(of, ids) {
            let fresh = newest.iter().rev().filter(|line| !known.contains(&line.decision_id));
            events.extend(fresh.map(|line| event("decision", &said(line))));
        }
    }
    events.push(event("beat", &json!({ "at": clock::now(), "version": version })));
    Ok(events)
}

fn said(line: &DecisionLine) -> Value {
    json!({
        "decisionId": line.decision_id, "loop": line.r#loop, "key": line.key, "mode": line.mode,
        "action": line.action, "reason": line.reason, "decidedAt": line.decided_at,
    })
}

pub(super) async fn listen(State(shared): State<Shared>) -> Result<Response, Problem> {
    let Some(told) = shared.listeners.join() else {
        return Err(Problem::new(Kind::Overloaded, "too many listen to the stream", "try again in a moment"));
    };
    Ok(([(header::CONTENT_TYPE, "text/event-stream")], Body::new(Stream(told))).into_response())
}

/// What one listener is told, as an answer's body.
struct Stream(mpsc::Receiver<Bytes>);

impl HttpBody for Stream {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.0.poll_recv(context).map(|told| told.map(|event| Ok(Frame::data(event))))
    }
}
