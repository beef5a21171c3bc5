//! What comes of records goes to other topics in one Kafka transaction with their offsets:
//! exactly once. What is done about a record in between is its worker's and may take long;
//! records end in any order and leave in the order of their offsets.

mod batch;
mod refusals;
mod tracker;

use std::collections::HashMap;
use std::pin::Pin;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::backoff::Backoff;
use crate::health::Health;
use crate::kafka::memberships::{Ended, Memberships};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{
    Event, InboundRecord, PublishError, Start, Subscription, SubscriptionError, SubscriptionHandle,
    SubscriptionOptions, TopicPartition,
};
use crate::role::Role;
use crate::topics::Topic;

use batch::Batch;
pub(super) use batch::Finished;
use refusals::Place;
use tracker::Tracker;

/// Records in one transaction at most, without what one is told beside.
const BATCH_LIMIT: usize = 500;
/// How long records under way are waited for when their partition goes or the process
/// stops: a write on its way gets 1.5 s for its reply, the ledger the rest.
const WIND_UP: Duration = Duration::from_millis(2_000);
/// How long the last transaction may take after that.
const LAST_WORD: Duration = Duration::from_millis(1_500);
/// Pauses between tries to publish.
const PAUSES: (Duration, Duration) = (Duration::from_millis(50), Duration::from_millis(3_200));
/// Pauses between memberships that fail.
const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(30));

/// A partition for as long as it stays ours: one that went and came back is another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stay {
    pub partition: TopicPartition,
    pub epoch: u64,
    /// Which topic of that name it is a partition of, where the brokers tell.
    pub topic_id: Option<Uuid>,
}

/// Works on the records of one membership in the group.
pub(super) trait Worker {
    /// The partition is ours until `stop` ends. Reading it begins once what is returned has
    /// ended.
    fn gained(&mut self, stay: Stay, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static;

    /// The partition goes; its `stop` has ended.
    fn stopped(&mut self, partition: TopicPartition);

    /// And is gone.
    fn lost(&mut self, partition: TopicPartition);

    /// Begins with a record. Answers what came of it where that is known at once.
    fn begin(&mut self, stay: Stay, record: InboundRecord) -> Option<Finished>;

    /// Waits for a record to end; `None` where the stop came first and somebody else is to take
    /// it up. Is dropped and begun anew all the time.
    fn ended(&mut self) -> impl Future<Output = (Stay, i64, Option<Finished>)>;

    /// Records of the partition under way.
    fn is_busy_with(&self, partition: TopicPartition) -> bool;

    /// No record at all is under way.
    fn is_idle(&self) -> bool;

    /// What came of a record is about to leave.
    fn publishing(&self) {}

    /// It has left.
    fn published(&self, status: &'static str) {
        let _ = status;
    }

    /// So many records were read and what came of them has not left yet.
    fn in_flight(&self, records: usize) {
        let _ = records;
    }
}

/// Reads until `shutdown`, with a worker of its own for each membership in the group. Reading
/// pauses while `in_flight_limit` records are under way.
///
/// # Errors
/// See [`SubscriptionError`]; everything else is retried and shown on `health`. A restart goes on
/// from the committed offsets.
pub(super) async fn run<W: Worker>(
    role: &'static Role,
    kafka: &KafkaSettings,
    in_flight_limit: usize,
    health: &Health,
    shutdown: CancellationToken,
    worker: impl Fn() -> W,
) -> Result<(), SubscriptionError> {
    let part = health.part(role.name);
    let options = SubscriptionOptions {
        buffered_records: 256,
        batch_records: 128,
        publishes: true,
        health: Some(part.clone()),
        ..SubscriptionOptions::default()
    };
    let mut memberships = Memberships::new(kafka, role, options, part, RETRY, shutdown.clone());
    while let Some(mut subscription) = memberships.next()? {
        let topic = |topic: &Topic| kafka.topic(topic);
        let place = Place { role, topic: &topic };
        let mut member = Member::new(worker(), place, subscription.handle(), in_flight_limit, &shutdown);
        let ended = member.run(&mut subscription, memberships.pause()).await;
        member.wind_up().await;
        drop(member);
        memberships.end(subscription, ended).await;
    }
    Ok(())
}

struct Partition {
    epoch: u64,
    topic_id: Option<Uuid>,
    tracker: Tracker<Finished>,
    stop: CancellationToken,
}

type Publishing = Pin<Box<dyn Future<Output = Result<(), PublishError>> + Send>>;

struct Member<'s, W> {
    worker: W,
    place: Place<'s>,
    handle: SubscriptionHandle,
    shutdown: &'s CancellationToken,
    in_flight_limit: usize,
    partitions: HashMap<TopicPartition, Partition>,
    next_epoch: u64,
    publishing: Option<(Publishing, Batch)>,
    publish_after: Instant,
    /// So many go one to a transaction: one of them is refused.
    publish_alone: usize,
    pauses: Backoff,
    /// Partitions on their way out, and until when they are waited for.
    leaving: Option<(Vec<TopicPartition>, Instant)>,
    paused: bool,
}

