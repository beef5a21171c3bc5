//! Canaries: which flow is tried out beside which, how far it has come, what speaks against it, and the
//! way to take it away or to publish it.

use std::time::Duration;

use maud::{Markup, html};

use super::canary_forms::{Entered, START};
use super::chart::{Chart, Limit, Series, Unit, bar};
use super::parts::{address, age, called, figure, key, named, short, status, to_decision};
use super::shell::Shell;
use super::words::{self, number, percent};
use super::{canary_forms, ledger};
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::model::delivery::{CanaryState, Counts, DeliveryInputs, share_in_percent};
use crate::model::name::{Kind, Names};
use crate::postgres::canaries::Canary;
use crate::postgres::console::DecisionLine;

/// Decisions looked through for one canary.
const MOST: i64 = 400;
/// Of these so many are listed.
const LISTED: usize = 30;
/// The e-value that ends a canary, where no decision tells.
const ABORT_AT: f64 = 100.0;

pub(super) async fn view(
    shared: &Shared,
    shell: &Shell,
    id: Option<&str>,
) -> Result<(String, Markup), Problem> {
    match id {
        Some(id) => one(shared, shell, id).await,
        None => all(shared, shell, &Entered::default()).await,
    }
}

/// The list, and the form that begins one; `entered` is what it held when it was sent and refused.
pub(super) async fn all(
    shared: &Shared,
    shell: &Shell,
    entered: &Entered,
) -> Result<(String, Markup), Problem> {
    let canaries = shared.database.canaries().await?;
    let names = names(shared, &canaries).await;
    let main = html! {
        h1 { "Canaries" }
        p.soft {
            "A flow that is tried out gets a rising, exact share of the conversations of one routing configuration, "
            "and is taken away as soon as it fails more than the one in force."
        }
        @if canaries.is_empty() { p.empty { "No flow was ever tried out." } } @else { (table(&canaries, &names)) }
        @if shell.caller.may_operate() {
            h2 #(START) { "Try a flow out" }
            (canary_forms::start(shell, entered))
        }
    };
    Ok(("Canaries".to_owned(), main))
}

/// Of the flows and configurations of these canaries.
pub(super) async fn names(shared: &Shared, canaries: &[Canary]) -> Names {
    let ids = canaries.iter().flat_map(|each| [&each.candidate_id, &each.control_id, &each.configuration_id]);
    shared.database.names_of(ids.map(|id| &**id)).await
}

fn table(canaries: &[Canary], names: &Names) -> Markup {
    let flow = |id: &str| named(names.of(Kind::Flow, id), id);
    html! {
        div.scroll tabindex="0" role="region" aria-label="Canaries" {
            table {
                caption { "Newest first. Evidence is what speaks against the candidate: 1 says nothing, 100 takes it away." }
                thead { tr {
                    th scope="col" { "Canary" } th scope="col" { "State" } th scope="col" { "Candidate" } th scope="col" { "Beside" }
                    th scope="col" { "Of" } th.number scope="col" { "Share" } th.number scope="col" { "Evidence" } th scope="col" { "Why it stands there" }
                } }
                tbody {
                    @for canary in canaries {
                        tr {
                            th scope="row" { a href=(address("/canaries", &[("id", &canary.id)])) { (short(&canary.id)) } }
                            td { (state(canary.state)) " " (age(canary.changed_at)) }
                            td { (flow(&canary.candidate_id)) }
                            td { (flow(&canary.control_id)) }
                            td { (named(names.of(Kind::Route, &canary.configuration_id), &canary.configuration_id)) }
                            td.number { span.value { (share_in_percent(canary.share)) } }
                            td.number { (number(canary.evidence)) }
                            td.words { (why(canary)) }
                        }
                    }
                }
            }
        }
    }
}

pub(super) fn state(state: CanaryState) -> Markup {
    let class = match state {
        CanaryState::Promoted | CanaryState::Done => "badge good",
        CanaryState::Aborted => "badge bad",
        CanaryState::Promoting => "badge warn",
        CanaryState::Planned | CanaryState::Running => "badge",
    };
    html! { span class=(class) { (state.name()) } }
}

