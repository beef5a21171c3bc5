//! `trunkline maintenance`: times in which flows are not rolled back.

use std::io::Write as _;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;

use super::ConfigFile;
use crate::model::settings::{MAINTENANCE, MaintenanceWindow, Setting};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Opens a window from now on; prints its id
    Open {
        /// The flow it is about; without it all flows
        #[arg(long, value_name = "ID")]
        flow: Option<String>,
        /// How long it stays open, at most 7 days
        #[arg(long, value_name = "DURATION", default_value = "1h", value_parser = super::duration)]
        r#for: Duration,
        /// Why, for those who look it up
        #[arg(long)]
        reason: Option<String>,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Closes a window before its end
    Close {
        /// Its id
        id: String,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Windows that are open
    List {
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
            What::Open { flow, r#for, reason, config } => {
                let database = config.database().await?;
                let who = super::who();
                let opened =
                    database.open_maintenance(flow.as_deref(), r#for, reason.as_deref(), &who).await?;
                writeln!(out, "{}", id_of(&opened))?;
            }
            What::Close { id, config } => {
                let database = config.database().await?;
                if database.close_maintenance(&id, &super::who()).await?.is_none() {
                    bail!(
                        "there is no maintenance window {id}; `trunkline maintenance list` shows those that are open"
                    );
                }
            }
            What::List { json, config } => {
                let windows = config.database().await?.open_maintenance_windows().await?;
                if json {
                    super::print_items(&windows)?;
                } else {
                    for setting in &windows {
                        writeln!(out, "{}", line(setting)?)?;
                    }
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn id_of<'s>(setting: &'s Setting<'_>) -> &'s str {
    setting.scope.strip_prefix(MAINTENANCE).unwrap_or(&setting.scope)
}

fn line(setting: &Setting<'_>) -> anyhow::Result<String> {
    let window: MaintenanceWindow = serde_json::from_value(setting.value.clone())?;
    let about = window.flow_id.map_or_else(|| "all flows".to_owned(), |flow| format!("flow {flow}"));
    let reason = window.reason.map(|reason| format!(": {reason}")).unwrap_or_default();
    let text = format!("{}  {about}  until {}  by {}{reason}", id_of(setting), window.until, setting.who);
    Ok(text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect())
}
