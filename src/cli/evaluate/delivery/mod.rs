//! Three ways to bring a new flow to everybody, on simulated minutes: by canary with evidence,
//! by canary with a fixed threshold, and at once with a rollback behind it.
//!
//! Interactions per minute are Poisson, errors binomial, all independent, and the two flows
//! share the same minutes. Real errors come together: read the figures as what each way does at
//! its best.

mod ways;

use std::io::Write as _;
use std::process::ExitCode;

use comfy_table::Table;
use serde::Serialize;

use super::Runs;
use ways::{Ended, Run, Way};

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(flatten)]
    runs: Runs,
    /// Fail unless good candidates are aborted in at most 1.5 % of runs and bad ones cost at most
    /// 6 errors (median) where there are 30 interactions a minute
    #[arg(long)]
    gate: bool,
}

/// What one row simulates.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Case {
    /// Of both flows together.
    pub interactions_per_minute: f64,
    /// Error rates, 0–1.
    pub control_rate: f64,
    pub candidate_rate: f64,
}

const TRAFFIC: [f64; 3] = [30.0, 100.0, 300.0];
/// Candidates as good as the control, whose rates these are.
const GOOD: [f64; 2] = [0.01, 0.045];
/// Candidates after a control with 1 % errors.
const BAD: [f64; 4] = [0.05, 0.08, 0.15, 0.50];

/// Every row's case.
pub fn cases() -> Vec<Case> {
    let of = |interactions_per_minute, control_rate, candidate_rate| Case {
        interactions_per_minute,
        control_rate,
        candidate_rate,
    };
    let good = TRAFFIC.iter().flat_map(|traffic| GOOD.map(|rate| of(*traffic, rate, rate)));
    let bad = TRAFFIC.iter().flat_map(|traffic| BAD.map(|rate| of(*traffic, 0.01, rate)));
    good.chain(bad).collect()
}

/// One way on one case.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    pub way: &'static str,
    #[serde(flatten)]
    pub case: Case,
    pub runs: u32,
    /// Runs in which the candidate was taken away again.
    pub aborted: u32,
    /// Runs in which everybody had it at the end.
    pub delivered: u32,
    /// Minutes until it was taken away, over those runs; 0 where there were none.
    pub median_minutes_to_abort: u32,
    /// Minutes until everybody had it, over those runs.
    pub median_minutes_to_all: u32,
    /// Errors above the control's rate that its interactions had before it was taken away, over
    /// those runs: median and 95th percentile. Chance can make it less than 0.
    pub extra_errors_median: f64,
    pub extra_errors_p95: f64,
}

/// Plays `runs` deliveries of `case`; the same draws for every way.
pub fn evaluate(way: Way, case: Case, seed: u64, runs: u32) -> Row {
    let played: Vec<Run> = (0..runs).map(|run| way.play(case, seed, run)).collect();
    let ended = |how: Ended| played.iter().filter(move |run| run.ended == how);
    let minutes = |how: Ended| quantile(ended(how).map(|run| f64::from(run.minutes)).collect(), 0.5) as u32;
    let extra: Vec<f64> = ended(Ended::Aborted).map(|run| run.extra_errors).collect();
    Row {
        way: way.name(),
        case,
        runs,
        aborted: ended(Ended::Aborted).count() as u32,
        delivered: ended(Ended::Delivered).count() as u32,
        median_minutes_to_abort: minutes(Ended::Aborted),
        median_minutes_to_all: minutes(Ended::Delivered),
        extra_errors_median: quantile(extra.clone(), 0.5),
        extra_errors_p95: quantile(extra, 0.95),
    }
}

/// The value that `share` of all do not exceed; 0 where there are none.
fn quantile(mut values: Vec<f64>, share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let place = (values.len() as f64 * share).ceil() as usize;
    values.get(place.saturating_sub(1)).copied().unwrap_or_default()
}

