//! The schema's history and the roles it needs.
//!
//! Roles belong to the whole cluster, so they are created beside the migrations,
//! in a way that several databases and instances can do at once.

use std::time::Duration;

use sqlx::migrate::{MigrateError, MigrationType, Migrator};
use sqlx::{AssertSqlSafe, PgConnection, Row, SqlSafeStr};

use super::error::{Error, Target};

/// Group role of the running application: no DDL, and only INSERT and SELECT on the audit.
pub const APP_ROLE: &str = "trunkline_app";
/// Group role for people and reports: SELECT on the audit's views.
pub const READER_ROLE: &str = "trunkline_reader";

/// Every file of `sql/`, oldest first. They are never edited once released.
const FILES: &[(i64, &str, &str)] = &[
    (1, "audit", include_str!("../../sql/0001_audit.sql")),
    (2, "actuator", include_str!("../../sql/0002_actuator.sql")),
    (3, "budget", include_str!("../../sql/0003_budget.sql")),
    (4, "outbox", include_str!("../../sql/0004_outbox.sql")),
    (5, "dead_letters", include_str!("../../sql/0005_dead_letters.sql")),
    (6, "alerts", include_str!("../../sql/0006_alerts.sql")),
    (7, "enrichment", include_str!("../../sql/0007_enrichment.sql")),
    (8, "lag", include_str!("../../sql/0008_lag.sql")),
    (9, "routing", include_str!("../../sql/0009_routing.sql")),
    (10, "rollback", include_str!("../../sql/0010_rollback.sql")),
    (11, "actuation", include_str!("../../sql/0011_actuation.sql")),
    (12, "topic_ids", include_str!("../../sql/0012_topic_ids.sql")),
    (13, "exact_routing", include_str!("../../sql/0013_exact_routing.sql")),
    (15, "budget_probe", include_str!("../../sql/0015_budget_probe.sql")),
    (16, "alert_receivers", include_str!("../../sql/0016_alert_receivers.sql")),
    (17, "decision_chain", include_str!("../../sql/0017_decision_chain.sql")),
    (18, "compliance", include_str!("../../sql/0018_compliance.sql")),
    (19, "console", include_str!("../../sql/0019_console.sql")),
    (20, "older_migrations", include_str!("../../sql/0020_older_migrations.sql")),
    (22, "waits", include_str!("../../sql/0022_waits.sql")),
    (23, "allowances", include_str!("../../sql/0023_allowances.sql")),
    (25, "counted_by_statistics", include_str!("../../sql/0025_counted_by_statistics.sql")),
    (28, "canaries", include_str!("../../sql/0028_canaries.sql")),
    (30, "rule_numbers", include_str!("../../sql/0030_rule_numbers.sql")),
    (32, "organizations", include_str!("../../sql/0032_organizations.sql")),
    (33, "traces", include_str!("../../sql/0033_traces.sql")),
    (35, "names", include_str!("../../sql/0035_names.sql")),
    (36, "months", include_str!("../../sql/0036_months.sql")),
];

/// Where sqlx keeps its book.
const TABLE: &str = "trunkline.migrations";

/// Longest wait for another instance's migration, or for a lock on a table.
const PATIENCE: Duration = Duration::from_secs(60);

/// One migration and how it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Migration {
    pub version: i64,
    pub name: String,
    pub standing: Standing,
}

/// How one migration stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    Applied,
    Pending,
    /// Applied with another text than the one built in.
    Changed,
    /// Applied by a newer trunkline, which says that this one may go on working.
    Newer,
    /// Applied by a newer trunkline.
    Unknown,
}

/// What [`Database::migrate`](super::Database::migrate) did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Versions that were missing before.
    pub applied: Vec<i64>,
    /// What an administrator may want to put right; nothing that stops the work.
    pub notices: Vec<String>,
}

