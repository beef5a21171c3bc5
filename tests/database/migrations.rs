//! Connecting and migrating: what is promised to operators and to instances that start at once.

use secrecy::SecretString;
use sqlx::Connection;
use trunkline::postgres::migrations::Standing;
use trunkline::postgres::{Database, Error, Settings};

use crate::support::postgres::TestDatabase;

#[tokio::test]
async fn migrating_twice_applies_once_and_status_tells() {
    let own = TestDatabase::create().await;
    let database = Database::connect(&own.settings()).unwrap();
    assert!(matches!(database.verify().await, Err(Error::MissingMigration { version: 1, .. })));
    assert!(database.status().await.unwrap().iter().all(|m| m.standing == Standing::Pending));

    let first = database.migrate().await.unwrap();
    let second = database.migrate().await.unwrap();

    assert_eq!(first.applied.first(), Some(&1));
    assert!(second.applied.is_empty());
    assert!(database.status().await.unwrap().iter().all(|m| m.standing == Standing::Applied));
    database.verify().await.unwrap();
}

#[tokio::test]
async fn instances_that_migrate_at_once_leave_one_whole_schema() {
    let own = TestDatabase::create().await;
    let settings = own.settings();
    let attempts: Vec<_> = (0..6)
        .map(|_| {
            let settings = settings.clone();
            tokio::spawn(async move { Database::connect(&settings).unwrap().migrate().await })
        })
        .collect();
    for attempt in attempts {
        attempt.await.unwrap().unwrap();
    }
    Database::connect(&settings).unwrap().verify().await.unwrap();
}

#[tokio::test]
async fn databases_of_one_cluster_that_migrate_at_once_share_the_roles() {
    let (one, other) = tokio::join!(TestDatabase::migrated(), TestDatabase::migrated());
    for (_, database) in [&one, &other] {
        let user: String =
            sqlx::query_scalar("SELECT current_user").fetch_one(database.pool()).await.unwrap();
        assert_eq!(user, "trunkline_app");
    }
}

/// The migration stands still at its first object, behind another transaction that
/// made the same one, when its session is ended: nothing of it may stay, and the
/// next attempt does it all.
#[tokio::test]
async fn a_migration_killed_in_the_middle_leaves_nothing_behind() {
    let own = TestDatabase::create().await;
    let owner = own.owner().await;
    let mut blocker = owner.begin().await.unwrap();
    sqlx::raw_sql("CREATE SCHEMA audit").execute(&mut *blocker).await.unwrap();

    let database = Database::connect(&own.settings()).unwrap();
    let attempt = tokio::spawn({
        let database = database.clone();
        async move { database.migrate().await }
    });
    let killed = crate::support::until("the migration to wait behind us", || async {
        sqlx::query_scalar::<_, bool>(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
             AND wait_event_type = 'Lock' AND query LIKE '%CREATE SCHEMA audit%'",
        )
        .fetch_optional(&owner)
        .await
        .unwrap()
    })
    .await;
    assert!(killed);
    let interrupted = attempt.await.unwrap();
    blocker.rollback().await.unwrap();

    assert!(interrupted.is_err(), "{interrupted:?}");
    let exists: bool =
        sqlx::query_scalar("SELECT to_regnamespace('audit') IS NOT NULL").fetch_one(&owner).await.unwrap();
    assert!(!exists);
    database.migrate().await.unwrap();
    database.verify().await.unwrap();
}

