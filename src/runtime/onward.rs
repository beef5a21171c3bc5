//! What a batch sends to a topic that its own worker reads too.

use super::batch::BatchError;
use crate::kafka::transaction::Transaction;
use crate::model::Timestamp;
use crate::topics::Topic;

/// Records on their way to the brokers, kept for the stage that takes them over at once.
pub(super) struct Handed {
    topic: &'static Topic,
    /// By partition, whether its records are taken over.
    wanted: Vec<bool>,
    /// Records sent to each partition in this transaction.
    sent: Vec<i64>,
    bytes: Vec<u8>,
    records: Vec<Place>,
}

struct Place {
    partition: i32,
    nth: i64,
    key_end: usize,
    value_end: usize,
    end: usize,
}

/// One of them.
pub(super) struct HandedRecord<'h> {
    pub partition: i32,
    /// How many went to its partition before it, in this transaction.
    pub nth: i64,
    pub key: &'h [u8],
    pub value: &'h [u8],
    pub traceparent: Option<&'h [u8]>,
}

impl Handed {
    pub(super) fn new(topic: &'static Topic, partitions: i32) -> Self {
        let partitions = usize::try_from(partitions).expect("a number of partitions");
        let (wanted, sent) = (vec![false; partitions], vec![0; partitions]);
        Self { topic, wanted, sent, bytes: Vec::new(), records: Vec::new() }
    }

    pub(super) fn topic(&self) -> &'static Topic {
        self.topic
    }

    /// Begins another transaction.
    pub(super) fn begin(&mut self, wanted: impl Fn(i32) -> bool) {
        self.clear();
        self.sent.fill(0);
        for (partition, place) in (0..).zip(&mut self.wanted) {
            *place = wanted(partition);
        }
    }

    /// Takes note of a record that is sent.
    pub(super) fn note(
        &mut self,
        topic: &Topic,
        partition: i32,
        key: &[u8],
        value: &[u8],
        traceparent: Option<&str>,
    ) {
        if !std::ptr::eq(topic, self.topic) && topic != self.topic {
            return;
        }
        let nth = self.sent[partition as usize];
        self.sent[partition as usize] += 1;
        if self.wanted[partition as usize] {
            self.bytes.extend_from_slice(key);
            let key_end = self.bytes.len();
            self.bytes.extend_from_slice(value);
            let value_end = self.bytes.len();
            self.bytes.extend_from_slice(traceparent.unwrap_or_default().as_bytes());
            self.records.push(Place { partition, nth, key_end, value_end, end: self.bytes.len() });
        }
    }

    /// Those that have not been taken over yet.
    pub(super) fn records(&self) -> impl Iterator<Item = HandedRecord<'_>> {
        let mut start = 0;
        self.records.iter().map(move |place| {
            let key = &self.bytes[start..place.key_end];
            let value = &self.bytes[place.key_end..place.value_end];
            let traceparent = Some(&self.bytes[place.value_end..place.end]).filter(|text| !text.is_empty());
            start = place.end;
            HandedRecord { partition: place.partition, nth: place.nth, key, value, traceparent }
        })
    }

    /// They are taken over.
    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.records.clear();
    }

    /// Partitions that records were sent to in this transaction, and how many.
    pub(super) fn sent(&self) -> impl Iterator<Item = (i32, i64)> {
        (0..).zip(self.sent.iter().copied()).filter(|(_, sent)| *sent > 0)
    }
}

/// Goes on with what a batch sends, within its transaction.
pub(super) trait Onward {
    /// Where what is sent is to be noted.
    fn handed(&mut self) -> &mut Handed;

    /// Processes what has been noted. `at` is the clock at the start of the batch.
    fn take_over(&mut self, at: Timestamp, transaction: &mut Transaction<'_>) -> Result<(), BatchError>;

    /// The batch is read: writes what has changed, and where it has come to.
    fn conclude(&mut self, at: Timestamp, transaction: &mut Transaction<'_>) -> Result<(), BatchError>;

    /// Whether what was taken over is what stands on the log. Nothing but the commit is left.
    fn verify(&mut self, transaction: &mut Transaction<'_>) -> Result<(), BatchError>;
}
