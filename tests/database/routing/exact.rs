//! Exact shares, one answer per conversation.

use std::collections::HashMap;
use std::sync::Mutex;

use tokio::task::JoinSet;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn sixty_four_clients_on_three_instances_share_one_exact_sequence() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    let weights = [("q0", 40.0), ("q1", 25.0), ("q2", 15.0), ("q3", 12.0), ("q4", 8.0)];
    publish(&database, &configuration("c", &weights)).await;
    let mut instances = Vec::new();
    for _ in 0..3 {
        instances.push(Arc::new(
            Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await,
        ));
    }
    let mut clients = JoinSet::new();
    for client in 0..64 {
        let instances = instances.clone();
        clients.spawn(async move {
            let mut seen = Vec::new();
            for number in 0..20 {
                // Every fifth conversation is asked for by two clients on two instances at once.
                let conversation = match number % 5 {
                    0 => format!("shared-{}-{number}", client / 2),
                    _ => format!("own-{client}-{number}"),
                };
                let answer = instances[(client + number) % 3].decide("c", &conversation).await;
                assert_eq!(answer.source.name(), "exact");
                seen.push((conversation, answer.destination_id, answer.sequence.expect("recorded")));
            }
            seen
        });
    }
    let mut told = HashMap::new();
    while let Some(seen) = clients.join_next().await {
        for (conversation, destination, sequence) in seen.unwrap() {
            let first = told.entry(conversation).or_insert_with(|| (destination.clone(), sequence));
            assert_eq!(*first, (destination, sequence), "one answer per conversation");
        }
    }
    let distinct = 64 * 16 + 32 * 4;
    assert_eq!(told.len(), distinct);
    let sequence = expect_whole(&owner, "c", distinct).await;
    expect_bound(&sequence, &[("q0", 40), ("q1", 25), ("q2", 15), ("q3", 12), ("q4", 8)]);
    for instance in instances {
        Arc::into_inner(instance).expect("the clients are done").stop().await;
    }
    // After a restart the answers stand.
    let again = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    for (conversation, (destination, _)) in told.iter().take(20) {
        assert_eq!(again.decide("c", conversation).await.destination_id, *destination);
    }
    expect_whole(&owner, "c", distinct).await;
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hundred_decisions_are_seventy_and_thirty_and_the_next_too() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 70.0), ("b", 30.0)])).await;
    let instance = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    for number in 0..300 {
        instance.decide("c", &format!("v{number}")).await;
    }
    let sequence = expect_whole(&owner, "c", 300).await;
    for window in sequence.windows(100) {
        assert_eq!(window.iter().filter(|group| *group == "a").count(), 70);
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_in_force_for_the_next_decision_everywhere() {
    let (own, database) = TestDatabase::migrated().await;
    publish(&database, &configuration("c", &[("a", 1.0), ("b", 1.0)])).await;
    let one = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    let two = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    for number in 0..10 {
        assert_eq!(one.decide("c", &format!("one-{number}")).await.revision, 1);
        assert_eq!(two.decide("c", &format!("two-{number}")).await.revision, 1);
    }
    let mut drained = configuration("c", &[("a", 1.0), ("b", 1.0), ("new", 2.0)]);
    drained.rules[0].drain = true;
    assert_eq!(publish(&database, &drained).await, 2);
    for (index, instance) in [&two, &one, &one, &two].into_iter().enumerate() {
        let answer = instance.decide("c", &format!("after-{index}")).await;
        assert_eq!((answer.revision, answer.sequence), (2, Some(21 + index as u64)));
        assert_ne!(&*answer.destination_id, "a");
    }
    // What was answered before keeps its revision.
    assert_eq!(two.decide("c", "one-3").await.revision, 1);
    one.stop().await;
    two.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_third_stays_a_third_over_thousands_of_decisions() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 1.0), ("b", 2.0)])).await;
    let instance =
        Arc::new(Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await);
    let mut clients = JoinSet::new();
    for client in 0..500 {
        let instance = Arc::clone(&instance);
        clients.spawn(async move {
            for number in 0..21 {
                instance.decide("c", &format!("v-{client}-{number}")).await;
            }
        });
    }
    while let Some(joined) = clients.join_next().await {
        joined.unwrap();
    }
    let sequence = expect_whole(&owner, "c", 10_500).await;
    expect_bound(&sequence, &[("a", 1), ("b", 2)]);
    Arc::into_inner(instance).expect("the clients are done").stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn whose_group_was_removed_is_decided_anew_once_and_whose_group_drains_keeps_it() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 1.0), ("b", 1.0), ("d", 1.0)])).await;
    let one = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    let two = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    let mut told = HashMap::new();
    for number in 0..9 {
        let answer = one.decide("c", &format!("v{number}")).await;
        told.insert(format!("v{number}"), answer.destination_id);
    }
    // b is removed, d drains.
    let mut changed = configuration("c", &[("a", 1.0), ("d", 1.0)]);
    changed.rules[1].drain = true;
    publish(&database, &changed).await;
    // Both instances meet the change with the next decision.
    for instance in [&one, &two] {
        instance.decide("c", &format!("new-{:p}", instance)).await;
    }
    let mut anew = HashMap::new();
    for (conversation, before) in &told {
        for instance in [&two, &one, &two] {
            let answer = instance.decide("c", conversation).await;
            if **before == *"b" {
                assert_eq!((&*answer.destination_id, answer.revision), ("a", 2), "{conversation}");
                let first = anew.entry(conversation.clone()).or_insert(answer.sequence);
                assert_eq!(*first, answer.sequence, "decided anew once");
            } else {
                assert_eq!((&answer.destination_id, answer.revision), (before, 1), "{conversation}");
            }
        }
    }
    assert_eq!(anew.len(), 3);
    // Nothing is lost to the audit: the old answers are told as well, and then forgotten.
    let of = database.recordable_routes().await.unwrap().remove(0);
    let (answers, _) = database.unrecorded_answers(&of, 1_000).await.unwrap();
    let sequences: Vec<i64> = answers.iter().map(|answer| answer.sequence).collect();
    assert_eq!(sequences, (1..=9 + 2 + 3).collect::<Vec<i64>>());
    assert!(database.record_routes(&of, 14, &[]).await.unwrap());
    database.forget_route_answers(Duration::from_secs(3_600)).await.unwrap();
    let left: i64 = sqlx::query_scalar("SELECT count(*) FROM trunkline.route_superseded")
        .fetch_one(&owner)
        .await
        .unwrap();
    assert_eq!((left, kept(&owner, "c").await.len()), (0, 11));
    one.stop().await;
    two.stop().await;
}

