//! Asks the platform about conversations that are due and deals with the answers.
//!
//! One instance does so at a time, the owner of the events' partition 0: several would
//! each send half-empty queries. It needs no lease of its own. A former owner that does
//! not know yet that it is one wastes calls, no more: each answer names the round it was
//! asked in, and a round is dealt with once. What a killed owner had asked about is still
//! due, so its successor asks again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Settings;
use super::batching::{Appetite, Batch, Due, Limits, batches, windows};
use super::finish::{Finished, finish};
use crate::backoff::Backoff;
use crate::clock;
use crate::genesys::{CallError, CallErrorKind, Client, DetailsQuery, Priority, Scope};
use crate::health::Part;
use crate::metrics;
use crate::model::organization::OneOf;
use crate::postgres::{Database, Error};
use crate::topics;

/// Conversations deleted with one transaction at most.
const PRUNE_BATCH: u32 = 500;
/// How often is looked for what to delete while there is nothing.
const PRUNE_INTERVAL: Duration = Duration::from_secs(60);
/// Shortest time between two looks for what is due.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How often the backlog is measured.
const MEASURE_INTERVAL: Duration = Duration::from_secs(5);
/// Events' own times may differ a little from the platform's.
const WINDOW_MARGIN: Duration = Duration::from_secs(60);
/// The platform answers about 31 days at most.
const LONGEST_WINDOW: Duration = Duration::from_secs(30 * 86_400);
/// Queries under way are given this long when the process stops.
const GRACE: Duration = Duration::from_secs(1);

/// What every query needs.
pub(super) struct Asking {
    pub settings: Settings,
    /// Whose conversations are asked about: an organisation that does not answer holds up its own.
    pub of: OneOf,
    pub client: Client,
    pub database: Database,
    /// The events' topic by its full name.
    pub events_topic: String,
    pub part: Part,
}

/// One instance's turn as the one that asks.
pub(super) struct Flusher {
    asking: Arc<Asking>,
    queries: JoinSet<Ended>,
    /// Who is being asked about.
    under_way: Vec<String>,
    appetite: Appetite,
    pause: Backoff,
    /// While Postgres does not answer.
    database_pause: Backoff,
    /// Failures in a row: while there are any, one query at a time is tried.
    failing: bool,
    not_before: Instant,
    sent_at: Instant,
    prune_at: Instant,
    measure_at: Instant,
}

/// A query's end.
struct Ended {
    batch: Batch,
    result: Result<Finished, Failure>,
}

enum Failure {
    Call(CallError),
    Database(Error),
    Stopped,
}

impl Flusher {
    pub(super) fn new(asking: Arc<Asking>) -> Self {
        let now = Instant::now();
        Self {
            appetite: Appetite::new(asking.settings.batch),
            queries: JoinSet::new(),
            under_way: Vec::new(),
            pause: Backoff::new(asking.settings.pauses),
            database_pause: Backoff::new(asking.settings.retry),
            asking,
            failing: false,
            not_before: now,
            sent_at: now,
            prune_at: now,
            measure_at: now,
        }
    }

    /// Works until `stop`.
    pub(super) async fn run(mut self, stop: CancellationToken) {
        let look_every = (self.asking.settings.linger / 4).max(LOOK_EVERY);
        while !stop.is_cancelled() {
            let work = async {
                // Once for all organisations.
                if self.asking.of.name.is_none() {
                    self.measure().await?;
                    self.prune().await?;
                }
                self.send(&stop).await
            };
            let worked = tokio::select! {
                worked = work => worked,
                () = stop.cancelled() => break,
            };
            let look_again = match worked {
                Ok(()) => {
                    self.database_pause.reset();
                    look_every
                }
                Err(error) => {
                    tracing::warn!(%error, "enrichment waits for Postgres");
                    self.asking.part.impaired(error.to_string());
                    self.database_pause.pause()
                }
            };
            tokio::select! {
                Some(ended) = self.queries.join_next() => self.on_end(ended.expect("a query does not panic")).await,
                () = tokio::time::sleep(look_again) => {}
                () = stop.cancelled() => {}
            }
        }
        let _ =
            tokio::time::timeout(GRACE, async { while self.queries.join_next().await.is_some() {} }).await;
        metrics::ENRICHMENT_PENDING.gauge(&[]).set(0.0);
        metrics::ENRICHMENT_OLDEST_SECONDS.gauge(&[]).set(0.0);
    }

