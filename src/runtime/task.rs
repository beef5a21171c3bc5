//! What happens to a record: checks, decoding, lateness, the stage's step, and
//! where the results go. Knows nothing of Kafka: the worker runs it on the real
//! log, the driver on one in memory.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use super::counts::{Contradictions, RecordCounts};
use super::dead_letter::{AheadOf, ErrorHeaders, PER_RECORD, Reason};
use super::decode::read;
use super::held::{Condemned, Held};
use super::limits::{change_too_large, output_too_large};
use super::state::{self, PROGRESS_KEY, Progress, StateError};
use super::watermark::{Watermark, Witnesses};
use super::writer::{Failure, Incoming, Writer, write_change};
use crate::model::Timestamp;
use crate::model::decision::Position;
use crate::pipeline::{Declaration, Moment, Outputs, PartitionStage, PartitionState, Record, Step};

/// A stage with the state of the partitions it holds.
pub(super) struct Task<S: PartitionStage> {
    stage: Arc<S>,
    declaration: &'static Declaration,
    lateness: Duration,
    idle_after: Option<Duration>,
    /// The input topic's name as the brokers know it.
    input: String,
    /// Which topic of that name it is, where that is known.
    topic_id: Option<Uuid>,
    /// One place per partition of the input; `None` where it is not held.
    partitions: Vec<Option<Held<S::State>>>,
    /// Records found to spoil their batch, to be dead letters at the next reading.
    condemned: HashMap<(i32, i64), Condemned>,
    /// Up to this offset of a partition, the size of the state is looked at after every step.
    inspected: HashMap<i32, i64>,
    outputs: Outputs,
    scratch: Vec<u8>,
    counts: RecordCounts,
    contradictions: Contradictions,
    witnesses: Witnesses,
    /// Since when each partition has been held, through batches that did not commit.
    held_since: Vec<Option<Timestamp>>,
}

impl<S: PartitionStage> Task<S> {
    /// `input` is the input topic's full name, `partitions` how many it has.
    pub(super) fn new(stage: Arc<S>, input: String, partitions: i32) -> Self {
        let declaration = stage.declaration();
        let partitions = usize::try_from(partitions).expect("a number of partitions");
        Self {
            lateness: stage.lateness(),
            idle_after: stage.idle_after(),
            stage,
            declaration,
            input,
            topic_id: None,
            partitions: std::iter::repeat_with(|| None).take(partitions).collect(),
            condemned: HashMap::new(),
            inspected: HashMap::new(),
            outputs: Outputs::default(),
            scratch: Vec::new(),
            counts: RecordCounts::default(),
            contradictions: Contradictions::default(),
            witnesses: Witnesses::default(),
            held_since: vec![None; partitions],
        }
    }

    /// Takes a partition with empty state; what its changelog holds is to be
    /// [restored](Self::restore), and where it [stands](Self::stand) to be said, before
    /// the first record.
    pub(super) fn take(&mut self, partition: i32, at: Timestamp) {
        self.held_since[partition as usize].get_or_insert(at);
        self.partitions[partition as usize] = Some(Held {
            state: S::State::default(),
            watermark: Watermark::default(),
            silent_until: Watermark::default(),
            by_clock: false,
            taken_at: at,
            taken_with: Watermark::default(),
            next_offset: 0,
            touched: false,
            read_at: at,
        });
    }

    /// Says which topic of the input's name is read: offsets are offsets in that one.
    pub(super) fn identify(&mut self, topic_id: Option<Uuid>) {
        self.topic_id = topic_id;
    }

    /// The next record of the partition is at this offset.
    pub(super) fn stand(&mut self, partition: i32, next_offset: i64) {
        if let Some(held) = &mut self.partitions[partition as usize] {
            held.next_offset = next_offset;
        }
    }

    /// Drops a partition's state.
    pub(super) fn release(&mut self, partition: i32) {
        self.held_since[partition as usize] = None;
        self.partitions[partition as usize] = None;
    }

    /// Partitions of the input, held or not.
    pub(super) fn partitions(&self) -> i32 {
        self.partitions.len() as i32
    }

    /// The partitions held.
    pub(super) fn held(&self) -> Vec<i32> {
        (0..)
            .zip(&self.partitions)
            .filter_map(|(partition, held)| held.is_some().then_some(partition))
            .collect()
    }

