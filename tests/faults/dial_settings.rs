//! What is set for a campaign over HTTP holds from its next tick on: through the database, the
//! outbox, the topic and the stage to the platform.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};
use simulator::{CampaignScenario, Scenario};
use sqlx::PgPool;

use crate::deployment::{Deployment, ENDED};
use crate::support::within;

/// A tick takes a second and a half.
const SPEED: f64 = 20.0;
const PATIENCE: Duration = Duration::from_secs(60);
const ID: &str = "5f0b1c1e-6c1f-4a0e-9d6e-6a3b0c1d2e3f";

/// The decisions of the campaign from a revision's first on: policy, its digest, revision.
async fn decided(owner: &PgPool, from_revision: i64) -> Vec<(String, String, i64)> {
    sqlx::query_as(
        "SELECT policy, policy_hash, settings_revision FROM audit.decisions
         WHERE loop = 'dial' AND key = $1 AND sequence >= (
             SELECT min(sequence) FROM audit.decisions
             WHERE loop = 'dial' AND key = $1 AND settings_revision = $2)
         ORDER BY sequence",
    )
    .bind(ID)
    .bind(from_revision)
    .fetch_all(owner)
    .await
    .expect("the audit can be asked")
}

/// The newest revision that was decided under before the first decision of this one.
async fn newest_before(owner: &PgPool, revision: i64) -> Option<i64> {
    sqlx::query_scalar(
        "SELECT max(settings_revision) FROM audit.decisions WHERE loop = 'dial' AND key = $1
         AND sequence < (SELECT min(sequence) FROM audit.decisions
                         WHERE loop = 'dial' AND key = $1 AND settings_revision = $2)",
    )
    .bind(ID)
    .bind(revision)
    .fetch_one(owner)
    .await
    .expect("the audit can be asked")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_set_over_http_holds_from_the_next_tick_on() {
    let campaign = CampaignScenario {
        id: ID.to_owned(),
        name: "Set at run time".to_owned(),
        dial_rate: 3.0,
        min_dial_rate: 1.0,
        max_dial_rate: 4.0,
        ..CampaignScenario::default()
    };
    let organisation = simulator::Settings {
        speed: SPEED,
        scenario: Scenario::of_campaigns(vec![campaign]),
        ..simulator::Settings::default()
    };
    let deployment = Deployment::paced(organisation).await;
    let roles = "campaign-poller,windowing,dialing,actuator,audit,console,outbox";
    let mut instance = deployment.instance_with("a", &["--stages", roles], &[]);
    deployment.goes_on().await;
    let http = reqwest::Client::new();
    let owner = &deployment.scene.owner;
    let set = async |value: Value| {
        let at = format!("{}/v1/settings/dial%2F{ID}", instance.url());
        let reply = http.put(at).json(&value).send().await.expect("it is served");
        let (status, body) = (reply.status(), reply.text().await.expect("a body"));
        assert!(status.is_success(), "{status} {body}");
        let setting: Value = serde_json::from_str(&body).expect("a setting");
        setting["revision"].as_i64().expect("a revision")
    };
    let first = set(json!({"goal": 0.001, "cap": 0.001})).await;
    let under_first = within(PATIENCE, "decisions under the new limits", async || {
        Some(decided(owner, first).await).filter(|decided| decided.len() >= 2)
    })
    .await;
    assert!(under_first.iter().all(|(policy, _, revision)| policy == "pacing" && *revision == first));
    let second = set(json!({"policy": "proportional", "target": 0.9})).await;
    let under_second = within(PATIENCE, "decisions under the new policy", async || {
        Some(decided(owner, second).await).filter(|decided| decided.len() >= 2)
    })
    .await;
    let is_of_second =
        |(policy, _, revision): &(String, String, i64)| policy == "proportional" && *revision == second;
    assert!(under_second.iter().all(is_of_second), "{under_second:?}");
    // With people answering three calls in ten it walks to the greatest rate there is.
    within(PATIENCE, "the platform to have what was decided", async || {
        (deployment.simulator.overview().campaigns[0].snapshot.dial_rate == 4.0).then_some(())
    })
    .await;
    let third = set(Value::Null).await;
    let back = within(PATIENCE, "decisions without a setting", async || {
        Some(decided(owner, third).await).filter(|decided| decided.len() >= 2)
    })
    .await;
    assert!(back.iter().all(|(policy, _, revision)| policy == "pacing" && *revision == third), "{back:?}");
    assert_ne!(back[0].1, under_first[0].1, "other numbers, another digest");
    let before = newest_before(owner, first).await;
    assert_eq!(before, Some(0), "nothing was set before");
    instance.process.signal(Signal::TERM);
    assert!(instance.process.wait(ENDED).success());
}
