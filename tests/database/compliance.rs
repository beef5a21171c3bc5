//! Calls and figures of campaigns on a real Postgres: revisions, statements, retention, and the
//! evidence pack as an auditor checks it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};
use trunkline::model::Timestamp;
use trunkline::model::compliance::{
    AnsweredBy, Calendar, Call, Denominator, Rules, Statement, Tally, Terms, Window, WindowKind, figures,
};
use trunkline::postgres::compliance::{FigureRow, RecordedCall, Standing};
use trunkline::postgres::{APP_ROLE, Database, READER_ROLE};

use crate::support::postgres::TestDatabase;
use crate::support::process::Process;
use crate::support::records::{START_MS, decision, fill, outcome};

const CAMPAIGN: &str = "campaign";
const RULES: Rules = Rules { greeting_allowance_ms: 500 };

fn at(ms: i64) -> Timestamp {
    Timestamp::from_millis(START_MS + ms)
}

/// A call answered `ms` after the start that an agent took after `agent_ms`, if one did.
fn call(number: u32, ms: i64, agent_ms: Option<i64>) -> RecordedCall {
    let call = Call {
        conversation_id: format!("conversation-{number:04}"),
        campaign_id: CAMPAIGN.to_owned(),
        contact_id: Some(format!("contact, \"{number}\"")),
        from_number: Some("tel:+441234567890".to_owned()),
        to_number: Some(format!("tel:+4477009{number:05}")),
        placed_at: at(ms - 8_000),
        answered_at: Some(at(ms)),
        queued_at: Some(at(ms + 300)),
        agent_at: agent_ms.map(|wait| at(ms + wait)),
        message_at: None,
        ended_at: Some(at(ms + 60_000)),
        answered_by: AnsweredBy::Person,
        reached_agent: agent_ms.is_some(),
        abandoned_by_platform: None,
        parts_told: true,
    };
    RecordedCall { call, rules: RULES, looked_up_at: at(ms + 90_000) }
}

async fn record(database: &Database, calls: &[RecordedCall]) -> u64 {
    database.record_calls("compliance", &[], calls).await.unwrap()
}

fn day(calendar: &Calendar) -> Window {
    calendar.day(calendar.day_of(at(0)))
}

fn utc() -> Calendar {
    Calendar::new("UTC", at(0)).unwrap()
}

async fn standing(database: &Database) -> Standing {
    let mut standings = database.compliance_standings("", 10).await.unwrap();
    assert_eq!(standings.len(), 1);
    standings.remove(0)
}

#[tokio::test]
async fn a_call_told_anew_is_a_new_revision_and_the_last_one_counts() {
    let (own, database) = TestDatabase::migrated().await;
    let calls = [call(1, 0, Some(2_500)), call(2, 1_000, None), call(3, 2_000, Some(2_501))];
    assert_eq!(record(&database, &calls).await, 3);
    assert_eq!(record(&database, &calls).await, 0, "told again as it was");
    let (moved, taken) = (call(1, 86_400_000, Some(100)), call(2, 1_000, Some(900)));
    // Of two in one batch the last counts.
    assert_eq!(record(&database, &[call(2, 1_000, Some(9_000)), taken, moved]).await, 2);

    let window = day(&utc());
    let tally = database.tally_calls(CAMPAIGN, window.start, window.end).await.unwrap();
    assert_eq!((tally.passed_to_agent, tally.abandoned, tally.silence), (1, 1, 1));
    let revisions = database.call_revisions(CAMPAIGN, window.start, window.end, 100).await.unwrap();
    assert_eq!(revisions.len(), 5, "also those of the call that counts elsewhere now");
    let by_facts = Tally::of(revisions.iter().map(|one| (one.revision, one.rules, &one.call)), &window);
    assert_eq!(by_facts, tally, "the facts give what was recorded");
    assert_eq!(standing(&database).await.began_at, at(0));

    let owner = own.owner().await;
    for forbidden in
        ["UPDATE audit.call_log SET revision = 9", "DELETE FROM audit.call_log", "TRUNCATE audit.call_log"]
    {
        assert!(sqlx::raw_sql(forbidden).execute(&owner).await.is_err(), "{forbidden}");
    }
    let mut reader = own.as_role(READER_ROLE).await;
    let seen: Vec<(String, i32)> =
        sqlx::query_as("SELECT disposition, revision FROM audit.calls ORDER BY conversation_id")
            .fetch_all(&mut reader)
            .await
            .unwrap();
    let passed = || "passed_to_agent".to_owned();
    assert_eq!(seen, [(passed(), 2), (passed(), 2), ("abandoned".to_owned(), 1)]);
}

