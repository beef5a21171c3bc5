//! Publishes what was appended to the outbox in Postgres: exactly once, in the order
//! of the ids.
//!
//! One instance at a time holds the lease and publishes; the others wait for it to
//! fall idle. That is for peace only: exactly-once rests on the mark that each Kafka
//! transaction carries and on fencing (see [`runtime::series`](crate::kafka::series)).
//! Rows are deleted after the commit; a crash in between leaves rows up to the mark,
//! which are out already and only deleted.

mod convert;

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::backoff::Backoff;
use crate::clock;
use crate::health::{Health, Part};
use crate::kafka::series::{Series, SeriesError};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::OutboundRecord;
use crate::metrics;
use crate::postgres::Database;
use crate::postgres::leases::Lease;
use crate::role::{self, Kind, Role};
use crate::topics;

/// What it is; its `name` is also that of its consumer group, clients and readiness.
pub static ROLE: Role = Role {
    name: "outbox",
    kind: Kind::Relay,
    description: "publishes what other roles wrote with a change in Postgres, and dead letters sent again; once and in order",
    reads: &[],
    writes: &[
        &topics::SETTINGS,
        &topics::CANARY_FACTS,
        &topics::PROMOTIONS,
        &topics::OUTCOMES,
        &topics::CONVERSATIONS,
        &topics::COMPLIANCE_WARNINGS,
        &topics::ROUTING_DECISIONS,
    ],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[&topics::OUTBOX_PROGRESS],
    outside: &[role::POSTGRES],
};

/// How the outbox is published.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Messages in one transaction at most. Default 500.
    pub batch_messages: i64,
    /// Bytes of their values at most, but for a single one. Default 4 MiB.
    pub batch_bytes: i64,
    /// How soon an outbox that was just emptied is looked at again, and how seldom one that
    /// stays empty. Default 50 and 200 ms.
    pub interval: (Duration, Duration),
    /// After how long without renewal another instance takes the lease. Default 6 s.
    pub idle: Duration,
    /// Shortest and longest pause before something that failed is tried again.
    pub retry: (Duration, Duration),
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            batch_messages: 500,
            batch_bytes: 4 * 1_024 * 1_024,
            interval: (Duration::from_millis(50), Duration::from_millis(200)),
            idle: Duration::from_secs(6),
            retry: (Duration::from_millis(100), Duration::from_secs(5)),
        }
    }
}

/// How often the lease is renewed, or asked for.
const RENEWAL: Duration = Duration::from_secs(1);
/// How often the backlog is measured, and old dedupe keys are forgotten.
const HOUSEKEEPING: Duration = Duration::from_secs(2);
/// How long letting the lease go may take once shutdown has begun.
const FAREWELL: Duration = Duration::from_secs(1);

/// Publishes until `shutdown`. What fails is tried again and shown on `health`.
pub async fn run(
    settings: Settings,
    kafka: KafkaSettings,
    database: Database,
    health: &Health,
    shutdown: CancellationToken,
) {
    let outbox = Outbox { settings, kafka, database, part: health.part(ROLE.name) };
    let mut pauses = Backoff::new(outbox.settings.retry);
    while !shutdown.is_cancelled() {
        let wait = match outbox.take_turn(&shutdown).await {
            Ok(()) => {
                pauses.reset();
                RENEWAL
            }
            Err(reason) => {
                tracing::warn!(reason, "the outbox is not published; trying on");
                outbox.part.not_ready(reason);
                pauses.pause()
            }
        };
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            () = shutdown.cancelled() => {}
        }
    }
}

struct Outbox {
    settings: Settings,
    kafka: KafkaSettings,
    database: Database,
    part: Part,
}

impl Outbox {
    /// Publishes for as long as the lease is ours, if it is free.
    async fn take_turn(&self, shutdown: &CancellationToken) -> Result<(), String> {
        let taken = tokio::select! {
            taken = self.database.take_idle_lease(ROLE.name, &self.kafka.instance, self.settings.idle) => taken,
            () = shutdown.cancelled() => return Ok(()),
        };
        let Some(lease) = taken.map_err(|error| error.to_string())? else {
            // Another instance publishes.
            self.part.ready();
            return Ok(());
        };
        tracing::info!(token = lease.token, "publishing the outbox");
        let stop = shutdown.child_token();
        let renewal = tokio::spawn(renew(self.database.clone(), lease.clone(), stop.clone()));
        let published = self.publish(&lease, &stop).await;
        stop.cancel();
        let _ = renewal.await;
        metrics::OUTBOX_BACKLOG.gauge(&[]).set(0.0);
        metrics::OUTBOX_OLDEST_SECONDS.gauge(&[]).set(0.0);
        if shutdown.is_cancelled() {
            // Left to itself it is free after a while as well.
            let _ = tokio::time::timeout(FAREWELL, self.database.release_lease(&lease)).await;
        }
        published
    }

