//! What the member's thread and its async face exchange.

use std::collections::{HashMap, VecDeque};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::{Notify, oneshot};

use super::{
    CommitError, Event, InboundRecord, Offsets, OutboundRecord, PublishError, Start, SubscriptionError,
    TopicPartition,
};
use crate::kafka::topic_ids::TopicIds;

/// A partition as the owner knew it when it gave the command. A partition that
/// was lost and came back has a new epoch: what was meant for the old one is refused.
#[derive(Clone, Copy, Debug)]
pub(super) struct Held {
    pub(super) partition: TopicPartition,
    pub(super) epoch: u64,
}

pub(super) enum Command {
    Start(Vec<(Held, Start)>),
    AcknowledgeRevocation,
    Commit {
        offsets: Vec<(Held, i64)>,
        reply: oneshot::Sender<Result<(), CommitError>>,
    },
    Publish {
        records: Vec<OutboundRecord>,
        offsets: Vec<(Held, i64)>,
        reply: oneshot::Sender<Result<(), PublishError>>,
    },
    TopicIds {
        reply: oneshot::Sender<Result<TopicIds, String>>,
    },
    Pause(Vec<TopicPartition>),
    Resume(Vec<TopicPartition>),
}

/// What the member's thread and its async face exchange.
#[derive(Default)]
pub(super) struct Shared {
    pub(super) queues: Mutex<Queues>,
    /// An event arrived.
    pub(super) arrived: Notify,
    /// There is something for the thread to do.
    pub(super) work: Signal,
}

#[derive(Default)]
pub(super) struct Queues {
    pub(super) events: VecDeque<Queued>,
    /// Records in `events`.
    pub(super) records: usize,
    /// Their size, in bytes.
    pub(super) bytes: usize,
    pub(super) commands: VecDeque<Command>,
    /// Epochs of the partitions the owner has been told of.
    pub(super) told: HashMap<TopicPartition, u64>,
    pub(super) closed: bool,
}

pub(super) enum Queued {
    Assigned(Vec<Held>),
    Revoked(Vec<TopicPartition>),
    Lost(Vec<TopicPartition>),
    Records(Vec<InboundRecord>),
    Failed(SubscriptionError),
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Queues> {
        self.queues.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn take_event(&self) -> Option<Event> {
        let mut queues = self.lock();
        let event = match queues.events.pop_front()? {
            Queued::Assigned(held) => {
                queues.told.extend(held.iter().map(|held| (held.partition, held.epoch)));
                Event::Assigned(held.into_iter().map(|held| held.partition).collect())
            }
            Queued::Revoked(partitions) => Event::Revoked(partitions),
            Queued::Lost(partitions) => {
                for partition in &partitions {
                    queues.told.remove(partition);
                }
                Event::Lost(partitions)
            }
            Queued::Failed(error) => Event::Failed(error),
            Queued::Records(records) => {
                queues.records -= records.len();
                queues.bytes -= size(&records);
                drop(queues);
                // The thread may resume what it paused.
                self.work.set();
                return Some(Event::Records(records));
            }
        };
        Some(event)
    }

    pub(super) fn epoch_of(&self, partition: TopicPartition) -> Option<u64> {
        self.lock().told.get(&partition).copied()
    }

    /// Offsets with the epochs their partitions have for the owner, or the first
    /// partition it does not have.
    pub(super) fn held(&self, offsets: Offsets) -> Result<Vec<(Held, i64)>, TopicPartition> {
        let queues = self.lock();
        offsets
            .into_iter()
            .map(|(partition, offset)| match queues.told.get(&partition) {
                Some(epoch) => Ok((Held { partition, epoch: *epoch }, offset)),
                None => Err(partition),
            })
            .collect()
    }

    pub(super) fn command(&self, command: Command) {
        {
            let mut queues = self.lock();
            // Dropping the command drops its reply: the caller learns that it has ended.
            if queues.closed {
                return;
            }
            queues.commands.push_back(command);
        }
        self.work.set();
    }

    pub(super) fn push(&self, event: Queued) {
        {
            let mut queues = self.lock();
            if let Queued::Records(records) = &event {
                queues.records += records.len();
                queues.bytes += size(records);
            }
            queues.events.push_back(event);
        }
        self.arrived.notify_one();
    }

    /// Takes back what the owner has not seen of these partitions.
    pub(super) fn withdraw(&self, gone: &[TopicPartition]) {
        let mut queues = self.lock();
        for event in &mut queues.events {
            if let Queued::Records(records) = event {
                records.retain(|record| !gone.contains(&record.topic_partition()));
            }
        }
        queues.events.retain(|event| !matches!(event, Queued::Records(records) if records.is_empty()));
        let waiting = queues.events.iter().filter_map(|event| match event {
            Queued::Records(records) => Some((records.len(), size(records))),
            _ => None,
        });
        let (records, bytes) =
            waiting.fold((0, 0), |(records, bytes), (more, size)| (records + more, bytes + size));
        (queues.records, queues.bytes) = (records, bytes);
    }

    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.work.set();
    }
}

fn size(records: &[InboundRecord]) -> usize {
    records.iter().map(InboundRecord::size).sum()
}

/// Wakes one thread; a call before the wait is not lost.
#[derive(Default)]
pub(super) struct Signal {
    set: Mutex<bool>,
    changed: Condvar,
}

impl Signal {
    pub(super) fn set(&self) {
        *self.set.lock().unwrap_or_else(PoisonError::into_inner) = true;
        self.changed.notify_one();
    }

    pub(super) fn wait(&self, at_most: Duration) {
        let guard = self.set.lock().unwrap_or_else(PoisonError::into_inner);
        let (mut guard, _) = self
            .changed
            .wait_timeout_while(guard, at_most, |set| !*set)
            .unwrap_or_else(PoisonError::into_inner);
        *guard = false;
    }
}
