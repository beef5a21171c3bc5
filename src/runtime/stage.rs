//! Running a stage: its worker threads, their restarts, and what is told of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge, Histogram};
use tokio_util::sync::CancellationToken;

use super::batch::Committed;
use super::chain::ChainWorker;
use super::counts::Contradictions;
use super::fault::Fault;
use super::restore::RestoreError;
use super::task::Task;
use super::watermark::{Watermark, Watermarks};
use super::worker::{Work, Worker};
use crate::backoff::Backoff;
use crate::health::Part;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::{TransactionSettings, Verdict};
use crate::metrics as table;
use crate::pipeline::PartitionStage;

/// Leaving the group may take this long at a shutdown; then the process ends without.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Records ahead of the clock are told in readiness for this long after the last one.
const CLOCK_DOUBT: Duration = Duration::from_secs(600);
/// A worker that ran this long has earned a quick restart.
const STEADY: Duration = Duration::from_secs(60);

/// How a stage runs.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// Worker threads in this process; more than partitions are idle. Default 1.
    pub workers: usize,
    /// Most records in a transaction. Default 50 000.
    pub batch_records: usize,
    /// Longest time a transaction collects records while the stage keeps up. Default 100 ms.
    pub batch_time: Duration,
    /// The same while records have waited for long: a quarter of that, up to this. Default 1 s.
    pub batch_time_behind: Duration,
    /// Records read ahead per worker, in KiB. Default 4 MiB.
    pub read_ahead_kib: usize,
    /// Longest wait for a step of restoring, such as a former owner's open transaction. Default 60 s.
    pub restore_patience: Duration,
    /// A partition without records for this long no longer holds back the watermark that is
    /// shown to people. (What stages go by is [`PartitionStage::idle_after`].) Default 30 s.
    pub idle_after: Duration,
    pub transactions: TransactionSettings,
}

impl Default for StageSettings {
    fn default() -> Self {
        Self {
            workers: 1,
            batch_records: 50_000,
            batch_time: Duration::from_millis(100),
            batch_time_behind: Duration::from_secs(1),
            read_ahead_kib: 4_096,
            restore_patience: Duration::from_secs(60),
            idle_after: Duration::from_secs(30),
            transactions: TransactionSettings::default(),
        }
    }
}

/// A running stage. Dropping the handle leaves it running: cancel `shutdown` to stop it.
#[derive(Debug)]
pub struct StageHandle {
    threads: Vec<thread::JoinHandle<()>>,
}

impl StageHandle {
    /// Waits until every worker has ended. After `shutdown` is cancelled that is
    /// within 2 s as a rule and 10 s at most.
    pub fn join(self) {
        for thread in self.threads {
            // Workers catch their panics; one that does not has ended all the same.
            drop(thread.join());
        }
    }

    /// Like [`join`](Self::join), from async code.
    pub async fn stopped(self) {
        if tokio::task::spawn_blocking(move || self.join()).await.is_err() {
            tracing::error!("waiting for a stage's workers was cut off");
        }
    }
}

/// Starts a stage's workers. Each joins the stage's consumer group; Kafka spreads the
/// partitions over all workers of all instances. Faults restart the worker and are
/// told in `health`; only `shutdown` ends it.
pub fn run_stage<S: PartitionStage>(
    stage: S,
    kafka: &KafkaSettings,
    settings: &StageSettings,
    health: Part,
    shutdown: CancellationToken,
) -> StageHandle {
    let stage = Arc::new(stage);
    let name = stage.declaration().name;
    let shared = Arc::new(Shared::new(name, settings, health));
    let (kafka, for_workers) = (kafka.clone(), settings.clone());
    run_workers(name, settings, vec![shared], shutdown.clone(), move |number, reports| {
        let report = reports[0].clone();
        let worker = Worker::start(Arc::clone(&stage), number, &kafka, &for_workers, report, &shutdown)?;
        Ok(Box::new(worker))
    })
}

