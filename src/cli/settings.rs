//! `trunkline settings`: what was changed at run time, and by whom.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::{Context, bail};
use serde::Deserialize as _;
use serde_json::Value;

use super::ConfigFile;
use crate::model::settings::{ROUTE, RouteWeights, check};
use crate::routing::check_weights;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// The setting in force, as JSON
    Get {
        scope: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Changes a setting; `null` withdraws it
    Set {
        scope: String,
        /// The new value, JSON
        value: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Takes the newest change of a setting back
    Undo {
        scope: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Who changed what when, newest first
    History {
        /// Of one scope; without it of all
        scope: Option<String>,
        /// Changes shown
        #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
        limit: u32,
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout();
        match self.what {
            What::Get { scope, config } => {
                let Some(setting) = config.database().await?.setting(&scope).await? else {
                    bail!("{scope} is not set");
                };
                super::print_json(&setting)?;
            }
            What::Set { scope, value, config } => {
                let value: Value = serde_json::from_str(&value).context("the value is not JSON")?;
                check(&scope, &value).map_err(anyhow::Error::msg)?;
                let database = config.database().await?;
                if let Some(id) = scope.strip_prefix(ROUTE)
                    && let Ok(RouteWeights { weights }) = RouteWeights::deserialize(&value)
                {
                    check_weights(&database, id, &weights).await?;
                }
                let changed = database.change_setting(&scope, &super::who(), |_, _| Ok(value)).await?;
                writeln!(out, "revision {}", changed.revision)?;
                if changed.value.get("policy").is_some_and(|policy| policy == "proportional") {
                    eprintln!(
                        "proportional has no fixed point: it walks to a campaign's greatest rate while the answer \
                         rate is below the target; keep maxDialRate tight"
                    );
                }
            }
            What::Undo { scope, config } => {
                let database = config.database().await?;
                let newest = database.settings_history(Some(&scope), 1).await?.into_iter().next();
                let Some(newest) = newest else { bail!("{scope} was never set") };
                let back = database.undo_setting(&scope, newest.revision, &super::who()).await?;
                writeln!(out, "revision {}: {scope} is {} again", back.revision, back.value)?;
            }
            What::History { scope, limit, json, config } => {
                let changes = config.database().await?.settings_history(scope.as_deref(), limit).await?;
                if json {
                    super::print_items(&changes)?;
                } else {
                    for change in &changes {
                        let (who, value) = (change.who.escape_debug(), &change.value);
                        writeln!(
                            out,
                            "{:>6}  {}  {who}  {}  {value}",
                            change.revision, change.when, change.scope
                        )?;
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}
