//! Flows as somebody sees them who knows how bad each version is, and can make it so.

use std::sync::Arc;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{Answer, bad, done, parse, patched};
use crate::flows::{Flow, PlannedPublish, Unwell};
use crate::scenario::{FlowScenario, VersionStatus, possible_version_id};
use crate::server::Shared;

/// A version is planned this far ahead at most: a month.
const MAX_AFTER_SECONDS: u64 = 31 * 86_400;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/flows", get(list))
        .route("/flows/{id}", put(set_habits))
        .route("/flows/{id}/publish", post(publish))
        .route("/flows/{id}/versions/{version}", put(set_version))
        .route("/unwell", put(set_unwell))
}

/// Who comes to a flow and what they do, as [`FlowScenario`] has it.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Habits {
    interactions_per_minute: f64,
    abandon_rate: f64,
    transfer_rate: f64,
    outcome_share: f64,
    flow_seconds: f64,
    wait_seconds: f64,
    talk_seconds: f64,
    wrap_up_seconds: f64,
}

impl Habits {
    fn of(scenario: &FlowScenario) -> Self {
        Self {
            interactions_per_minute: scenario.interactions_per_minute,
            abandon_rate: scenario.abandon_rate,
            transfer_rate: scenario.transfer_rate,
            outcome_share: scenario.outcome_share,
            flow_seconds: scenario.flow_seconds,
            wait_seconds: scenario.wait_seconds,
            talk_seconds: scenario.talk_seconds,
            wrap_up_seconds: scenario.wrap_up_seconds,
        }
    }

    fn put_into(self, scenario: &FlowScenario) -> FlowScenario {
        FlowScenario {
            interactions_per_minute: self.interactions_per_minute,
            abandon_rate: self.abandon_rate,
            transfer_rate: self.transfer_rate,
            outcome_share: self.outcome_share,
            flow_seconds: self.flow_seconds,
            wait_seconds: self.wait_seconds,
            talk_seconds: self.talk_seconds,
            wrap_up_seconds: self.wrap_up_seconds,
            ..scenario.clone()
        }
    }
}

fn shown(flow: &Flow) -> Value {
    let mut shown = json!(Habits::of(&flow.habits));
    shown["id"] = json!(flow.id);
    shown["name"] = json!(flow.habits.name);
    shown["queueId"] = json!(flow.queue_id);
    shown["activeVersion"] = json!(flow.active().id);
    shown["versions"] = json!(flow.versions());
    shown
}

async fn list(State(shared): State<Arc<Shared>>) -> Answer {
    let items = shared.with(|organization, _| organization.flows.iter().map(shown).collect::<Vec<_>>());
    done(json!({ "items": items }))
}

async fn set_habits(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let shown = shared.with(|organization, _| {
        let flow = organization.flows.get_mut(&id)?;
        let habits = patched(&Habits::of(&flow.habits), &body)?.put_into(&flow.habits);
        let problems = habits.habit_problems();
        if !problems.is_empty() {
            return Err(bad(problems.join("; ")));
        }
        flow.habits = habits;
        Ok(shown(flow))
    });
    done(shown?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Publish {
    error_rate: f64,
    version: Option<String>,
    description: Option<String>,
    #[serde(default)]
    after_seconds: u64,
}

async fn publish(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let Publish { error_rate, version, description, after_seconds } = parse(&body)?;
    check_error_rate(error_rate)?;
    if version.as_deref().is_some_and(|version| !possible_version_id(version)) {
        return Err(bad("version must be 1 to 64 letters, digits, dots or dashes".into()));
    }
    if after_seconds > MAX_AFTER_SECONDS {
        return Err(bad(format!("afterSeconds {after_seconds} must be at most {MAX_AFTER_SECONDS}")));
    }
    let answer = shared.with(|organization, moment| {
        let due = organization.world.now() + after_seconds;
        let publish = PlannedPublish { due, flow_id: id, version, error_rate, description };
        if after_seconds == 0 {
            return organization.publish(publish, moment).map(|change| json!(change));
        }
        organization.flows.plan(publish)?;
        Ok(json!({ "dueAtSimulatedSecond": due }))
    });
    done(answer?)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct VersionBody {
    error_rate: Option<f64>,
    status: Option<VersionStatus>,
}

async fn set_version(
    State(shared): State<Arc<Shared>>,
    Path((id, version)): Path<(String, String)>,
    body: Bytes,
) -> Answer {
    let VersionBody { error_rate, status } = parse(&body)?;
    error_rate.map_or(Ok(()), check_error_rate)?;
    let shown = shared.with(|organization, _| {
        let flow = organization.flows.get_mut(&id)?;
        let is_active = *flow.active().id == *version;
        let held = flow.version_mut(&version).ok_or_else(|| bad(format!("there is no version {version}")))?;
        if status.is_some_and(|status| is_active || status == VersionStatus::Active) {
            return Err(bad("publish or activate another version to change what is active".into()));
        }
        if status == Some(VersionStatus::Saved) && held.date_published.is_some() {
            return Err(bad(format!("version {version} was active once: it is no longer only saved")));
        }
        held.error_rate = error_rate.unwrap_or(held.error_rate);
        held.status = status.unwrap_or(held.status);
        Ok(shown(flow))
    });
    done(shown?)
}

fn check_error_rate(error_rate: f64) -> Result<(), super::Refusal> {
    if (0.0..=1.0).contains(&error_rate) {
        return Ok(());
    }
    Err(bad(format!("errorRate {error_rate} must be from 0 to 1")))
}

async fn set_unwell(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let unwell: Option<Unwell> = parse(&body)?;
    if let Some(Unwell { above_error_rate, status, .. }) = &unwell {
        check_error_rate(*above_error_rate)?;
        if !(400..=599).contains(status) {
            return Err(bad(format!("status {status} must be 400 to 599")));
        }
    }
    let shown = json!(unwell);
    shared.with(|organization, _| organization.flows.set_unwell(unwell));
    done(shown)
}