/// What is missing, else why it stands where it does.
pub(super) fn why(canary: &Canary) -> String {
    canary.missing.map_or_else(|| words::why(&canary.reason), |missing| missing.to_string())
}

async fn one(shared: &Shared, shell: &Shell, id: &str) -> Result<(String, Markup), Problem> {
    let title = format!("Canary {}", short(id));
    let Some(canary) = shared.database.canary(id).await? else {
        let main = html! { h1 { (title) } p.empty { "There was never a canary " (key(id)) "." } };
        return Ok((title, main));
    };
    let names = names(shared, std::slice::from_ref(&canary)).await;
    let keys = std::slice::from_ref(&canary.configuration_id);
    let mut lines = shared.database.series_of_keys(Loop::Delivery.name(), keys, MOST).await?;
    lines.retain(|line| line.parameters["canaryId"] == *canary.id);
    let newest: Vec<DecisionLine> = lines.iter().rev().take(LISTED).cloned().collect();
    let main = html! {
        h1 { "Canary " (short(&canary.id)) " " (state(canary.state)) }
        p.lead { (sentence(&canary, &names)) }
        (states(&canary))
        @if shell.caller.may_operate() { (canary_forms::changes(shell, &canary)) }
        (facts(&canary, newest.first()))
        (evidence(&canary, &lines))
        (rates(&lines))
        h2 { "Newest decisions" }
        (ledger::table(&newest, "The newest decisions about this canary"))
        p { a href=(address("/ledger", &[("loop", "delivery"), ("key", &canary.configuration_id)])) { "All decisions about its configuration" } }
    };
    Ok((title, main))
}

fn sentence(canary: &Canary, names: &Names) -> String {
    let flow = |id: &str| called(names.of(Kind::Flow, id), id);
    let (candidate, control) = (flow(&canary.candidate_id), flow(&canary.control_id));
    let of = called(names.of(Kind::Route, &canary.configuration_id), &canary.configuration_id);
    let what = match canary.state {
        CanaryState::Planned => {
            format!("Flow {candidate} gets nothing yet: it is seen how flow {control} does alone")
        }
        CanaryState::Running | CanaryState::Done => {
            format!("Flow {candidate} gets {} of {of} beside flow {control}", share_in_percent(canary.share))
        }
        CanaryState::Aborted => {
            format!("Flow {candidate} was taken away: flow {control} gets everything of {of}")
        }
        CanaryState::Promoting => {
            format!("What flow {candidate} has proven is being published as flow {control}")
        }
        CanaryState::Promoted => {
            format!(
                "Flow {control} is published as flow {candidate} has proven it, and gets everything of {of}"
            )
        }
    };
    if canary.state == CanaryState::Promoted {
        format!("{what}.")
    } else {
        format!("{what}: {}.", why(canary))
    }
}

/// The way of a canary, and where on it this one is.
fn states(canary: &Canary) -> Markup {
    let steps = canary.steps.iter().map(|share| share_in_percent(*share));
    let mut way: Vec<String> = std::iter::once("planned".to_owned()).chain(steps).collect();
    way.extend(["done", "promoted"].map(str::to_owned));
    let step = (canary.step as usize).min(canary.steps.len());
    let now = match canary.state {
        CanaryState::Planned => 0,
        CanaryState::Running | CanaryState::Aborted => step,
        CanaryState::Done => way.len() - 2,
        CanaryState::Promoting | CanaryState::Promoted => way.len() - 1,
    };
    if canary.state == CanaryState::Promoting {
        way[now] = "being published".to_owned();
    }
    let is_over = canary.state == CanaryState::Aborted;
    if is_over {
        way.truncate(now + 1);
        way.push("aborted".to_owned());
    }
    let now = if is_over { now + 1 } else { now };
    html! {
        ol.states aria-label="The way of this canary" {
            @for (index, name) in way.iter().enumerate() {
                li.past[index < now] .now[index == now] .bad[index == now && is_over] aria-current=[(index == now).then_some("step")] {
                    (name)
                    @if index < now { span.visually-hidden { " (behind it)" } }
                    @if index == now { span.visually-hidden { " (it is here)" } }
                }
            }
        }
    }
}

