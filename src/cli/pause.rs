//! `trunkline pause` and `trunkline resume`: loops stopped and started again.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;

use super::ConfigFile;
use crate::config::Needs;
use crate::model::pause::{Extent, PauseInForce};
use crate::postgres::Database;
use crate::topology::settings;

#[derive(Debug, clap::Args)]
pub(super) struct PauseArguments {
    /// dial, rollback, lag, route, or all; without it the pauses in force are listed
    #[arg(value_name = "LOOP", requires = "reason")]
    what: Option<Extent>,
    /// Why, for those who find the loop stopped
    #[arg(long, value_name = "TEXT", requires = "what")]
    reason: Option<String>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

#[derive(Debug, clap::Args)]
pub(super) struct ResumeArguments {
    /// dial, rollback, lag, route, or all: with all every pause ends
    #[arg(value_name = "LOOP")]
    what: Extent,
    #[command(flatten)]
    config: ConfigFile,
}

impl PauseArguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let database = connect(&self.config).await?;
        let in_force = match (self.what, &self.reason) {
            (Some(what), Some(reason)) => database.pause(what, reason, &super::who()).await?,
            _ => database.pauses().await?,
        };
        let items: Vec<&PauseInForce> = in_force.iter().map(|(_, pause)| pause).collect();
        let mut out = std::io::stdout();
        if self.json {
            super::print_items(&items)?;
            return Ok(ExitCode::SUCCESS);
        }
        for pause in &items {
            writeln!(out, "{}", line(pause))?;
        }
        if items.is_empty() {
            writeln!(out, "no loop is paused")?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

impl ResumeArguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let database = connect(&self.config).await?;
        let ended = database.resume(self.what, &super::who()).await?;
        if ended.is_empty() {
            bail!("no pause of {} is in force; `trunkline pause` lists those that are", self.what);
        }
        let mut out = std::io::stdout();
        for (extent, pause) in ended.iter() {
            writeln!(
                out,
                "{extent} goes on; it was paused since {} by {}",
                pause.since,
                pause.who.escape_debug()
            )?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

async fn connect(config: &ConfigFile) -> anyhow::Result<Database> {
    let database = Database::connect(&settings::postgres(&config.load(Needs::Postgres)?))?;
    database.verify().await?;
    Ok(database)
}

fn line(pause: &PauseInForce) -> String {
    let (who, reason) = (pause.who.escape_debug(), pause.reason.escape_debug());
    format!("{:<10} paused since {} by {who}: {reason}", pause.r#loop, pause.since)
}
