//! Reading: decisions with their outcomes, newest first.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use sqlx::postgres::PgRow;
use sqlx::{Postgres, QueryBuilder, Row};
use uuid::Uuid;

use super::super::{Database, Error};
use crate::model::Timestamp;
use crate::model::decision::{DecisionId, Policy};
use crate::model::name::Names;
use crate::model::organization::qualified;

/// A decision as it stands on its topic, with what became of it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LedgerEntry {
    pub decision_id: DecisionId,
    /// Counts the decisions of this loop and key from 1, without gaps.
    pub sequence: i64,
    pub r#loop: String,
    pub key: String,
    /// What people call what the key stands for, where that is known; as it was when this was read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// The further organisation that the key belongs to, where the deployment serves several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub organization: Option<String>,
    /// `shadow` or `live`.
    pub mode: String,
    pub decided_at: Timestamp,
    /// When the facts behind it were observed.
    pub event_time: Timestamp,
    pub action: String,
    /// Why, in a form a program can branch on.
    pub reason: String,
    /// What the action asks for.
    pub parameters: Value,
    /// What it was decided from.
    pub inputs: Value,
    pub policy: Policy<'static>,
    /// Revision of the run-time settings it was taken under; 0 is the configuration alone.
    pub settings_revision: i64,
    /// Records that caused it, as `topic/partition/offset`.
    pub cause_ids: Value,
    /// After this it must not be applied.
    pub expires_at: Timestamp,
    /// What became of it; null while that is open.
    pub outcome: Option<OutcomeEntry>,
    /// Whether it helped, for rollbacks that were looked at again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verification: Option<VerificationEntry>,
    /// Its own place in Kafka, as `topic/partition/offset`.
    #[serde(skip)]
    pub position: String,
    /// Of all that it names by id.
    #[serde(skip)]
    pub names: Arc<Names>,
}

/// How a decision ended, as it stands on its topic.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutcomeEntry {
    pub decision_id: DecisionId,
    pub r#loop: String,
    pub key: String,
    pub sequence: i64,
    pub status: String,
    /// Why it ended so: a short code, then details after a colon where there are any.
    pub reason: String,
    /// Requests sent that could have changed something.
    pub attempts: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<Timestamp>,
    pub finished_at: Timestamp,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub effect: Option<Value>,
    /// How long it was held up, and by what.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waited: Option<Value>,
}

/// What was found some minutes after a rollback.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VerificationEntry {
    /// `recovered` or `not_recovered`.
    pub status: String,
    pub reason: String,
    pub finished_at: Timestamp,
}

impl LedgerEntry {
    /// Nothing about it will change any more.
    pub fn is_closed(&self) -> bool {
        let verified = self.r#loop == "rollback" && self.action == "rollback" && self.mode == "live";
        self.outcome.is_some() && (!verified || self.verification.is_some())
    }
}

/// Which decisions are asked for.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub r#loop: Option<String>,
    pub key: Option<String>,
    /// Where a key is given: others that will do as well.
    pub or_keys: Vec<String>,
    /// Name of a further organisation.
    pub organization: Option<String>,
    /// Decided at this time or later.
    pub from: Option<Timestamp>,
    /// Decided before this time.
    pub to: Option<Timestamp>,
    /// Go on after this entry.
    pub after: Option<Cursor>,
}

/// A place in the list: the last entry seen. What is added to the ledger meanwhile
/// moves nothing behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursor {
    decided_at: Timestamp,
    decision_id: Uuid,
}

/// The text is not a cursor that was given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a cursor; take it from `next` of the page before")]
pub struct CursorError;

impl Cursor {
    pub fn after(entry: &LedgerEntry) -> Self {
        Self { decided_at: entry.decided_at, decision_id: entry.decision_id.0 }
    }
}

/// 24 bytes in hexadecimal: opaque enough that nobody builds one, safe in a URL.
impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{}", self.decided_at.as_millis(), self.decision_id.simple())
    }
}

impl FromStr for Cursor {
    type Err = CursorError;

    fn from_str(text: &str) -> Result<Self, CursorError> {
        let (time, id) = text.split_at_checked(16).ok_or(CursorError)?;
        if id.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(CursorError);
        }
        let millis = u64::from_str_radix(time, 16).map_err(|_| CursorError)?.cast_signed();
        let decided_at = Timestamp::from_millis(millis);
        if decided_at.as_millis() != millis {
            return Err(CursorError);
        }
        Ok(Self { decided_at, decision_id: Uuid::try_parse(id).map_err(|_| CursorError)? })
    }
}

