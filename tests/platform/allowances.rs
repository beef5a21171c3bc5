//! What a month's allowances are used for, in a real Postgres and by the simulated platform's own
//! count.

use std::time::Duration;

use reqwest::Method;
use serde_json::json;
use simulator::DEMO_CLIENT_ID;
use trunkline::clock;
use trunkline::genesys::{Client, Dialect, PermitStore, PlatformSettings, Priority, Settings, Take};
use trunkline::health::Health;
use trunkline::model::Timestamp;
use trunkline::postgres::Database;
use trunkline::postgres::allowances::{Attempts, PlatformCount};
use trunkline::topology::SharedBudget;

use crate::support::postgres::TestDatabase;
use crate::support::simulated::{CAMPAIGN, Organization, scope, settings};

const HOUR: Duration = Duration::from_secs(3_600);
const POLL: Priority = Priority::Poll { stretch_hundredths: 300 };

async fn take(budget: &SharedBudget, priority: Priority) {
    assert!(matches!(budget.take(priority).await.unwrap(), Take::Granted(_)));
}

#[tokio::test]
async fn calls_are_counted_with_their_permits_over_all_instances() {
    let (own, database) = TestDatabase::migrated().await;
    let other = Database::connect(&own.settings()).unwrap();
    let organization = Organization::start(settings()).await;
    let settings = organization.client_settings();
    let budgets = [SharedBudget::new(database.clone(), &settings), SharedBudget::new(other, &settings)];
    for budget in &budgets {
        take(budget, POLL).await;
        take(budget, Priority::Rollback).await;
        take(budget, Priority::Read).await;
    }
    let calls = database.calls_of_month(DEMO_CLIENT_ID).await.unwrap();
    assert_eq!((calls.month_to_date, calls.reconciled_at, calls.drift), (6, None, 0));
    // Over an hour at least: two polls that stand for six, and four others.
    let near = |per_second: f64, calls: f64| (per_second - calls / 3_600.0).abs() < 1e-9;
    assert!(near(calls.polls_per_second, 6.0) && near(calls.others_per_second, 4.0), "{calls:?}");
    assert_eq!(database.calls_of_month("another").await.unwrap().month_to_date, 0);
}

#[tokio::test]
async fn the_platforms_own_count_makes_good_what_was_not_counted_here() {
    let (_own, database) = TestDatabase::migrated().await;
    let organization =
        Organization::start(simulator::Settings { dialect: simulator::Dialect::Platform, ..settings() })
            .await;
    let platform = PlatformSettings { job_pause: Duration::from_millis(50), ..PlatformSettings::default() };
    let settings = Settings { dialect: Dialect::Platform(platform), ..organization.client_settings() };
    let permits = std::sync::Arc::new(SharedBudget::new(database.clone(), &settings));
    let client = Client::new(&settings, permits.clone(), &Health::default()).unwrap();
    client.campaign(CAMPAIGN, &scope()).await.unwrap();
    // As if another program had called, and this client before it was counted here.
    for (client, requests) in [("somebody", 1_000), (DEMO_CLIENT_ID, 500)] {
        let usage = json!({ "clientId": client, "requests": requests });
        organization.control(Method::POST, "/usage", Some(usage)).await;
    }

    assert!(database.may_ask_for_usage(DEMO_CLIENT_ID, HOUR).await.unwrap());
    assert!(!database.may_ask_for_usage(DEMO_CLIENT_ID, HOUR).await.unwrap(), "one instance in an hour");
    let asked_at = clock::now();
    let made = client.calls_this_month(&scope()).await.unwrap().unwrap();
    assert_eq!(made.others, 1_000);
    let told = PlatformCount { asked_at, own: made.own, others: made.others };
    database.reconcile_usage(DEMO_CLIENT_ID, told).await.unwrap();
    let calls = database.calls_of_month(DEMO_CLIENT_ID).await.unwrap();
    assert_eq!(calls.month_to_date, made.own + made.others, "as the platform says");
    assert_eq!(calls.reconciled_at, Some(asked_at));
    let counted = calls.month_to_date - 1_000 - calls.drift.unsigned_abs();
    assert!(calls.drift >= 490 && counted >= 3, "{calls:?}");

    take(&permits, Priority::Read).await;
    let later = database.calls_of_month(DEMO_CLIENT_ID).await.unwrap();
    assert_eq!(later.month_to_date, calls.month_to_date + 1, "and ours since");
}

#[tokio::test]
async fn attempts_are_counted_once_by_campaign_and_month() {
    let (own, database) = TestDatabase::migrated().await;
    let at = |text: &str| text.parse::<Timestamp>().unwrap();
    let told =
        |id: &str, attempted, observed_at| Attempts { campaign_id: id.to_owned(), attempted, observed_at };
    let now = clock::now();
    let before = now.minus(Duration::from_secs(1));
    let long_ago = at("2020-05-31T23:59:59.000Z");
    let first = [told("a", 10, long_ago), told("a", 7, before), told("b", 100, before)];
    database.count_attempts("test", &[], &first).await.unwrap();
    database.count_attempts("test", &[], &first).await.unwrap();
    let again = [told("a", 7, before), told("a", 5, now), told("a", 5, now)];
    database.count_attempts("test", &[], &again).await.unwrap();

    let month = database.attempts_of_month(10).await.unwrap();
    let counted: Vec<_> = month.iter().map(|line| (line.campaign_id.as_str(), line.month_to_date)).collect();
    // Where the month began between the two times, a part is the former month's.
    if before.month() == now.month() {
        assert_eq!(counted, [("b", 100), ("a", 12)]);
        assert!(month.iter().all(|line| line.per_second > 0.0), "{month:?}");
    }
    let days: Vec<(String, i64)> = sqlx::query_as(
        "SELECT campaign_id || ' ' || (day = '2020-05-31')::text, sum(attempts)::bigint
         FROM trunkline.campaign_attempts GROUP BY 1 ORDER BY 1",
    )
    .fetch_all(&own.owner().await)
    .await
    .unwrap();
    let expected = [("a false", 12), ("a true", 10), ("b false", 100)];
    assert_eq!(days, expected.map(|(day, attempts)| (day.to_owned(), attempts)));
}