    /// Sends what is due, as far as calls may be made now.
    async fn send(&mut self, stop: &CancellationToken) -> Result<(), Error> {
        let settings = &self.asking.settings;
        let most = if self.failing { 1 } else { settings.queries };
        let free = most.saturating_sub(self.queries.len());
        if free == 0 || Instant::now() < self.not_before {
            return Ok(());
        }
        let limits = Limits {
            conversations: self.appetite.conversations(),
            span: settings.span,
            linger: settings.linger,
        };
        let (database, most) = (&self.asking.database, free * limits.conversations);
        let rows = database.due_conversations(&self.asking.of, &self.under_way, most).await?;
        let due = rows.into_iter().map(|row| Due {
            conversation_id: row.conversation_id,
            first_event_at: row.first_event_at,
            last_event_at: row.last_event_at,
            round: row.rounds,
            waited: row.waited,
        });
        // While others are out a query that is not full may still be filled.
        let quiet_for = if self.queries.is_empty() { self.sent_at.elapsed() } else { Duration::ZERO };
        for batch in batches(due.collect(), &limits, quiet_for, free) {
            self.sent_at = Instant::now();
            metrics::ENRICHMENT_BATCH.histogram(&[]).record(batch.conversations.len() as f64);
            self.under_way.extend(batch.conversations.iter().map(|due| due.conversation_id.clone()));
            let (asking, stop) = (Arc::clone(&self.asking), stop.clone());
            self.queries.spawn(async move {
                let result = ask(&asking, &batch, stop).await;
                Ended { batch, result }
            });
        }
        Ok(())
    }

    async fn on_end(&mut self, ended: Ended) {
        let batch = &ended.batch;
        self.under_way.retain(|id| batch.conversations.iter().all(|due| due.conversation_id != *id));
        match ended.result {
            Ok(finished) => {
                self.appetite.taken();
                self.failing = false;
                self.pause.reset();
                self.asking.part.ready();
                count(finished);
            }
            Err(Failure::Stopped) => {}
            Err(Failure::Database(error)) => self.on_refusal(batch, error.to_string()).await,
            Err(Failure::Call(error)) => self.on_failure(batch, error).await,
        }
    }

    /// Only a refusal counts as an attempt: else the platform said nothing about the conversations.
    async fn on_failure(&mut self, batch: &Batch, error: CallError) {
        let now = Instant::now();
        match error.kind {
            CallErrorKind::Cancelled => {}
            // The budget keeps the time; until then queries fill.
            CallErrorKind::RateLimited { until } => self.not_before = self.not_before.max(until),
            CallErrorKind::Paused { until } => {
                self.fail(&error.reason);
                let until = until.unwrap_or(now + self.asking.settings.pauses.0);
                self.not_before = self.not_before.max(until);
            }
            CallErrorKind::Rejected | CallErrorKind::NotFound | CallErrorKind::Conflict => {
                self.on_refusal(batch, error.reason).await;
            }
            // A garbled reply happens; two in a row may be too large.
            CallErrorKind::Malformed if self.failing => self.on_refusal(batch, error.reason).await,
            _ => {
                self.fail(&error.reason);
                self.not_before = now + self.pause.pause();
            }
        }
    }

    /// The query itself may be at fault, or one conversation in it: smaller ones find out
    /// which. That one is refused alone counts as an answer without it: it waits, holds up
    /// nobody, and is given up in the end.
    async fn on_refusal(&mut self, batch: &Batch, reason: String) {
        self.fail(&reason);
        self.not_before = Instant::now() + self.pause.pause();
        self.appetite.refused();
        if let [due] = batch.conversations.as_slice() {
            tracing::error!(
                conversation_id = due.conversation_id,
                reason,
                "a conversation cannot be asked about"
            );
            let Asking { database, events_topic, settings, .. } = &*self.asking;
            let nothing = BTreeMap::new();
            match finish(database, events_topic, &settings.waits, batch, &nothing, clock::now()).await {
                Ok(finished) => count(finished),
                Err(error) => tracing::warn!(%error, "it could not be put off"),
            }
        }
    }

