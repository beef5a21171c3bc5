//! Canaries of flows: what people order is carried out, recorded and sent in one transaction, and
//! the share of a candidate stands in the row that routing counts in.

mod apply;
mod new;

use schemars::JsonSchema;
use serde::Serialize;
use sqlx::postgres::PgRow;
use sqlx::types::Json;
use sqlx::{PgConnection, Row as _};
use uuid::Uuid;

use super::outbox::{self, Message};
use super::settings::SettingError;
use super::{Database, Error};
use crate::model::Timestamp;
use crate::model::decision::{Decision, DecisionId};
use crate::model::delivery::{
    CANARY, CanaryFact, CanaryOrder, CanaryOverlay, CanaryRequest, CanaryState, DeliveryInputs,
    DeliveryParameters, Missing, Ordered,
};

pub use apply::Delivered;
pub use new::NewCanary;
use new::check_reason;

/// Where facts about canaries go. The name is the topic's own.
const FACTS: &str = "trunkline.canary-facts.v1";
/// Canaries listed at most.
const LIST_LIMIT: i64 = 200;

/// A decision about a canary as it was read.
pub type DeliveryRead<'a> = Decision<'a, DeliveryInputs, DeliveryParameters, Vec<String>>;

/// A canary as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Canary {
    pub id: String,
    pub configuration_id: String,
    pub control_id: String,
    pub candidate_id: String,
    pub state: CanaryState,
    /// From 1; 0 before the first.
    pub step: u32,
    /// Shares of the candidate, 0–1.
    pub steps: Vec<f64>,
    /// Share of the candidate in force, 0–1.
    pub share: f64,
    pub hold_minutes: u32,
    /// Why it stands where it does.
    pub reason: String,
    /// What speaks against the candidate: 1 says nothing, 100 aborts it.
    pub evidence: f64,
    /// What is missing before the next step.
    pub missing: Option<Missing>,
    /// The newest decision about it.
    pub decision_id: Option<DecisionId>,
    pub started_by: String,
    pub started_at: Timestamp,
    pub changed_at: Timestamp,
}

const COLUMNS: &str =
    "canary_id, configuration_id, control_id, candidate_id, steps, hold_minutes, state, step, share,
    decision_id, reason, evidence, missing, started_by,
    floor(extract(epoch FROM started_at) * 1000)::bigint AS started_at_ms,
    floor(extract(epoch FROM changed_at) * 1000)::bigint AS changed_at_ms";

fn canary(row: &PgRow) -> Result<Canary, sqlx::Error> {
    let state: String = row.try_get("state")?;
    let state = CanaryState::named(&state)
        .ok_or_else(|| sqlx::Error::Decode(format!("{state:?} is no state of a canary").into()))?;
    let missing: Option<Json<Missing>> = row.try_get("missing")?;
    Ok(Canary {
        id: row.try_get("canary_id")?,
        configuration_id: row.try_get("configuration_id")?,
        control_id: row.try_get("control_id")?,
        candidate_id: row.try_get("candidate_id")?,
        state,
        step: row.try_get::<i32, _>("step")?.unsigned_abs(),
        steps: row.try_get("steps")?,
        // What was promoted is over: the configuration is in force as it is written.
        share: if state == CanaryState::Promoted { 0.0 } else { row.try_get("share")? },
        hold_minutes: row.try_get::<i32, _>("hold_minutes")?.unsigned_abs(),
        reason: row.try_get("reason")?,
        evidence: row.try_get("evidence")?,
        missing: missing.map(|Json(missing)| missing),
        decision_id: row.try_get::<Option<Uuid>, _>("decision_id")?.map(DecisionId),
        started_by: row.try_get("started_by")?,
        started_at: Timestamp::from_millis(row.try_get("started_at_ms")?),
        changed_at: Timestamp::from_millis(row.try_get("changed_at_ms")?),
    })
}

fn refused(reason: impl Into<String>) -> SettingError {
    SettingError::Refused(reason.into())
}