/// Availability as a test sets it.
#[derive(Default)]
pub(super) struct Absent(pub Mutex<Vec<String>>);

impl View for Absent {
    fn is_available(&self, destination_id: &str) -> bool {
        !self.0.lock().unwrap().iter().any(|absent| absent == destination_id)
    }

    fn weights(&self, _: &str) -> Option<(i64, BTreeMap<String, f64>)> {
        None
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn absent_groups_get_nothing_and_no_flood_when_they_return() {
    let (own, database) = TestDatabase::migrated().await;
    publish(&database, &configuration("c", &[("a", 50.0), ("b", 50.0)])).await;
    let view = Arc::new(Absent::default());
    let instance = Instance::start_with(&own.options(), Instance::patient(), view.clone()).await;
    let mut number = 0;
    let mut ask = async |count: usize| {
        let mut got = Vec::new();
        for _ in 0..count {
            number += 1;
            got.push(instance.decide("c", &format!("v{number}")).await.destination_id.to_string());
        }
        got
    };
    ask(4).await;
    *view.0.lock().unwrap() = vec!["b".into()];
    assert_eq!(ask(10).await, vec!["a"; 10]);
    *view.0.lock().unwrap() = vec!["a".into(), "b".into()];
    assert_eq!(ask(3).await, vec!["default"; 3], "nobody is there");
    view.0.lock().unwrap().clear();
    let back = ask(10).await;
    assert_eq!(back.iter().filter(|group| *group == "b").count(), 5, "{back:?}");
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_answered_is_refused_by_name() {
    let (own, database) = TestDatabase::migrated().await;
    publish(&database, &configuration("c", &[("a", 1.0)])).await;
    let instance = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    let refused = async |configuration: &str, conversation: &str| {
        instance.service.decide(configuration, conversation).await.unwrap_err()
    };
    assert_eq!(refused("x", "v").await, Refusal::Unknown("x".into()));
    assert_eq!(refused("c", "").await, Refusal::BadConversation);
    assert_eq!(refused("c", "a\0b").await, Refusal::BadConversation);
    assert_eq!(refused("c", &"x".repeat(129)).await, Refusal::BadConversation);
    assert_eq!(instance.decide("c", &"x".repeat(128)).await.destination_id.as_ref(), "a");
    instance.stop().await;
}
