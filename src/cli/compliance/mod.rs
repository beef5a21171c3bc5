//! `trunkline compliance`: a campaign's figures, and the evidence behind them.

mod export;
mod pack;
mod period;
mod show;
mod signature;

use std::process::ExitCode;

use anyhow::Context;

use super::ConfigFile;
use crate::config::{Config, Needs};
use crate::model::compliance::{Calendar, CampaignTerms};
use crate::postgres::Database;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// A campaign's figures, so far, as known and as restated
    Show(show::Arguments),
    /// One evidence pack: figures, calls, decisions, definitions and digests, signed
    Export(export::Arguments),
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.what {
            What::Show(arguments) => arguments.run().await,
            What::Export(arguments) => arguments.run().await,
        }
    }
}

/// A campaign with what holds for it.
struct Opened {
    config: Config,
    database: Database,
    terms: CampaignTerms,
    calendar: Calendar,
}

async fn open(campaign_id: &str, config: &ConfigFile) -> anyhow::Result<Opened> {
    let config = config.load(Needs::Postgres)?;
    let database = super::start::database(&config).await?;
    let terms = config.compliance.terms().of(campaign_id).clone();
    let began_at = database.campaign_began(campaign_id).await?.with_context(|| {
        format!(
            "nothing is recorded of campaign {campaign_id:?}: check the id; a campaign is here after its first \
             decision or its first call that was looked up"
        )
    })?;
    let calendar = terms.calendar(began_at)?;
    Ok(Opened { config, database, terms, calendar })
}