fn rows(window: Window, tally: &Tally) -> Vec<FigureRow> {
    let terms = Terms { cap: 0.03, denominator: Denominator::CallsThatReachedQueue, estimates: None };
    let row = |figure| FigureRow {
        window,
        figure,
        answered: Some(tally.answered()),
        abandoned: Some(tally.abandoned),
        cap: terms.cap,
        time_zone: "UTC".to_owned(),
        counts: json!({ "calls": tally }),
        terms: json!({ "terms": terms }),
    };
    figures(tally, &Default::default(), &terms).into_iter().map(row).collect()
}

#[tokio::test]
async fn figures_are_stated_once_as_known_and_beside_it_as_restated() {
    let (_own, database) = TestDatabase::migrated().await;
    record(&database, &[call(1, 0, Some(100))]).await;
    let (first, window) = (standing(&database).await, day(&utc()));
    let known = Tally { passed_to_agent: 90, abandoned: 10, ..Tally::default() };
    let restated = Tally { passed_to_agent: 98, abandoned: 2, ..Tally::default() };
    assert!(
        database.state_figures(&first, Statement::Known, window.end, &rows(window, &known)).await.unwrap()
    );
    let late = database.state_figures(&first, Statement::Known, window.end, &rows(window, &restated)).await;
    assert!(!late.unwrap(), "somebody else was faster");
    let second = standing(&database).await;
    assert_eq!((second.known_upto, second.restated_upto), (window.end, first.restated_upto));
    let stated = rows(window, &restated);
    assert!(database.state_figures(&second, Statement::Restated, window.end, &stated).await.unwrap());
    // The day after is open: its figures move.
    let open = Window { start: window.end, ..utc().day(window.day.tomorrow().unwrap()) };
    for tally in [known, restated] {
        database.put_open_figures(CAMPAIGN, &[WindowKind::Day], &rows(open, &tally), &[]).await.unwrap();
    }
    type Seen = (String, String, i64, i64, Option<f64>, Option<bool>);
    let seen: Vec<Seen> = sqlx::query_as(
        "SELECT day::text, statement, answered, abandoned, abandonment_rate, over_cap
         FROM audit.campaign_compliance WHERE campaign_id = $1 AND figure = 'live_answer' AND \"window\" = 'day'
         ORDER BY day, statement",
    )
    .bind(CAMPAIGN)
    .fetch_all(database.pool())
    .await
    .unwrap();
    let row = |day: &str, statement: &str, abandoned: i64, over| {
        (day.to_owned(), statement.to_owned(), 100, abandoned, Some(abandoned as f64 / 100.0), Some(over))
    };
    assert_eq!(
        seen,
        [
            row("2026-01-02", "known", 10, true),
            row("2026-01-02", "restated", 2, false),
            row("2026-01-03", "so_far", 2, false),
        ]
    );
    let unknown: Vec<(String, Option<f64>, Option<bool>)> = sqlx::query_as(
        "SELECT not_known, rate, over_cap FROM audit.campaign_compliance
         WHERE figure = 'uk_form' AND statement = 'known'",
    )
    .fetch_all(database.pool())
    .await
    .unwrap();
    assert_eq!(unknown.len(), 1);
    assert!(unknown[0].0.contains("estimates") && unknown[0].1.is_none() && unknown[0].2.is_none());
}

