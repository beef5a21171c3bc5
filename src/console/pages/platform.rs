//! The platform's side: the budget of calls that all instances share, what calls come to, and
//! which are paused after failures.

use maud::{Markup, html};

use super::parts::age;
use super::words::{number, spaced};
use crate::console::Shared;
use crate::console::allowances::{ApiCalls, Month};
use crate::console::problem::Problem;
use crate::metrics;
use crate::model::allowance::{Standing, Warning};
use crate::postgres::console::BudgetLine;

pub(super) async fn view(shared: &Shared) -> Result<(String, Markup), Problem> {
    let budgets = shared.database.budgets().await?;
    let month = Month::read(&shared.covered, &shared.database).await?;
    let page = shared.metrics.render();
    let breakers = samples(&page, metrics::GENESYS_BREAKER_OPEN.name);
    let calls = samples(&page, metrics::GENESYS_CALLS.name);
    let main = html! {
        h1 { "Platform" }
        h2 { "Budget of calls" }
        (budget(&budgets))
        h2 { "Calls of this month" }
        (calls_of("Calls of the organisation", &month.api_calls))
        @for other in &month.organizations {
            (calls_of(&format!("Calls of {}", other.organization), &other.api_calls))
        }
        h2 { "Breakers of this instance" }
        @if breakers.is_empty() {
            p.empty { "This instance has not called the platform." }
        } @else {
            ul.cards { @for (labels, open) in &breakers { li { (breaker(label(labels, "endpoints"), *open > 0.0)) } } }
        }
        h2 { "Calls of this instance since its start" }
        (call_table(&calls))
    };
    Ok(("Platform".to_owned(), main))
}

fn calls_of(whom: &str, calls: &ApiCalls) -> Markup {
    html! {
        (allowance(whom, &calls.standing))
        @if calls.poll_stretch > 1.0 {
            p { span.badge.bad { "polls come up to " (number(calls.poll_stretch)) " times as far apart" } " so that the month's calls last." }
        }
    }
}

fn budget(budgets: &[BudgetLine]) -> Markup {
    html! {
        @if budgets.is_empty() {
            p.empty { "No call was made yet." }
        }
        ul.cards {
            @for line in budgets {
                li { article.card.trouble[line.blocked_until.is_some()] {
                    div.top { h3 { "OAuth client " span.id { (line.client) "…" } }
                        @match line.blocked_until {
                            Some(until) => span.badge.bad { "nobody calls until " (super::words::clock(until)) },
                            None => span.badge.good { "calls are made" },
                        }
                    }
                    dl.facts {
                        div { dt { "Calls at once" } dd { (number(line.permits.floor())) " " (age(line.refilled_at)) } }
                        div { dt { "429 replies in a row" } dd { (line.refusals) } }
                    }
                } }
            }
        }
    }
}

/// How a month's allowance stands.
pub(super) fn allowance(of: &str, standing: &Standing) -> Markup {
    let units = |units: Option<u64>| units.map_or_else(|| "–".to_owned(), |units| number(units as f64));
    let cost = |cost: Option<f64>| cost.map_or_else(|| "–".to_owned(), |cost| format!("{cost:.2}"));
    html! {
        article.card.trouble[standing.warning().is_some()] {
            div.top { h3 { (of) }
                @match standing.warning() {
                    Some(Warning::UsedUp) => span.badge.bad { "allowance used up" },
                    Some(Warning::NearlyUsed) => span.badge.bad { "allowance nearly used up" },
                    None => {},
                }
            }
            dl.facts {
                div { dt { "This month" } dd { (units(Some(standing.month_to_date))) } }
                div { dt { "By its end" } dd { (units(Some(standing.forecast))) } }
                div { dt { "Allowance" } dd { (units(standing.allowance)) } }
                div { dt { "Left" } dd { (units(standing.left)) } }
                div { dt { "Cost beyond, by its end" } dd { (cost(standing.forecast_cost)) } }
            }
        }
    }
}

fn breaker(name: &str, open: bool) -> Markup {
    html! {
        article.card.trouble[open] {
            h3 { (spaced(name)) }
            p { @if open { span.badge.bad { "open: calls are paused" } } @else { span.badge.good { "closed: calls are made" } } }
        }
    }
}

fn call_table(calls: &[(Vec<(String, String)>, f64)]) -> Markup {
    html! {
        @if calls.is_empty() {
            p.empty { "None." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Calls of the platform" {
                table {
                    thead { tr { th scope="col" { "Endpoints" } th scope="col" { "Result" } th.number scope="col" { "Calls" } } }
                    tbody {
                        @for (labels, count) in calls {
                            tr { th scope="row" { (spaced(label(labels, "endpoints"))) } td { (spaced(label(labels, "result"))) } td.number { (number(*count)) } }
                        }
                    }
                }
            }
        }
    }
}

fn label<'l>(labels: &'l [(String, String)], name: &str) -> &'l str {
    labels.iter().find(|(known, _)| known == name).map_or("", |(_, value)| value)
}

/// One metric's samples out of the page that Prometheus reads: labels and value.
fn samples(page: &str, name: &str) -> Vec<(Vec<(String, String)>, f64)> {
    let read = |line: &str| {
        let rest = line.strip_prefix(name)?;
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => rest.rsplit_once('}')?,
            None => ("", rest.strip_prefix(' ')?),
        };
        Some((labels_of(labels), value.trim().parse().ok()?))
    };
    let mut found: Vec<_> = page.lines().filter_map(read).collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    found
}

/// `a="b",c="d"`; the values of these metrics are names of the code's own.
fn labels_of(text: &str) -> Vec<(String, String)> {
    let pair = |pair: &str| {
        let (name, value) = pair.split_once("=\"")?;
        Some((name.to_owned(), value.trim_end_matches('"').to_owned()))
    };
    text.split("\",").filter_map(pair).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_are_read_from_the_page_that_prometheus_reads() {
        let page = "# HELP a_total Help.\n# TYPE a_total counter\na_total{endpoints=\"campaigns\",result=\"ok\"} 12\n\
                    a_total{endpoints=\"a\",result=\"no_reply\"} 1\na_total_other 3\nb 1.5\n";
        let found = samples(page, "a_total");
        assert_eq!(found.len(), 2);
        assert_eq!(
            (label(&found[1].0, "endpoints"), label(&found[1].0, "result"), found[1].1),
            ("campaigns", "ok", 12.0)
        );
        assert_eq!(samples(page, "b"), [(Vec::new(), 1.5)]);
    }
}
