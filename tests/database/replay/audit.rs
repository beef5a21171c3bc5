//! Taken again from the audit by the program: the same to the byte, other numbers make exactly the differences that
//! follow, and what was changed behind its back is found.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use sqlx::PgPool;
use trunkline::model::decision::Loop;
use trunkline::replay::Header;

use super::{Environment, environment, fill, recording, run, set_as_recorded};
use crate::support::postgres::TestDatabase;
use crate::support::recording::stand_on_the_severe_limit;

/// Takes a loop's decisions again; whether it was content, and its report.
fn replay(of: &str, header: &Header, set: &[&str], environment: &Environment) -> (bool, Value) {
    let (from, to) = (header.from.to_string(), header.to.to_string());
    let mut arguments = vec!["replay", of, "--from", from.as_str(), "--to", to.as_str(), "--json"];
    set.iter().for_each(|set| arguments.extend(["--set", set]));
    let (code, said, log) = run(&arguments, environment);
    let report = serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said} {log}"));
    (code == 0, report)
}

fn differing(report: &Value) -> BTreeSet<String> {
    let items = report["items"].as_array().unwrap().iter();
    items.map(|item| item["decisionId"].as_str().unwrap().to_owned()).collect()
}

/// Changes the last decision of a loop that this is true of, round the guard of the table; which it was.
async fn tamper(owner: &PgPool, of: &str, (column, value): (&str, &str), only: &str) -> String {
    let update = format!(
        "UPDATE audit.decision_log SET {column} = {value} WHERE decision_id = (
             SELECT decision_id FROM audit.decision_log WHERE loop = '{of}' AND {only}
             ORDER BY key, sequence DESC LIMIT 1)
         RETURNING decision_id::text"
    );
    let mut transaction = owner.begin().await.unwrap();
    let unguarded = "SET LOCAL session_replication_role = replica";
    sqlx::raw_sql(unguarded).execute(&mut *transaction).await.unwrap();
    let id = sqlx::query_scalar(sqlx::AssertSqlSafe(update)).fetch_one(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn decisions_are_taken_again_from_the_audit_to_the_byte_and_what_was_changed_is_found() {
    let (own, database) = TestDatabase::migrated().await;
    let recording = recording();
    set_as_recorded(&database, &recording).await;
    fill(&database, &recording, &recording.decisions).await;
    let (environment, header) = (environment(&own, &[]), &recording.header);
    for of in Loop::ALL {
        let (content, report) = replay(of.name(), header, &[], &environment);
        let count = recording.decisions.iter().filter(|decision| decision["loop"] == of.name()).count();
        assert!(content && report["different"] == 0, "{of:?}: {report}");
        assert_eq!(report["decisions"], count, "{of:?}");
        let not_taken: u64 = report["notTaken"].as_object().unwrap().values().filter_map(Value::as_u64).sum();
        assert_eq!(report["identical"].as_u64().unwrap() + not_taken, count as u64);
        assert!(of == Loop::Route || not_taken == 0, "{of:?}: {report}");
    }

    let expected = stand_on_the_severe_limit(&recording.decisions);
    let (_, report) = replay("rollback", header, &["severe_limit=1e300"], &environment);
    assert_eq!(differing(&report), expected);
    assert_eq!(report["different"], expected.len());

    // Somebody with all rights goes round the table's guard.
    let owner = own.owner().await;
    let restated = r#"replace(inputs::text, '"fired": false', '"fired": true')::jsonb"#;
    for (of, change, only, field, cause) in [
        ("dial", ("reason", "'tampered'"), "true", "reason", "data_restated"),
        ("rollback", ("inputs", restated), "reason = 'severe'", "action", "data_restated"),
        (
            "route",
            ("policy_version", "99"),
            "parameters->>'source' = 'exact'",
            "policy.version",
            "code_version",
        ),
        ("delivery", ("policy_hash", "'0123456789abcdef'"), "true", "policy.hash", "settings"),
    ] {
        let id = tamper(&owner, of, change, only).await;
        let (content, report) = replay(of, header, &[], &environment);
        assert!(!content, "{of}");
        assert_eq!(differing(&report), BTreeSet::from([id]), "{of}: {report}");
        let mismatch = &report["items"][0]["mismatch"];
        assert_eq!(
            (&mismatch["field"], &mismatch["cause"]),
            (&json!(field), &json!(cause)),
            "{of}: {mismatch}"
        );
    }
}
