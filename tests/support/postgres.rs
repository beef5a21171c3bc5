//! A database of its own for every test, on the server that `make test` started.

use std::str::FromStr;

use secrecy::SecretString;
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use trunkline::postgres::{Database, Settings};

/// An empty database that is dropped with this value.
pub(crate) struct TestDatabase {
    pub name: String,
    server: PgConnectOptions,
}

impl TestDatabase {
    /// Creates an empty database.
    pub(crate) async fn create() -> Self {
        let url = std::env::var("TRUNKLINE_TEST_POSTGRES")
            .expect("TRUNKLINE_TEST_POSTGRES is not set: run `make test`, which starts a Postgres");
        Self::create_on(&url).await
    }

    /// Creates an empty database on another server.
    pub(crate) async fn create_on(url: &str) -> Self {
        let server = PgConnectOptions::from_str(url).expect("the server's URL");
        let name = format!("t_{}", uuid::Uuid::now_v7().simple());
        let mut connection = server.connect().await.expect("the test server answers");
        execute(&mut connection, &format!("CREATE DATABASE {name}")).await;
        connection.close().await.expect("closes");
        Self { name, server }
    }

    /// Creates a database with every migration.
    pub(crate) async fn migrated() -> (Self, Database) {
        let own = Self::create().await;
        let database = Database::connect(&own.settings()).expect("a good URL");
        database.migrate().await.expect("migrates");
        (own, database)
    }

    /// Settings whose URL points here, as the server's owner.
    pub(crate) fn settings(&self) -> Settings {
        Settings { url: SecretString::from(self.url()), ..Settings::default() }
    }

    pub(crate) fn url(&self) -> String {
        self.options().to_url_lossy().to_string()
    }

    pub(crate) fn options(&self) -> PgConnectOptions {
        self.server.clone().database(&self.name)
    }

    /// A pool as the server's owner, for looking and for planting.
    pub(crate) async fn owner(&self) -> PgPool {
        PgPoolOptions::new().max_connections(4).connect_with(self.options()).await.expect("connects")
    }

    /// A connection that works as `role`.
    pub(crate) async fn as_role(&self, role: &str) -> PgConnection {
        let mut connection = self.options().connect().await.expect("connects");
        execute(&mut connection, &format!("SET ROLE {role}")).await;
        connection
    }
}

async fn execute(connection: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(connection).await.expect(sql);
}

impl Drop for TestDatabase {
    fn drop(&mut self) {
        let server = self.server.clone();
        let drop = format!("DROP DATABASE IF EXISTS {} WITH (FORCE)", self.name);
        // A runtime of its own: the test's may be shutting down.
        let dropped = std::thread::spawn(move || {
            let runtime =
                tokio::runtime::Builder::new_current_thread().enable_all().build().expect("runtime");
            runtime.block_on(async {
                let mut connection = server.connect().await.expect("the test server answers");
                execute(&mut connection, &drop).await;
            });
        });
        if dropped.join().is_err() && !std::thread::panicking() {
            panic!("could not drop {}", self.name);
        }
    }
}
