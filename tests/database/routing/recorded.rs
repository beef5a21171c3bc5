//! From answers to the outbox, once and in order.

use serde_json::json;
use trunkline::model::decision::Mode;
use trunkline::routing::recorder;

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn every_answer_goes_to_the_outbox_once_and_in_order_whoever_records() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    for id in ["c", "d"] {
        publish(&database, &configuration(id, &[("a", 70.0), ("b", 30.0)])).await;
    }
    let instance = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let recorders: Vec<_> = (0..3)
        .map(|number| {
            let part = health.part(&format!("recorder {number}"));
            let retention = Duration::from_secs(3_600);
            tokio::spawn(recorder::run(database.clone(), Mode::Live, retention, part, shutdown.clone()))
        })
        .collect();
    for number in 0..200 {
        instance.decide(if number % 4 == 0 { "d" } else { "c" }, &format!("v{number}")).await;
    }
    until("all answers to be in the outbox", || async { (waiting(&owner).await.len() >= 200).then_some(()) })
        .await;
    shutdown.cancel();
    for recorder in recorders {
        recorder.await.unwrap();
    }
    for (id, count) in [("c", 150), ("d", 50)] {
        let mine: Vec<Value> =
            waiting(&owner).await.into_iter().filter(|(key, _)| key == id).map(|(_, value)| value).collect();
        let sequences: Vec<_> = mine.iter().map(|value| value["sequence"].as_i64().unwrap()).collect();
        assert_eq!(sequences, (1..=count).collect::<Vec<i64>>());
        let kept = kept(&owner, id).await;
        for (value, (_, conversation, destination, source)) in mine.iter().zip(&kept) {
            assert_eq!(value["parameters"]["conversationId"], **conversation);
            assert_eq!(value["parameters"]["destinationId"], **destination);
            assert_eq!(value["parameters"]["source"], **source);
            assert_eq!(value["inputs"]["groups"].as_array().unwrap().len(), 2);
        }
    }
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn shares_are_compared_with_the_weights_that_were_asked_for() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 1.0), ("b", 2.0)])).await;
    let instance = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    for number in 0..31 {
        instance.decide("c", &format!("v{number}")).await;
    }
    let (health, shutdown) = (Health::default(), CancellationToken::new());
    let week = Duration::from_secs(7 * 86_400);
    let part = health.part("recorder");
    let recording = tokio::spawn(recorder::run(database, Mode::Live, week, part, shutdown.clone()));
    until("all answers to be in the outbox", || async { (waiting(&owner).await.len() == 31).then_some(()) })
        .await;
    shutdown.cancel();
    recording.await.unwrap();
    // As the audit does it with what comes from the topic; and two decisions of a former version.
    let former =
        |share: u32| json!({"revision": 1, "groups": [{"destinationId": "q", "shareBillionths": share}]});
    let mut decisions: Vec<(String, Value)> = waiting(&owner).await;
    for (sequence, share) in [(1, 250_000_000), (2, 750_000_000)] {
        let mut decision = decisions[0].1.clone();
        decision["sequence"] = json!(sequence);
        decision["parameters"]["destinationId"] = json!("q");
        decision["inputs"] = former(share);
        decisions.push(("former".to_owned(), decision));
    }
    for (key, decision) in decisions {
        sqlx::query(
            "INSERT INTO audit.decision_log SELECT gen_random_uuid(), 'route', $1, (d ->> 'sequence')::bigint, 'live',
                 now(), now(), now(), 'route', d ->> 'reason', d -> 'parameters', d -> 'inputs', 'quota', 2, '', 0,
                 '[]', 't', hashtext($1), (d ->> 'sequence')::bigint
             FROM (SELECT $2::jsonb AS d) AS decision",
        )
        .bind(key)
        .bind(sqlx::types::Json(decision))
        .execute(&owner)
        .await
        .unwrap();
    }
    let shares: Vec<(String, i64, f64, f64)> = sqlx::query_as(
        "SELECT destination_id, decisions::bigint, target_share, deviation FROM audit.route_shares ORDER BY 1",
    )
    .fetch_all(&owner)
    .await
    .unwrap();
    let third = 1.0 / 3.0;
    let expected = [("a", 10, third, -third), ("b", 21, 2.0 * third, third), ("q", 2, 0.5, 1.0)];
    for (found, (group, decisions, target, deviation)) in shares.iter().zip(expected) {
        assert_eq!((found.0.as_str(), found.1), (group, decisions));
        assert!((found.2 - target).abs() < 1e-12 && (found.3 - deviation).abs() < 1e-12, "{found:?}");
    }
    assert_eq!(shares.len(), 3);
    instance.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn old_answers_are_forgotten_once_they_are_told() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    publish(&database, &configuration("c", &[("a", 1.0), ("b", 1.0)])).await;
    let instance = Instance::start_with(&own.options(), Instance::patient(), Arc::new(Unchanging)).await;
    for number in 0..5 {
        instance.decide("c", &format!("v{number}")).await;
    }
    // Younger than the retention, then older but not told: nothing goes.
    assert_eq!(database.forget_route_answers(Duration::from_secs(3_600)).await.unwrap(), 0);
    assert_eq!(database.forget_route_answers(Duration::ZERO).await.unwrap(), 0);
    let of = database.recordable_routes().await.unwrap().remove(0);
    assert!(database.record_routes(&of, 3, &[]).await.unwrap());
    assert!(!database.record_routes(&of, 3, &[]).await.unwrap(), "somebody was first");
    until("three to be old enough", || async {
        database.forget_route_answers(Duration::ZERO).await.unwrap();
        (kept(&owner, "c").await.len() == 2).then_some(())
    })
    .await;
    let of = database.recordable_routes().await.unwrap().remove(0);
    let (answers, turns) = database.unrecorded_answers(&of, 100).await.unwrap();
    assert_eq!(answers.iter().map(|answer| answer.sequence).collect::<Vec<_>>(), [4, 5]);
    assert_eq!(turns.len(), 2);
    // Counts go on.
    assert_eq!(instance.decide("c", "next").await.sequence, Some(6));
    instance.stop().await;
}
