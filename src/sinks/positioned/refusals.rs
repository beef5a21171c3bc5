//! Records that cannot be kept, on their way to the dead letters.
//!
//! They leave through the outbox, before the positions move past them: a crash between the two
//! appends them a second time, under the same key, and they leave once.

use super::Positions;
use crate::clock;
use crate::kafka::subscription::{InboundRecord, TopicPartition};
use crate::metrics;
use crate::model::decision::Position;
use crate::postgres::Error;
use crate::postgres::outbox::Message;
use crate::runtime::dead_letter::{ErrorHeaders, Reason};
use crate::topics;

/// A record that is not kept, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SetAside {
    pub partition: TopicPartition,
    pub offset: i64,
    pub reason: Reason,
}

impl SetAside {
    pub fn new(record: &InboundRecord, reason: Reason) -> Self {
        Self { partition: record.topic_partition(), offset: record.offset, reason }
    }

    /// For what the database says about its row.
    pub(super) fn refused(record: &InboundRecord, reason: &str) -> Self {
        Self::new(record, Reason::Rejected(reason.to_owned()))
    }

    pub fn is_of(&self, record: &InboundRecord) -> bool {
        self.partition == record.topic_partition() && self.offset == record.offset
    }

    pub(super) fn is_of_same_record(&self, other: &SetAside) -> bool {
        self.partition == other.partition && self.offset == other.offset
    }
}

/// Puts copies of the refused among `records` into the outbox.
///
/// # Errors
/// When the database does not take them; none, some or all may be there then.
pub(super) async fn publish(
    positions: &Positions,
    records: &[InboundRecord],
    refused: &[SetAside],
) -> Result<(), Error> {
    let role = positions.role();
    role.assert_sends(&topics::DEAD_LETTERS);
    for set_aside in refused {
        metrics::SINK_SET_ASIDE.counter(&[role.name, set_aside.reason.code()]).increment(1);
        tracing::warn!(
            role = role.name,
            topic = set_aside.partition.topic.name,
            partition = set_aside.partition.partition,
            offset = set_aside.offset,
            reason = %set_aside.reason,
            "a record cannot be kept and goes to the dead letters"
        );
    }
    let letters: Vec<Letter<'_>> = refused
        .iter()
        // A dead letter that cannot be kept is among the dead letters already.
        .filter(|set_aside| *set_aside.partition.topic != topics::DEAD_LETTERS)
        .filter_map(|set_aside| {
            let record = records.iter().find(|record| set_aside.is_of(record))?;
            Some(Letter::new(positions, record, &set_aside.reason))
        })
        .collect();
    let whole: Vec<Message<'_>> = letters.iter().map(|letter| letter.message(true)).collect();
    match positions.database().append_to_outbox(&whole).await {
        // Larger than any record of ours, say: their places must do.
        Err(error) if error.is_about_data() => {
            let bare: Vec<Message<'_>> = letters.iter().map(|letter| letter.message(false)).collect();
            positions.database().append_to_outbox(&bare).await.map(drop)
        }
        appended => appended.map(drop),
    }
}

/// A copy of a record, byte for byte, with the reason in headers.
struct Letter<'r> {
    record: &'r InboundRecord,
    errors: ErrorHeaders,
    once: String,
}

impl<'r> Letter<'r> {
    fn new(positions: &Positions, record: &'r InboundRecord, reason: &Reason) -> Self {
        let (topic, partition, offset) = (positions.name(record.topic), record.partition, record.offset);
        let position = Position { topic, partition, offset };
        let topic_id = positions.topic_id(record.topic);
        let id = topic_id.unwrap_or_default();
        Self {
            record,
            errors: ErrorHeaders::new(positions.role().name, reason, position, clock::now())
                .with_topic_id(topic_id),
            once: format!("set-aside/{}/{topic}/{id}/{partition}/{offset}", positions.consumer()),
        }
    }

    fn message(&self, whole: bool) -> Message<'_> {
        let originals = self.record.headers.iter().filter(|_| whole);
        let mut message = Message {
            topic: topics::DEAD_LETTERS.name,
            key: self.record.key.as_deref().filter(|_| whole),
            value: self.record.value.as_deref().filter(|_| whole),
            headers: Vec::new(),
            described: false,
            dedupe_key: Some(&self.once),
        };
        for (name, value) in originals {
            message = message.with_header(name, value);
        }
        for (name, value) in self.errors.iter() {
            message = message.with_header(name, value.as_bytes());
        }
        message
    }
}
