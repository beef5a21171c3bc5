//! The ledger's promises, on the rows themselves: once, whole, and never changed.

use serde_json::Value;
use trunkline::kafka::subscription::{InboundRecord, Start, TopicPartition};
use trunkline::kafka::topic_ids::TopicIds;
use trunkline::model::Timestamp;
use trunkline::postgres::Database;
use trunkline::postgres::ledger::{Cursor, Filter};
use trunkline::sinks::audit::{AuditWriter, Stored, WriteError};
use trunkline::topics;

use crate::support::postgres::TestDatabase;
use crate::support::records::{START_MS, decision, decision_id, no_kafka, outcome, raw, record};

const DECISIONS: TopicPartition = TopicPartition { topic: &topics::DIAL_DECISIONS, partition: 0 };
const OUTCOMES: TopicPartition = TopicPartition { topic: &topics::OUTCOMES, partition: 0 };

/// Decisions 1 to `count` of campaign `a` at offsets 0, 1, …
fn decisions(count: u64) -> Vec<InboundRecord> {
    (1..=count).map(|n| record(&topics::DIAL_DECISIONS, n as i64 - 1, &decision("a", n))).collect()
}

async fn writer(database: &Database) -> (AuditWriter, Vec<(TopicPartition, Start)>) {
    let mut writer = AuditWriter::new(database.clone(), &no_kafka());
    let starts = writer.positions(&[DECISIONS, OUTCOMES], &TopicIds::new()).await.unwrap();
    (writer, starts)
}

async fn sequences(database: &Database) -> Vec<i64> {
    sqlx::query_scalar("SELECT sequence FROM audit.decisions ORDER BY sequence, topic, partition, \"offset\"")
        .fetch_all(database.pool())
        .await
        .unwrap()
}

#[tokio::test]
async fn a_decision_and_its_outcome_come_back_as_they_stood_on_their_topics() {
    let (own, database) = TestDatabase::migrated().await;
    let (mut writer, starts) = writer(&database).await;
    assert_eq!(starts, [(DECISIONS, Start::Earliest), (OUTCOMES, Start::Earliest)]);

    let records = [
        record(&topics::DIAL_DECISIONS, 0, &decision("a", 1)),
        record(&topics::OUTCOMES, 0, &outcome("a", 1)),
        record(&topics::DIAL_DECISIONS, 1, &decision("a", 2)),
    ];
    let stored = writer.write(&records, &[]).await.unwrap();
    assert_eq!((stored.written.decisions, stored.written.outcomes, stored.written.duplicates), (2, 1, 0));

    let finished = database.decision(decision_id("a", 1)).await.unwrap().unwrap();
    let mut expected = decision("a", 1);
    expected["outcome"] = outcome("a", 1);
    assert_eq!(serde_json::to_value(&finished).unwrap(), expected);
    assert_eq!(finished.position, "t-trunkline.dial-decisions.v1/0/0");
    let open = database.decision(decision_id("a", 2)).await.unwrap().unwrap();
    assert_eq!(open.outcome, None);

    let mut reader = own.as_role("trunkline_reader").await;
    let (window, rule, request, reply, http_status): (Value, String, Value, Value, i32) = sqlx::query_as(
        "SELECT \"window\", rule, request, reply, http_status FROM audit.explained WHERE status = 'applied'",
    )
    .fetch_one(&mut reader)
    .await
    .unwrap();
    assert_eq!(window["answerRates"], serde_json::json!([0.5]));
    assert_eq!(rule, "proportional v1 (0123456789abcdef)");
    assert_eq!(request["method"], "PUT");
    assert_eq!((reply["status"].as_i64(), http_status), (Some(200), 200));
}

