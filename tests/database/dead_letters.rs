//! Dead letters in the ledger: kept byte for byte, each once, sent again once.

use trunkline::kafka::subscription::{InboundRecord, TopicPartition};
use trunkline::kafka::topic_ids::TopicIds;
use trunkline::model::Timestamp;
use trunkline::postgres::Database;
use trunkline::postgres::dead_letters::{DeadLetterId, Filter, Redrive};
use trunkline::sinks::audit::AuditWriter;
use trunkline::topics::DEAD_LETTERS;

use crate::support::postgres::TestDatabase;
use crate::support::records::no_kafka;

const LETTERS: TopicPartition = TopicPartition { topic: &DEAD_LETTERS, partition: 0 };
const MIB: usize = 1_024 * 1_024;

fn letter(offset: i64, source: i64, value: Option<Vec<u8>>) -> InboundRecord {
    let header = |name: &str, value: &str| (format!("trunkline-error-{name}"), value.as_bytes().to_vec());
    InboundRecord {
        topic: &DEAD_LETTERS,
        partition: 0,
        offset,
        timestamp_ms: Some(0),
        key: Some(b"k\xff".to_vec()),
        value,
        headers: vec![
            ("trace".to_owned(), b"\0\xfe".to_vec()),
            header("stage", "windowing"),
            header("reason", "bad_json: at 7"),
            header("topic", "t-genesys.campaign-stats.v1"),
            header("partition", "3"),
            header("offset", &source.to_string()),
            header("time", &format!("2026-01-02T03:04:{:02}.678Z", offset % 60)),
        ],
    }
}

async fn store(database: &Database, records: &[InboundRecord]) -> u64 {
    let mut writer = AuditWriter::new(database.clone(), &no_kafka());
    writer.positions(&[LETTERS], &TopicIds::new()).await.unwrap();
    writer.write(records, &[]).await.unwrap().written.dead_letters
}

fn topic() -> String {
    no_kafka().topic(&DEAD_LETTERS)
}

#[tokio::test]
async fn bytes_of_any_kind_and_size_come_back_as_they_were() {
    let (own, database) = TestDatabase::migrated().await;
    let large: Vec<u8> = (0..16 * MIB - 500).map(|n| (n % 251) as u8).collect();
    let values = [Some(large), Some(b"\0\xff".to_vec()), Some(Vec::new()), None, Some(b"{\"a\":1}".to_vec())];
    let records: Vec<_> =
        (0..).zip(&values).map(|(offset, value)| letter(offset, 100 + offset, value.clone())).collect();
    assert_eq!(store(&database, &records).await, 5);
    assert_eq!(store(&database, &records).await, 0, "a second delivery changes nothing");
    for (offset, value) in (0..).zip(&values) {
        let id = DeadLetterId { partition: 0, offset };
        let kept = database.dead_letter(&topic(), id).await.unwrap().unwrap();
        assert!(kept.value == *value, "value {offset}");
        assert_eq!(kept.summary.key.as_deref(), Some(&b"k\xff"[..]));
        assert_eq!(kept.headers, [("trace".to_owned(), b"\0\xfe".to_vec())]);
        assert_eq!((kept.summary.partition, kept.summary.offset), (Some(3), Some(100 + offset)));
    }

    let mut reader = own.as_role("trunkline_reader").await;
    let rows: Vec<(String, String, Option<String>)> = sqlx::query_as(
        "SELECT id, key, value FROM audit.dead_letters WHERE \"offset\" > 100 ORDER BY \"offset\"",
    )
    .fetch_all(&mut reader)
    .await
    .unwrap();
    let values: Vec<_> = rows.iter().map(|(_, _, value)| value.as_deref()).collect();
    assert_eq!(values, [Some("\\x00ff"), Some(""), None, Some("{\"a\":1}")]);
    assert_eq!((rows[3].0.as_str(), rows[3].1.as_str()), ("0/4", "\\x6bff"));
    let mut app = own.as_role("trunkline_app").await;
    for change in ["DELETE FROM audit.dead_letter_log", "UPDATE audit.redrive_log SET who = 'nobody'"] {
        assert!(sqlx::query(change).execute(&mut app).await.is_err(), "{change}");
    }
}

