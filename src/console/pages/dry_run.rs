//! What would have been decided differently, had a change been in force in the last hour.

use maud::{Markup, html};

use super::parts::{age, key};
use super::words::{number_of, spaced, why};
use crate::console::problem::Problem;
use crate::model::dry_run::{Changed, DryRun, Said};

/// Differences that are shown.
const SHOWN: usize = 5;

pub(super) fn view(played: &Result<DryRun, Problem>) -> Markup {
    html! {
        h2 #played { "Had it been in force in the last hour" }
        @match played {
            Ok(run) if run.decisions == 0 => { p.empty { "Nothing was decided in it that this is about." } }
            Ok(run) => { (counts(run)) (first(&run.items)) }
            Err(problem) => {
                @let (_, detail, remedy) = problem.words();
                p.wrong { "That is not known: " (detail) ". What helps: " (remedy) "." }
            }
        }
    }
}

fn counts(run: &DryRun) -> Markup {
    html! {
        p {
            (run.different) " of " (run.decisions) " decisions would have been others."
            @if run.not_taken > 0 { " " (run.not_taken) " could not be taken again." }
            @if !run.complete { " There were more; these are the first that could be looked at in time." }
        }
        table {
            caption { "Decisions by what was done and what would have been" }
            thead { tr { th scope="col" { "Recorded" } th scope="col" { "With the change" } th scope="col" { "Decisions" } } }
            tbody { @for pair in &run.actions { tr {
                td { (spaced(&pair.recorded)) } td { (spaced(&pair.replayed)) } td { (pair.decisions) }
            } } }
        }
    }
}

fn first(items: &[Changed]) -> Markup {
    html! {
        @if !items.is_empty() {
            div.scroll tabindex="0" role="region" aria-label="The first differences" {
                table {
                    caption { "The first differences" }
                    thead { tr {
                        th scope="col" { "About" } th scope="col" { "Decided" }
                        th scope="col" { "Recorded" } th scope="col" { "With the change" }
                    } }
                    tbody { @for item in items.iter().take(SHOWN) { tr {
                        th scope="row" { (key(&item.key)) }
                        td { (age(item.decided_at)) }
                        td { (said(&item.recorded)) }
                        td { (said(&item.replayed)) }
                    } } }
                }
            }
        }
    }
}

fn said(said: &Said) -> String {
    let value = match said.value.is_null() {
        true => String::new(),
        false => format!(" {}", said.value.as_str().map_or_else(|| number_of(&said.value), str::to_owned)),
    };
    format!("{}{value}: {}", spaced(&said.action), why(&said.reason))
}