#[tokio::test]
async fn how_a_rate_came_to_be_and_what_another_policy_says_are_there_in_sql() {
    let (own, database) = TestDatabase::migrated().await;
    let (mut writer, _) = writer(&database).await;
    let mut chained = decision("a", 1);
    let step = |limit: &str, value: f64| serde_json::json!({"limit": limit, "value": value});
    let chain =
        |bound: &str, steps: Vec<Value>| serde_json::json!({"raw": 4.5, "limits": steps, "bound": bound});
    chained["parameters"]["chain"] = chain("slew", vec![step("budget", 3.0), step("slew", 1.7)]);
    chained["parameters"]["shadow"] = serde_json::json!({
        "policy": "proportional", "policyVersion": 2, "policyHash": "0", "dialRate": 3.0,
        "reason": "at_greatest_rate", "chain": chain("maximum", vec![step("maximum", 3.0)]),
    });
    let records = [
        record(&topics::DIAL_DECISIONS, 0, &chained),
        // Of a program that kept no chain.
        record(&topics::DIAL_DECISIONS, 1, &decision("a", 2)),
    ];
    writer.write(&records, &[]).await.unwrap();
    let mut reader = own.as_role("trunkline_reader").await;
    let steps: Vec<(f64, i32, String, f64, bool)> = sqlx::query_as(
        "SELECT raw, step, limit_name, value_after, bound FROM audit.decision_chain ORDER BY sequence, step",
    )
    .fetch_all(&mut reader)
    .await
    .unwrap();
    let step = |number, name: &str, value, bound| (4.5, number, name.to_owned(), value, bound);
    assert_eq!(steps, [step(1, "budget", 3.0, false), step(2, "slew", 1.7, true)]);
    let shadow: Vec<(String, String, String, f64, f64, f64)> = sqlx::query_as(
        "SELECT mode, policy, live_policy, dial_rate, live_dial_rate, round(difference::numeric, 9)::float8
         FROM audit.shadow_decisions",
    )
    .fetch_all(&mut reader)
    .await
    .unwrap();
    let text = |text: &str| text.to_owned();
    assert_eq!(shadow, [(text("shadow"), text("proportional"), text("proportional"), 3.0, 1.7, 1.3)]);
}

#[tokio::test]
async fn redelivery_in_any_overlap_adds_nothing() {
    let (_own, database) = TestDatabase::migrated().await;
    let all = decisions(40);
    let (mut first, _) = writer(&database).await;
    first.write(&all[..25], &[]).await.unwrap();
    // The same process is handed a part again, and a little more.
    first.write(&all[10..30], &[]).await.unwrap();
    // A new one begins where the ledger says, whatever it is handed.
    let (mut second, starts) = writer(&database).await;
    assert_eq!(starts[0], (DECISIONS, Start::At(30)));
    second.write(&all, &[]).await.unwrap();
    assert_eq!(sequences(&database).await, (1..=40).collect::<Vec<_>>());
}

/// A writer that was thought dead goes on with what it knew: its first write finds
/// that the position moved, and what the other wrote is not written again.
#[tokio::test]
async fn a_zombie_writes_nothing_twice_and_neither_does_its_successor() {
    let (_own, database) = TestDatabase::migrated().await;
    let all = decisions(30);
    let (mut zombie, _) = writer(&database).await;
    zombie.write(&all[..10], &[]).await.unwrap();
    let (mut successor, _) = writer(&database).await;
    successor.write(&all[10..20], &[]).await.unwrap();

    let late = zombie.write(&all[10..15], &[]).await.unwrap();
    assert_eq!(late, Stored::default());
    // It even comes first once: then the successor gives way to it.
    zombie.write(&all[15..25], &[]).await.unwrap();
    let rest = successor.write(&all[20..30], &[]).await.unwrap();
    assert_eq!((rest.written.decisions, rest.written.duplicates), (5, 0));

    assert_eq!(sequences(&database).await, (1..=30).collect::<Vec<_>>());
}

#[tokio::test]
async fn writers_at_the_same_moment_leave_each_row_once() {
    let (_own, database) = TestDatabase::migrated().await;
    let all = std::sync::Arc::new(decisions(200));
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let (mut writer, _) = writer(&database).await;
        let all = std::sync::Arc::clone(&all);
        tasks.push(tokio::spawn(async move {
            let (mut decisions, mut duplicates) = (0, 0);
            for part in all.chunks(7) {
                let written = writer.write(part, &[]).await.unwrap().written;
                decisions += written.decisions;
                duplicates += written.duplicates;
            }
            (decisions, duplicates)
        }));
    }
    let mut written = (0, 0);
    for task in tasks {
        let (decisions, duplicates) = task.await.unwrap();
        written = (written.0 + decisions, written.1 + duplicates);
    }
    assert_eq!(written, (200, 0), "the positions alone keep writers apart");
    assert_eq!(sequences(&database).await, (1..=200).collect::<Vec<_>>());
}

/// The topics by their names, as the brokers tell them, all with this id.
fn made_as(id: u128) -> TopicIds {
    let name = |topic| no_kafka().topic(topic);
    [&topics::DIAL_DECISIONS, &topics::OUTCOMES, &topics::DEAD_LETTERS]
        .map(|topic| (name(topic), Some(uuid::Uuid::from_u128(id))))
        .into()
}

