//! Campaigns: how fast each dials, what comes of it, and what was left alone.

use std::collections::BTreeMap;
use std::time::Duration;

use maud::{Markup, html};
use serde_json::Value;

use super::chart::{Chart, Event, Limit, Series, Unit, spark};
use super::parts::{address, age, called, figure, is_stale, key, status, to_decision, to_named};
use super::platform::allowance;
use super::shell::Shell;
use super::words::{self, number, number_of, percent, percent_of, rate_of};
use crate::console::Shared;
use crate::console::allowances::Month;
use crate::console::problem::Problem;
use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::postgres::console::{DecisionLine, Trend};

/// Campaigns on the page.
const MOST: i64 = 100;
/// Decisions behind each small line, and behind a campaign's charts.
const SMALL: i64 = 40;
const LARGE: i64 = 500;
/// More than this share of answers without an agent is over the cap.
const CAP: f64 = 0.03;

pub(super) async fn view(
    shared: &Shared,
    shell: &Shell,
    id: Option<&str>,
) -> Result<(String, Markup), Problem> {
    match id {
        Some(id) => one(shared, shell, id).await,
        None => all(shared, shell).await,
    }
}

async fn all(shared: &Shared, shell: &Shell) -> Result<(String, Markup), Problem> {
    let ((campaigns, trends), month) = tokio::try_join!(newest(shared), async {
        Ok(Month::read(&shared.covered, &shared.database).await?)
    })?;
    let tick = shell.tick_of(Loop::Dial);
    let main = html! {
        h1 { "Campaigns" }
        @if campaigns.is_empty() {
            p.empty { "No campaign has been decided about in the last day. Campaigns are named by " code { "dial.campaigns" } "." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Campaigns" {
                table {
                    caption { "As each was at its newest decision; abandoned is the share of answers over the last " (SMALL) " decisions, the cap is " (percent(CAP)) "." }
                    thead { tr {
                        th scope="col" { "Campaign" } th.number scope="col" { "Lines per idle agent" } th scope="col" { "Rate so far" }
                        th.number scope="col" { "Answered" } th.number scope="col" { "Idle / busy agents" }
                        th.number scope="col" { "Abandoned" } th scope="col" { "Newest decision" } th scope="col" { "Outcome" }
                    } }
                    tbody {
                        @for line in &campaigns { (row(line, trends.get(&line.key).unwrap_or(&Trend::default()), tick)) }
                    }
                }
            }
        }
        (attempts(&month))
    };
    Ok(("Campaigns".to_owned(), main))
}

/// The newest decision about each campaign, and how each has gone lately.
async fn newest(shared: &Shared) -> Result<(Vec<DecisionLine>, BTreeMap<String, Trend>), Problem> {
    let campaigns = shared.database.newest_by_key(Loop::Dial.name(), MOST).await?;
    let keys: Vec<String> = campaigns.iter().map(|line| line.key.clone()).collect();
    let trends = shared.database.trends(&keys, SMALL).await?;
    Ok((campaigns, trends))
}

/// Campaigns whose attempts are shown.
const MOST_SHOWN: usize = 100;

