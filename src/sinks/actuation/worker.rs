//! Decisions of the partitions that are ours: each waits for its turn and its lease, and is
//! executed.

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, Span};

use super::execution::{Execution, Interrupted, end_at_once};
use super::leases::{PartitionLease, PartitionLeases, Source};
use super::ledger::Ledger;
use super::queues::{KeyQueues, Turn};
use super::{Actuation, Change, Exclusivity, Point};
use crate::clock;
use crate::health::Part;
use crate::kafka::subscription::{InboundRecord, TopicPartition};
use crate::postgres::leases::Lease;
use crate::runtime::decided::{self, Ending};
use crate::sinks::transacted::{Finished, Stay, Worker};
use crate::telemetry;
use crate::topics::headers;

/// A decision and where it stands.
struct Job {
    stay: Stay,
    record: InboundRecord,
    lease: Source,
    stop: CancellationToken,
}

/// A job that has ended.
struct Ended {
    queue: Queue,
    stay: Stay,
    record: InboundRecord,
    /// Where its trace goes on from, if spans are exported.
    traceparent: Option<String>,
    result: Result<Ending, Interrupted>,
}

/// What waits for each other.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Queue {
    /// Decisions of one key in one partition.
    OfKey(TopicPartition, String),
    /// All of an organisation.
    OfOrganization(Option<String>),
}

struct Partition {
    epoch: u64,
    running: usize,
    /// Where partitions have leases.
    lease: Option<PartitionLease>,
    stop: CancellationToken,
}

/// See the module.
pub(super) struct Executor<C, L> {
    actuation: Arc<Actuation<C, L>>,
    leases: PartitionLeases<C, L>,
    lease_health: Part,
    lose_lease: mpsc::UnboundedSender<(TopicPartition, Lease)>,
    leases_lost: mpsc::UnboundedReceiver<(TopicPartition, Lease)>,
    partitions: HashMap<TopicPartition, Partition>,
    queues: KeyQueues<Queue, Job>,
    jobs: JoinSet<Ended>,
}

impl<C: Change, L: Ledger> Executor<C, L> {
    pub(super) fn new(actuation: Arc<Actuation<C, L>>, lease_health: Part) -> Self {
        let (lose_lease, leases_lost) = mpsc::unbounded_channel();
        Self {
            leases: PartitionLeases::new(Arc::clone(&actuation), lease_health.clone()),
            actuation,
            lease_health,
            lose_lease,
            leases_lost,
            partitions: HashMap::new(),
            queues: KeyQueues::default(),
            jobs: JoinSet::new(),
        }
    }

    fn launch(&mut self, queue: Queue, turn: Turn<Job>) {
        if let Some(here) = self.partitions.get_mut(&turn.work.stay.partition) {
            here.running += 1;
        }
        let (actuation, health) = (Arc::clone(&self.actuation), self.lease_health.clone());
        self.jobs.spawn(execute(actuation, health, queue, turn));
    }

    fn on_end(&mut self, ended: Ended) -> (Stay, i64, Option<Finished>) {
        let Ended { queue, stay, record, traceparent, result } = ended;
        let current = self.partitions.get_mut(&stay.partition).filter(|here| here.epoch == stay.epoch);
        if let Some(here) = current {
            here.running -= 1;
        }
        let finished = result.ok().map(|ending| self.finished(stay, &record, traceparent, &ending));
        // Those of partitions that went are read elsewhere.
        if let Some(turn) = self.queues.leave(&queue, |job| !job.stop.is_cancelled()) {
            self.launch(queue, turn);
        }
        (stay, record.offset, finished)
    }

    fn finished(
        &self,
        stay: Stay,
        record: &InboundRecord,
        traceparent: Option<String>,
        ending: &Ending,
    ) -> Finished {
        let topic = (&*self.actuation.kafka.topic(record.topic), stay.topic_id);
        let role = C::DECLARATION.role.name;
        let mut outbound = vec![decided::outbound(role, record, topic, traceparent, ending)];
        if let Ending::Outcome(outcome) = ending {
            let told = C::tells_back(outcome).map(|topic| decided::on_topic(outbound[0].clone(), topic));
            outbound.extend(told);
        }
        let status = match ending {
            Ending::Outcome(outcome) => outcome.status.name(),
            Ending::DeadLetter { .. } => "dead_letter",
        };
        Finished { outbound, status }
    }

    fn source(&self, partition: TopicPartition, queue: &Queue) -> Source {
        let lease = self.partitions.get(&partition).and_then(|here| here.lease.clone());
        match (lease, queue) {
            (Some(lease), _) => {
                Source::Partition { partition, lease, last: None, lost: self.lose_lease.clone() }
            }
            (None, Queue::OfOrganization(organization)) => Source::Everything(organization.clone()),
            (None, Queue::OfKey(..)) => Source::Everything(None),
        }
    }
}

