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

use super::execution::{Execution, Interrupted, end_at_once};
use super::leases::{PartitionLease, PartitionLeases, Source};
use super::ledger::Ledger;
use super::publication::{Batch, Finished};
use super::queues::{KeyQueues, Turn};
use super::tracker::Tracker;
use super::{Actuation, ActuationError, Change, Exclusivity, Point};
use crate::health::{Health, Part};
use crate::kafka::subscription::{
    Event, InboundRecord, PublishError, Start, Subscription, SubscriptionHandle, SubscriptionOptions,
    TopicPartition,
};
use crate::postgres::leases::Lease;
use crate::runtime::clock;
use crate::runtime::decided::{self, Ending};
use crate::sinks::backoff::Backoff;
use crate::telemetry;
use crate::topics::headers;

/// Decisions in one transaction at most.
const BATCH_LIMIT: usize = 500;
/// How long decisions under way are waited for when their partition goes or the
/// process stops: a write on its way gets 1.5 s for its reply, the ledger the rest.
const WIND_UP: Duration = Duration::from_millis(2_000);
/// How long the last outcomes may take to leave after that.
const LAST_WORD: Duration = Duration::from_millis(1_500);

/// Pauses between tries to publish.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(3_200));

/// A decision and where it stands.
struct Job {
    partition: TopicPartition,
    epoch: u64,
    record: InboundRecord,
    lease: Source,
    stop: CancellationToken,
}

/// A job that has ended.
struct Ended {
    queue: Queue,
    partition: TopicPartition,
    epoch: u64,
    record: InboundRecord,
    result: Result<Ending, Interrupted>,
}

/// What waits for each other: decisions of one key in one partition, or all.
type Queue = Option<(TopicPartition, String)>;

struct Partition {
    /// Tells a partition that came back from the one that went.
    epoch: u64,
    tracker: Tracker<Finished>,
    running: usize,
    /// Where partitions have leases.
    lease: Option<PartitionLease>,
    stop: CancellationToken,
}

type Publishing = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

struct Member<C, L> {
    actuation: Arc<Actuation<C, L>>,
    handle: SubscriptionHandle,
    shutdown: CancellationToken,
    leases: PartitionLeases<C, L>,
    lease_health: Part,
    lost_leases: mpsc::UnboundedSender<(TopicPartition, Lease)>,
    partitions: HashMap<TopicPartition, Partition>,
    next_epoch: u64,
    queues: KeyQueues<Queue, Job>,
    jobs: JoinSet<Ended>,
    publishing: Option<(Publishing, Batch)>,
    publish_after: Instant,
    pauses: Backoff,
    /// Partitions on their way out, and until when they are waited for.
    leaving: Option<(Vec<TopicPartition>, Instant)>,
    paused: bool,
}

