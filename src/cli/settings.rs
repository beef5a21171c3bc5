//! `trunkline settings`: what was changed at run time, and by whom.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use serde::Deserialize as _;
use serde_json::Value;

use super::ConfigFile;
use super::replay::dry_run;
use super::review::Review;
use crate::config::Needs;
use crate::console::{Proposed, SettingsReview as _};
use crate::model::settings::{ROUTE, RouteWeights, check};
use crate::routing::check_weights;

/// How long a change is played before it is made.
const REVIEW_LIMIT: Duration = Duration::from_secs(600);

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
        /// Changes nothing: says what would have been decided differently in the last hour
        #[arg(long)]
        dry_run: bool,
        /// With --dry-run: for programs
        #[arg(long, requires = "dry_run")]
        json: bool,
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
            What::Set { scope, value, dry_run: is_dry, json, config } => {
                let value: Value = serde_json::from_str(&value).context("the value is not JSON")?;
                check(&scope, &value).map_err(anyhow::Error::msg)?;
                let database = config.database().await?;
                if let Some(id) = scope.strip_prefix(ROUTE)
                    && let Ok(RouteWeights { weights }) = RouteWeights::deserialize(&value)
                {
                    check_weights(&database, id, &weights).await?;
                }
                let proposed = Proposed { scope: &scope, value: &value };
                if is_dry {
                    return play(&config, proposed, json).await;
                }
                admit(&config, proposed).await?;
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
                let value = database.setting_before(&scope, newest.revision).await?;
                admit(&config, Proposed { scope: &scope, value: &value }).await?;
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

fn review(config: &ConfigFile) -> anyhow::Result<Review> {
    Review::new(&config.load(Needs::Postgres)?)
}

/// Fails where the change may not be made.
async fn admit(config: &ConfigFile, proposed: Proposed<'_>) -> anyhow::Result<()> {
    Ok(review(config)?.admit(proposed, REVIEW_LIMIT).await?)
}

async fn play(config: &ConfigFile, proposed: Proposed<'_>, json: bool) -> anyhow::Result<ExitCode> {
    let played = review(config)?.dry_run(proposed, REVIEW_LIMIT).await?;
    if json {
        super::print_json(&played)?;
    } else {
        write!(std::io::stdout(), "{}", dry_run(&played))?;
    }
    Ok(ExitCode::SUCCESS)
}
