//! From events to rows: the position in Kafka moves in the rows' own transaction.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use super::publication::{Publication, change, row_of, work_of};
use super::work::{Waits, Work};
use crate::kafka::settings::KafkaSettings;
use crate::kafka::subscription::{InboundRecord, TopicPartition};
use crate::metrics;
use crate::model::Timestamp;
use crate::model::conversation::ConversationEvent;
use crate::postgres::dead_letters::REDRIVEN_FROM;
use crate::postgres::enrichment::{Row, State};
use crate::postgres::{Database, Error};
use crate::runtime::watermark::is_from_the_future;
use crate::sinks::positioned::{NotKept, PositionError, Positions, SetAside};

/// Takes events in and knows how far each partition has been read.
pub(super) struct Intake {
    database: Database,
    waits: Waits,
    pub positions: Positions,
}

/// What one call of [`Intake::take`] brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Taken {
    /// Events that told something new.
    pub told: u64,
    /// Duplicates, and older events that told nothing new.
    pub known: u64,
    /// Records that are no valid events: the stage that counts events sets them aside.
    pub unreadable: u64,
    /// Events whose row Postgres refuses: dead letters.
    pub refused: u64,
    /// Offset of the next record, per partition.
    pub next: Vec<(TopicPartition, i64)>,
}

impl Taken {
    pub(super) fn count(&self) {
        for (result, number) in [
            ("told", self.told),
            ("known", self.known),
            ("unreadable", self.unreadable),
            ("refused", self.refused),
        ] {
            metrics::ENRICHMENT_EVENTS.counter(&[result]).increment(number);
        }
    }
}

/// Why records are not taken in yet.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TakeError {
    #[error(transparent)]
    Position(PositionError),
    #[error(
        "the row of conversation {conversation_id} cannot be read: {error}; run the newer trunkline that wrote it"
    )]
    Row { conversation_id: String, error: serde_json::Error },
    /// Take the same records again later; what was committed after all is not taken twice.
    #[error(transparent)]
    Unavailable(#[from] Error),
}

impl From<PositionError> for TakeError {
    fn from(error: PositionError) -> Self {
        match error {
            PositionError::Unavailable(error) => Self::Unavailable(error),
            rewound => Self::Position(rewound),
        }
    }
}

impl From<TakeError> for NotKept {
    fn from(error: TakeError) -> Self {
        match error {
            TakeError::Position(error) => error.into(),
            TakeError::Unavailable(error) if error.is_about_data() => Self::RefusedSome(error.refusal()),
            error => Self::Yet(error.to_string()),
        }
    }
}

impl Intake {
    pub(super) fn new(database: Database, kafka: &KafkaSettings, waits: Waits) -> Self {
        Self { positions: Positions::new(database.clone(), kafka, &super::ROLE), database, waits }
    }

    /// Takes in what of `records` has not been yet, in one transaction; those in `set_aside`
    /// only move the position.
    ///
    /// # Errors
    /// See [`TakeError`].
    pub(super) async fn take(
        &mut self,
        records: &[InboundRecord],
        set_aside: &[SetAside],
    ) -> Result<Taken, TakeError> {
        loop {
            self.positions.make_sure(records).await?;
            let plan = Plan::new(&self.positions, records, set_aside);
            if plan.next.is_empty() {
                return Ok(Taken::default());
            }
            match self.write(plan).await {
                Ok(Some(taken)) => {
                    self.positions.moved(&taken.next);
                    return Ok(taken);
                }
                // Another writer was there: with what it left behind it works out.
                Ok(None) => self.positions.doubt(),
                Err(error) => {
                    self.positions.doubt();
                    return Err(error);
                }
            }
        }
    }