    /// Offset of the next record of a partition that is held.
    pub(super) fn next_offset(&self, partition: i32) -> Option<i64> {
        self.partitions[partition as usize].as_ref().map(|held| held.next_offset)
    }

    /// Keys whose state is held.
    pub(super) fn keys(&self) -> usize {
        self.partitions.iter().flatten().map(|held| held.state.keys()).sum()
    }

    /// How far event time has come in a partition, by facts or by the clock.
    pub(super) fn watermark(&self, partition: i32) -> Watermark {
        self.partitions[partition as usize].as_ref().map_or(Watermark::default(), Held::time)
    }

    /// Takes over one record of the changelog. Answers the partition's progress
    /// where that is what the record holds.
    pub(super) fn restore(
        &mut self,
        partition: i32,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<Option<Progress>, StateError> {
        let now = self.partitions.len() as i32;
        let known = self.declaration.state_version;
        let held = self.partitions[partition as usize].as_mut().expect("taken before it is restored");
        if key != PROGRESS_KEY {
            held.state.restore(known, key, value)?;
            return Ok(None);
        }
        let Some(value) = value else {
            return Ok(None);
        };
        let progress = state::read_progress(known, value)?;
        if progress.partitions != now {
            return Err(StateError::Repartitioned { then: progress.partitions, now });
        }
        (held.watermark, held.silent_until) = (progress.watermark, progress.silent_until);
        // One that some other clock has put ahead of ours silences the partition.
        self.contradictions.healed += held.heal(held.taken_at);
        held.taken_with = held.time();
        Ok(Some(progress))
    }

    /// Makes a record a dead letter when it is read again. Later ones of the partition
    /// are judged anew: they were judged by a state that this one had touched.
    pub(super) fn condemn(&mut self, partition: i32, offset: i64, reason: Reason) {
        self.condemned.retain(|(of, other), _| *of != partition || *other < offset);
        self.condemned.insert((partition, offset), Condemned { reason, bare: false });
    }

    /// [`condemn`](Self::condemn)s a record that the brokers refuse, or what came of it. Where
    /// that was its dead letter already, only its place is kept.
    pub(super) fn condemn_refused(&mut self, partition: i32, offset: i64, reason: Reason) {
        let bare = self.condemned.contains_key(&(partition, offset));
        self.condemn(partition, offset, reason);
        self.condemned.entry((partition, offset)).and_modify(|condemned| condemned.bare = bare);
    }

    /// Looks at the state after every step, up to this offset.
    pub(super) fn inspect(&mut self, partition: i32, up_to_offset: i64) {
        let up_to = self.inspected.entry(partition).or_default();
        *up_to = up_to_offset.max(*up_to);
    }

    /// Processes one record. `at` is the clock at the start of the batch.
    pub(super) fn process<W: Writer>(
        &mut self,
        at: Timestamp,
        record: &Incoming<'_>,
        writer: &mut W,
    ) -> Result<(), Failure<W::Error>> {
        let Some(Some(held)) = self.partitions.get_mut(record.partition as usize) else {
            return Err(Failure::NotHeld { partition: record.partition });
        };
        held.next_offset = record.offset + 1;
        held.touched = true;
        held.read_at = at;
        held.by_clock = false;
        self.contradictions.healed += held.heal(at);
        if let Some(written_at) = record.written_at {
            self.witnesses.add(written_at, at);
        }
        if let Some(condemned) = self.condemned.get(&(record.partition, record.offset)).cloned() {
            return self.set_condemned_aside(at, record, &condemned, writer);
        }
        let (input, key, value) = match read::<S>(record, self.declaration.input, at) {
            Ok(read) => read,
            Err(reason) => return self.set_aside(at, record, &reason, false, writer),
        };
        let event_time = S::event_time(&input);
        if held.watermark.is_late(event_time, self.lateness) {
            return self.set_aside(at, record, &Reason::Late, false, writer);
        }
        let position = Position { topic: &self.input, partition: record.partition, offset: record.offset };
        let met = Record { at, key, value, position };
        match self.stage.step(&met, &mut held.state, input, &mut self.outputs) {
            Step::Applied => {
                let Incoming { partition, offset, .. } = *record;
                let declaration = self.declaration;
                if self.inspected.get(&partition).is_some_and(|up_to| offset <= *up_to)
                    && let Some(reason) = change_too_large(declaration, &held.state, &mut self.scratch)
                {
                    return Err(Failure::Spoilt { partition, offset, reason });
                }
                held.watermark.advance(event_time);
                self.counts.applied += 1;
                held.state.settled(declaration.state_version, |change| {
                    write_change(writer, declaration.changelog, partition, &change)
                })?;
                self.write_outputs(writer, |topic, bytes, limit| {
                    let reason = Reason::OutputTooLarge { topic, bytes, limit };
                    Failure::Spoilt { partition, offset, reason }
                })
            }
            Step::NoOp(_) => {
                debug_assert!(self.outputs.is_empty(), "a step that does nothing sends nothing");
                held.watermark.advance(event_time);
                self.counts.no_op += 1;
                Ok(())
            }
            Step::Rejected(why) => self.set_aside(at, record, &Reason::Rejected(why), false, writer),
            Step::Late => self.set_aside(at, record, &Reason::Late, false, writer),
        }
    }

    fn write_outputs<W: Writer>(
        &mut self,
        writer: &mut W,
        too_large: impl Fn(&'static str, usize, usize) -> Failure<W::Error>,
    ) -> Result<(), Failure<W::Error>> {
        for output in self.outputs.iter() {
            self.declaration.assert_sends(output.topic);
            if let Some((bytes, limit)) = output_too_large(&output) {
                return Err(too_large(output.topic.name, bytes, limit));
            }
            writer.output(output)?;
        }
        self.outputs.clear();
        Ok(())
    }

    fn set_condemned_aside<W: Writer>(
        &mut self,
        at: Timestamp,
        record: &Incoming<'_>,
        Condemned { reason, bare }: &Condemned,
        writer: &mut W,
    ) -> Result<(), Failure<W::Error>> {
        let place = Incoming { key: None, value: None, ..*record };
        self.set_aside(at, if *bare { &place } else { record }, reason, *bare, writer)
    }

    fn set_aside<W: Writer>(
        &mut self,
        at: Timestamp,
        record: &Incoming<'_>,
        reason: &Reason,
        bare: bool,
        writer: &mut W,
    ) -> Result<(), Failure<W::Error>> {
        self.outputs.clear();
        if !self.stage.sets_aside() {
            self.counts.no_op += 1;
            return Ok(());
        }
        let position = Position { topic: &self.input, partition: record.partition, offset: record.offset };
        let errors =
            ErrorHeaders::new(self.declaration.name, reason, position, at).with_topic_id(self.topic_id);
        let topic = reason.topic();
        let bytes = record.key.map_or(0, <[u8]>::len)
            + record.value.map_or(0, <[u8]>::len)
            + errors.byte_len()
            + PER_RECORD;
        // The bytes come first: where everything together is too large, the original
        // headers stay behind, and a value too large even so stops the stage.
        let keep_headers = !bare && bytes + writer.headers_len() <= topic.max_message_bytes;
        if bytes > topic.max_message_bytes {
            let (partition, offset) = (record.partition, record.offset);
            return Err(Failure::DoesNotFit { partition, offset, topic: topic.name, bytes });
        }
        writer.set_aside(topic, record, keep_headers, &errors)?;
        match reason {
            Reason::Late => self.counts.late += 1,
            Reason::Rejected(_) => self.counts.rejected += 1,
            _ => self.counts.dead_letter += 1,
        }
        if let Reason::FromTheFuture { by_ms, ahead_of } = reason {
            self.contradictions.from_the_future += 1;
            let ours = (*ahead_of == AheadOf::Reader).then_some(*by_ms);
            self.contradictions.furthest_ms = self.contradictions.furthest_ms.max(ours);
        }
        Ok(())
    }

    /// Partitions that have been silent for as long as the stage allows, and where time could do
    /// anything. Where one is read to its end, [`let_time_pass`](Self::let_time_pass).
    pub(super) fn quiet(&self, at: Timestamp) -> Vec<(i32, i64)> {
        let Some(idle_after) = self.idle_after else {
            return Vec::new();
        };
        (0..)
            .zip(&self.partitions)
            .filter_map(|(partition, held)| Some((partition, held.as_ref()?)))
            .filter(|(_, held)| at >= held.read_at.plus(idle_after) && held.state.minds(at.minus(idle_after)))
            .map(|(partition, held)| (partition, held.next_offset))
            .collect()
    }

    /// Time in a quiet partition follows the clock, as far as the records read lately bear it out:
    /// a clock that is ahead must not make late what is still to come. Without any record since
    /// the partitions were taken, it goes on from where the furthest of them was then.
    pub(super) fn let_time_pass(&mut self, partition: i32, at: Timestamp) {
        let idle_after = self.idle_after.unwrap_or_default();
        let gone_on = |held: &Held<S::State>| {
            let passed_ms = at.millis_since(held.taken_at).max(0).unsigned_abs();
            Some(held.taken_with.get()?.plus(Duration::from_millis(passed_ms)))
        };
        let now = self.witnesses.borne_out(at);
        let now = now.or_else(|| self.partitions.iter().flatten().filter_map(gone_on).max());
        if let (Some(now), Some(held)) = (now, &mut self.partitions[partition as usize]) {
            held.silent_until.advance(now.min(at).minus(idle_after));
            held.by_clock = true;
        }
    }

    /// Lets every partition do what time brings. Answers whether there is anything to be
    /// [written](Self::write_changes): a batch without records or changes needs no commit.
    pub(super) fn advance(&mut self, at: Timestamp) -> bool {
        let partitions = self.partitions.len() as i32;
        let mut anything = false;
        for (partition, (held, since)) in (0..).zip(self.partitions.iter_mut().zip(&mut self.held_since)) {
            let Some(held) = held else { continue };
            // A clock that was put back is not waited for.
            held.read_at = held.read_at.min(at);
            held.taken_at = held.taken_at.min(at);
            let held_since = *since.insert(since.map_or(at, |since| since.min(at)));
            self.contradictions.healed += held.heal(at);
            let sent = self.outputs.len();
            let moment = Moment {
                at,
                partition,
                partitions,
                watermark: held.time().get(),
                by_clock: held.by_clock,
                held_since,
            };
            self.stage.advance(&moment, &mut held.state, &mut self.outputs);
            held.touched |= self.outputs.len() > sent || held.state.is_changed();
            anything |= held.touched;
        }
        anything
    }

    /// Writes what [`advance`](Self::advance) has sent, and to the changelog what has
    /// changed: each key once, and each partition's progress.
    pub(super) fn write_changes<W: Writer>(&mut self, writer: &mut W) -> Result<(), Failure<W::Error>> {
        self.write_outputs(writer, |topic, bytes, limit| Failure::OutputTooLarge { topic, bytes, limit })?;
        let topic = self.declaration.changelog;
        let version = self.declaration.state_version;
        let partitions = self.partitions.len() as i32;
        for (partition, held) in (0..).zip(&self.partitions) {
            let Some(held) = held.as_ref().filter(|held| held.touched) else {
                continue;
            };
            held.state.changes(version, |change| write_change(writer, topic, partition, &change))?;
            let progress = Progress {
                v: version,
                watermark: held.watermark,
                silent_until: held.silent_until,
                next_offset: held.next_offset,
                partitions,
                topic_id: self.topic_id,
            };
            self.scratch.clear();
            serde_json::to_writer(&mut self.scratch, &progress).expect("own state is JSON");
            writer.changelog(topic, partition, PROGRESS_KEY, Some(&self.scratch))?;
        }
        Ok(())
    }

    /// Partitions with records or changes in this batch, and the offset each is to go on from.
    pub(super) fn positions(&self) -> impl Iterator<Item = (i32, i64)> {
        (0..).zip(&self.partitions).filter_map(|(partition, held)| {
            held.as_ref().filter(|held| held.touched).map(|held| (partition, held.next_offset))
        })
    }

    /// The batch is committed. Answers what became of its records.
    pub(super) fn committed(&mut self) -> RecordCounts {
        for (partition, held) in (0..).zip(&mut self.partitions) {
            let Some(held) = held else { continue };
            if std::mem::take(&mut held.touched) {
                held.state.committed();
                self.condemned.retain(|(of, offset), _| *of != partition || *offset >= held.next_offset);
                self.inspected.retain(|of, up_to| *of != partition || *up_to >= held.next_offset);
            }
        }
        std::mem::take(&mut self.counts)
    }

    /// What contradicted the clock since this was last asked.
    pub(super) fn contradictions(&mut self) -> Contradictions {
        std::mem::take(&mut self.contradictions)
    }

    /// The batch is not committed: all state is dropped, to be restored.
    /// Answers the partitions that were held.
    pub(super) fn reset(&mut self) -> Vec<i32> {
        let held = self.held();
        for partition in &mut self.partitions {
            *partition = None;
        }
        self.outputs.clear();
        self.counts = RecordCounts::default();
        self.contradictions = Contradictions::default();
        held
    }
}
