//! What can go wrong with the database, told with its remedy.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;

/// An error that names the server, what it answered, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "postgres.url is not a Postgres URL: {reason}; write postgres://USER:PASSWORD@HOST:PORT/DATABASE"
    )]
    BadUrl { reason: String },
    #[error("Postgres at {server} cannot be reached: {reason}; check postgres.url and that the server runs")]
    Unreachable { server: String, reason: String },
    #[error("Postgres at {server} gave no answer within {} ms; check the network and the server's load", .after.as_millis())]
    NoAnswer { server: String, after: Duration },
    #[error("TLS to Postgres at {server} failed: {reason}; check sslmode and sslrootcert in postgres.url")]
    Tls { server: String, reason: String },
    #[error(
        "Postgres at {server} refuses user \"{user}\": {reason}; check user and password in postgres.url and pg_hba.conf"
    )]
    WrongCredentials { server: String, user: String, reason: String },
    #[error("Postgres at {server} has no database \"{database}\"; create it: CREATE DATABASE \"{database}\"")]
    MissingDatabase { server: String, database: String },
    #[error(
        "all connections to Postgres at {server} are in use; raise postgres.max_connections or the server's max_connections"
    )]
    Busy { server: String },
    #[error("Postgres at {server} is not migrated: {reason}; run: trunkline database migrate")]
    NotMigrated { server: String, reason: String },
    #[error("the database lacks migration {version} ({name}); run: trunkline database migrate")]
    MissingMigration { version: i64, name: String },
    #[error(
        "the database has migration {version}, which this trunkline does not know; run the newer trunkline that made it"
    )]
    NewerDatabase { version: i64 },
    #[error(
        "migration {version} in the database differs from the one built in; restore sql/ as it was released, migrations are never edited"
    )]
    ChangedMigration { version: i64 },
    #[error("migration {version} ({name}) failed and was rolled back: {source}")]
    FailedMigration { version: i64, name: String, source: sqlx::Error },
    #[error(
        "user \"{user}\" may not create roles, and these are missing: {roles}; have an administrator run: {remedy}"
    )]
    MissingRoles { roles: String, user: String, remedy: String },
    #[error("Postgres at {server}: {source}")]
    Query { server: String, source: sqlx::Error },
}

impl Error {
    /// All of them at once, with the statements that create them.
    pub(super) fn missing_roles(roles: &[&str], user: &str) -> Self {
        let create: Vec<String> = roles.iter().map(|role| format!("CREATE ROLE {role} NOLOGIN;")).collect();
        let remedy = format!("{} GRANT {} TO \"{user}\";", create.join(" "), super::APP_ROLE);
        Error::MissingRoles { roles: roles.join(", "), user: user.to_owned(), remedy }
    }

    /// Whether waiting can help: the server is away, overloaded, or not migrated yet.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Unreachable { .. }
            | Error::NoAnswer { .. }
            | Error::Tls { .. }
            | Error::WrongCredentials { .. }
            | Error::MissingDatabase { .. }
            | Error::NotMigrated { .. }
            | Error::MissingMigration { .. }
            | Error::Busy { .. } => true,
            Error::Query { source, .. } => !is_about_data(source),
            _ => false,
        }
    }

    /// Whether the server refused the values themselves: sending them again cannot help.
    pub fn is_about_data(&self) -> bool {
        matches!(self, Error::Query { source, .. } if is_about_data(source))
    }
}

impl Error {
    /// What to tell about a record that the server refuses: its own words, without the server.
    pub fn refusal(&self) -> String {
        match self {
            Error::Query { source, .. } => refusal(source),
            other => other.to_string(),
        }
    }
}

/// The server's own words about values it refuses.
pub(super) fn refusal(error: &sqlx::Error) -> String {
    match error {
        sqlx::Error::Database(refusal) => {
            let code = refusal.code().unwrap_or_default();
            format!("Postgres refuses the row: {} (SQLSTATE {code})", refusal.message())
        }
        other => format!("Postgres refuses the row: {other}"),
    }
}

