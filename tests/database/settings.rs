//! Settings changed at run time, and the two outcomes of a rollback.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Row;
use trunkline::model::settings::{MaintenanceWindow, Setting};

use crate::support::postgres::TestDatabase;

#[tokio::test]
async fn changes_are_counted_kept_and_on_their_way_in_one_transaction() {
    let (own, database) = TestDatabase::migrated().await;
    let set =
        async |scope: &str, value: Value| database.change_setting(scope, "anna", |_, _| Ok(value)).await;
    assert_eq!(set("route/a", json!({"rules": []})).await.unwrap().revision, 1);
    assert_eq!(set("route/b", json!(2)).await.unwrap().revision, 2);
    let changed = database
        .change_setting("route/a", "ben", |_, before| {
            assert_eq!(before.unwrap().value, json!({"rules": []}));
            Ok(Value::Null)
        })
        .await
        .unwrap();
    assert_eq!((changed.revision, &*changed.who), (3, "ben"));
    assert_eq!(database.setting("route/a").await.unwrap(), None, "withdrawn");
    assert_eq!(database.settings("route/", 10).await.unwrap().len(), 1);
    let history = database.settings_history(Some("route/a"), 10).await.unwrap();
    assert_eq!(history.iter().map(|setting| setting.revision).collect::<Vec<_>>(), [3, 1]);

    let refused = database.change_setting("route/a", "ben", |_, _| Err("no".to_owned())).await;
    assert_eq!(refused.unwrap_err().to_string(), "no");
    assert!(set("", json!(1)).await.is_err() && set("a\nb", json!(1)).await.is_err());
    assert!(set("route/c", json!("\u{0}")).await.is_err());
    let owner = own.owner().await;
    let queued =
        sqlx::query("SELECT key, value FROM trunkline.outbox ORDER BY id").fetch_all(&owner).await.unwrap();
    let queued: Vec<Setting<'static>> =
        queued.iter().map(|row| serde_json::from_slice(row.get("value")).unwrap()).collect();
    assert_eq!(queued.iter().map(|setting| setting.revision).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(queued[2], changed);
}

#[tokio::test]
async fn changes_at_the_same_time_get_revisions_without_gaps() {
    let (_own, database) = TestDatabase::migrated().await;
    let changes = (0..20).map(|number| {
        let database = database.clone();
        tokio::spawn(async move {
            let scope = format!("route/{}", number % 3);
            database.change_setting(&scope, "many", |_, _| Ok(json!(number))).await.unwrap().revision
        })
    });
    let mut revisions = Vec::new();
    for change in changes.collect::<Vec<_>>() {
        revisions.push(change.await.unwrap());
    }
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=20).collect::<Vec<u64>>());
}

#[tokio::test]
async fn maintenance_windows_open_close_and_are_listed() {
    let (_own, database) = TestDatabase::migrated().await;
    let hour = Duration::from_secs(3_600);
    let opened = database.open_maintenance(Some("f"), hour, Some("prompts"), "anna").await.unwrap();
    let window: MaintenanceWindow = serde_json::from_value(opened.value.clone()).unwrap();
    assert_eq!((window.from, window.until), (opened.when, opened.when.plus(hour)));
    let id = opened.scope.strip_prefix("maintenance/").unwrap().to_owned();
    assert_eq!(database.open_maintenance_windows().await.unwrap().len(), 1);
    let closed = database.close_maintenance(&id, "ben").await.unwrap().expect("there is one");
    let window: MaintenanceWindow = serde_json::from_value(closed.value.clone()).unwrap();
    assert_eq!(window.until, closed.when);
    assert_eq!(database.open_maintenance_windows().await.unwrap().len(), 0);
    assert!(database.close_maintenance("nothing", "ben").await.unwrap().is_none());
    assert!(database.open_maintenance(None, hour * 24 * 8, None, "anna").await.is_err(), "too long");
}

#[tokio::test]
async fn a_rollback_has_one_row_with_both_of_its_outcomes() {
    let (own, _database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    sqlx::raw_sql(
        "INSERT INTO audit.decision_log VALUES ('0199ffff-0000-8000-8000-000000000001', 'rollback', 'f', 1,
             'live', now(), now(), now(), 'rollback', 'severe', '{}', '{}', 'attributed', 1, 'h', 0, '[]', 'd', 0, 0);
         INSERT INTO audit.outcome_log (decision_id, loop, key, sequence, status, reason, attempts, finished_at,
             topic, partition, \"offset\")
         SELECT '0199ffff-0000-8000-8000-000000000001', 'rollback', 'f', 1, status, 'why', 1, now(), 'o', 0, nth
         FROM unnest(ARRAY['applied', 'recovered']) WITH ORDINALITY AS given(status, nth)",
    )
    .execute(&owner)
    .await
    .unwrap();
    let rows =
        sqlx::query("SELECT status, verification FROM audit.explained").fetch_all(&owner).await.unwrap();
    assert_eq!(rows.len(), 1);
    let text = |column: &str| rows[0].get::<String, _>(column);
    assert_eq!((text("status").as_str(), text("verification").as_str()), ("applied", "recovered"));
}
