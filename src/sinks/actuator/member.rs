//! The loop of one instance: partitions come and go, decisions begin and end,
//! outcomes leave.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

use super::carry::{Carrying, Interrupted, end_at_once};
use super::lanes::{Lanes, Turn};
use super::leases::{Held, Leases};
use super::platform::{Ledger, Platform};
use super::publication::{Batch, Finished};
use super::tracker::Tracker;
use super::{Actuator, ActuatorError, ROLE};
use crate::health::Health;
use crate::metrics;
use crate::postgres::leases::Lease;
use crate::runtime::decided::{self, Ending};
use crate::runtime::subscription::{
    Event, InboundRecord, PublishError, Start, Subscription, SubscriptionHandle, SubscriptionOptions,
    TopicPartition,
};
use crate::telemetry;
use crate::topics::{DIAL_DECISIONS, headers};

/// Records in one transaction at most.
const BATCH_LIMIT: usize = 500;
/// How long decisions under way are waited for when their partition goes or the
/// process stops: a write on its way gets 1.5 s for its reply, the ledger the rest.
const WIND_UP: Duration = Duration::from_millis(2_000);
/// How long the last outcomes may take to leave after that.
const LAST_WORD: Duration = Duration::from_millis(1_500);

/// A decision and where it stands.
struct Job {
    partition: TopicPartition,
    epoch: u64,
    record: InboundRecord,
    lease: Held,
    stop: CancellationToken,
}

/// A job that has ended.
struct Ended {
    lane: Lane,
    partition: TopicPartition,
    epoch: u64,
    record: InboundRecord,
    result: Result<Ending, Interrupted>,
}

type Lane = (TopicPartition, String);

struct Partition {
    /// Tells a partition that came back from the one that went.
    epoch: u64,
    tracker: Tracker<Finished>,
    running: usize,
    lease: Held,
    stop: CancellationToken,
}

type Publishing = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

struct Member<P, L> {
    actuator: Arc<Actuator<P, L>>,
    handle: SubscriptionHandle,
    shutdown: CancellationToken,
    leases: Leases<P, L>,
    lost_leases: mpsc::UnboundedSender<(TopicPartition, Lease)>,
    partitions: HashMap<TopicPartition, Partition>,
    next_epoch: u64,
    lanes: Lanes<Lane, Job>,
    jobs: JoinSet<Ended>,
    publishing: Option<(Publishing, Batch)>,
    publish_after: Instant,
    failed_publications: u32,
    /// Partitions on their way out, and until when they are waited for.
    leaving: Option<(Vec<TopicPartition>, Instant)>,
    paused: bool,
}

/// See [`Actuator::run`].
pub async fn run<P: Platform, L: Ledger>(
    actuator: Arc<Actuator<P, L>>,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), ActuatorError> {
    let options = SubscriptionOptions {
        buffered_records: 256,
        batch_records: 128,
        publishes: true,
        health: Some(health.part(ROLE)),
        ..SubscriptionOptions::default()
    };
    let mut subscription =
        Subscription::open(&actuator.kafka, ROLE, &[&DIAL_DECISIONS], options, shutdown.clone())?;
    let (lost_leases, mut leases_lost) = mpsc::unbounded_channel();
    let mut member = Member {
        leases: Leases::new(Arc::clone(&actuator), health.part("actuator.leases")),
        actuator,
        handle: subscription.handle(),
        shutdown,
        lost_leases,
        partitions: HashMap::new(),
        next_epoch: 0,
        lanes: Lanes::default(),
        jobs: JoinSet::new(),
        publishing: None,
        publish_after: Instant::now(),
        failed_publications: 0,
        leaving: None,
        paused: false,
    };
    loop {
        member.publish();
        member.finish_leaving().await;
        member.regulate().await;
        let ready_at = member.next_look();
        tokio::select! {
            event = subscription.next() => match event {
                Event::Closed => break,
                Event::Failed(error) => {
                    member.stop_all();
                    return Err(error.into());
                }
                event => member.on_event(event).await,
            },
            Some(ended) = member.jobs.join_next() => member.on_end(ended.expect("a job does not panic")),
            result = published(&mut member.publishing) => member.on_published(result)?,
            Some((partition, lease)) = leases_lost.recv() => member.on_lease_lost(partition, &lease),
            () = sleep_until(ready_at) => {}
        }
    }
    member.wind_up().await;
    subscription.close().await;
    Ok(())
}