/// See [`Actuation::run`].
pub async fn run<C: Change, L: Ledger>(
    actuation: Arc<Actuation<C, L>>,
    health: &Health,
    shutdown: CancellationToken,
) -> Result<(), ActuationError> {
    let role = C::DECLARATION.role;
    let options = SubscriptionOptions {
        buffered_records: 256,
        batch_records: 128,
        publishes: true,
        health: Some(health.part(role.name)),
        ..SubscriptionOptions::default()
    };
    let mut subscription = Subscription::open(&actuation.kafka, role, role.reads, options, shutdown.clone())?;
    let (lost_leases, mut leases_lost) = mpsc::unbounded_channel();
    let lease_health = health.part(&format!("{}.leases", role.name));
    lease_health.ready();
    let mut member = Member {
        leases: PartitionLeases::new(Arc::clone(&actuation), lease_health.clone()),
        lease_health,
        actuation,
        handle: subscription.handle(),
        shutdown,
        lost_leases,
        partitions: HashMap::new(),
        next_epoch: 0,
        queues: KeyQueues::default(),
        jobs: JoinSet::new(),
        publishing: None,
        publish_after: Instant::now(),
        pauses: Backoff::new(PAUSES),
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

impl<C: Change, L: Ledger> Member<C, L> {
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
            let lease = match C::DECLARATION.exclusivity {
                Exclusivity::Key => Some(self.leases.begin(partition, stop.clone())),
                Exclusivity::Everything => None,
            };
            start_under(lease.clone(), partition, self.handle.clone(), stop.clone());
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
        let now = clock::now();
        let (key, at_once) = match decided::read(&record) {
            Err(reason) => {
                tracing::error!(%partition, offset = record.offset, %reason, "a decision cannot be read; set aside");
                (None, Some(Ending::DeadLetter { reason, at: now }))
            }
            Ok(decision) => {
                let ending =
                    end_at_once::<C>(&decision, now).map(|outcome| Ending::Outcome(Box::new(outcome)));
                (Some(decision.key.clone().into_owned()), ending)
            }
        };
        let queue = match C::DECLARATION.exclusivity {
            Exclusivity::Key => key.map(|key| (partition, key)),
            Exclusivity::Everything => None,
        };
        // Whether it needs a turn of its own or not, it takes the place of those before it.
        if queue.is_some() {
            self.queues.supersede(&queue);
        }
        if let Some(ending) = at_once {
            return self.finish(partition, &record, &ending);
        }
        let lease = match &here.lease {
            Some(lease) => {
                let (lease, lost) = (lease.clone(), self.lost_leases.clone());
                Source::Partition { partition, lease, last: None, lost }
            }
            None => Source::Everything,
        };
        let job = Job { partition, epoch: here.epoch, record, lease, stop: here.stop.clone() };
        if let Some(turn) = self.queues.arrive(&queue, job) {
            self.launch(queue, turn);
        }
    }

    fn launch(&mut self, queue: Queue, turn: Turn<Job>) {
        if let Some(here) = self.partitions.get_mut(&turn.work.partition) {
            here.running += 1;
        }
        let (actuation, health) = (Arc::clone(&self.actuation), self.lease_health.clone());
        self.jobs.spawn(execute(actuation, health, queue, turn));
    }

    fn on_end(&mut self, ended: Ended) {
        let current = self.partitions.get_mut(&ended.partition).filter(|here| here.epoch == ended.epoch);
        if let Some(here) = current {
            here.running -= 1;
            if let Ok(ending) = &ended.result {
                self.finish(ended.partition, &ended.record, ending);
            }
        }
        // Those of partitions that went are read elsewhere.
        if let Some(turn) = self.queues.leave(&ended.queue, |job| !job.stop.is_cancelled()) {
            self.launch(ended.queue, turn);
        }
    }

    fn finish(&mut self, partition: TopicPartition, record: &InboundRecord, ending: &Ending) {
        let topic = self.actuation.kafka.topic(record.topic);
        let mut outbound = vec![decided::outbound(C::DECLARATION.role.name, record, &topic, ending)];
        if let Ending::Outcome(outcome) = ending {
            let told = C::tells_back(outcome).map(|topic| decided::on_topic(outbound[0].clone(), topic));
            outbound.extend(told);
        }
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
        // One after the other, as tests count them.
        batch.statuses.iter().for_each(|_| C::reached(Point::Publishing));
        let (records, offsets, handle) =
            (std::mem::take(&mut batch.records), batch.offsets.clone(), self.handle.clone());
        let publication = Box::pin(async move { handle.publish(records, offsets).await });
        self.publishing = Some((publication, batch));
    }

    fn on_published(&mut self, result: Result<(), PublishError>) -> Result<(), ActuationError> {
        let Some((_, batch)) = self.publishing.take() else { return Ok(()) };
        match result {
            Ok(()) => {
                self.pauses.reset();
                for (partition, next) in batch.offsets {
                    if let Some(here) = self.partitions.get_mut(&partition) {
                        here.tracker.published(next);
                    }
                }
                for status in batch.statuses {
                    C::DECLARATION.outcomes.counter(&[status]).increment(1);
                }
            }
            Err(PublishError::TooLarge { topic, bytes, limit }) => {
                let reason = PublishError::TooLarge { topic, bytes, limit }.to_string();
                return Err(ActuationError::Unpublishable(reason));
            }
            // The event that says so is on its way.
            Err(error @ (PublishError::Retry(_) | PublishError::Gone(_) | PublishError::Closed)) => {
                let pause = self.pauses.next();
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
        if let Some(metric) = C::DECLARATION.in_flight {
            metric.gauge(&[]).set(in_flight as f64);
        }
        let limit = self.actuation.settings.in_flight_limit;
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

/// Starts reading a partition, where it has a lease once that is ours: what a former holder
/// had begun is on record by then.
fn start_under(
    lease: Option<PartitionLease>,
    partition: TopicPartition,
    handle: SubscriptionHandle,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        if let Some(mut lease) = lease {
            tokio::select! {
                held = lease.wait_for(Option::is_some) => {
                    if held.is_err() {
                        return;
                    }
                }
                () = stop.cancelled() => return,
            }
        }
        handle.start(vec![(partition, Start::Committed)]).await;
    });
}

/// Executes one decision, under whatever lease stands, until it ends.
async fn execute<C: Change, L: Ledger>(
    actuation: Arc<Actuation<C, L>>,
    health: Part,
    queue: Queue,
    turn: Turn<Job>,
) -> Ended {
    let Turn { work: Job { partition, epoch, record, mut lease, stop }, superseded } = turn;
    let role = C::DECLARATION.role.name;
    let span = tracing::info_span!("execute", role, partition = record.partition, offset = record.offset);
    if let Some((_, traceparent)) = record.headers.iter().find(|(name, _)| name == headers::TRACEPARENT) {
        telemetry::continue_trace(&span, traceparent);
    }
    let result = async {
        let decision = match decided::read(&record) {
            Ok(decision) => decision,
            Err(reason) => return Ok(Ending::DeadLetter { reason, at: clock::now() }),
        };
        loop {
            let interrupt = stop.child_token();
            let Some(tenure) = lease.next(&actuation, &health, &interrupt, &stop).await else {
                return Err(Interrupted::Stopped);
            };
            let execution = Execution::new(&actuation, &decision, &tenure, superseded.clone(), interrupt);
            match execution.run().await {
                Ok(outcome) => return Ok(Ending::Outcome(Box::new(outcome))),
                Err(Interrupted::LeaseLost) => lease.lost(tenure),
                Err(Interrupted::Stopped) => return Err(Interrupted::Stopped),
            }
        }
    }
    .instrument(span)
    .await;
    Ended { queue, partition, epoch, record, result }
}
