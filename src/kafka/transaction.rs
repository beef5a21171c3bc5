//! Kafka transactions whose misuse does not compile, around the ways librdkafka lets them go wrong.
//! Usable by anything that publishes records, with or without the offsets of what it read.
//!
//! A [`Transaction`] borrows its [`Producer`]; committing or aborting consumes it, dropping it aborts.
//! Whenever the end of a transaction is in any doubt, the producer is replaced before the next one
//! begins: librdkafka 2.12 can retry a commit on a second connection while the first is still on its way,
//! and the late one would then commit the *following* transaction behind our back. A new producer raises
//! the epoch, which fences the stray request.

mod connected;
mod patience;
mod settings;
mod verdict;
mod watch;

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use rdkafka::config::{FromClientConfigAndContext, RDKafkaLogLevel};
use rdkafka::consumer::ConsumerGroupMetadata;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::OwnedHeaders;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};
use rdkafka::{ClientConfig, TopicPartitionList};
use tokio_util::sync::CancellationToken;

use super::log_ends;
use super::native::{self, Outgoing};
use super::settings::KafkaSettings;

pub use settings::TransactionSettings;
pub(crate) use verdict::is_refusal;
pub use verdict::{TransactionError, Verdict};

use connected::Connected;
use patience::{Patience, SLICE, drain, serve};
use watch::Watch;

/// How long a full send buffer is left alone.
const TURN: Duration = Duration::from_millis(1);
/// Failed deliveries are noticed this late.
const FLUSH_SLICE: Duration = Duration::from_millis(50);
/// A transaction end slower than this may have been sent twice.
const SUSPICIOUS: Duration = Duration::from_secs(1);
/// Largest batch of records sent at once, in bytes. A topic's `max.message.bytes` must allow for it.
pub const BATCH_BYTES: usize = 262_144;
/// Largest record librdkafka takes, in bytes: above every topic's own limit.
const MESSAGE_BYTES: usize = 20 * 1_024 * 1_024;

/// A producer that writes in transactions, under one transactional id.
pub struct Producer {
    id: String,
    config: ClientConfig,
    socket_timeout: Duration,
    timeout: Duration,
    shutdown: CancellationToken,
    client: Option<Connected>,
    /// Why the next transaction must not use this client.
    doubt: Option<&'static str>,
    /// Whether doubts are heeded; a test of the cure switches it off.
    heed_doubts: bool,
    replaced: u64,
}

impl Producer {
    /// Connects on first use. `shutdown` bounds every wait.
    pub fn new(
        kafka: &KafkaSettings,
        role: &str,
        worker: usize,
        settings: &TransactionSettings,
        shutdown: CancellationToken,
    ) -> Self {
        Self::with_id(kafka.transactional_id(role, worker), kafka, role, settings, shutdown)
    }

    /// The one producer of a role over all instances: whoever connects last fences
    /// those before.
    pub fn sole(
        kafka: &KafkaSettings,
        role: &str,
        settings: &TransactionSettings,
        shutdown: CancellationToken,
    ) -> Self {
        Self::with_id(kafka.group(role), kafka, role, settings, shutdown)
    }

    fn with_id(
        id: String,
        kafka: &KafkaSettings,
        role: &str,
        settings: &TransactionSettings,
        shutdown: CancellationToken,
    ) -> Self {
        let mut config = kafka.client(role);
        let timeout_ms = settings.timeout.as_millis().to_string();
        config
            .set("transactional.id", &id)
            .set("transaction.timeout.ms", &timeout_ms)
            .set("message.timeout.ms", &timeout_ms)
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("batch.size", BATCH_BYTES.to_string())
            .set("message.max.bytes", MESSAGE_BYTES.to_string())
            // The end of a transaction waits for all of them anyway.
            .set("delivery.report.only.error", "true");
        let linger_ms = settings.linger.as_millis().to_string();
        let preferences = [
            ("compression.type", "lz4"),
            ("linger.ms", &linger_ms),
            ("batch.num.messages", "50000"),
            ("queue.buffering.max.messages", "20000"),
            ("queue.buffering.max.kbytes", "8192"),
        ];
        kafka.prefer(&mut config, &preferences);
        // Info is where closed connections are told, whatever our own log shows.
        config.set_log_level(RDKafkaLogLevel::Info);
        let socket_timeout = config
            .get("socket.timeout.ms")
            .and_then(|text| text.parse().ok())
            .map_or(Duration::from_secs(60), Duration::from_millis);
        Self {
            id,
            config,
            socket_timeout,
            timeout: settings.timeout,
            shutdown,
            client: None,
            doubt: None,
            heed_doubts: true,
            replaced: 0,
        }
    }

    pub fn transactional_id(&self) -> &str {
        &self.id
    }