impl<C: Change, L: Ledger> Worker for Executor<C, L> {
    /// Where a partition has a lease, reading begins once that is ours: what a former holder had
    /// begun is on record by then.
    fn gained(&mut self, stay: Stay, stop: CancellationToken) -> impl Future<Output = ()> + Send + 'static {
        let Stay { partition, epoch, .. } = stay;
        let lease = match C::DECLARATION.exclusivity {
            Exclusivity::Key => Some(self.leases.begin(partition, stop.clone())),
            Exclusivity::Everything => None,
        };
        self.partitions.insert(partition, Partition { epoch, running: 0, lease: lease.clone(), stop });
        async move {
            let Some(mut lease) = lease else { return };
            if lease.wait_for(Option::is_some).await.is_err() {
                // Its taker has ended: so has `stop`.
                std::future::pending().await
            }
        }
    }

    fn stopped(&mut self, partition: TopicPartition) {
        self.leases.forget(partition);
    }

    fn lost(&mut self, partition: TopicPartition) {
        self.partitions.remove(&partition);
    }

    fn begin(&mut self, stay: Stay, record: InboundRecord) -> Option<Finished> {
        let partition = stay.partition;
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
        let queue = key.map(|key| match C::DECLARATION.exclusivity {
            Exclusivity::Key => Queue::OfKey(partition, key),
            Exclusivity::Everything => {
                Queue::OfOrganization(self.actuation.change.organization(&key).map(str::to_owned))
            }
        });
        // Whether it needs a turn of its own or not, it takes the place of those before it.
        if let Some(queue @ Queue::OfKey(..)) = &queue {
            self.queues.supersede(queue);
        }
        if let Some(ending) = at_once {
            return Some(self.finished(stay, &record, None, &ending));
        }
        // Without a key it could not be read, and has ended.
        let queue = queue?;
        let stop = self.partitions.get(&partition)?.stop.clone();
        let job = Job { stay, record, lease: self.source(partition, &queue), stop };
        if let Some(turn) = self.queues.arrive(&queue, job) {
            self.launch(queue, turn);
        }
        None
    }

    async fn ended(&mut self) -> (Stay, i64, Option<Finished>) {
        loop {
            tokio::select! {
                Some(ended) = self.jobs.join_next() => return self.on_end(ended.expect("a job does not panic")),
                Some((partition, lease)) = self.leases_lost.recv() => {
                    if let Some(here) = self.partitions.get(&partition) {
                        self.leases.lost(partition, &lease, here.stop.clone());
                    }
                }
            }
        }
    }

    fn is_busy_with(&self, partition: TopicPartition) -> bool {
        self.partitions.get(&partition).is_some_and(|here| here.running > 0)
    }

    fn is_idle(&self) -> bool {
        self.jobs.is_empty()
    }

    fn publishing(&self) {
        C::reached(Point::Publishing);
    }

    fn published(&self, status: &'static str) {
        C::DECLARATION.outcomes.counter(&[status]).increment(1);
    }

    fn in_flight(&self, records: usize) {
        if let Some(metric) = C::DECLARATION.in_flight {
            metric.gauge(&[]).set(records as f64);
        }
    }
}

/// Executes one decision, under whatever lease stands, until it ends.
async fn execute<C: Change, L: Ledger>(
    actuation: Arc<Actuation<C, L>>,
    health: Part,
    queue: Queue,
    turn: Turn<Job>,
) -> Ended {
    let Turn { work: Job { stay, record, mut lease, stop }, superseded } = turn;
    let role = C::DECLARATION.role.name;
    let span = tracing::info_span!(
        "execute",
        role,
        partition = record.partition,
        offset = record.offset,
        decision = tracing::field::Empty,
        key = tracing::field::Empty,
        status = tracing::field::Empty,
    );
    if let Some(traceparent) = record.header(headers::TRACEPARENT) {
        telemetry::continue_trace(&span, traceparent);
    }
    let traceparent = telemetry::traceparent(&span);
    let result = async {
        let decision = match decided::read(&record) {
            Ok(decision) => decision,
            Err(reason) => return Ok(Ending::DeadLetter { reason, at: clock::now() }),
        };
        Span::current().record("decision", tracing::field::display(decision.decision_id));
        Span::current().record("key", &*decision.key);
        loop {
            let interrupt = stop.child_token();
            let Some(tenure) = lease.next(&actuation, &health, &interrupt, &stop).await else {
                return Err(Interrupted::Stopped);
            };
            let execution = Execution::new(&actuation, &decision, &tenure, superseded.clone(), interrupt);
            match execution.run().await {
                Ok(outcome) => {
                    Span::current().record("status", outcome.status.name());
                    return Ok(Ending::Outcome(Box::new(outcome)));
                }
                Err(Interrupted::LeaseLost) => lease.lost(tenure),
                Err(Interrupted::Stopped) => return Err(Interrupted::Stopped),
            }
        }
    }
    .instrument(span)
    .await;
    Ended { queue, stay, record, traceparent, result }
}
