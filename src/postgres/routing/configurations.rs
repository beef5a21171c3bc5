//! Drafts, what is in force, and what was.

use sqlx::Row as _;
use sqlx::types::Json;

use super::super::{Database, Error, canaries};
use super::{InForce, counter};
use crate::model::Timestamp;
use crate::model::routing::RouteConfiguration;

/// Configurations there can be.
pub(super) const MAX_CONFIGURATIONS: i64 = 1_000;

/// What one id stands for now.
#[derive(Clone, Debug, Default)]
pub struct Saved {
    pub draft: Option<RouteConfiguration>,
    pub in_force: Option<(i64, RouteConfiguration)>,
}

/// What came of a publication.
#[derive(Clone, Debug)]
pub enum Published {
    /// The draft is in force, and this is how it stands.
    InForce(Box<InForce>),
    /// There is no draft; this is in force already.
    NoDraft(i64, RouteConfiguration),
    /// Nothing of this id was ever saved.
    Unknown,
    /// There are [`MAX_CONFIGURATIONS`] already.
    TooMany,
    /// This canary has it: its rules are not to be changed until that is over.
    UnderCanary(String),
}

/// One revision of the history.
#[derive(Clone, Debug)]
pub struct RevisionEntry {
    pub revision: i64,
    pub definition: RouteConfiguration,
    pub published_by: String,
    pub published_at: Timestamp,
}