    fn fail(&mut self, reason: &str) {
        if !self.failing {
            tracing::warn!(reason, "conversations cannot be enriched: they wait");
        }
        self.failing = true;
        self.asking.part.impaired(format!("conversations wait to be enriched: {reason}"));
    }

    async fn measure(&mut self) -> Result<(), Error> {
        if Instant::now() < self.measure_at {
            return Ok(());
        }
        let backlog = self.asking.database.conversation_backlog().await?;
        metrics::ENRICHMENT_PENDING.gauge(&[]).set(backlog.conversations as f64);
        metrics::ENRICHMENT_OLDEST_SECONDS.gauge(&[]).set(backlog.oldest.as_secs_f64());
        self.measure_at = Instant::now() + MEASURE_INTERVAL;
        if !self.failing {
            self.asking.part.ready();
        }
        Ok(())
    }

    async fn prune(&mut self) -> Result<(), Error> {
        if Instant::now() < self.prune_at {
            return Ok(());
        }
        let (database, retention) = (&self.asking.database, self.asking.settings.retention);
        let pruned = database.prune_conversations(topics::CONVERSATIONS.name, retention, PRUNE_BATCH).await?;
        metrics::ENRICHMENT_CONVERSATIONS.counter(&["pruned"]).increment(pruned);
        if pruned < u64::from(PRUNE_BATCH) {
            self.prune_at = Instant::now() + PRUNE_INTERVAL.min(retention);
        }
        Ok(())
    }
}

/// One query from its question to its rows.
async fn ask(asking: &Asking, batch: &Batch, stop: CancellationToken) -> Result<Finished, Failure> {
    let ids: Vec<&str> = batch.conversations.iter().map(|due| due.conversation_id.as_str()).collect();
    let scope = Scope {
        priority: Priority::Read,
        deadline: Instant::now() + asking.settings.query_limit,
        cancelled: stop.clone(),
        withdrawn: CancellationToken::new(),
        waited_ms: Arc::default(),
    };
    let mut found = BTreeMap::new();
    for (from, to) in windows(batch.from.minus(WINDOW_MARGIN), batch.to.plus(WINDOW_MARGIN), LONGEST_WINDOW) {
        let query = DetailsQuery { conversation_ids: &ids, from, to };
        found.extend(asking.client.conversation_details(&query, &scope).await.map_err(Failure::Call)?);
        if found.len() == ids.len() {
            break;
        }
    }
    fail::fail_point!("enrichment-after-call", |_| std::process::abort());
    keep(asking, batch, &found, &stop).await
}

/// An answer that is here is not asked for again because the database is away.
async fn keep(
    asking: &Asking,
    batch: &Batch,
    found: &BTreeMap<String, serde_json::Value>,
    stop: &CancellationToken,
) -> Result<Finished, Failure> {
    let mut pause = Backoff::new(asking.settings.retry);
    let at = clock::now();
    loop {
        let (database, waits) = (&asking.database, &asking.settings.waits);
        match finish(database, &asking.events_topic, waits, batch, found, at).await {
            Ok(finished) => return Ok(finished),
            Err(error) if error.is_about_data() => return Err(Failure::Database(error)),
            Err(error) => {
                tracing::warn!(%error, "an answer waits for Postgres");
                if !pause.wait(stop).await {
                    return Err(Failure::Stopped);
                }
            }
        }
    }
}

fn count(finished: Finished) {
    for (result, number) in [
        ("enriched", finished.enriched),
        ("missing", finished.missing),
        ("not_available", finished.given_up),
        ("outdated", finished.outdated),
    ] {
        metrics::ENRICHMENT_CONVERSATIONS.counter(&[result]).increment(number);
    }
}
