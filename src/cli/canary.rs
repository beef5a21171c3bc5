//! `trunkline canary`: progressive delivery of flows.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail};
use serde_json::Value;

use super::ConfigFile;
use super::explain::{printable, text_of, texts};
use crate::model::decision::Loop;
use crate::model::delivery::{Steps, share_in_percent};
use crate::model::name::Kind;
use crate::postgres::canaries::{Canary, NewCanary};
use crate::postgres::ledger::LedgerEntry;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Tries a flow out: conversations of a routing configuration go to it by rising exact shares
    Start {
        /// The flow in force
        flow: String,
        /// The flow that is tried out
        #[arg(long, value_name = "FLOW2")]
        candidate: String,
        /// The routing configuration that the dispatcher asks; it sends to these flows alone
        #[arg(long, value_name = "CONFIG")]
        route: String,
        /// Shares of the candidate one after the other, percent
        #[arg(long, value_name = "PERCENT,…", default_value = "1,5,20,50,100")]
        steps: Steps,
        /// How long a step lasts at least, whole minutes
        #[arg(long, value_name = "DURATION", default_value = "15m", value_parser = super::duration)]
        hold: Duration,
        /// Why, for those who look it up
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// How canaries stand, newest first
    Status {
        /// One canary, or the newest of this routing configuration
        id: Option<String>,
        #[command(flatten)]
        output: Output,
    },
    /// Takes the candidate away: it gets nothing from the very next decision on
    Abort {
        /// The canary, or its routing configuration
        id: String,
        /// Why, for those who find it stopped
        #[arg(long, value_name = "TEXT")]
        reason: String,
        #[command(flatten)]
        output: Output,
    },
    /// Publishes what has proven itself; after that the routing configuration counts as it is written
    Promote {
        /// The canary, or its routing configuration
        id: String,
        /// Version of the flow in force that has the candidate's content; without it the newest one that was
        /// never in force
        #[arg(long, value_name = "VERSION")]
        version: Option<String>,
        #[command(flatten)]
        output: Output,
    },
}

#[derive(Debug, clap::Args)]
struct Output {
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let who = super::who();
        let (output, canary) = match self.what {
            What::Start { flow, candidate, route, steps, hold, reason, output } => {
                let hold_minutes = whole_minutes(hold)?;
                let new = NewCanary { flow, candidate, route, steps, hold_minutes, reason };
                let begun = output.config.database().await?.start_canary(&new, &who).await?;
                (output, begun)
            }
            What::Status { id: Some(id), output } => {
                let found = output.config.database().await?.canary(&id).await?;
                let found = found.with_context(|| {
                    format!("there is no canary {id}; `trunkline canary status` lists them")
                })?;
                (output, found)
            }
            What::Status { id: None, output } => {
                let all = output.config.database().await?.canaries().await?;
                return show_all(&output, &all);
            }
            What::Abort { id, reason, output } => {
                let aborted = output.config.database().await?.abort_canary(&id, &reason, &who).await?;
                (output, aborted)
            }
            What::Promote { id, version, output } => {
                let database = output.config.database().await?;
                let promoted = database.promote_canary(&id, version.as_deref(), &who).await?;
                (output, promoted)
            }
        };
        match output.json {
            true => super::print_json(&canary)?,
            false => writeln!(std::io::stdout(), "{}", line(&canary))?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn show_all(output: &Output, canaries: &[Canary]) -> anyhow::Result<ExitCode> {
    if output.json {
        super::print_items(&canaries)?;
        return Ok(ExitCode::SUCCESS);
    }
    let mut out = std::io::stdout();
    for canary in canaries {
        writeln!(out, "{}", line(canary))?;
    }
    if canaries.is_empty() {
        writeln!(out, "no flow was ever tried out")?;
    }
    Ok(ExitCode::SUCCESS)
}

fn whole_minutes(hold: Duration) -> anyhow::Result<u32> {
    if !hold.as_millis().is_multiple_of(60_000) {
        bail!("--hold {hold:?}: a step lasts whole minutes, such as 15m");
    }
    u32::try_from(hold.as_secs() / 60).context("--hold is too long")
}

/// One canary in a line.
fn line(canary: &Canary) -> String {
    let missing = canary.missing.map(|missing| format!(", {missing}")).unwrap_or_default();
    let text = format!(
        "{} {}: {} gets {} of {} beside {} (step {} of {}), evidence {:.2}, {}{missing}; since {} by {}",
        canary.id,
        canary.state.name(),
        canary.candidate_id,
        share_in_percent(canary.share),
        canary.configuration_id,
        canary.control_id,
        canary.step,
        canary.steps.len(),
        canary.evidence,
        canary.reason.replace('_', " "),
        canary.started_at,
        canary.started_by,
    );
    printable(&text)
}

/// What a decision about a canary means, in a sentence.
pub(super) fn sentence(entry: &LedgerEntry) -> Option<String> {
    if entry.r#loop != Loop::Delivery.name() {
        return None;
    }
    let (parameters, inputs) = (&entry.parameters, &entry.inputs);
    let percent = |value: &Value| value.as_f64().map(|share| format!("{:.2} %", share * 100.0));
    let rate = |counts: &Value| {
        let (total, errors) = (counts.get("total")?.as_f64()?, counts.get("errors")?.as_f64()?);
        Some(format!("{errors} errors of {total}"))
    };
    let flow = |name: &str| {
        let id = text_of(parameters, name);
        entry.names.of(Kind::Flow, &id).map_or_else(|| id.clone(), |name| format!("{name} ({id})"))
    };
    let (candidate, control) = (flow("candidateId"), flow("controlId"));
    let share = percent(parameters.get("share")?)?;
    let what = match entry.action.as_str() {
        "set_share" => format!("{candidate} gets {share} beside {control}"),
        "abort" => {
            format!("{candidate} gets nothing any more, {control} everything, from the very next decision on")
        }
        "promote" => format!("{control} is published as {candidate} has proven it"),
        _ => format!("{candidate} stays at {share}"),
    };
    let evidence = inputs.get("evidence")?.as_f64()?;
    let (of_candidate, of_control) = (rate(inputs.get("stepCandidate")?)?, rate(inputs.get("stepControl")?)?);
    Some(format!(
        "{what}: {of_candidate} against {of_control} at this step, evidence {evidence:.2} of {}",
        texts(inputs.get("abortAt")?)
    ))
}
