//! A subscription against a real broker.

use std::time::Duration;

use rdkafka::message::Message;
use tokio_util::sync::CancellationToken;
use trunkline::kafka::settings::KafkaSettings;
use trunkline::kafka::subscription::{
    CommitError, Event, InboundRecord, OutboundRecord, PublishError, Start, Subscription, SubscriptionError,
    SubscriptionOptions, TopicPartition,
};
use trunkline::role::{Kind, Role};
use trunkline::topics::{DIAL_DECISIONS, OUTCOMES};

use crate::support::proxy::{END_TXN, Proxy};
use crate::support::{kafka, until};

static ROLE: Role = Role {
    name: "reader",
    kind: Kind::Sink,
    description: "reads for a test",
    reads: &[&DIAL_DECISIONS],
    writes: &[&OUTCOMES],
    sets_aside: &[],
    keeps: &[],
    outside: &[],
};
const ONE: TopicPartition = TopicPartition { topic: &DIAL_DECISIONS, partition: 0 };
const PATIENCE: Duration = Duration::from_secs(30);

fn open(kafka: &KafkaSettings, instance: &str, options: SubscriptionOptions) -> Subscription {
    let kafka = KafkaSettings { instance: instance.to_owned(), ..kafka.clone() };
    Subscription::open(&kafka, &ROLE, ROLE.reads, options, CancellationToken::new()).expect("opens")
}

fn publishing() -> SubscriptionOptions {
    SubscriptionOptions { publishes: true, ..SubscriptionOptions::default() }
}

async fn next(subscription: &mut Subscription) -> Event {
    tokio::time::timeout(PATIENCE, subscription.next()).await.expect("an event")
}

async fn assigned(subscription: &mut Subscription) -> Vec<TopicPartition> {
    loop {
        match next(subscription).await {
            // Joined, with everything at other members for now.
            Event::Assigned(none) if none.is_empty() => {}
            Event::Assigned(partitions) => return partitions,
            other => panic!("expected an assignment, got {other:?}"),
        }
    }
}

async fn records(subscription: &mut Subscription, count: usize) -> Vec<InboundRecord> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(subscription).await {
            Event::Records(records) => all.extend(records),
            other => panic!("expected records, got {other:?}"),
        }
    }
    all
}

fn numbers(records: &[InboundRecord]) -> Vec<i64> {
    records
        .iter()
        .map(|record| String::from_utf8(record.value.clone().expect("a value")).unwrap().parse().unwrap())
        .collect()
}

async fn produce_numbers(kafka: &KafkaSettings, partition: i32, range: std::ops::Range<i64>) {
    let values: Vec<String> = range.map(|number| number.to_string()).collect();
    let records: Vec<(&str, &[u8])> = values.iter().map(|value| ("k", value.as_bytes())).collect();
    kafka::produce(kafka, &DIAL_DECISIONS, Some(partition), &records).await;
}

fn outbound(value: &str) -> OutboundRecord {
    OutboundRecord {
        topic: &OUTCOMES,
        key: Some(b"k".to_vec()),
        value: Some(value.as_bytes().to_vec()),
        headers: vec![("content-type".to_owned(), b"application/json".to_vec())],
    }
}

