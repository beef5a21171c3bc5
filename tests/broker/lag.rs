//! Consumers that behave in every way there is, on a real broker, and what is found
//! out about them. Time is compressed by the thresholds: tenths of what they are.

mod committing;
mod edges;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use rdkafka::admin::{AdminClient, AdminOptions};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::Message;
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::model::decision::{Action, Mode};
use trunkline::model::lag::{LagEvaluation, LagStatus};
use trunkline::postgres::Database;
use trunkline::runtime::{StageHandle, StageSettings, run_stage};
use trunkline::sinks::{alerts, audit};
use trunkline::sources::lag_poller::{self, Choice};
use trunkline::stages::lag::rules::Thresholds;
use trunkline::stages::lag::{Intervals, Lag};
use trunkline::topics;

use committing::commit;

use crate::support::postgres::TestDatabase;
use crate::support::receiver::{Manner, OTHER_SECRET, Receiver, SECRET};
use crate::support::{kafka, within};

const PATIENCE: Duration = Duration::from_secs(90);
const INTERVAL: Duration = Duration::from_millis(500);

fn thresholds() -> Thresholds {
    Thresholds {
        still_ms: 5_000,
        error_age_ms: 2_500,
        warning_age_ms: 1_500,
        trend_age_ms: 500,
        trend_window_ms: 30_000,
        history_ms: 60_000,
        cooldown_ms: 60_000,
        catch_up_ms: 2_000,
        ..Thresholds::default()
    }
}

/// Poller and stage at work.
struct Watch {
    kafka: KafkaSettings,
    shutdown: CancellationToken,
    poller: tokio::task::JoinHandle<()>,
    stage: StageHandle,
}

impl Watch {
    async fn start(kafka: &KafkaSettings, own: Choice, others: Vec<(String, KafkaSettings, Choice)>) -> Self {
        create_lag_topics(kafka).await;
        Self::start_on_topics(kafka, own, others).await
    }

    async fn start_on_topics(
        kafka: &KafkaSettings,
        own: Choice,
        others: Vec<(String, KafkaSettings, Choice)>,
    ) -> Self {
        let (shutdown, health) = (CancellationToken::new(), Health::default());
        let settings = lag_poller::Settings { own, others, interval: INTERVAL };
        let poller = tokio::spawn({
            let (kafka, health, shutdown) = (kafka.clone(), health.clone(), shutdown.clone());
            async move { lag_poller::run(settings, kafka, &health, shutdown).await.expect("polls") }
        });
        let intervals = Intervals { broker: INTERVAL, analytics: INTERVAL };
        let stage = Lag::new(Mode::Live, thresholds(), intervals);
        let stage = run_stage(stage, kafka, &StageSettings::default(), health.part("lag"), shutdown.clone());
        Self { kafka: kafka.clone(), shutdown, poller, stage }
    }

    /// Every evaluation up to now, in order, by group without the prefix.
    fn evaluations(&self) -> BTreeMap<String, Vec<LagEvaluation>> {
        let mut by_group: BTreeMap<String, Vec<LagEvaluation>> = BTreeMap::new();
        for message in kafka::read_all(&self.kafka, &topics::LAG_STATUS) {
            let evaluation: LagEvaluation = serde_json::from_slice(message.payload().unwrap()).unwrap();
            let group = evaluation.consumer_group.replace(&self.kafka.topic_prefix, "");
            by_group.entry(group).or_default().push(evaluation);
        }
        by_group
    }

    /// What was asked for, for each group.
    fn calls(&self) -> BTreeMap<String, Vec<Action>> {
        let mut by_group: BTreeMap<String, Vec<Action>> = BTreeMap::new();
        for message in kafka::read_all(&self.kafka, &topics::LAG_EVALUATIONS) {
            let decision: topics::LagDecision<'_, Vec<String>> =
                serde_json::from_slice(message.payload().unwrap()).unwrap();
            if decision.action != Action::Hold {
                let group = decision.key.replace(&self.kafka.topic_prefix, "");
                by_group.entry(group).or_default().push(decision.action);
            }
        }
        by_group
    }

    /// Waits until the group has been found to be so.
    async fn until(&self, group: &str, status: LagStatus) -> LagEvaluation {
        within(PATIENCE, &format!("{group} to be {}", status.name()), || async {
            let found = tokio::task::block_in_place(|| self.evaluations().remove(group))?;
            found.into_iter().find(|evaluation| evaluation.status == status)
        })
        .await
    }