/// The end of the publication under way; pending where there is none.
async fn published(publishing: &mut Option<(Publishing, Batch)>) -> Result<(), PublishError> {
    match publishing {
        Some((publication, _)) => publication.await,
        None => std::future::pending().await,
    }
}

impl<P: Platform, L: Ledger> Member<P, L> {
    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Assigned(partitions) => self.on_assigned(partitions).await,
            Event::Revoked(partitions) => {
                for partition in &partitions {
                    self.stop(partition);
                }
                self.leaving = Some((partitions, Instant::now() + WIND_UP));
            }
            Event::Lost(partitions) => {
                for partition in &partitions {
                    self.stop(partition);
                    self.drop_partition(partition);
                }
            }
            Event::Records(records) => records.into_iter().for_each(|record| self.on_record(record)),
            Event::Failed(_) | Event::Closed => {}
        }
    }

    async fn on_assigned(&mut self, partitions: Vec<TopicPartition>) {
        if self.paused {
            self.handle.pause(partitions.clone()).await;
        }
        for partition in partitions {
            self.next_epoch += 1;
            let stop = self.shutdown.child_token();
            let lease = self.leases.begin(partition, stop.clone());
            let (mut taken, handle, ended) = (lease.clone(), self.handle.clone(), stop.clone());
            // Nothing is read before the lease is ours: what a former holder had
            // begun is on record by then.
            tokio::spawn(async move {
                tokio::select! {
                    held = taken.wait_for(Option::is_some) => {
                        if held.is_err() {
                            return;
                        }
                    }
                    () = ended.cancelled() => return,
                }
                handle.start(vec![(partition, Start::Committed)]).await;
            });
            let epoch = self.next_epoch;
            let partition_here = Partition { epoch, tracker: Tracker::default(), running: 0, lease, stop };
            self.partitions.insert(partition, partition_here);
        }
    }

    fn on_record(&mut self, record: InboundRecord) {
        let partition = record.topic_partition();
        let Some(here) = self.partitions.get_mut(&partition) else { return };
        if here.stop.is_cancelled() || !here.tracker.begin(record.offset) {
            return;
        }
        let now = self.actuator.now();
        let (lane, at_once) = match decided::read(&record) {
            Err(reason) => {
                tracing::error!(%partition, offset = record.offset, %reason, "a decision cannot be read; set aside");
                (None, Some(Ending::DeadLetter { reason, at: now }))
            }
            Ok(decision) => {
                let ending = end_at_once(&decision, now).map(|outcome| Ending::Outcome(Box::new(outcome)));
                (Some((partition, decision.key.clone().into_owned())), ending)
            }
        };
        match (lane, at_once) {
            (lane, Some(ending)) => {
                if let Some(lane) = lane {
                    self.lanes.supersede(&lane);
                }
                self.finish(partition, &record, &ending);
            }
            (Some(lane), None) => {
                let job = Job {
                    partition,
                    epoch: here.epoch,
                    record,
                    lease: here.lease.clone(),
                    stop: here.stop.clone(),
                };
                if let Some(turn) = self.lanes.arrive(&lane, job) {
                    self.launch(lane, turn);
                }
            }
            (None, None) => unreachable!("what cannot be read ends at once"),
        }
    }

    fn launch(&mut self, lane: Lane, turn: Turn<Job>) {
        if let Some(here) = self.partitions.get_mut(&turn.work.partition) {
            here.running += 1;
        }
        let (actuator, lost) = (Arc::clone(&self.actuator), self.lost_leases.clone());
        self.jobs.spawn(carry_out(actuator, lost, lane, turn));
    }

    fn on_end(&mut self, ended: Ended) {
        let current = self.partitions.get_mut(&ended.partition).filter(|here| here.epoch == ended.epoch);
        let Some(here) = current else { return };
        here.running -= 1;
        if let Ok(ending) = &ended.result {
            self.finish(ended.partition, &ended.record, ending);
        }
        if let Some(turn) = self.lanes.leave(&ended.lane)
            && !turn.work.stop.is_cancelled()
        {
            self.launch(ended.lane, turn);
        }
    }

    fn finish(&mut self, partition: TopicPartition, record: &InboundRecord, ending: &Ending) {
        let topic = self.actuator.kafka.topic(record.topic);
        let outbound = decided::outbound(ROLE, record, &topic, ending);
        let status = match ending {
            Ending::Outcome(outcome) => outcome.status.name(),
            Ending::DeadLetter { .. } => "dead_letter",
        };
        if let Some(here) = self.partitions.get_mut(&partition) {
            here.tracker.finish(record.offset, Finished { outbound, status });
        }
    }

    /// Begins a publication unless one is under way.
    fn publish(&mut self) {
        if self.publishing.is_some() || Instant::now() < self.publish_after {
            return;
        }
        let trackers = self.partitions.iter().map(|(partition, here)| (*partition, &here.tracker));
        let mut batch = Batch::collect(trackers, BATCH_LIMIT);
        if batch.is_empty() {
            return;
        }
        fail::fail_point!("actuator-before-publish", |_| std::process::abort());
        let (records, offsets, handle) =
            (std::mem::take(&mut batch.records), batch.offsets.clone(), self.handle.clone());
        let publication = Box::pin(async move { handle.publish(records, offsets).await });
        self.publishing = Some((publication, batch));
    }

    fn on_published(&mut self, result: Result<(), PublishError>) -> Result<(), ActuatorError> {
        let Some((_, batch)) = self.publishing.take() else { return Ok(()) };
        match result {
            Ok(()) => {
                self.failed_publications = 0;
                for (partition, next) in batch.offsets {
                    if let Some(here) = self.partitions.get_mut(&partition) {
                        here.tracker.published(next);
                    }
                }
                for status in batch.statuses {
                    metrics::ACTUATOR_OUTCOMES.counter(&[status]).increment(1);
                }
            }
            Err(PublishError::TooLarge { topic, bytes, limit }) => {
                let reason = PublishError::TooLarge { topic, bytes, limit }.to_string();
                return Err(ActuatorError::Unpublishable(reason));
            }
            // The event that says so is on its way.
            Err(error @ (PublishError::Retry(_) | PublishError::Gone(_) | PublishError::Closed)) => {
                let pause = Duration::from_millis(50 << self.failed_publications.min(6));
                self.failed_publications += 1;
                self.publish_after = Instant::now() + pause;
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "outcomes wait to be published");
            }
        }
        Ok(())
    }

    fn on_lease_lost(&mut self, partition: TopicPartition, lease: &Lease) {
        if let Some(here) = self.partitions.get(&partition) {
            self.leases.lost(partition, lease, here.stop.clone());
        }
    }

    fn stop(&mut self, partition: &TopicPartition) {
        if let Some(here) = self.partitions.get(partition) {
            here.stop.cancel();
        }
        self.leases.forget(*partition);
    }

    fn stop_all(&mut self) {
        let all: Vec<_> = self.partitions.keys().copied().collect();
        for partition in &all {
            self.stop(partition);
        }
    }

    fn drop_partition(&mut self, partition: &TopicPartition) {
        self.partitions.remove(partition);
        self.lanes.forget(|(lane, _)| lane == partition);
    }

    /// Whether nothing of these partitions is under way any more.
    fn is_quiet(&self, partitions: &[TopicPartition]) -> bool {
        let here = |partition| self.partitions.get(partition);
        self.publishing.is_none()
            && partitions
                .iter()
                .filter_map(here)
                .all(|here: &Partition| here.running == 0 && here.tracker.publishable(1).1.is_none())
    }

    async fn finish_leaving(&mut self) {
        let Some((partitions, until)) = self.leaving.take() else { return };
        if Instant::now() < until && !self.is_quiet(&partitions) {
            self.leaving = Some((partitions, until));
            return;
        }
        for partition in &partitions {
            self.drop_partition(partition);
        }
        self.handle.acknowledge_revocation().await;
    }

    /// When the loop must look again although nothing has happened.
    fn next_look(&self) -> Instant {
        let leaving = self.leaving.as_ref().map(|(_, until)| *until);
        let publishing = (self.publish_after > Instant::now()).then_some(self.publish_after);
        let far = Instant::now() + Duration::from_secs(60);
        [leaving, publishing].into_iter().flatten().fold(far, Instant::min)
    }

    /// Reading pauses while too many decisions are under way.
    async fn regulate(&mut self) {
        let in_flight: usize = self.partitions.values().map(|here| here.tracker.len()).sum();
        metrics::ACTUATOR_IN_FLIGHT.gauge(&[]).set(in_flight as f64);
        let limit = self.actuator.settings.in_flight_limit;
        let pause = if self.paused { in_flight > limit / 2 } else { in_flight >= limit };
        if pause != self.paused {
            self.paused = pause;
            let all = self.partitions.keys().copied().collect();
            if pause { self.handle.pause(all).await } else { self.handle.resume(all).await }
        }
    }

    /// The process stops: every wait ends, what has ended leaves.
    async fn wind_up(&mut self) {
        self.stop_all();
        let all: Vec<_> = self.partitions.keys().copied().collect();
        let jobs_until = Instant::now() + WIND_UP;
        let mut until = jobs_until + LAST_WORD;
        while !self.is_quiet(&all) && Instant::now() < until {
            self.publish();
            // Without jobs the last word is all that is waited for.
            if self.jobs.is_empty() {
                until = until.min(Instant::now() + LAST_WORD);
            }
            let look_again = self.next_look().min(until);
            tokio::select! {
                Some(ended) = self.jobs.join_next() => self.on_end(ended.expect("a job does not panic")),
                result = published(&mut self.publishing) => {
                    if let Err(error) = self.on_published(result) {
                        tracing::error!(%error, "while stopping");
                        break;
                    }
                }
                () = sleep_until(look_again) => {}
            }
        }
        self.jobs.abort_all();
    }
}

