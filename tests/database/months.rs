//! Decisions and outcomes by months: what was recorded before there were any, what is dropped, what stays.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use sqlx::{AssertSqlSafe, PgPool};
use trunkline::postgres::ledger::{Dropped, Filter};
use trunkline::postgres::{APP_ROLE, Database};

use crate::support::postgres::TestDatabase;

/// The migration under which months came.
const MONTHS: &str = "0036_months.sql";
const DAY: Duration = Duration::from_secs(86_400);

async fn run(owner: &PgPool, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned()))
        .execute(owner)
        .await
        .unwrap_or_else(|error| panic!("{sql}: {error}"));
}

async fn count(owner: &PgPool, of: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(format!("SELECT count(*) FROM audit.{of}")))
        .fetch_one(owner)
        .await
        .unwrap()
}

/// A dial decision about `key` and its outcome, observed at an SQL expression.
async fn plant(owner: &PgPool, key: &str, sequence: i64, observed: &str) {
    let id = format!(
        "(lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || lpad('{sequence}', 20, '0'))::uuid"
    );
    run(
        owner,
        &format!(
            "INSERT INTO audit.decision_log (decision_id, loop, key, sequence, mode, decided_at, event_time, expires_at,
                 action, reason, parameters, inputs, policy, policy_version, policy_hash, settings_revision, cause_ids,
                 topic, partition, \"offset\")
             SELECT {id}, 'dial', '{key}', {sequence}, 'live', at, at, at, 'hold', 'r', '{{}}', '{{}}', 'p', 1, 'h', 0, '[]',
                    '{key}', 0, {sequence} FROM (SELECT {observed} AS at) AS t;
             INSERT INTO audit.outcome_log (decision_id, loop, key, sequence, status, reason, attempts, finished_at,
                 topic, partition, \"offset\")
             SELECT {id}, 'dial', '{key}', {sequence}, 'applied', 'r', 1, at, '{key}', 0, {sequence}
             FROM (SELECT {observed} AS at) AS t"
        ),
    )
    .await;
}

/// Where each decision lies, by its sequence, and its outcome with it.
async fn tables(owner: &PgPool) -> BTreeMap<i64, String> {
    let rows: Vec<(i64, String, String)> = sqlx::query_as(
        "SELECT d.sequence, replace(d.tableoid::regclass::text, 'audit.decision_log', ''),
                replace(o.tableoid::regclass::text, 'audit.outcome_log', '')
         FROM audit.decision_log d JOIN audit.outcome_log o USING (decision_id)",
    )
    .fetch_all(owner)
    .await
    .unwrap();
    rows.into_iter()
        .map(|(sequence, decision, outcome)| {
            assert_eq!(decision, outcome, "a decision and its outcome lie in the same month");
            (sequence, decision)
        })
        .collect()
}

async fn suffix_of(owner: &PgPool, at: &str) -> String {
    let sql = format!("SELECT to_char(({at}) AT TIME ZONE 'UTC', '_YYYY_MM')");
    sqlx::query_scalar(AssertSqlSafe(sql)).fetch_one(owner).await.unwrap()
}

#[tokio::test]
async fn a_month_is_dropped_whole_and_what_lies_in_none_row_by_row() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    // As a program makes them that ran then.
    run(
        &owner,
        "SELECT audit.make_month(now() - interval '90 days'), audit.make_month(now() - interval '10 days')",
    )
    .await;
    plant(&owner, "a", 1, "now() - interval '400 days'").await;
    plant(&owner, "a", 2, "now() - interval '90 days'").await;
    plant(&owner, "a", 3, "now() - interval '10 days'").await;
    plant(&owner, "a", 4, "now()").await;
    let [first, second, third] = [
        suffix_of(&owner, "now() - interval '90 days'").await,
        suffix_of(&owner, "now() - interval '10 days'").await,
        suffix_of(&owner, "now()").await,
    ];
    let lie = tables(&owner).await;
    assert_eq!(lie.into_values().collect::<Vec<_>>(), ["_others", &first, &second, &third]);

    // No month is over for so long, and one decision is older.
    let dropped = database.drop_months(200 * DAY).await.unwrap();
    assert_eq!(dropped, Dropped { months: 0, decisions: 1 });
    let dropped = database.drop_months(50 * DAY).await.unwrap();
    assert_eq!(dropped, Dropped { months: 1, decisions: 0 });
    assert_eq!(tables(&owner).await.into_keys().collect::<Vec<_>>(), [3, 4]);
    assert_eq!((count(&owner, "gaps").await, count(&owner, "outcomes").await), (0, 2));
    let short = database.drop_months(29 * DAY).await.unwrap_err().to_string();
    assert!(short.contains("30 days"), "{short}");
}

