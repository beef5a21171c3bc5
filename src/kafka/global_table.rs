//! A whole compacted topic in memory, kept fresh: for what every instance has to know,
//! such as settings. No group, so every reader has all of it.
//!
//! What can be seen is always a state that the topic has had: nothing before the end has
//! been reached, then every change a moment after its commit.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, PoisonError, RwLock};
use std::time::{Duration, Instant};

use metrics::{Counter, Gauge};
use rdkafka::consumer::BaseConsumer;
use rdkafka::error::KafkaError;
use rdkafka::message::BorrowedMessage;
use rdkafka::{Message, Offset};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::settings::KafkaSettings;
use super::topic_reader::{LOOK, POLL, Places, TopicReader, Watch};
use crate::health::Part;
use crate::metrics as table;
use crate::topics::Topic;

/// Changes that become visible together, at most.
const CHANGES_AT_ONCE: usize = 1_000;

/// Keys with their newest values.
pub type Entries<T> = HashMap<Arc<str>, Arc<T>>;
/// A key with its new value; without one it is gone.
type Change<T> = (Arc<str>, Option<Arc<T>>);

/// A topic's newest values by key. Clones share one table; when the last is dropped,
/// reading ends.
#[derive(Debug)]
pub struct GlobalTable<T> {
    shared: Arc<Shared<T>>,
    standing: watch::Receiver<Standing>,
    _reading: Arc<DropGuard>,
}

impl<T> Clone for GlobalTable<T> {
    fn clone(&self) -> Self {
        Self {
            shared: Arc::clone(&self.shared),
            standing: self.standing.clone(),
            _reading: Arc::clone(&self._reading),
        }
    }
}

#[derive(Debug)]
struct Shared<T> {
    entries: RwLock<Arc<Entries<T>>>,
}

/// How far the table is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// The end has not been reached yet.
    Reading,
    /// Everything is there, after so many changes.
    CaughtUp(u64),
    /// Reading has ended; what is there gets old.
    Stopped,
}

