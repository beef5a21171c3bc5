//! Everything that is said in SQL: connections, migrations, the audit ledger,
//! and what the actuator keeps between instances.

pub mod alerts;
pub mod allowances;
pub mod budget;
pub mod canaries;
pub mod compliance;
pub mod console;
pub mod dead_letters;
pub mod enrichment;
mod error;
mod headers;
pub mod intents;
pub mod lag;
pub mod leases;
pub mod ledger;
pub mod maintenance;
pub mod migrations;
mod names;
pub mod outbox;
mod overview;
mod pause;
pub mod routing;
pub mod settings;

use std::str::FromStr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use secrecy::{ExposeSecret, SecretString};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{AssertSqlSafe, ConnectOptions, Connection, PgConnection, PgPool};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::health::Part;

pub use error::Error;
use error::Target;
pub use migrations::{APP_ROLE, READER_ROLE};
pub use overview::{Recent, Totals};

/// How to reach the database.
#[derive(Clone, Debug)]
pub struct Settings {
    /// `postgres://USER:PASSWORD@HOST:PORT/DATABASE?sslmode=verify-full`. Its user owns
    /// the schemas; work is done as [`APP_ROLE`].
    pub url: SecretString,
    /// Connections one instance opens at most.
    pub max_connections: u32,
    /// How long to wait for a free connection, including making one.
    pub acquire_timeout: Duration,
    /// How long one statement may take on the server.
    pub statement_timeout: Duration,
    /// How long a transaction may stand still before the server ends it: what a
    /// stopped process holds is free again after this.
    pub idle_in_transaction_timeout: Duration,
    /// Statements look single rows up in tables that grow fast: a plan made while a table
    /// was empty must use its index, and connections are not tried before each use.
    pub point_lookups: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            url: "postgres://trunkline@127.0.0.1:5432/trunkline".into(),
            max_connections: 8,
            acquire_timeout: Duration::from_secs(5),
            statement_timeout: Duration::from_secs(10),
            idle_in_transaction_timeout: Duration::from_secs(10),
            point_lookups: false,
        }
    }
}

/// The database. Cheap to clone; clones share one pool.
#[derive(Clone, Debug)]
pub struct Database {
    pool: PgPool,
    options: PgConnectOptions,
    target: Target,
    acquire_timeout: Duration,
    finding_out: Arc<AtomicBool>,
    /// From which id on the last days are, asked anew once a minute.
    recent_id: Cache<(), Uuid>,
}

impl Database {
    /// Prepares a pool without connecting, so that a process starts while the
    /// server is away. Must be called inside a Tokio runtime.
    ///
    /// Connections of the pool work as [`APP_ROLE`] where that role exists and the
    /// user may take it: it can add to the audit but never change it.
    ///
    /// # Errors
    /// When the URL cannot be read.
    pub fn connect(settings: &Settings) -> Result<Self, Error> {
        let options = PgConnectOptions::from_str(settings.url.expose_secret())
            .map_err(|error| Error::BadUrl { reason: reason_without_url(error) })?
            .application_name("trunkline")
            .log_slow_statements(tracing::log::LevelFilter::Warn, Duration::from_secs(1));
        let session = session_limits(settings);
        let pool = PgPoolOptions::new()
            .max_connections(settings.max_connections.max(1))
            .acquire_timeout(settings.acquire_timeout)
            .idle_timeout(Duration::from_secs(300))
            .max_lifetime(Duration::from_secs(1_800))
            .test_before_acquire(!settings.point_lookups)
            .after_connect(move |connection, _| {
                let session = session.clone();
                Box::pin(async move {
                    sqlx::raw_sql(AssertSqlSafe(session)).execute(&mut *connection).await?;
                    work_as_app_role(connection).await
                })
            })
            .connect_lazy_with(options.clone());
        let target = Target::of(&options, settings.acquire_timeout);
        let finding_out = Arc::default();
        let recent_id = Cache::builder().max_capacity(1).time_to_live(Duration::from_secs(60)).build();
        Ok(Self { pool, options, target, acquire_timeout: settings.acquire_timeout, finding_out, recent_id })
    }

    /// The pool of connections that work as [`APP_ROLE`].
    pub fn pool(&self) -> &PgPool {
        &self.pool
    }

    /// Gives what sqlx says a name and a remedy.
    pub fn explain(&self, error: sqlx::Error) -> Error {
        if matches!(error, sqlx::Error::PoolTimedOut) {
            self.find_out_why();
        }
        self.target.explain(error)
    }

