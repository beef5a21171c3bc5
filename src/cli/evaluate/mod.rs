//! `trunkline evaluate`: what a rule does on simulated data, before it does it for real.

pub mod delivery;
mod draws;
pub mod pacing;
pub mod rollback;

use std::process::ExitCode;

#[derive(Debug, clap::Args)]
pub struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// How busy agents are, and how many calls are abandoned, under the policies of the dial loop
    Pacing(pacing::Arguments),
    /// How often good candidates of a canary are aborted, and what bad ones cost until they are
    Delivery(delivery::Arguments),
    /// How often healthy flow versions would be taken back, and how soon bad ones are
    Rollback(rollback::Arguments),
}

impl Arguments {
    pub fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Pacing(arguments) => arguments.run(),
            What::Delivery(arguments) => arguments.run(),
            What::Rollback(arguments) => arguments.run(),
        }
    }
}