impl Database {
    /// Begins a canary: the candidate gets nothing yet, whatever the configuration says.
    ///
    /// # Errors
    /// When it does not fit the configuration in force, or one is under way.
    pub async fn start_canary(&self, new: &NewCanary, who: &str) -> Result<Canary, SettingError> {
        new.check().map_err(SettingError::Refused)?;
        let explain = |error| SettingError::Database(self.explain(error));
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        const LOCK: &str = "SELECT r.definition FROM trunkline.route_counters c
            JOIN trunkline.route_revisions r USING (configuration_id, revision)
            WHERE c.configuration_id = $1 FOR UPDATE OF c";
        let found = sqlx::query_scalar(LOCK).bind(&new.route).fetch_optional(&mut *transaction).await;
        let Some(Json(definition)) = found.map_err(explain)? else {
            return Err(refused(format!(
                "no configuration {} is in force; `trunkline routes` lists them",
                new.route
            )));
        };
        new.fits(&definition).map_err(SettingError::Refused)?;
        if let Some(other) = under_way(&mut transaction, &new.route).await.map_err(explain)? {
            return Err(refused(format!(
                "canary {other} of configuration {} is under way: abort it first",
                new.route
            )));
        }
        let order = |canary_id: String| CanaryOrder {
            canary_id,
            request: CanaryRequest::Start,
            control_id: new.flow.clone(),
            candidate_id: new.candidate.clone(),
            steps: new.steps.0.clone(),
            hold_minutes: new.hold_minutes,
            reason: new.reason.clone(),
            version: None,
        };
        let ordered =
            self.order(&mut transaction, &new.route, who, |revision| order(format!("canary-{revision}")));
        let Ordered { order, revision, .. } = ordered.await?;
        const BEGIN: &str = "INSERT INTO trunkline.canaries
            (canary_id, configuration_id, control_id, candidate_id, steps, hold_minutes, state, reason, started_by)
            VALUES ($1, $2, $3, $4, $5, $6, 'planned', 'started', $7)";
        let begin = sqlx::query(BEGIN)
            .bind(&order.canary_id)
            .bind(&new.route)
            .bind(&new.flow)
            .bind(&new.candidate)
            .bind(&new.steps.0)
            .bind(i32::try_from(new.hold_minutes).unwrap_or(i32::MAX))
            .bind(who);
        begin.execute(&mut *transaction).await.map_err(explain)?;
        let overlay = CanaryOverlay {
            canary_id: order.canary_id.clone(),
            control_id: new.flow.clone(),
            candidate_id: new.candidate.clone(),
            candidate_parts: 0,
            revision: i64::try_from(revision).unwrap_or(i64::MAX),
        };
        put_overlay(&mut transaction, &new.route, Some(&overlay)).await.map_err(explain)?;
        let begun = read(&mut transaction, &order.canary_id).await.map_err(explain)?;
        transaction.commit().await.map_err(explain)?;
        begun.ok_or_else(|| refused("the canary that was just begun is not there"))
    }

    /// Takes the candidate away: in force for every decision that is recorded after this returns.
    /// `id` is the canary's, or its routing configuration's for the newest one.
    ///
    /// # Errors
    /// When there is none, or it is over.
    pub async fn abort_canary(&self, id: &str, reason: &str, who: &str) -> Result<Canary, SettingError> {
        if reason.trim().is_empty() {
            return Err(refused("an abort needs a reason, for those who find the canary stopped"));
        }
        let can = |state| matches!(state, CanaryState::Planned | CanaryState::Running | CanaryState::Done);
        self.end_canary(id, who, CanaryRequest::Abort, Some(reason), None, can).await
    }

    /// Asks for the publication of what has proven itself: of `version` of the control, or of its
    /// newest one that was never in force.
    ///
    /// # Errors
    /// When there is none, or it has not proven itself.
    pub async fn promote_canary(
        &self,
        id: &str,
        version: Option<&str>,
        who: &str,
    ) -> Result<Canary, SettingError> {
        let can = |state| state == CanaryState::Done;
        self.end_canary(id, who, CanaryRequest::Promote, None, version, can).await
    }