    /// How many times a new client had to take over.
    pub fn replaced(&self) -> u64 {
        self.replaced
    }

    /// Never replaces the client on mere doubt. Only for showing that doubts are justified.
    #[doc(hidden)]
    pub fn ignore_doubts(&mut self) {
        self.heed_doubts = false;
    }

    /// Makes sure there is a client without a doubtful past. Once it returns,
    /// whatever earlier transactions under this id left open has ended.
    pub fn settle(&mut self) -> Result<(), TransactionError> {
        if let Some(Connected { client, .. }) = &self.client {
            drain(client);
            if client.context().unsettled.load(Ordering::Acquire) && self.doubt.is_none() {
                self.doubt = Some("a connection broke");
            }
        }
        if let Some(reason) = self.doubt.take_if(|_| self.heed_doubts) {
            tracing::info!(id = self.id, reason, "replacing the transactional producer");
            self.client = None;
            self.replaced += 1;
        }
        if self.client.is_none() {
            self.client = Some(Connected::new(self.connect()?));
        }
        Ok(())
    }

    fn connect(&self) -> Result<BaseProducer<Watch>, TransactionError> {
        let step = "init_transactions";
        let client = BaseProducer::from_config_and_context(&self.config, Watch::default())
            .map_err(|cause| TransactionError { verdict: Verdict::Fatal, step, cause })?;
        let patience = Patience::new(self.timeout.max(Duration::from_secs(30)), &self.shutdown);
        patience.retry(step, &client, || client.init_transactions(SLICE))?;
        // What happened while connecting concerns no transaction.
        drain(&client);
        client.context().unsettled.store(false, Ordering::Release);
        Ok(client)
    }

    /// Opens a transaction, on a new client if the last one's end is in doubt.
    pub fn begin(&mut self) -> Result<Transaction<'_>, TransactionError> {
        self.settle()?;
        let client = self.client();
        if let Err(cause) = client.begin_transaction() {
            self.doubt = Some("a transaction could not begin");
            return Err(TransactionError::new("begin", cause));
        }
        Ok(Transaction { producer: self, open: true })
    }

    /// Offset after the last committed record of each partition, as the brokers say now. Asked over
    /// the producer's connection: a consumer's is busy with waiting for records.
    pub(crate) fn ends_of(
        &self,
        topic: &str,
        partitions: &[i32],
        wait: Duration,
    ) -> Result<Vec<i64>, KafkaError> {
        let Connected { client, .. } = self.client.as_ref().ok_or(KafkaError::Canceled)?;
        log_ends::ends(client.client(), topic, partitions, wait)
    }

    fn client(&self) -> &BaseProducer<Watch> {
        &self.client.as_ref().expect("a transaction has a client").client
    }

    /// Takes note of how an end went.
    fn judge_end(&mut self, took: Duration, succeeded: bool) {
        let client = self.client();
        drain(client);
        let unsettled = client.context().unsettled.load(Ordering::Acquire);
        self.doubt = if !succeeded {
            Some("a transaction's end failed")
        } else if took >= SUSPICIOUS || took >= self.socket_timeout / 2 {
            Some("a transaction's end was slow")
        } else if unsettled {
            Some("a connection broke during a transaction")
        } else {
            None
        };
    }
}

/// An open transaction.
#[must_use = "dropping a transaction aborts it"]
pub struct Transaction<'p> {
    producer: &'p mut Producer,
    open: bool,
}

