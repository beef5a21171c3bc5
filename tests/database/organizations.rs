//! Whose a decision is, where a deployment serves several organisations.

use trunkline::kafka::subscription::TopicPartition;
use trunkline::kafka::topic_ids::TopicIds;
use trunkline::postgres::ledger::Filter;
use trunkline::sinks::audit::AuditWriter;
use trunkline::topics;

use crate::support::postgres::TestDatabase;
use crate::support::records::{decision, no_kafka, outcome, record};

#[tokio::test]
async fn decisions_are_told_apart_by_organisation() {
    let (own, database) = TestDatabase::migrated().await;
    let mut writer = AuditWriter::new(database.clone(), &no_kafka());
    let partitions =
        [&topics::DIAL_DECISIONS, &topics::OUTCOMES].map(|topic| TopicPartition { topic, partition: 0 });
    writer.positions(&partitions, &TopicIds::new()).await.unwrap();
    database.know_organizations(&["emea".to_owned()]).await.unwrap();
    database.know_organizations(&["emea".to_owned(), "apac".to_owned()]).await.unwrap();
    let keys = ["a", "emea:a", "other:a", "emea"];
    let records: Vec<_> = keys
        .iter()
        .zip(0..)
        .flat_map(|(key, offset)| {
            let decided = record(&topics::DIAL_DECISIONS, offset, &decision(key, 1));
            [decided, record(&topics::OUTCOMES, offset, &outcome(key, 1))]
        })
        .collect();
    writer.write(&records, &[]).await.unwrap();
    let told = async |organization: Option<&str>| {
        let filter = Filter { organization: organization.map(str::to_owned), ..Filter::default() };
        let entries = database.decisions(&filter, 10).await.unwrap();
        let mut told: Vec<_> = entries.into_iter().map(|entry| (entry.key, entry.organization)).collect();
        told.sort();
        told
    };
    let of_emea = ("emea:a".to_owned(), Some("emea".to_owned()));
    assert_eq!(told(Some("emea")).await, std::slice::from_ref(&of_emea));
    assert_eq!(told(Some("apac")).await, []);
    let none = |key: &str| (key.to_owned(), None);
    assert_eq!(told(None).await, [none("a"), none("emea"), of_emea, none("other:a")]);

    let mut reader = own.as_role("trunkline_reader").await;
    for view in ["decisions", "outcomes", "explained"] {
        let sql = format!("SELECT key FROM audit.{view} WHERE organization = 'emea'");
        let found: Vec<String> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(sql)).fetch_all(&mut reader).await.unwrap();
        assert_eq!(found, ["emea:a"], "{view}");
    }
}
