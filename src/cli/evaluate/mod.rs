//! `trunkline evaluate`: what a rule does on simulated data, before it does it for real.

pub mod delivery;
mod draws;
mod minutes;
pub mod pacing;
pub mod rollback;

use std::io::Write as _;
use std::process::ExitCode;

use comfy_table::Table;
use serde::Serialize;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// What is simulated how often, and for whom it is printed.
#[derive(Debug, clap::Args)]
struct Runs {
    /// Where the random numbers begin; the same seed gives the same table
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Simulated runs per row
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    runs: u32,
    /// For programs
    #[arg(long)]
    json: bool,
}

impl Runs {
    /// Prints the rows, for people with a line below that says how to read them.
    fn print<R: Serialize>(
        &self,
        rows: &[R],
        table: impl Fn(&[R]) -> Table,
        note: &str,
    ) -> anyhow::Result<()> {
        if self.json {
            return super::print_json(&serde_json::json!({ "seed": self.seed, "rows": rows }));
        }
        writeln!(std::io::stdout(), "{}\nseed {}; {note}", table(rows), self.seed)?;
        Ok(())
    }
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// How busy agents are, and how many calls are abandoned, under the policies of the dial loop
    Pacing(pacing::Arguments),
    /// How far the model is off by which settings are recommended and judged
    Model(pacing::model::Arguments),
    /// How often good candidates of a canary are aborted, and what bad ones cost until they are
    Delivery(delivery::Arguments),
    /// How often healthy flow versions would be taken back, and how soon bad ones are
    Rollback(rollback::Arguments),
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Pacing(arguments) => arguments.run(),
            What::Model(arguments) => arguments.run(),
            What::Delivery(arguments) => arguments.run(),
            What::Rollback(arguments) => arguments.run(),
        }
    }
}
