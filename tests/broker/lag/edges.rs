//! Logs that change under a group's hands: purged, made anew, aborted; and groups of
//! names and kinds that few expect.

mod kinds;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use trunkline::model::lag::{GroupType, LagSample, Observation};

use super::*;

/// Statuses of a group up to now.
fn statuses(watch: &Watch, group: &str) -> Vec<&'static str> {
    let evaluations = tokio::task::block_in_place(|| watch.evaluations().remove(group).unwrap_or_default());
    evaluations.iter().map(|evaluation| evaluation.status.name()).collect()
}

/// Waits until a poll has seen the group at this offset, and for a few more polls.
async fn seen_at(watch: &Watch, group: &str, offset: i64) {
    let group = format!("{}{group}", watch.kafka.topic_prefix);
    within(PATIENCE, &format!("polls of {group} at {offset}"), || async {
        let samples = tokio::task::block_in_place(|| kafka::read_all(&watch.kafka, &topics::CONSUMER_LAG));
        let seen = samples.iter().filter(|message| {
            let sample: LagSample = serde_json::from_slice(message.payload().unwrap()).unwrap();
            let at = match &sample.observation {
                Observation::Partition(seen) => seen.committed,
                _ => None,
            };
            sample.consumer_group == group && at == Some(offset)
        });
        (seen.count() >= 4).then_some(())
    })
    .await;
}

async fn delete_before(kafka: &KafkaSettings, topic: &str, offset: i64) {
    let admin: AdminClient<DefaultClientContext> = kafka::client(kafka).create().unwrap();
    let mut before = TopicPartitionList::new();
    before.add_partition_offset(topic, 0, Offset::Offset(offset)).unwrap();
    admin.delete_records(&before, &AdminOptions::new()).await.expect("records are deleted");
}