    async fn end_canary(
        &self,
        id: &str,
        who: &str,
        request: CanaryRequest,
        reason: Option<&str>,
        version: Option<&str>,
        can: impl Fn(CanaryState) -> bool,
    ) -> Result<Canary, SettingError> {
        check_reason(reason).map_err(SettingError::Refused)?;
        let explain = |error| SettingError::Database(self.explain(error));
        let mut transaction = self.pool().begin().await.map_err(explain)?;
        let missing = || refused(format!("there is no canary {id}; `trunkline canary status` lists them"));
        let found = read(&mut transaction, id).await.map_err(explain)?.ok_or_else(missing)?;
        lock_counter(&mut transaction, &found.configuration_id).await.map_err(explain)?;
        // What it is now, with its counter locked.
        let found = read(&mut transaction, &found.id).await.map_err(explain)?.ok_or_else(missing)?;
        if !can(found.state) {
            let what = match request {
                CanaryRequest::Promote => {
                    "only what is done, which is proven with everything, can be promoted"
                }
                _ => "it can no longer be aborted",
            };
            return Err(refused(format!("canary {} is {}: {what}", found.id, found.state.name())));
        }
        let order = CanaryOrder {
            canary_id: found.id.clone(),
            request,
            control_id: found.control_id.clone(),
            candidate_id: found.candidate_id.clone(),
            steps: found.steps.clone(),
            hold_minutes: found.hold_minutes,
            reason: reason.map(str::to_owned),
            version: version.map(str::to_owned),
        };
        self.order(&mut transaction, &found.configuration_id, who, |_| order).await?;
        let (state, share, why) = match request {
            CanaryRequest::Abort => {
                (CanaryState::Aborted, 0.0, format!("aborted by {who}: {}", reason.unwrap_or("")))
            }
            _ => (CanaryState::Promoting, found.share, format!("promoted by {who}")),
        };
        let change = Change { state, step: found.step, share, reason: &why, told: None };
        put(&mut transaction, &found, &change).await.map_err(explain)?;
        let now = read(&mut transaction, &found.id).await.map_err(explain)?.ok_or_else(missing)?;
        transaction.commit().await.map_err(explain)?;
        Ok(now)
    }

    /// Records an order as a setting and sends it to those who decide.
    async fn order(
        &self,
        transaction: &mut PgConnection,
        configuration_id: &str,
        who: &str,
        order: impl FnOnce(u64) -> CanaryOrder,
    ) -> Result<Ordered, SettingError> {
        let scope = format!("{CANARY}{configuration_id}");
        let mut ordered = None;
        let setting = self
            .change_setting_within(transaction, &scope, who, |revision, _, _| {
                let order = order(revision);
                let value = serde_json::to_value(&order).expect("own values are JSON");
                ordered = Some(order);
                Ok(value)
            })
            .await?;
        let ordered = Ordered {
            configuration_id: configuration_id.to_owned(),
            order: ordered.expect("the change was asked for"),
            revision: setting.revision,
            who: who.to_owned(),
            when: setting.when,
        };
        let fact = CanaryFact::Ordered(ordered.clone());
        let sent = send_fact(transaction, configuration_id, &fact, &[]).await;
        sent.map_err(|error| SettingError::Database(self.explain(error)))?;
        Ok(ordered)
    }

    /// A canary by its id, or the newest of a routing configuration by that one's.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn canary(&self, id: &str) -> Result<Option<Canary>, Error> {
        let explain = |error| self.explain(error);
        let mut connection = self.pool().acquire().await.map_err(explain)?;
        read(&mut connection, id).await.map_err(explain)
    }

    /// Canaries, newest first.
    ///
    /// # Errors
    /// When the database cannot be asked.
    pub async fn canaries(&self) -> Result<Vec<Canary>, Error> {
        let query =
            format!("SELECT {COLUMNS} FROM trunkline.canaries ORDER BY started_at DESC, canary_id LIMIT $1");
        let rows = sqlx::query(sqlx::AssertSqlSafe(query)).bind(LIST_LIMIT).fetch_all(self.pool()).await;
        let explain = |error| self.explain(error);
        rows.map_err(explain)?.iter().map(canary).collect::<Result<_, _>>().map_err(explain)
    }
}