pub(super) const SELECT: &str = "SELECT d.decision_id, d.sequence, d.loop, d.key, d.mode,
    round(extract(epoch FROM d.decided_at) * 1000)::bigint AS decided_at,
    round(extract(epoch FROM d.event_time) * 1000)::bigint AS event_time,
    d.action, d.reason, d.parameters, d.inputs, d.policy, d.policy_version, d.policy_hash,
    d.settings_revision, d.cause_ids,
    round(extract(epoch FROM d.expires_at) * 1000)::bigint AS expires_at,
    d.topic || '/' || d.partition || '/' || d.\"offset\" AS position,
    (SELECT g.name FROM trunkline.organizations g
     WHERE d.loop <> 'lag' AND g.name = split_part(d.key, ':', 1) AND d.key <> g.name) AS organization,
    o.status, o.loop AS outcome_loop, o.key AS outcome_key, o.sequence AS outcome_sequence,
    o.reason AS outcome_reason, o.attempts, o.request, o.response,
    round(extract(epoch FROM o.requested_at) * 1000)::bigint AS requested_at,
    round(extract(epoch FROM o.finished_at) * 1000)::bigint AS finished_at, o.effect, o.waited,
    v.status AS verification, v.reason AS verification_reason,
    round(extract(epoch FROM v.finished_at) * 1000)::bigint AS verified_at
FROM audit.decision_log d
LEFT JOIN audit.outcome_log o ON o.decision_id = d.decision_id AND NOT o.verification
LEFT JOIN audit.outcome_log v ON v.decision_id = d.decision_id AND v.verification
WHERE ";

impl Database {
    /// Makes the names of further organisations known, so that the audit tells their decisions.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn know_organizations(&self, names: &[String]) -> Result<(), Error> {
        let sql =
            "INSERT INTO trunkline.organizations (name) SELECT unnest($1::text[]) ON CONFLICT DO NOTHING";
        let known = sqlx::query(sql).bind(names).execute(self.pool()).await;
        known.map(drop).map_err(|error| self.explain(error))
    }

    /// One decision, or `None` where there is none of that id.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn decision(&self, id: DecisionId) -> Result<Option<LedgerEntry>, Error> {
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        query.push("d.decision_id = ").push_bind(id.0);
        let row = query.build().fetch_optional(self.pool()).await.map_err(|error| self.explain(error))?;
        let entry = row.map(|row| entry(&row)).transpose().map_err(|error| self.explain(error))?;
        Ok(self.with_names(Vec::from_iter(entry)).await.pop())
    }

    /// At most `limit` decisions, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn decisions(&self, filter: &Filter, limit: u32) -> Result<Vec<LedgerEntry>, Error> {
        let mut query = QueryBuilder::<Postgres>::new(SELECT);
        // Only what is asked for is part of the statement, so that each shape finds its index.
        query.push("true");
        if let Some(name) = &filter.r#loop {
            query.push(" AND d.loop = ").push_bind(name);
        }
        if let Some(key) = &filter.key {
            if filter.or_keys.is_empty() {
                query.push(" AND d.key = ").push_bind(key);
            } else {
                let keys: Vec<&str> = filter.or_keys.iter().chain([key]).map(String::as_str).collect();
                query.push(" AND d.key = ANY(").push_bind(keys).push(")");
            }
        }
        if let Some(name) = &filter.organization {
            query.push(" AND d.loop <> 'lag' AND starts_with(d.key, ").push_bind(qualified(Some(name), ""));
            query.push(")");
        }
        if let Some(from) = filter.from {
            query.push(" AND d.decided_at >= ");
            push_time(&mut query, from);
        }
        if let Some(to) = filter.to {
            query.push(" AND d.decided_at < ");
            push_time(&mut query, to);
        }
        if let Some(after) = filter.after {
            query.push(" AND (d.decided_at, d.decision_id) < (");
            push_time(&mut query, after.decided_at);
            query.push(", ").push_bind(after.decision_id).push(")");
        }
        query.push(" ORDER BY d.decided_at DESC, d.decision_id DESC LIMIT ").push_bind(i64::from(limit));
        let rows = query.build().fetch_all(self.pool()).await.map_err(|error| self.explain(error))?;
        let entries = rows.iter().map(entry).collect::<Result<Vec<_>, _>>();
        Ok(self.with_names(entries.map_err(|error| self.explain(error))?).await)
    }

    /// The same, with the names of what they are about.
    async fn with_names(&self, mut entries: Vec<LedgerEntry>) -> Vec<LedgerEntry> {
        let ids = entries.iter().flat_map(|entry| ids_of(&entry.key, &entry.parameters));
        let names = Arc::new(self.names_of(ids).await);
        for entry in &mut entries {
            entry.name = names.of_key(&entry.r#loop, &entry.key).map(str::to_owned);
            entry.names = names.clone();
        }
        entries
    }
}