#[tokio::test]
async fn calls_are_looked_up_again_in_order_and_none_twice() {
    let (_own, database) = TestDatabase::migrated().await;
    let calls: Vec<RecordedCall> =
        (0..7).map(|number| call(number, i64::from(number / 2) * 1_000, None)).collect();
    record(&database, &calls).await;
    let mut seen = Vec::new();
    let before = at(2_500);
    loop {
        let (upto, id) = standing(&database).await.again_upto;
        let next = database.calls_to_look_up_again(CAMPAIGN, (upto, &id), before, 2).await.unwrap();
        let Some(last) = next.last() else { break };
        // The first is found to have been taken; nothing is known of the others.
        let found = if seen.is_empty() { vec![call(0, 0, Some(700))] } else { Vec::new() };
        let changed = database
            .record_calls_again(CAMPAIGN, &found, (last.counted_at(), &last.conversation_id))
            .await
            .unwrap();
        assert_eq!(changed, found.len() as u64);
        seen.extend(next.iter().map(|call| call.conversation_id.clone()));
    }
    // The campaign's own beginning is where looking up begins: its first call is among them.
    let expected: Vec<String> = (0..6).map(|number| format!("conversation-{number:04}")).collect();
    assert_eq!(seen, expected);
    let window = utc().hour(at(0));
    let tally = database.tally_calls(CAMPAIGN, window.start, window.end).await.unwrap();
    assert_eq!((tally.passed_to_agent, tally.abandoned), (1, 6));
}

#[tokio::test]
async fn counters_count_each_poll_once_and_what_nobody_counts_is_not_known() {
    let (_own, database) = TestDatabase::migrated().await;
    let mut decisions: Vec<Value> = (1..=4).map(|sequence| decision(CAMPAIGN, sequence)).collect();
    // Another decision on the same poll, as a policy in shadow makes it.
    let mut shadow = decision(CAMPAIGN, 5);
    shadow["eventTime"] = decisions[3]["eventTime"].clone();
    shadow["mode"] = "shadow".into();
    decisions.push(shadow);
    let mut silent = decision("silent", 1);
    silent["inputs"]["answered"] = Value::Null;
    silent["inputs"].as_object_mut().unwrap().remove("abandoned");
    decisions.push(silent);
    fill(&database, &decisions, &[]).await;
    // A poll tells of the time up to it.
    let counters = database.campaign_counters(CAMPAIGN, at(0), at(90_000)).await.unwrap();
    assert_eq!((counters.attempts, counters.answers, counters.abandoned), (None, Some(300), Some(12)));
    let none = database.campaign_counters("silent", at(-1), at(90_000)).await.unwrap();
    assert_eq!(none, Default::default());
    let polls = database.campaign_polls(CAMPAIGN, at(0), at(90_000), 10).await.unwrap();
    assert_eq!(polls.iter().map(|(when, _)| *when).collect::<Vec<_>>(), [at(30_000), at(60_000), at(90_000)]);

    let ids = [CAMPAIGN.to_owned(), "silent".to_owned(), "unheard".to_owned()];
    database.take_up_campaigns(&ids, Duration::from_secs(86_400 * 36_500)).await.unwrap();
    let standings = database.compliance_standings("", 10).await.unwrap();
    let known: Vec<(&str, Timestamp)> =
        standings.iter().map(|standing| (standing.campaign_id.as_str(), standing.known_upto)).collect();
    assert_eq!(known, [(CAMPAIGN, at(0)), ("silent", at(0))]);
}

