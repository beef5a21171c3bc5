//! Topics and names of a test's own on the broker that `make test` started.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::admin::{
    AdminClient, AdminOptions, AlterConfig, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{Message, OwnedMessage};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use trunkline::kafka::settings::KafkaSettings;
use trunkline::topics::{Cleanup, Topic};

/// Settings under a prefix that no other test has.
pub(crate) fn settings() -> KafkaSettings {
    let brokers = std::env::var("TRUNKLINE_TEST_KAFKA")
        .expect("TRUNKLINE_TEST_KAFKA is not set: run `make test`, which starts a broker");
    KafkaSettings {
        brokers,
        topic_prefix: format!("t-{}-", uuid::Uuid::now_v7().simple()),
        instance: "one".to_owned(),
        properties: BTreeMap::new(),
    }
}

pub(crate) async fn create_topics(kafka: &KafkaSettings, topics: &[&'static Topic], partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let names: Vec<String> = topics.iter().map(|topic| kafka.topic(topic)).collect();
    let new: Vec<NewTopic> = names
        .iter()
        .zip(topics)
        .map(|(name, topic)| {
            let cleanup = if topic.cleanup == Cleanup::Compact { "compact" } else { "delete" };
            NewTopic::new(name, partitions, TopicReplication::Fixed(1)).set("cleanup.policy", cleanup)
        })
        .collect();
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in admin.create_topics(&new, &options).await.expect("topics are created") {
        result.expect("topic is created");
    }
}

/// Text that no compression makes short: brokers measure what is sent.
pub(crate) fn incompressible(length: usize) -> String {
    let bytes = std::iter::repeat_with(|| uuid::Uuid::new_v4().into_bytes()).flatten();
    bytes.map(|byte| char::from(b'0' + byte % 64)).take(length).collect()
}

/// A topic whose brokers take smaller records than ours says: a producer learns of it from them.
pub(crate) async fn create_small_topic(
    kafka: &KafkaSettings,
    topic: &'static Topic,
    max_message_bytes: &str,
) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let name = kafka.topic(topic);
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("max.message.bytes", max_message_bytes);
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in admin.create_topics(&[new], &options).await.expect("topics are created") {
        result.expect("topic is created");
    }
}

/// From now on the brokers take batches of so many bytes at most on a topic.
pub(crate) async fn limit_records(kafka: &KafkaSettings, topic: &'static Topic, bytes: &str) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let name = kafka.topic(topic);
    let limited = AlterConfig::new(ResourceSpecifier::Topic(&name)).set("max.message.bytes", bytes);
    for result in admin.alter_configs([&limited], &AdminOptions::new()).await.expect("an answer") {
        result.expect("is limited");
    }
}

/// Deletes a topic and makes another of the same name.
pub(crate) async fn replace_topic(kafka: &KafkaSettings, topic: &'static Topic, partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let name = kafka.topic(topic);
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    for result in admin.delete_topics(&[&name], &options).await.expect("is deleted") {
        result.expect("is deleted");
    }
    let give_up = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let new = NewTopic::new(&name, partitions, TopicReplication::Fixed(1));
        let made = admin.create_topics(&[new], &options).await.expect("an answer");
        if made.into_iter().all(|result| result.is_ok()) {
            return;
        }
        assert!(std::time::Instant::now() < give_up, "{name} cannot be made again");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Raises a topic's number of partitions.
pub(crate) async fn add_partitions(kafka: &KafkaSettings, topic: &'static Topic, partitions: usize) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let name = kafka.topic(topic);
    let options = AdminOptions::new().operation_timeout(Some(Duration::from_secs(30)));
    let raised = admin.create_partitions(&[NewPartitions::new(&name, partitions)], &options).await;
    for result in raised.expect("partitions are added") {
        result.expect("partitions are added");
    }
}

pub(crate) fn client(kafka: &KafkaSettings) -> ClientConfig {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &kafka.brokers);
    config
}

/// Removes the records of partition 0 before this offset, as retention does.
pub(crate) async fn remove_before(kafka: &KafkaSettings, topic: &Topic, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = client(kafka).create().expect("an admin client");
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&kafka.topic(topic), 0, Offset::Offset(offset)).expect("an offset");
    let removed = admin.delete_records(&before, &AdminOptions::new()).await.expect("records are removed");
    for partition in removed.elements() {
        partition.error().expect("a topic that is not compacted");
    }
}

