//! The outbox's table: what is appended is read back in order, and nothing that an
//! open transaction may still precede.

use std::collections::BTreeSet;

use sqlx::PgPool;
use trunkline::postgres::Database;
use trunkline::postgres::outbox::{Message, append, append_all};

use crate::support::postgres::TestDatabase;

const EVERYTHING: (i64, i64) = (1_000, 1 << 30);

async fn waiting(database: &Database, mark: i64) -> Vec<trunkline::postgres::outbox::Waiting> {
    database.outbox_after(mark, EVERYTHING.0, EVERYTHING.1).await.unwrap()
}

async fn keys(database: &Database, mark: i64) -> Vec<String> {
    let waiting = waiting(database, mark).await;
    waiting.into_iter().map(|message| String::from_utf8(message.key.unwrap()).unwrap()).collect()
}

async fn put(pool: &PgPool, key: &str) {
    let mut transaction = pool.begin().await.unwrap();
    append(&mut transaction, &Message::new("t", key.as_bytes(), b"{}")).await.unwrap();
    transaction.commit().await.unwrap();
}

#[tokio::test]
async fn a_message_comes_back_byte_for_byte() {
    let (_own, database) = TestDatabase::migrated().await;
    let value: Vec<u8> = (0..=255).collect();
    let mut message = Message::new("trunkline.settings.v1", b"k\0\xff", &value)
        .with_header("traceparent", b"00-1")
        .with_header("trunkline-error-reason", b"\0\xfe");
    message.described = false;
    let tombstone = Message { value: None, key: None, ..Message::new("t", b"", b"") };
    let mut transaction = database.pool().begin().await.unwrap();
    assert_eq!(append_all(&mut transaction, &[message, tombstone]).await.unwrap(), 2);
    transaction.commit().await.unwrap();
    let read = waiting(&database, 0).await;
    assert_eq!(read[0].topic, "trunkline.settings.v1");
    assert_eq!((read[0].key.as_deref(), read[0].value.as_deref()), (Some(&b"k\0\xff"[..]), Some(&value[..])));
    let headers = [
        ("traceparent".to_owned(), b"00-1".to_vec()),
        ("trunkline-error-reason".to_owned(), b"\0\xfe".to_vec()),
    ];
    assert_eq!(read[0].headers, headers);
    assert!(!read[0].described);
    assert_eq!((&read[1].key, &read[1].value, read[1].described), (&None, &None, true));
}

#[tokio::test]
async fn a_dedupe_key_lets_one_message_through() {
    let (_own, database) = TestDatabase::migrated().await;
    let message = |key: &'static str, once: &'static str| Message::new("t", key.as_bytes(), b"").once(once);
    let mut transaction = database.pool().begin().await.unwrap();
    let batch = [message("a", "one"), message("b", "two"), message("c", "one")];
    assert_eq!(append_all(&mut transaction, &batch).await.unwrap(), 2);
    transaction.commit().await.unwrap();
    let mut transaction = database.pool().begin().await.unwrap();
    assert!(!append(&mut transaction, &message("d", "two")).await.unwrap());
    assert!(append(&mut transaction, &message("e", "three")).await.unwrap());
    transaction.rollback().await.unwrap();
    let mut transaction = database.pool().begin().await.unwrap();
    assert!(append(&mut transaction, &message("f", "three")).await.unwrap(), "given up, so never said");
    transaction.commit().await.unwrap();
    assert_eq!(keys(&database, 0).await, ["a", "b", "f"]);
}

#[tokio::test]
async fn what_commits_later_with_a_smaller_id_is_waited_for() {
    let (_own, database) = TestDatabase::migrated().await;
    put(database.pool(), "first").await;
    let mut slow = database.pool().begin().await.unwrap();
    append(&mut slow, &Message::new("t", b"slow", b"")).await.unwrap();
    put(database.pool(), "quick").await;
    assert_eq!(keys(&database, 0).await, ["first"], "an open transaction has an id before `quick`");
    // A rolled back savepoint takes its announcement along; the next append makes a new one.
    sqlx::raw_sql("SAVEPOINT s").execute(&mut *slow).await.unwrap();
    append(&mut slow, &Message::new("t", b"given up", b"")).await.unwrap();
    sqlx::raw_sql("ROLLBACK TO SAVEPOINT s").execute(&mut *slow).await.unwrap();
    assert_eq!(keys(&database, 0).await, ["first"]);
    append(&mut slow, &Message::new("t", b"slow too", b"")).await.unwrap();
    slow.commit().await.unwrap();
    assert_eq!(keys(&database, 0).await, ["first", "slow", "quick", "slow too"]);
    let mark = waiting(&database, 0).await[1].id;
    assert_eq!(keys(&database, mark).await, ["quick", "slow too"]);
}

/// Many writers, some of which give up: whoever reads on from its mark sees every
/// message that was committed, once, in the order of the ids.
#[tokio::test]
async fn a_reader_that_follows_its_mark_misses_nothing() {
    const WRITERS: usize = 6;
    const EACH: usize = 60;
    let (_own, database) = TestDatabase::migrated().await;
    let writers: Vec<_> = (0..WRITERS)
        .map(|writer| {
            let pool = database.pool().clone();
            tokio::spawn(async move {
                for n in 0..EACH {
                    let mut transaction = pool.begin().await.unwrap();
                    for part in 0..3 {
                        let key = format!("{writer}-{n}-{part}");
                        append(&mut transaction, &Message::new("t", key.as_bytes(), b"")).await.unwrap();
                        tokio::task::yield_now().await;
                    }
                    match n % 5 {
                        0 => transaction.rollback().await.unwrap(),
                        _ => transaction.commit().await.unwrap(),
                    }
                }
            })
        })
        .collect();
    let (mut mark, mut seen) = (0, Vec::new());
    loop {
        let ended = writers.iter().all(tokio::task::JoinHandle::is_finished);
        let read = database.outbox_after(mark, 7, EVERYTHING.1).await.unwrap();
        if read.is_empty() && ended {
            break;
        }
        for message in read {
            assert!(message.id > mark);
            mark = message.id;
            seen.push(String::from_utf8(message.key.unwrap()).unwrap());
        }
    }
    for writer in writers {
        writer.await.unwrap();
    }
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(seen.len(), unique.len(), "some came twice");
    assert_eq!(seen.len(), WRITERS * EACH * 3 * 4 / 5);
}

#[tokio::test]
async fn batches_are_bounded_in_number_and_bytes() {
    let (_own, database) = TestDatabase::migrated().await;
    let value = vec![b'x'; 1_000];
    let messages: Vec<_> = (0..10).map(|_| Message::new("t", b"k", &value)).collect();
    let mut transaction = database.pool().begin().await.unwrap();
    append_all(&mut transaction, &messages).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(database.outbox_after(0, 4, 1 << 20).await.unwrap().len(), 4);
    assert_eq!(database.outbox_after(0, 100, 2_500).await.unwrap().len(), 3);
    assert_eq!(
        database.outbox_after(0, 100, 1).await.unwrap().len(),
        1,
        "one goes through whatever its size"
    );
    let backlog = database.outbox_backlog(0).await.unwrap();
    assert_eq!(backlog.messages, 10);

    let large = vec![0; 16 * 1024 * 1024 + 1];
    let mut transaction = database.pool().begin().await.unwrap();
    let refused = append(&mut transaction, &Message { key: None, ..Message::new("t", b"", &large) }).await;
    assert!(matches!(refused, Err(sqlx::Error::Database(_))), "{refused:?}");
}
