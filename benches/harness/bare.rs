//! The peer of a stage: the same work from a loop that does nothing else, exactly once. Two threads, each with a
//! consumer, a transactional producer and a map; no headers, no changelog, no checks of keys, depth, lateness or
//! duplicates, no dead letters, no rebalancing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics::Topic;

use super::{PARTITIONS, Usage, records};

const THREADS: i32 = 2;
const BATCH: Duration = Duration::from_millis(100);
const BATCH_RECORDS: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// What a thread makes of the records of its partitions.
pub(crate) trait Work: Default {
    const INPUT: &'static Topic;
    const OUTPUT: &'static Topic;

    /// Takes one value in; `send` writes a key and a value.
    fn take(&mut self, value: &[u8], send: impl FnMut(&str, &[u8]));
}

/// Does all the work there is, once.
pub(crate) fn run<W: Work>(kafka: &KafkaSettings) {
    let begun = Usage::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let kafka = kafka.clone();
            std::thread::spawn(move || part::<W>(&kafka, number))
        })
        .collect();
    let done: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(done, records());
    begun.report("bare loop, exactly once", done);
}

fn part<W: Work>(kafka: &KafkaSettings, number: i32) -> usize {
    let input = kafka.topic(W::INPUT);
    let consumer = consumer(kafka);
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for partition in (number..PARTITIONS).step_by(THREADS as usize) {
        assignment.add_partition_offset(&input, partition, Offset::Beginning).expect("an offset");
        left += consumer.fetch_watermarks(&input, partition, PATIENCE).expect("watermarks").1 as usize;
    }
    consumer.assign(&assignment).expect("assigned");
    let producer = producer(kafka, number);
    let mut work = W::default();
    let total = left;
    while left > 0 {
        left -= batch(kafka, &consumer, &producer, &mut work, left);
    }
    total
}

fn batch<W: Work>(
    kafka: &KafkaSettings,
    consumer: &BaseConsumer,
    producer: &BaseProducer,
    work: &mut W,
    left: usize,
) -> usize {
    let (input, output) = (kafka.topic(W::INPUT), kafka.topic(W::OUTPUT));
    let begun = Instant::now();
    producer.begin_transaction().expect("begun");
    let (mut done, mut offsets) = (0, HashMap::new());
    while done < left.min(BATCH_RECORDS) && begun.elapsed() < BATCH {
        let Some(message) = consumer.poll(Duration::from_millis(1)) else { continue };
        let message = message.expect("a record");
        work.take(message.payload().expect("a value"), |key, value| {
            let mut record = BaseRecord::to(&output).key(key).payload(value);
            while let Err((error, again)) = producer.send(record) {
                let is_full = matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull));
                assert!(is_full, "{error}");
                record = again;
                producer.poll(Duration::from_millis(1));
            }
        });
        offsets.insert(message.partition(), message.offset() + 1);
        done += 1;
    }
    while producer.in_flight_count() > 0 {
        producer.poll(Duration::from_millis(1));
    }
    let mut list = TopicPartitionList::new();
    for (partition, offset) in offsets {
        list.add_partition_offset(&input, partition, Offset::Offset(offset)).expect("an offset");
    }
    let group = consumer.group_metadata().expect("a group");
    producer.send_offsets_to_transaction(&list, &group, PATIENCE).expect("offsets");
    producer.commit_transaction(PATIENCE).expect("committed");
    done
}

fn consumer(kafka: &KafkaSettings) -> BaseConsumer {
    ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("group.id", format!("{}bare", kafka.topic_prefix))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("fetch.queue.backoff.ms", "5")
        .create()
        .expect("a consumer")
}

fn producer(kafka: &KafkaSettings, number: i32) -> BaseProducer {
    let producer: BaseProducer = ClientConfig::new()
        .set("bootstrap.servers", &kafka.brokers)
        .set("transactional.id", format!("{}bare-{number}", kafka.topic_prefix))
        .set("compression.type", "lz4")
        .set("batch.size", "1000000")
        .set("delivery.report.only.error", "true")
        .set("retry.backoff.ms", "10")
        .create()
        .expect("a producer");
    producer.init_transactions(PATIENCE).expect("a broker");
    producer
}
