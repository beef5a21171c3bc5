//! One decision: the sentence a person would say, how its value came to be, and all that was
//! known, sent and answered.

use maud::{Markup, html};
use serde_json::Value;

use super::chart::bar;
use super::parts::{address, age, end, mode, named, status};
use super::words::{self, number, percent, rate, rate_of, spaced};
use super::{alerts, flows};
use crate::console::Shared;
use crate::console::problem::{Kind as ProblemKind, Problem};
use crate::model::chain::Chain;
use crate::model::decision::DecisionId;
use crate::model::name::{Kind, Names};
use crate::postgres::console::DecisionLine;
use crate::postgres::ledger::LedgerEntry;

/// Rows a list of an answer shows.
const LISTED: usize = 200;

pub(super) async fn view(shared: &Shared, id: &str) -> Result<(String, Markup), Problem> {
    let missing = || {
        let remedy = "check the id; a decision taken just now is here once the audit has recorded it";
        Problem::new(ProblemKind::NotFound, "there is no decision of this id", remedy)
    };
    let id = uuid::Uuid::try_parse(id).map(DecisionId).map_err(|_| missing())?;
    let entry = shared.database.decision(id).await?.ok_or_else(missing)?;
    let told = shared.database.newest_alerts(Some(id), 20).await?;
    let line = DecisionLine::from(entry.clone());
    let groups = groups(&entry).iter().filter_map(|group| group["destinationId"].as_str());
    let names = shared.database.names_of(groups).await;
    let title = format!("Decision {}", &id.to_string()[..8]);
    let main = html! {
        h1 { (title) " " (mode(&entry.r#loop, &entry.mode)) " " (end(&line)) }
        p.lead { (words::sentence(&line)) }
        @if let Some(found) = &entry.verification {
            p { "Looked at again " (age(found.finished_at)) ": " (status(Some(&found.status))) " " (words::why(&found.reason)) "." }
        }
        (how(&entry, &line, &names))
        (facts(&entry))
        h2 { "Outcome" }
        (outcome(&entry))
        @if !told.is_empty() { h2 { "People were told" } (alerts::table(&told)) }
        h2 { "Inputs, exactly" }
        (fields(&entry.inputs))
        h2 { "What was asked for, exactly" }
        (fields(&entry.parameters))
        p { a href=(format!("/v1/decisions/{id}")) { "The same as JSON" } }
    };
    Ok((title, main))
}

/// How the value came to be, drawn.
fn how(entry: &LedgerEntry, line: &DecisionLine, names: &Names) -> Markup {
    match entry.r#loop.as_str() {
        "dial" => html! { h2 { "How the rate came to be" } (dial(entry)) },
        "rollback" => html! {
            h2 { "What it was held against" }
            (flows::error_chart(std::slice::from_ref(line), line, &[]))
            (counts(&entry.inputs))
        },
        "lag" => html! { h2 { "How the group was" } (fields(&entry.inputs["evaluation"])) },
        "route" => html! { h2 { "Whose turn it was" } (turn(entry, names)) },
        _ => html! {},
    }
}

/// Raw answer, each limit, and what is asked for, drawn against the campaign's own limits.
fn dial(entry: &LedgerEntry) -> Markup {
    let (inputs, parameters) = (&entry.inputs, &entry.parameters);
    let limits: Vec<f64> =
        ["minDialRate", "maxDialRate"].into_iter().filter_map(|name| inputs[name].as_f64()).collect();
    let chain = chain_of(entry);
    let before = inputs["dialRate"].as_f64().or(parameters["previousDialRate"].as_f64());
    let after = parameters["dialRate"].as_f64().or(before);
    let mut steps: Vec<(String, f64, bool, &str)> = Vec::new();
    steps.extend(before.map(|rate| ("in force before".to_owned(), rate, false, "was")));
    if let Some(chain) = &chain {
        steps.push(("raw answer of the rule".to_owned(), chain.raw, false, ""));
        let mut last = chain.raw;
        for limited in &chain.limits {
            let name = format!("after the limit {}", spaced(limited.limit.name()));
            let bound = chain.bound == Some(limited.limit) && limited.value != last;
            steps.push((name, limited.value, bound, ""));
            last = limited.value;
        }
    }
    steps.extend(after.map(|rate| ("final".to_owned(), rate, false, "")));
    let top =
        steps.iter().map(|(_, value, ..)| *value).chain(limits.iter().copied()).fold(0.0, f64::max) * 1.05;
    html! {
        ol.chain {
            @for (name, value, bound, class) in &steps {
                li.bound[*bound] {
                    span { (name) @if *bound { " " span.badge.warn { "this one bound" } } }
                    (bar(*value, &limits, top, class))
                    span.number { (rate(*value)) }
                }
            }
        }
        p.small.soft {
            "Lines per idle agent; the dashed lines are the campaign's own limits"
            @if let [min, max] = limits[..] { ", " (rate(min)) " and " (rate(max)) }
            "."
            @for hold in parameters["holds"].as_array().map(Vec::as_slice).unwrap_or_default().iter().filter_map(Value::as_str) {
                " Held from rising: " (words::why(hold)) "."
            }
            @if chain.is_none() { " This decision records no steps between the rule's answer and its final value." }
        }
        @if let Some(other) = parameters["shadow"]["policy"].as_str() {
            p.small {
                "The policy " (other) " would have decided " (rate_of(&parameters["shadow"]["dialRate"])) ", because "
                (words::why(parameters["shadow"]["reason"].as_str().unwrap_or_default())) ". Nobody acts on it."
            }
        }
    }
}

/// The recorded chain, where the decision has one.
fn chain_of(entry: &LedgerEntry) -> Option<Chain> {
    let places = [&entry.parameters["chain"], &entry.inputs["chain"]];
    places
        .into_iter()
        .find(|value| value.is_object())
        .and_then(|value| serde_json::from_value(value.clone()).ok())
}

/// Errors per bucket, as numbers.
fn counts(inputs: &Value) -> Markup {
    let buckets = inputs["buckets"].as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        @if buckets.is_empty() { p.small.soft { "No bucket held enough interactions to be judged." } }
        @else {
            p.small { "Buckets: "
                @for (index, bucket) in buckets.iter().enumerate() {
                    @if index > 0 { ", " }
                    (bucket["errors"]) " errors of " (bucket["total"])
                }
                ". Breaches in a row: " (inputs["breaches"]) "."
            }
        }
    }
}

/// Groups that a conversation could have been sent to.
fn groups(entry: &LedgerEntry) -> &[Value] {
    entry.inputs["groups"].as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Each group's share and how far it was behind.
fn turn(entry: &LedgerEntry, names: &Names) -> Markup {
    let unit = entry.inputs["unit"].as_f64().unwrap_or(1e9);
    let taken = entry.parameters["destinationId"].as_str();
    let part = |group: &Value, exact: &str, rounded: &str| {
        group[exact].as_f64().map(|value| value / unit).or(group[rounded].as_f64().map(|value| value / 1e9))
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Groups" {
            table {
                caption { "Share by the weights in force, and how many interactions each group was behind its due before this one." }
                thead { tr { th scope="col" { "Group" } th.number scope="col" { "Share" } th.number scope="col" { "Behind" } th scope="col" { "Chosen" } } }
                tbody {
                    @for group in groups(entry) {
                        @let id = group["destinationId"].as_str().unwrap_or("?");
                        tr {
                            th scope="row" { (named(names.of(Kind::Flow, id), id)) }
                            td.number { (part(group, "share", "shareBillionths").map_or_else(|| "–".to_owned(), percent)) }
                            td.number { (part(group, "deficit", "deficitBillionths").map_or_else(|| "–".to_owned(), number)) }
                            td { @if group["destinationId"].as_str() == taken { span.badge.good { "chosen" } } }
                        }
                    }
                }
            }
        }
    }
}

fn facts(entry: &LedgerEntry) -> Markup {
    let causes = entry.cause_ids.as_array().map(Vec::as_slice).unwrap_or_default();
    html! {
        h2 { "Facts about it" }
        div.scroll tabindex="0" role="region" aria-label="Facts about the decision" { table { tbody {
            tr { th scope="row" { "Id" } td { span.id { (entry.decision_id) } } }
            tr { th scope="row" { "About" } td {
                (entry.r#loop) " of " @if let Some(name) = &entry.name { (name) " " } span.id { (entry.key) } ", number " (entry.sequence) " · "
                a href=(address("/ledger", &[("loop", &entry.r#loop), ("key", &entry.key)])) { "all about it" }
            } }
            tr { th scope="row" { "Decided" } td { (entry.decided_at) " " (age(entry.decided_at)) } }
            tr { th scope="row" { "On facts of" } td { (entry.event_time) } }
            tr { th scope="row" { "Not to be applied after" } td { (entry.expires_at) } }
            tr { th scope="row" { "Reason" } td { code { (entry.reason) } } }
            tr { th scope="row" { "Policy" } td { (entry.policy.name) " version " (entry.policy.version) ", numbers " code { (entry.policy.hash) } } }
            tr { th scope="row" { "Settings" } td { "revision " (entry.settings_revision) } }
            tr { th scope="row" { "Caused by" } td {
                @for cause in causes.iter().take(LISTED) { div { code { (cause.as_str().unwrap_or_default()) } } }
            } }
            tr { th scope="row" { "Recorded at" } td { code { (entry.position) } } }
        } } }
    }
}

fn outcome(entry: &LedgerEntry) -> Markup {
    let Some(outcome) = &entry.outcome else {
        return html! { p.empty { "No outcome is recorded. " (words::ended(&DecisionLine::from(entry.clone()))) } };
    };
    html! {
        div.scroll tabindex="0" role="region" aria-label="Outcome" { table { tbody {
            tr { th scope="row" { "Status" } td { (status(Some(&outcome.status))) " " (words::why(&outcome.reason)) } }
            tr { th scope="row" { "Reason" } td { code { (outcome.reason) } } }
            tr { th scope="row" { "Requests that could have changed something" } td { (outcome.attempts) } }
            @if let Some(waited) = &outcome.waited {
                tr { th scope="row" { "Waited, in milliseconds" } td { (fields(waited)) } }
            }
            tr { th scope="row" { "Finished" } td { (outcome.finished_at) " " (age(outcome.finished_at)) } }
        } } }
        h3 { "Sent" }
        @match &outcome.request {
            Some(request) => (fields(request)),
            None => p.empty { "Nothing was sent." },
        }
        h3 { "Came back" }
        @match &outcome.response {
            Some(response) => (fields(response)),
            None => p.empty { "Nothing came back." },
        }
        @if let Some(effect) = &outcome.effect { h3 { "In force since" } (fields(effect)) }
    }
}

/// A JSON value as it is recorded.
fn fields(value: &Value) -> Markup {
    let text = serde_json::to_string_pretty(value).unwrap_or_default();
    html! { pre tabindex="0" { (text) } }
}
