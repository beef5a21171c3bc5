//! What any instance recorded is answered by every instance, also while the database cannot be asked.

use serde_json::json;
use tokio_util::sync::CancellationToken;
use trunkline::kafka::global_consumer::GlobalConsumer;
use trunkline::topics::ROUTING_DECISIONS;

use super::*;
use crate::support::kafka;
use crate::support::postgres_proxy::PostgresProxy;

/// A decision as it is on its topic.
fn decision(sequence: u64, conversation: &str, destination: &str) -> String {
    let example = include_str!("../../../schemas/examples/trunkline.routing-decisions.v1/share.json");
    let mut decision: Value = serde_json::from_str(example).unwrap();
    decision["key"] = json!("c");
    decision["sequence"] = json!(sequence);
    decision["decidedAt"] = json!(trunkline::clock::now());
    decision["parameters"] =
        json!({"conversationId": conversation, "destinationId": destination, "source": "exact"});
    decision.to_string()
}

#[tokio::test(flavor = "multi_thread")]
async fn recorded_answers_are_repeated_while_the_database_stands_still_also_after_a_restart() {
    let settings = kafka::settings();
    kafka::create_topics(&settings, &[&ROUTING_DECISIONS], 4).await;
    let (own, database) = TestDatabase::migrated().await;
    publish(&database, &configuration("c", &[("a", 99.0), ("b", 1.0)])).await;
    let proxy = PostgresProxy::before(&own.options()).await;
    let before: Vec<String> =
        (1..=50).map(|number| decision(number, &format!("before-{number}"), "b")).collect();
    let records: Vec<(&str, &[u8])> = before.iter().map(|value| ("c", value.as_bytes())).collect();
    kafka::produce(&settings, &ROUTING_DECISIONS, None, &records).await;
    let instance =
        Instance::start_with(&proxy.through(own.options()), Settings::default(), Arc::new(Unchanging)).await;
    let stop = CancellationToken::new();
    let global = GlobalConsumer::new(&settings, &stop);
    instance.service.follow(&global, instance.health.part("followed"));
    instance.decide("c", "known").await;
    until("the newest decisions to be read", || async {
        instance.health.reasons().iter().all(|(part, _)| part != "followed").then_some(())
    })
    .await;
    proxy.set_stalled(true);
    for number in 1..=50 {
        let answer = instance.decide("c", &format!("before-{number}")).await;
        assert_eq!((&*answer.destination_id, answer.source.name()), ("b", "exact"));
    }
    let now = decision(51, "now", "b");
    kafka::produce(&settings, &ROUTING_DECISIONS, None, &[("c", now.as_bytes())]).await;
    until("a new decision to be followed", || async {
        let answer = instance.decide("c", "now").await;
        (answer.sequence == Some(51) && *answer.destination_id == *"b").then_some(())
    })
    .await;
    proxy.set_stalled(false);
    stop.cancel();
    instance.stop().await;
}
