//! Two flows that are tried out before the eyes of those who watch: one that fails, and one that
//! proves itself and is published.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

use crate::model::delivery::{CanaryState, Missing, share_in_percent};
use crate::postgres::canaries::Canary;
use simulator::{FlowScenario, Overview, Scenario, VersionScenario, VersionStatus};

use super::picture::name_of;
use super::platform::Platform;

/// How often it is looked whether something has proven itself.
const LOOK_EVERY: Duration = Duration::from_secs(1);
/// Shares of a candidate, 0–1. The last one before everything has a control beside it to be sure by.
const STEPS: [f64; 3] = [0.2, 0.5, 1.0];
/// Minutes of simulated time that a step lasts at least.
const HOLD_MINUTES: u32 = 2;

/// A flow, the one that is to take its place, and the routing configuration between both.
struct Trial {
    route: &'static str,
    control: &'static str,
    candidate: &'static str,
    candidate_error_rate: f64,
}

const TRIALS: [Trial; 2] = [
    Trial {
        route: "order-status",
        control: "Order status",
        candidate: "Order status, new",
        candidate_error_rate: 0.25,
    },
    Trial {
        route: "appointments",
        control: "Appointments",
        candidate: "Appointments, new",
        candidate_error_rate: 0.008,
    },
];

/// The built-in organisation with the flows that are tried out, and their content saved in the flows
/// that they are to replace.
pub(super) fn scenario() -> Scenario {
    let mut scenario = Scenario::default();
    for Trial { control, candidate, candidate_error_rate, .. } in TRIALS {
        let version = |id: &str, status| VersionScenario {
            id: id.to_owned(),
            status,
            error_rate: candidate_error_rate,
        };
        for flow in scenario.flows.iter_mut().filter(|flow| flow.name == control) {
            let next = format!("{}.0", flow.versions.len() + 1);
            flow.versions.push(version(&next, VersionStatus::Saved));
            // Nobody waits for an agent: what happens to those who come is soon known.
            flow.transfer_rate = 0.0;
        }
        scenario.flows.push(FlowScenario {
            name: candidate.to_owned(),
            interactions_per_minute: 0.0,
            transfer_rate: 0.0,
            versions: vec![version("1.0", VersionStatus::Active)],
            ..FlowScenario::default()
        });
    }
    scenario.with_ids()
}

/// The routing configurations that dispatchers ask.
pub(super) fn routes() -> impl Iterator<Item = &'static str> {
    TRIALS.iter().map(|trial| trial.route)
}

/// Puts a dispatcher's routing configuration in force for each trial, and begins to try the flows out.
/// Returns what to look out for.
pub(super) async fn begin(platform: &Platform<'_>, overview: &Overview) -> anyhow::Result<String> {
    let id = |name: &str| {
        let flow = overview.flows.iter().find(|flow| flow.name == name);
        flow.map(|flow| flow.id.clone()).with_context(|| format!("a flow {name:?}"))
    };
    for Trial { route, control, candidate, .. } in &TRIALS {
        let (control_id, candidate_id) = (id(control)?, id(candidate)?);
        let rule = json!({"id": "r1", "destination": {"type": "FLOW_ID", "id": control_id}, "weight": 1});
        platform.put_in_force(&json!({"id": route, "name": control, "rules": [rule]})).await?;
        let canary = json!({
            "flowId": control_id, "candidateId": candidate_id, "configurationId": route,
            "steps": STEPS, "holdMinutes": HOLD_MINUTES, "reason": "shown by the demo",
        });
        platform.ask("/v1/canaries", Some(&canary)).await?;
    }
    let [bad, good] = &TRIALS;
    Ok(format!(
        "{:?} and {:?} are tried out by exact shares: one fails and is taken away, the other one is published",
        bad.candidate, good.candidate
    ))
}

/// Somebody who publishes what has proven itself, as soon as it has.
pub(super) async fn promote_what_is_done(platform: &Platform<'_>, stop: &CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(LOOK_EVERY)).await.is_some() {
        if let Err(error) = promote(platform).await {
            tracing::warn!("what has proven itself is not published yet: {error:#}");
        }
    }
}

async fn promote(platform: &Platform<'_>) -> anyhow::Result<()> {
    let canaries = platform.ask("/v1/canaries", None).await?;
    let items = canaries["items"].as_array().map(Vec::as_slice).unwrap_or_default();
    let done = CanaryState::Done.name();
    // Where a promotion failed once it is for the people who watch to look why.
    let is_new = |canary: &&Value| canary["state"] == done && canary["reason"] == "proven";
    for canary in items.iter().filter(is_new) {
        let id = canary["id"].as_str().context("a canary has an id")?;
        platform.ask(&format!("/v1/canaries/{id}/promote"), Some(&json!({}))).await?;
    }
    Ok(())
}

/// How each stands, in a line.
pub(super) fn lines(overview: &Overview, canaries: &[Canary]) -> Vec<String> {
    canaries.iter().rev().map(|canary| line(overview, canary)).collect()
}

fn line(overview: &Overview, canary: &Canary) -> String {
    let (candidate, control) =
        (name_of(overview, &canary.candidate_id), name_of(overview, &canary.control_id));
    let why = match canary.missing {
        // Its points change with every decision: too much to read in passing.
        Some(Missing::Certainty { .. }) => "it is not certain yet that it is no worse".to_owned(),
        Some(missing) => missing.to_string(),
        None => canary.reason.replace('_', " "),
    };
    match canary.state {
        CanaryState::Promoted => {
            format!("canary {candidate}: promoted, {control} is published as it was proven")
        }
        CanaryState::Aborted => {
            format!(
                "canary {candidate}: aborted, {control} takes everything (evidence {:.0})",
                canary.evidence
            )
        }
        state => {
            let share = share_in_percent(canary.share);
            format!("canary {candidate}: {}, has {share} beside {control}; {why}", state.name())
        }
    }
}
