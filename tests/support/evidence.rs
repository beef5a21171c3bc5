//! Collects what a run of the dial loop left behind, for the checker to judge.

use std::time::Duration;

use serde_json::Value;
use sqlx::PgPool;

use super::checker::{Decided, Effect, Ended, Evidence, Fact};
use super::topics::{Read, read_all};

/// Where a run left its traces.
pub(crate) struct Scene {
    pub brokers: String,
    pub topic_prefix: String,
    pub owner: PgPool,
    /// The simulator's API, with its scheme.
    pub simulator: String,
}

impl Scene {
    /// Everything there is now.
    pub(crate) async fn evidence(&self) -> Evidence {
        let read = |topic: &str| {
            let (brokers, name) = (self.brokers.clone(), format!("{}{topic}", self.topic_prefix));
            tokio::task::spawn_blocking(move || (read_all(&brokers, &name), name))
        };
        let topic = async |name: &str| read(name).await.expect("the reader ends well");
        let mut evidence = Evidence::default();
        let (records, name) = topic("genesys.campaign-stats.v1").await;
        evidence.stats = records.iter().map(|record| fact(&name, record)).collect();
        let (records, name) = topic("trunkline.campaign-windows.v1").await;
        evidence.windows = records.iter().map(|record| fact(&name, record)).collect();
        let (records, _) = topic("trunkline.dial-decisions.v1").await;
        evidence.decisions = records.iter().map(decided).collect();
        let (records, _) = topic("trunkline.outcomes.v1").await;
        evidence.outcomes = records.iter().map(ended).collect();
        for name in ["trunkline.dead-letters.v1", "trunkline.late-events.v1"] {
            let (records, _) = topic(name).await;
            evidence.set_aside.extend(records.iter().map(|record| {
                let number = |header| record.header(header).parse().expect("a number");
                let partition: i64 = number("trunkline-error-partition");
                (record.header("trunkline-error-topic"), partition as i32, number("trunkline-error-offset"))
            }));
        }
        evidence.audited_decisions = self.texts("SELECT decision_id::text FROM audit.decisions").await;
        evidence.audited_outcomes = self.texts("SELECT decision_id::text FROM audit.outcomes").await;
        evidence.intents = self.texts("SELECT decision_id::text FROM trunkline.intents").await;
        evidence.effects = self.effects().await;
        evidence
    }

    async fn texts(&self, sql: &'static str) -> Vec<String> {
        sqlx::query_scalar(sql).fetch_all(&self.owner).await.expect(sql)
    }

    /// Changes made at a request of ours, as the simulator wrote them down.
    pub(crate) async fn effects(&self) -> Vec<Effect> {
        let mut effects = Vec::new();
        let mut since = 0;
        loop {
            let page = get_json(&format!("{}/simulator/requests?since={since}", self.simulator)).await;
            assert_eq!(page["dropped"], 0, "the simulator forgot requests: the run was too long to judge");
            let entries = page["items"].as_array().expect("a list of requests");
            effects.extend(
                entries
                    .iter()
                    .filter(|entry| entry["origin"] == "api" && entry["effect"]["campaignId"].is_string())
                    .map(|entry| {
                        let effect = &entry["effect"];
                        Effect {
                            campaign: text(&effect["campaignId"]),
                            before: text(&effect["oldEtag"]),
                            after: text(&effect["newEtag"]),
                            dial_rate: effect["newRate"].as_f64().expect("a rate"),
                        }
                    }),
            );
            match page["next"].as_u64() {
                Some(next) if !entries.is_empty() => since = next,
                _ => return effects,
            }
        }
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("text, not {value}")).to_owned()
}

fn fact(topic: &str, record: &Read) -> Fact {
    // What cannot be read must have been set aside, which the checker finds out by place.
    let value: Value =
        serde_json::from_slice(record.value.as_deref().unwrap_or_default()).unwrap_or_default();
    let field = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
    Fact {
        place: (topic.to_owned(), record.partition, record.offset),
        campaign: field("campaignId"),
        observed_at: field("observedAt"),
        answer_rates: match &value["answerRates"] {
            Value::Array(held) => held.iter().filter_map(Value::as_f64).collect(),
            _ => value["answerRate"].as_f64().into_iter().collect(),
        },
    }
}

fn decided(record: &Read) -> Decided {
    let value = record.json();
    Decided {
        id: text(&value["decisionId"]),
        campaign: text(&value["key"]),
        sequence: value["sequence"].as_u64().expect("a number"),
        event_time: text(&value["eventTime"]),
        // What was decided for want of a window has none.
        cause: value["causeIds"].get(0).map(text).unwrap_or_default(),
    }
}

fn ended(record: &Read) -> Ended {
    let value = record.json();
    Ended { decision_id: text(&value["decisionId"]), status: text(&value["status"]) }
}

/// GET, which must answer 200 with JSON.
pub(crate) async fn get_json(url: &str) -> Value {
    let client = reqwest::Client::builder().timeout(Duration::from_secs(10)).build().expect("a client");
    let reply = client.get(url).send().await.unwrap_or_else(|error| panic!("{url}: {error}"));
    assert!(reply.status().is_success(), "{url}: {}", reply.status());
    reply.json().await.unwrap_or_else(|error| panic!("{url}: {error}"))
}