    async fn stop(self) {
        self.shutdown.cancel();
        let ended = tokio::time::timeout(Duration::from_secs(20), self.poller).await;
        ended.expect("the poller ends in time").expect("and well");
        self.stage.stopped().await;
    }
}

/// What poller and stage work on.
const LAG_TOPICS: [&topics::Topic; 6] = [
    &topics::CONSUMER_LAG,
    &topics::LAG_STATUS,
    &topics::LAG_EVALUATIONS,
    &topics::LAG_CHANGELOG,
    &topics::LATE_EVENTS,
    &topics::DEAD_LETTERS,
];

async fn create_lag_topics(kafka: &KafkaSettings) {
    kafka::create_topics(kafka, &LAG_TOPICS, 2).await;
}

/// A choice of the test's own groups, without those that watch them.
fn own_groups(kafka: &KafkaSettings) -> Choice {
    Choice {
        include: vec![format!("{}*", kafka.topic_prefix)],
        exclude: vec![format!("{}trunkline-*", kafka.topic_prefix)],
        required: Vec::new(),
    }
}

/// A consumer of one group, with a thread of its own where it lives on.
struct Behaviour {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Behaviour {
    fn start(live: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || live(&stop)
        });
        Self { stop, thread: Some(thread) }
    }
}

impl Drop for Behaviour {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn consumer(kafka: &KafkaSettings, group: &str) -> BaseConsumer {
    kafka::client(kafka)
        .set("group.id", format!("{}{group}", kafka.topic_prefix))
        .set("enable.auto.commit", "false")
        .set("auto.offset.reset", "earliest")
        .set("session.timeout.ms", "6000")
        .set("heartbeat.interval.ms", "1000")
        // A little from every partition, not much from one.
        .set("queued.min.messages", "1")
        .set("fetch.message.max.bytes", "256")
        .create()
        .expect("a consumer")
}

/// The topic of one behaviour.
fn topic_of(kafka: &KafkaSettings, name: &str) -> String {
    format!("{}{name}", kafka.topic_prefix)
}

async fn create(kafka: &KafkaSettings, names: &[&str], partitions: i32) {
    let admin: AdminClient<DefaultClientContext> = kafka::client(kafka).create().expect("an admin client");
    let full: Vec<String> = names.iter().map(|name| topic_of(kafka, name)).collect();
    let new: Vec<_> = full
        .iter()
        .map(|name| {
            let replication = rdkafka::admin::TopicReplication::Fixed(1);
            rdkafka::admin::NewTopic::new(name, partitions, replication)
        })
        .collect();
    for result in admin.create_topics(&new, &AdminOptions::new()).await.expect("topics are created") {
        result.expect("topic is created");
    }
}

fn producer(kafka: &KafkaSettings) -> BaseProducer {
    kafka::client(kafka).set("linger.ms", "1").create().expect("a producer")
}

fn send(producer: &BaseProducer, topic: &str, partition: i32, count: usize) {
    for _ in 0..count {
        let record = BaseRecord::<(), [u8]>::to(topic).partition(partition).payload(b"{}");
        producer.send(record).map_err(|(error, _)| error).expect("is queued");
    }
    producer.flush(Duration::from_secs(30)).expect("is produced");
}

fn pause(millis: u64) {
    std::thread::sleep(Duration::from_millis(millis));
}

/// Reads record by record and commits each, `pause_ms(n)` after record `n`.
fn reads(kafka: &KafkaSettings, name: &'static str, pause_ms: fn(u64) -> u64) -> Behaviour {
    let kafka = kafka.clone();
    Behaviour::start(move |stop| {
        let consumer = consumer(&kafka, name);
        consumer.subscribe(&[&topic_of(&kafka, name)]).expect("subscribes");
        let mut read = 0;
        while !stop.load(Ordering::Acquire) {
            if let Some(Ok(message)) = consumer.poll(Duration::from_millis(50)) {
                consumer.commit_message(&message, CommitMode::Sync).expect("is committed");
                read += 1;
                pause(pause_ms(read));
            }
        }
    })
}

/// Produces `count` records now and then, to one partition after the other.
fn writes(
    kafka: &KafkaSettings,
    name: &'static str,
    partitions: i32,
    count: usize,
    pause_ms: u64,
) -> Behaviour {
    let kafka = kafka.clone();
    Behaviour::start(move |stop| {
        let producer = producer(&kafka);
        let topic = topic_of(&kafka, name);
        let mut partition = 0;
        while !stop.load(Ordering::Acquire) {
            send(&producer, &topic, partition, count);
            partition = (partition + 1) % partitions;
            pause(pause_ms);
        }
    })
}

/// A member that keeps committing the same offset.
fn stuck(kafka: &KafkaSettings, name: &'static str) -> Behaviour {
    let kafka = kafka.clone();
    Behaviour::start(move |stop| {
        let consumer = consumer(&kafka, name);
        let topic = topic_of(&kafka, name);
        consumer.subscribe(&[&topic]).expect("subscribes");
        while !stop.load(Ordering::Acquire) {
            let _ = consumer.poll(Duration::from_millis(200));
            if consumer.assignment().is_ok_and(|assigned| assigned.count() > 0) {
                let mut list = TopicPartitionList::new();
                list.add_partition_offset(&topic, 0, Offset::Offset(3)).expect("an offset");
                let _ = consumer.commit(&list, CommitMode::Sync);
            }
        }
    })
}

/// A member that reads nothing and commits nothing.
fn watches(kafka: &KafkaSettings, name: &'static str) -> Behaviour {
    let kafka = kafka.clone();
    Behaviour::start(move |stop| {
        let consumer = consumer(&kafka, name);
        consumer.subscribe(&[&topic_of(&kafka, name)]).expect("subscribes");
        while !stop.load(Ordering::Acquire) {
            let _ = consumer.poll(Duration::from_millis(200));
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_way_to_be_behind_is_found_and_nothing_else() {
    let kafka = kafka::settings();
    create(&kafka, &["trickle", "stopped", "stuck", "rewound", "lost", "never"], 1).await;
    create(&kafka, &["slow"], 4).await;
    let write = producer(&kafka);
    for name in ["stopped", "stuck", "rewound", "lost", "never"] {
        send(&write, &topic_of(&kafka, name), 0, 100);
    }
    commit(&kafka, "stopped", &topic_of(&kafka, "stopped"), &[(0, 60)]);
    commit(&kafka, "rewound", &topic_of(&kafka, "rewound"), &[(0, 100)]);
    commit(&kafka, "lost", &topic_of(&kafka, "lost"), &[(0, 10)]);
    let admin: AdminClient<DefaultClientContext> = kafka::client(&kafka).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(&topic_of(&kafka, "lost"), 0, Offset::Offset(50)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.expect("records are deleted");
    let watch = Watch::start(&kafka, own_groups(&kafka), vec![]).await;
    let behaviours = [
        reads(&kafka, "trickle", |_| 0),
        writes(&kafka, "trickle", 1, 1, 3_000),
        stuck(&kafka, "stuck"),
        watches(&kafka, "never"),
        // 20 to 60 ms for each record, of which there is one every few milliseconds.
        reads(&kafka, "slow", |read| 20 + read * 7_919 % 40),
        writes(&kafka, "slow", 4, 20, 20),
    ];

    watch.until("rewound", LagStatus::Ok).await;
    commit(&kafka, "rewound", &topic_of(&kafka, "rewound"), &[(0, 20)]);
    let rewound = watch.until("rewound", LagStatus::Rewind).await;
    assert_eq!(rewound.lag, Some(80));

    let lost = watch.until("lost", LagStatus::DataLoss).await;
    assert_eq!(lost.recommended_action, Action::Investigate);

    let stopped = watch.until("stopped", LagStatus::Stopped).await;
    assert_eq!((stopped.lag, stopped.recommended_action), (Some(40), Action::Restart));
    let stuck = watch.until("stuck", LagStatus::Stalled).await;
    assert_eq!((stuck.lag, stuck.recommended_action, stuck.members), (Some(97), Action::Restart, Some(1)));
    watch.until("never", LagStatus::Uncommitted).await;
    let slow = watch.until("slow", LagStatus::Error).await;
    assert!(slow.age_seconds < 90.0, "{slow:?}");
    let called = within(PATIENCE, "help for the slow group", || async {
        tokio::task::block_in_place(|| watch.calls().remove("slow"))
    })
    .await;
    assert_eq!(called, [Action::ScaleOut]);

    within(PATIENCE, "a while of trickling", || async {
        let trickle = tokio::task::block_in_place(|| watch.evaluations().remove("trickle"))?;
        (trickle.len() >= 40 && trickle.last()?.status == LagStatus::Ok).then_some(())
    })
    .await;
    drop(behaviours);
    let evaluations = watch.evaluations();
    let found: BTreeSet<&str> =
        evaluations["trickle"].iter().map(|evaluation| evaluation.status.name()).collect();
    assert!(!found.contains("STOPPED") && !found.contains("DATA_LOSS"), "trickle was {found:?}");
    let calls = watch.calls();
    for (group, expected) in [("rewound", Action::Investigate), ("lost", Action::Investigate)] {
        assert_eq!(calls.get(group).map(|calls| calls[0]), Some(expected), "{group}");
    }
    assert!(!calls.contains_key("never"), "{calls:?}");
    for (group, actions) in &calls {
        let more = actions.contains(&Action::ScaleOut);
        assert!(!more || group == "slow" || group == "trickle", "{group} asked for more: {actions:?}");
    }
    watch.stop().await;
}

/// Alerts and the audit, as an instance runs them beside the watch.
struct Telling {
    shutdown: CancellationToken,
    alerts: tokio::task::JoinHandle<()>,
    audit: tokio::task::JoinHandle<()>,
}

impl Telling {
    fn start(kafka: &KafkaSettings, database: &Database, receiver: &Receiver) -> Self {
        let (shutdown, health) = (CancellationToken::new(), Health::default());
        let settings = alerts::Settings {
            receivers: vec![alerts::Receiver {
                name: "on-call".to_owned(),
                url: receiver.url.as_str().into(),
                secrets: vec![SECRET.into(), OTHER_SECRET.into()],
                incident_types: vec!["LAG_THRESHOLD_EXCEEDED".to_owned()],
            }],
            private_receivers: true,
            ..alerts::Settings::default()
        };
        let alerts = tokio::spawn({
            let (kafka, database) = (kafka.clone(), database.clone());
            let (health, stop) = (health.clone(), shutdown.clone());
            async move { alerts::run(settings, kafka, database, &health, stop).await.expect("alerts") }
        });
        let audit = tokio::spawn({
            let (kafka, database, stop) = (kafka.clone(), database.clone(), shutdown.clone());
            async move {
                let settings = audit::Settings::default();
                audit::run(settings, &kafka, database, &health, stop).await.expect("the audit");
            }
        });
        Self { shutdown, alerts, audit }
    }

    async fn stop(self) {
        self.shutdown.cancel();
        for task in [self.alerts, self.audit] {
            tokio::time::timeout(Duration::from_secs(20), task).await.expect("ends in time").expect("well");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_episode_over_two_restarts_with_a_failing_receiver_is_told_once() {
    let kafka = kafka::settings();
    create(&kafka, &["dead"], 1).await;
    send(&producer(&kafka), &topic_of(&kafka, "dead"), 0, 5);
    commit(&kafka, "dead", &topic_of(&kafka, "dead"), &[(0, 1)]);
    create_lag_topics(&kafka).await;
    let others: Vec<_> =
        topics::ALL.iter().copied().filter(|topic| LAG_TOPICS.iter().all(|made| made != topic)).collect();
    kafka::create_topics(&kafka, &others, 2).await;
    let (_own, database) = TestDatabase::migrated().await;
    let receiver = Receiver::start(Manner::Refuses).await;
    for restart in 0..3 {
        let watch = Watch::start_on_topics(&kafka, own_groups(&kafka), vec![]).await;
        let telling = Telling::start(&kafka, &database, &receiver);
        let polls = || {
            tokio::task::block_in_place(|| watch.evaluations().remove("dead").map_or(0, |seen| seen.len()))
        };
        let before = polls();
        within(PATIENCE, "some polls", || async { (polls() >= before + 6).then_some(()) }).await;
        watch.until("dead", LagStatus::Stopped).await;
        assert_eq!(watch.calls()["dead"], [Action::Restart], "after {restart} restarts");
        within(PATIENCE, "an attempt to tell", || async {
            (receiver.messages().len() > restart).then_some(())
        })
        .await;
        if restart == 2 {
            receiver.set(Manner::Takes);
            within(PATIENCE, "the delivery", || async { (!receiver.taken().is_empty()).then_some(()) }).await;
        }
        telling.stop().await;
        watch.stop().await;
    }
    let taken = receiver.taken();
    assert_eq!(taken.values().collect::<Vec<_>>(), [&1], "one episode, one delivery");
    let message = receiver.messages().pop().expect("a message");
    let body: serde_json::Value = serde_json::from_str(&message.body).expect("JSON");
    assert_eq!(
        (&body["status"], &body["recommended_action"], &body["lag"]),
        (&"STOPPED".into(), &"restart".into(), &4.into()),
        "{body}"
    );
    let kept: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit.decisions WHERE loop = 'lag' AND action = 'restart'")
            .fetch_one(database.pool())
            .await
            .unwrap();
    let gaps: i64 =
        sqlx::query_scalar("SELECT count(*) FROM audit.gaps").fetch_one(database.pool()).await.unwrap();
    assert_eq!((kept, gaps), (1, 0), "the audit has it, without a gap");
}

#[tokio::test(flavor = "multi_thread")]
async fn open_and_aborted_transactions_are_no_lag_and_a_burst_is_as_old_as_its_records() {
    let kafka = kafka::settings();
    create(&kafka, &["aborted", "burst"], 1).await;
    let (aborted, burst) = (topic_of(&kafka, "aborted"), topic_of(&kafka, "burst"));
    let write = producer(&kafka);
    send(&write, &aborted, 0, 5);
    send(&write, &burst, 0, 5);
    commit(&kafka, "aborted", &aborted, &[(0, 5)]);
    commit(&kafka, "burst", &burst, &[(0, 5)]);
    let transactional: BaseProducer = kafka::client(&kafka)
        .set("transactional.id", format!("{}writer", kafka.topic_prefix))
        .create()
        .unwrap();
    let wait = Duration::from_secs(30);
    tokio::task::block_in_place(|| {
        transactional.init_transactions(wait).unwrap();
        transactional.begin_transaction().unwrap();
        send(&transactional, &aborted, 0, 10);
        transactional.abort_transaction(wait).unwrap();
        transactional.begin_transaction().unwrap();
        send(&transactional, &aborted, 0, 10);
    });
    let watch = Watch::start(&kafka, own_groups(&kafka), vec![]).await;
    // Ten polls with ten aborted and ten open records before it.
    let seen = within(PATIENCE, "ten polls", || async {
        let seen = tokio::task::block_in_place(|| watch.evaluations().remove("aborted"))?;
        (seen.len() >= 10).then_some(seen)
    })
    .await;
    for evaluation in seen {
        assert_eq!((evaluation.status, evaluation.lag), (LagStatus::Ok, Some(0)), "{evaluation:?}");
    }
    tokio::task::block_in_place(|| transactional.commit_transaction(wait).unwrap());
    let stopped = watch.until("aborted", LagStatus::Stopped).await;
    assert!((10..=12).contains(&stopped.lag.unwrap()), "ten records and their marker: {stopped:?}");

    send(&write, &burst, 0, 20_000);
    let stopped = watch.until("burst", LagStatus::Stopped).await;
    assert!(stopped.age_seconds < 120.0, "{stopped:?}");
    commit(&kafka, "burst", &burst, &[(0, 20_005)]);
    let seen = within(PATIENCE, "the burst to be over", || async {
        let seen = tokio::task::block_in_place(|| watch.evaluations().remove("burst"))?;
        (seen.last()?.status == LagStatus::Ok).then_some(seen)
    })
    .await;
    for evaluation in &seen {
        assert!(evaluation.age_seconds < 120.0, "{evaluation:?}");
        let numbers =
            [evaluation.arrival_per_second, evaluation.drain_per_second, evaluation.catch_up_seconds];
        assert!(numbers.iter().flatten().all(|number| number.is_finite()), "{evaluation:?}");
    }
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_that_does_not_answer_is_unknown_and_a_group_that_is_not_there_missing() {
    let kafka = kafka::settings();
    let away = KafkaSettings { brokers: "127.0.0.1:1".to_owned(), ..kafka.clone() };
    let required = |name: &str| Choice { required: vec![name.to_owned()], ..own_groups(&kafka) };
    let others = vec![("away".to_owned(), away, required("orders"))];
    let absent = format!("{}absent", kafka.topic_prefix);
    let watch = Watch::start(&kafka, required(&absent), others).await;
    let unknown = watch.until("away:orders", LagStatus::Unknown).await;
    assert!(unknown.reasons[0].example.as_ref().unwrap().contains("cluster away"), "{unknown:?}");
    watch.until("absent", LagStatus::MissingGroup).await;
    let calls = watch.calls();
    assert_eq!(calls.keys().collect::<Vec<_>>(), ["absent"], "nobody is called for what is unknown");
    watch.stop().await;
}