#[tokio::test]
async fn filters_narrow_the_list_and_newest_come_first() {
    let (_own, database) = TestDatabase::migrated().await;
    let mut records: Vec<_> = (0..5).map(|n| letter(n, n, Some(b"v".to_vec()))).collect();
    records[1].headers[1].1 = b"dialing".to_vec();
    records[2].headers[2].1 = b"too_deep".to_vec();
    store(&database, &records).await;
    let offsets = async |filter: Filter| -> Vec<i64> {
        let found = database.dead_letters(&topic(), &filter, 100).await.unwrap();
        found.iter().map(|letter| letter.id.offset).collect()
    };
    assert_eq!(offsets(Filter::default()).await, [4, 3, 2, 1, 0]);
    assert_eq!(offsets(Filter { stage: Some("dialing".into()), ..Filter::default() }).await, [1]);
    assert_eq!(offsets(Filter { reason: Some("too_".into()), ..Filter::default() }).await, [2]);
    let at = |second: u8| Some(format!("2026-01-02T03:04:0{second}.678Z").parse::<Timestamp>().unwrap());
    assert_eq!(offsets(Filter { from: at(1), to: at(3), ..Filter::default() }).await, [2, 1]);
    let topic = Some("t-genesys.campaign-stats.v1".to_owned());
    assert_eq!(offsets(Filter { topic, ..Filter::default() }).await.len(), 5);
    assert!(offsets(Filter { topic: Some("other".into()), ..Filter::default() }).await.is_empty());
}

#[tokio::test]
async fn one_record_is_sent_again_once_whichever_copy_is_named() {
    let (_own, database) = TestDatabase::migrated().await;
    let copies = [letter(0, 41, Some(b"v".to_vec())), letter(1, 41, Some(b"v".to_vec()))];
    store(&database, &copies).await;
    let redrive = async |offset| {
        let id = DeadLetterId { partition: 0, offset };
        let letter = database.dead_letter(&topic(), id).await.unwrap().unwrap();
        database.redrive(&topic(), &letter, "genesys.campaign-stats.v1", "somebody").await.unwrap()
    };
    let both = tokio::join!(redrive(0), redrive(1));
    let appended = [&both.0, &both.1].iter().filter(|result| ***result == Redrive::Appended).count();
    assert_eq!(appended, 1, "{both:?}");
    assert!(matches!(redrive(0).await, Redrive::Before { who, .. } if who == "somebody"));
    let waiting = database.outbox_after(0, 10, 1 << 20).await.unwrap();
    assert_eq!(waiting.len(), 1);
    let message = &waiting[0];
    assert_eq!((message.topic.as_str(), message.described), ("genesys.campaign-stats.v1", false));
    assert_eq!((message.key.as_deref(), message.value.as_deref()), (Some(&b"k\xff"[..]), Some(&b"v"[..])));
    assert_eq!(message.headers[0], ("trace".to_owned(), b"\0\xfe".to_vec()));
    assert_eq!(message.headers[1].0, "trunkline-redriven-from");
    let open = Filter { open: true, ..Filter::default() };
    assert!(database.dead_letters(&topic(), &open, 10).await.unwrap().is_empty(), "both copies are done");
}

#[tokio::test]
async fn letters_of_topics_made_again_are_kept_beside_the_former_and_sent_again_as_well() {
    let (_own, database) = TestDatabase::migrated().await;
    let id = DeadLetterId { partition: 0, offset: 0 };
    for made in 1..=2u128 {
        let mut writer = AuditWriter::new(database.clone(), &no_kafka());
        let ids = TopicIds::from([(topic(), Some(uuid::Uuid::from_u128(made)))]);
        writer.positions(&[LETTERS], &ids).await.unwrap();
        let mut record = letter(0, 41, Some(format!("value {made}").into_bytes()));
        let source = uuid::Uuid::from_u128(10 + made).to_string();
        record.headers.push(("trunkline-error-topic-id".to_owned(), source.into_bytes()));
        assert_eq!(writer.write(&[record], &[]).await.unwrap().written.dead_letters, 1);

        let letter = database.dead_letter(&topic(), id).await.unwrap().unwrap();
        assert_eq!(letter.value, Some(format!("value {made}").into_bytes()), "the last one of that place");
        assert_eq!(letter.summary.redriven_at, None);
        let sent =
            database.redrive(&topic(), &letter, "genesys.campaign-stats.v1", "somebody").await.unwrap();
        assert_eq!(sent, Redrive::Appended);
    }
    assert_eq!(database.dead_letters(&topic(), &Filter::default(), 10).await.unwrap().len(), 2);
    assert_eq!(database.outbox_after(0, 10, 1 << 20).await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_copy_that_does_not_know_its_topic_is_one_of_the_same_record() {
    let (_own, database) = TestDatabase::migrated().await;
    let mut knows = letter(1, 41, Some(b"v".to_vec()));
    let source = uuid::Uuid::from_u128(11).to_string();
    knows.headers.push(("trunkline-error-topic-id".to_owned(), source.into_bytes()));
    store(&database, &[letter(0, 41, Some(b"v".to_vec())), knows]).await;
    let redrive = async |offset| {
        let id = DeadLetterId { partition: 0, offset };
        let letter = database.dead_letter(&topic(), id).await.unwrap().unwrap();
        database.redrive(&topic(), &letter, "genesys.campaign-stats.v1", "somebody").await.unwrap()
    };
    assert_eq!(redrive(1).await, Redrive::Appended);
    assert!(matches!(redrive(0).await, Redrive::Before { .. }));
    assert_eq!(database.outbox_after(0, 10, 1 << 20).await.unwrap().len(), 1);
}