impl<T: DeserializeOwned + Send + Sync + 'static> GlobalTable<T> {
    /// Starts reading `topic` from its beginning. Values that are no `T` are logged,
    /// counted and passed over, the former ones staying; keys beyond `most_entries` too,
    /// and `health` says so.
    pub fn open(
        kafka: &KafkaSettings,
        topic: &'static Topic,
        most_entries: usize,
        health: Part,
        shutdown: &CancellationToken,
    ) -> Self {
        let shared = Arc::new(Shared { entries: RwLock::default() });
        let (told, standing) = watch::channel(Standing::Reading);
        let stop = shutdown.child_token();
        let counted = |result: &str| table::GLOBAL_TABLE_RECORDS.counter(&[topic.name, result]);
        let mut reader = Reader {
            source: TopicReader::new(kafka, topic, health, stop.clone()),
            most_entries,
            shared: Arc::clone(&shared),
            told,
            applied: counted("applied"),
            removed: counted("removed"),
            unreadable: counted("unreadable"),
            too_many: counted("too_many"),
            held: table::GLOBAL_TABLE_ENTRIES.gauge(&[topic.name]),
            changes: 0,
            over: false,
        };
        std::thread::Builder::new()
            .name(format!("table-{}", topic.name))
            .spawn(move || reader.run())
            .expect("the system can start a thread");
        Self { shared, standing, _reading: Arc::new(stop.drop_guard()) }
    }

    /// Everything as it is now; it does not change any more in the caller's hands.
    pub fn entries(&self) -> Arc<Entries<T>> {
        Arc::clone(&self.shared.entries.read().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn get(&self, key: &str) -> Option<Arc<T>> {
        self.shared.entries.read().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    /// Waits until the end has been reached. `false` when the shutdown came first.
    pub async fn caught_up(&self) -> bool {
        let mut standing = self.standing.clone();
        let reached = standing.wait_for(|standing| *standing != Standing::Reading).await;
        reached.is_ok_and(|standing| *standing != Standing::Stopped)
    }

    /// Waits for the next change after the last call on this clone. `false` when there
    /// will be none any more.
    pub async fn changed(&mut self) -> bool {
        self.standing.changed().await.is_ok() && *self.standing.borrow() != Standing::Stopped
    }

    /// Waits for the end of reading, after the shutdown.
    pub async fn stopped(&self) {
        // An error says that the thread is gone altogether.
        let _ = self.standing.clone().wait_for(|standing| *standing == Standing::Stopped).await;
    }
}

/// All of a topic, and where its partitions go on.
struct Whole<T> {
    entries: Entries<T>,
    ends: Places,
}

struct Reader<T> {
    source: TopicReader,
    most_entries: usize,
    shared: Arc<Shared<T>>,
    told: watch::Sender<Standing>,
    applied: Counter,
    removed: Counter,
    unreadable: Counter,
    too_many: Counter,
    held: Gauge,
    changes: u64,
    /// There are more keys than may be held.
    over: bool,
}

impl<T: DeserializeOwned> Reader<T> {
    fn run(&mut self) {
        let source = self.source.clone();
        source.again_and_again(|| self.read_and_follow());
        self.told.send_replace(Standing::Stopped);
    }

    /// Until the shutdown. On an error everything is read again, beside what can be seen.
    fn read_and_follow(&mut self) -> Result<(), String> {
        let Some(Whole { entries, ends }) = self.read_whole()? else { return Ok(()) };
        self.show(entries);
        let consumer = self.source.follower()?;
        self.source.assign(&consumer, &ends)?;
        self.follow(&consumer, ends.len())
    }

    /// Reads every partition to its end. `None` when the shutdown came first.
    fn read_whole(&mut self) -> Result<Option<Whole<T>>, String> {
        let started = Instant::now();
        self.source.health.not_ready(format!("reading {}", self.source.name));
        let consumer = self.source.to_the_end()?;
        let Some(partitions) = self.source.first_partitions(&consumer)? else { return Ok(None) };
        let mut ends: Places = partitions.iter().map(|partition| (*partition, Offset::Beginning)).collect();
        self.source.assign(&consumer, &ends)?;
        let mut unread: BTreeSet<i32> = partitions.into_iter().collect();
        let mut entries = Entries::new();
        self.over = false;
        while !unread.is_empty() {
            if self.source.stop.is_cancelled() {
                return Ok(None);
            }
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    ends.insert(message.partition(), Offset::Offset(message.offset() + 1));
                    if let Some(change) = self.decode(&message) {
                        self.apply(change, &mut entries);
                    }
                }
                Some(Err(KafkaError::PartitionEOF(partition))) => drop(unread.remove(&partition)),
                Some(Err(error)) => self.source.judge(&error)?,
                None => {}
            }
            if self.source.look_at_connection(&consumer) {
                self.source.health.not_ready(format!("reading {}", self.source.name));
            }
        }
        let (entries_held, took_ms) = (entries.len(), started.elapsed().as_millis() as u64);
        tracing::info!(topic = self.source.name, entries = entries_held, took_ms, "table is read");
        Ok(Some(Whole { entries, ends }))
    }

    fn show(&mut self, entries: Entries<T>) {
        self.held.set(entries.len() as f64);
        *self.shared.entries.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(entries);
        self.tell();
    }

    fn tell(&mut self) {
        match self.over {
            false => self.source.health.ready(),
            true => {
                let (name, most) = (&self.source.name, self.most_entries);
                self.source
                    .health
                    .not_ready(format!("{name} has more than {most} keys: the others are not known here"));
            }
        }
        // Last: who waits for it may look at readiness next.
        self.changes += 1;
        self.told.send_replace(Standing::CaughtUp(self.changes));
    }

    fn follow(&mut self, consumer: &BaseConsumer<Watch>, partitions: usize) -> Result<(), String> {
        let mut looked_at = Instant::now();
        while !self.source.stop.is_cancelled() {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    self.apply_all(consumer, &message)?;
                    if self.over && self.entries_held() < self.most_entries {
                        return Err(format!("{} has room for keys that were passed over", self.source.name));
                    }
                    self.tell();
                }
                Some(Err(error)) => self.source.judge(&error)?,
                None => {}
            }
            if self.source.look_at_connection(consumer) {
                self.tell();
            }
            if looked_at.elapsed() > LOOK {
                looked_at = Instant::now();
                // Partitions that came later hold keys that are read nowhere yet.
                if self.source.has_other_partitions(consumer, partitions) {
                    return Err(format!("the number of partitions of {} has changed", self.source.name));
                }
            }
        }
        Ok(())
    }

    fn entries_held(&self) -> usize {
        self.shared.entries.read().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Applies a record and those that wait behind it. Readers see all of them or none.
    fn apply_all(
        &mut self,
        consumer: &BaseConsumer<Watch>,
        first: &BorrowedMessage<'_>,
    ) -> Result<(), String> {
        let mut changes: Vec<Change<T>> = self.decode(first).into_iter().collect();
        while changes.len() < CHANGES_AT_ONCE {
            match consumer.poll(Duration::ZERO) {
                Some(Ok(message)) => changes.extend(self.decode(&message)),
                Some(Err(error)) => self.source.judge(&error)?,
                None => break,
            }
        }
        let shared = Arc::clone(&self.shared);
        let mut entries = shared.entries.write().unwrap_or_else(PoisonError::into_inner);
        // Copies only where somebody holds the former state in their hands.
        let next = Arc::make_mut(&mut entries);
        changes.into_iter().for_each(|change| self.apply(change, next));
        self.held.set(next.len() as f64);
        Ok(())
    }

    /// `None` for what is passed over.
    fn decode(&self, message: &BorrowedMessage<'_>) -> Option<Change<T>> {
        let Some(key) = message.key().and_then(|key| std::str::from_utf8(key).ok()) else {
            self.pass_over(message, "its key is no text");
            return None;
        };
        let value = match message.payload().map(serde_json::from_slice).transpose() {
            Ok(value) => value.map(Arc::new),
            Err(error) => {
                self.pass_over(message, &error.to_string());
                return None;
            }
        };
        Some((key.into(), value))
    }

    fn apply(&mut self, (key, value): Change<T>, entries: &mut Entries<T>) {
        match value {
            None => {
                entries.remove(&key);
                self.removed.increment(1);
            }
            Some(_) if entries.len() >= self.most_entries && !entries.contains_key(&key) => {
                self.over = true;
                self.too_many.increment(1);
            }
            Some(value) => {
                entries.insert(key, value);
                self.applied.increment(1);
            }
        }
    }

    fn pass_over(&self, message: &BorrowedMessage<'_>, reason: &str) {
        self.unreadable.increment(1);
        let (partition, offset) = (message.partition(), message.offset());
        tracing::warn!(topic = self.source.name, partition, offset, reason, "a record is passed over");
    }
}
