//! Settings changed at run time: every change on record, and on its way to the topic in
//! the same transaction.

use std::borrow::Cow;

use serde_json::Value;
use sqlx::Row;
use sqlx::postgres::PgRow;
use sqlx::types::Json;

use super::outbox::{self, Message};
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::settings::Setting;

/// Changes are made one after the other: the topic's newest is the greatest revision.
const ONE_AT_A_TIME: &str = "SELECT pg_advisory_xact_lock(7631477::bigint << 40 | 4660)";

/// Where the settings go. The name is the topic's own.
const TOPIC: &str = "trunkline.settings.v1";

/// Longest scope and name, in bytes, and largest value.
const NAME_LIMIT: usize = 512;
const VALUE_LIMIT: usize = 64 * 1_024;

/// Why a setting was not changed.
#[derive(Debug, thiserror::Error)]
pub enum SettingError {
    /// What was asked for cannot be set; says what could be.
    #[error("{0}")]
    Refused(String),
    #[error(transparent)]
    Database(#[from] Error),
}

fn check_names(scope: &str, who: &str) -> Result<(), SettingError> {
    let is_wrong =
        |text: &str| text.is_empty() || text.len() > NAME_LIMIT || text.chars().any(char::is_control);
    match [("scope", scope), ("who", who)].into_iter().find(|(_, text)| is_wrong(text)) {
        None => Ok(()),
        Some((name, _)) => Err(SettingError::Refused(format!(
            "{name} must be 1 to {NAME_LIMIT} bytes without control characters"
        ))),
    }
}

fn meanwhile(scope: &str) -> String {
    format!("{scope} was changed meanwhile, or never: look at its history again")
}

fn setting(row: &PgRow) -> Result<Setting<'static>, sqlx::Error> {
    let Json(value): Json<Value> = row.try_get("value")?;
    Ok(Setting {
        scope: Cow::Owned(row.try_get("scope")?),
        value,
        revision: u64::try_from(row.try_get::<i64, _>("revision")?).unwrap_or(0),
        who: Cow::Owned(row.try_get("who")?),
        when: Timestamp::from_millis(row.try_get("changed_at_ms")?),
    })
}

const COLUMNS: &str =
    "revision, scope, value, who, floor(extract(epoch FROM changed_at) * 1000)::bigint AS changed_at_ms";

impl Database {
    /// Changes one setting. `change` gets the time and the setting in force, if there is one,
    /// and answers the new value.
    ///
    /// # Errors
    /// When `change` refuses, or names or value are too long; when the database gives no
    /// answer the change may have been made.
    pub async fn change_setting(
        &self,
        scope: &str,
        who: &str,
        change: impl FnOnce(Timestamp, Option<&Setting<'static>>) -> Result<Value, String>,
    ) -> Result<Setting<'static>, SettingError> {
        let explain = |error| SettingError::Database(self.explain(error));
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let change = |_, when, before: Option<&Setting<'static>>| change(when, before);
        let setting = self.change_setting_within(&mut transaction, scope, who, change).await?;
        transaction.commit().await.map_err(explain)?;
        Ok(setting)
    }

    /// As [`change_setting`](Self::change_setting), in the caller's transaction; `change` gets the
    /// new revision before all else.
    pub(super) async fn change_setting_within(
        &self,
        transaction: &mut sqlx::PgConnection,
        scope: &str,
        who: &str,
        change: impl FnOnce(u64, Timestamp, Option<&Setting<'static>>) -> Result<Value, String>,
    ) -> Result<Setting<'static>, SettingError> {
        check_names(scope, who)?;
        let explain = |error| SettingError::Database(self.explain(error));
        sqlx::query(ONE_AT_A_TIME).execute(&mut *transaction).await.map_err(explain)?;
        let row = sqlx::query(
            "SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint AS now_ms,
                    coalesce(max(revision), 0) + 1 AS next FROM audit.settings_log",
        )
        .fetch_one(&mut *transaction)
        .await
        .map_err(explain)?;
        let (now, next): (i64, i64) = (row.get("now_ms"), row.get("next"));
        let when = Timestamp::from_millis(now);
        let newest = format!(
            "SELECT {COLUMNS} FROM audit.settings_log WHERE scope = $1 ORDER BY revision DESC LIMIT 1"
        );
        let before = sqlx::query(sqlx::AssertSqlSafe(newest))
            .bind(scope)
            .fetch_optional(&mut *transaction)
            .await
            .and_then(|row| row.as_ref().map(setting).transpose())
            .map_err(explain)?;
        let in_force = before.as_ref().filter(|setting| !setting.value.is_null());
        let revision = u64::try_from(next).unwrap_or(0);
        let value = change(revision, when, in_force).map_err(SettingError::Refused)?;
        let setting = Setting {
            scope: Cow::Owned(scope.to_owned()),
            value,
            revision,
            who: Cow::Owned(who.to_owned()),
            when,
        };
        let bytes = serde_json::to_vec(&setting).expect("own values are JSON");
        if bytes.len() > VALUE_LIMIT {
            return Err(SettingError::Refused(format!("the value must have at most {VALUE_LIMIT} bytes")));
        }
        // Postgres keeps no U+0000 in texts.
        if memchr::memmem::find(&bytes, br"\u0000").is_some() {
            return Err(SettingError::Refused("the value must hold no U+0000".to_owned()));
        }
        sqlx::query(
            "INSERT INTO audit.settings_log (revision, scope, value, who, changed_at)
             VALUES ($1, $2, $3, $4, to_timestamp($5::bigint::float8 / 1000))",
        )
        .bind(next)
        .bind(scope)
        .bind(Json(&setting.value))
        .bind(who)
        .bind(now)
        .execute(&mut *transaction)
        .await
        .map_err(explain)?;
        let message = Message::new(TOPIC, scope.as_bytes(), &bytes);
        outbox::append(transaction, &message).await.map_err(explain)?;
        Ok(setting)
    }