fn facts(canary: &Canary, newest: Option<&DecisionLine>) -> Markup {
    let inputs = newest.and_then(inputs_of);
    let at = canary.changed_at;
    // What is decided stands until something else is: it does not get old.
    let shown = |name: &str, value: String| figure(name, &value, at, Duration::ZERO);
    html! {
        dl.facts {
            (shown("Share of the candidate", share_in_percent(canary.share)))
            (shown("Step", format!("{} of {}", canary.step, canary.steps.len())))
            (shown("Evidence", format!("{} of {}", number(canary.evidence), number(ABORT_AT))))
            (shown("A step lasts at least", format!("{} min", canary.hold_minutes)))
            @if let Some(inputs) = &inputs {
                (shown("Candidate at this step", errors(inputs.step_candidate)))
                (shown("Control at this step", errors(inputs.step_control)))
            }
        }
        p.small {
            "Started by " (canary.started_by) ", " (age(canary.started_at)) ". Candidate " span.id { (canary.candidate_id) }
            ", control " span.id { (canary.control_id) } ", configuration " span.id { (canary.configuration_id) } "."
            @if let Some(line) = newest { " " (to_decision(line.decision_id, "The newest decision")) " " (status(line.status.as_deref())) "." }
        }
    }
}

fn errors(counts: Counts) -> String {
    match counts.total {
        0 => "nobody yet".to_owned(),
        total => format!("{} of {total}", counts.errors),
    }
}

fn inputs_of(line: &DecisionLine) -> Option<DeliveryInputs> {
    serde_json::from_value(line.inputs.clone()).ok()
}

/// What speaks against the candidate, against what takes it away.
fn evidence(canary: &Canary, lines: &[DecisionLine]) -> Markup {
    let read = |line: &DecisionLine| Some((line.decided_at, line.inputs["evidence"].as_f64()?));
    let points: Vec<(Timestamp, f64)> = lines.iter().filter_map(read).collect();
    html! {
        h2 { "What speaks against it" }
        (bar(canary.evidence, &[ABORT_AT], ABORT_AT * 1.05, ""))
        p.small.soft { "Evidence " (number(canary.evidence)) "; the dashed line is " (number(ABORT_AT)) ", where it is taken away." }
        (Chart {
            id: "evidence",
            title: "Evidence at each decision",
            unit: Unit::Number,
            series: vec![Series { name: "evidence", points }],
            limits: vec![Limit { name: "taken away at", value: ABORT_AT }],
            events: Vec::new(),
        }
        .drawn())
    }
}

/// Errors of both flows at each step.
fn rates(lines: &[DecisionLine]) -> Markup {
    let (mut candidate, mut control) = (Vec::new(), Vec::new());
    for (at, inputs) in lines.iter().filter_map(|line| Some((line.decided_at, inputs_of(line)?))) {
        let rate = |counts: Counts| (counts.total > 0).then(|| counts.errors as f64 / counts.total as f64);
        candidate.extend(rate(inputs.step_candidate).map(|rate| (at, rate)));
        control.extend(rate(inputs.step_control).map(|rate| (at, rate)));
    }
    let last = |points: &[(Timestamp, f64)]| {
        points.last().map_or_else(|| "–".to_owned(), |(_, rate)| percent(*rate))
    };
    html! {
        h2 { "How both flows do" }
        p.small { "Errors per interaction at the step, when it was last decided: candidate " (last(&candidate)) ", control " (last(&control)) "." }
        (Chart {
            id: "rates",
            title: "Errors per interaction at each step, at each decision",
            unit: Unit::Share,
            series: vec![
                Series { name: "candidate", points: candidate },
                Series { name: "control", points: control },
            ],
            limits: Vec::new(),
            events: Vec::new(),
        }
        .drawn())
    }
}
