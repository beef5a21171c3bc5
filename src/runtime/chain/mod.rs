//! Two stages, of which the second reads what the first sends, worked for by one thread in the
//! same transactions.
//!
//! Each stage has its group, its topics and its changelog as if it ran alone. Where a partition of
//! the topic between is held by both here, and has been read to its end, it is linked: what the
//! first sends there goes to the brokers and at once to the second, and the positions of both
//! groups are part of one transaction. It is as fast as one stage, and loses nothing: whenever
//! anything is not as it should be the transaction is aborted, nothing is linked for a while, and
//! the second stage reads its topic like every other.

mod handover;
mod links;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;

use super::batch::{BatchError, Committed, merged};
use super::fault::Fault;
use super::input::ANSWER_WAIT;
use super::onward::Handed;
use super::report::Report;
use super::seat::Seat;
use super::stage::StageSettings;
use super::worker::{IDLE_WAIT, Rest, Work};
use crate::kafka::assignment::partition_list;
use crate::kafka::log_ends::LogEnds;
use crate::kafka::settings::KafkaSettings;
use crate::kafka::transaction::Producer;
use crate::kafka::{Consumer, Offset};
use crate::pipeline::PartitionStage;
use handover::Handover;
use links::Links;

/// Pause between two looks for records at two consumers. (A short wait for either spins.)
const BOTH_IDLE: Duration = Duration::from_millis(5);
/// Time between two looks whether partitions have been read to their ends.
const LINK_LOOK: Duration = Duration::from_millis(100);
/// Time between two looks whether somebody else has written to a linked partition.
const OTHERS_LOOK: Duration = Duration::from_secs(5);

pub(super) struct ChainWorker<A: PartitionStage, B: PartitionStage> {
    first: Seat<A>,
    second: Seat<B>,
    producer: Producer,
    shutdown: CancellationToken,
    links: Links,
    told_linked: usize,
    handed: Handed,
    ends: LogEnds,
    rest: Rest,
    looked_to_link: Instant,
    looked_for_others: Instant,
}

impl<A: PartitionStage, B: PartitionStage> ChainWorker<A, B> {
    /// Connects, checks the topics and joins both groups.
    pub(super) fn start(
        (first, second): (Arc<A>, Arc<B>),
        number: usize,
        kafka: &KafkaSettings,
        settings: &StageSettings,
        (first_report, second_report): (Report, Report),
        shutdown: &CancellationToken,
    ) -> Result<Self, Fault> {
        let (role, between) = (first.declaration().name, second.declaration().input);
        debug_assert!(first.declaration().outputs.contains(&between), "{role} sends nothing to {between:?}");
        let producer = Producer::new(kafka, role, number, &settings.transactions, shutdown.clone());
        let ends = LogEnds::new(kafka, role);
        let first = Seat::take(first, kafka, settings, first_report, shutdown)?;
        let second = Seat::take(second, kafka, settings, second_report, shutdown)?;
        let partitions = second.task.partitions();
        Ok(Self {
            first,
            second,
            producer,
            shutdown: shutdown.clone(),
            links: Links::new(partitions),
            told_linked: 0,
            handed: Handed::new(between, partitions),
            ends,
            rest: Rest::default(),
            looked_to_link: Instant::now(),
            looked_for_others: Instant::now(),
        })
    }

    /// Links follow what the groups have given us.
    fn follow_assignments(&mut self) -> Result<(), Fault> {
        self.first.answer_rebalances()?;
        self.second.answer_rebalances()?;
        let (first, second) = (&self.first.task, &self.second.task);
        let partitions = first.partitions().min(second.partitions());
        let is_held = |partition| {
            partition < partitions
                && first.next_offset(partition).is_some()
                && second.next_offset(partition).is_some()
        };
        for partition in self.links.hold(is_held) {
            self.hand_back(partition)?;
        }
        Ok(())
    }

    /// From here on the second stage's own consumer reads the partition, where it still has it.
    fn hand_back(&self, partition: i32) -> Result<(), Fault> {
        let Some(next) = self.second.task.next_offset(partition) else { return Ok(()) };
        self.resume(partition)?;
        let mut list = partition_list(&self.second.input, &[partition]);
        list.set_all_offsets(Offset::Offset(next)).map_err(Fault::kafka("resuming a partition"))?;
        self.second.seek(list, ANSWER_WAIT)
    }

    fn resume(&self, partition: i32) -> Result<(), Fault> {
        let list = partition_list(&self.second.input, &[partition]);
        self.second.consumer.resume(&list).map_err(Fault::kafka("resuming a partition"))
    }