#[tokio::test]
async fn a_topic_made_again_is_read_from_its_beginning_and_collides_with_nothing() {
    let (_own, database) = TestDatabase::migrated().await;
    let all = decisions(20);
    // As it was stored before ids were: the position counts for the topic there is.
    let (mut before, _) = writer(&database).await;
    before.write(&all[..5], &[]).await.unwrap();
    let writer_of = async |id| {
        let mut writer = AuditWriter::new(database.clone(), &no_kafka());
        let starts = writer.positions(&[DECISIONS], &made_as(id)).await.unwrap();
        (writer, starts)
    };
    let (mut first, starts) = writer_of(1).await;
    assert_eq!(starts, [(DECISIONS, Start::At(5))]);
    first.write(&all[..10], &[]).await.unwrap();
    let (_, starts) = writer_of(1).await;
    assert_eq!(starts, [(DECISIONS, Start::At(10))]);

    // Deleted and made again: other decisions at the same offsets.
    let other: Vec<InboundRecord> =
        (0..10).map(|n| record(&topics::DIAL_DECISIONS, n, &decision("b", n as u64 + 1))).collect();
    let (mut second, starts) = writer_of(2).await;
    assert_eq!(starts, [(DECISIONS, Start::Earliest)]);
    let stored = second.write(&other[..6], &[]).await.unwrap();
    assert_eq!((stored.written.decisions, stored.set_aside), (6, 0));

    // Who still reads the former topic takes nothing back.
    let late = first.write(&all[10..], &[]).await.unwrap_err();
    assert!(matches!(late, WriteError::Replaced { partition } if partition == DECISIONS), "{late}");
    second.write(&other, &[]).await.unwrap();
    assert_eq!(writer_of(2).await.1, [(DECISIONS, Start::At(10))]);
    let places: Vec<(String, i64)> =
        sqlx::query_as("SELECT key, max(\"offset\") FROM audit.decisions GROUP BY key ORDER BY key")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(places, [("a".to_owned(), 9), ("b".to_owned(), 9)]);
}

#[tokio::test]
async fn a_database_set_back_is_noticed() {
    let (own, database) = TestDatabase::migrated().await;
    let all = decisions(20);
    let (mut writer, _) = writer(&database).await;
    writer.write(&all[..10], &[]).await.unwrap();
    sqlx::query("UPDATE audit.positions SET next_offset = 5").execute(&own.owner().await).await.unwrap();
    let noticed = writer.write(&all[10..], &[]).await.unwrap_err();
    assert!(matches!(noticed, WriteError::Rewound { partition } if partition == DECISIONS), "{noticed}");
}

#[tokio::test]
async fn what_cannot_be_kept_is_named_and_its_neighbours_go_through() {
    let (_own, database) = TestDatabase::migrated().await;
    let mut escaped_nul = decision("a", 2);
    escaped_nul["inputs"]["campaignId"] = "a\u{0}b".into();
    let mut nul_in_text = decision("a", 3);
    nul_in_text["reason"] = "x\u{0}y".into();
    let mut no_status_number = outcome("a", 1);
    no_status_number["response"]["status"] = "two hundred".into();
    let long_key = "k".repeat(20_000);
    let mut incompressible_key = decision("a", 7);
    let noise: String = (0..4_000u32).map(|n| format!("{:08x}", n.wrapping_mul(2_654_435_761))).collect();
    incompressible_key["key"] = noise.into();
    let mut tombstone = raw(&topics::DIAL_DECISIONS, 4, b"");
    tombstone.value = None;
    let records = [
        record(&topics::DIAL_DECISIONS, 0, &decision("a", 1)),
        record(&topics::DIAL_DECISIONS, 1, &escaped_nul),
        record(&topics::DIAL_DECISIONS, 2, &nul_in_text),
        raw(&topics::DIAL_DECISIONS, 3, b"{\"decisionId\": 1e999}"),
        tombstone,
        raw(&topics::DIAL_DECISIONS, 5, b"\xff\xfe"),
        record(&topics::DIAL_DECISIONS, 6, &incompressible_key),
        record(&topics::OUTCOMES, 0, &no_status_number),
        record(&topics::DIAL_DECISIONS, 7, &decision("a", 8)),
        record(&topics::OUTCOMES, 1, &outcome(&long_key, 1)),
    ];
    let (mut writer, _) = writer(&database).await;
    let mut set_aside = Vec::new();
    let stored = loop {
        match writer.write(&records, &set_aside).await {
            Ok(stored) => break stored,
            Err(WriteError::Refused(refused)) => {
                assert!(!refused.is_empty());
                set_aside.extend(refused);
            }
            Err(other) => panic!("{other}"),
        }
    };
    set_aside.sort_by_key(|set_aside| (set_aside.partition.topic.name, set_aside.offset));
    let named: Vec<_> = set_aside.iter().map(|s| (s.partition, s.offset, s.reason.code())).collect();
    assert_eq!(
        named,
        [
            (DECISIONS, 1, "rejected"),
            (DECISIONS, 2, "rejected"),
            (DECISIONS, 3, "bad_json"),
            (DECISIONS, 4, "tombstone"),
            (DECISIONS, 5, "bad_json"),
            (DECISIONS, 6, "rejected"),
            (OUTCOMES, 0, "rejected"),
        ],
        "{set_aside:#?}"
    );
    assert_eq!((stored.written.decisions, stored.written.outcomes, stored.set_aside), (2, 1, 7));

    // The position is past all of them.
    let (_, starts) = self::writer(&database).await;
    assert_eq!(starts, [(DECISIONS, Start::At(8)), (OUTCOMES, Start::At(2))]);
}

