//! What the pages are looked at with: something of everything in the database.

use serde_json::{Value, json};
use sqlx::PgPool;
use trunkline::model::Timestamp;
use trunkline::model::name::{Kind, Named};
use trunkline::postgres::Database;
use trunkline::sinks::audit::AuditWriter;
use trunkline::topics::{self, Topic};

use crate::support::records::{self, decision, fill, no_kafka, outcome};

fn now() -> Timestamp {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    Timestamp::from_millis(since.as_millis() as i64)
}

fn example(topic: &str, name: &str) -> Value {
    let path = format!("{}/schemas/examples/{topic}/{name}.json", env!("CARGO_MANIFEST_DIR"));
    serde_json::from_slice(&std::fs::read(&path).expect(&path)).expect("JSON")
}

fn rollback() -> Value {
    let mut rollback = example("trunkline.rollback-decisions.v1", "rollback");
    rollback["key"] = "flow-a".into();
    rollback["sequence"] = 1.into();
    rollback
}

/// Decisions are from now: what is a day old is not shown everywhere.
pub(super) fn now_dated(mut decision: Value) -> Value {
    let at = now();
    for (field, ahead) in [("decidedAt", 0), ("eventTime", 0), ("expiresAt", 60)] {
        decision[field] = json!(at.plus(std::time::Duration::from_secs(ahead)));
    }
    // An id begins with the time of the facts.
    let (ms, rest) = (at.as_millis(), &id_of(&decision)[13..]);
    decision["decisionId"] = format!("{:08x}-{:04x}{rest}", ms >> 16, ms & 0xffff).into();
    decision
}

pub(super) fn id_of(decision: &Value) -> &str {
    decision["decisionId"].as_str().expect("an id")
}

/// Something of everything. Answers the id of the decision about `campaign-a`.
pub(super) async fn scene(owner: &PgPool, database: &Database) -> String {
    let a = now_dated(decision("campaign-a", 1));
    let id = id_of(&a).to_owned();
    let mut applied = outcome("campaign-a", 1);
    applied["decisionId"] = id.as_str().into();
    let rollback = now_dated(rollback());
    let rolled_back = id_of(&rollback).to_owned();
    let mut held = now_dated(decision("campaign-b", 1));
    held["action"] = "hold".into();
    held["reason"] = "no_data".into();
    fill(database, &[a, held, rollback], &[applied]).await;
    name(database, &[(Kind::Campaign, "campaign-a", "Renewals"), (Kind::Flow, "flow-a", "Main menu")]).await;
    name(database, &[(Kind::Flow, "menu-next", "Main menu, next")]).await;
    let mut lag = example("trunkline.lag-status.v1", "error");
    lag["consumerGroup"] = "crm-sync".into();
    lag["observedAt"] = json!(now());
    lag["validUntil"] = json!(now().plus(std::time::Duration::from_secs(600)));
    run(
        owner,
        "INSERT INTO trunkline.lag_status VALUES ('crm-sync', now(), now() + interval '10 minutes', $1 ->> 'status', $1)",
        lag,
    )
    .await;
    let definition = json!({
        "id": "support", "name": "Support", "routingType": "SINGLE_QUEUE", "status": "ENABLED",
        "rules": [
            {"id": "r1", "destination": {"type": "QUEUE_ID", "id": "queue-one"}, "weight": 70},
            {"id": "r2", "destination": {"type": "QUEUE_ID", "id": "queue-two"}, "weight": 30}
        ]
    });
    run(owner, "INSERT INTO trunkline.route_revisions VALUES ('support', 1, $1, 'test')", definition).await;
    run(
        owner,
        "INSERT INTO trunkline.route_counters (configuration_id, revision, decisions, groups) VALUES ('support', 1, 10, $1)",
        json!({"queue-one": [0, 7], "queue-two": [0, 3]}),
    )
    .await;
    run(
        owner,
        "INSERT INTO audit.alert_log (alert_id, incident_type, loop, key, decision_id, occurred_at, body, topic, partition, \"offset\")
         VALUES (gen_random_uuid(), 'AUTO_ROLLBACK_TRIGGERED', 'rollback', 'flow-a', ($1 ->> 'decision')::uuid, now(), $1::text, 't', 0, 1)",
        json!({"decision": rolled_back}),
    )
    .await;
    canary(owner, database).await;
    id
}

/// A canary at its second step, with what was decided about it.
async fn canary(owner: &PgPool, database: &Database) {
    run(
        owner,
        "INSERT INTO trunkline.canaries (canary_id, configuration_id, control_id, candidate_id, steps, hold_minutes,
                                         state, step, share, reason, evidence, missing, started_by)
         VALUES ('canary-7', 'dispatcher', 'menu', 'menu-next', '{0.05,0.5,1}', 15, 'running', 2, 0.5, 'minutes_missing',
                 1.5, $1, 'alice')",
        json!({"minutes": 9}),
    )
    .await;
    for (number, name) in ["next-step", "held"].into_iter().enumerate() {
        let mut decided = now_dated(example("trunkline.delivery-decisions.v1", name));
        decided["key"] = "dispatcher".into();
        decided["sequence"] = (number + 1).into();
        decided["parameters"]["canaryId"] = "canary-7".into();
        bring(database, &topics::DELIVERY_DECISIONS, &decided, number as i64).await;
    }
}

pub(super) async fn name(database: &Database, names: &[(Kind, &str, &str)]) {
    let named = names.iter().map(|(kind, id, name)| Named::new(*kind, id, name).expect("a name"));
    database.keep_names(&named.collect::<Vec<_>>()).await.expect("is kept");
}

pub(super) async fn run(owner: &PgPool, sql: &'static str, value: Value) {
    sqlx::query(sql).bind(value).execute(owner).await.expect(sql);
}

/// Brings one more decision into the ledger, as the audit does.
pub(super) async fn decide(database: &Database, value: &Value, offset: i64) {
    bring(database, &topics::DIAL_DECISIONS, value, offset).await;
}

async fn bring(database: &Database, topic: &'static Topic, value: &Value, offset: i64) {
    let mut writer = AuditWriter::new(database.clone(), &no_kafka());
    let partition = trunkline::kafka::subscription::TopicPartition { topic, partition: 0 };
    writer.positions(&[partition], &Default::default()).await.expect("positions");
    writer.write(&[records::record(topic, offset, value)], &[]).await.expect("is written");
}
