//! Enrichment from a real broker into a real Postgres, with the simulated platform's
//! faults between.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rdkafka::message::Message;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use trunkline::health::Health;
use trunkline::postgres::dead_letters::REDRIVEN_FROM;
use trunkline::sinks::{analytics, outbox};
use trunkline::topics;

use crate::support::enrichment::{PATH, PATIENCE, Stand, disordered, event, fast, id};
use crate::support::postgres_proxy::{Fault, PostgresProxy};
use crate::support::{kafka, within};

fn of(numbers: std::ops::Range<usize>) -> Vec<Value> {
    numbers.flat_map(disordered).collect()
}

/// Every conversation was published exactly so often, and its last word is whole.
async fn expect_published(stand: &Stand, conversations: usize, times: usize) {
    let mut published: BTreeMap<String, Vec<Value>> = BTreeMap::new();
    for (key, value) in stand.appended(&topics::CONVERSATIONS).await {
        published.entry(key).or_default().push(value.expect("no tombstone"));
    }
    assert_eq!(published.len(), conversations);
    for (key, values) in published {
        assert_eq!(values.len(), times, "{key}: {values:?}");
        let last = values.last().unwrap();
        assert_eq!(last["details"]["conversationId"], json!(key));
        assert_eq!((&last["ended"], &last["flowVersion"]), (&json!(true), &json!("7.0")), "{last}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_full_and_every_conversation_is_enriched_once_whatever_fails() {
    const CONVERSATIONS: usize = 1_000;
    let stand = Stand::new().await;
    stand.register(0..CONVERSATIONS).await;
    stand.short_pages(0.3).await;
    let on_details = |fault: Value, probability: f64| json!({"match": {"path": PATH}, "probability": probability, "fault": fault});
    let limited = json!({"type": "status", "code": 429, "retryAfter": "float", "seconds": 0.1});
    let faults = [
        on_details(limited, 0.1),
        on_details(json!({"type": "status", "code": 500}), 0.02),
        on_details(json!({"type": "garbage_body"}), 0.02),
    ];
    stand.organization.faults(json!(faults)).await;
    stand.produce(&of(0..CONVERSATIONS)).await;
    let instance = stand.start("one");
    stand.all_done(CONVERSATIONS as i64).await;
    instance.stop().await;

    expect_published(&stand, CONVERSATIONS, 1).await;
    let (mut queries, mut failed) = (0, 0);
    for entry in stand.organization.requests().await {
        if entry["path"].as_str().unwrap().starts_with(PATH) {
            queries += usize::from(entry["method"] == "POST");
            failed += usize::from(!entry["faults"].as_array().unwrap().is_empty());
        }
    }
    let needed = CONVERSATIONS.div_ceil(50);
    let most = (1.1 * needed as f64) as usize + failed;
    assert!((needed..=most).contains(&queries), "{queries} queries: {needed} are needed, {failed} failed");
}

#[tokio::test(flavor = "multi_thread")]
async fn instances_come_and_crash_and_nothing_is_lost_or_told_twice() {
    let stand = Stand::new().await;
    stand.register(0..900).await;
    stand.organization.fault("POST", PATH, json!({"type": "delay", "ms": 150})).await;
    let first = stand.start("one");
    stand.produce(&of(0..300)).await;
    within(PATIENCE, "the first query", async || (stand.asked("POST", true).await > 0).then_some(())).await;
    let second = stand.start("two");
    stand.produce(&of(300..600)).await;
    first.crash().await;
    stand.produce(&of(600..900)).await;
    let third = stand.start("three");
    stand.all_done(900).await;
    second.stop().await;
    third.stop().await;
    expect_published(&stand, 900, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_whose_later_page_fails_counts_for_nothing() {
    let stand = Stand::new().await;
    stand.register(0..50).await;
    stand.short_pages(1.0).await;
    let failing =
        json!([{"match": {"method": "GET", "path": PATH}, "fault": {"type": "status", "code": 503}}]);
    stand.organization.faults(failing).await;
    stand.produce(&of(0..50)).await;
    let instance = stand.start("one");
    within(PATIENCE, "further pages to fail", async || (stand.asked("GET", false).await >= 4).then_some(()))
        .await;
    assert_eq!(stand.states().await, BTreeMap::from([("pending".to_owned(), 50)]));
    assert!(stand.appended(&topics::CONVERSATIONS).await.is_empty());
    stand.short_pages(0.5).await;
    stand.organization.faults(json!([])).await;
    stand.all_done(50).await;
    instance.stop().await;
    expect_published(&stand, 50, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn while_analytics_are_away_events_are_taken_in_and_nothing_expires() {
    let stand = Stand::new().await;
    stand.register(0..400).await;
    stand.organization.fault("POST", PATH, json!({"type": "status", "code": 503})).await;
    stand.produce(&of(0..200)).await;
    let instance = stand.start("one");
    // The patience is 1.2 s: were failures counted, six of them would be the end.
    within(PATIENCE, "ten queries to fail", async || (stand.asked("POST", false).await >= 10).then_some(()))
        .await;
    stand.produce(&of(200..400)).await;
    within(PATIENCE, "all to be pending", async || {
        (stand.states().await == BTreeMap::from([("pending".to_owned(), 400)])).then_some(())
    })
    .await;
    let attempts: i64 = sqlx::query_scalar("SELECT sum(attempts)::bigint FROM audit.conversations")
        .fetch_one(stand.database.pool())
        .await
        .unwrap();
    assert_eq!(attempts, 0);
    assert!(instance.health.reasons().is_empty(), "{:?}", instance.health.reasons());
    let told = instance.health.impairments();
    assert!(told.iter().any(|(part, _)| part == "enrichment queries"), "{told:?}");

    stand.organization.faults(json!([])).await;
    stand.all_done(400).await;
    within(PATIENCE, "no impairment", async || instance.health.impairments().is_empty().then_some(())).await;
    instance.stop().await;
    expect_published(&stand, 400, 1).await;
    let good = stand.asked("POST", true).await;
    assert!(good <= 9, "{good} queries for 8 times 50 conversations");
}

#[tokio::test(flavor = "multi_thread")]
async fn duplicates_and_older_events_ask_nothing_and_newer_ones_once_more() {
    let stand = Stand::new().await;
    stand.register(0..3).await;
    let instance = stand.start("one");
    stand.produce(&of(0..3)).await;
    stand.all_done(3).await;
    let asked = stand.asked("POST", true).await;

    // What tells that these have been dealt with is the event of another conversation behind them.
    let mut older = event(1, "acd.start", 1_000);
    older["queueId"] = json!("queue-1");
    stand.produce(&[event(0, "customer.end", 4_000), event(0, "customer.start", 0), older]).await;
    within(PATIENCE, "the older event's queue to be told", async || {
        let appended = stand.appended(&topics::CONVERSATIONS).await;
        let (key, last) = appended.last()?;
        (*key == id(1) && last.as_ref()?["queueId"] == "queue-1").then_some(())
    })
    .await;
    assert_eq!(stand.asked("POST", true).await, asked, "nothing was asked for them");
    assert_eq!(stand.appended(&topics::CONVERSATIONS).await.len(), 4, "the duplicates were not told again");

    stand.produce(&[event(2, "wrapup", 9_000), event(2, "acw", 8_000)]).await;
    within(PATIENCE, "the newer event to be asked about", async || {
        let appended = stand.appended(&topics::CONVERSATIONS).await;
        (appended.len() > 4).then_some(())
    })
    .await;
    stand.all_done(3).await;
    assert_eq!(stand.asked("POST", true).await, asked + 1);
    let appended = stand.appended(&topics::CONVERSATIONS).await;
    let (key, last) = appended.last().unwrap();
    assert_eq!((key, appended.len()), (&id(2), 5));
    assert_eq!(last.as_ref().unwrap()["enrichedUpTo"], event(2, "wrapup", 9_000)["occurredAt"]);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_appears_late_is_found_and_what_never_does_is_a_dead_letter_that_can_be_sent_again() {
    let stand = Stand::new().await;
    stand.register([0]).await;
    let instance = stand.start("one");
    stand.produce(&of(0..3)).await;
    let attempts = |number: usize| {
        sqlx::query_scalar::<_, i32>("SELECT attempts FROM audit.conversations WHERE conversation_id = $1")
            .bind(id(number))
            .fetch_optional(stand.database.pool())
    };
    within(PATIENCE, "two attempts in vain", async || (attempts(1).await.unwrap()? >= 2).then_some(())).await;
    assert_eq!(stand.state(0).await.as_deref(), Some("done"), "its neighbours were found");
    stand.register([1]).await;
    within(PATIENCE, "the late one to be found", async || (stand.state(1).await? == "done").then_some(()))
        .await;
    within(PATIENCE, "the unknown one to be given up", async || {
        (stand.state(2).await? == "not_available").then_some(())
    })
    .await;
    assert_eq!(attempts(2).await.unwrap(), Some(analytics::ATTEMPTS as i32));

    // Published, it is the dead letter that its topic promises.
    let stop = CancellationToken::new();
    let publishing = tokio::spawn({
        let (kafka, database, stop) = (stand.kafka.clone(), stand.database.clone(), stop.clone());
        async move {
            outbox::run(outbox::Settings::default(), kafka, database, &Health::default(), stop).await;
        }
    });
    let letter = within(PATIENCE, "the dead letter", async || {
        kafka::read_all(&stand.kafka, &topics::DEAD_LETTERS).pop()
    })
    .await;
    assert_eq!(letter.key(), Some(id(2).as_bytes()));
    let header = |name: &str| {
        use rdkafka::message::Headers;
        let headers = letter.headers().expect("headers");
        let found = headers.iter().find(|header| header.key == name).unwrap_or_else(|| panic!("{name}"));
        String::from_utf8(found.value.expect("a value").to_vec()).unwrap()
    };
    assert!(header("trunkline-error-reason").starts_with("not_available: "));
    assert_eq!(header("trunkline-error-stage"), "enrichment");
    assert_eq!(header("trunkline-error-topic"), stand.kafka.topic(&topics::CONVERSATION_EVENTS));
    assert_eq!(header("trunkline-schema"), topics::CONVERSATION_EVENTS.name);

    // Sent again on purpose, once analytics know it.
    stand.register([2]).await;
    let value: Value = serde_json::from_slice(letter.payload().unwrap()).unwrap();
    stand.produce_with(&[value], &[(REDRIVEN_FROM, "the dead letters")]).await;
    stand.all_done(3).await;
    let told = within(PATIENCE, "all of them on the topic", async || {
        let records = kafka::read_all(&stand.kafka, &topics::CONVERSATIONS);
        (records.len() == 3).then_some(records)
    })
    .await;
    let keys: BTreeSet<_> = told.iter().map(|record| record.key().unwrap().to_vec()).collect();
    assert_eq!(keys, (0..3).map(|number| id(number).into_bytes()).collect());
    stop.cancel();
    publishing.await.unwrap();
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commits_whose_request_or_reply_is_lost_tell_nothing_twice() {
    let stand = Stand::new().await;
    let proxy = PostgresProxy::before(&stand.own.options()).await;
    let instance = stand.start_with("one", fast(), &proxy.through(stand.own.options()));
    let mut count = 0;
    for (round, fault) in
        [Fault::LoseNextReply, Fault::LoseNextCommit].into_iter().cycle().take(6).enumerate()
    {
        stand.register(count..count + 20).await;
        proxy.prepare(fault);
        stand.produce(&of(count..count + 20)).await;
        count += 20;
        within(PATIENCE, "the fault to happen", async || (proxy.happened() > round).then_some(())).await;
        stand.all_done(count as i64).await;
    }
    instance.ready().await;
    proxy.set_away(true);
    stand.register(count..count + 5).await;
    stand.produce(&of(count..count + 5)).await;
    within(PATIENCE, "the instance to say that Postgres is away", async || {
        instance.health.reasons().iter().any(|(part, _)| part == "enrichment").then_some(())
    })
    .await;
    proxy.set_away(false);
    stand.all_done(count as i64 + 5).await;
    instance.stop().await;
    expect_published(&stand, count + 5, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn poison_is_passed_over_and_holds_nothing_up() {
    let stand = Stand::new().await;
    stand.register(0..2).await;
    let poison: [(&str, &[u8]); 6] = [
        ("a", b"{\"broken\":"),
        ("b", b"\xff\xfe"),
        ("c", b"\0\0\0\0\x01{}"),
        ("d", b"[]"),
        ("not its own", br#"{"eventId":"e","eventType":"customer.end","occurredAt":"2026-01-02T03:04:05.678Z","conversationId":"c"}"#),
        ("n", br#"{"eventId":"e\u0000","eventType":"customer.end","occurredAt":"2026-01-02T03:04:05.678Z","conversationId":"n"}"#),
    ];
    kafka::produce(&stand.kafka, &topics::CONVERSATION_EVENTS, Some(0), &poison).await;
    let mut future = event(7, "customer.end", 0);
    future["occurredAt"] = json!("2099-01-01T00:00:00.000Z");
    stand.produce(&[future]).await;
    stand.produce(&of(0..2)).await;
    let instance = stand.start("one");
    stand.all_done(2).await;
    instance.ready().await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_postgres_refuses_is_one_dead_letter_and_holds_nothing_up() {
    const CONVERSATIONS: usize = 40;
    const POISONED: [usize; 3] = [0, 17, 39];
    let stand = Stand::new().await;
    stand.register(0..CONVERSATIONS).await;
    // What is valid for us and no row for Postgres: a constraint stands for all that it may refuse.
    let refusing = "ALTER TABLE trunkline.conversations ADD CHECK (summary ->> 'lastEventType' <> 'poison')";
    sqlx::query(refusing).execute(&stand.own.owner().await).await.unwrap();
    let events: Vec<Value> = (0..CONVERSATIONS)
        .flat_map(|number| {
            let mut events = disordered(number);
            // The last by event time: what comes behind it must not hide it.
            events.extend(POISONED.contains(&number).then(|| event(number, "poison", 9_000)));
            events
        })
        .collect();
    stand.produce_with(&events, &[("traceparent", "00-a-b-01")]).await;
    let instance = stand.start("one");
    stand.all_done(CONVERSATIONS as i64).await;
    instance.ready().await;
    // One that comes while it runs, from a conversation that is known.
    stand.produce(&[event(5, "poison", 9_000), event(6, "wrapup", 9_000)]).await;
    within(PATIENCE, "the newer event to be told of", async || {
        (stand.appended(&topics::CONVERSATIONS).await.len() > CONVERSATIONS).then_some(())
    })
    .await;
    within(PATIENCE, "all dead letters", async || {
        (stand.appended(&topics::DEAD_LETTERS).await.len() > POISONED.len()).then_some(())
    })
    .await;
    instance.stop().await;

    let letters = stand.appended(&topics::DEAD_LETTERS).await;
    let keys: BTreeSet<&String> = letters.iter().map(|(key, _)| key).collect();
    let expected: Vec<String> = POISONED.into_iter().chain([5]).map(id).collect();
    assert_eq!((letters.len(), keys), (4, expected.iter().collect()), "each once");
    assert!(letters.iter().all(|(_, value)| value.as_ref().unwrap()["eventType"] == "poison"));
    let headers: Vec<Value> =
        sqlx::query_scalar("SELECT headers FROM trunkline.outbox WHERE topic = $1 ORDER BY id")
            .bind(topics::DEAD_LETTERS.name)
            .fetch_all(stand.database.pool())
            .await
            .unwrap();
    let on_topic = kafka::read_all(&stand.kafka, &topics::CONVERSATION_EVENTS);
    for (headers, (_, value)) in headers.iter().zip(&letters) {
        let header = |name: &str| {
            let found = headers.as_array().unwrap().iter().find(|header| header[0] == name);
            found.unwrap_or_else(|| panic!("{name} in {headers}"))[1].as_str().unwrap().to_owned()
        };
        assert!(header("trunkline-error-reason").starts_with("rejected: "), "{headers}");
        assert_eq!(header("trunkline-error-stage"), "enrichment");
        assert_eq!(header("trunkline-error-topic"), stand.kafka.topic(&topics::CONVERSATION_EVENTS));
        let (partition, offset) = (header("trunkline-error-partition"), header("trunkline-error-offset"));
        let origin = on_topic.iter().find(|record| {
            (record.partition().to_string(), record.offset().to_string())
                == (partition.clone(), offset.clone())
        });
        let origin: Value = serde_json::from_slice(origin.unwrap().payload().unwrap()).unwrap();
        assert_eq!(Some(&origin), value.as_ref(), "it names its place");
    }
    assert_eq!(headers.iter().filter(|headers| headers.to_string().contains("00-a-b-01")).count(), 3);
    stand.all_done(CONVERSATIONS as i64).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_the_platform_will_not_take_is_made_smaller_until_it_does() {
    let stand = Stand::new().await;
    stand.register(0..40).await;
    // A 400 for all queries at first: nothing is said about any conversation.
    let refused = json!([{"match": {"method": "POST", "path": PATH}, "times": 4,
        "fault": {"type": "status", "code": 400}}]);
    stand.organization.faults(refused).await;
    stand.produce(&of(0..40)).await;
    let instance = stand.start("one");
    stand.all_done(40).await;
    instance.stop().await;
    expect_published(&stand, 40, 1).await;
}

/// As long as something else is wrong with its question, asking for ever finds nothing.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_that_is_refused_again_and_again_is_given_up_and_holds_up_nobody() {
    let stand = Stand::new().await;
    stand.register(0..1).await;
    let refused =
        json!([{"match": {"method": "POST", "path": PATH}, "fault": {"type": "status", "code": 400}}]);
    stand.organization.faults(refused).await;
    stand.produce(&of(0..1)).await;
    let instance = stand.start("one");
    within(PATIENCE, "it to be given up", async || {
        (stand.state(0).await.as_deref() == Some("not_available")).then_some(())
    })
    .await;
    let asked = stand.organization.requests_of("POST", PATH).await.len();
    assert_eq!(asked, analytics::ATTEMPTS as usize, "each refusal is an attempt");
    assert_eq!(stand.appended(&topics::DEAD_LETTERS).await.len(), 1);
    stand.organization.faults(json!([])).await;
    stand.register(1..3).await;
    stand.produce(&of(1..3)).await;
    within(PATIENCE, "the others", async || (stand.states().await.get("done") == Some(&2)).then_some(()))
        .await;
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_of_forty_days_is_found() {
    const DAY_MS: i64 = 86_400_000;
    let stand = Stand::new().await;
    stand.register(0..2).await;
    stand.produce(&[event(0, "customer.start", 0), event(0, "customer.end", 40 * DAY_MS)]).await;
    // Analytics have it at the other end of its events.
    stand.produce(&[event(1, "customer.start", -40 * DAY_MS), event(1, "customer.end", 4_000)]).await;
    let instance = stand.start("one");
    stand.all_done(2).await;
    instance.stop().await;
    let asked = stand.organization.requests_of("POST", PATH).await;
    assert!(asked.iter().all(|entry| entry["status"] == 200), "{asked:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_done_is_deleted_after_its_retention_and_taken_back_from_the_topic() {
    let stand = Stand::new().await;
    stand.register(0..2).await;
    let settings = analytics::Settings { retention: Duration::from_millis(300), ..fast() };
    stand.produce(&of(0..2)).await;
    let instance = stand.start_with("one", settings, &stand.own.options());
    let told = within(PATIENCE, "both to be told of and taken back", async || {
        let appended = stand.appended(&topics::CONVERSATIONS).await;
        (appended.len() >= 4).then_some(appended)
    })
    .await;
    for number in 0..2 {
        let words: Vec<bool> =
            told.iter().filter(|(key, _)| *key == id(number)).map(|(_, value)| value.is_some()).collect();
        assert_eq!(words, [true, false]);
    }
    assert!(stand.states().await.is_empty());
    instance.stop().await;
}