/// Sends what the loop is to hear, with the transaction that it tells of, in the trace that led to it if
/// there is one.
async fn send_fact(
    connection: &mut PgConnection,
    configuration_id: &str,
    fact: &CanaryFact<'_>,
    traceparent: &[u8],
) -> Result<(), sqlx::Error> {
    let bytes = serde_json::to_vec(fact).expect("own values are JSON");
    let message = Message::new(FACTS, configuration_id.as_bytes(), &bytes).of_trace(traceparent);
    outbox::append(connection, &message).await.map(drop)
}

struct Change<'a> {
    state: CanaryState,
    step: u32,
    share: f64,
    reason: &'a str,
    told: Option<&'a DeliveryRead<'a>>,
}

async fn put(connection: &mut PgConnection, before: &Canary, change: &Change<'_>) -> Result<(), sqlx::Error> {
    const PUT: &str = "UPDATE trunkline.canaries SET state = $2, step = $3, share = $4, reason = $5,
            decision_id = coalesce($6, decision_id), evidence = coalesce($7, evidence), missing = $8, changed_at = now()
        WHERE canary_id = $1";
    let told = change.told;
    let missing = told.and_then(|told| told.inputs.missing);
    let put = sqlx::query(PUT)
        .bind(&before.id)
        .bind(change.state.name())
        .bind(i32::try_from(change.step).unwrap_or(i32::MAX))
        .bind(change.share)
        .bind(change.reason)
        .bind(told.map(|told| told.decision_id.0))
        .bind(told.map(|told| told.inputs.evidence))
        .bind(missing.map(Json));
    put.execute(&mut *connection).await?;
    let (from, to) = (CanaryOverlay::parts_of(before.share), CanaryOverlay::parts_of(change.share));
    if from == to {
        return Ok(());
    }
    // Raising `turn` is what makes every instance look again before its next block.
    const SHARE: &str = "UPDATE trunkline.route_counters
        SET canary = jsonb_set(canary, '{candidateParts}', to_jsonb($2::int)), turn = turn + 1
        WHERE configuration_id = $1 AND canary ->> 'canaryId' = $3";
    let share = sqlx::query(SHARE).bind(&before.configuration_id).bind(to.cast_signed()).bind(&before.id);
    share.execute(&mut *connection).await.map(drop)
}

async fn put_overlay(
    connection: &mut PgConnection,
    configuration_id: &str,
    overlay: Option<&CanaryOverlay>,
) -> Result<(), sqlx::Error> {
    const PUT: &str =
        "UPDATE trunkline.route_counters SET canary = $2, turn = turn + 1 WHERE configuration_id = $1";
    let put = sqlx::query(PUT).bind(configuration_id).bind(overlay.map(Json));
    put.execute(connection).await.map(drop)
}

/// The counter comes first in every transaction about a canary: nobody waits for each other.
async fn lock_counter(connection: &mut PgConnection, configuration_id: &str) -> Result<(), sqlx::Error> {
    const LOCK: &str = "SELECT FROM trunkline.route_counters WHERE configuration_id = $1 FOR UPDATE";
    sqlx::query(LOCK).bind(configuration_id).execute(connection).await.map(drop)
}

/// The canary that has this configuration, where one is under way.
pub(super) async fn under_way(
    connection: &mut PgConnection,
    configuration_id: &str,
) -> Result<Option<String>, sqlx::Error> {
    const FIND: &str = "SELECT canary_id FROM trunkline.canaries
        WHERE configuration_id = $1 AND state IN ('planned', 'running', 'promoting')";
    sqlx::query_scalar(FIND).bind(configuration_id).fetch_optional(connection).await
}

async fn read(connection: &mut PgConnection, id: &str) -> Result<Option<Canary>, sqlx::Error> {
    let query = format!(
        "SELECT {COLUMNS} FROM trunkline.canaries WHERE canary_id = $1 OR configuration_id = $1
         ORDER BY canary_id = $1 DESC, started_at DESC LIMIT 1"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(query)).bind(id).fetch_optional(connection).await?;
    row.as_ref().map(canary).transpose()
}