    /// Takes the change with this revision back, where it is the newest of its scope: what was in force
    /// before is in force again, as a change of its own.
    ///
    /// # Errors
    /// When it is not the newest; as [`change_setting`](Self::change_setting).
    pub async fn undo_setting(
        &self,
        scope: &str,
        revision: u64,
        who: &str,
    ) -> Result<Setting<'static>, SettingError> {
        let (newest, before) = self.newest_two(scope, revision).await?;
        self.change_setting(scope, who, |_, in_force| {
            let expected = Some(revision).filter(|_| !newest.value.is_null());
            let is_newest = in_force.map(|setting| setting.revision) == expected;
            if is_newest { Ok(before) } else { Err(meanwhile(scope)) }
        })
        .await
    }

    /// The value that [`undo_setting`](Self::undo_setting) would put in force again; null where there was none.
    ///
    /// # Errors
    /// When the revision is not the newest of its scope, or the database cannot be asked.
    pub async fn setting_before(&self, scope: &str, revision: u64) -> Result<Value, SettingError> {
        Ok(self.newest_two(scope, revision).await?.1)
    }

    /// The change with this revision, and the value before it.
    async fn newest_two(
        &self,
        scope: &str,
        revision: u64,
    ) -> Result<(Setting<'static>, Value), SettingError> {
        let mut changes = self.settings_history(Some(scope), 2).await?.into_iter();
        let newest = changes.next().filter(|newest| newest.revision == revision);
        let newest = newest.ok_or_else(|| SettingError::Refused(meanwhile(scope)))?;
        Ok((newest, changes.next().map_or(Value::Null, |before| before.value)))
    }

    /// The setting in force, or `None` where it was never set or is withdrawn.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn setting(&self, scope: &str) -> Result<Option<Setting<'static>>, Error> {
        let newest = self.settings_history(Some(scope), 1).await?.into_iter().next();
        Ok(newest.filter(|setting| !setting.value.is_null()))
    }

    /// Settings in force whose scopes begin with `prefix`, in the order of their scopes.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn settings(&self, prefix: &str, limit: u32) -> Result<Vec<Setting<'static>>, Error> {
        let query = format!(
            "SELECT * FROM (
                 SELECT DISTINCT ON (scope) {COLUMNS} FROM audit.settings_log
                 WHERE starts_with(scope, $1) ORDER BY scope, revision DESC
             ) AS newest WHERE value <> 'null'::jsonb ORDER BY revision DESC LIMIT $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(prefix)
            .bind(i64::from(limit))
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        rows.iter().map(setting).collect::<Result<_, _>>().map_err(|error| self.explain(error))
    }

    /// At most `limit` changes, newest first; of one scope or of all.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn settings_history(
        &self,
        scope: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Setting<'static>>, Error> {
        let query = format!(
            "SELECT {COLUMNS} FROM audit.settings_log WHERE $1::text IS NULL OR scope = $1
             ORDER BY revision DESC LIMIT $2"
        );
        let rows = sqlx::query(sqlx::AssertSqlSafe(query))
            .bind(scope)
            .bind(i64::from(limit))
            .fetch_all(self.pool())
            .await
            .map_err(|error| self.explain(error))?;
        rows.iter().map(setting).collect::<Result<_, _>>().map_err(|error| self.explain(error))
    }
}
