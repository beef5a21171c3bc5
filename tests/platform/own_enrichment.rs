//! Enrichment by the platform's own details.

use serde_json::json;
use trunkline::genesys::{self, Dialect, PlatformSettings};

use crate::support::enrichment::{Stand, event, fast, id};

/// The platform's own details query finds conversations by the UTC day they started on.
#[tokio::test(flavor = "multi_thread")]
async fn a_conversation_over_midnight_is_enriched_though_all_its_events_came_after_it() {
    const DAY_MS: i64 = 86_400_000;
    let stand = Stand::at(simulator::Settings {
        dialect: simulator::Dialect::Platform,
        ..crate::support::simulated::settings()
    })
    .await;
    let yesterday = (trunkline::clock::now().as_millis().div_euclid(DAY_MS) - 1) * DAY_MS;
    let at = |ms: i64| trunkline::model::Timestamp::from_millis(yesterday + ms);
    let known = json!([{
        "conversationId": id(0), "conversationStart": at(-30_000), "conversationEnd": at(10_000),
    }]);
    stand.organization.control(reqwest::Method::POST, "/conversations", Some(known)).await;
    let mut end = event(0, "customer.end", 0);
    end["occurredAt"] = json!(at(10_000));
    stand.produce(&[end]).await;
    let own = Dialect::Platform(PlatformSettings::default());
    let caller = genesys::Settings { dialect: own, ..stand.client_settings() };
    let instance = stand.start_as("one", fast(), &stand.own.options(), &caller);
    stand.all_done(1).await;
    instance.stop().await;
}