fn migrator() -> Migrator {
    let migrations = FILES
        .iter()
        .map(|(version, name, sql)| {
            let sql = (*sql).into_sql_str();
            sqlx::migrate::Migration::new(*version, (*name).into(), MigrationType::Simple, sql, false)
        })
        .collect();
    let mut migrator = Migrator::with_migrations(migrations);
    migrator.create_schema("trunkline");
    migrator.dangerous_set_table_name(TABLE);
    migrator
}

pub(super) async fn run(connection: &mut PgConnection, target: &Target) -> Result<Report, Error> {
    let explain = |error| target.explain(error);
    let lock_timeout = format!("SET lock_timeout = {}", PATIENCE.as_millis());
    sqlx::raw_sql(AssertSqlSafe(lock_timeout)).execute(&mut *connection).await.map_err(explain)?;

    let mut report = Report::default();
    let mut missing = Vec::new();
    for role in [APP_ROLE, READER_ROLE] {
        if !ensure_role(connection, target, role).await? {
            missing.push(role);
        }
    }
    if !missing.is_empty() {
        return Err(Error::missing_roles(&missing, &target.user));
    }
    report.notices.extend(ensure_membership(connection, target).await?);

    let before = status(connection, target).await?;
    migrator().run_direct(None, connection, false).await.map_err(|error| explain_failure(error, target))?;
    report.applied = before.iter().filter(|m| m.standing == Standing::Pending).map(|m| m.version).collect();
    Ok(report)
}

pub(super) async fn status(connection: &mut PgConnection, target: &Target) -> Result<Vec<Migration>, Error> {
    let explain = |error| target.explain(error);
    let book: bool = sqlx::query_scalar("SELECT to_regclass('trunkline.migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(explain)?;
    let applied: Vec<(i64, String, Vec<u8>)> = if book {
        sqlx::query_as("SELECT version, description, checksum FROM trunkline.migrations ORDER BY version")
            .fetch_all(&mut *connection)
            .await
            .map_err(explain)?
    } else {
        Vec::new()
    };
    let told: bool = sqlx::query_scalar("SELECT to_regclass('trunkline.compatibility') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await
        .map_err(explain)?;
    let compatible: Vec<(i64, i64)> = if told {
        sqlx::query_as("SELECT version, oldest FROM trunkline.compatibility")
            .fetch_all(&mut *connection)
            .await
            .map_err(explain)?
    } else {
        Vec::new()
    };
    Ok(compare(&migrator(), &applied, &compatible))
}

/// `compatible` has versions with the oldest newest migration of programs that may work beside them.
fn compare(
    known: &Migrator,
    applied: &[(i64, String, Vec<u8>)],
    compatible: &[(i64, i64)],
) -> Vec<Migration> {
    let newest_known = known.iter().map(|migration| migration.version).max().unwrap_or(0);
    let mut all: Vec<Migration> = known
        .iter()
        .map(|migration| {
            let standing = match applied.iter().find(|(version, ..)| *version == migration.version) {
                None => Standing::Pending,
                Some((.., checksum)) if checksum[..] == migration.checksum[..] => Standing::Applied,
                Some(_) => Standing::Changed,
            };
            Migration { version: migration.version, name: migration.description.to_string(), standing }
        })
        .collect();
    for (version, name, _) in applied.iter().filter(|(version, ..)| !known.version_exists(*version)) {
        let may_go_on = |(of, oldest): &(i64, i64)| of == version && *oldest <= newest_known;
        let standing = if compatible.iter().any(may_go_on) { Standing::Newer } else { Standing::Unknown };
        all.push(Migration { version: *version, name: name.clone(), standing });
    }
    all
}

pub(super) fn first_problem(migrations: &[Migration]) -> Option<Error> {
    migrations.iter().find_map(|Migration { version, name, standing }| match standing {
        Standing::Applied | Standing::Newer => None,
        Standing::Pending => Some(Error::MissingMigration { version: *version, name: name.clone() }),
        Standing::Changed => Some(Error::ChangedMigration { version: *version }),
        Standing::Unknown => Some(Error::NewerDatabase { version: *version }),
    })
}

fn explain_failure(error: MigrateError, target: &Target) -> Error {
    match error {
        MigrateError::VersionMissing(version) => Error::NewerDatabase { version },
        MigrateError::VersionMismatch(version) => Error::ChangedMigration { version },
        MigrateError::ExecuteMigration(source, version) => {
            let name = FILES.iter().find(|file| file.0 == version).map_or("", |file| file.1).to_owned();
            Error::FailedMigration { version, name, source }
        }
        MigrateError::Execute(error) => target.explain(error),
        other => target.explain(sqlx::Error::Migrate(Box::new(other))),
    }
}

/// Creates the role unless it is there; `false` where the user may not. Another database's
/// migration may do the same at this moment: losing that race is success.
async fn ensure_role(
    connection: &mut PgConnection,
    target: &Target,
    role: &'static str,
) -> Result<bool, Error> {
    let explain = |error| target.explain(error);
    let exists: bool = sqlx::query_scalar("SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1)")
        .bind(role)
        .fetch_one(&mut *connection)
        .await
        .map_err(explain)?;
    if exists {
        return Ok(true);
    }
    let create = format!("CREATE ROLE {role} NOLOGIN");
    match sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut *connection).await {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(refusal)) => match refusal.code().as_deref() {
            // duplicate_object; unique_violation when both passed the look-up
            Some("42710" | "23505") => Ok(true),
            // insufficient_privilege
            Some("42501") => Ok(false),
            _ => Err(target.explain(sqlx::Error::Database(refusal))),
        },
        Err(error) => Err(target.explain(error)),
    }
}