/// [`run_stage`] for two stages, of which the second reads what the first sends: records that one
/// instance would hand from the one to the other by way of the brokers are taken over within the
/// first one's transaction. Topics, groups and changelogs are those of the two alone, and other
/// instances may run either.
pub fn run_chained<A: PartitionStage, B: PartitionStage>(
    (first, second): (A, B),
    kafka: &KafkaSettings,
    settings: &StageSettings,
    (first_health, second_health): (Part, Part),
    shutdown: CancellationToken,
) -> StageHandle {
    let (first, second) = (Arc::new(first), Arc::new(second));
    let name = first.declaration().name;
    let shared = vec![
        Arc::new(Shared::new(name, settings, first_health)),
        Arc::new(Shared::new(second.declaration().name, settings, second_health)),
    ];
    let (kafka, for_workers) = (kafka.clone(), settings.clone());
    run_workers(name, settings, shared, shutdown.clone(), move |number, reports| {
        let stages = (Arc::clone(&first), Arc::clone(&second));
        let reports = (reports[0].clone(), reports[1].clone());
        Ok(Box::new(ChainWorker::start(stages, number, &kafka, &for_workers, reports, &shutdown)?))
    })
}

/// Makes the worker of a number, again after each of its faults.
trait MakeWorker: Fn(usize, &[Report]) -> Result<Box<dyn Work>, Fault> + Clone + Send + 'static {}
impl<M: Fn(usize, &[Report]) -> Result<Box<dyn Work>, Fault> + Clone + Send + 'static> MakeWorker for M {}

fn run_workers(
    name: &'static str,
    settings: &StageSettings,
    shared: Vec<Arc<Shared>>,
    shutdown: CancellationToken,
    make: impl MakeWorker,
) -> StageHandle {
    let threads = (0..settings.workers.max(1))
        .map(|number| {
            let report = |shared: &Arc<Shared>| Report { shared: Arc::clone(shared), worker: number };
            let reports: Vec<Report> = shared.iter().map(report).collect();
            let (make, shutdown) = (make.clone(), shutdown.clone());
            thread::Builder::new()
                .name(format!("{name}-{number}"))
                .spawn(move || supervise(name, number, &reports, &make, &shutdown))
                .expect("the system can start a thread")
        })
        .collect();
    StageHandle { threads }
}

fn supervise(
    name: &'static str,
    number: usize,
    reports: &[Report],
    make: &impl MakeWorker,
    shutdown: &CancellationToken,
) {
    let (mut failures, mut pauses) = (0, Backoff::new(Backoff::RESTART));
    while !shutdown.is_cancelled() {
        let started = Instant::now();
        let ended = make(number, reports).map_err(Ended::Fault).and_then(live);
        reports.iter().for_each(Report::gone);
        let reason = match ended {
            Ok(()) | Err(Ended::Fault(Fault::Restore(RestoreError::Shutdown))) => return,
            Err(Ended::Fault(fault)) => fault.to_string(),
            Err(Ended::Panic(message)) => format!("a step panicked, which is a bug: {message}"),
        };
        if shutdown.is_cancelled() {
            return;
        }
        if started.elapsed() > STEADY {
            failures = 0;
            pauses.reset();
        }
        failures += 1;
        tracing::error!(stage = name, worker = number, reason, failures, "worker ended, starting another");
        reports.iter().for_each(|report| report.not_ready(reason.clone()));
        pauses.sleep(shutdown);
    }
}

enum Ended {
    Fault(Fault),
    Panic(String),
}

/// One worker's life.
fn live(mut worker: Box<dyn Work>) -> Result<(), Ended> {
    // After a panic the worker is only dropped: its transaction aborts, its state is gone.
    let ended = catch_unwind(AssertUnwindSafe(|| worker.run()));
    leave(worker);
    match ended {
        Ok(result) => result.map_err(Ended::Fault),
        Err(payload) => {
            let message = payload
                .downcast_ref::<&str>()
                .map(|text| (*text).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            Err(Ended::Panic(message))
        }
    }
}

/// Drops a worker, which leaves its groups; with the brokers gone that has no end of its own.
fn leave(worker: Box<dyn Work>) {
    let (done, left) = mpsc::channel();
    let dropping = thread::Builder::new().name("leaving".to_owned()).spawn(move || {
        drop(worker);
        // Nobody may be waiting any more.
        let _ = done.send(());
    });
    if dropping.is_ok() && left.recv_timeout(LEAVE_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
        tracing::warn!("the group was not left in time; its brokers will notice");
    }
}

/// What all workers of a stage in this process tell together.
#[derive(Debug)]
struct Shared {
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
    fn new(name: &str, settings: &StageSettings, health: Part) -> Self {
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
    fn gone(&self) {
        self.keys(0);
        self.linked(0);
    }
}