/// Moves the offset of a group without members, as Kafka's own tool for it does.
pub(crate) fn move_group(kafka: &KafkaSettings, role: &str, topic: &Topic, offset: i64) {
    let consumer: BaseConsumer =
        client(kafka).set("group.id", kafka.group(role)).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&kafka.topic(topic), 0, Offset::Offset(offset)).expect("an offset");
    consumer.commit(&list, CommitMode::Sync).expect("nobody is in the group any more");
}

/// Produces values under keys, in order, and waits for all of them.
pub(crate) async fn produce(
    kafka: &KafkaSettings,
    topic: &Topic,
    partition: Option<i32>,
    records: &[(&str, &[u8])],
) {
    let config = client(kafka).set("partitioner", "murmur2_random").set("linger.ms", "5").clone();
    let name = kafka.topic(topic);
    let records: Vec<(String, Vec<u8>)> =
        records.iter().map(|(key, value)| ((*key).to_owned(), value.to_vec())).collect();
    let produce = move || {
        let producer: BaseProducer = config.create().expect("a producer");
        for (key, value) in &records {
            let mut record = BaseRecord::to(&name).key(key).payload(value);
            record.partition = partition;
            producer.send(record).map_err(|(error, _)| error).expect("is queued");
        }
        producer.flush(Duration::from_secs(30)).expect("is produced");
    };
    tokio::task::spawn_blocking(produce).await.expect("is produced");
}

/// How many records the partition has had.
pub(crate) fn high_watermark(kafka: &KafkaSettings, topic: &Topic, partition: i32) -> i64 {
    let consumer: BaseConsumer = client(kafka).create().expect("a consumer");
    consumer.fetch_watermarks(&kafka.topic(topic), partition, Duration::from_secs(10)).expect("an answer").1
}

/// Everything committed on a topic up to now, in the order of each partition.
pub(crate) fn read_all(kafka: &KafkaSettings, topic: &Topic) -> Vec<OwnedMessage> {
    let consumer: BaseConsumer = client(kafka)
        .set("group.id", format!("{}reader-{}", kafka.topic_prefix, uuid::Uuid::now_v7()))
        .set("isolation.level", "read_committed")
        .set("enable.auto.commit", "false")
        .set("enable.partition.eof", "true")
        .create()
        .expect("a consumer");
    let name = kafka.topic(topic);
    let wait = Duration::from_secs(10);
    let metadata = consumer.fetch_metadata(Some(&name), wait).expect("metadata");
    let mut assignment = TopicPartitionList::new();
    let partitions = metadata.topics()[0].partitions().len();
    for partition in 0..partitions {
        assignment.add_partition_offset(&name, partition as i32, Offset::Beginning).expect("an offset");
    }
    consumer.assign(&assignment).expect("assigns");
    let mut read = Vec::new();
    let mut ended = std::collections::BTreeSet::new();
    let give_up = std::time::Instant::now() + Duration::from_secs(60);
    while ended.len() < partitions {
        assert!(std::time::Instant::now() < give_up, "no end of {name} in sight");
        match consumer.poll(Duration::from_millis(200)) {
            Some(Ok(message)) => read.push(message.detach()),
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(partition))) => {
                ended.insert(partition);
            }
            Some(Err(error)) => panic!("reading {name}: {error}"),
            None => {}
        }
    }
    read.sort_by_key(|message| (message.partition(), message.offset()));
    read
}

/// What a broker says of groups while it is finding out which of them are its own.
fn is_starting(code: RDKafkaErrorCode) -> bool {
    matches!(
        code,
        RDKafkaErrorCode::NotCoordinator
            | RDKafkaErrorCode::CoordinatorLoadInProgress
            | RDKafkaErrorCode::CoordinatorNotAvailable
    )
}

/// The group's committed offset of one partition.
pub(crate) fn committed(kafka: &KafkaSettings, role: &str, topic: &Topic, partition: i32) -> Option<i64> {
    let consumer: BaseConsumer = client(kafka)
        .set("group.id", kafka.group(role))
        .set("isolation.level", "read_committed")
        .create()
        .expect("a consumer");
    let mut list = TopicPartitionList::new();
    list.add_partition(&kafka.topic(topic), partition);
    let patience = Instant::now() + Duration::from_secs(30);
    let found = loop {
        match consumer.committed_offsets(list.clone(), Duration::from_secs(10)) {
            Ok(found) => break found,
            Err(KafkaError::MetadataFetch(code)) if is_starting(code) && Instant::now() < patience => {
                std::thread::sleep(Duration::from_millis(200));
            }
            Err(error) => panic!("committed offsets of {}: {error}", kafka.group(role)),
        }
    };
    match found.elements()[0].offset() {
        Offset::Offset(offset) => Some(offset),
        _ => None,
    }
}