/// Lets the connecting user take the application's role. Where it may not, the
/// application works with the user's own rights, and a notice says how to mend it.
async fn ensure_membership(connection: &mut PgConnection, target: &Target) -> Result<Option<String>, Error> {
    const IS_MEMBER: &str = "SELECT pg_has_role(current_user, 'trunkline_app', 'MEMBER')";
    let explain = |error| target.explain(error);
    let granted: bool = sqlx::query_scalar(IS_MEMBER).fetch_one(&mut *connection).await.map_err(explain)?;
    if granted {
        return Ok(None);
    }
    // Two instances at once: the loser's "tuple concurrently updated" is no harm.
    let _ = sqlx::raw_sql("GRANT trunkline_app TO CURRENT_USER").execute(&mut *connection).await;
    let granted: bool = sqlx::query(IS_MEMBER).fetch_one(connection).await.map_err(explain)?.get(0);
    Ok((!granted).then(|| {
        format!(
            "user \"{user}\" may not take role {APP_ROLE}; to work with that role's rights only, \
             have an administrator run: GRANT {APP_ROLE} TO \"{user}\";",
            user = target.user
        )
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_in_the_folder_is_in_the_table_and_numbered_by_it() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("sql");
        let mut found: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        found.sort();
        let listed: Vec<String> =
            FILES.iter().map(|(version, name, _)| format!("{version:04}_{name}.sql")).collect();
        assert_eq!(found, listed);
    }

    #[test]
    fn what_differs_from_the_built_in_history_is_told_apart() {
        let known = migrator();
        let first = known.iter().next().unwrap();
        let newest = known.iter().map(|migration| migration.version).max().unwrap();
        let standing = |applied: &[(i64, String, Vec<u8>)]| {
            compare(&known, applied, &[(998, newest), (999, newest + 1)])
                .iter()
                .map(|m| (m.version, m.standing))
                .collect::<Vec<_>>()
        };
        assert!(standing(&[]).contains(&(1, Standing::Pending)));
        assert!(standing(&[(1, "audit".into(), first.checksum.to_vec())]).contains(&(1, Standing::Applied)));
        assert!(standing(&[(1, "audit".into(), vec![0])]).contains(&(1, Standing::Changed)));
        assert!(standing(&[(997, "later".into(), vec![0])]).contains(&(997, Standing::Unknown)));
        assert!(standing(&[(998, "later".into(), vec![0])]).contains(&(998, Standing::Newer)));
        assert!(standing(&[(999, "later".into(), vec![0])]).contains(&(999, Standing::Unknown)));
    }
}