#[tokio::test]
async fn neither_the_application_nor_the_owner_changes_a_month() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    plant(&owner, "a", 1, "now()").await;
    let month = suffix_of(&owner, "now()").await;
    for table in
        [format!("decision_log{month}"), format!("outcome_log{month}"), "decision_log_others".to_owned()]
    {
        for change in ["DELETE FROM", "TRUNCATE"] {
            let sql = format!("{change} audit.{table}");
            let refused =
                sqlx::raw_sql(AssertSqlSafe(sql.clone())).execute(&owner).await.unwrap_err().to_string();
            assert!(refused.contains("append-only"), "{sql}: {refused}");
        }
    }
    let mut app = own.as_role(APP_ROLE).await;
    for forbidden in [
        format!("SELECT * FROM audit.decision_log{month}"),
        format!("DROP TABLE audit.decision_log{month}"),
        "SELECT audit.make_month(now() - interval '1 year')".to_owned(),
        "SELECT audit.open_month(now() - interval '1 year')".to_owned(),
    ] {
        assert!(
            sqlx::raw_sql(AssertSqlSafe(forbidden.clone())).execute(&mut app).await.is_err(),
            "{forbidden}"
        );
    }
    // Again and by many at once: what is open stays open.
    let (one, other) = tokio::join!(database.open_months(), database.open_months());
    one.unwrap();
    other.unwrap();
    assert_eq!(tables(&owner).await[&1], month);
}

/// A database with every migration before months, as an older program left it.
async fn before_months() -> (TestDatabase, PgPool) {
    // Roles exist once any database of the server is migrated.
    drop(TestDatabase::migrated().await);
    let own = TestDatabase::create().await;
    let owner = own.owner().await;
    let mut files: Vec<_> = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("sql"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.file_name().unwrap().to_str().unwrap() < MONTHS)
        .collect();
    files.sort();
    run(&owner, "CREATE SCHEMA trunkline").await;
    run(&owner, "CREATE TABLE trunkline.migrations (version bigint)").await;
    for file in files {
        run(&owner, &std::fs::read_to_string(file).unwrap()).await;
    }
    (own, owner)
}

async fn introduce_months(owner: &PgPool) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("sql").join(MONTHS);
    run(owner, &std::fs::read_to_string(file).unwrap()).await;
}

#[tokio::test]
async fn what_was_recorded_before_there_were_months_stays_and_is_read_as_before() {
    let (own, owner) = before_months().await;
    plant(&owner, "a", 1, "now() - interval '100 days'").await;
    plant(&owner, "a", 2, "now()").await;
    introduce_months(&owner).await;

    plant(&owner, "a", 3, "now()").await;
    plant(&owner, "a", 4, "audit.month_after(now())").await;
    let next = suffix_of(&owner, "audit.month_after(now())").await;
    assert_eq!(tables(&owner).await.into_values().collect::<Vec<_>>(), ["_older", "_older", "_older", &next]);
    assert_eq!((count(&owner, "explained").await, count(&owner, "gaps").await), (4, 0));
    let twice = "INSERT INTO audit.decision_log SELECT * FROM audit.decision_log WHERE sequence = 1
                 ON CONFLICT (decision_id) DO NOTHING";
    run(&owner, twice).await;
    assert_eq!(count(&owner, "decisions").await, 4);

    let database = Database::connect(&own.settings()).unwrap();
    let listed = database.decisions(&Filter::default(), 10).await.unwrap();
    assert_eq!(listed.iter().map(|entry| entry.sequence).collect::<Vec<_>>(), [4, 3, 2, 1]);
    let newest = database.newest_by_key("dial", 10).await.unwrap();
    assert_eq!(newest.iter().map(|line| line.sequence).collect::<Vec<_>>(), [4]);
    // This month lies with what is older: it cannot be opened, and is not missed.
    database.open_months().await.unwrap();
    assert_eq!(database.drop_months(50 * DAY).await.unwrap(), Dropped { months: 0, decisions: 1 });
    assert_eq!(count(&owner, "gaps").await, 0);
}

#[tokio::test]
async fn times_that_cannot_be_keep_all_that_was_recorded_in_one_table() {
    let (own, owner) = before_months().await;
    plant(&owner, "a", 1, "now() + interval '3 years'").await;
    introduce_months(&owner).await;
    plant(&owner, "a", 2, "now()").await;
    assert_eq!(tables(&owner).await.into_values().collect::<Vec<_>>(), ["_older", "_older"]);
    let database = Database::connect(&own.settings()).unwrap();
    database.open_months().await.unwrap();
    assert_eq!(database.drop_months(50 * DAY).await.unwrap(), Dropped::default());
}