impl<'s, W: Worker> Member<'s, W> {
    fn new(
        worker: W,
        place: Place<'s>,
        handle: SubscriptionHandle,
        in_flight_limit: usize,
        shutdown: &'s CancellationToken,
    ) -> Self {
        Self {
            worker,
            place,
            handle,
            shutdown,
            in_flight_limit,
            partitions: HashMap::new(),
            next_epoch: 0,
            publishing: None,
            publish_after: Instant::now(),
            publish_alone: 0,
            pauses: Backoff::new(PAUSES),
            leaving: None,
            paused: false,
        }
    }

    async fn run(&mut self, subscription: &mut Subscription, memberships: &mut Backoff) -> Ended {
        loop {
            self.publish();
            self.finish_leaving().await;
            self.regulate().await;
            let ready_at = self.next_look();
            tokio::select! {
                event = subscription.next() => match event {
                    Event::Closed => return Ended::Shutdown,
                    Event::Failed(error) => return error.into(),
                    event => self.on_event(event).await,
                },
                (stay, offset, finished) = self.worker.ended() => self.on_end(stay, offset, finished),
                result = published(&mut self.publishing) => {
                    if result.is_ok() {
                        memberships.reset();
                    }
                    self.on_published(result);
                }
                () = sleep_until(ready_at) => {}
            }
        }
    }

    async fn on_event(&mut self, event: Event) {
        match event {
            Event::Assigned(partitions) => self.on_assigned(partitions).await,
            Event::Revoked(partitions) => {
                self.stop(&partitions);
                self.leaving = Some((partitions, Instant::now() + WIND_UP));
            }
            Event::Lost(partitions) => {
                self.stop(&partitions);
                self.drop_partitions(&partitions);
            }
            Event::Records(records) => records.into_iter().for_each(|record| self.on_record(record)),
            Event::Failed(_) | Event::Closed => {}
        }
    }

    async fn on_assigned(&mut self, partitions: Vec<TopicPartition>) {
        if self.paused {
            self.handle.pause(partitions.clone()).await;
        }
        let ids = self.topic_ids().await;
        for partition in partitions {
            self.next_epoch += 1;
            let (epoch, stop) = (self.next_epoch, self.shutdown.child_token());
            let topic_id = ids.get(&(self.place.topic)(partition.topic)).copied().flatten();
            let ready = self.worker.gained(Stay { partition, epoch, topic_id }, stop.clone());
            start_once(ready, partition, self.handle.clone(), stop.clone());
            self.partitions
                .insert(partition, Partition { epoch, topic_id, tracker: Tracker::default(), stop });
        }
    }

    fn on_record(&mut self, record: InboundRecord) {
        let (partition, offset) = (record.topic_partition(), record.offset);
        let Some(here) = self.partitions.get_mut(&partition) else { return };
        if here.stop.is_cancelled() || !here.tracker.begin(offset) {
            return;
        }
        let stay = Stay { partition, epoch: here.epoch, topic_id: here.topic_id };
        if let Some(finished) = self.worker.begin(stay, record) {
            here.tracker.finish(offset, finished);
        }
    }

    fn on_end(&mut self, stay: Stay, offset: i64, finished: Option<Finished>) {
        let here = self.partitions.get_mut(&stay.partition).filter(|here| here.epoch == stay.epoch);
        if let Some((here, finished)) = here.zip(finished) {
            here.tracker.finish(offset, finished);
        }
    }

    /// Begins a publication unless one is under way.
    fn publish(&mut self) {
        if self.publishing.is_some() || Instant::now() < self.publish_after {
            return;
        }
        let trackers = self.partitions.iter().map(|(partition, here)| (*partition, &here.tracker));
        let mut batch = Batch::collect(trackers, if self.publish_alone > 0 { 1 } else { BATCH_LIMIT });
        if batch.is_empty() {
            return;
        }
        // One after the other, as tests count them.
        batch.statuses.iter().for_each(|_| self.worker.publishing());
        let (records, offsets, handle) =
            (std::mem::take(&mut batch.records), batch.offsets.clone(), self.handle.clone());
        let publication = Box::pin(async move { handle.publish(records, offsets).await });
        self.publishing = Some((publication, batch));
    }

