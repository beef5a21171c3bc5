//! What people call the things that decisions are about.

use super::{Database, Error};
use crate::model::name::{Kind, Named, Names};

impl Database {
    /// Keeps these names, each thing's once among them; says how many were new or changed. A name that
    /// stands there already writes nothing.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn keep_names(&self, names: &[Named]) -> Result<u64, Error> {
        let sql = "INSERT INTO trunkline.platform_names AS held (id, kind, name)
             SELECT * FROM unnest($1::text[], $2::text[], $3::text[])
             ON CONFLICT (id, kind) DO UPDATE SET name = excluded.name, seen_at = now()
             WHERE held.name <> excluded.name";
        let kept = sqlx::query(sql)
            .bind(names.iter().map(|named| named.id.as_str()).collect::<Vec<_>>())
            .bind(names.iter().map(|named| named.kind.name()).collect::<Vec<_>>())
            .bind(names.iter().map(|named| named.name.as_str()).collect::<Vec<_>>())
            .execute(self.pool())
            .await;
        kept.map(|kept| kept.rows_affected()).map_err(|error| self.explain(error))
    }

    /// The names of whatever has one of these ids. Where they cannot be read now there are none: names
    /// are a help, and whoever asks has the ids.
    pub async fn names_of(&self, ids: impl IntoIterator<Item = &str>) -> Names {
        let mut ids: Vec<&str> = ids.into_iter().collect();
        ids.sort_unstable();
        ids.dedup();
        if ids.is_empty() {
            return Names::default();
        }
        let sql = "SELECT id, kind, name FROM trunkline.names WHERE id = ANY($1)";
        let rows: Result<Vec<(String, String, String)>, _> =
            sqlx::query_as(sql).bind(ids).fetch_all(self.pool()).await;
        let named = |(id, kind, name): (String, String, String)| Named::new(Kind::named(&kind)?, &id, &name);
        match rows {
            Ok(rows) => rows.into_iter().filter_map(named).collect(),
            Err(error) => {
                tracing::warn!(error = %self.explain(error), "names cannot be read: ids stand alone");
                Names::default()
            }
        }
    }

    /// Ids of what has `text` in its name, small and capital letters alike, those that are called
    /// exactly so first; `limit` at most.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn ids_called(&self, text: &str, limit: i64) -> Result<Vec<String>, Error> {
        let sql = "SELECT id FROM trunkline.names WHERE strpos(lower(name), lower($1)) > 0
             GROUP BY id ORDER BY bool_or(lower(name) = lower($1)) DESC, min(name), id LIMIT $2";
        let found = sqlx::query_scalar(sql).bind(text).bind(limit).fetch_all(self.pool()).await;
        found.map_err(|error| self.explain(error))
    }
}