#[tokio::test]
async fn records_end_with_their_retention_and_leave_no_hole() {
    let (own, database) = TestDatabase::migrated().await;
    let decisions: Vec<Value> = (1..=6).map(|sequence| decision(CAMPAIGN, sequence)).collect();
    let outcomes: Vec<Value> = (1..=6).map(|sequence| outcome(CAMPAIGN, sequence)).collect();
    fill(&database, &decisions, &outcomes).await;
    record(&database, &[call(1, 0, None), call(2, 0, Some(9))]).await;
    let count = async |table: &str| -> i64 {
        let sql = format!("SELECT count(*) FROM audit.{table}");
        sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_one(database.pool()).await.unwrap()
    };
    let since = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond()).millis_since(at(75_000));
    let kept_for = Duration::from_millis(since as u64);
    // Decided at 0, 30 and 60 s: older than that. The calls were recorded just now.
    assert_eq!(database.prune_campaign_records(kept_for, true).await.unwrap(), 3);
    assert_eq!((count("decisions").await, count("outcomes").await, count("calls").await), (3, 3, 2));
    assert_eq!(count("gaps").await, 0);
    assert_eq!(database.prune_campaign_records(kept_for, true).await.unwrap(), 0);
    let short = database
        .prune_campaign_records(Duration::from_secs(29 * 86_400), true)
        .await
        .unwrap_err()
        .to_string();
    assert!(short.contains("30 days"), "{short}");

    // Whoever may prune may not delete.
    let mut app = own.as_role(APP_ROLE).await;
    for forbidden in [
        "SET trunkline.pruning = 'on'; DELETE FROM audit.decision_log",
        "SET trunkline.pruning = 'on'; DELETE FROM audit.call_log",
    ] {
        assert!(sqlx::raw_sql(forbidden).execute(&mut app).await.is_err(), "{forbidden}");
    }
    let mut reader = own.as_role(READER_ROLE).await;
    let pruned = sqlx::raw_sql("SELECT audit.prune_campaign_records(interval '40 days', 1)")
        .execute(&mut reader)
        .await;
    assert!(pruned.is_err());
}

