//! Statistics, flows, queues, details and what else the platform's own API tells, against the
//! simulated platform.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use simulator::{Dialect as Simulated, FlowScenario, VersionScenario, VersionStatus};
use trunkline::clock;
use trunkline::genesys::{
    CallErrorKind as Kind, Changed, Client, DetailsQuery, Dialect, PlatformSettings, Settings,
};
use trunkline::model::Timestamp;

use crate::support::simulated::{CAMPAIGN, OTHER, Organization, client, scope, settings};
use crate::support::until;

const FLOW: &str = "c3a8e9b4-5f7d-4a26-8f10-9e2b4d6a7c03";
const DAY: Duration = Duration::from_secs(86_400);

/// Versions 10.0 and 11.0 published before 12.0, which is in force and fails now and then.
async fn organization() -> Organization {
    let version = |id: &str, status| VersionScenario { id: id.to_owned(), status, error_rate: 0.3 };
    let flow = FlowScenario {
        id: FLOW.to_owned(),
        name: "Main menu".to_owned(),
        versions: vec![
            version("10.0", VersionStatus::Published),
            version("11.0", VersionStatus::Published),
            version("12.0", VersionStatus::Active),
        ],
        ..FlowScenario::default()
    };
    let mut settings = simulator::Settings { dialect: Simulated::Platform, ..settings() };
    settings.scenario.flows = vec![flow];
    Organization::start(settings).await
}

fn speaking(organization: &Organization, platform: PlatformSettings) -> Client {
    client(&Settings { dialect: Dialect::Platform(platform), ..organization.client_settings() })
}

fn fresh() -> PlatformSettings {
    PlatformSettings {
        shared_for: Duration::ZERO,
        job_pause: Duration::from_millis(100),
        ..PlatformSettings::default()
    }
}

impl Organization {
    async fn pass(&self, seconds: u64) {
        self.control(Method::POST, &format!("/clock/advance?seconds={seconds}"), None).await;
    }

    async fn manners(&self, manners: Value) {
        self.control(Method::PUT, "/platform", Some(manners)).await;
    }
}

#[tokio::test]
async fn many_campaigns_are_asked_about_together() {
    let organization = organization().await;
    let client =
        speaking(&organization, PlatformSettings { single_campaigns: 1, ..PlatformSettings::default() });
    client.expect_campaigns([CAMPAIGN, OTHER]);
    organization.pass(300).await;
    let world = organization.running.overview();
    for id in [CAMPAIGN, OTHER] {
        let told = client.campaign_statistics(id, &scope()).await.unwrap();
        let truth = &world.campaigns.iter().find(|campaign| campaign.id == id).expect("it is there").snapshot;
        assert_eq!(told.agents_idle, truth.agents.idle);
        // All of it was in the second that runs.
        assert!(truth.calls.attempts > 0);
        let calls = (told.attempts, told.answers, told.abandoned);
        assert_eq!(
            calls,
            (Some(truth.calls.attempts), Some(truth.calls.answers), Some(truth.calls.abandoned))
        );
    }
    assert_eq!(organization.requests_of("POST", "/api/v2/outbound/campaigns/performance").await.len(), 1);
    assert!(
        organization
            .requests()
            .await
            .iter()
            .all(|entry| !entry["path"].as_str().unwrap().ends_with("/stats"))
    );
}

