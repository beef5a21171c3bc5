//! One worker: a thread that works for one stage, in transactions of its own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::fault::Fault;
use super::report::Report;
use super::seat::Seat;
use super::stage::StageSettings;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::Producer;
use crate::pipeline::PartitionStage;

/// How long an idle worker waits for a record before it looks after other things.
pub(super) const IDLE_WAIT: Duration = Duration::from_millis(250);
/// The brokers finish a small transaction this long after its commit. A record sent
/// earlier is refused, and librdkafka then waits 20 ms before it tries again.
const MARKERS_TAKE: Duration = Duration::from_millis(4);

/// The moment that the brokers need after a small transaction.
#[derive(Default)]
pub(super) struct Rest {
    until: Option<Instant>,
}

impl Rest {
    /// Waits until it is over.
    pub(super) fn take(&mut self) {
        if let Some(until) = self.until.take() {
            std::thread::sleep(until.saturating_duration_since(Instant::now()));
        }
    }

    /// Begins, where a transaction that has just ended was small.
    pub(super) fn after(&mut self, was_small: bool) {
        if was_small {
            self.until = Some(Instant::now() + MARKERS_TAKE);
        }
    }
}

/// What a worker's thread runs.
pub(super) trait Work: Send + 'static {
    /// Works until shutdown or a fault.
    fn run(&mut self) -> Result<(), Fault>;
}

pub(super) struct Worker<S: PartitionStage> {
    seat: Seat<S>,
    producer: Producer,
    shutdown: CancellationToken,
}

impl<S: PartitionStage> Worker<S> {
    /// Connects, checks the topics and joins the group.
    pub(super) fn start(
        stage: Arc<S>,
        number: usize,
        kafka: &KafkaSettings,
        settings: &StageSettings,
        report: Report,
        shutdown: &CancellationToken,
    ) -> Result<Self, Fault> {
        let role = stage.declaration().name;
        let producer = Producer::new(kafka, role, number, &settings.transactions, shutdown.clone());
        let seat = Seat::take(stage, kafka, settings, report, shutdown)?;
        Ok(Self { seat, producer, shutdown: shutdown.clone() })
    }
}

impl<S: PartitionStage> Work for Worker<S> {
    fn run(&mut self) -> Result<(), Fault> {
        // Frees what an earlier life of this worker may have left open.
        self.producer.settle()?;
        let mut rest = Rest::default();
        while !self.shutdown.is_cancelled() {
            self.seat.answer_rebalances()?;
            self.seat.look_around(&self.producer);
            rest.take();
            let turn = self.seat.turn(&mut self.producer, IDLE_WAIT, None);
            rest.after(self.seat.go_on(turn, &mut self.producer)?);
        }
        Ok(())
    }
}
