//! Architect flows: how each version fails, what is allowed, and what was taken back.

use std::time::Duration;

use maud::{Markup, html};
use serde_json::Value;

use super::chart::{Chart, Event, Limit, Series, Unit};
use super::parts::{address, age, called, figure, key, status, to_decision, to_named};
use super::words::{self, percent, percent_of};
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::postgres::console::{DecisionLine, RollbackLine};

const MOST: i64 = 100;
const LARGE: i64 = 200;
const ROLLBACKS: i64 = 20;

pub(super) async fn view(shared: &Shared, id: Option<&str>) -> Result<(String, Markup), Problem> {
    match id {
        Some(id) => one(shared, id).await,
        None => all(shared).await,
    }
}

async fn all(shared: &Shared) -> Result<(String, Markup), Problem> {
    let flows = shared.database.newest_by_key(Loop::Rollback.name(), MOST).await?;
    let rollbacks = shared.database.newest_rollbacks(None, ROLLBACKS).await?;
    let main = html! {
        h1 { "Flows" }
        @if flows.is_empty() {
            p.empty { "No flow has been judged in the last day. Flows are named by " code { "rollback.flows" } "." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Flows" {
                table {
                    caption { "A flow is decided about when its verdict changes; figures are from then." }
                    thead { tr {
                        th scope="col" { "Flow" } th scope="col" { "Version" } th.number scope="col" { "Errors" } th.number scope="col" { "Allowed" }
                        th.number scope="col" { "Version before" } th scope="col" { "Verdict" } th scope="col" { "Outcome" }
                    } }
                    tbody {
                        @for line in &flows {
                            tr {
                                th scope="row" { (to_named("/flows", line.name(), &line.key)) }
                                td { (version(line)) }
                                td.number {
                                    span.value { (percent_of(&line.parameters["errorRate"])) }
                                    @if is_over(line) { " " span.badge.bad { "over" } }
                                }
                                td.number { (percent_of(&line.parameters["threshold"])) }
                                td.number { (before(&line.inputs)) }
                                td { (to_decision(line.decision_id, &words::spaced(&line.reason))) " " (age(line.decided_at)) }
                                td { (status(line.status.as_deref())) }
                            }
                        }
                    }
                }
            }
        }
        h2 { "Taken back" }
        (taken_back(&rollbacks))
    };
    Ok(("Flows".to_owned(), main))
}

fn version(line: &DecisionLine) -> &str {
    line.parameters["flowVersion"].as_str().filter(|version| !version.is_empty()).unwrap_or("not told")
}

fn is_over(line: &DecisionLine) -> bool {
    line.parameters["errorRate"].as_f64() > line.parameters["threshold"].as_f64()
}

/// How the version before did.
fn before(inputs: &Value) -> String {
    let baseline = &inputs["baseline"];
    match (baseline["flowVersion"].as_str(), share(&baseline["errors"], &baseline["total"])) {
        (Some(version), Some(rate)) => format!("{version}: {}", percent(rate)),
        _ => "–".to_owned(),
    }
}

fn share(errors: &Value, total: &Value) -> Option<f64> {
    let total = total.as_f64().filter(|total| *total > 0.0)?;
    Some(errors.as_f64()? / total)
}

fn taken_back(rollbacks: &[RollbackLine]) -> Markup {
    html! {
        @if rollbacks.is_empty() {
            p.empty { "No version was taken back." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Versions taken back" {
                table {
                    thead { tr {
                        th scope="col" { "When" } th scope="col" { "Flow" } th scope="col" { "From" } th scope="col" { "To" }
                        th scope="col" { "Did it help" } th scope="col" { "Decision" }
                    } }
                    tbody {
                        @for each in rollbacks {
                            tr {
                                td { (age(each.confirmed_at)) }
                                th scope="row" { (to_named("/flows", each.flow_name.as_deref(), &each.flow_id)) }
                                td { (each.bad_version) }
                                td { (each.target_version) }
                                td { @match each.verification.as_deref() { Some(found) => (status(Some(found))), None => span.soft { "not known yet" } } }
                                td { (to_decision(each.decision_id, "why")) }
                            }
                        }
                    }
                }
            }
        }
    }
}