fn values(messages: &[rdkafka::message::OwnedMessage]) -> Vec<String> {
    messages.iter().map(|m| String::from_utf8(m.payload().unwrap().to_vec()).unwrap()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn reading_begins_where_its_owner_says_and_goes_on_where_it_was_committed() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 1).await;
    produce_numbers(&kafka, 0, 0..10).await;

    let mut first = open(&kafka, "one", SubscriptionOptions::default());
    assert_eq!(assigned(&mut first).await, [ONE]);
    let early = tokio::time::timeout(Duration::from_millis(300), first.next()).await;
    assert!(early.is_err(), "nothing before start: {early:?}");
    first.start(vec![(ONE, Start::Committed)]).await;
    assert_eq!(numbers(&records(&mut first, 10).await), (0..10).collect::<Vec<_>>());
    first.commit(vec![(ONE, 4)]).await.expect("commits");
    first.close().await;
    assert_eq!(kafka::committed(&kafka, ROLE.name, &DIAL_DECISIONS, 0), Some(4));

    let mut second = open(&kafka, "one", SubscriptionOptions::default());
    assigned(&mut second).await;
    second.start(vec![(ONE, Start::Committed)]).await;
    assert_eq!(numbers(&records(&mut second, 6).await), (4..10).collect::<Vec<_>>());
    second.close().await;

    let mut third = open(&kafka, "one", SubscriptionOptions::default());
    assigned(&mut third).await;
    third.start(vec![(ONE, Start::At(7))]).await;
    let read = records(&mut third, 3).await;
    assert_eq!(numbers(&read), [7, 8, 9]);
    assert_eq!((read[0].offset, read[0].key.as_deref()), (7, Some(&b"k"[..])));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_receiver_gets_everything_in_order_through_a_small_buffer() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 1).await;
    let total = 3_000_i64;
    produce_numbers(&kafka, 0, 0..total).await;
    let options =
        SubscriptionOptions { buffered_records: 64, batch_records: 16, ..SubscriptionOptions::default() };
    let mut subscription = open(&kafka, "one", options);
    assigned(&mut subscription).await;
    subscription.start(vec![(ONE, Start::Committed)]).await;
    let mut seen = Vec::new();
    while seen.len() < total as usize {
        if seen.len() % 512 == 0 {
            // Long enough for the buffer to fill and the partition to be paused.
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let Event::Records(records) = next(&mut subscription).await else { panic!("not records") };
        assert!(records.len() <= 16);
        seen.extend(numbers(&records));
    }
    assert_eq!(seen, (0..total).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn partitions_move_to_a_second_member_with_what_was_committed_on_leaving() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 2).await;
    for partition in 0..2 {
        produce_numbers(&kafka, partition, 0..5).await;
    }
    let mut first = open(&kafka, "one", SubscriptionOptions::default());
    let both = assigned(&mut first).await;
    assert_eq!(both.len(), 2);
    first.start(both.iter().map(|partition| (*partition, Start::Committed)).collect()).await;
    records(&mut first, 10).await;

    let mut second = open(&kafka, "two", SubscriptionOptions::default());
    let Event::Revoked(moving) = next(&mut first).await else { panic!("not a revocation") };
    assert_eq!(moving.len(), 1);
    first.commit(vec![(moving[0], 3)]).await.expect("the last word before it goes");
    first.acknowledge_revocation().await;
    assert_eq!(assigned(&mut second).await, moving);
    second.start(vec![(moving[0], Start::Committed)]).await;
    assert_eq!(numbers(&records(&mut second, 2).await), [3, 4]);

    let refused = first.commit(vec![(moving[0], 5)]).await;
    assert!(matches!(refused, Err(CommitError::Gone(_))), "{refused:?}");
    let refused = first.publish(vec![outbound("x")], vec![(moving[0], 5)]).await;
    assert!(matches!(refused, Err(PublishError::Gone(_))), "{refused:?}");

    // The one that stays goes on as if nothing had happened.
    let stays = both.iter().find(|partition| **partition != moving[0]).expect("one stays").partition;
    produce_numbers(&kafka, stays, 5..6).await;
    assert_eq!(numbers(&records(&mut first, 1).await), [5]);

    // Leaving hands it back.
    second.close().await;
    assert_eq!(assigned(&mut first).await, moving);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_revocation_nobody_acknowledges_goes_through_after_its_time() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 2).await;
    let options =
        SubscriptionOptions { revocation_wait: Duration::from_millis(200), ..SubscriptionOptions::default() };
    let mut first = open(&kafka, "one", options);
    assert_eq!(assigned(&mut first).await.len(), 2);
    let mut second = open(&kafka, "two", SubscriptionOptions::default());
    // Not even started partitions are asked back and let go.
    assert_eq!(assigned(&mut second).await.len(), 1);
    assert!(matches!(next(&mut first).await, Event::Revoked(partitions) if partitions.len() == 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn records_and_offsets_are_published_together_or_not_at_all() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS, &OUTCOMES], 1).await;
    produce_numbers(&kafka, 0, 0..3).await;
    let mut subscription = open(&kafka, "one", publishing());
    assigned(&mut subscription).await;
    subscription.start(vec![(ONE, Start::Committed)]).await;
    records(&mut subscription, 3).await;

    subscription.publish(vec![outbound("a"), outbound("b")], vec![(ONE, 2)]).await.expect("publishes");
    assert_eq!(kafka::committed(&kafka, ROLE.name, &DIAL_DECISIONS, 0), Some(2));
    let read = kafka::read_all(&kafka, &OUTCOMES);
    assert_eq!(values(&read), ["a", "b"]);

    let large = OutboundRecord { value: Some(vec![b'x'; OUTCOMES.max_message_bytes]), ..outbound("") };
    let refused = subscription.publish(vec![outbound("c"), large], vec![(ONE, 3)]).await;
    assert!(matches!(refused, Err(PublishError::Refused(_))), "{refused:?}");
    assert_eq!(values(&kafka::read_all(&kafka, &OUTCOMES)), ["a", "b"]);
    assert_eq!(kafka::committed(&kafka, ROLE.name, &DIAL_DECISIONS, 0), Some(2));

    subscription.publish(vec![outbound("c")], vec![(ONE, 3)]).await.expect("goes on");
    assert_eq!(values(&kafka::read_all(&kafka, &OUTCOMES)), ["a", "b", "c"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_producer_fenced_by_its_successor_aborts_and_can_try_again() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS, &OUTCOMES], 1).await;
    produce_numbers(&kafka, 0, 0..3).await;
    let mut subscription = open(&kafka, "one", publishing());
    assigned(&mut subscription).await;
    subscription.start(vec![(ONE, Start::Committed)]).await;
    records(&mut subscription, 3).await;
    subscription.publish(vec![outbound("a")], vec![(ONE, 1)]).await.expect("publishes");

    // Somebody takes the transactional id.
    let fence = kafka.clone();
    tokio::task::spawn_blocking(move || {
        use rdkafka::producer::{BaseProducer, Producer};
        let thief: BaseProducer = kafka::client(&fence)
            .set("transactional.id", fence.transactional_id(ROLE.name, 0))
            .create()
            .expect("a producer");
        thief.init_transactions(Duration::from_secs(30)).expect("takes the id");
    })
    .await
    .expect("ends");

    let refused = subscription.publish(vec![outbound("b")], vec![(ONE, 2)]).await;
    assert!(matches!(refused, Err(PublishError::Retry(_))), "{refused:?}");
    assert_eq!(values(&kafka::read_all(&kafka, &OUTCOMES)), ["a"]);
    assert_eq!(kafka::committed(&kafka, ROLE.name, &DIAL_DECISIONS, 0), Some(1));
    let handle = subscription.handle();
    until("the same records to go through", || {
        let handle = handle.clone();
        async move { handle.publish(vec![outbound("b")], vec![(ONE, 2)]).await.ok() }
    })
    .await;
    assert_eq!(values(&kafka::read_all(&kafka, &OUTCOMES)), ["a", "b"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_offset_that_is_gone_ends_the_subscription_instead_of_being_skipped() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 1).await;
    produce_numbers(&kafka, 0, 0..3).await;
    let mut subscription = open(&kafka, "one", SubscriptionOptions::default());
    assigned(&mut subscription).await;
    subscription.start(vec![(ONE, Start::At(1_000))]).await;
    let event = next(&mut subscription).await;
    assert!(matches!(event, Event::Failed(SubscriptionError::PositionLost { .. })), "{event:?}");
    let refused = subscription.commit(vec![(ONE, 1)]).await;
    assert!(matches!(refused, Err(CommitError::Closed)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn shutdown_closes_and_what_is_done_can_still_be_committed() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 1).await;
    produce_numbers(&kafka, 0, 0..3).await;
    let shutdown = CancellationToken::new();
    let options = SubscriptionOptions::default();
    let mut subscription =
        Subscription::open(&kafka, &ROLE, ROLE.reads, options, shutdown.clone()).expect("opens");
    assigned(&mut subscription).await;
    subscription.start(vec![(ONE, Start::Committed)]).await;
    records(&mut subscription, 3).await;
    shutdown.cancel();
    assert!(matches!(subscription.next().await, Event::Closed));
    subscription.commit(vec![(ONE, 3)]).await.expect("commits");
    subscription.close().await;
    assert_eq!(kafka::committed(&kafka, ROLE.name, &DIAL_DECISIONS, 0), Some(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_comes_later_is_found_and_readiness_tells_it() {
    let kafka = kafka::settings();
    let health = trunkline::health::Health::default();
    let options =
        SubscriptionOptions { health: Some(health.part("reader")), ..SubscriptionOptions::default() };
    let mut subscription = open(&kafka, "one", options);
    until("the reason to name what is missing", || async {
        health.reasons().iter().any(|(_, reason)| reason.contains("nknown topic")).then_some(())
    })
    .await;
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 1).await;
    assert_eq!(assigned(&mut subscription).await, [ONE]);
    until("readiness", || async { health.reasons().is_empty().then_some(()) }).await;
    // Partitions added later are read as well, from their beginning.
    subscription.start(vec![(ONE, Start::Committed)]).await;
    kafka::add_partitions(&kafka, &DIAL_DECISIONS, 2).await;
    produce_numbers(&kafka, 1, 0..3).await;
    let added = loop {
        match next(&mut subscription).await {
            Event::Assigned(none) if none.is_empty() => {}
            Event::Assigned(partitions) => break partitions,
            Event::Revoked(_) => subscription.acknowledge_revocation().await,
            other => panic!("expected an assignment, got {other:?}"),
        }
    };
    subscription.start(added.iter().map(|partition| (*partition, Start::Committed)).collect()).await;
    assert_eq!(numbers(&records(&mut subscription, 3).await), [0, 1, 2]);
}

/// A commit is taken off the wire and the brokers stay out of reach for longer than
/// anybody waits for them: whether it counted is found out from the committed offsets.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_whose_end_is_not_known_is_looked_up() {
    let proxy = Proxy::start().await;
    for arrives in [true, false] {
        let kafka = kafka::settings();
        kafka::create_topics(&kafka, &[&DIAL_DECISIONS, &OUTCOMES], 1).await;
        produce_numbers(&kafka, 0, 0..3).await;
        let behind_proxy = KafkaSettings { brokers: proxy.address.clone(), ..kafka.clone() };
        let mut subscription = open(&behind_proxy, "one", publishing());
        assigned(&mut subscription).await;
        subscription.start(vec![(ONE, Start::Committed)]).await;
        records(&mut subscription, 3).await;
        subscription.publish(vec![outbound("a")], vec![(ONE, 1)]).await.expect("publishes");

        let caught = proxy.catch_next(END_TXN);
        let handle = subscription.handle();
        let publishing =
            tokio::spawn(async move { handle.publish(vec![outbound("b")], vec![(ONE, 2)]).await });
        let held = caught.await.expect("the commit");
        proxy.set_away(true);
        if arrives {
            held.deliver().await;
        } else {
            drop(held);
        }
        // Longer than a commit is tried (10 s); nothing outside shows when that is over.
        tokio::time::sleep(Duration::from_secs(12)).await;
        assert!(!publishing.is_finished(), "no verdict without a word from the brokers");
        proxy.set_away(false);
        let verdict = tokio::time::timeout(PATIENCE, publishing).await.expect("a verdict").expect("no panic");
        let (visible, offset): (&[&str], _) = if arrives { (&["a", "b"], 2) } else { (&["a"], 1) };
        assert_eq!(values(&kafka::read_all(&kafka, &OUTCOMES)), visible, "{verdict:?}");
        assert_eq!(kafka::committed(&kafka, ROLE.name, &DIAL_DECISIONS, 0), Some(offset));
        match verdict {
            Ok(()) => assert!(arrives),
            Err(PublishError::Retry(_)) => assert!(!arrives),
            Err(other) => panic!("{other:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_without_a_partition_knows_it_and_is_ready() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 1).await;
    let mut first = open(&kafka, "one", SubscriptionOptions::default());
    assert_eq!(assigned(&mut first).await, [ONE]);
    let health = trunkline::health::Health::default();
    let options =
        SubscriptionOptions { health: Some(health.part("reader")), ..SubscriptionOptions::default() };
    let mut second = open(&kafka, "two", options);
    match next(&mut second).await {
        Event::Assigned(partitions) => assert!(partitions.is_empty(), "{partitions:?}"),
        other => panic!("expected an assignment, got {other:?}"),
    }
    until("readiness", || async { health.reasons().is_empty().then_some(()) }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_is_replaced_while_it_is_read_ends_the_subscription() {
    let kafka = kafka::settings();
    kafka::create_topics(&kafka, &[&DIAL_DECISIONS], 1).await;
    produce_numbers(&kafka, 0, 0..3).await;
    let mut subscription = open(&kafka, "one", SubscriptionOptions::default());
    assert_eq!(assigned(&mut subscription).await, [ONE]);
    let before = subscription.topic_ids().await.expect("ids");
    subscription.start(vec![(ONE, Start::Committed)]).await;
    assert_eq!(numbers(&records(&mut subscription, 3).await), [0, 1, 2]);
    kafka::replace_topic(&kafka, &DIAL_DECISIONS, 1).await;
    produce_numbers(&kafka, 0, 100..110).await;
    loop {
        match next(&mut subscription).await {
            Event::Failed(SubscriptionError::TopicReplaced { topic, .. }) => {
                assert_eq!(topic, kafka.topic(&DIAL_DECISIONS));
                break;
            }
            // It had gone for long enough to be noticed: assigned anew it is another one.
            Event::Revoked(_) => subscription.acknowledge_revocation().await,
            Event::Assigned(partitions) if partitions == [ONE] => {
                let now = subscription.topic_ids().await.expect("ids");
                assert_ne!(now, before);
                break;
            }
            Event::Assigned(_) | Event::Lost(_) | Event::Records(_) => {}
            other => panic!("expected to be told, got {other:?}"),
        }
    }
}
