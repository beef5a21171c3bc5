//! The end of a topic, followed by every instance by itself: what was written lately, and
//! then everything that is.

use rdkafka::Message;
use rdkafka::message::BorrowedMessage;

use super::global_consumer::GlobalConsumer;
use super::topic_reader::{Maintainer, Origin, TopicReader};
use crate::health::Part;
use crate::topics::Topic;

/// Hands every value of `topic` to `take`, from the newest `most` of each partition on, until
/// `global` ends. `health` is ready once the end that the topic had at the start has been reached.
/// After an error the newest are read again: `take` may meet a value twice. Values it says it
/// cannot read are logged.
pub fn follow(
    global: &GlobalConsumer,
    topic: &'static Topic,
    most: i64,
    health: Part,
    take: impl FnMut(&[u8]) -> Result<(), String> + Send + 'static,
) {
    let tail = Tail { name: global.kafka.topic(topic), most, take };
    TopicReader::start(global, topic, health, global.stop.child_token(), Box::new(tail));
}

struct Tail<F> {
    /// The topic's full name.
    name: String,
    most: i64,
    take: F,
}

impl<F: FnMut(&[u8]) -> Result<(), String> + Send + 'static> Maintainer for Tail<F> {
    fn origin(&self) -> Origin {
        Origin::Newest(self.most)
    }

    fn begin(&mut self) {}

    fn take(&mut self, record: &BorrowedMessage<'_>) {
        if let Err(reason) = (self.take)(record.payload().unwrap_or_default()) {
            let (partition, offset) = (record.partition(), record.offset());
            tracing::warn!(topic = self.name, partition, offset, reason, "a record is passed over");
        }
    }

    fn whole(&mut self, health: &Part) {
        health.ready();
    }

    fn settle(&mut self, _: &Part) -> Result<(), String> {
        Ok(())
    }
}