impl Database {
    /// Draft and revision in force of one id.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn route(&self, id: &str) -> Result<Saved, Error> {
        const READ: &str = "SELECT
            (SELECT definition FROM trunkline.route_drafts WHERE configuration_id = $1) AS draft,
            c.revision, r.definition
            FROM (SELECT 1) AS one
            LEFT JOIN trunkline.route_counters c ON c.configuration_id = $1
            LEFT JOIN trunkline.route_revisions r ON r.configuration_id = $1 AND r.revision = c.revision";
        let explain = |error| self.explain(error);
        let row = sqlx::query(READ).bind(id).fetch_one(self.pool()).await.map_err(explain)?;
        let read = || {
            let draft: Option<Json<RouteConfiguration>> = row.try_get("draft")?;
            let revision: Option<i64> = row.try_get("revision")?;
            let definition: Option<Json<RouteConfiguration>> = row.try_get("definition")?;
            let in_force =
                revision.zip(definition).map(|(revision, Json(definition))| (revision, definition));
            Ok(Saved { draft: draft.map(|Json(draft)| draft), in_force })
        };
        read().map_err(explain)
    }

    /// All ids with their standing, in order.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn routes(&self) -> Result<Vec<(String, Saved)>, Error> {
        const READ: &str = "SELECT id, d.definition AS draft, c.revision, r.definition
            FROM (SELECT configuration_id AS id FROM trunkline.route_drafts
                  UNION SELECT configuration_id FROM trunkline.route_counters) AS ids
            LEFT JOIN trunkline.route_drafts d ON d.configuration_id = id
            LEFT JOIN trunkline.route_counters c ON c.configuration_id = id
            LEFT JOIN trunkline.route_revisions r ON r.configuration_id = id AND r.revision = c.revision
            ORDER BY id";
        let explain = |error| self.explain(error);
        let rows = sqlx::query(READ).fetch_all(self.pool()).await.map_err(explain)?;
        let read = |row: &sqlx::postgres::PgRow| {
            let draft: Option<Json<RouteConfiguration>> = row.try_get("draft")?;
            let revision: Option<i64> = row.try_get("revision")?;
            let definition: Option<Json<RouteConfiguration>> = row.try_get("definition")?;
            let in_force =
                revision.zip(definition).map(|(revision, Json(definition))| (revision, definition));
            Ok((row.try_get("id")?, Saved { draft: draft.map(|Json(draft)| draft), in_force }))
        };
        rows.iter().map(read).collect::<Result<_, _>>().map_err(explain)
    }

    /// Keeps a draft in place of an earlier one.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn save_route_draft(&self, draft: &RouteConfiguration, who: &str) -> Result<(), Error> {
        const SAVE: &str = "INSERT INTO trunkline.route_drafts (configuration_id, definition, saved_by)
            VALUES ($1, $2, $3) ON CONFLICT (configuration_id)
            DO UPDATE SET definition = $2, saved_by = $3, saved_at = now()";
        let saved = sqlx::query(SAVE).bind(&draft.id).bind(Json(draft)).bind(who).execute(self.pool()).await;
        saved.map(drop).map_err(|error| self.explain(error))
    }

    /// Puts the draft in force, between two blocks of decisions, for all instances at once.
    ///
    /// # Errors
    /// When the database cannot be asked; it may have been done.
    pub async fn publish_route(&self, id: &str, who: &str) -> Result<Published, Error> {
        self.publish_draft(id, who).await.map_err(|error| self.explain(error))
    }

    async fn publish_draft(&self, id: &str, who: &str) -> Result<Published, sqlx::Error> {
        let mut transaction = self.pool().begin().await?;
        const TAKE: &str =
            "DELETE FROM trunkline.route_drafts WHERE configuration_id = $1 RETURNING definition";
        let draft = sqlx::query_scalar(TAKE).bind(id).fetch_optional(&mut *transaction).await?;
        let Some(Json(definition)) = draft else {
            const READ: &str = "SELECT revision, definition FROM trunkline.route_counters
                JOIN trunkline.route_revisions USING (configuration_id, revision) WHERE configuration_id = $1";
            let found: Option<(i64, Json<RouteConfiguration>)> =
                sqlx::query_as(READ).bind(id).fetch_optional(&mut *transaction).await?;
            return Ok(match found {
                Some((revision, Json(definition))) => Published::NoDraft(revision, definition),
                None => Published::Unknown,
            });
        };
        // What is over stands no longer above the rules that are written now.
        const LOCK: &str = "SELECT FROM trunkline.route_counters WHERE configuration_id = $1 FOR UPDATE";
        sqlx::query(LOCK).bind(id).execute(&mut *transaction).await?;
        if let Some(canary) = canaries::under_way(&mut transaction, id).await? {
            return Ok(Published::UnderCanary(canary));
        }
        // Raising `turn` is what makes every instance look again before its next block.
        const RAISE: &str =
            "INSERT INTO trunkline.route_counters AS c (configuration_id, revision) VALUES ($1, 1)
            ON CONFLICT (configuration_id) DO UPDATE SET revision = c.revision + 1, turn = c.turn + 1, canary = NULL
            RETURNING configuration, revision, turn, decisions, groups, unit, canary";
        let counter = counter(&sqlx::query(RAISE).bind(id).fetch_one(&mut *transaction).await?)?;
        let count: i64 = sqlx::query_scalar("SELECT count(*) FROM trunkline.route_counters")
            .fetch_one(&mut *transaction)
            .await?;
        if count > MAX_CONFIGURATIONS {
            return Ok(Published::TooMany);
        }
        const KEEP: &str = "INSERT INTO trunkline.route_revisions
            (configuration_id, revision, definition, published_by) VALUES ($1, $2, $3, $4)";
        let keep = sqlx::query(KEEP).bind(id).bind(counter.revision).bind(Json(&definition)).bind(who);
        keep.execute(&mut *transaction).await?;
        transaction.commit().await?;
        Ok(Published::InForce(Box::new(InForce { counter, definition })))
    }

    /// The newest `limit` revisions, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn route_history(&self, id: &str, limit: u32) -> Result<Vec<RevisionEntry>, Error> {
        const READ: &str = "SELECT revision, definition, published_by,
                round(extract(epoch FROM published_at) * 1000)::bigint AS published_at
            FROM trunkline.route_revisions WHERE configuration_id = $1 ORDER BY revision DESC LIMIT $2";
        let explain = |error| self.explain(error);
        let rows = sqlx::query(READ).bind(id).bind(i64::from(limit)).fetch_all(self.pool()).await;
        let read = |row: &sqlx::postgres::PgRow| {
            let Json(definition) = row.try_get("definition")?;
            Ok(RevisionEntry {
                revision: row.try_get("revision")?,
                definition,
                published_by: row.try_get("published_by")?,
                published_at: Timestamp::from_millis(row.try_get("published_at")?),
            })
        };
        rows.map_err(explain)?.iter().map(read).collect::<Result<_, _>>().map_err(explain)
    }

    /// Keeps what is about to be asked of the platform, or what came of it.
    ///
    /// # Errors
    /// When the database cannot be asked: then nothing may be sent.
    pub async fn note_route_publication(
        &self,
        id: &str,
        revision: i64,
        step: &str,
        content: &serde_json::Value,
    ) -> Result<(), Error> {
        const NOTE: &str =
            "INSERT INTO trunkline.route_publications (configuration_id, revision, step, content)
            VALUES ($1, $2, $3, $4)";
        let note = sqlx::query(NOTE).bind(id).bind(revision).bind(step).bind(Json(content));
        note.execute(self.pool()).await.map(drop).map_err(|error| self.explain(error))
    }
}