impl Transaction<'_> {
    /// How many clients came before this transaction's own: see [`Producer::replaced`].
    pub fn replaced(&self) -> u64 {
        self.producer.replaced
    }

    /// Sends one record; returns once it is in the send buffer. `timestamp_ms`
    /// `None` is now. Waits while the buffer is full.
    pub fn send(
        &mut self,
        topic: &str,
        partition: i32,
        key: Option<&[u8]>,
        value: Option<&[u8]>,
        headers: Option<OwnedHeaders>,
        timestamp_ms: Option<i64>,
    ) -> Result<(), TransactionError> {
        fail::fail_point!("transaction-before-produce", |_| std::process::abort());
        let mut record = BaseRecord::<[u8], [u8]>::to(topic).partition(partition);
        record.key = key;
        record.payload = value;
        record.headers = headers;
        record.timestamp = timestamp_ms;
        let mut record = Some(record);
        self.offer(|client| {
            client.client.send(record.take().expect("it came back")).map_err(|(cause, back)| {
                record = Some(back);
                cause
            })
        })
    }

    /// [`send`](Self::send) for what is sent all the time: the topic is looked up once, and
    /// headers are not made before the record is.
    pub(crate) fn send_quickly(
        &mut self,
        topic: &str,
        record: &Outgoing<'_>,
    ) -> Result<(), TransactionError> {
        fail::fail_point!("transaction-before-produce", |_| std::process::abort());
        self.offer(|connected| connected.send(topic, record))
    }

    /// Waits while the send buffer is full.
    fn offer(
        &mut self,
        mut put: impl FnMut(&mut Connected) -> Result<(), KafkaError>,
    ) -> Result<(), TransactionError> {
        let mut waiting_since = None;
        loop {
            let connected = self.producer.client.as_mut().expect("a transaction has a client");
            match put(connected) {
                Ok(()) => break,
                Err(cause @ KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)) => {
                    let since = *waiting_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > self.producer.timeout || self.producer.shutdown.is_cancelled() {
                        return Err(TransactionError { verdict: Verdict::Abortable, step: "produce", cause });
                    }
                    serve(&connected.client, TURN);
                }
                Err(cause) => return Err(self.blame(TransactionError::new("produce", cause))),
            }
        }
        fail::fail_point!("transaction-after-produce", |_| std::process::abort());
        Ok(())
    }

    /// Sends what lingers and waits until the brokers have every record. Much faster
    /// than leaving it to the commit, which looks only every 100 ms.
    pub fn flush(&mut self) -> Result<(), TransactionError> {
        let step = "flush";
        let client = self.producer.client();
        let patience = Patience::new(self.producer.timeout, &self.producer.shutdown);
        while !native::flush(client.client(), FLUSH_SLICE) {
            drain(client);
            if patience.is_over() {
                let cause = KafkaError::Flush(RDKafkaErrorCode::OperationTimedOut);
                return Err(TransactionError { verdict: Verdict::Abortable, step, cause });
            }
        }
        match client.context().take_delivery_error() {
            Some(code) => Err(TransactionError {
                verdict: Verdict::Abortable,
                step,
                cause: KafkaError::MessageProduction(code),
            }),
            None => Ok(()),
        }
    }

    /// Makes the positions of what was read part of the transaction. `group` must be fresh.
    pub fn send_offsets(
        &mut self,
        offsets: &TopicPartitionList,
        group: &ConsumerGroupMetadata,
    ) -> Result<(), TransactionError> {
        fail::fail_point!("transaction-before-send-offsets", |_| std::process::abort());
        let client = self.producer.client();
        let patience = Patience::new(self.producer.timeout, &self.producer.shutdown);
        patience
            .retry("send_offsets", client, || client.send_offsets_to_transaction(offsets, group, SLICE))
            .map_err(|error| self.blame(error))?;
        fail::fail_point!("transaction-after-send-offsets", |_| std::process::abort());
        Ok(())
    }

    /// After a failed delivery every step fails: the delivery's own error says why.
    fn blame(&self, error: TransactionError) -> TransactionError {
        let client = self.producer.client();
        drain(client);
        match client.context().take_delivery_error() {
            Some(code) => TransactionError {
                verdict: Verdict::Abortable,
                step: error.step,
                cause: KafkaError::MessageProduction(code),
            },
            None => error,
        }
    }

    /// Commits. A commit whose reply does not come is tried again as a commit, never
    /// aborted; if patience ends first the error says [`Verdict::Unknown`].
    pub fn commit(mut self) -> Result<(), TransactionError> {
        if let Err(error) = self.flush() {
            self.end_by_abort();
            return Err(error);
        }
        fail::fail_point!("transaction-before-commit", |_| std::process::abort());
        self.open = false;
        let started = Instant::now();
        let client = self.producer.client();
        let patience = Patience::new(self.producer.timeout, &self.producer.shutdown);
        let result = patience.retry("commit", client, || client.commit_transaction(SLICE));
        self.producer.judge_end(started.elapsed(), result.is_ok());
        if matches!(&result, Err(error) if error.verdict == Verdict::Abortable) {
            self.end_by_abort();
        }
        result?;
        fail::fail_point!("transaction-after-commit", |_| std::process::abort());
        Ok(())
    }

    /// Gives everything up. Cannot fail: where the abort does, the next client's
    /// new epoch aborts instead.
    pub fn abort(mut self) {
        self.end_by_abort();
    }

    fn end_by_abort(&mut self) {
        self.open = false;
        let client = self.producer.client();
        let patience = Patience::new(Duration::from_secs(2), &self.producer.shutdown);
        if let Err(error) = patience.retry("abort", client, || client.abort_transaction(SLICE)) {
            tracing::warn!(id = self.producer.id, %error, "a transaction could not be aborted");
        }
        // Every abort follows a failure: the cheap way to be sure is a new client.
        self.producer.doubt = Some("a transaction was aborted");
    }
}

impl Drop for Transaction<'_> {
    fn drop(&mut self) {
        if self.open {
            self.end_by_abort();
        }
    }
}