#[tokio::test]
async fn nobody_changes_what_is_written() {
    let (own, database) = TestDatabase::migrated().await;
    let (mut writer, _) = writer(&database).await;
    let records = [
        record(&topics::DIAL_DECISIONS, 0, &decision("a", 1)),
        record(&topics::OUTCOMES, 0, &outcome("a", 1)),
    ];
    writer.write(&records, &[]).await.unwrap();

    let mut application = own.as_role("trunkline_app").await;
    let mut reader = own.as_role("trunkline_reader").await;
    let mut owner = own.owner().await.acquire().await.unwrap().detach();
    let code = |result: Result<_, sqlx::Error>| match result {
        Err(sqlx::Error::Database(refusal)) => refusal.code().unwrap().into_owned(),
        Err(other) => panic!("{other}"),
        Ok(_) => "done".to_owned(),
    };
    const PERMISSION_DENIED: &str = "42501";
    const RESTRICT_VIOLATION: &str = "23001";
    for table in ["decision_log", "outcome_log"] {
        for change in [
            format!("UPDATE audit.{table} SET reason = ''"),
            format!("DELETE FROM audit.{table}"),
            format!("TRUNCATE audit.{table}"),
        ] {
            let sql = || sqlx::raw_sql(sqlx::AssertSqlSafe(change.clone()));
            assert_eq!(code(sql().execute(&mut application).await), PERMISSION_DENIED, "{change}");
            assert_eq!(code(sql().execute(&mut reader).await), PERMISSION_DENIED, "{change}");
            assert_eq!(code(sql().execute(&mut owner).await), RESTRICT_VIOLATION, "{change}");
        }
    }
    for forbidden in [
        "DROP TABLE audit.decision_log",
        "CREATE TABLE audit.mine (x int)",
        "ALTER TABLE audit.decision_log DISABLE TRIGGER ALL",
        "DELETE FROM audit.positions",
    ] {
        assert_eq!(
            code(sqlx::raw_sql(forbidden).execute(&mut application).await),
            PERMISSION_DENIED,
            "{forbidden}"
        );
    }
    for forbidden in [
        "INSERT INTO audit.decision_log (decision_id) VALUES ('00000000-0000-0000-0000-000000000000')",
        "SELECT 1 FROM audit.positions",
        "UPDATE audit.decisions SET reason = ''",
        "INSERT INTO audit.outcomes (status) VALUES ('applied')",
    ] {
        assert_eq!(
            code(sqlx::raw_sql(forbidden).execute(&mut reader).await),
            PERMISSION_DENIED,
            "{forbidden}"
        );
    }
    for view in ["decisions", "outcomes", "explained", "campaign_compliance", "gaps"] {
        let read = format!("SELECT * FROM audit.{view}");
        sqlx::raw_sql(sqlx::AssertSqlSafe(read)).execute(&mut reader).await.unwrap();
    }
}

