//! The rollback rule on simulated minutes: false alarms and detection.
//!
//! Interactions per minute are Poisson, errors binomial, all independent; the version
//! before has run for eight hours, the new one runs for one. Real traffic is burstier and
//! its errors come together: read the figures as what the rule does at its best.

use std::process::ExitCode;

use comfy_table::Table;
use serde::Serialize;

use super::Runs;
use super::draws::Draws;
use super::minutes::{MINUTE, is_taken_back};
use crate::model::Timestamp;
use crate::stages::rollback::guard::Guard;
use crate::stages::rollback::rule::{Policy, Rule};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    runs: Runs,
}

/// Minutes that the version before, and then the new one, are in force.
const MINUTES_BEFORE: u32 = 480;
const MINUTES_AFTER: u32 = 60;
/// When the simulated day begins: 08:00 UTC.
const START_MS: i64 = 1_767_340_800_000;

/// What one row simulates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Case {
    pub interactions_per_minute: f64,
    /// Error rate of the version before, 0–1.
    pub rate_before: f64,
    /// Error rate of the new version, 0–1.
    pub rate_after: f64,
}

/// Healthy publishes: the new version is as bad as the one before, just below the threshold.
const HEALTHY: [f64; 5] = [3.0, 10.0, 30.0, 100.0, 300.0];
/// Bad ones: interactions per minute and error rate, after a version with 1 % errors.
const BAD: [(f64, f64); 6] =
    [(3.0, 0.5), (10.0, 0.15), (30.0, 0.08), (30.0, 0.15), (100.0, 0.08), (100.0, 0.15)];

/// Every row's case.
pub fn cases() -> Vec<Case> {
    let healthy = HEALTHY.iter().map(|per_minute| Case {
        interactions_per_minute: *per_minute,
        rate_before: 0.045,
        rate_after: 0.045,
    });
    let bad = BAD.iter().map(|(per_minute, rate)| Case {
        interactions_per_minute: *per_minute,
        rate_before: 0.01,
        rate_after: *rate,
    });
    healthy.chain(bad).collect()
}

/// One policy on one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub policy: &'static str,
    #[serde(flatten)]
    pub case: Case,
    pub runs: u32,
    /// Runs in which the new version was taken back within its hour.
    pub rolled_back: u32,
    /// Of those, within 15 minutes.
    pub within_15_minutes: u32,
    /// Minutes until it was, over all runs; absent where less than half were.
    pub median_minutes: Option<u32>,
}

/// Plays `runs` publishes of `case`.
pub fn evaluate(policy: Policy, case: Case, seed: u64, runs: u32) -> Row {
    let rule = Rule { policy, ..Rule::default() };
    let mut found: Vec<u32> = (0..runs).filter_map(|run| publish(&rule, case, seed, run)).collect();
    found.sort_unstable();
    let half = runs.div_ceil(2) as usize;
    Row {
        policy: policy.name(),
        case,
        runs,
        rolled_back: u32::try_from(found.len()).unwrap_or(u32::MAX),
        within_15_minutes: found.iter().filter(|minutes| **minutes <= 15).count() as u32,
        median_minutes: found.get(half - 1).copied(),
    }
}

/// After how many minutes the new version of one run is taken back, if it is.
fn publish(rule: &Rule, case: Case, seed: u64, run: u32) -> Option<u32> {
    let mut draws = Draws::of_run(seed, run);
    let mut guard = Guard::default();
    for minute in 0..MINUTES_BEFORE + MINUTES_AFTER {
        let is_new = minute >= MINUTES_BEFORE;
        let total = draws.poisson(case.interactions_per_minute);
        let errors = draws.binomial(total, if is_new { case.rate_after } else { case.rate_before });
        let begins = Timestamp::from_millis(START_MS).plus(MINUTE * minute);
        let version = if is_new { "2" } else { "1" };
        if is_taken_back(&mut guard, rule, version, begins, (total, errors)) && is_new {
            return Some(minute - MINUTES_BEFORE + 1);
        }
    }
    None
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let rows: Vec<Row> = cases()
            .into_iter()
            .flat_map(|case| [Policy::Consecutive, Policy::Attributed].map(|policy| (policy, case)))
            .map(|(policy, case)| evaluate(policy, case, self.runs.seed, self.runs.runs))
            .collect();
        let note = "each run is one publish and the hour after it, the version before having run for 8 hours";
        self.runs.print(&rows, table, note)?;
        Ok(ExitCode::SUCCESS)
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "interactions/min",
        "errors before",
        "errors after",
        "policy",
        "rolled back within 60 min",
        "within 15 min",
        "median min",
    ]);
    for row in rows {
        let share = |count: u32| format!("{count} of {}", row.runs);
        table.add_row([
            format!("{}", row.case.interactions_per_minute),
            format!("{:.1} %", row.case.rate_before * 100.0),
            format!("{:.1} %", row.case.rate_after * 100.0),
            row.policy.to_owned(),
            share(row.rolled_back),
            share(row.within_15_minutes),
            row.median_minutes.map_or("–".to_owned(), |minutes| minutes.to_string()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn healthy_publishes_stay_where_the_version_before_was_as_bad() {
        let case = Case { interactions_per_minute: 100.0, rate_before: 0.045, rate_after: 0.045 };
        let attributed = evaluate(Policy::Attributed, case, 1, 200);
        assert!(attributed.rolled_back <= 4, "{attributed:?}");
        let consecutive = evaluate(Policy::Consecutive, case, 1, 200);
        assert!(consecutive.rolled_back > 100, "the simulation is worth something: {consecutive:?}");
    }

    #[test]
    fn bad_publishes_are_found() {
        let busy = Case { interactions_per_minute: 30.0, rate_before: 0.01, rate_after: 0.15 };
        let row = evaluate(Policy::Attributed, busy, 1, 200);
        assert!(row.median_minutes.is_some_and(|minutes| minutes <= 3), "{row:?}");
        let quiet = Case { interactions_per_minute: 3.0, rate_before: 0.01, rate_after: 0.5 };
        let row = evaluate(Policy::Attributed, quiet, 1, 200);
        assert!(row.within_15_minutes >= 190, "{row:?}");
    }
}