    async fn write(&self, plan: Plan<'_>) -> Result<Option<Taken>, TakeError> {
        let mut enrichment = self.database.enrichment().await?;
        // Positions first: a second writer waits here, then sees that they moved.
        if !enrichment.advance(self.positions.consumer(), &self.positions.advances(&plan.next)).await? {
            return Ok(None);
        }
        let ids: Vec<&str> = plan.heard.keys().map(String::as_str).collect();
        let rows = enrichment.lock(&ids).await?;
        let known: HashMap<&str, &Row> = rows.iter().map(|row| (row.conversation_id.as_str(), row)).collect();

        let (mut taken, mut changed, mut added, mut publish) =
            (plan.taken, Vec::new(), Vec::new(), Vec::new());
        for (id, heard) in &plan.heard {
            let row = known.get(id.as_str()).copied();
            let folded = fold(row, heard, &self.waits)
                .map_err(|error| TakeError::Row { conversation_id: id.clone(), error })?;
            taken.told += folded.told;
            taken.known += heard.len() as u64 - folded.told;
            if folded.told == 0 {
                continue;
            }
            let new_row = row_of(id, folded.position, &folded.work);
            if row.is_some() { &mut changed } else { &mut added }.push(change(new_row, folded.ask_in));
            if folded.publish {
                publish.push((id.as_str(), folded.work));
            }
        }
        enrichment.change(&changed).await?;
        if !enrichment.add(&added).await? {
            return Ok(None);
        }
        if !publish.is_empty() {
            let ids: Vec<&str> = publish.iter().map(|(id, _)| *id).collect();
            let details: HashMap<_, _> = enrichment.details(&ids).await?.into_iter().collect();
            let told: Vec<Publication> = publish
                .iter()
                .filter_map(|(id, work)| Publication::conversation(id, work, details.get(*id)?))
                .collect();
            enrichment.publish(&told.iter().map(Publication::message).collect::<Vec<_>>()).await?;
        }
        fail::fail_point!("enrichment-before-intake-commit", |_| std::process::abort());
        enrichment.commit().await?;
        fail::fail_point!("enrichment-after-intake-commit", |_| std::process::abort());
        Ok(Some(taken))
    }
}

/// An event with what is known about its record.
struct Heard<'r> {
    event: ConversationEvent<'r>,
    position: (i32, i64),
    /// It was a dead letter and is sent again on purpose.
    again: bool,
}

/// What one transaction is to do.
struct Plan<'r> {
    /// By conversation, in the order of their records.
    heard: BTreeMap<String, Vec<Heard<'r>>>,
    next: Vec<(TopicPartition, i64)>,
    taken: Taken,
}

impl<'r> Plan<'r> {
    fn new(positions: &Positions, records: &'r [InboundRecord], set_aside: &[SetAside]) -> Self {
        let (ahead, next) = positions.ahead(records);
        let taken = Taken { next: next.clone(), ..Taken::default() };
        let mut plan = Self { heard: BTreeMap::new(), next, taken };
        for record in ahead {
            if set_aside.iter().any(|other| other.is_of(record)) {
                plan.taken.refused += 1;
                continue;
            }
            match read(record) {
                Ok(event) => {
                    let heard = Heard {
                        position: (record.partition, record.offset),
                        again: record.headers.iter().any(|(name, _)| name == REDRIVEN_FROM),
                        event,
                    };
                    plan.heard
                        .entry(heard.event.conversation_id.clone().into_owned())
                        .or_default()
                        .push(heard);
                }
                Err(reason) => {
                    plan.taken.unreadable += 1;
                    let partition = record.partition;
                    tracing::debug!(partition, offset = record.offset, reason, "no event: passed over");
                }
            }
        }
        plan
    }
}

/// The event, held to what the stage that counts events holds it to.
fn read(record: &InboundRecord) -> Result<ConversationEvent<'_>, String> {
    let bytes = record.value.as_deref().ok_or("a tombstone")?;
    let event: ConversationEvent<'_> = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    event.validate().map_err(|error| error.to_string())?;
    if record.key.as_deref() != Some(event.conversation_id.as_bytes()) {
        return Err("its key is not its conversationId".to_owned());
    }
    let written_at = record.timestamp_ms.map(Timestamp::from_millis);
    if written_at.is_some_and(|written_at| is_from_the_future(event.occurred_at, written_at)) {
        return Err("it is from the future".to_owned());
    }
    Ok(event)
}