/// A list is not older than what we have changed ourselves.
#[tokio::test]
async fn many_campaigns_are_read_from_one_list_and_our_own_change_is_seen() {
    let organization = organization().await;
    let definition_for = Duration::from_secs(600);
    let many = PlatformSettings { single_campaigns: 1, definition_for, ..PlatformSettings::default() };
    let client = speaking(&organization, many);
    client.expect_campaigns([CAMPAIGN, OTHER]);
    let lately = async |id| client.campaign_lately(id, &scope()).await.unwrap();
    let single = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    for _ in 0..3 {
        let (listed, other) = (lately(CAMPAIGN).await, lately(OTHER).await);
        assert_eq!((listed.dial_rate, &listed.revision), (single.dial_rate, &single.revision));
        assert_eq!(other.id, OTHER);
    }
    let read = async || organization.requests_of("GET", "/api/v2/outbound/campaigns").await.len();
    assert_eq!(read().await, 2, "the one and the list");
    let request = client.prepare_dial_rate(&single, single.dial_rate + 0.5);
    client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap();
    for _ in 0..2 {
        assert_eq!(lately(CAMPAIGN).await.dial_rate, single.dial_rate + 0.5);
        lately(OTHER).await;
    }
    assert_eq!(read().await, 3, "the changed one alone, once");
    let unknown = client.campaign_lately("11111111-2222-4333-8444-555555555555", &scope()).await;
    assert_eq!(unknown.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn a_publish_takes_its_time_and_the_flow_says_when_it_is_over() {
    let organization = organization().await;
    organization.manners(json!({ "publishMs": 300 })).await;
    let client = speaking(&organization, fresh());
    let in_force = async || {
        let flow = client.flow(FLOW, &scope()).await.unwrap();
        let active: Vec<_> =
            flow.versions.iter().filter(|it| it.is_active()).map(|it| it.id.clone()).collect();
        (active, flow.operation)
    };
    assert_eq!(in_force().await.0, ["12.0"]);
    let request = client.prepare_activation(FLOW, "11.0", "back");
    let reply = client.send_activation(&request, FLOW, &scope()).await.unwrap();
    assert!(reply.operation.is_some());
    let (active, operation) = in_force().await;
    assert_eq!(active, ["12.0"], "not yet");
    assert_eq!(operation.map(|it| it.id), reply.operation);
    until("11.0 in force", async || (in_force().await.0 == ["11.0"]).then_some(())).await;
    let flow = client.flow(FLOW, &scope()).await.unwrap();
    let former = flow.versions.iter().find(|version| version.id == "12.0").unwrap();
    assert!(former.is_published() && former.replaced_at.is_some(), "{former:?}");
}

#[tokio::test]
async fn a_publish_that_fails_says_why_and_one_beside_it_is_refused_for_a_while() {
    let organization = organization().await;
    organization.manners(json!({ "publishMs": 700, "publishFails": true })).await;
    let client = speaking(&organization, fresh());
    let request = client.prepare_activation(FLOW, "11.0", "back");
    let reply = client.send_activation(&request, FLOW, &scope()).await.unwrap();
    let error = client.send_activation(&request, FLOW, &scope()).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Busy { .. }), "{error}");
    assert!(!error.effect_is_unknown());
    let failure = until("its failure", async || {
        let operation = client.flow(FLOW, &scope()).await.unwrap().operation?;
        (Some(&operation.id) == reply.operation.as_ref()).then_some(operation.failure)?
    });
    assert!(failure.await.starts_with("flow.publish.failed"));
    let error = client
        .send_activation(&client.prepare_activation(FLOW, "99.0", "none"), FLOW, &scope())
        .await
        .unwrap_err();
    assert_eq!(error.kind, Kind::NotFound, "{error}");
}

#[tokio::test]
async fn a_locked_flow_says_whose_lock_it_is() {
    let organization = organization().await;
    let client = speaking(&organization, fresh());
    assert_eq!(client.flow(FLOW, &scope()).await.unwrap().locked_by, None);
    let person = json!({ "userId": "5f0e1d2c-3b4a-4958-8776-655443322107", "name": "A Person" });
    organization.control(Method::PUT, &format!("/flows/{FLOW}/lock"), Some(person)).await;
    let who = client.flow(FLOW, &scope()).await.unwrap().locked_by.unwrap();
    assert_eq!(who, "A Person (user 5f0e1d2c-3b4a-4958-8776-655443322107)");
    let request = client.prepare_activation(FLOW, "11.0", "back");
    let error = client.send_activation(&request, FLOW, &scope()).await.unwrap_err();
    assert!(matches!(error.kind, Kind::Busy { .. }), "{error}");
}

/// Registers conversations that went on from `start` for a minute.
async fn register(organization: &Organization, ids: &[String], start: Timestamp) {
    let items: Vec<Value> = ids
        .iter()
        .map(|id| {
            json!({
                "conversationId": id,
                "conversationStart": start,
                "conversationEnd": start.plus(Duration::from_secs(60)),
                "availableAt": start.plus(Duration::from_secs(61)),
            })
        })
        .collect();
    organization.control(Method::POST, "/conversations", Some(json!(items))).await;
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("abc00000-0000-4000-8000-{number:012}")).collect()
}

