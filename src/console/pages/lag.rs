//! Consumer groups: who is behind, by how long, whether it gets better, and what would help.

use maud::{Markup, html};

use super::chart::bar;
use super::parts::{age, as_millis, is_stale, key};
use super::shell::Shell;
use super::words::{number, spaced, span};
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::model::decision::Loop;
use crate::model::lag::LagStatus;
use crate::postgres::lag::GroupStatus;

const MOST: u32 = 500;

pub(super) async fn view(shared: &Shared, shell: &Shell) -> Result<(String, Markup), Problem> {
    let mut groups = shared.database.lag_statuses(None, MOST).await?;
    groups.sort_by(|one, other| {
        (one.status == LagStatus::Ok, &one.group).cmp(&(other.status == LagStatus::Ok, &other.group))
    });
    let tick = shell.tick_of(Loop::Lag);
    let oldest = groups.iter().map(|group| group.age_seconds).fold(1.0, f64::max);
    let troubled = groups.iter().filter(|group| group.status != LagStatus::Ok).count();
    let main = html! {
        h1 { "Consumer lag" }
        @if groups.is_empty() {
            p.empty { "No consumer group was observed in the last hour. Groups are chosen by " code { "lag.include" } "." }
        } @else {
            p.lead {
                @if troubled == 0 { "All " (groups.len()) " groups keep up." }
                @else { (troubled) " of " (groups.len()) " groups need a look." }
            }
            div.scroll tabindex="0" role="region" aria-label="Consumer groups" {
                table {
                    caption { "Age is how long the first record in line has waited. Arriving and worked off are records per second." }
                    thead { tr {
                        th scope="col" { "Group" } th scope="col" { "Status" } th.number scope="col" { "Age" } th scope="col" { "Age, drawn" }
                        th.number scope="col" { "Records behind" } th.number scope="col" { "Arriving" } th.number scope="col" { "Worked off" }
                        th scope="col" { "Trend" } th.number scope="col" { "Caught up in" } th.number scope="col" { "Consumers: are / right" } th scope="col" { "Why" }
                    } }
                    tbody { @for group in &groups { (row(group, oldest, tick)) } }
                }
            }
        }
    };
    Ok(("Consumer lag".to_owned(), main))
}

fn row(group: &GroupStatus, oldest: f64, tick: std::time::Duration) -> Markup {
    let known = &group.evaluation;
    let or_dash = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), number);
    let count = |value: Option<u32>| value.map_or_else(|| "–".to_owned(), |value| value.to_string());
    html! {
        tr.stale[is_stale(group.observed_at, tick)] data-at=(group.observed_at) data-tick=(as_millis(tick)) {
            th scope="row" { (key(&group.group)) }
            td { (status(group.status)) " " (age(group.observed_at)) }
            td.number { span.value { (span(group.age_seconds)) } }
            td { (bar(group.age_seconds, &[], oldest, if group.status == LagStatus::Ok { "" } else { "over" })) }
            td.number { span.value { (group.lag.map_or_else(|| "–".to_owned(), |lag| lag.to_string())) } }
            td.number { (or_dash(known.arrival_per_second)) }
            td.number { (or_dash(known.drain_per_second)) }
            td.tight { (trend(known.arrival_per_second, known.drain_per_second)) }
            td.number { (known.catch_up_seconds.map_or_else(|| "–".to_owned(), span)) }
            td.number { (count(known.members)) " / " (count(group.replicas)) }
            td.words { @for reason in &group.reasons { div.small { (spaced(reason)) } } }
        }
    }
}

fn status(status: LagStatus) -> Markup {
    let class = match status {
        LagStatus::Ok => "badge good",
        LagStatus::Warning | LagStatus::Uncommitted | LagStatus::Unknown => "badge warn",
        _ => "badge bad",
    };
    html! { span class=(class) { (spaced(status.name())) } }
}

fn trend(arriving: Option<f64>, worked_off: Option<f64>) -> &'static str {
    match (arriving, worked_off) {
        (Some(arriving), Some(worked_off)) if worked_off > arriving * 1.02 + 0.1 => "↘ gets better",
        (Some(arriving), Some(worked_off)) if arriving > worked_off * 1.02 + 0.1 => "↗ gets worse",
        (Some(_), Some(_)) => "→ keeps level",
        _ => "–",
    }
}
