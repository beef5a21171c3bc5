//! What people call things, kept beside the ledger.

use tokio_util::sync::CancellationToken;
use trunkline::model::name::{Kind, Named};
use trunkline::postgres::ledger::Filter;
use trunkline::sources::Names;
use trunkline::topology::keep_names;

use crate::support::postgres::TestDatabase;
use crate::support::records::{decision, fill};
use crate::support::until;

fn named(kind: Kind, id: &str, name: &str) -> Named {
    Named::new(kind, id, name).expect("a name")
}

#[tokio::test]
async fn new_and_changed_names_are_written_and_others_write_nothing() {
    let (own, database) = TestDatabase::migrated().await;
    let mut names = vec![named(Kind::Campaign, "a", "Renewals"), named(Kind::Flow, "a", "Main menu")];
    assert_eq!(database.keep_names(&names).await.unwrap(), 2);
    let since = "SELECT kind, name, seen_at::text, xmin::text FROM trunkline.platform_names ORDER BY kind";
    let rows = async || -> Vec<(String, String, String, String)> {
        sqlx::query_as(since).fetch_all(&own.owner().await).await.unwrap()
    };
    let before = rows().await;
    assert_eq!(database.keep_names(&names).await.unwrap(), 0);
    assert_eq!(rows().await, before, "not even the same again");

    names[0].name = "Renewals, spring".to_owned();
    assert_eq!(database.keep_names(&names).await.unwrap(), 1);
    let after = rows().await;
    assert_eq!((&*after[0].1, &*after[1].1), ("Renewals, spring", "Main menu"));
    assert!(after[0].2 > before[0].2 && after[1] == before[1]);

    let read = database.names_of(["a", "b", "a"]).await;
    assert_eq!(
        (read.of(Kind::Campaign, "a"), read.of(Kind::Flow, "a")),
        (Some("Renewals, spring"), Some("Main menu"))
    );
    assert_eq!((read.of(Kind::Route, "a"), read.of(Kind::Campaign, "b")), (None, None));
}

#[tokio::test]
async fn decisions_tell_names_and_are_found_by_them() {
    let (own, database) = TestDatabase::migrated().await;
    fill(&database, &[decision("a", 1), decision("emea:b", 1), decision("c", 1)], &[]).await;
    let all = [
        named(Kind::Campaign, "a", "Renewals 100%"),
        named(Kind::Campaign, "emea:b", "renewals"),
        named(Kind::Flow, "c", "Menu"),
    ];
    database.keep_names(&all).await.unwrap();
    let called = async |text: &str| database.ids_called(text, 10).await.unwrap();
    assert_eq!(called("RENEWALS").await, ["emea:b", "a"], "what is called exactly so comes first");
    assert_eq!(called("0%").await, ["a"], "no sign stands for others");
    assert_eq!(called("_").await, [""; 0]);

    let filter =
        Filter { key: Some("renewals".into()), or_keys: called("renewals").await, ..Filter::default() };
    let mut told: Vec<_> =
        database.decisions(&filter, 10).await.unwrap().into_iter().map(|it| (it.key, it.name)).collect();
    told.sort();
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(told, [("a".to_owned(), some("Renewals 100%")), ("emea:b".to_owned(), some("renewals"))]);
    let other = Filter { key: Some("c".into()), ..Filter::default() };
    assert_eq!(database.decisions(&other, 10).await.unwrap()[0].name, None, "a flow's name is no campaign's");

    // Without them everything is shown as before.
    sqlx::query("DROP VIEW trunkline.names").execute(&own.owner().await).await.unwrap();
    assert_eq!(database.decisions(&filter, 10).await.unwrap().len(), 2);
    assert_eq!(database.newest_by_key("dial", 10).await.unwrap().len(), 0, "they are old");
}

#[tokio::test]
async fn what_pollers_tell_is_kept_until_the_end() {
    let (_own, database) = TestDatabase::migrated().await;
    let (names, told) = Names::channel(1);
    let stop = CancellationToken::new();
    let keeping = tokio::spawn(keep_names(database.clone(), told, stop.clone()));
    for name in ["Renewals", "Renewals, spring"] {
        // As polls do: again and again, whether there was room for it or not.
        until("the name to be kept", async || {
            names.tell(Kind::Campaign, "a", Some(name));
            let kept = database.names_of(["a"]).await;
            (kept.of(Kind::Campaign, "a") == Some(name)).then_some(())
        })
        .await;
    }
    drop(names);
    stop.cancel();
    keeping.await.expect("ends");
}

#[tokio::test]
async fn a_routing_configuration_is_called_as_it_is_in_force() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    let publish =
        "INSERT INTO trunkline.route_revisions VALUES ('support', 1, '{\"name\": \"Support\"}', 'test'),
                                                             ('support', 2, '{\"name\": \"Help\"}', 'test')";
    sqlx::query(publish).execute(&owner).await.unwrap();
    assert_eq!(database.names_of(["support"]).await.of(Kind::Route, "support"), None);
    let enforce = "INSERT INTO trunkline.route_counters (configuration_id, revision) VALUES ('support', 2)";
    sqlx::query(enforce).execute(&owner).await.unwrap();
    assert_eq!(database.names_of(["support"]).await.of_key("delivery", "support"), Some("Help"));
}