fn attempts(month: &Month) -> Markup {
    let units = |units: Option<u64>| units.map_or_else(|| "–".to_owned(), |units| number(units as f64));
    html! {
        h2 { "Call attempts of this month" }
        (allowance("Attempts of all campaigns", &month.call_attempts))
        @if !month.campaigns.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="Call attempts" {
                table {
                    thead { tr {
                        th scope="col" { "Campaign" } th.number scope="col" { "This month" } th.number scope="col" { "By its end" }
                        th.number scope="col" { "Allowance" } th.number scope="col" { "Left" }
                    } }
                    tbody {
                        @for campaign in month.campaigns.iter().take(MOST_SHOWN) {
                            @let standing = &campaign.standing;
                            tr {
                                th scope="row" { (to_named("/campaigns", campaign.name.as_deref(), &campaign.campaign_id)) }
                                td.number { (units(Some(standing.month_to_date))) } td.number { (units(Some(standing.forecast))) }
                                td.number { (units(standing.allowance)) }
                                td.number { (units(standing.left)) @if standing.is_used_up() { " " span.badge.bad { "used up" } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn row(line: &DecisionLine, trend: &Trend, tick: Duration) -> Markup {
    let inputs = &line.inputs;
    let abandoned = (trend.answered > 0.0).then(|| trend.abandoned / trend.answered);
    let over = abandoned.is_some_and(|share| share > CAP);
    html! {
        tr.stale[is_stale(line.decided_at, tick)] data-at=(line.decided_at) data-tick=(super::parts::as_millis(tick)) {
            th scope="row" { (to_named("/campaigns", line.name(), &line.key)) }
            td.number { span.value { (rate_of(rate_after(line))) } }
            td { (spark(&trend.rates)) }
            td.number { span.value { (percent_of(&inputs["meanAnswerRate"])) } }
            td.number { span.value { (number_of(&inputs["agentsIdle"])) " / " (number_of(&inputs["agentsBusy"])) } }
            td.number {
                span.value { (abandoned.map_or_else(|| "–".to_owned(), percent)) }
                @if over { " " span.badge.bad { "over cap" } }
            }
            td { (to_decision(line.decision_id, &what(line))) " " (age(line.decided_at)) }
            td { (status(line.status.as_deref())) }
        }
    }
}

fn what(line: &DecisionLine) -> String {
    match line.action.as_str() {
        "set_dial_rate" => format!(
            "{} → {}",
            rate_of(&line.parameters["previousDialRate"]),
            rate_of(&line.parameters["dialRate"])
        ),
        _ => format!("left: {}", words::why(&line.reason)),
    }
}

/// What the decision asks for; what was in force where it asks for nothing.
fn rate_after(line: &DecisionLine) -> &Value {
    match &line.parameters["dialRate"] {
        Value::Null => &line.inputs["dialRate"],
        rate => rate,
    }
}

fn points(lines: &[&DecisionLine], value: impl Fn(&DecisionLine) -> Option<f64>) -> Vec<(Timestamp, f64)> {
    lines.iter().filter_map(|line| Some((line.decided_at, value(line)?))).collect()
}

/// Abandonment so far, decision by decision.
fn abandonment_so_far(lines: &[&DecisionLine]) -> Vec<(Timestamp, f64)> {
    let (mut answered, mut abandoned) = (0.0, 0.0);
    let so_far = |line: &&DecisionLine| {
        answered += line.inputs["answered"].as_f64().unwrap_or(0.0);
        abandoned += line.inputs["abandoned"].as_f64().unwrap_or(0.0);
        (answered > 0.0).then(|| (line.decided_at, abandoned / answered))
    };
    lines.iter().filter_map(so_far).collect()
}

async fn one(shared: &Shared, shell: &Shell, id: &str) -> Result<(String, Markup), Problem> {
    let lines = shared
        .database
        .series_of_keys(Loop::Dial.name(), std::slice::from_ref(&id.to_owned()), LARGE)
        .await?;
    let title = format!("Campaign {}", called(lines.last().and_then(DecisionLine::name), id));
    let Some(newest) = lines.last() else {
        let main =
            html! { h1 { (title) } p.empty { "Nothing was ever decided about a campaign " (key(id)) "." } };
        return Ok((title, main));
    };
    let own: Vec<&DecisionLine> = lines.iter().collect();
    let (tick, inputs, at) = (shell.tick_of(Loop::Dial), &newest.inputs, newest.decided_at);
    let shown = |name: &str, value: String| figure(name, &value, at, tick);
    let recent: Vec<DecisionLine> = lines.iter().rev().take(20).cloned().collect();
    let main = html! {
        h1 { (title) }
        p.soft { span.id { (id) } }
        p.lead { (words::sentence(newest)) }
        dl.facts {
            (shown("Lines per idle agent", rate_of(rate_after(newest))))
            (shown("Answered", percent_of(&inputs["meanAnswerRate"])))
            (shown("Idle agents", number_of(&inputs["agentsIdle"])))
            (shown("Busy agents", number_of(&inputs["agentsBusy"])))
            (shown("Attempts since the poll before", number_of(&inputs["attempted"])))
            (shown("Allowed rates", format!("{} to {}", rate_of(&inputs["minDialRate"]), rate_of(&inputs["maxDialRate"]))))
        }
        (abandoned_chart(&own))
        (rate_chart(&own, inputs))
        (answer_chart(&own))
        (agents_chart(&own))
        h2 { "Newest decisions" }
        (super::ledger::table(&recent, "The newest decisions about this campaign"))
        p { a href=(address("/ledger", &[("loop", "dial"), ("key", id)])) { "All decisions about it" } }
    };
    Ok((title, main))
}

fn abandoned_chart(own: &[&DecisionLine]) -> Markup {
    let series = vec![Series { name: "abandoned of answered", points: abandonment_so_far(own) }];
    let limits = vec![Limit { name: "cap", value: CAP }];
    let title = "Abandonment, summed up over the time shown";
    Chart { id: "abandoned", title, unit: Unit::Share, series, limits, events: Vec::new() }.drawn()
}

fn rate_chart(own: &[&DecisionLine], inputs: &Value) -> Markup {
    let series = vec![Series { name: "rate", points: points(own, |line| rate_after(line).as_f64()) }];
    let limit = |name: &'static str, field: &str| Some(Limit { name, value: inputs[field].as_f64()? });
    let limits =
        [limit("least", "minDialRate"), limit("most", "maxDialRate")].into_iter().flatten().collect();
    let refused = own.iter().filter(|line| matches!(line.status.as_deref(), Some("failed" | "conflicted")));
    let events = refused.map(|line| Event { at: line.decided_at, what: words::ended(line) }).collect();
    Chart { id: "rate", title: "Lines per idle agent", unit: Unit::Number, series, limits, events }.drawn()
}

fn answer_chart(own: &[&DecisionLine]) -> Markup {
    let points = points(own, |line| line.inputs["meanAnswerRate"].as_f64());
    let series = vec![Series { name: "answered of attempts", points }];
    let title = "Answer rate, mean of the window";
    Chart { id: "answers", title, unit: Unit::Share, series, limits: Vec::new(), events: Vec::new() }.drawn()
}

fn agents_chart(own: &[&DecisionLine]) -> Markup {
    let of = |name: &'static str, field: &'static str| Series {
        name,
        points: points(own, |line| line.inputs[field].as_f64()),
    };
    let series = vec![of("idle", "agentsIdle"), of("busy", "agentsBusy")];
    Chart {
        id: "agents",
        title: "Agents",
        unit: Unit::Number,
        series,
        limits: Vec::new(),
        events: Vec::new(),
    }
    .drawn()
}