struct Folded {
    work: Work,
    position: (i32, i64),
    told: u64,
    ask_in: Option<Duration>,
    publish: bool,
}

/// Takes a conversation's events in, one after the other.
fn fold(row: Option<&Row>, heard: &[Heard<'_>], waits: &Waits) -> Result<Folded, serde_json::Error> {
    let (mut folded, rest) = match (row, heard) {
        (Some(row), heard) => {
            let work = work_of(row)?;
            (Folded { work, position: row.position, told: 0, ask_in: None, publish: false }, heard)
        }
        (None, [first, rest @ ..]) => {
            let (work, effect) = Work::begin(&first.event, waits);
            let position = first.position;
            (Folded { work, position, told: 1, ask_in: effect.ask_in, publish: false }, rest)
        }
        (None, []) => unreachable!("a conversation is named by an event"),
    };
    for heard in rest {
        let before = folded.work.clone();
        let effect = folded.work.hear(&heard.event, heard.again, waits);
        folded.told += u64::from(folded.work != before);
        folded.publish |= effect.publish;
        folded.ask_in = effect.ask_in.or(folded.ask_in);
        let revived = before.state == State::NotAvailable && folded.work.state == State::Pending;
        if revived || folded.work.summary.last != before.summary.last {
            folded.position = heard.position;
        }
    }
    folded.publish &= folded.work.is_told();
    Ok(folded)
}

#[cfg(test)]
mod tests {
    use super::super::summary::tests::event;
    use super::*;

    const WAITS: Waits = Waits {
        quiet: Duration::from_secs(60),
        settle: Duration::from_secs(5),
        patience: Duration::from_secs(7_200),
    };

    fn heard(number: u32, at_ms: i64, event_type: &'static str, offset: i64) -> Heard<'static> {
        Heard { event: event(number, at_ms, event_type), position: (1, offset), again: false }
    }

    #[test]
    fn a_batch_of_events_is_one_change_with_the_last_ones_place() {
        let events = [
            heard(1, 20, "customer.end", 7),
            heard(0, 10, "customer.start", 8),
            heard(1, 20, "customer.end", 9),
        ];
        let folded = fold(None, &events, &WAITS).unwrap();
        assert_eq!((folded.told, folded.position, folded.ask_in), (2, (1, 7), Some(WAITS.settle)));
        assert!(!folded.publish);
        let row = row_of("c", folded.position, &folded.work);
        let again = fold(Some(&row), &events, &WAITS).unwrap();
        assert_eq!((again.told, again.work), (0, folded.work));
    }

    #[test]
    fn one_that_is_asked_about_again_is_not_told_of_before() {
        let done = |state| {
            let (mut work, _) = Work::begin(&event(0, 20, "customer.end"), &WAITS);
            let at = Timestamp::from_millis(30);
            work.enriched = Some(super::super::work::Enriched { at, up_to: at });
            work.state = state;
            row_of("c", (1, 7), &work)
        };
        let older = heard(4, 10, "acd.end", 8);
        assert!(fold(Some(&done(State::Done)), &[older], &WAITS).unwrap().publish);
        let newer = [heard(4, 10, "acd.end", 8), heard(1, 40, "wrapup", 9)];
        let folded = fold(Some(&done(State::Done)), &newer, &WAITS).unwrap();
        assert_eq!((folded.publish, folded.ask_in), (false, Some(WAITS.settle)));

        let sent_again = Heard { again: true, ..heard(0, 20, "customer.end", 99) };
        let folded = fold(Some(&done(State::NotAvailable)), &[sent_again], &WAITS).unwrap();
        assert_eq!(
            (folded.work.state, folded.position),
            (State::Pending, (1, 99)),
            "its own place from now on"
        );
    }
}