async fn one(shared: &Shared, id: &str) -> Result<(String, Markup), Problem> {
    let lines = shared
        .database
        .series_of_keys(Loop::Rollback.name(), std::slice::from_ref(&id.to_owned()), LARGE)
        .await?;
    let title = format!("Flow {}", called(lines.last().and_then(DecisionLine::name), id));
    let Some(newest) = lines.last() else {
        let main =
            html! { h1 { (title) } p.empty { "Nothing was ever decided about a flow " (key(id)) "." } };
        return Ok((title, main));
    };
    let rollbacks = shared.database.newest_rollbacks(Some(id), ROLLBACKS).await?;
    // A verdict stands until it changes: its figures do not get old.
    let at = newest.decided_at;
    let recent: Vec<DecisionLine> = lines.iter().rev().take(20).cloned().collect();
    let shown = |name: &str, value: String| figure(name, &value, at, Duration::ZERO);
    let main = html! {
        h1 { (title) }
        p.soft { span.id { (id) } }
        p.lead { (words::sentence(newest)) }
        dl.facts {
            (shown("Version", version(newest).to_owned()))
            (shown("Errors", percent_of(&newest.parameters["errorRate"])))
            (shown("Allowed", percent_of(&newest.parameters["threshold"])))
            (shown("Version before", before(&newest.inputs)))
        }
        (error_chart(&lines, newest, &rollbacks))
        h2 { "Taken back" }
        (taken_back(&rollbacks))
        h2 { "Newest decisions" }
        (super::ledger::table(&recent, "The newest decisions about this flow"))
        p { a href=(address("/ledger", &[("loop", "rollback"), ("key", id)])) { "All decisions about it" } }
    };
    Ok((title, main))
}

/// Error rates of all buckets that decisions were taken from, per version.
pub(super) fn error_chart(
    lines: &[DecisionLine],
    newest: &DecisionLine,
    rollbacks: &[RollbackLine],
) -> Markup {
    let mut versions: Vec<(String, Vec<(Timestamp, f64)>)> = Vec::new();
    for line in lines {
        let name = format!("version {}", version(line));
        let buckets = line.inputs["buckets"].as_array().map(Vec::as_slice).unwrap_or_default();
        let read = |bucket: &Value| {
            let until: Timestamp = bucket["until"].as_str()?.parse().ok()?;
            Some((until, share(&bucket["errors"], &bucket["total"])?))
        };
        let found: Vec<_> = buckets.iter().filter_map(read).collect();
        match versions.iter_mut().find(|(known, _)| *known == name) {
            Some((_, points)) => points.extend(found),
            None => versions.push((name, found)),
        }
    }
    for (_, points) in &mut versions {
        points.sort_by_key(|(at, _)| *at);
        points.dedup_by_key(|(at, _)| *at);
    }
    let series = versions.iter().map(|(name, points)| Series { name, points: points.clone() }).collect();
    let limit = |name: &'static str, value: &Value| Some(Limit { name, value: value.as_f64()? });
    let limits = [
        limit("threshold", &newest.parameters["threshold"]),
        limit("granted by the version before", &newest.inputs["baseline"]["grantedRate"]),
    ];
    let events = rollbacks.iter().map(|each| Event {
        at: each.confirmed_at,
        what: format!("taken back from {} to {}", each.bad_version, each.target_version),
    });
    Chart {
        id: "errors",
        title: "Errors per interaction, in the buckets that were judged",
        unit: Unit::Share,
        series,
        limits: limits.into_iter().flatten().collect(),
        events: events.collect(),
    }
    .drawn()
}