    async fn publish(&self, lease: &Lease, stop: &CancellationToken) -> Result<(), String> {
        let identity = tokio::select! {
            identity = self.database.outbox_identity() => identity.map_err(|error| error.to_string())?,
            () = stop.cancelled() => return Ok(()),
        };
        let name = identity.id.to_string();
        let series = Series::new(&self.kafka, ROLE.name, name, &topics::OUTBOX_PROGRESS, stop.clone());
        let result = async {
            let mark = series.mark().await.map_err(|error| error.to_string())?;
            if mark > identity.last {
                return Err(set_back(mark, identity.last));
            }
            self.follow(&series, lease, mark, stop).await
        };
        let result = tokio::select! {
            result = result => result,
            () = stop.cancelled() => Ok(()),
        };
        series.close().await;
        result
    }

    /// Reads on from `mark`, publishes, deletes.
    async fn follow(
        &self,
        series: &Series,
        lease: &Lease,
        mut mark: i64,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        let told = |error: crate::postgres::Error| error.to_string();
        // What a predecessor published and did not come to delete.
        self.database.delete_published(mark, lease).await.map_err(told)?;
        let Settings { batch_messages, batch_bytes, interval, .. } = self.settings;
        let mut housekeeping_at = Instant::now();
        let mut pause = interval.0;
        while !stop.is_cancelled() {
            if housekeeping_at <= Instant::now() {
                self.keep_house(mark).await.map_err(told)?;
                housekeeping_at = Instant::now() + HOUSEKEEPING;
            }
            let waiting =
                self.database.outbox_after(mark, batch_messages, batch_bytes).await.map_err(told)?;
            self.part.ready();
            let Some(last) = waiting.last().map(|message| message.id) else {
                tokio::time::sleep(pause).await;
                pause = (2 * pause).min(interval.1);
                continue;
            };
            pause = interval.0;
            let at = clock::now();
            let rows =
                waiting.into_iter().map(|message| (message.id, convert::record(message, &self.kafka, at)));
            let rows: Vec<Row> = rows.collect();
            let records: Vec<OutboundRecord> = rows.iter().map(|(_, record)| record.clone()).collect();
            match series.publish(mark, records, last).await {
                Ok(()) => count(rows.iter().map(|(_, record)| record)),
                Err(SeriesError::Refused(_)) => self.publish_one_by_one(series, mark, rows).await?,
                Err(error) => return Err(error.to_string()),
            }
            mark = last;
            fail::fail_point!("outbox-before-delete", |_| std::process::abort());
            self.database.delete_published(mark, lease).await.map_err(told)?;
        }
        Ok(())
    }

    /// Finds those that the brokers refuse, and publishes their dead letters instead.
    async fn publish_one_by_one(&self, series: &Series, mut mark: i64, rows: Vec<Row>) -> Result<(), String> {
        for (id, mut record) in rows {
            loop {
                match series.publish(mark, vec![record.clone()], id).await {
                    Ok(()) => break,
                    Err(SeriesError::Refused(why)) => {
                        let topic = record.topic.name;
                        let instead = convert::instead_of(record, id, &why, &self.kafka, clock::now());
                        record = instead.ok_or_else(|| {
                            format!("the brokers refuse even the shortest dead letter of message {id}: {why}")
                        })?;
                        tracing::error!(id, topic, why, "the brokers refuse a message; it is set aside");
                    }
                    Err(error) => return Err(error.to_string()),
                }
            }
            count([&record]);
            mark = id;
        }
        Ok(())
    }

    async fn keep_house(&self, mark: i64) -> Result<(), crate::postgres::Error> {
        let backlog = self.database.outbox_backlog(mark).await?;
        metrics::OUTBOX_BACKLOG.gauge(&[]).set(backlog.messages as f64);
        metrics::OUTBOX_OLDEST_SECONDS.gauge(&[]).set(backlog.oldest_seconds);
        self.database.forget_outbox_keys().await?;
        Ok(())
    }
}

/// A row's id, and the record it becomes.
type Row = (i64, OutboundRecord);

/// Counts what was published.
fn count<'r>(records: impl IntoIterator<Item = &'r OutboundRecord>) {
    for record in records {
        let is_letter = *record.topic == topics::DEAD_LETTERS;
        metrics::OUTBOX_MESSAGES.counter(&[if is_letter { "dead_letter" } else { "published" }]).increment(1);
    }
}

/// Renews the lease until `stop`, which it is itself once somebody else has taken it.
async fn renew(database: Database, lease: Lease, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(RENEWAL) => {}
            () = stop.cancelled() => return,
        }
        // Without an answer nothing is known; publishing needs the database as well.
        if let Ok(false) = database.renew_lease(&lease).await {
            tracing::warn!(token = lease.token, "somebody else has taken the lease of the outbox");
            return stop.cancel();
        }
    }
}

/// Ids that are given out a second time would be taken for published.
fn set_back(mark: i64, last: i64) -> String {
    format!(
        "messages up to {mark} of this outbox are published, but the database has given out ids up to {last} \
         only: it was restored from a backup; nothing is published, because what waits may be out already. To \
         publish all of it, as owner of the database: UPDATE trunkline.outbox_identity SET id = gen_random_uuid()"
    )
}
