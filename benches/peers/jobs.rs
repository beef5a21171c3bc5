//! The two jobs: what is put on the input topics, and when a program is done with it.

use std::time::{Duration, Instant};

use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseProducer, Producer as _};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::Timestamp;
use trunkline::topics::{self, Topic};

use crate::event;
use crate::harness::{PARTITIONS, assigned, now, producer, reader_config, send};

pub(crate) const CAMPAIGNS: usize = 10_000;
const CONVERSATIONS: usize = 50_000;
pub(crate) const FLOWS: usize = 100;
/// Every so many events one comes again.
const DUPLICATE_EVERY: usize = 33;
/// Pace of the events' own times.
const EVENTS_PER_SECOND: usize = 5_000;
/// Events behind the last minute that counts, so that time passes it in every partition.
pub(crate) const CLOSING: usize = 2_000;
const ANSWER: Duration = Duration::from_secs(10);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Job {
    Dial,
    FlowMinutes,
}

impl Job {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Job::Dial => "dial",
            Job::FlowMinutes => "flow-minutes",
        }
    }

    pub(crate) fn input(self) -> &'static Topic {
        match self {
            Job::Dial => &topics::CAMPAIGN_STATS,
            Job::FlowMinutes => &topics::CONVERSATION_EVENTS,
        }
    }

    /// Where trunkline puts what comes of it.
    pub(crate) fn output(self) -> &'static Topic {
        match self {
            Job::Dial => &topics::DIAL_DECISIONS,
            Job::FlowMinutes => &topics::FLOW_MINUTES,
        }
    }

    /// Fewest results that `records` have: a decision of each statistic; how many minutes events
    /// fall into is not counted here.
    pub(crate) fn fewest_results(self, records: usize) -> usize {
        match self {
            Job::Dial => records,
            Job::FlowMinutes => FLOWS,
        }
    }

    /// What trunkline runs for it.
    pub(crate) fn stages(self) -> &'static str {
        match self {
            Job::Dial => "windowing,dialing",
            Job::FlowMinutes => "flow-counting,flow-summing",
        }
    }

    /// Consumer groups and what each has to have read before trunkline is done.
    pub(crate) fn steps(self) -> [(&'static str, &'static Topic); 2] {
        match self {
            Job::Dial => [("windowing", self.input()), ("dialing", &topics::CAMPAIGN_WINDOWS)],
            Job::FlowMinutes => [("flow-counting", self.input()), ("flow-summing", &topics::FLOW_COUNTS)],
        }
    }

    /// Fills the input topic; answers the bytes of a value.
    pub(crate) fn fill(self, kafka: &KafkaSettings, records: usize) -> usize {
        let producer = producer(kafka);
        let bytes = match self {
            Job::Dial => fill_statistics(&producer, &kafka.topic(self.input()), records, CAMPAIGNS),
            Job::FlowMinutes => fill_events(&producer, &kafka.topic(self.input()), records),
        };
        producer.flush(Duration::from_secs(120)).expect("everything is written");
        bytes / records
    }
}

pub(crate) fn campaign(index: usize) -> String {
    campaign_of(index, CAMPAIGNS)
}

/// The campaign of a statistic, of so many.
pub(crate) fn campaign_of(index: usize, campaigns: usize) -> String {
    format!("5f0b1c1e-6c1f-4a0e-9d6e-{:012}", index % campaigns)
}

/// One campaign's statistics at its poll `tick`: about 370 bytes, with counters that grow.
pub(crate) fn statistics(campaign: &str, tick: usize, observed_at: Timestamp) -> String {
    let attempts = 2_000 + tick * 40;
    let answers = 620 + tick * 12 + tick % 3;
    let abandoned = 9 + tick / 5;
    let rate = 0.27 + (tick * 7 % 11) as f64 / 100.0;
    format!(
        "{{\"campaignId\":\"{campaign}\",\"organizationId\":\"0d9b3c4e-1111-4222-8333-444455556666\",\
         \"region\":\"eu_west_1\",\"observedAt\":\"{observed_at}\",\"answerRate\":{rate:.2},\
         \"attempts\":{attempts},\"answers\":{answers},\"abandoned\":{abandoned},\"agentsIdle\":4,\"agentsBusy\":16,\
         \"callsDelivered\":{},\"dialRate\":1.8,\"minDialRate\":0.5,\"maxDialRate\":3.0,\"revision\":\"\\\"7-9a3f\\\"\"}}",
        answers - abandoned
    )
}

