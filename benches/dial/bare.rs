//! The peer: the same decisions from a loop that does nothing else. Two threads, each
//! with a consumer, a transactional producer and a map; no headers, no changelog, no
//! checks of keys, depth, lateness or duplicates, no dead letters, no rebalancing.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;
use serde_json::value::RawValue;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::campaign::{CampaignWindow, DialParameters};
use trunkline::model::decision::{Action, Decision, DecisionId, Loop, Mode, Policy};
use trunkline::model::dial_rate::Limits;
use trunkline::stages::dialing::proportional::{Answer, NAME, Proportional, VERSION};
use trunkline::topics;

use crate::harness::{PARTITIONS, Usage, now, records};

const THREADS: i32 = 2;
const BATCH: Duration = Duration::from_millis(100);
const BATCH_RECORDS: usize = 50_000;
const PATIENCE: Duration = Duration::from_secs(30);

/// Reads every window once and writes its decision, exactly once.
pub(crate) fn run(kafka: &KafkaSettings) {
    let begun = Usage::now();
    let threads: Vec<_> = (0..THREADS)
        .map(|number| {
            let kafka = kafka.clone();
            std::thread::spawn(move || part(&kafka, number))
        })
        .collect();
    let done: usize = threads.into_iter().map(|thread| thread.join().expect("no panic")).sum();
    assert_eq!(done, records());
    begun.report("bare loop, exactly once", done);
}

fn part(kafka: &KafkaSettings, number: i32) -> usize {
    let input = kafka.topic(&topics::CAMPAIGN_WINDOWS);
    let consumer = consumer(kafka);
    let mut assignment = TopicPartitionList::new();
    let mut left = 0;
    for partition in (number..PARTITIONS).step_by(THREADS as usize) {
        assignment.add_partition_offset(&input, partition, Offset::Beginning).expect("an offset");
        left += consumer.fetch_watermarks(&input, partition, PATIENCE).expect("watermarks").1 as usize;
    }
    consumer.assign(&assignment).expect("assigned");
    let producer = producer(kafka, number);
    let mut maker = Maker::default();
    let total = left;
    while left > 0 {
        left -= batch(kafka, &consumer, &producer, &mut maker, left);
    }
    total
}

fn batch(
    kafka: &KafkaSettings,
    consumer: &BaseConsumer,
    producer: &BaseProducer,
    maker: &mut Maker,
    left: usize,
) -> usize {
    let (input, output) = (kafka.topic(&topics::CAMPAIGN_WINDOWS), kafka.topic(&topics::DIAL_DECISIONS));
    let begun = Instant::now();
    producer.begin_transaction().expect("begun");
    let (mut done, mut offsets) = (0, HashMap::new());
    while done < left.min(BATCH_RECORDS) && begun.elapsed() < BATCH {
        let Some(message) = consumer.poll(Duration::from_millis(1)) else { continue };
        let message = message.expect("a record");
        let key = maker.decide(message.payload().expect("a value"));
        let mut record = BaseRecord::to(&output).key(key).payload(&maker.buffer);
        while let Err((error, again)) = producer.send(record) {
            assert!(matches!(error, KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull)), "{error}");
            record = again;
            producer.poll(Duration::from_millis(1));
        }
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

/// Decides and writes the decision down.
struct Maker {
    sequences: HashMap<String, u64>,
    rule: Proportional,
    policy: Policy<'static>,
    buffer: Vec<u8>,
}

impl Default for Maker {
    fn default() -> Self {
        let rule = Proportional::default();
        let policy = Policy::new(NAME, VERSION, &rule);
        Self { sequences: HashMap::new(), rule, policy, buffer: Vec::new() }
    }
}

impl Maker {
    /// Leaves the decision in `buffer`, answers its key.
    fn decide<'r>(&mut self, value: &'r [u8]) -> &'r str {
        let window: CampaignWindow<'r> = serde_json::from_slice(value).expect("a window");
        let std::borrow::Cow::Borrowed(key) = window.campaign_id else { panic!("an id with escapes") };
        let sequence = match self.sequences.get_mut(key) {
            Some(sequence) => sequence,
            None => self.sequences.entry(key.to_owned()).or_default(),
        };
        *sequence += 1;
        let limits = Limits { min: window.min_dial_rate, max: window.max_dial_rate };
        let (action, reason, dial_rate) =
            match self.rule.decide(window.mean_answer_rate, window.dial_rate, limits) {
                Answer::Set { dial_rate, reason } => (Action::SetDialRate, reason, dial_rate),
                Answer::Hold { reason } => (Action::Hold, reason, window.dial_rate),
            };
        let inputs: &RawValue = serde_json::from_slice(value).expect("JSON");
        let decision = Decision {
            decision_id: DecisionId::derive(Loop::Dial, key, *sequence, window.observed_at),
            sequence: *sequence,
            r#loop: Loop::Dial,
            key: key.into(),
            mode: Mode::Live,
            decided_at: now(),
            event_time: window.observed_at,
            action,
            reason: reason.into(),
            parameters: DialParameters { previous_dial_rate: window.dial_rate, dial_rate },
            inputs,
            policy: self.policy.by_reference(),
            settings_revision: 0,
            cause_ids: [(); 0],
            expires_at: window.observed_at.plus(Duration::from_secs(60)),
        };
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, &decision).expect("JSON");
        key
    }
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
