//! A whole compacted topic in memory, kept fresh: for what every instance has to know,
//! such as settings. No group, so every reader has all of it.
//!
//! What can be seen is always a state that the topic has had: nothing before the end has
//! been reached, then every change a moment after its commit.

use std::collections::HashMap;
use std::mem;
use std::sync::{Arc, PoisonError, RwLock};

use metrics::{Counter, Gauge};
use rdkafka::Message;
use rdkafka::message::BorrowedMessage;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::DropGuard;

use super::global_consumer::GlobalConsumer;
use super::topic_reader::{Maintainer, Origin, TopicReader};
use crate::health::Part;
use crate::metrics as table;
use crate::topics::Topic;

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
    /// Starts reading `topic` from its beginning, to be followed by `global`, until that ends. Values
    /// that are no `T` are logged, counted and passed over, the former ones staying; keys beyond
    /// `most_entries` too, and `health` says so.
    pub fn open(global: &GlobalConsumer, topic: &'static Topic, most_entries: usize, health: Part) -> Self {
        let shared = Arc::new(Shared { entries: RwLock::default() });
        let (told, standing) = watch::channel(Standing::Reading);
        let stop = global.stop.child_token();
        let counted = |result: &str| table::GLOBAL_TABLE_RECORDS.counter(&[topic.name, result]);
        let kept = Kept {
            name: global.kafka.topic(topic),
            most_entries,
            shared: Arc::clone(&shared),
            told,
            counters: Counters {
                applied: counted("applied"),
                removed: counted("removed"),
                unreadable: counted("unreadable"),
                too_many: counted("too_many"),
            },
            held: table::GLOBAL_TABLE_ENTRIES.gauge(&[topic.name]),
            reading: None,
            waiting: Vec::new(),
            changes: 0,
            over: false,
        };
        TopicReader::start(global, topic, health, stop.clone(), Box::new(kept));
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

/// Keeps a table up to date.
struct Kept<T> {
    /// The topic's full name.
    name: String,
    most_entries: usize,
    shared: Arc<Shared<T>>,
    told: watch::Sender<Standing>,
    counters: Counters,
    held: Gauge,
    /// While the end has not been reached; what can be seen stays as it was.
    reading: Option<Reading<T>>,
    /// Changes that are not visible yet.
    waiting: Vec<Change<T>>,
    /// How many changes were told.
    changes: u64,
    /// There are more keys than may be held.
    over: bool,
}

/// What has been read of a topic whose end has not been reached.
struct Reading<T> {
    entries: Entries<T>,
    /// Keys for which there was no room: there may be when others turn out to be gone.
    beyond: Entries<T>,
}

struct Counters {
    applied: Counter,
    removed: Counter,
    unreadable: Counter,
    too_many: Counter,
}

impl<T: DeserializeOwned + Send + Sync + 'static> Maintainer for Kept<T> {
    fn origin(&self) -> Origin {
        Origin::Beginning
    }

    fn begin(&mut self) {
        self.reading = Some(Reading { entries: Entries::new(), beyond: Entries::new() });
        self.waiting.clear();
        self.over = false;
    }

    fn take(&mut self, record: &BorrowedMessage<'_>) {
        let Some(change) = self.decode(record) else { return };
        match self.reading.take() {
            Some(mut reading) => {
                self.read(change, &mut reading);
                self.reading = Some(reading);
            }
            None => self.waiting.push(change),
        }
    }

    fn whole(&mut self, health: &Part) {
        if let Some(reading) = self.reading.take() {
            let entries = self.fill(reading);
            tracing::info!(topic = self.name, entries = entries.len(), "the table is read");
            self.held.set(entries.len() as f64);
            *self.shared.entries.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(entries);
        }
        self.tell(health);
    }

    fn settle(&mut self, health: &Part) -> Result<(), String> {
        let held = self.show();
        if self.over && held < self.most_entries {
            return Err(format!("{} has room for keys that were passed over", self.name));
        }
        self.tell(health);
        Ok(())
    }
}

impl<T> Drop for Kept<T> {
    fn drop(&mut self) {
        self.told.send_replace(Standing::Stopped);
    }
}

impl<T: DeserializeOwned> Kept<T> {
    fn tell(&mut self, health: &Part) {
        match self.over {
            false => health.ready(),
            true => health.not_ready(format!(
                "{} has more than {} keys: the others are not known here",
                self.name, self.most_entries
            )),
        }
        // Last: who waits for it may look at readiness next.
        self.changes += 1;
        self.told.send_replace(Standing::CaughtUp(self.changes));
    }

    fn read(&mut self, change: Change<T>, Reading { entries, beyond }: &mut Reading<T>) {
        let (key, value) = &change;
        let is_full = entries.len() >= self.most_entries && !entries.contains_key(key);
        let goes_beyond = beyond.contains_key(key) || (is_full && value.is_some());
        self.apply(change, if goes_beyond { beyond } else { entries });
    }

    /// Fills the room that is left at the end.
    fn fill(&mut self, Reading { mut entries, beyond }: Reading<T>) -> Entries<T> {
        for (key, value) in beyond {
            match entries.len() < self.most_entries {
                true => drop(entries.insert(key, value)),
                false => self.pass_by(),
            }
        }
        entries
    }

    /// Applies what waits: readers see all of it or nothing. How many entries there are then.
    fn show(&mut self) -> usize {
        let shared = Arc::clone(&self.shared);
        let mut entries = shared.entries.write().unwrap_or_else(PoisonError::into_inner);
        // Copies only where somebody holds the former state in their hands.
        let next = Arc::make_mut(&mut entries);
        mem::take(&mut self.waiting).into_iter().for_each(|change| self.apply(change, next));
        self.held.set(next.len() as f64);
        next.len()
    }

    /// `None` for what is passed over.
    fn decode(&self, record: &BorrowedMessage<'_>) -> Option<Change<T>> {
        let Some(key) = record.key().and_then(|key| std::str::from_utf8(key).ok()) else {
            self.pass_over(record, "its key is no text");
            return None;
        };
        let value = match record.payload().map(serde_json::from_slice).transpose() {
            Ok(value) => value.map(Arc::new),
            Err(error) => {
                self.pass_over(record, &error.to_string());
                return None;
            }
        };
        Some((key.into(), value))
    }

    fn apply(&mut self, (key, value): Change<T>, entries: &mut Entries<T>) {
        match value {
            None => {
                entries.remove(&key);
                self.counters.removed.increment(1);
            }
            Some(_) if entries.len() >= self.most_entries && !entries.contains_key(&key) => {
                self.pass_by();
            }
            Some(value) => {
                entries.insert(key, value);
                self.counters.applied.increment(1);
            }
        }
    }

    /// A key for which there is no room.
    fn pass_by(&mut self) {
        self.over = true;
        self.counters.too_many.increment(1);
    }

    fn pass_over(&self, record: &BorrowedMessage<'_>, reason: &str) {
        self.counters.unreadable.increment(1);
        let (partition, offset) = (record.partition(), record.offset());
        tracing::warn!(topic = self.name, partition, offset, reason, "a record is passed over");
    }
}
