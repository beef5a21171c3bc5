//! Changes in the platform's own dialect, where requests name no state and publishes take their time:
//! what is not known is read back and never repeated blindly, and others' changes are respected.

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Dialect, Settings};
use trunkline::model::outcome::{Effect, OutcomeStatus};

use crate::actuator_stand::{self, Stand, assert_ended, campaign, nothing};
use crate::rollback_stand;

async fn stand(campaigns: usize) -> Stand {
    Stand::with(campaigns, 1, Settings { dialect: Dialect::Platform, ..Settings::default() }).await
}

fn fault(method: &str, path: &str, kind: &str) -> Value {
    json!([{ "match": {"method": method, "path": path}, "fault": {"type": kind}, "times": 1 }])
}

#[tokio::test(flavor = "multi_thread")]
async fn a_patch_whose_reply_is_lost_has_one_effect_and_is_sent_again_only_where_it_had_none() {
    for (kind, reason, requests) in
        [("drop_after_effect", "confirmed_by_reading_back", 1), ("drop_before_effect", "confirmed", 2)]
    {
        let stand = stand(1).await;
        let id = campaign(0);
        stand.faults(fault("PATCH", "/api/v2/outbound/campaigns/", kind)).await;
        let actuator = stand.start("a", nothing());
        stand.decide(&[actuator_stand::decision(&id, 1, 3.25)]).await;
        let outcomes = stand.outcomes(1).await;
        let outcome = &outcomes[&(id.clone(), 1)];
        assert_ended(outcome, OutcomeStatus::Applied, reason);
        assert_eq!(stand.effects(&id).await, [3.25], "{kind}");
        assert_eq!(stand.changes_asked(&id).await, requests, "{kind}");
        assert!(outcome.waited.is_some(), "how long it waited is on record: {outcome:?}");
        actuator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rate_that_somebody_else_has_set_stays_and_the_outcome_says_whose_it_is() {
    let stand = stand(1).await.deciding_by_the_record();
    let id = campaign(0);
    let theirs = json!({ "dialerSettings": { "predictedDialRate": 4.5 } });
    stand.control(Method::POST, &format!("/campaigns/{id}/change"), theirs).await;
    let mut decision = actuator_stand::decision(&id, 1, 3.0);
    decision["parameters"]["chain"] = json!({ "raw": 3.0, "limits": [] });
    let actuator = stand.start("a", nothing());
    stand.decide(&[decision]).await;
    let outcomes = stand.outcomes(1).await;
    let outcome = &outcomes[&(id.clone(), 1)];
    assert_ended(outcome, OutcomeStatus::Unchanged, "other_writer");
    assert!(outcome.reason.contains("4.5") && outcome.reason.contains("An Administrator"), "{outcome:?}");
    assert_eq!(stand.changes_asked(&id).await, 0);
    actuator.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publish_whose_reply_is_lost_is_one_publish() {
    for kind in ["drop_after_effect", "drop_before_effect"] {
        let stand = rollback_stand::Stand::of_the_platform(1).await;
        stand.control(Method::PUT, "/platform", json!({ "publishMs": 300 })).await;
        stand.faults(fault("POST", "/api/v2/flows/actions/publish", kind)).await;
        stand.decide(&[rollback_stand::flow(0)], "12.0", 1).await;
        let actuator = stand.start("a");
        let outcome = stand.outcomes(1).await.remove(0);
        assert_eq!(outcome.status, OutcomeStatus::Applied, "{kind}: {outcome:?}");
        let Some(Effect::FlowVersion(change)) = &outcome.effect else { panic!("{outcome:?}") };
        assert_eq!((change.previous_version.as_str(), change.version.as_str()), ("12.0", "11.0"));
        let flow = stand.client().flow(&rollback_stand::flow(0), &crate::support::simulated::scope()).await;
        let in_force: Vec<String> =
            flow.unwrap().versions.iter().filter(|it| it.is_active()).map(|it| it.id.clone()).collect();
        assert_eq!(in_force, ["11.0"], "{kind}");
        let publishes = stand.control(Method::GET, "/requests?limit=100000", Value::Null).await;
        let publishes = publishes["items"].as_array().unwrap().iter().filter(|entry| {
            let path = entry["path"].as_str().unwrap_or_default();
            entry["origin"] == "api" && path.starts_with("/api/v2/flows/actions/publish")
        });
        let begun = publishes.filter(|entry| {
            entry["status"].as_u64().is_some_and(|status| status < 300)
                || entry["faults"].to_string().contains("drop_after_effect")
        });
        assert_eq!(begun.count(), 1, "{kind}: begun once");
        actuator.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_somebody_else_has_published_stays_and_the_outcome_says_whose_it_is() {
    let stand = rollback_stand::Stand::of_the_platform(1).await;
    let flow = rollback_stand::flow(0);
    let theirs = json!({ "errorRate": 0.0, "version": "13.0" });
    stand.control(Method::POST, &format!("/flows/{flow}/publish"), theirs).await;
    stand.decide(std::slice::from_ref(&flow), "12.0", 1).await;
    let actuator = stand.start("a");
    let outcome = stand.outcomes(1).await.remove(0);
    assert_eq!(outcome.status, OutcomeStatus::Unchanged, "{outcome:?}");
    assert!(outcome.reason.contains("other_writer"), "{outcome:?}");
    assert!(stand.activations(None).await.is_empty());
    actuator.stop().await;
}