/// Runs a public tool in a folder; whether it was content.
fn run(folder: &Path, program: &str, arguments: &[&str]) -> bool {
    let output = Command::new(program).args(arguments).current_dir(folder).output().expect(program);
    if !output.status.success() {
        println!("{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
    output.status.success()
}

fn export(own: &TestDatabase, folder: &Path, key: Option<&str>, out: &str) -> Process {
    let mut environment = vec![("TRUNKLINE_POSTGRES__URL".to_owned(), own.url())];
    if let Some(key) = key {
        environment.push(("TRUNKLINE_COMPLIANCE__SIGNING_KEY_FILE".to_owned(), key.to_owned()));
    }
    let out = folder.join(out).to_string_lossy().into_owned();
    let arguments =
        ["compliance", "export", "--campaign", CAMPAIGN, "--period", "2026-01-02", "--out", &out, "--json"];
    Process::start("export", &arguments, &environment)
}

const VERIFY: &str =
    "pkeyutl -verify -pubin -inkey public-key.pem -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig";
const DIGESTS: [&str; 3] = ["--check", "--strict", "SHA256SUMS"];

/// Some calls and decisions of one day, its figures stated, and packs of it, made one after the other.
async fn exported(folder: &Path, packs: &[&str]) -> TestDatabase {
    let (own, database) = TestDatabase::migrated().await;
    fill(&database, &[decision(CAMPAIGN, 1), decision(CAMPAIGN, 2)], &[outcome(CAMPAIGN, 1)]).await;
    record(&database, &[call(1, 0, Some(100)), call(2, 1_000, None)]).await;
    record(&database, &[call(2, 1_000, Some(5_000))]).await;
    let (first, window) = (standing(&database).await, day(&utc()));
    let tally = database.tally_calls(CAMPAIGN, window.start, window.end).await.unwrap();
    database.state_figures(&first, Statement::Known, window.end, &rows(window, &tally)).await.unwrap();
    assert!(run(folder, "openssl", &["genpkey", "-algorithm", "ed25519", "-out", "key.pem"]));
    let key = folder.join("key.pem").to_string_lossy().into_owned();
    for out in packs {
        let mut exporting = export(&own, folder, Some(&key), out);
        assert!(exporting.wait(Duration::from_secs(60)).success(), "{}", exporting.log());
    }
    assert!(run(folder, "tar", &["-xf", packs[0]]));
    own
}

fn unpacked(folder: &Path) -> PathBuf {
    folder.join(format!("compliance-{CAMPAIGN}-2026-01-02"))
}

#[tokio::test]
async fn an_auditor_can_check_an_evidence_pack_with_public_tools() {
    let folder = tempfile::tempdir().unwrap();
    let own = exported(folder.path(), &["one.tar", "two.tar"]).await;
    let bytes = |name: &str| std::fs::read(folder.path().join(name)).unwrap();
    assert!(bytes("one.tar") == bytes("two.tar"), "the same rows give the same pack");
    let pack = unpacked(folder.path());
    assert!(run(&pack, "sha256sum", &DIGESTS));
    assert!(run(&pack, "openssl", &VERIFY.split(' ').collect::<Vec<_>>()));

    // What was changed after it was written shows, in a file and in the list of digests.
    let read = |name: &str| std::fs::read_to_string(pack.join(name)).unwrap();
    let write = |name: &str, content: String| {
        let path = pack.join(name);
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, content).unwrap();
    };
    write("calls.csv", read("calls.csv").replace("abandoned", "passed_to_agent"));
    assert!(!run(&pack, "sha256sum", &DIGESTS));
    let digests = read("SHA256SUMS");
    let other = if digests.starts_with('a') { "b" } else { "a" };
    write("SHA256SUMS", format!("{other}{}", &digests[1..]));
    assert!(!run(&pack, "openssl", &VERIFY.split(' ').collect::<Vec<_>>()));

    let mut unsigned = export(&own, folder.path(), None, "unsigned.tar");
    assert!(unsigned.wait(Duration::from_secs(60)).success());
    assert!(unsigned.log().contains("not signed"), "{}", unsigned.log());
}

#[tokio::test]
async fn an_evidence_pack_has_all_that_its_figures_are_made_of() {
    let folder = tempfile::tempdir().unwrap();
    let _own = exported(folder.path(), &["one.tar"]).await;
    let pack = unpacked(folder.path());
    let read = |name: &str| std::fs::read_to_string(pack.join(name)).unwrap();
    let digests = read("SHA256SUMS");
    let named: Vec<&str> = digests.lines().map(|line| line.split_once("  ").unwrap().1).collect();
    let content = [
        "README.txt",
        "calls.csv",
        "counters.csv",
        "decisions.jsonl",
        "definitions.md",
        "figures.json",
        "public-key.pem",
    ];
    assert_eq!(named, content);
    assert_eq!(read("decisions.jsonl").lines().count(), 2);
    assert!(read("decisions.jsonl").contains("\"status\": \"applied\""));
    assert_eq!(read("calls.csv").lines().count(), 4, "a heading and three revisions");
    let told: Value = serde_json::from_str(&read("figures.json")).unwrap();
    assert_eq!(told["counted"]["calls"]["abandoned"], 1);
    // Two calls against a hundred answers of the statistics: calls are missing, so those count.
    assert_eq!(told["counted"]["figures"][0]["rate"], 0.04);
    let stated = told["stated"].as_array().unwrap();
    let is_same = |figure: &Value| figure["figure"] == "live_answer" && figure["rate"] == 0.5;
    assert!(stated.iter().any(is_same), "{stated:?}");
    assert!(read("definitions.md").contains("16 CFR 310.4(b)(4)"));
}

#[tokio::test]
async fn figures_are_shown_with_the_months_attempts() {
    let (own, database) = TestDatabase::migrated().await;
    let now = Timestamp::from_millis(jiff::Timestamp::now().as_millisecond());
    let mut today = decision(CAMPAIGN, 1);
    today["eventTime"] = json!(now);
    today["inputs"]["attempted"] = 500.into();
    fill(&database, &[today], &[]).await;
    let environment = [
        ("TRUNKLINE_POSTGRES__URL".to_owned(), own.url()),
        ("TRUNKLINE_COMPLIANCE__ATTEMPTS_PER_MONTH".to_owned(), "15000".to_owned()),
    ];
    let mut showing = Process::start("show", &["compliance", "show", "--campaign", CAMPAIGN], &environment);
    let mut shown = String::new();
    while let Some(line) = showing.line() {
        shown.push_str(&line);
        shown.push('\n');
    }
    assert!(showing.wait(Duration::from_secs(60)).success(), "{}", showing.log());
    assert!(shown.contains("4.00 %") && shown.contains("OVER"), "{shown}");
    assert!(shown.contains("per live answer 5.00") && shown.contains("of 15000 covered"), "{shown}");
    let mut unknown = Process::start("show", &["compliance", "show", "--campaign", "nobody"], &environment);
    assert!(!unknown.wait(Duration::from_secs(60)).success());
    assert!(unknown.log().contains("nothing is recorded of campaign"), "{}", unknown.log());
}