    /// Begins a connection beside the pool, one at a time: what comes of it is what the next
    /// one who waits in vain is told.
    fn find_out_why(&self) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        if self.finding_out.swap(true, Ordering::AcqRel) {
            return;
        }
        let database = self.clone();
        runtime.spawn(async move {
            if let Ok(connection) = database.dedicated().await {
                let _ = connection.close().await;
            }
            database.finding_out.store(false, Ordering::Release);
        });
    }

    /// What to say of a statement that was not waited for any longer.
    pub fn gave_no_answer(&self, after: Duration) -> Error {
        Error::NoAnswer { server: self.target.server.clone(), after }
    }

    /// Connects and looks whether every migration is there.
    ///
    /// # Errors
    /// The first thing that stands in the way.
    pub async fn verify(&self) -> Result<(), Error> {
        // The pool hides why it cannot connect behind its own time limit: a
        // connection made by hand tells.
        let mut connection = self.dedicated().await?;
        let standing = migrations::status(&mut connection, &self.target).await;
        let _ = connection.close().await;
        migrations::first_problem(&standing?).map_or(Ok(()), Err)
    }

    /// Keeps `part` telling how the database is until `shutdown`.
    pub async fn watch(self, part: Part, shutdown: CancellationToken) {
        loop {
            let pause = match self.verify().await {
                Ok(()) => {
                    part.ready();
                    Duration::from_secs(5)
                }
                Err(problem) => {
                    part.not_ready(problem.to_string());
                    Duration::from_secs(1)
                }
            };
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Creates the roles and runs every migration that is missing, as the URL's own
    /// user. Instances may do it at once: one works, the others wait for it. What is
    /// killed in the middle leaves the last whole migration behind.
    ///
    /// # Errors
    /// Everything of [`verify`](Self::verify), a role that cannot be created, and a
    /// migration that fails.
    pub async fn migrate(&self) -> Result<migrations::Report, Error> {
        let mut connection = self.dedicated().await?;
        let report = migrations::run(&mut connection, &self.target).await;
        let _ = connection.close().await;
        // Connections made before the role existed do not work as that role.
        while let Some(early) = self.pool.try_acquire() {
            let _ = early.close().await;
        }
        report
    }

    /// Which migrations are there.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn status(&self) -> Result<Vec<migrations::Migration>, Error> {
        let mut connection = self.dedicated().await?;
        let standing = migrations::status(&mut connection, &self.target).await;
        let _ = connection.close().await;
        standing
    }

    /// Closes the pool; open work ends first.
    pub async fn close(&self) {
        self.pool.close().await;
    }

    /// A connection of its own as the URL's user.
    async fn dedicated(&self) -> Result<PgConnection, Error> {
        let connected = match tokio::time::timeout(self.acquire_timeout, self.options.connect()).await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(self.target.explain(error)),
            Err(_) => Err(self.gave_no_answer(self.acquire_timeout)),
        };
        self.target.saw(connected.as_ref().map(|_| ()));
        connected
    }
}

fn session_limits(settings: &Settings) -> String {
    let plans = if settings.point_lookups { "; SET enable_seqscan = off" } else { "" };
    format!(
        "SET statement_timeout = {}; SET idle_in_transaction_session_timeout = {}{plans}",
        settings.statement_timeout.as_millis(),
        settings.idle_in_transaction_timeout.as_millis(),
    )
}

/// Takes the application's role. Before the first migration, or where the user may
/// not take it, the connection stays what it is and the log says so.
async fn work_as_app_role(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    // Several statements at once would be one transaction; this must not end it.
    let taken = sqlx::raw_sql("SET ROLE trunkline_app").execute(connection).await;
    match taken {
        Ok(_) => Ok(()),
        Err(sqlx::Error::Database(refusal)) => {
            tracing::warn!(
                reason = refusal.message(),
                remedy =
                    "run `trunkline database migrate`, or GRANT trunkline_app to the user of postgres.url",
                "working without role trunkline_app"
            );
            Ok(())
        }
        Err(error) => Err(error),
    }
}

/// sqlx's own words for a bad URL, without the URL, which may hold a password.
fn reason_without_url(error: sqlx::Error) -> String {
    match error {
        sqlx::Error::Configuration(reason) => reason.to_string(),
        _ => "it cannot be parsed".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_server_that_is_away_is_not_told_as_one_that_is_busy() {
        let settings = Settings {
            // Nobody listens there.
            url: "postgres://trunkline:canary@127.0.0.1:1/trunkline".into(),
            acquire_timeout: Duration::from_millis(300),
            ..Settings::default()
        };
        let database = Database::connect(&settings).unwrap();
        let first = database.totals().await.unwrap_err();
        assert!(matches!(first, Error::NoAnswer { .. }), "{first}");
        // The first one who waited in vain has made somebody look.
        while database.finding_out.load(Ordering::Acquire) {
            tokio::task::yield_now().await;
        }
        let told = database.totals().await.unwrap_err();
        assert!(matches!(told, Error::Unreachable { .. }) && told.is_temporary(), "{told}");
        assert!(
            told.to_string().contains("connection refused") && !told.to_string().contains("canary"),
            "{told}"
        );
    }
}