#[tokio::test]
async fn gaps_shows_planted_holes_and_nothing_else() {
    let (_own, database) = TestDatabase::migrated().await;
    let (mut writer, _) = writer(&database).await;
    let gaps = async || -> Vec<(String, i64, i64)> {
        sqlx::query_as("SELECT key, missing_from, missing_to FROM audit.gaps ORDER BY key, missing_from")
            .fetch_all(database.pool())
            .await
            .unwrap()
    };
    let mut offset = 0;
    let mut at = |key: &str, sequence| {
        offset += 1;
        record(&topics::DIAL_DECISIONS, offset, &decision(key, sequence))
    };
    let whole: Vec<_> = (1..=5).map(|n| at("whole", n)).collect();
    writer.write(&whole, &[]).await.unwrap();
    assert_eq!(gaps().await, []);

    let holes = [at("holed", 1), at("holed", 2), at("holed", 5), at("holed", 7), at("headless", 3)];
    writer.write(&holes, &[]).await.unwrap();
    assert_eq!(
        gaps().await,
        [("headless".to_owned(), 1, 2), ("holed".to_owned(), 3, 4), ("holed".to_owned(), 6, 6)]
    );
}

#[tokio::test]
async fn compliance_counts_calls_per_day_and_three_percent_itself_is_within_the_cap() {
    let (_own, database) = TestDatabase::migrated().await;
    let (mut writer, _) = writer(&database).await;
    let on = |key: &str, sequence: u32, day: &str, answered: Value, abandoned: Value| {
        let mut value = decision(key, sequence.into());
        // A poll of its own each: two decisions on one poll count it once.
        value["eventTime"] = format!("{day}T12:00:0{sequence}.000Z").into();
        value["inputs"]["answered"] = answered;
        value["inputs"]["abandoned"] = abandoned;
        record(&topics::DIAL_DECISIONS, i64::from(sequence), &value)
    };
    let records = [
        on("at-cap", 1, "2026-01-02", 60.into(), 3.into()),
        on("at-cap", 2, "2026-01-02", 40.into(), 0.into()),
        on("at-cap", 3, "2026-01-03", 100.into(), 4.into()),
        on("uncounted", 4, "2026-01-02", Value::Null, Value::Null),
    ];
    writer.write(&records, &[]).await.unwrap();
    type Counted = (String, String, Option<i64>, Option<i64>, Option<f64>, Option<bool>);
    let rows: Vec<Counted> = sqlx::query_as(
        "SELECT campaign_id, day::text, answered, abandoned, abandonment_rate, over_cap
         FROM audit.campaign_compliance ORDER BY campaign_id, day",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(
        rows,
        [
            ("at-cap".into(), "2026-01-02".into(), Some(100), Some(3), Some(0.03), Some(false)),
            ("at-cap".into(), "2026-01-03".into(), Some(100), Some(4), Some(0.04), Some(true)),
            ("uncounted".into(), "2026-01-02".into(), None, None, None, None),
        ]
    );
}

#[tokio::test]
async fn pages_follow_each_other_while_the_ledger_grows() {
    let (_own, database) = TestDatabase::migrated().await;
    let (mut writer, _) = writer(&database).await;
    // Three campaigns decided in the same millisecond, over and over: ties everywhere.
    let mut offset = 0;
    let mut batch = |sequences: std::ops::RangeInclusive<u64>| -> Vec<InboundRecord> {
        sequences
            .flat_map(|n| ["a", "b", "c"].map(|key| (key, n)))
            .map(|(key, n)| {
                offset += 1;
                record(&topics::DIAL_DECISIONS, offset, &decision(key, n))
            })
            .collect()
    };
    writer.write(&batch(1..=20), &[]).await.unwrap();

    let mut filter = Filter::default();
    let mut seen = Vec::new();
    loop {
        let page = database.decisions(&filter, 7).await.unwrap();
        let Some(last) = page.last() else { break };
        filter.after = Some(Cursor::after(last));
        seen.extend(page);
        let newer = 21 + seen.len() as u64;
        writer.write(&batch(newer..=newer), &[]).await.unwrap();
    }
    assert_eq!(seen.len(), 60);
    assert!(seen.is_sorted_by_key(|entry| std::cmp::Reverse((entry.decided_at, entry.decision_id))));

    let middle = Timestamp::from_millis(START_MS + 30_000 * 9);
    let some =
        Filter { r#loop: Some("dial".into()), key: Some("b".into()), to: Some(middle), ..Filter::default() };
    let page = database.decisions(&some, 100).await.unwrap();
    assert_eq!(page.iter().map(|e| e.sequence).collect::<Vec<_>>(), (1..=9).rev().collect::<Vec<_>>());
    let rest = Filter { from: Some(middle), to: None, ..some.clone() };
    assert_eq!(database.decisions(&rest, 100).await.unwrap().last().unwrap().sequence, 10);
    let other = Filter { r#loop: Some("route".into()), ..some };
    assert!(database.decisions(&other, 100).await.unwrap().is_empty());
}