    /// Links what has been read to its end. No transaction is open.
    fn link(&mut self) -> Result<(), Fault> {
        if self.looked_to_link.elapsed() < LINK_LOOK || !self.links.may_begin() {
            return Ok(());
        }
        self.looked_to_link = Instant::now();
        let next_of = |partition| Some((partition, self.second.task.next_offset(partition)?));
        let mut candidates: Vec<(i32, i64)> =
            self.second.task.held().into_iter().filter_map(next_of).collect();
        candidates.retain(|(partition, next)| self.links.may_be_read(*partition, *next));
        for (partition, next, end) in self.ends(&candidates) {
            if self.links.is_read(partition, next, end) {
                let list = partition_list(&self.second.input, &[partition]);
                self.second.consumer.pause(&list).map_err(Fault::kafka("pausing a partition"))?;
                self.links.link(partition, end);
                tracing::debug!(stage = self.second.name(), partition, end, "linked");
            }
        }
        Ok(())
    }

    /// Partitions between the stages with their next offsets and their ends; none where these are not known.
    fn ends(&self, of: &[(i32, i64)]) -> Vec<(i32, i64, i64)> {
        if of.is_empty() {
            return Vec::new();
        }
        let partitions: Vec<i32> = of.iter().map(|(partition, _)| *partition).collect();
        let ends = self.producer.ends_of(&self.second.input, &partitions, ANSWER_WAIT).unwrap_or_default();
        of.iter().zip(ends).map(|((partition, next), end)| (*partition, *next, end)).collect()
    }

    fn tell_links(&mut self) {
        let linked = self.links.linked().count();
        if std::mem::replace(&mut self.told_linked, linked) != linked {
            self.second.report.linked(linked);
        }
    }

    /// What somebody else has written to a linked partition would never be read.
    fn look_for_others(&mut self) -> Result<(), Fault> {
        if self.looked_for_others.elapsed() < OTHERS_LOOK {
            return Ok(());
        }
        self.looked_for_others = Instant::now();
        let linked: Vec<(i32, i64)> = self.links.linked().collect();
        for (partition, next, end) in self.ends(&linked) {
            if end > next {
                tracing::info!(
                    stage = self.second.name(),
                    partition,
                    "somebody else has written: read again"
                );
                self.links.cut(partition);
                self.hand_back(partition)?;
            }
        }
        Ok(())
    }

    /// What the second stage's own consumer has. Answers whether there was anything.
    fn read_second(&mut self) -> Result<bool, Fault> {
        self.rest.take();
        let turn = self.second.turn(&mut self.producer, Duration::ZERO, None);
        let is_idle = matches!(turn, Ok(None));
        let small = self.second.go_on(turn, &mut self.producer)?;
        self.rest.after(small);
        Ok(!is_idle)
    }

    /// What the first stage's consumer has, and what comes of it in the second.
    fn read_first(&mut self, wait: Duration) -> Result<bool, Fault> {
        self.rest.take();
        let started = Instant::now();
        self.handed.begin(|partition| self.links.is_linked(partition));
        let mut handover = Handover {
            merged: merged(&self.second.input),
            second: &mut self.second,
            links: &mut self.links,
            handed: &mut self.handed,
            ends: &self.ends,
            has_taken: false,
        };
        let turn = self.first.turn(&mut self.producer, wait, Some(&mut handover));
        let has_taken = handover.has_taken;
        match turn {
            Err(error) if has_taken => self.both_again(error).map(|()| true),
            Err(error) => {
                // What was aborted has offsets too.
                for partition in self.links.cut_all() {
                    self.hand_back(partition)?;
                }
                self.first.go_on(Err(error), &mut self.producer).map(|_| true)
            }
            Ok(None) => Ok(false),
            Ok(Some(committed)) => {
                self.links.committed();
                if has_taken {
                    let of_second = Committed::of(&mut self.second.task, started);
                    self.second.committed(of_second)?;
                }
                let small = self.first.go_on(Ok(Some(committed)), &mut self.producer)?;
                self.rest.after(small);
                Ok(true)
            }
        }
    }

    /// After a transaction of both that did not commit: whatever it was about, it will be met
    /// again by one of them alone, where the offsets are what the brokers say.
    fn both_again(&mut self, error: BatchError) -> Result<(), Fault> {
        let (why, verdict) = error.told()?;
        for partition in self.links.cut_all() {
            self.resume(partition)?;
        }
        self.first.recover(&why, verdict, &mut self.producer)?;
        self.second.recover(&why, verdict, &mut self.producer)
    }
}

impl<A: PartitionStage, B: PartitionStage> Work for ChainWorker<A, B> {
    fn run(&mut self) -> Result<(), Fault> {
        // Frees what an earlier life of this worker may have left open.
        self.producer.settle()?;
        while !self.shutdown.is_cancelled() {
            self.follow_assignments()?;
            self.first.look_around(&self.producer);
            self.second.look_around(&self.producer);
            self.look_for_others()?;
            self.link()?;
            self.tell_links();
            let has_read = self.read_second()?;
            let are_all_linked = self.second.task.held().iter().all(|held| self.links.is_linked(*held));
            let wait = if are_all_linked && !has_read { IDLE_WAIT } else { Duration::ZERO };
            if !self.read_first(wait)? && !has_read && wait.is_zero() {
                std::thread::sleep(BOTH_IDLE);
            }
        }
        Ok(())
    }
}
