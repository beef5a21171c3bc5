//! `trunkline recommend dial`: what settings would come to, by the model of each campaign; never
//! applied.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::ConfigFile;
use super::dial_model::{Came, Dials, Fitted};
use super::explain::printable;
use super::replay::{moment, observed, range, source};
use crate::model::Timestamp;
use crate::model::settings::{DialPolicy, DialSettings};
use crate::stages::dialing::rules::Rules;

/// Goals that are tried, as parts of the cap.
const PARTS_OF_CAP: [f64; 7] = [0.1, 0.2, 1.0 / 3.0, 0.5, 2.0 / 3.0, 0.85, 1.0];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Settings of the dial loop: utilisation against abandonment
    Dial(Dial),
}

#[derive(Debug, clap::Args)]
struct Dial {
    /// What the campaigns are fitted to: decided at this time or later, or so long ago
    #[arg(long, value_name = "TIME", value_parser = moment, default_value = "24h")]
    from: Timestamp,
    /// Decided before this time; without it up to now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// One campaign; without it all
    #[arg(long)]
    campaign: Option<String>,
    /// Read a recording, whole, instead of the audit
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// Plays of each setting, with other chance
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    plays: u32,
    /// Write the frontier of the first campaign as a picture (SVG)
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// One campaign.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Recommended {
    campaign_id: String,
    /// By the polls.
    recorded: Came,
    /// The model with the rates that were dialled: how far it is off.
    model_as_dialled: Came,
    rows: Vec<Row>,
}

/// One setting.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    settings: DialSettings,
    in_force: bool,
    /// Within the cap, and no other row that is has more utilisation at no more abandonment.
    on_frontier: bool,
    /// More is abandoned than the campaign's cap allows.
    over_cap: bool,
    #[serde(flatten)]
    came: Came,
    attempts_per_answer: f64,
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let What::Dial(dial) = self.what;
        dial.run().await
    }
}

impl Dial {
    async fn run(self) -> anyhow::Result<ExitCode> {
        let mut source = source(self.recording.as_deref(), &self.config).await?;
        let range = match source.range() {
            Some(recorded) => recorded,
            None => range(self.from, self.to)?,
        };
        let mut campaigns = Vec::new();
        for (campaign_id, (observed, rules)) in observed(&mut source, range, self.campaign.as_deref()).await?
        {
            let Some(fitted) = observed.fit() else {
                eprintln!("trunkline: too little was observed of campaign {}", printable(&campaign_id));
                continue;
            };
            eprintln!("campaign {}: {} settings", printable(&campaign_id), PARTS_OF_CAP.len() + 2);
            campaigns.push(Recommended {
                campaign_id,
                recorded: observed.came(),
                model_as_dialled: fitted.play(Dials::AsRecorded, self.plays),
                rows: self.rows(&fitted, &rules),
            });
        }
        if let (Some(path), Some(first)) = (&self.picture, campaigns.first()) {
            let picture = svg(first);
            std::fs::write(path, picture).with_context(|| format!("{} cannot be written", path.display()))?;
        }
        if self.json {
            super::print_items(&campaigns)?;
        } else {
            for campaign in &campaigns {
                write!(std::io::stdout(), "{}", text(campaign))?;
            }
        }
        Ok(if campaigns.is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS })
    }

    /// What is in force first, then what else there is.
    fn rows(&self, fitted: &Fitted, rules: &Rules) -> Vec<Row> {
        let goals = PARTS_OF_CAP.map(|part| DialSettings {
            policy: Some(DialPolicy::Pacing),
            goal: Some((part * rules.pacing.cap * 10_000.0).round() / 10_000.0),
            ..DialSettings::default()
        });
        let proportional = DialSettings { policy: Some(DialPolicy::Proportional), ..DialSettings::default() };
        let tried = std::iter::once(DialSettings::default()).chain(goals).chain([proportional]);
        let rows = tried.enumerate().map(|(nth, settings)| {
            let came = fitted.play(Dials::By(&rules.with(&settings)), self.plays);
            let attempts_per_answer = came.attempts / came.answers.max(1.0);
            let over_cap = came.abandonment > rules.pacing.cap;
            Row { settings, in_force: nth == 0, on_frontier: false, over_cap, came, attempts_per_answer }
        });
        with_frontier(rows.collect())
    }
}

