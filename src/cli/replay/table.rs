//! A report for people.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde_json::Value;

use crate::cli::explain::printable;
use crate::model::dry_run::{DryRun, Said};
use crate::replay::{Figure, Report};

/// Differences that are shown one by one; --json has more.
const SHOWN: usize = 20;

pub(super) fn text(report: &Report) -> String {
    let mut text = String::new();
    let of = report.r#loop.name();
    let kind = if report.changed { "under the change" } else { "under the same rules" };
    let _ = writeln!(text, "{of}, {} to {}, {kind}", report.from, report.to);
    let same = if report.changed { "as they were" } else { "identical to the byte" };
    let _ = writeln!(
        text,
        "{} decisions: {} {same}, {} different",
        report.decisions, report.identical, report.different
    );
    for (why, count) in &report.not_taken {
        let _ = writeln!(text, "{count} not taken again: {why}");
    }
    for (cause, count) in &report.causes {
        let _ = writeln!(text, "{count} by {cause}: {}", remedy(cause));
    }
    if !report.items.is_empty() {
        let _ = writeln!(text, "{}", differences(report));
    }
    if report.items.len() > SHOWN {
        let _ = writeln!(text, "… and {} more; --json lists them", report.different - SHOWN as u64);
    }
    if report.changed && !report.score.is_empty() {
        let _ = writeln!(text, "{}", figures(&report.score));
    }
    text
}

/// What would have been decided differently, and how often what.
pub(in crate::cli) fn dry_run(run: &DryRun) -> String {
    let mut text = String::new();
    let _ = writeln!(text, "{}, {} to {}, as if it had been in force", run.r#loop, run.from, run.to);
    let (decisions, different) = (run.decisions, run.different);
    let _ = writeln!(text, "{decisions} decisions: {} as they were, {different} different", run.identical);
    if run.not_taken > 0 {
        let _ = writeln!(text, "{} not taken again: the record does not have what it takes", run.not_taken);
    }
    if !run.complete {
        let _ = writeln!(text, "the rest of the time was not looked at: it was too much");
    }
    let mut counts = table(&["recorded", "replayed", "decisions"]);
    for pair in &run.actions {
        counts.add_row([printable(&pair.recorded), printable(&pair.replayed), pair.decisions.to_string()]);
    }
    let mut items = table(&["decided", "about", "recorded", "replayed"]);
    for item in &run.items {
        let decided_at = item.decided_at.to_string();
        items.add_row([decided_at, printable(&item.key), said(&item.recorded), said(&item.replayed)]);
    }
    for table in [counts, items].iter().filter(|table| !table.is_empty()) {
        let _ = writeln!(text, "{table}");
    }
    text
}

fn remedy(cause: &str) -> &'static str {
    match cause {
        "settings" => "the configuration here has other numbers than the one of then; give those with --set",
        "code_version" => "the rule has changed since; the program of then says the same",
        _ => "the rule and its numbers are those of then: the record was changed, or this is a bug",
    }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(header);
    table
}

fn differences(report: &Report) -> Table {
    let last = if report.changed { "outcome" } else { "first difference" };
    let mut table = table(&["decided", "about", "number", "recorded", "replayed", last]);
    for item in report.items.iter().take(SHOWN) {
        let outcome = || item.outcome.clone().unwrap_or_default();
        let first = item.mismatch.as_ref().map(|mismatch| {
            format!("{}: {} → {}", mismatch.field, short(&mismatch.recorded), short(&mismatch.replayed))
        });
        table.add_row([
            item.decided_at.to_string(),
            printable(&item.key),
            item.sequence.to_string(),
            said(&item.recorded),
            said(&item.replayed),
            first.unwrap_or_else(outcome),
        ]);
    }
    table
}

fn said(said: &Said) -> String {
    let value = if said.value.is_null() { String::new() } else { format!(" {}", short(&said.value)) };
    printable(&format!("{}{value} ({})", said.action, said.reason))
}

fn short(value: &Value) -> String {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let cut: String = text.chars().take(40).collect();
    printable(&if cut.len() < text.len() { format!("{cut}…") } else { cut })
}

fn figures(score: &[Figure]) -> Table {
    let mut table = table(&["figure", "recorded", "replayed", "difference"]);
    for Figure { figure, recorded, replayed } in score {
        let number = |value: f64| format!("{}", (value * 1_000.0).round() / 1_000.0);
        table.add_row([printable(figure), number(*recorded), number(*replayed), number(replayed - recorded)]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