/// What the gate finds wrong with the rows of the canary with evidence.
fn faults(rows: &[Row]) -> Vec<String> {
    let of_canary = rows.iter().filter(|row| row.way == Way::Evidence.name());
    let fault = |row: &Row| {
        let case = &row.case;
        let place = format!(
            "{} interactions/min, {:.1} % → {:.1} %",
            case.interactions_per_minute,
            case.control_rate * 100.0,
            case.candidate_rate * 100.0
        );
        let is_good = case.candidate_rate <= case.control_rate;
        match is_good {
            true if f64::from(row.aborted) > 0.015 * f64::from(row.runs) => {
                Some(format!("{place}: {} of {} good candidates were aborted", row.aborted, row.runs))
            }
            false if row.extra_errors_median > 6.0 => {
                Some(format!("{place}: {:.1} extra errors before an abort", row.extra_errors_median))
            }
            _ => None,
        }
    };
    of_canary.filter_map(fault).collect()
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let rows: Vec<Row> = cases()
            .into_iter()
            .flat_map(|case| Way::ALL.map(|way| evaluate(way, case, self.runs.seed, self.runs.runs)))
            .collect();
        let note = format!(
            "{} minutes at most; extra errors are those above the control's rate before the candidate was taken away",
            ways::MINUTES
        );
        self.runs.print(&rows, table, &note)?;
        let faults = if self.gate { faults(&rows) } else { Vec::new() };
        for fault in &faults {
            writeln!(std::io::stderr(), "gate: {fault}")?;
        }
        Ok(if faults.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "interactions/min",
        "control",
        "candidate",
        "way",
        "aborted",
        "min to abort",
        "extra errors (p95)",
        "to everybody",
        "min to everybody",
    ]);
    for row in rows {
        let share = |count: u32| format!("{count} of {}", row.runs);
        let minutes =
            |count: u32, minutes: u32| if count == 0 { "–".to_owned() } else { minutes.to_string() };
        let extra = match row.aborted {
            0 => "–".to_owned(),
            _ => format!("{:.1} ({:.1})", row.extra_errors_median, row.extra_errors_p95),
        };
        table.add_row([
            format!("{}", row.case.interactions_per_minute),
            format!("{:.1} %", row.case.control_rate * 100.0),
            format!("{:.1} %", row.case.candidate_rate * 100.0),
            row.way.to_owned(),
            share(row.aborted),
            minutes(row.aborted, row.median_minutes_to_abort),
            extra,
            share(row.delivered),
            minutes(row.delivered, row.median_minutes_to_all),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    fn case(interactions_per_minute: f64, control_rate: f64, candidate_rate: f64) -> Case {
        Case { interactions_per_minute, control_rate, candidate_rate }
    }

    #[test]
    fn good_candidates_are_rarely_aborted_and_reach_everybody() {
        for control in GOOD {
            let row = evaluate(Way::Evidence, case(100.0, control, control), 1, 100);
            assert!(row.aborted <= 2, "{row:?}");
            assert!(row.delivered >= 80, "{row:?}");
        }
    }

    #[test]
    fn bad_candidates_cost_ten_times_less_than_publishing_and_taking_back() {
        let busy = case(300.0, 0.01, 0.15);
        let [canary, published] = [Way::Evidence, Way::Publish].map(|way| evaluate(way, busy, 1, 100));
        assert_eq!((canary.aborted, published.aborted), (100, 100));
        assert!(canary.extra_errors_median <= 6.0, "{canary:?}");
        assert!(published.extra_errors_median >= 10.0 * canary.extra_errors_median, "{published:?}");
    }

    #[test]
    fn a_fixed_threshold_aborts_good_candidates_of_a_bad_control() {
        let row = evaluate(Way::Threshold, case(100.0, 0.045, 0.045), 1, 100);
        assert!(row.aborted > 20, "the simulation is worth something: {row:?}");
    }

    #[test]
    fn the_gate_finds_both_kinds_of_fault() {
        let good = evaluate(Way::Evidence, case(30.0, 0.01, 0.01), 1, 10);
        let bad = evaluate(Way::Evidence, case(30.0, 0.01, 0.5), 1, 10);
        assert_eq!(faults(&[good.clone(), bad.clone()]), Vec::<String>::new());
        let rows = [Row { aborted: 1, ..good }, Row { extra_errors_median: 6.1, ..bad }];
        assert_eq!(faults(&rows).len(), 2);
    }
}