#[tokio::test]
async fn a_conversation_over_midnight_is_found_although_its_first_event_came_after_it() {
    let organization = organization().await;
    let client = speaking(&organization, fresh());
    let day = DAY.as_millis() as i64;
    let midnight = Timestamp::from_millis(clock::now().as_millis().div_euclid(day) * day);
    let ids = ids(1);
    register(&organization, &ids, midnight.minus(Duration::from_secs(30))).await;
    let asked: Vec<&str> = ids.iter().map(String::as_str).collect();
    let after = midnight.plus(Duration::from_secs(5));
    let query =
        DetailsQuery { conversation_ids: &asked, from: after, to: after.plus(Duration::from_secs(20)) };
    let found = client.conversation_details(&query, &scope()).await.unwrap();
    assert_eq!(found.keys().collect::<Vec<_>>(), [&ids[0]]);
}

#[tokio::test]
async fn many_and_old_conversations_are_asked_for_by_a_job_and_few_by_pages() {
    let organization = organization().await;
    let client = speaking(&organization, fresh());
    let (start, many) = (clock::now().minus(Duration::from_secs(3_600)), ids(150));
    register(&organization, &many, start).await;
    let found = async |ids: &[String], from: Timestamp| {
        let asked: Vec<&str> = ids.iter().map(String::as_str).collect();
        let query = DetailsQuery { conversation_ids: &asked, from, to: from.plus(Duration::from_secs(60)) };
        client.conversation_details(&query, &scope()).await.unwrap().len()
    };
    let jobs =
        async || organization.requests_of("POST", "/api/v2/analytics/conversations/details/jobs").await.len();
    assert_eq!((found(&many[..90], start).await, jobs().await), (90, 0));
    assert_eq!((found(&many, start).await, jobs().await), (150, 1));

    let old = clock::now().minus(DAY * 20);
    let of_then: Vec<String> = ids(160)[150..].to_vec();
    register(&organization, &of_then, old).await;
    assert_eq!((found(&of_then, old).await, jobs().await), (10, 2));

    // What jobs do not have yet is queried.
    organization.manners(json!({ "jobsLagMs": 30 * DAY.as_millis() as u64 })).await;
    assert_eq!((found(&many, start).await, found(&of_then, old).await, jobs().await), (150, 10, 2));
}

#[tokio::test]
async fn who_else_has_changed_a_campaign_is_named_and_we_are_not() {
    let organization = organization().await;
    let client = speaking(&organization, fresh());
    let writer = async || client.last_writer(Changed::Campaign, CAMPAIGN, &scope()).await;
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    let request = client.prepare_dial_rate(&campaign, 2.0);
    client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap();
    assert_eq!(writer().await, None, "it was us");
    let change = json!({ "dialerSettings": { "predictedDialRate": 3.0 } });
    organization.control(Method::POST, &format!("/campaigns/{CAMPAIGN}/change"), Some(change)).await;
    let who = until("the audit of it", async || writer().await).await;
    assert!(who.starts_with("An Administrator (user "), "{who}");
}

#[tokio::test]
async fn the_organisation_says_what_it_has_set_and_used() {
    let organization = organization().await;
    let client = speaking(&organization, fresh());
    let outbound = client.outbound_settings(&scope()).await.unwrap().unwrap();
    assert_eq!(outbound.max_calls_per_agent, 15.0);
    assert!(outbound.abandon_denominator.is_some());
    assert!(client.campaign_rules(&scope()).await.unwrap().is_empty());
    let rule = json!({
        "name": "Slow down", "campaignIds": [OTHER],
        "actionType": "setCampaignMaxCallsPerAgent", "maxCallsPerAgent": 1.0,
    });
    organization.control(Method::PUT, "/campaign-rules", Some(json!([rule]))).await;
    let rules = client.campaign_rules(&scope()).await.unwrap();
    assert_eq!(rules[0].actions_on(OTHER).collect::<Vec<_>>(), ["setCampaignMaxCallsPerAgent"]);
    assert_eq!(rules[0].actions_on(CAMPAIGN).count(), 0);
    let usage = json!({ "clientId": "somebody", "requests": 1_234 });
    organization.control(Method::POST, "/usage", Some(usage)).await;
    let calls = client.calls_this_month(&scope()).await.unwrap().unwrap();
    assert!(calls.others == 1_234 && calls.own > 0, "{calls:?}");
}