/// Marks what nothing else within the cap is better than in both.
fn with_frontier(mut rows: Vec<Row>) -> Vec<Row> {
    let all: Vec<Came> = rows.iter().filter(|row| !row.over_cap).map(|row| row.came).collect();
    for row in &mut rows {
        let is_beaten = |other: &Came| {
            let (more, less) =
                (other.utilisation - row.came.utilisation, row.came.abandonment - other.abandonment);
            more >= 0.0 && less >= 0.0 && (more > 0.0 || less > 0.0)
        };
        row.on_frontier = !row.over_cap && !all.iter().any(is_beaten);
    }
    rows
}

fn percent(share: f64) -> String {
    format!("{:.2} %", share * 100.0)
}

fn name(row: &Row) -> String {
    let policy = row.settings.policy.map_or("", DialPolicy::name);
    match (row.in_force, row.settings.goal) {
        (true, _) => "in force".to_owned(),
        (false, Some(goal)) => format!("{policy} goal {goal}"),
        (false, None) => policy.to_owned(),
    }
}

fn note(row: &Row) -> &'static str {
    match (row.over_cap, row.on_frontier) {
        (true, _) => "over the cap",
        (false, true) => "frontier",
        (false, false) => "",
    }
}

fn text(campaign: &Recommended) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["settings", "utilisation", "abandonment", "attempts", "attempts per answer", ""]);
    let mut add = |name: String, came: &Came, note: &str| {
        let per_answer = came.attempts / came.answers.max(1.0);
        table.add_row([
            name,
            percent(came.utilisation),
            percent(came.abandonment),
            format!("{:.0}", came.attempts),
            format!("{per_answer:.2}"),
            note.to_owned(),
        ]);
    };
    add("as recorded".to_owned(), &campaign.recorded, "by the polls");
    add("model, rates as dialled".to_owned(), &campaign.model_as_dialled, "how far the model is off");
    for row in &campaign.rows {
        add(name(row), &row.came, note(row));
    }
    for column in table.column_iter_mut().skip(1).take(4) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = String::new();
    let _ = writeln!(text, "campaign {}: model-based, nothing is applied", printable(&campaign.campaign_id));
    let _ = writeln!(text, "{table}\n");
    text
}

const SIZE: f64 = 360.0;
const MARGIN: f64 = 60.0;

/// Utilisation against abandonment of what is within the cap; named are the frontier and what is in force.
fn svg(campaign: &Recommended) -> String {
    let within = || campaign.rows.iter().filter(|row| !row.over_cap || row.in_force);
    let most = within().map(|row| row.came.abandonment).fold(0.01, f64::max) * 1.1;
    let x = |share: f64| MARGIN + SIZE * share / most;
    let y = |share: f64| MARGIN + SIZE * (1.0 - share);
    let end = MARGIN + SIZE;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 560 480\" font-family=\"sans-serif\" font-size=\"11\">\
         <title>Frontier of a campaign, model-based</title>\
         <rect x=\"{MARGIN}\" y=\"{MARGIN}\" width=\"{SIZE}\" height=\"{SIZE}\" fill=\"none\" stroke=\"#888\"/>\
         <text x=\"{MARGIN}\" y=\"{:.0}\">abandonment, 0 to {}</text>\
         <text x=\"{MARGIN}\" y=\"{:.0}\">utilisation, 0 to 100 %</text>",
        end + 24.0,
        percent(most),
        MARGIN - 12.0
    );
    for row in within() {
        let (at, of) = (x(row.came.abandonment), y(row.came.utilisation));
        let fill = if row.on_frontier { "#1660a8" } else { "#bbb" };
        let _ = write!(svg, "<circle cx=\"{at:.1}\" cy=\"{of:.1}\" r=\"4\" fill=\"{fill}\"/>");
        if row.on_frontier || row.in_force {
            let (at, of) = (at + 7.0, of + 4.0);
            let _ = write!(svg, "<text x=\"{at:.1}\" y=\"{of:.1}\">{}</text>", name(row));
        }
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frontier_is_what_nothing_else_beats() {
        let row = |utilisation, abandonment| Row {
            settings: DialSettings::default(),
            in_force: false,
            on_frontier: false,
            over_cap: abandonment > 0.03,
            came: Came { utilisation, abandonment, attempts: 1.0, answers: 1.0 },
            attempts_per_answer: 1.0,
        };
        let rows = with_frontier(vec![row(0.8, 0.02), row(0.7, 0.01), row(0.7, 0.02), row(0.9, 0.05)]);
        let on: Vec<bool> = rows.iter().map(|row| row.on_frontier).collect();
        assert_eq!(on, [true, true, false, false]);
    }
}
