//! The client in the platform dialect against the simulated platform's own API.

use serde_json::json;
use simulator::Dialect as Simulated;
use trunkline::genesys::{
    CallErrorKind as Kind, CampaignChange, Client, Dialect, Pacing, PlatformSettings, Settings,
};

use crate::support::simulated::{CAMPAIGN, OTHER, Organization, client, scope, settings};

const CAMPAIGNS: &str = "/api/v2/outbound/campaigns/";

async fn organization() -> Organization {
    Organization::start(simulator::Settings { dialect: Simulated::Platform, ..settings() }).await
}

fn speaking(organization: &Organization, platform: PlatformSettings) -> Client {
    client(&Settings { dialect: Dialect::Platform(platform), ..organization.client_settings() })
}

#[tokio::test]
async fn the_ceiling_is_read_changed_by_a_patch_and_read_again() {
    let organization = organization().await;
    let client = speaking(&organization, PlatformSettings::default());
    let before = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    assert_eq!((before.dial_rate, before.min_dial_rate, before.max_dial_rate), (1.5, 1.0, 15.0));

    let request = client.prepare_dial_rate(&before, 2.25);
    let reply = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap();
    assert_eq!(reply.response.status, Some(204));
    let after = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    assert_eq!(after.dial_rate, 2.25);
    assert_ne!(after.revision, before.revision);

    let writes = organization.requests_of("PATCH", CAMPAIGNS).await;
    assert_eq!(writes.len(), 1);
    assert_eq!(writes[0]["body"], r#"{"maxCallsPerAgent":2.25}"#, "the lever alone");
    assert_eq!(reply.response.correlation_id.as_deref(), writes[0]["correlationId"].as_str());
}

#[tokio::test]
async fn a_put_is_for_the_version_that_was_read_and_for_no_other() {
    let organization = organization().await;
    let whole = PlatformSettings { campaign_change: CampaignChange::Whole, ..PlatformSettings::default() };
    let client = speaking(&organization, whole);
    let read = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    let request = client.prepare_dial_rate(&read, 3.5);
    assert_eq!(Client::revision_named_by(&request).as_ref(), Some(&read.revision));
    client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap();
    let after = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    assert_eq!(after.dial_rate, 3.5);
    let stale = client.prepare_dial_rate(&read, 4.0);
    let error = client.send_dial_rate(&stale, CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Conflict, "{error}");
    assert!(!error.effect_is_unknown());
    assert_eq!(client.campaign(CAMPAIGN, &scope()).await.unwrap().dial_rate, 3.5);
    let definition = |campaign: &trunkline::genesys::Campaign| {
        let mut whole = campaign.definition.as_ref().unwrap().whole.clone();
        for member in ["version", "dateModified", "maxCallsPerAgent", "maxCallsPerAgentDecimal"] {
            whole.as_object_mut().unwrap().remove(member);
        }
        whole
    };
    assert_eq!(definition(&after), definition(&read), "everything else is as it was");
}

#[tokio::test]
async fn a_dropped_reply_leaves_a_doubt_that_reading_back_settles() {
    for (fault, changed) in [("drop_before_effect", false), ("drop_after_effect", true)] {
        let organization = organization().await;
        let client = speaking(&organization, PlatformSettings::default());
        let read = client.campaign(CAMPAIGN, &scope()).await.unwrap();
        organization.fault("PATCH", CAMPAIGNS, json!({ "type": fault })).await;
        let request = client.prepare_dial_rate(&read, 2.0);
        let error = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap_err();
        assert!(error.effect_is_unknown(), "{error}");
        assert!(error.response.correlation_id.is_some(), "ours, for whoever asks the platform's support");
        let is_changed = client.campaign(CAMPAIGN, &scope()).await.unwrap().dial_rate == 2.0;
        assert_eq!(is_changed, changed, "{fault}");
        assert_eq!(organization.requests_of("PATCH", CAMPAIGNS).await.len(), 1, "one attempt");
    }
}

#[tokio::test]
async fn no_impossible_ceiling_is_sent_and_what_is_refused_says_why() {
    let organization = organization().await;
    let narrow = PlatformSettings { pacing: Pacing { min: 1.5, max: 6.0 }, ..PlatformSettings::default() };
    let client = speaking(&organization, narrow);
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    assert_eq!((campaign.min_dial_rate, campaign.max_dial_rate), (1.5, 6.0));
    for rate in [f64::NAN, 0.99, -1.0] {
        let request = client.prepare_dial_rate(&campaign, rate);
        let error = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap_err();
        assert_eq!(error.kind, Kind::Rejected, "{rate}");
    }
    let request = client.prepare_dial_rate(&campaign, 2.0);
    let error = client.send_dial_rate(&request, OTHER, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Rejected, "of another campaign");
    assert!(organization.requests_of("PATCH", "/").await.is_empty());

    let above = client.prepare_dial_rate(&campaign, 99.0);
    let error = client.send_dial_rate(&above, CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!((error.kind, error.response.status), (Kind::Rejected, Some(400)));
    assert!(error.response.body.is_some(), "the platform's own words are kept");
}

#[tokio::test]
async fn a_missing_permission_is_named() {
    let mut reader = simulator::Settings { dialect: Simulated::Platform, ..settings() };
    reader.clients[0].scopes.remove("outbound:campaign:edit");
    let organization = Organization::start(reader).await;
    let client = speaking(&organization, PlatformSettings::default());
    let campaign = client.campaign(CAMPAIGN, &scope()).await.unwrap();
    let request = client.prepare_dial_rate(&campaign, 2.0);
    let error = client.send_dial_rate(&request, CAMPAIGN, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Forbidden);
    assert!(error.reason.contains("outbound:campaign:edit"), "{error}");
    assert_eq!(client.campaign("no-such-campaign", &scope()).await.unwrap_err().kind, Kind::NotFound);
}

#[tokio::test]
async fn what_only_the_seed_can_do_is_not_tried() {
    let organization = organization().await;
    let client = speaking(&organization, PlatformSettings::default());
    let query = trunkline::genesys::EventLagQuery {
        consumer_groups: &["a".to_owned()],
        from: trunkline::model::Timestamp::from_millis(0),
        to: trunkline::model::Timestamp::from_millis(1),
    };
    let error = client.event_lag(&query, &scope()).await.unwrap_err();
    assert_eq!(error.kind, Kind::Rejected);
    assert!(error.reason.contains("lag.analytics_groups"), "{error}");
    assert!(organization.requests_of("POST", "/api").await.is_empty());
}
