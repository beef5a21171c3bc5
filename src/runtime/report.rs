//! What workers tell of a stage: readiness, metrics, and what speaks against a clock.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram};

use super::batch::Committed;
use super::counts::Contradictions;
use super::stage::StageSettings;
use super::task::Task;
use super::watermark::{Watermark, Watermarks};
use crate::health::Part;
use crate::kafka::transaction::Verdict;
use crate::metrics as table;
use crate::pipeline::PartitionStage;

/// Records ahead of the clock are told in readiness for this long after the last one.
const CLOCK_DOUBT: Duration = Duration::from_secs(600);

/// What all workers of a stage in this process tell together.
#[derive(Debug)]
pub(super) struct Shared {
    name: String,
    health: Part,
    board: Mutex<Board>,
    records: [(&'static str, Counter); 5],
    committed: Counter,
    aborted: Counter,
    fenced: Counter,
    seconds: Histogram,
    restore_seconds: Histogram,
    watermark: Gauge,
    keys: Gauge,
    linked: Gauge,
    from_the_future: Counter,
    healed: Counter,
}

#[derive(Debug)]
struct Board {
    /// Per worker, why it is not ready.
    reasons: Vec<Option<String>>,
    /// What speaks against a clock, and when it was met last.
    doubt: Option<(String, Instant)>,
    keys: Vec<usize>,
    linked: Vec<usize>,
    watermarks: Watermarks,
}

impl Shared {
    pub(super) fn new(name: &str, settings: &StageSettings, health: Part) -> Self {
        let workers = settings.workers.max(1);
        let result = |result: &'static str| (result, table::STAGE_RECORDS.counter(&[name, result]));
        let ended = |result: &str| table::STAGE_TRANSACTIONS.counter(&[name, result]);
        Self {
            name: name.to_owned(),
            health,
            board: Mutex::new(Board {
                reasons: vec![Some("starting".to_owned()); workers],
                doubt: None,
                keys: vec![0; workers],
                linked: vec![0; workers],
                watermarks: Watermarks::new(settings.idle_after),
            }),
            records: ["applied", "no_op", "rejected", "dead_letter", "late"].map(result),
            committed: ended("committed"),
            aborted: ended("aborted"),
            fenced: ended("fenced"),
            seconds: table::STAGE_TRANSACTION_SECONDS.histogram(&[name]),
            restore_seconds: table::STAGE_RESTORE_SECONDS.histogram(&[name]),
            watermark: table::STAGE_WATERMARK_SECONDS.gauge(&[name]),
            keys: table::STAGE_KEYS.gauge(&[name]),
            linked: table::STAGE_LINKED.gauge(&[name]),
            from_the_future: table::STAGE_FROM_THE_FUTURE.counter(&[name]),
            healed: table::STAGE_WATERMARKS_HEALED.counter(&[name]),
        }
    }

    fn board(&self) -> std::sync::MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One worker's voice: readiness and metrics.
#[derive(Clone, Debug)]
pub(super) struct Report {
    shared: Arc<Shared>,
    worker: usize,
}

impl Report {
    pub(super) fn of(shared: &Arc<Shared>, worker: usize) -> Self {
        Self { shared: Arc::clone(shared), worker }
    }

    pub(super) fn ready(&self) {
        self.condition(None);
    }

    pub(super) fn not_ready(&self, reason: String) {
        self.condition(Some(reason));
    }

    fn condition(&self, reason: Option<String>) {
        let mut board = self.shared.board();
        let doubt_ends = board.doubt.as_ref().is_some_and(|(_, since)| since.elapsed() >= CLOCK_DOUBT);
        if board.reasons[self.worker] == reason && reason.is_none() && !doubt_ends {
            return;
        }
        if doubt_ends {
            board.doubt = None;
        }
        board.reasons[self.worker] = reason;
        self.tell(&board);
    }

    fn tell(&self, board: &Board) {
        match (board.reasons.iter().flatten().next(), &board.doubt) {
            (Some(reason), _) => self.shared.health.not_ready(reason.clone()),
            (None, Some((doubt, _))) => self.shared.health.impaired(doubt.clone()),
            (None, None) => self.shared.health.ready(),
        }
    }

    /// What contradicted this instance's clock: counted, logged once per spell, and told.
    fn contradicted(&self, met: Contradictions) {
        if met == Contradictions::default() {
            return;
        }
        self.shared.from_the_future.increment(met.from_the_future);
        self.shared.healed.increment(met.healed);
        if met.healed > 0 {
            tracing::warn!(
                stage = self.shared.name,
                watermarks = met.healed,
                "watermarks were ahead of this clock and are taken back to it: some clock is or was wrong"
            );
        }
        let Some(furthest_ms) = met.furthest_ms else { return };
        let doubt = format!(
            "records are up to {} s ahead of this instance's clock and are set aside as from_the_future:              its clock, or that of whoever wrote them, is wrong; mend it, then `trunkline dead-letters redrive`",
            furthest_ms / 1_000
        );
        let mut board = self.shared.board();
        if board.doubt.is_none() {
            tracing::warn!(stage = self.shared.name, doubt);
        }
        board.doubt = Some((doubt, Instant::now()));
        self.tell(&board);
    }

    pub(super) fn committed<S: PartitionStage>(&self, committed: &Committed, task: &mut Task<S>) {
        for ((name, counter), (result, count)) in self.shared.records.iter().zip(committed.counts.iter()) {
            debug_assert_eq!(*name, result);
            counter.increment(count);
        }
        self.shared.committed.increment(1);
        self.contradicted(task.contradictions());
        self.shared.seconds.record(committed.took.as_secs_f64());
        let now = Instant::now();
        let mut board = self.shared.board();
        for partition in &committed.partitions {
            board.watermarks.read(*partition, task.watermark(*partition), now);
        }
        if let Some(least) = board.watermarks.least(now) {
            self.shared.watermark.set(least.as_millis() as f64 / 1_000.0);
        }
        drop(board);
        self.keys(task.keys());
    }

    pub(super) fn read(&self, partition: i32, watermark: Watermark) {
        self.shared.board().watermarks.read(partition, watermark, Instant::now());
    }

    pub(super) fn released(&self, partition: i32) {
        self.shared.board().watermarks.forget(partition);
    }

    pub(super) fn keys(&self, keys: usize) {
        let mut board = self.shared.board();
        board.keys[self.worker] = keys;
        self.shared.keys.set(board.keys.iter().sum::<usize>() as f64);
    }

    /// Partitions whose records come from the stage before directly.
    pub(super) fn linked(&self, partitions: usize) {
        let mut board = self.shared.board();
        board.linked[self.worker] = partitions;
        self.shared.linked.set(board.linked.iter().sum::<usize>() as f64);
    }

    pub(super) fn restored(&self, took: Duration) {
        self.shared.restore_seconds.record(took.as_secs_f64());
    }

    /// A transaction ended without a commit.
    pub(super) fn ended(&self, verdict: Verdict) {
        match verdict {
            Verdict::Fenced => self.shared.fenced.increment(1),
            Verdict::Abortable | Verdict::Unknown | Verdict::Fatal => self.shared.aborted.increment(1),
        }
    }

    /// The worker is no more; what it held is held by others, or will be.
    pub(super) fn gone(&self) {
        self.keys(0);
        self.linked(0);
    }
}
