//! `trunkline evaluate model`: whole simulated days, and what the model makes of their polls. Where a day is known
//! in full, so is how far the model is off, also under a change that was not there when it was fitted.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::Context as _;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::day::{self, Day};
use super::policies::{Live, Pacer, Window};
use super::worlds::{TOLD_HANDLE_SECONDS, World};
use crate::cli::dial_model::{Came, Dials, Observed};
use crate::model::settings::DialSettings;
use crate::stages::dialing::pacing::Pacing;
use crate::stages::dialing::rules::Rules;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Worlds to play days in
    #[arg(long, value_delimiter = ',', value_enum, default_value = "steady,walk,jump,shift,handle")]
    worlds: Vec<World>,
    /// Agents of the campaign, 1 to 1000 each
    #[arg(long, value_delimiter = ',', default_value = "5,20,80", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    agents: Vec<u32>,
    /// Simulated days per row
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=1_000))]
    days: u32,
    /// Plays of each day in the model, with other chance
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=100))]
    plays: u32,
    /// Seed of the first day; the following days have the following seeds
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between two polls
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=120))]
    interval: u64,
    /// The goal under the change that is asked about, as a fraction; the days are dialled by pacing with goal 0.02
    #[arg(long, default_value_t = 0.005)]
    goal: f64,
    /// For programs
    #[arg(long)]
    json: bool,
}

/// The rule at work, and what a record of it would hold.
struct Recorded {
    live: Live,
    observed: Observed,
}

impl Pacer for Recorded {
    fn begin(&mut self, campaign_id: &str) {
        self.live.begin(campaign_id);
        self.observed = Observed::default();
    }

    fn decide(&mut self, window: &Window) -> anyhow::Result<Option<f64>> {
        self.observed.see(window.observation());
        self.live.decide(window)
    }
}

/// Model less day, as fractions.
#[derive(Clone, Copy, Debug, Serialize)]
struct Off {
    utilisation: f64,
    abandonment: f64,
}

impl Off {
    fn between(model: Came, day: &Day) -> Self {
        Self {
            utilisation: model.utilisation - day.utilisation,
            abandonment: model.abandonment - day.answers.abandonment(),
        }
    }
}

/// Over days: the mean of how far it is off, to one side or the other, and the most it is off.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Spread {
    utilisation_mean: f64,
    utilisation_worst: f64,
    abandonment_mean: f64,
    abandonment_worst: f64,
}

impl Spread {
    fn of(days: &[Off]) -> Self {
        let mean =
            |of: fn(&Off) -> f64| days.iter().map(|off| of(off).abs()).sum::<f64>() / days.len() as f64;
        let worst = |of: fn(&Off) -> f64| days.iter().map(|off| of(off).abs()).fold(0.0, f64::max);
        Self {
            utilisation_mean: mean(|off| off.utilisation),
            utilisation_worst: worst(|off| off.utilisation),
            abandonment_mean: mean(|off| off.abandonment),
            abandonment_worst: worst(|off| off.abandonment),
        }
    }
}

/// One world with so many agents.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Row {
    world: World,
    agents: u32,
    days: u32,
    /// With the rates that were dialled.
    as_dialled: Spread,
    /// By the rule that dialled.
    by_the_rule: Spread,
    /// Under the change, held against the same days really dialled so.
    under_the_change: Spread,
}

impl Arguments {
    pub(crate) fn run(self) -> anyhow::Result<ExitCode> {
        let mut rows = Vec::new();
        for world in &self.worlds {
            for agents in &self.agents {
                rows.push(self.row(*world, *agents)?);
            }
        }
        if self.json {
            let result = serde_json::json!({
                "seed": self.seed, "days": self.days, "intervalSeconds": self.interval, "goal": self.goal, "rows": rows,
            });
            crate::cli::print_json(&result)?;
        } else {
            writeln!(std::io::stdout(), "{}\n{}", table(&rows), self.note())?;
        }
        Ok(ExitCode::SUCCESS)
    }

    fn note(&self) -> String {
        format!(
            "seeds {} to {}; days of 8 h, polls every {} s; how far the model is off in points, mean over days / worst day: \
             utilisation, then abandonment; the change is goal {} instead of 0.02",
            self.seed,
            self.seed.wrapping_add(u64::from(self.days) - 1),
            self.interval,
            self.goal
        )
    }

    fn row(&self, world: World, agents: u32) -> anyhow::Result<Row> {
        let scenario = world.campaign(agents);
        let pacing = Pacing { handle_seconds: TOLD_HANDLE_SECONDS, ..Pacing::default() };
        let rules = Rules { pacing, ..Rules::default() };
        let changed = rules.with(&DialSettings { goal: Some(self.goal), ..DialSettings::default() });
        let mut off: [Vec<Off>; 3] = Default::default();
        for seed in (0..u64::from(self.days)).map(|day| self.seed.wrapping_add(day)) {
            let mut recorded = Recorded { live: Live::with(rules.pacing), observed: Observed::default() };
            let day = day::play(&mut recorded, &scenario, seed, self.interval)?;
            let otherwise = day::play(&mut Live::with(changed.pacing), &scenario, seed, self.interval)?;
            let fitted = recorded.observed.fit().context("a day has polls enough for a model")?;
            for (off, (dials, day)) in off.iter_mut().zip([
                (Dials::AsRecorded, &day),
                (Dials::By(&rules), &day),
                (Dials::By(&changed), &otherwise),
            ]) {
                off.push(Off::between(fitted.play(dials, self.plays), day));
            }
        }
        let [as_dialled, by_the_rule, under_the_change] = off.map(|days| Spread::of(&days));
        Ok(Row { world, agents, days: self.days, as_dialled, by_the_rule, under_the_change })
    }
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["world", "agents", "days", "rates as dialled", "by the rule", "under the change"]);
    let points = |mean: f64, worst: f64| format!("{:.2} / {:.2}", mean * 100.0, worst * 100.0);
    let cell = |of: &Spread| {
        let (utilisation, abandonment) = (
            points(of.utilisation_mean, of.utilisation_worst),
            points(of.abandonment_mean, of.abandonment_worst),
        );
        format!("{utilisation}, {abandonment}")
    };
    for row in rows {
        table.add_row([
            row.world.name().to_owned(),
            row.agents.to_string(),
            row.days.to_string(),
            cell(&row.as_dialled),
            cell(&row.by_the_rule),
            cell(&row.under_the_change),
        ]);
    }
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}
