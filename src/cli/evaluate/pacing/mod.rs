//! `trunkline evaluate pacing`: simulated days of one campaign, policies side by side on the
//! same days. The dialer, the agents and the called are those of the simulated platform.

mod day;
pub(super) mod model;
mod picture;
mod policies;
mod program;
mod report;
mod worlds;

use std::io::{IsTerminal as _, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;

use day::Day;
use policies::Named;
use report::Row;
use worlds::World;

/// Share of live answers abandoned that no day may pass: the safe harbour of 16 CFR 310.4(b)(4).
const CAP: f64 = 0.03;
/// Days are played by so many threads at once.
const THREADS: usize = 2;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    /// Policies to compare: progressive, proportional, adaptive, pacing
    #[arg(long, value_delimiter = ',', default_value = "progressive,adaptive,pacing")]
    policies: Vec<Named>,
    /// A policy of one's own: a command that reads one window per line (JSON) and answers each with
    /// {"dialRate": 2.25}
    #[arg(long, value_name = "COMMAND")]
    program: Option<String>,
    /// Worlds to play them in
    #[arg(long, value_delimiter = ',', value_enum, default_value = "steady,walk,jump,shift,handle")]
    worlds: Vec<World>,
    /// Agents of the campaign, 1 to 1000 each
    #[arg(long, value_delimiter = ',', default_value = "5,20,80", value_parser = clap::value_parser!(u32).range(1..=1_000))]
    agents: Vec<u32>,
    /// Simulated days per row
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    days: u32,
    /// Seed of the first day; the following days have the following seeds
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Seconds between two polls: idle agents are seen only then
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u64).range(1..=3_600))]
    interval: u64,
    /// Fail when a day of a policy under test (all but progressive, proportional and adaptive) is over the cap
    #[arg(long)]
    gate: bool,
    /// Write the first day of the last row as a picture (SVG)
    #[arg(long, value_name = "FILE")]
    picture: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        let mut policies = self.policies.clone();
        policies.extend(self.program.clone().map(Named::Program));
        let mut rows = Vec::new();
        let mut last = None;
        for world in &self.worlds {
            for agents in &self.agents {
                let played = self.play(*world, *agents, &policies)?;
                rows.extend(self.rows(*world, *agents, &policies, &played));
                last = played.into_iter().last().and_then(|days| days.into_iter().next());
                self.progress(*world, *agents);
            }
        }
        self.print(&rows)?;
        if let (Some(path), Some(day), Some(row)) = (&self.picture, &last, rows.last()) {
            let title = format!(
                "{}, world {}, {} agents, seed {}",
                row.policy,
                row.world.name(),
                row.agents,
                self.seed
            );
            let campaign = row.world.campaign(row.agents);
            std::fs::write(path, picture::svg(&title, day, campaign.max_dial_rate, CAP))
                .with_context(|| format!("{} cannot be written", path.display()))?;
        }
        Ok(self.verdict(&rows))
    }

    /// All days of every policy. `progressive` is always played: others are measured against it.
    fn play(&self, world: World, agents: u32, policies: &[Named]) -> anyhow::Result<Vec<Vec<Day>>> {
        policies.iter().map(|policy| self.days(world, agents, policy)).collect()
    }

    fn days(&self, world: World, agents: u32, policy: &Named) -> anyhow::Result<Vec<Day>> {
        let scenario = world.campaign(agents);
        // One program knows all days by their campaign ids; a rule has one state per thread.
        let threads = if matches!(policy, Named::Program(_)) { 1 } else { THREADS };
        let seeds: Vec<u64> = (0..u64::from(self.days)).map(|day| self.seed.wrapping_add(day)).collect();
        let each = seeds.len().div_ceil(threads);
        let parts = std::thread::scope(|scope| {
            let workers: Vec<_> = seeds
                .chunks(each)
                .map(|seeds| {
                    let scenario = &scenario;
                    scope.spawn(move || -> anyhow::Result<Vec<Day>> {
                        let mut pacer = policy.start()?;
                        seeds
                            .iter()
                            .map(|seed| day::play(&mut *pacer, scenario, *seed, self.interval))
                            .collect()
                    })
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().expect("a day does not panic")).collect::<Vec<_>>()
        });
        let mut days = Vec::with_capacity(seeds.len());
        for part in parts {
            days.extend(part?);
        }
        Ok(days)
    }

    fn rows(&self, world: World, agents: u32, policies: &[Named], played: &[Vec<Day>]) -> Vec<Row> {
        let of = |wanted: &Named| policies.iter().position(|policy| policy == wanted).map(|at| &*played[at]);
        let progressive = match of(&Named::Progressive) {
            Some(days) => days.to_vec(),
            None => self.days(world, agents, &Named::Progressive).expect("a rule of ours cannot fail"),
        };
        let rows = policies.iter().zip(played).map(|(policy, days)| {
            let adaptive = of(&Named::Adaptive).filter(|_| *policy != Named::Adaptive);
            report::row((world, agents, policy.name()), days, &progressive, adaptive, CAP)
        });
        rows.collect()
    }

    fn progress(&self, world: World, agents: u32) {
        if std::io::stderr().is_terminal() {
            eprintln!("{} with {agents} agents: {} days of each policy", world.name(), self.days);
        }
    }

    fn print(&self, rows: &[Row]) -> anyhow::Result<()> {
        let mut out = std::io::stdout();
        if self.json {
            let result = serde_json::json!({
                "seed": self.seed, "days": self.days, "intervalSeconds": self.interval, "cap": CAP, "rows": rows,
            });
            crate::cli::print_json(&result)?;
        } else {
            writeln!(out, "{}", report::table(rows))?;
            writeln!(
                out,
                "seeds {} to {}; days of 8 h; idle agents seen every {} s; cap {} % of live answers; ± is half of a 95 % interval over days",
                self.seed,
                self.seed.wrapping_add(u64::from(self.days) - 1),
                self.interval,
                CAP * 100.0
            )?;
        }
        Ok(())
    }

    fn verdict(&self, rows: &[Row]) -> ExitCode {
        let compared =
            [Named::Progressive, Named::Proportional, Named::Adaptive].map(|policy| policy.name().to_owned());
        let mut passed = true;
        for row in rows.iter().filter(|row| row.days_over_cap > 0 && !compared.contains(&row.policy)) {
            passed = false;
            if self.gate {
                eprintln!(
                    "gate: {} has {} of {} days over {} % in world {} with {} agents",
                    row.policy,
                    row.days_over_cap,
                    row.days,
                    CAP * 100.0,
                    row.world.name(),
                    row.agents
                );
            }
        }
        if self.gate && !passed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
    }
}