#[tokio::test]
async fn each_problem_has_its_name_and_remedy() {
    let own = TestDatabase::create().await;
    let elsewhere = |options: sqlx::postgres::PgConnectOptions| {
        use sqlx::ConnectOptions;
        Settings { url: SecretString::from(options.to_url_lossy().to_string()), ..own.settings() }
    };
    // A port nobody listens on: bound and let go.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();

    let refused =
        Database::connect(&elsewhere(own.options().port(free))).unwrap().verify().await.unwrap_err();
    assert!(matches!(&refused, Error::Unreachable { .. }), "{refused}");
    assert!(refused.to_string().contains(&format!("127.0.0.1:{free}")), "{refused}");

    let nobody = elsewhere(own.options().username("nobody_of_that_name"));
    let nobody = Database::connect(&nobody).unwrap().verify().await.unwrap_err();
    assert!(matches!(&nobody, Error::WrongCredentials { .. }), "{nobody}");

    let missing = elsewhere(own.options().database("no_such_database"));
    let missing = Database::connect(&missing).unwrap().verify().await.unwrap_err();
    assert!(matches!(&missing, Error::MissingDatabase { .. }), "{missing}");
    assert!(missing.to_string().contains("CREATE DATABASE"), "{missing}");

    let unmigrated = Database::connect(&own.settings()).unwrap().verify().await.unwrap_err();
    assert!(unmigrated.to_string().contains("trunkline database migrate"), "{unmigrated}");

    let too_early = Database::connect(&own.settings()).unwrap().positions("audit", &[]).await.unwrap_err();
    assert!(matches!(&too_early, Error::NotMigrated { .. }), "{too_early}");
    assert!(too_early.is_temporary() && too_early.to_string().contains("trunkline database migrate"));

    let secret = "canary-password";
    let bad = Settings { url: format!("postgres://u:{secret}@host:notaport/db").into(), ..own.settings() };
    let bad = Database::connect(&bad).unwrap_err();
    assert!(matches!(&bad, Error::BadUrl { .. }) && !bad.to_string().contains(secret), "{bad}");
}

#[tokio::test]
async fn a_user_who_may_not_create_roles_can_migrate_once_they_exist() {
    let (_roles_exist_from_here, _) = TestDatabase::migrated().await;
    let own = TestDatabase::create().await;
    let owner = own.owner().await;
    let user = format!("u_{}", own.name);
    for sql in
        [format!("CREATE ROLE {user} LOGIN"), format!("GRANT CREATE ON DATABASE {} TO {user}", own.name)]
    {
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&owner).await.unwrap();
    }
    let url = {
        use sqlx::ConnectOptions;
        own.options().username(&user).to_url_lossy().to_string()
    };
    let database = Database::connect(&Settings { url: url.into(), ..own.settings() }).unwrap();

    let report = database.migrate().await;
    let working_user: Result<String, _> =
        sqlx::query_scalar("SELECT current_user").fetch_one(database.pool()).await;
    database.close().await;
    let mut connection = sqlx::ConnectOptions::connect(&own.options()).await.unwrap();
    let cleared = format!("DROP OWNED BY {user} CASCADE; DROP ROLE {user}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(cleared)).execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();

    let report = report.unwrap();
    assert_eq!(report.notices.len(), 1, "{report:?}");
    assert!(report.notices[0].contains(&format!("GRANT trunkline_app TO \"{user}\"")), "{report:?}");
    assert_eq!(working_user.unwrap(), user);
}

#[tokio::test]
async fn an_instance_goes_on_beside_a_newer_migration_that_allows_it() {
    let (own, database) = TestDatabase::migrated().await;
    let owner = own.owner().await;
    let run = async |sql: &'static str| {
        sqlx::raw_sql(sql).execute(&owner).await.unwrap();
    };
    run("INSERT INTO trunkline.migrations (version, description, success, checksum, execution_time)
         VALUES (9001, 'later', true, '\\x00', 0)")
    .await;
    let stopped = database.verify().await.unwrap_err();
    assert!(matches!(stopped, Error::NewerDatabase { version: 9001 }), "{stopped}");
    run("INSERT INTO trunkline.compatibility VALUES (9001, 9000)").await;
    assert!(database.verify().await.is_err(), "only what knows migration 9000 may");
    run("UPDATE trunkline.compatibility SET oldest = (SELECT max(version) FROM trunkline.migrations WHERE version < 9001)
         WHERE version = 9001")
    .await;
    database.verify().await.unwrap();
    assert_eq!(database.status().await.unwrap().last().unwrap().standing, Standing::Newer);
}
