//! The ledger: every decision, found by loop, key, time or id.

use maud::{Markup, html};

use super::parts::{address, age, end, mode, named, to_decision};
use super::words;
use crate::console::Shared;
use crate::console::decisions::read_query;
use crate::console::problem::Problem;
use crate::model::decision::Loop;
use crate::postgres::console::DecisionLine;
use crate::postgres::ledger::{Cursor, LedgerEntry};

const ON_A_PAGE: u32 = 50;
/// Things with the text in their name that are looked for.
const NAMED_SO: i64 = 20;

pub(super) async fn view(shared: &Shared, query: &[(String, String)]) -> Result<(String, Markup), Problem> {
    // Fields that a form sends empty are not asked for.
    let asked: Vec<(String, String)> = query.iter().filter(|(_, value)| !value.is_empty()).cloned().collect();
    let (mut filter, _) = read_query(&asked)?;
    if let Some(text) = &filter.key {
        filter.or_keys = shared.database.ids_called(text, NAMED_SO).await?;
    }
    let mut entries = shared.database.decisions(&filter, ON_A_PAGE + 1).await?;
    let more = entries.len() > ON_A_PAGE as usize;
    entries.truncate(ON_A_PAGE as usize);
    let next = entries.last().filter(|_| more).map(|last| Cursor::after(last).to_string());
    let given = |name: &str| asked.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value);
    let lines: Vec<DecisionLine> = entries.into_iter().map(DecisionLine::from).collect();
    let main = html! {
        h1 { "Ledger" }
        (search(&given, &organizations(shared)))
        @if !asked.is_empty() { p { a href="/ledger" { "Show all again" } } }
        (table(&lines, "Newest first"))
        @if let Some(next) = &next {
            p.pages {
                @let onward = [("loop", given("loop")), ("key", given("key")), ("organization", given("organization")), ("from", given("from")), ("to", given("to")), ("cursor", next.as_str())];
                a href=(address("/ledger", &onward)) rel="next" { "Older decisions" }
            }
        }
    };
    Ok(("Ledger".to_owned(), main))
}

/// Names of further organisations.
fn organizations(shared: &Shared) -> Vec<&str> {
    shared.covered.accounts.iter().filter_map(|account| account.organization.as_deref()).collect()
}

fn search<'q>(given: &impl Fn(&str) -> &'q str, organizations: &[&str]) -> Markup {
    html! {
        form.search method="get" action="/ledger" role="search" {
            div {
                label for="loop" { "Loop" }
                select #loop name="loop" {
                    option value="" { "all" }
                    @for of in Loop::ALL {
                        option value=(of.name()) selected[given("loop") == of.name()] { (of.name()) }
                    }
                }
            }
            div {
                label for="key" { "Campaign, flow, group or decision: name or id" }
                input #key name="key" value=(given("key")) maxlength="512" size="36" autocomplete="off";
            }
            @if !organizations.is_empty() {
                div {
                    label for="organization" { "Organisation" }
                    select #organization name="organization" {
                        option value="" { "all" }
                        @for name in organizations {
                            option value=(name) selected[given("organization") == *name] { (name) }
                        }
                    }
                }
            }
            div {
                label for="from" { "From (UTC)" }
                input #from name="from" value=(given("from")) placeholder="2026-01-02T03:04:05Z" maxlength="40" autocomplete="off";
            }
            div {
                label for="to" { "Before (UTC)" }
                input #to name="to" value=(given("to")) placeholder="2026-01-02T04:04:05Z" maxlength="40" autocomplete="off";
            }
            div { button type="submit" { "Search" } }
        }
    }
}

/// Decisions in a table, wherever some are listed.
pub(super) fn table(lines: &[DecisionLine], caption: &str) -> Markup {
    html! {
        @if lines.is_empty() {
            p.empty { "No decision is recorded here." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label=(caption) {
                table {
                    caption { (caption) }
                    thead { tr {
                        th scope="col" { "When" } th scope="col" { "Loop" } th scope="col" { "About" } th scope="col" { "Decision" }
                        th scope="col" { "Why" } th scope="col" { "Outcome" }
                    } }
                    tbody {
                        @for line in lines {
                            tr {
                                td { (age(line.decided_at)) }
                                td.tight { (line.r#loop) " " (mode(&line.r#loop, &line.mode)) }
                                td { (named(line.name(), &line.key)) }
                                td.words { (to_decision(line.decision_id, &words::decided(line))) }
                                td.words { (words::why(&line.reason)) }
                                td { (end(line)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

impl From<LedgerEntry> for DecisionLine {
    fn from(entry: LedgerEntry) -> Self {
        let (status, outcome_reason) = entry.outcome.map(|outcome| (outcome.status, outcome.reason)).unzip();
        Self {
            decision_id: entry.decision_id,
            r#loop: entry.r#loop,
            key: entry.key,
            sequence: entry.sequence,
            mode: entry.mode,
            action: entry.action,
            reason: entry.reason,
            parameters: entry.parameters,
            inputs: entry.inputs,
            decided_at: entry.decided_at,
            status,
            outcome_reason,
            names: entry.names,
        }
    }
}