/// SQLSTATE classes 22 (bad data), 23 (constraint) and 54 (limit exceeded) lie
/// in the values; everything else in the circumstances.
pub(super) fn is_about_data(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(refusal) => {
            refusal.code().is_some_and(|code| matches!(code.get(..2), Some("22" | "23" | "54")))
        }
        sqlx::Error::Encode(_) => true,
        _ => false,
    }
}

/// Where a connection goes, for error messages: never with the password. Clones share what
/// was last seen of the server.
#[derive(Clone, Debug)]
pub(super) struct Target {
    pub server: String,
    pub user: String,
    pub database: String,
    /// Longest wait for a connection of the pool.
    patience: Duration,
    seen: Arc<Mutex<Option<Seen>>>,
}

/// What came of the last connection outside the pool. The pool tries again by itself and tells
/// of nothing but its time limit in the end.
#[derive(Clone, Debug)]
struct Seen {
    at: Instant,
    /// Why there was none.
    refused: Option<String>,
}

impl Target {
    pub(super) fn of(options: &PgConnectOptions, patience: Duration) -> Self {
        let server = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let user = options.get_username().to_owned();
        let database = options.get_database().unwrap_or(&user).to_owned();
        Self { server, user, database, patience, seen: Arc::default() }
    }

    /// Remembers what came of a connection outside the pool.
    pub(super) fn saw(&self, outcome: Result<(), &Error>) {
        let refused = outcome.err().map(|error| match error {
            Error::Unreachable { reason, .. } | Error::WrongCredentials { reason, .. } => reason.clone(),
            other => other.to_string(),
        });
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Some(Seen { at: Instant::now(), refused });
    }

    /// Why the pool gave no connection in time.
    fn why_none(&self) -> Error {
        let server = self.server.clone();
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match seen {
            Some(Seen { refused: Some(reason), .. }) => Error::Unreachable { server, reason },
            // It takes connections while the pool has none: they are all in use.
            Some(Seen { refused: None, at }) if at.elapsed() <= self.patience => Error::Busy { server },
            _ => Error::NoAnswer { server, after: self.patience },
        }
    }

    /// Gives what sqlx says a name and a remedy.
    pub(super) fn explain(&self, error: sqlx::Error) -> Error {
        let server = self.server.clone();
        match &error {
            sqlx::Error::Configuration(reason) => Error::BadUrl { reason: reason.to_string() },
            sqlx::Error::Io(reason) if is_of_tls(reason) => Error::Tls { server, reason: reason.to_string() },
            sqlx::Error::Io(reason) => Error::Unreachable { server, reason: describe(reason) },
            sqlx::Error::Tls(reason) => Error::Tls { server, reason: reason.to_string() },
            sqlx::Error::PoolTimedOut => self.why_none(),
            sqlx::Error::Database(refusal) => match refusal.code().as_deref() {
                Some("28000" | "28P01") => Error::WrongCredentials {
                    server,
                    user: self.user.clone(),
                    reason: refusal.message().to_owned(),
                },
                Some("3D000") => Error::MissingDatabase { server, database: self.database.clone() },
                // undefined_table, invalid_schema_name
                Some("42P01" | "3F000") => {
                    Error::NotMigrated { server, reason: refusal.message().to_owned() }
                }
                Some("53300") => Error::Busy { server },
                Some("57P01" | "57P02" | "57P03") => {
                    Error::Unreachable { server, reason: refusal.message().to_owned() }
                }
                _ => Error::Query { server, source: error },
            },
            _ => Error::Query { server, source: error },
        }
    }
}

/// A certificate that is not taken ends a connection as an error of its socket.
fn is_of_tls(reason: &io::Error) -> bool {
    reason.get_ref().is_some_and(|inner| inner.is::<rustls::Error>())
}

fn describe(reason: &io::Error) -> String {
    match reason.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".to_owned(),
        _ => reason.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_missing_roles_are_told_with_one_remedy() {
        let told = Error::missing_roles(&["trunkline_app", "trunkline_reader"], "trunkline").to_string();
        assert!(told.contains("trunkline_app, trunkline_reader"), "{told}");
        let remedy = "CREATE ROLE trunkline_app NOLOGIN; CREATE ROLE trunkline_reader NOLOGIN; \
                      GRANT trunkline_app TO \"trunkline\";";
        assert!(told.ends_with(remedy), "{told}");
    }
}
