//! Running a stage: its worker threads, their restarts, and what is told of them.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::chain::ChainWorker;
use super::fault::Fault;
use super::report::{Report, Shared};
use super::restore::RestoreError;
use super::worker::{Work, Worker};
use crate::backoff::Backoff;
use crate::health::Part;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::TransactionSettings;
use crate::pipeline::PartitionStage;

/// Leaving the group may take this long at a shutdown; then the process ends without.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A worker that ran this long has earned a quick restart.
const STEADY: Duration = Duration::from_secs(60);

/// How a stage runs.
#[derive(Clone, Debug)]
pub struct StageSettings {
    /// Worker threads in this process; more than partitions are idle. Default 1.
    pub workers: usize,
    /// Most records in a transaction. Default 100 000: twice as many took more memory and were no
    /// quicker, half as many a tenth slower.
    pub batch_records: usize,
    /// Longest time a transaction collects records while the stage keeps up. Default 100 ms.
    pub batch_time: Duration,
    /// The same while records have waited for long: a quarter of that, up to this and up to twice
    /// as long as the transaction before. Default 1 s.
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
            batch_records: 100_000,
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
            let reports: Vec<Report> = shared.iter().map(|shared| Report::of(shared, number)).collect();
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
