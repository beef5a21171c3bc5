//! The rows of conversations on a real Postgres: locks, times, what is deleted, who may look.

use std::time::Duration;

use serde_json::{Value, json};
use sqlx::Connection;
use trunkline::model::Timestamp;
use trunkline::model::organization::OneOf;
use trunkline::postgres::enrichment::{Change, Row, State};
use trunkline::postgres::ledger::{Advance, Stored};
use trunkline::postgres::{APP_ROLE, Database, READER_ROLE};

use crate::support::postgres::TestDatabase;
use crate::support::until;

fn row(id: &str, state: State) -> Row {
    let at = Timestamp::from_millis(1_767_323_045_678);
    Row {
        conversation_id: id.to_owned(),
        summary: json!({
            "ended": true,
            "queueId": {"value": "q", "by": {}},
            "flow": {"value": {"id": "f", "version": "7"}, "by": {}},
        }),
        first_event_at: at,
        last_event_at: at.plus(Duration::from_millis(1)),
        position: (2, 40),
        state,
        attempts: 3,
        rounds: 9,
        enriched: None,
    }
}

fn begin(id: &str, ask_in: Duration) -> Change<'static> {
    Change { row: row(id, State::Pending), ask_in: Some(ask_in), details: None }
}

async fn add(database: &Database, changes: &[Change<'_>]) {
    let mut enrichment = database.enrichment().await.unwrap();
    assert!(enrichment.add(changes).await.unwrap());
    enrichment.commit().await.unwrap();
}

async fn change(database: &Database, changes: &[Change<'_>]) {
    let mut enrichment = database.enrichment().await.unwrap();
    enrichment.change(changes).await.unwrap();
    enrichment.commit().await.unwrap();
}

async fn due(database: &Database, except: &[&str]) -> Vec<String> {
    let except: Vec<String> = except.iter().map(|id| (*id).to_owned()).collect();
    let rows = database.due_conversations(&OneOf::default(), &except, 10).await.unwrap();
    rows.into_iter().map(|row| row.conversation_id).collect()
}

#[tokio::test]
async fn a_row_comes_back_as_it_was_written() {
    let (_own, database) = TestDatabase::migrated().await;
    add(&database, &[begin("b", Duration::ZERO), begin("a", Duration::ZERO)]).await;
    let mut enrichment = database.enrichment().await.unwrap();
    let rows = enrichment.lock(&["b", "a", "unknown"]).await.unwrap();
    assert_eq!(rows, [row("a", State::Pending), row("b", State::Pending)]);

    let (at, up_to) = (Timestamp::from_millis(1_767_323_099_999), rows[0].last_event_at);
    let done = Row { state: State::Done, enriched: Some((at, up_to)), ..row("a", State::Done) };
    let details = json!({"conversationId": "a", "n": [1.5, null, "ü"]});
    let changed = Change { row: done.clone(), ask_in: None, details: Some(&details) };
    enrichment.change(&[changed]).await.unwrap();
    enrichment.commit().await.unwrap();

    let mut enrichment = database.enrichment().await.unwrap();
    assert_eq!(enrichment.lock(&["a"]).await.unwrap(), std::slice::from_ref(&done));
    assert_eq!(enrichment.details(&["a", "b"]).await.unwrap(), [("a".to_owned(), details.clone())]);
    // Later changes without details leave them.
    enrichment.change(&[Change { row: done, ask_in: None, details: None }]).await.unwrap();
    assert_eq!(enrichment.details(&["a"]).await.unwrap(), [("a".to_owned(), details)]);
}

#[tokio::test]
async fn what_is_due_comes_longest_first_and_without_those_under_way() {
    let (_own, database) = TestDatabase::migrated().await;
    let later = Duration::from_secs(600);
    add(&database, &[begin("soon", Duration::ZERO)]).await;
    add(&database, &[begin("then", Duration::ZERO), begin("later", later)]).await;
    assert_eq!(due(&database, &[]).await, ["soon", "then"]);
    assert_eq!(due(&database, &["soon"]).await, ["then"]);
    change(&database, &[begin("soon", later)]).await;
    assert_eq!(due(&database, &[]).await, ["then"]);

    // A change that names no time leaves it; one that names one moves it.
    change(&database, &[Change { ask_in: None, ..begin("later", later) }]).await;
    assert_eq!(due(&database, &[]).await, ["then"]);
    change(&database, &[begin("later", Duration::ZERO)]).await;
    assert_eq!(due(&database, &[]).await, ["then", "later"]);

    let backlog = database.conversation_backlog().await.unwrap();
    assert_eq!(backlog.conversations, 3);
    assert!(backlog.oldest < Duration::from_secs(300), "{backlog:?}");
    change(&database, &[Change { row: row("then", State::NotAvailable), ask_in: None, details: None }]).await;
    assert_eq!(due(&database, &[]).await, ["later"]);
    let rows = database.due_conversations(&OneOf::default(), &[], 10).await.unwrap();
    assert_eq!((rows[0].rounds, rows[0].last_event_at), (9, row("later", State::Pending).last_event_at));
}

#[tokio::test]
async fn what_is_due_is_told_by_organisation() {
    let (_own, database) = TestDatabase::migrated().await;
    let all = ["a", "emea:a", "apac:a", "b:c"].map(|id| begin(id, Duration::ZERO));
    add(&database, &all).await;
    let further = vec!["apac".to_owned(), "emea".to_owned()];
    let of = async |name: Option<&str>| {
        let one = OneOf { name: name.map(str::to_owned), further: further.clone() };
        let rows = database.due_conversations(&one, &[], 10).await.unwrap();
        let mut ids: Vec<String> = rows.into_iter().map(|row| row.conversation_id).collect();
        ids.sort();
        ids
    };
    assert_eq!(of(None).await, ["a", "b:c"], "what only looks like a name is none");
    assert_eq!(of(Some("emea")).await, ["emea:a"]);
    assert_eq!(due(&database, &[]).await.len(), 4, "one organisation has all");
}

#[tokio::test]
async fn a_second_writer_sees_what_the_first_one_left() {
    let (_own, database) = TestDatabase::migrated().await;
    add(&database, &[begin("a", Duration::ZERO)]).await;
    let mut first = database.enrichment().await.unwrap();
    first.lock(&["a"]).await.unwrap();
    let second = tokio::spawn({
        let database = database.clone();
        async move {
            let mut second = database.enrichment().await.unwrap();
            second.lock(&["a"]).await.unwrap().remove(0).rounds
        }
    });
    until("the second one to wait for the lock", || async {
        let waiting: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_locks WHERE NOT granted
               AND pid IN (SELECT pid FROM pg_stat_activity WHERE datname = current_database())",
        )
        .fetch_one(database.pool())
        .await
        .unwrap();
        (waiting > 0).then_some(())
    })
    .await;
    let changed = Row { rounds: 10, ..row("a", State::Pending) };
    first.change(&[Change { row: changed, ask_in: None, details: None }]).await.unwrap();
    first.commit().await.unwrap();
    assert_eq!(second.await.unwrap(), 10);

    // One that was added meanwhile is not added again: the writer begins anew.
    let mut late = database.enrichment().await.unwrap();
    assert!(!late.add(&[begin("a", Duration::ZERO), begin("b", Duration::ZERO)]).await.unwrap());
    drop(late);
    assert_eq!(due(&database, &[]).await, ["a"], "nothing of it stays");
}

#[tokio::test]
async fn the_position_moves_with_the_rows_or_not_at_all() {
    let (_own, database) = TestDatabase::migrated().await;
    let stored = |next_offset| Stored { topic_id: None, next_offset };
    let advance = |expected: Option<i64>, next| {
        [Advance { topic: "t".into(), partition: 0, expected: expected.map(stored), next: stored(next) }]
    };
    let mut given_up = database.enrichment().await.unwrap();
    assert!(given_up.advance("c", &advance(None, 5)).await.unwrap());
    drop(given_up);
    let mut enrichment = database.enrichment().await.unwrap();
    assert!(enrichment.advance("c", &advance(None, 7)).await.unwrap());
    assert!(enrichment.add(&[begin("a", Duration::ZERO)]).await.unwrap());
    enrichment.commit().await.unwrap();
    assert_eq!(database.positions("c", &[("t".into(), 0)]).await.unwrap(), [Some(stored(7))]);
    let mut stale = database.enrichment().await.unwrap();
    assert!(!stale.advance("c", &advance(Some(5), 9)).await.unwrap());
}

#[tokio::test]
async fn what_is_settled_is_deleted_in_small_steps_and_taken_back_where_it_was_published() {
    let (own, database) = TestDatabase::migrated().await;
    let details = json!({});
    let ids: Vec<String> = (0..5).map(|n| format!("done-{n}")).collect();
    let all: Vec<Change<'_>> = ids
        .iter()
        .map(String::as_str)
        .chain(["pending", "given-up", "young"])
        .map(|id| begin(id, Duration::ZERO))
        .collect();
    add(&database, &all).await;
    let at = row("x", State::Done).last_event_at;
    let done = |id: &str| Change {
        row: Row { enriched: Some((at, at)), ..row(id, State::Done) },
        ask_in: None,
        details: Some(&details),
    };
    let mut settled: Vec<Change<'_>> = ids.iter().map(|id| done(id)).collect();
    settled.push(Change { row: row("given-up", State::NotAvailable), ask_in: None, details: None });
    change(&database, &settled).await;
    let owner = own.owner().await;
    sqlx::query(
        "UPDATE trunkline.conversations SET settled_at = now() - interval '2 hours' WHERE state <> 'pending'",
    )
    .execute(&owner)
    .await
    .unwrap();
    change(&database, &[done("young")]).await;

    let hour = Duration::from_secs(3_600);
    let mut steps = Vec::new();
    loop {
        match database.prune_conversations("topic", hour, 4).await.unwrap() {
            0 => break,
            pruned => steps.push(pruned),
        }
    }
    assert_eq!(steps, [4, 2]);
    let left: Vec<String> =
        sqlx::query_scalar("SELECT conversation_id FROM audit.conversations ORDER BY conversation_id")
            .fetch_all(database.pool())
            .await
            .unwrap();
    assert_eq!(left, ["pending", "young"]);
    let waiting = database.outbox_after(0, 100, 1 << 20).await.unwrap();
    let mut taken_back: Vec<String> = waiting
        .into_iter()
        .map(|message| {
            assert_eq!((message.topic.as_str(), message.value), ("topic", None));
            String::from_utf8(message.key.unwrap()).unwrap()
        })
        .collect();
    taken_back.sort();
    assert_eq!(taken_back, ids, "what was given up was never published");
}

#[tokio::test]
async fn readers_see_conversations_and_change_nothing() {
    let (own, database) = TestDatabase::migrated().await;
    add(&database, &[begin("a", Duration::ZERO)]).await;
    let mut reader = own.as_role(READER_ROLE).await;
    let seen: (String, bool, Option<String>, Option<String>, Option<String>, Option<Value>) = sqlx::query_as(
        "SELECT state, ended, queue_id, flow_version, media_type, details FROM audit.conversations",
    )
    .fetch_one(&mut reader)
    .await
    .unwrap();
    let expected = ("pending".to_owned(), true, Some("q".to_owned()), Some("7".to_owned()), None, None);
    assert_eq!(seen, expected);
    for forbidden in ["DELETE FROM audit.conversations", "SELECT count(*) FROM trunkline.conversations"] {
        assert!(sqlx::query(forbidden).execute(&mut reader).await.is_err(), "{forbidden}");
    }
    reader.close().await.unwrap();
    let mut app = own.as_role(APP_ROLE).await;
    assert!(sqlx::query("DROP TABLE trunkline.conversations").execute(&mut app).await.is_err());
}
