//! `trunkline alerts`: who is told of incidents, and how they are.

use std::io::Write as _;
use std::process::ExitCode;

use anyhow::bail;
use comfy_table::{Table, presets};

use super::ConfigFile;
use super::explain::printable;
use crate::postgres::alerts::ReceiverStanding;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Receivers, whether they take alerts, and how many wait for them
    Receivers {
        /// For programs
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Lets a receiver have alerts again that was switched off when it answered 410 Gone
    Enable {
        /// Its name in alerts.webhooks
        name: String,
        #[command(flatten)]
        config: ConfigFile,
    },
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let mut out = std::io::stdout();
        match self.what {
            What::Receivers { json, config } => {
                let receivers = config.database().await?.receivers().await?;
                if json {
                    super::print_items(&receivers)?;
                } else {
                    writeln!(out, "{}", table(&receivers))?;
                }
            }
            What::Enable { name, config } => {
                if !config.database().await?.enable_receiver(&name).await? {
                    bail!(
                        "no receiver {name:?} was ever known; `trunkline alerts receivers` lists them, once the \
                         role alerts runs with them"
                    );
                }
            }
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(receivers: &[ReceiverStanding]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["RECEIVER", "STATUS", "QUEUED", "SINCE OR UNTIL", "ITS WORDS"]);
    for receiver in receivers {
        let at = match (receiver.switched_off_at, receiver.paused_until) {
            (Some(since), _) => format!("since {since}"),
            (None, Some(until)) => format!("until {until}"),
            (None, None) => String::new(),
        };
        table.add_row([
            printable(&receiver.receiver),
            receiver.status.clone(),
            receiver.queued.to_string(),
            at,
            printable(receiver.switched_off.as_deref().unwrap_or_default()),
        ]);
    }
    table
}
