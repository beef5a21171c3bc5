//! The end of a topic, followed by every instance by itself: what was written lately, and
//! then everything that is.

use std::collections::BTreeSet;
use std::time::Instant;

use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::{Message, Offset};
use tokio_util::sync::CancellationToken;

use super::settings::KafkaSettings;
use super::topic_reader::{ANSWER_WAIT, LOOK, POLL, Places, TopicReader, Watch};
use crate::health::Part;
use crate::topics::Topic;

/// Hands every value of `topic` to `take`, from the newest `most` of each partition on, on a
/// thread of its own until `shutdown`. `health` is ready once the end that the topic had at the
/// start has been reached. After an error the newest are read again: `take` may meet a value
/// twice. Values it says it cannot read are logged.
pub fn follow(
    kafka: &KafkaSettings,
    topic: &'static Topic,
    most: i64,
    health: Part,
    shutdown: &CancellationToken,
    mut take: impl FnMut(&[u8]) -> Result<(), String> + Send + 'static,
) {
    let source = TopicReader::new(kafka, topic, health, shutdown.child_token());
    std::thread::Builder::new()
        .name(format!("tail-{}", topic.name))
        .spawn(move || source.again_and_again(|| read(&source, most, &mut take)))
        .expect("the system can start a thread");
}

fn read(
    source: &TopicReader,
    most: i64,
    take: &mut impl FnMut(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    source.health.not_ready(format!("reading {}", source.name));
    let consumer = source.follower()?;
    let Some(partitions) = source.first_partitions(&consumer)? else { return Ok(()) };
    source.assign(&consumer, &recent(source, &consumer, &partitions, most)?)?;
    let mut unread: BTreeSet<i32> = partitions.iter().copied().collect();
    let mut looked_at = Instant::now();
    while !source.stop.is_cancelled() {
        match consumer.poll(POLL) {
            Some(Ok(message)) => {
                if let Err(reason) = take(message.payload().unwrap_or_default()) {
                    let (partition, offset) = (message.partition(), message.offset());
                    tracing::warn!(topic = source.name, partition, offset, reason, "a record is passed over");
                }
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                unread.remove(&partition);
                if unread.is_empty() {
                    source.health.ready();
                }
            }
            Some(Err(error)) => source.judge(&error)?,
            None => {}
        }
        if source.look_at_connection(&consumer) && unread.is_empty() {
            source.health.ready();
        }
        if looked_at.elapsed() > LOOK {
            looked_at = Instant::now();
            if source.has_other_partitions(&consumer, partitions.len()) {
                return Err(format!("the number of partitions of {} has changed", source.name));
            }
        }
    }
    Ok(())
}

/// Where the newest `most` of each partition begin.
fn recent(
    source: &TopicReader,
    consumer: &BaseConsumer<Watch>,
    partitions: &[i32],
    most: i64,
) -> Result<Places, String> {
    let place = |&partition: &i32| {
        let (first, end) = consumer
            .fetch_watermarks(&source.name, partition, ANSWER_WAIT)
            .map_err(|error| format!("cannot read {}: {error}", source.name))?;
        Ok((partition, Offset::Offset(first.max(end - most))))
    };
    partitions.iter().map(place).collect()
}