/// Carries one decision out, under whatever lease stands, until it ends.
async fn carry_out<P: Platform, L: Ledger>(
    actuator: Arc<Actuator<P, L>>,
    lost: mpsc::UnboundedSender<(TopicPartition, Lease)>,
    lane: Lane,
    turn: Turn<Job>,
) -> Ended {
    let Turn { work: Job { partition, epoch, record, mut lease, stop }, superseded } = turn;
    let span = tracing::info_span!("carry_out", partition = record.partition, offset = record.offset);
    if let Some((_, traceparent)) = record.headers.iter().find(|(name, _)| name == headers::TRACEPARENT) {
        telemetry::continue_trace(&span, traceparent);
    }
    let result = async {
        let decision = match decided::read(&record) {
            Ok(decision) => decision,
            Err(reason) => return Ok(Ending::DeadLetter { reason, at: actuator.now() }),
        };
        let mut last: Option<Lease> = None;
        loop {
            let held = tokio::select! {
                held = lease.wait_for(|held| held.is_some() && *held != last) => {
                    held.ok().and_then(|held| held.clone())
                }
                () = stop.cancelled() => None,
            };
            let Some(held) = held else { return Err(Interrupted::Stopped) };
            let carrying =
                Carrying::new(&actuator, &decision, held.clone(), superseded.clone(), stop.clone());
            match carrying.run().await {
                Err(Interrupted::LeaseLost) => {
                    let _ = lost.send((partition, held.clone()));
                    last = Some(held);
                }
                Ok(outcome) => return Ok(Ending::Outcome(Box::new(outcome))),
                Err(interrupted) => return Err(interrupted),
            }
        }
    }
    .instrument(span)
    .await;
    Ended { lane, partition, epoch, record, result }
}
