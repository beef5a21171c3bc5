//! Decisions and outcomes as their topics have them.

use serde_json::{Value, json};
use trunkline::kafka::settings::KafkaSettings;
use trunkline::kafka::subscription::{InboundRecord, TopicPartition};
use trunkline::kafka::topic_ids::TopicIds;
use trunkline::model::Timestamp;
use trunkline::model::decision::{DecisionId, Loop};
use trunkline::postgres::Database;
use trunkline::sinks::audit::AuditWriter;
use trunkline::topics::{self, Topic};

/// 2026-01-02T03:04:05.678Z
pub(crate) const START_MS: i64 = 1_767_323_045_678;

/// The decision number `sequence` of a campaign, half a minute after the one before.
pub(crate) fn decision(key: &str, sequence: u64) -> Value {
    let at = Timestamp::from_millis(START_MS + 30_000 * (sequence as i64 - 1));
    json!({
        "decisionId": decision_id(key, sequence),
        "sequence": sequence,
        "loop": "dial",
        "key": key,
        "mode": "live",
        "decidedAt": at,
        "eventTime": at,
        "action": "set_dial_rate",
        "reason": "answer_rate_above_target",
        "parameters": {"previousDialRate": 2.0, "dialRate": 1.7},
        "inputs": {
            "campaignId": key, "firstObservedAt": at, "observedAt": at, "answerRates": [0.5], "meanAnswerRate": 0.5,
            "answered": 100, "abandoned": 4, "agentsIdle": 3, "agentsBusy": 17, "dialRate": 2.0,
            "minDialRate": 1.0, "maxDialRate": 10.0, "revision": "7"
        },
        "policy": {"name": "proportional", "version": 1, "hash": "0123456789abcdef"},
        "settingsRevision": 0,
        "causeIds": [format!("trunkline.campaign-windows.v1/0/{sequence}")],
        "expiresAt": Timestamp::from_millis(at.as_millis() + 60_000),
    })
}

pub(crate) fn decision_id(key: &str, sequence: u64) -> DecisionId {
    let at = Timestamp::from_millis(START_MS + 30_000 * (sequence as i64 - 1));
    DecisionId::derive(Loop::Dial, key, sequence, at)
}

/// That decision, with the id that it has where the facts behind it were observed at `at`.
pub(crate) fn decision_observed(key: &str, sequence: u64, at: Timestamp) -> Value {
    let mut decision = decision(key, sequence);
    decision["decisionId"] = json!(DecisionId::derive(Loop::Dial, key, sequence, at));
    decision
}

/// That decision, applied.
pub(crate) fn outcome(key: &str, sequence: u64) -> Value {
    let at = Timestamp::from_millis(START_MS + 30_000 * (sequence as i64 - 1) + 250);
    json!({
        "decisionId": decision_id(key, sequence),
        "loop": "dial",
        "key": key,
        "sequence": sequence,
        "status": "applied",
        "reason": "confirmed",
        "attempts": 1,
        "request": {
            "method": "PUT", "path": format!("/api/v2/outbound/campaigns/{key}"), "ifMatch": "\"7\"",
            "body": {"dialRate": 1.7}
        },
        "response": {"status": 200, "body": "{\"dialRate\":1.7}", "correlationId": "c-1"},
        "requestedAt": at,
        "finishedAt": at,
        "effect": {"previousDialRate": 2.0, "dialRate": 1.7},
    })
}

/// Settings for what only needs the topics' names.
pub(crate) fn no_kafka() -> KafkaSettings {
    KafkaSettings {
        brokers: String::new(),
        topic_prefix: "t-".to_owned(),
        instance: "one".to_owned(),
        properties: Default::default(),
    }
}

/// `value` as it is read from partition 0.
pub(crate) fn record(topic: &'static Topic, offset: i64, value: &Value) -> InboundRecord {
    raw(topic, offset, value.to_string().as_bytes())
}

pub(crate) fn raw(topic: &'static Topic, offset: i64, value: &[u8]) -> InboundRecord {
    InboundRecord {
        topic,
        partition: 0,
        offset,
        timestamp_ms: Some(START_MS),
        key: Some(b"a".to_vec()),
        value: Some(value.to_vec()),
        headers: vec![("traceparent".to_owned(), b"00-1-2-03".to_vec())],
    }
}

/// Brings values into an empty ledger, as the audit does.
pub(crate) async fn fill(database: &Database, decisions: &[Value], outcomes: &[Value]) {
    let on = |topic: &'static Topic, values: &[Value]| -> Vec<InboundRecord> {
        values.iter().enumerate().map(|(offset, value)| record(topic, offset as i64, value)).collect()
    };
    let mut records = on(&topics::DIAL_DECISIONS, decisions);
    records.extend(on(&topics::OUTCOMES, outcomes));
    let mut writer = AuditWriter::new(database.clone(), &no_kafka());
    let partitions =
        [&topics::DIAL_DECISIONS, &topics::OUTCOMES].map(|topic| TopicPartition { topic, partition: 0 });
    writer.positions(&partitions, &TopicIds::new()).await.expect("positions");
    writer.write(&records, &[]).await.expect("is written");
}