/// Writes, reads all of it, commits, and deletes what it has read, ten times a second.
fn purges(kafka: &KafkaSettings, name: &'static str) -> Behaviour {
    let kafka = kafka.clone();
    Behaviour::start(move |stop| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (topic, producer) = (topic_of(&kafka, name), producer(&kafka));
        let mut end = 0;
        while !stop.load(Ordering::Acquire) {
            send(&producer, &topic, 0, 20);
            end += 20;
            commit(&kafka, name, &topic, &[(0, end)]);
            runtime.block_on(delete_before(&kafka, &topic, end));
            pause(100);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_purges_what_it_has_read_is_fine_and_a_topic_made_anew_no_rewind() {
    let kafka = kafka::settings();
    create(&kafka, &["purged", "anew"], 1).await;
    let anew = topic_of(&kafka, "anew");
    let write = producer(&kafka);
    send(&write, &anew, 0, 100);
    commit(&kafka, "anew", &anew, &[(0, 100)]);
    let watch = Watch::start(&kafka, own_groups(&kafka), vec![]).await;
    let purging = purges(&kafka, "purged");
    seen_at(&watch, "anew", 100).await;
    let admin: AdminClient<DefaultClientContext> = kafka::client(&kafka).create().unwrap();
    for result in admin.delete_topics(&[&anew], &AdminOptions::new()).await.expect("an answer") {
        result.expect("is deleted");
    }
    within(PATIENCE, "the topic to be made anew", || async {
        let topic = rdkafka::admin::NewTopic::new(&anew, 1, rdkafka::admin::TopicReplication::Fixed(1));
        let made = admin.create_topics(&[topic], &AdminOptions::new()).await.expect("an answer");
        made[0].is_ok().then_some(())
    })
    .await;
    let write = producer(&kafka);
    send(&write, &anew, 0, 20);
    commit(&kafka, "anew", &anew, &[(0, 20)]);
    seen_at(&watch, "anew", 20).await;
    assert!(!statuses(&watch, "anew").contains(&"REWIND"), "{:?}", statuses(&watch, "anew"));
    send(&write, &anew, 0, 1);
    within(PATIENCE, "what is behind in it", || async {
        let seen = tokio::task::block_in_place(|| watch.evaluations().remove("anew"))?;
        (seen.last()?.lag == Some(1)).then_some(())
    })
    .await;

    within(PATIENCE, "a while of purging", || async {
        (statuses(&watch, "purged").len() >= 40).then_some(())
    })
    .await;
    drop(purging);
    let found: BTreeSet<_> = statuses(&watch, "purged").into_iter().collect();
    assert!(!found.contains("DATA_LOSS") && !found.contains("UNKNOWN"), "{found:?}");
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_commit_beyond_the_end_and_a_partition_nobody_reads_are_told_apart() {
    let kafka = kafka::settings();
    create(&kafka, &["beyond", "left", "read"], 1).await;
    let write = producer(&kafka);
    send(&write, &topic_of(&kafka, "beyond"), 0, 10);
    send(&write, &topic_of(&kafka, "left"), 0, 100);
    commit(&kafka, "beyond", &topic_of(&kafka, "beyond"), &[(0, 1_000_000)]);
    // The group has read a topic once that its members do not subscribe to any more.
    commit(&kafka, "read", &topic_of(&kafka, "left"), &[(0, 3)]);
    let watch = Watch::start(&kafka, own_groups(&kafka), vec![]).await;
    let behaviours = [reads(&kafka, "read", |_| 0), writes(&kafka, "read", 1, 1, 100)];
    watch.until("beyond", LagStatus::BeyondEnd).await;
    let abandoned = watch.until("read", LagStatus::Abandoned).await;
    assert_eq!((abandoned.members, abandoned.replicas), (Some(1), Some(1)), "{abandoned:?}");
    let called = within(PATIENCE, "somebody to be called", || async {
        tokio::task::block_in_place(|| watch.calls().remove("read"))
    })
    .await;
    assert!(called.iter().all(|action| *action == Action::Investigate), "{called:?}");
    drop(behaviours);
    watch.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn aborted_records_are_no_lag_and_an_open_transaction_is_told_with_its_age() {
    let kafka = kafka::settings();
    create(&kafka, &["around"], 1).await;
    let topic = topic_of(&kafka, "around");
    let write = producer(&kafka);
    send(&write, &topic, 0, 5);
    commit(&kafka, "around", &topic, &[(0, 5)]);
    let transactional: BaseProducer = kafka::client(&kafka)
        .set("transactional.id", format!("{}aborter", kafka.topic_prefix))
        .create()
        .unwrap();
    let wait = Duration::from_secs(30);
    tokio::task::block_in_place(|| {
        transactional.init_transactions(wait).unwrap();
        send(&write, &topic, 0, 1);
        transactional.begin_transaction().unwrap();
        send(&transactional, &topic, 0, 1_000);
        transactional.abort_transaction(wait).unwrap();
        send(&write, &topic, 0, 1);
    });
    let watch = Watch::start(&kafka, own_groups(&kafka), vec![]).await;
    let last = || tokio::task::block_in_place(|| watch.evaluations().remove("around")?.pop());
    let seen = within(PATIENCE, "a poll", || async { last() }).await;
    assert_eq!((seen.lag, seen.open_transaction_seconds), (Some(2), None), "{seen:?}");
    tokio::task::block_in_place(|| {
        transactional.begin_transaction().unwrap();
        send(&transactional, &topic, 0, 10);
    });
    let open = within(PATIENCE, "an open transaction to be seen", || async {
        last().filter(|seen| seen.open_transaction_seconds.is_some())
    })
    .await;
    assert_eq!(open.lag, Some(2), "what it holds is no lag: {open:?}");
    tokio::task::block_in_place(|| transactional.commit_transaction(wait).unwrap());
    let closed = within(PATIENCE, "it to be over", || async {
        last().filter(|seen| seen.open_transaction_seconds.is_none())
    })
    .await;
    assert_eq!(closed.lag, Some(12), "{closed:?}");
    watch.stop().await;
}

/// Joins a group of another protocol than that of consumers, as Kafka Connect does.
fn join_as_connect(brokers: &str, group: &str) -> TcpStream {
    let text = |text: &str| [&(text.len() as i16).to_be_bytes()[..], text.as_bytes()].concat();
    let request = [
        // JoinGroup, version 2, correlation 1.
        &[0, 11, 0, 2, 0, 0, 0, 1][..],
        &text("test"),
        &text(group),
        &60_000i32.to_be_bytes(),
        &60_000i32.to_be_bytes(),
        &text(""),
        &text("connect"),
        &1i32.to_be_bytes(),
        &text("default"),
        &0i32.to_be_bytes(),
    ]
    .concat();
    let mut stream = TcpStream::connect(brokers).expect("a connection");
    stream.write_all(&(request.len() as i32).to_be_bytes()).expect("is sent");
    stream.write_all(&request).expect("is sent");
    let mut reply = [0; 14];
    stream.read_exact(&mut reply).expect("an answer");
    assert_eq!(reply[12..14], [0, 0], "the group is joined: {reply:?}");
    stream
}

#[tokio::test(flavor = "multi_thread")]
async fn no_kind_and_no_name_of_a_group_is_left_out() {
    let kafka = kafka::settings();
    create(&kafka, &["named"], 1).await;
    let topic = topic_of(&kafka, "named");
    send(&producer(&kafka), &topic, 0, 5);
    // Nothing that compresses: what an index would have to hold as it is.
    let noise: String = (0..250).map(|_| uuid::Uuid::new_v4().simple().to_string()).collect();
    commit(&kafka, &noise, &topic, &[(0, 1)]);
    commit(&kafka, "line\nbreak \"quoted\"", &topic, &[(0, 5)]);
    let joined = join_as_connect(&kafka.brokers, &format!("{}connect", kafka.topic_prefix));
    let watch = Watch::start(&kafka, own_groups(&kafka), vec![]).await;
    let connect = watch.until("connect", LagStatus::Unknown).await;
    assert_eq!((connect.group_type, connect.lag), (Some(GroupType::Other), None), "{connect:?}");
    assert_eq!(connect.reasons[0].rule, "kind_not_judged");
    assert_eq!(connect.reasons[0].example.as_deref(), Some("a group of protocol connect"));
    let quoted = watch.until("line\nbreak \"quoted\"", LagStatus::Ok).await;
    assert_eq!(quoted.group_type, Some(GroupType::Classic));
    let (_own, database) = TestDatabase::migrated().await;
    let long = within(PATIENCE, "the group of a long name", || async {
        let all = tokio::task::block_in_place(|| watch.evaluations());
        all.into_iter().find(|(name, _)| name.starts_with(&noise[..100])).map(|(_, mut seen)| seen.remove(0))
    })
    .await;
    assert!(long.consumer_group.len() <= 1_024, "{}", long.consumer_group.len());
    database.put_lag_status("", &[], &[&long]).await.expect("Postgres holds it");
    assert_eq!(watch.calls().get("connect"), None);
    drop(joined);
    watch.stop().await;
}
