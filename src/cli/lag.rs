//! `trunkline lag`: who is behind, by how long, and what helps.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context;
use comfy_table::{CellAlignment, Table, presets};

use super::ConfigFile;
use super::explain::printable;
use crate::model::decision::Action;
use crate::postgres::lag::GroupStatus;

/// Groups shown at most.
const LIMIT: u32 = 10_000;
/// Characters of a group's name in the table; GROUP as an argument and --json tell it whole.
const MOST_OF_NAME: usize = 48;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// One consumer group; `cluster:name` for one of another cluster
    group: Option<String>,
    #[command(flatten)]
    config: ConfigFile,
    /// For scripts: `{"items": […]}`, or one group's object, as GET /v1/lag answers
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let database = self.config.database().await?;
        let mut out = std::io::stdout();
        match &self.group {
            Some(group) => {
                let status = database.lag_status(group).await?.with_context(|| {
                    format!(
                        "no consumer group {group:?} was observed: check the name and lag.include; a group is \
                         here after its first poll"
                    )
                })?;
                match self.json {
                    true => super::print_json(&status)?,
                    false => write!(out, "{}", details(&status))?,
                }
            }
            None => {
                let mut statuses = database.lag_statuses(None, LIMIT).await?;
                if self.json {
                    super::print_items(&statuses)?;
                } else if statuses.is_empty() {
                    eprintln!(
                        "trunkline: no consumer group was observed within the hour; is the role lag-poller running?"
                    );
                } else {
                    statuses
                        .sort_by(|one, other| (one.status, &one.group).cmp(&(other.status, &other.group)));
                    writeln!(out, "{}", table(&statuses))?;
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Worst first.
fn table(statuses: &[GroupStatus]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["GROUP", "STATUS", "LAG", "AGE", "MEMBERS", "IN/S", "OUT/S", "CATCH-UP", "WHAT HELPS"]);
    for status in statuses {
        let evaluation = &status.evaluation;
        let members = evaluation.members.map_or_else(unknown, |members| members.to_string());
        table.add_row([
            shortened(&printable(&status.group)),
            status.status.name().to_owned(),
            status.lag.map_or_else(unknown, |lag| lag.to_string()),
            seconds(Some(status.age_seconds)),
            members,
            rate(evaluation.arrival_per_second),
            rate(evaluation.drain_per_second),
            seconds(evaluation.catch_up_seconds),
            what_helps(status),
        ]);
    }
    for column in 2..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

fn details(status: &GroupStatus) -> String {
    let evaluation = &status.evaluation;
    let lines = [
        ("group", status.group.clone()),
        ("type", evaluation.group_type.map_or_else(unknown, |kind| kind.name().to_owned())),
        ("status", format!("{} since {}", status.status.name(), evaluation.since)),
        (
            "why",
            if status.reasons.is_empty() { "nothing is wrong".into() } else { status.reasons.join("; ") },
        ),
        ("lag", status.lag.map_or_else(unknown, |lag| format!("{lag} records"))),
        ("age", seconds(Some(status.age_seconds))),
        ("parts", format!("{} partitions or event types", evaluation.parts)),
        ("members", evaluation.members.map_or_else(unknown, |members| members.to_string())),
        (
            "rates",
            format!(
                "{}/s in, {}/s out",
                rate(evaluation.arrival_per_second),
                rate(evaluation.drain_per_second)
            ),
        ),
        (
            "transaction",
            match evaluation.open_transaction_seconds {
                Some(open) => format!("open for {} at least", seconds(Some(open))),
                None => "none is open".to_owned(),
            },
        ),
        ("caught up in", seconds(evaluation.catch_up_seconds)),
        ("what helps", what_helps(status)),
        ("replicas", status.replicas.map_or_else(unknown, |replicas| replicas.to_string())),
        ("observed", status.observed_at.to_string()),
    ];
    lines.iter().map(|(name, text)| format!("{name:<14}{}\n", printable(text))).collect()
}

/// The beginning and the end, which tells names apart that begin alike.
fn shortened(name: &str) -> String {
    let characters: Vec<char> = name.chars().collect();
    if characters.len() <= MOST_OF_NAME {
        return name.to_owned();
    }
    let end = MOST_OF_NAME / 4;
    let begin = MOST_OF_NAME - end - 1;
    characters[..begin].iter().chain(['…'].iter()).chain(&characters[characters.len() - end..]).collect()
}

fn what_helps(status: &GroupStatus) -> String {
    match (status.evaluation.recommended_action, status.replicas) {
        (Action::Hold, _) => "-".to_owned(),
        (Action::ScaleOut, Some(replicas)) => format!("scale_out to {replicas}"),
        (action, _) => action.name().to_owned(),
    }
}

fn unknown() -> String {
    "-".to_owned()
}

fn rate(per_second: Option<f64>) -> String {
    per_second.map_or_else(unknown, |rate| format!("{rate:.1}"))
}

/// `0.4s`, `41s`, `12m`, `3h`.
fn seconds(seconds: Option<f64>) -> String {
    match seconds {
        None => unknown(),
        Some(seconds) if seconds < 10.0 => format!("{seconds:.1}s"),
        Some(seconds) if seconds < 120.0 => format!("{seconds:.0}s"),
        Some(seconds) if seconds < 7_200.0 => format!("{:.0}m", seconds / 60.0),
        Some(seconds) => format!("{:.0}h", seconds / 3_600.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::lag::{LagEvaluation, LagStatus};

    fn status(example: &str, group: &str) -> GroupStatus {
        let evaluation: LagEvaluation = serde_json::from_str(example).unwrap();
        GroupStatus {
            group: group.into(),
            status: evaluation.status,
            lag: evaluation.lag,
            age_seconds: evaluation.age_seconds,
            reasons: vec!["age_over_error (2, trunkline.campaign-windows.v1/3)".into()],
            observed_at: evaluation.observed_at,
            replicas: evaluation.replicas,
            evaluation,
        }
    }

    #[test]
    fn a_person_sees_who_is_behind_by_how_long_and_what_helps() {
        let error = include_str!("../../schemas/examples/trunkline.lag-status.v1/error.json");
        let text = table(&[status(error, "orders"), status(error, "a\u{1b}[31m")]).to_string();
        for expected in ["orders", "ERROR", "5400", "41s", "120.0", "100.0", "scale_out to 3"] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains('\u{1b}'), "names do not steer the terminal");
        let text = details(&status(error, "orders"));
        assert!(text.contains("age_over_error") && text.contains("120.0/s in, 100.0/s out"), "{text}");
        assert!(text.contains("open for 12m at least") && text.contains("classic"), "{text}");
        let fine = include_str!("../../schemas/examples/trunkline.lag-status.v1/ok.json");
        let fine = status(fine, "fine");
        assert_eq!((fine.status, what_helps(&fine).as_str()), (LagStatus::Ok, "-"));
    }

    #[test]
    fn names_do_not_widen_the_table() {
        let fine = include_str!("../../schemas/examples/trunkline.lag-status.v1/ok.json");
        let long = format!("{}end", "ä".repeat(600));
        let text = table(&[status(fine, &long), status(fine, "short")]).to_string();
        let widest = text.lines().map(|line| line.chars().count()).max().unwrap();
        assert!(widest <= MOST_OF_NAME + 90, "{widest}\n{text}");
        assert!(text.contains("äend") && text.contains('…') && text.contains("short"), "{text}");
    }

    #[test]
    fn times_are_short() {
        let spelled: Vec<_> = [0.42, 41.2, 700.0, 9_000.0].iter().map(|time| seconds(Some(*time))).collect();
        assert_eq!(spelled, ["0.4s", "41s", "12m", "2h"]);
    }
}
