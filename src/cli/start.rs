//! What commands begin with: their configuration, the database, and who gives them; and how they
//! answer programs.

use std::io::Write as _;
use std::path::PathBuf;

use serde::Serialize;

use crate::config::{self, Config, Needs, Source};
use crate::postgres::Database;
use crate::topology::settings;

/// Where the configuration is.
#[derive(Clone, Debug, clap::Args)]
pub(super) struct ConfigFile {
    /// Configuration file; without it `trunkline.toml` here, if there is one
    #[arg(long, value_name = "FILE", env = "TRUNKLINE_CONFIG")]
    config: Option<PathBuf>,
}

impl ConfigFile {
    pub(super) fn source(&self) -> Source {
        Source::process(self.config.clone())
    }

    pub(super) fn load(&self, needs: Needs) -> anyhow::Result<Config> {
        Ok(config::load(&self.source(), needs)?)
    }

    /// The database of the configuration, which answers.
    pub(super) async fn database(&self) -> anyhow::Result<Database> {
        database(&self.load(Needs::Postgres)?).await
    }
}

/// The database of this configuration, which answers.
pub(super) async fn database(config: &Config) -> anyhow::Result<Database> {
    let database = Database::connect(&settings::postgres(config))?;
    // Asked by itself first: the pool would hide why it cannot connect.
    database.verify().await?;
    Ok(database)
}

/// Prints an answer for programs.
pub(super) fn print_json(answer: &impl Serialize) -> anyhow::Result<()> {
    Ok(writeln!(std::io::stdout(), "{}", serde_json::to_string_pretty(answer)?)?)
}

/// The same for a list.
pub(super) fn print_items(items: &impl Serialize) -> anyhow::Result<()> {
    print_json(&serde_json::json!({ "items": items }))
}

/// Who changes something on this command line, for the record: `cli:USER@HOST`.
pub(super) fn who() -> String {
    let user = ["SUDO_USER", "USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()))
        .unwrap_or_else(|| format!("uid {}", rustix::process::geteuid().as_raw()));
    format!("cli:{user}@{}", rustix::system::uname().nodename().to_string_lossy())
}