    fn on_published(&mut self, result: Result<(), PublishError>) {
        let Some((_, batch)) = self.publishing.take() else { return };
        match result {
            Ok(()) => {
                self.pauses.reset();
                self.publish_alone = self.publish_alone.saturating_sub(1);
                for (partition, next) in batch.offsets {
                    if let Some(here) = self.partitions.get_mut(&partition) {
                        here.tracker.published(next);
                    }
                }
                batch.statuses.into_iter().for_each(|status| self.worker.published(status));
            }
            Err(PublishError::Refused(why)) => self.on_refused(&batch, &why),
            // The event that says so is on its way.
            Err(error @ (PublishError::Retry(_) | PublishError::Gone(_) | PublishError::Closed)) => {
                let pause = self.pauses.pause();
                self.publish_after = Instant::now() + pause;
                tracing::warn!(%error, pause_ms = pause.as_millis() as u64, "outcomes wait to be published");
            }
        }
    }

    fn stop(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            if let Some(here) = self.partitions.get(partition) {
                here.stop.cancel();
            }
            self.worker.stopped(*partition);
        }
    }

    fn drop_partitions(&mut self, partitions: &[TopicPartition]) {
        for partition in partitions {
            self.partitions.remove(partition);
            self.worker.lost(*partition);
        }
    }

    /// Whether nothing of these partitions is under way any more.
    fn is_quiet(&self, partitions: &[TopicPartition]) -> bool {
        let has_left = |partition: &TopicPartition| {
            let here = self.partitions.get(partition);
            here.is_none_or(|here| here.tracker.publishable(1).1.is_none())
        };
        self.publishing.is_none()
            && partitions.iter().all(|partition| !self.worker.is_busy_with(*partition) && has_left(partition))
    }

    async fn finish_leaving(&mut self) {
        let Some((partitions, until)) = self.leaving.take() else { return };
        if Instant::now() < until && !self.is_quiet(&partitions) {
            self.leaving = Some((partitions, until));
            return;
        }
        self.drop_partitions(&partitions);
        self.handle.acknowledge_revocation().await;
    }

    /// When the loop must look again although nothing has happened.
    fn next_look(&self) -> Instant {
        let leaving = self.leaving.as_ref().map(|(_, until)| *until);
        let publishing = (self.publish_after > Instant::now()).then_some(self.publish_after);
        let far = Instant::now() + Duration::from_secs(60);
        [leaving, publishing].into_iter().flatten().fold(far, Instant::min)
    }

    /// Reading pauses while too many records are under way.
    async fn regulate(&mut self) {
        let in_flight: usize = self.partitions.values().map(|here| here.tracker.len()).sum();
        self.worker.in_flight(in_flight);
        let limit = self.in_flight_limit;
        let pause = if self.paused { in_flight > limit / 2 } else { in_flight >= limit };
        if pause != self.paused {
            self.paused = pause;
            let all = self.partitions.keys().copied().collect();
            if pause { self.handle.pause(all).await } else { self.handle.resume(all).await }
        }
    }

    /// The membership is over: every wait ends, what has ended leaves.
    async fn wind_up(&mut self) {
        let all: Vec<_> = self.partitions.keys().copied().collect();
        self.stop(&all);
        let mut until = Instant::now() + WIND_UP + LAST_WORD;
        while !self.is_quiet(&all) && Instant::now() < until {
            self.publish();
            // Without work the last word is all that is waited for.
            if self.worker.is_idle() {
                until = until.min(Instant::now() + LAST_WORD);
            }
            let look_again = self.next_look().min(until);
            tokio::select! {
                (stay, offset, finished) = self.worker.ended() => self.on_end(stay, offset, finished),
                result = published(&mut self.publishing) => {
                    self.on_published(result);
                }
                () = sleep_until(look_again) => {}
            }
        }
    }
}

/// The end of the publication under way; pending where there is none.
async fn published(publishing: &mut Option<(Publishing, Batch)>) -> Result<(), PublishError> {
    match publishing {
        Some((publication, _)) => publication.await,
        None => std::future::pending().await,
    }
}

/// Starts reading a partition once `ready` has ended.
fn start_once(
    ready: impl Future<Output = ()> + Send + 'static,
    partition: TopicPartition,
    handle: SubscriptionHandle,
    stop: CancellationToken,
) {
    tokio::spawn(async move {
        tokio::select! {
            () = ready => handle.start(vec![(partition, Start::Committed)]).await,
            () = stop.cancelled() => {}
        }
    });
}