/// Every campaign's statistics in the order of their time, up to now.
pub(crate) fn fill_statistics(
    producer: &BaseProducer,
    topic: &str,
    records: usize,
    campaigns: usize,
) -> usize {
    const TICK_MS: usize = 100;
    let start = now().as_millis() - (records / campaigns * TICK_MS) as i64;
    let mut bytes = 0;
    for index in 0..records {
        let (key, tick) = (campaign_of(index, campaigns), index / campaigns);
        let text = statistics(&key, tick, Timestamp::from_millis(start + (tick * TICK_MS) as i64));
        bytes += text.len();
        send(producer, topic, &key, &text);
    }
    bytes
}

/// Events in the order of their time, some of them twice. The last ones are half an hour after
/// the others: every minute before is over.
fn fill_events(producer: &BaseProducer, topic: &str, records: usize) -> usize {
    let span_ms = (records / EVENTS_PER_SECOND * 1_000) as i64;
    let start = now().as_millis() - 2_400_000 - span_ms;
    let mut bytes = 0;
    for index in 0..records {
        let number = if index % DUPLICATE_EVERY == DUPLICATE_EVERY - 1 { index - 1 } else { index };
        let closing = index + CLOSING >= records;
        let later_ms = if closing { 1_800_000 } else { 0 };
        let at = Timestamp::from_millis(start + later_ms + (number * 1_000 / EVENTS_PER_SECOND) as i64);
        let conversation = event::conversation(number % CONVERSATIONS);
        let text = event::text(number, &conversation, number % FLOWS, at);
        bytes += text.len();
        send(producer, topic, &conversation, &text);
    }
    bytes
}

/// Asks how far a consumer group has come.
pub(crate) struct Asker {
    consumer: BaseConsumer,
    topic: String,
}

impl Asker {
    pub(crate) fn new(kafka: &KafkaSettings, group: &str, topic: &str) -> Self {
        let consumer = ClientConfig::new()
            .set("bootstrap.servers", &kafka.brokers)
            .set("group.id", group)
            .set("isolation.level", "read_committed")
            .create()
            .expect("an asker");
        Self { consumer, topic: topic.to_owned() }
    }

    /// Records read and committed, control records among them, of each partition.
    pub(crate) fn committed(&self) -> [i64; PARTITIONS as usize] {
        let mut partitions = TopicPartitionList::new();
        for partition in 0..PARTITIONS {
            partitions.add_partition(&self.topic, partition);
        }
        let mut all = [0; PARTITIONS as usize];
        // A group that is being made says so with an error.
        let Ok(committed) = self.consumer.committed_offsets(partitions, ANSWER) else { return all };
        for partition in committed.elements() {
            if let Offset::Offset(offset) = partition.offset() {
                all[partition.partition() as usize] = offset;
            }
        }
        all
    }

    /// Where each partition's committed records end.
    pub(crate) fn ends(&self) -> [i64; PARTITIONS as usize] {
        std::array::from_fn(|partition| {
            let end = self.consumer.fetch_watermarks(&self.topic, partition as i32, ANSWER);
            end.expect("an end").1
        })
    }

    /// Whether everything is read. A transaction's marker stands behind its last record, and no
    /// consumer commits that it has seen one.
    pub(crate) fn is_done(&self) -> bool {
        let committed = self.committed();
        self.ends().iter().zip(committed).all(|(end, read)| read + 1 >= *end)
    }
}

/// Committed records of a topic, read back: what a group has read says nothing of what came of it.
pub(crate) fn committed_records(kafka: &KafkaSettings, topic: &str) -> usize {
    let mut config = reader_config(kafka);
    config.set("enable.partition.eof", "true");
    let consumer = assigned(&config, topic, Offset::Beginning);
    let (mut records, mut open) = (0, PARTITIONS);
    while open > 0 {
        match consumer.poll(ANSWER).expect("an answer of the broker") {
            Ok(_) => records += 1,
            Err(KafkaError::PartitionEOF(_)) => open -= 1,
            Err(error) => panic!("{topic}: {error}"),
        }
    }
    records
}

/// From the first result to the last.
pub(crate) struct Course {
    pub first_after: Duration,
    pub rate: f64,
}

/// Waits until everything is done; `done` answers how many records of the input are read and
/// committed, and whether all results are.
pub(crate) fn follow(
    started: Instant,
    records: usize,
    mut done: impl FnMut() -> (usize, bool),
    mut alive: impl FnMut(),
) -> Course {
    let mut first: Option<(Instant, usize)> = None;
    loop {
        let (read, all) = done();
        if read > 0 && first.is_none() {
            first = Some((Instant::now(), read));
        }
        if let (true, Some((at, before))) = (all, first) {
            let rate = (records - before.min(records)) as f64 / at.elapsed().as_secs_f64();
            return Course { first_after: at - started, rate };
        }
        alive();
        assert!(
            started.elapsed() < Duration::from_secs(300),
            "not done after five minutes: {read} of {records}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}