/// All that a decision names by id and people may have called something.
pub(in crate::postgres) fn ids_of<'d>(key: &'d str, parameters: &'d Value) -> impl Iterator<Item = &'d str> {
    let others = ["candidateId", "controlId", "destinationId"]
        .into_iter()
        .filter_map(|name| parameters[name].as_str());
    std::iter::once(key).chain(others)
}

pub(super) fn push_time(query: &mut QueryBuilder<Postgres>, time: Timestamp) {
    query.push("to_timestamp(").push_bind(time.as_millis()).push("::bigint::float8 / 1000)");
}

pub(super) fn entry(row: &PgRow) -> Result<LedgerEntry, sqlx::Error> {
    let decision_id = DecisionId(row.try_get("decision_id")?);
    Ok(LedgerEntry {
        decision_id,
        sequence: row.try_get("sequence")?,
        r#loop: row.try_get("loop")?,
        key: row.try_get("key")?,
        name: None,
        organization: row.try_get("organization")?,
        mode: row.try_get("mode")?,
        decided_at: Timestamp::from_millis(row.try_get("decided_at")?),
        event_time: Timestamp::from_millis(row.try_get("event_time")?),
        action: row.try_get("action")?,
        reason: row.try_get("reason")?,
        parameters: row.try_get("parameters")?,
        inputs: row.try_get("inputs")?,
        policy: Policy {
            name: row.try_get::<String, _>("policy")?.into(),
            version: u32::try_from(row.try_get::<i64, _>("policy_version")?)
                .map_err(|error| sqlx::Error::Decode(error.into()))?,
            hash: row.try_get::<String, _>("policy_hash")?.into(),
        },
        settings_revision: row.try_get("settings_revision")?,
        cause_ids: row.try_get("cause_ids")?,
        expires_at: Timestamp::from_millis(row.try_get("expires_at")?),
        outcome: outcome(decision_id, row)?,
        verification: verification(row)?,
        position: row.try_get("position")?,
        names: Arc::default(),
    })
}

fn outcome(decision_id: DecisionId, row: &PgRow) -> Result<Option<OutcomeEntry>, sqlx::Error> {
    let Some(status) = row.try_get("status")? else {
        return Ok(None);
    };
    Ok(Some(OutcomeEntry {
        decision_id,
        r#loop: row.try_get("outcome_loop")?,
        key: row.try_get("outcome_key")?,
        sequence: row.try_get("outcome_sequence")?,
        status,
        reason: row.try_get("outcome_reason")?,
        attempts: row.try_get("attempts")?,
        request: row.try_get("request")?,
        response: row.try_get("response")?,
        requested_at: row.try_get::<Option<i64>, _>("requested_at")?.map(Timestamp::from_millis),
        finished_at: Timestamp::from_millis(row.try_get("finished_at")?),
        effect: row.try_get("effect")?,
        waited: row.try_get("waited")?,
    }))
}

fn verification(row: &PgRow) -> Result<Option<VerificationEntry>, sqlx::Error> {
    let Some(status) = row.try_get("verification")? else {
        return Ok(None);
    };
    Ok(Some(VerificationEntry {
        status,
        reason: row.try_get("verification_reason")?,
        finished_at: Timestamp::from_millis(row.try_get("verified_at")?),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn cursors_survive_the_url(millis in -62_135_596_800_000i64..=253_402_300_799_999, id: u128) {
            let cursor = Cursor {
                decided_at: Timestamp::from_millis(millis),
                decision_id: Uuid::from_u128(id),
            };
            prop_assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }

        #[test]
        fn nothing_else_is_taken_for_a_cursor(text in ".{0,60}") {
            if let Ok(cursor) = text.parse::<Cursor>() {
                prop_assert_eq!(cursor.to_string(), text.to_lowercase());
            }
        }
    }
}
