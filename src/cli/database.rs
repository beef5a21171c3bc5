//! `trunkline database migrate|status`.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::ConfigFile;
use crate::config::Needs;
use crate::postgres::Database;
use crate::postgres::migrations::Standing;
use crate::topology::settings;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Creates the roles and runs every migration that is missing; safe while instances run
    Migrate {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
    /// Which migrations are there; exit 1 when one is missing or differs
    Status {
        #[command(flatten)]
        config: ConfigFile,
        #[arg(long)]
        json: bool,
    },
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        match self.action {
            Action::Migrate { config, json } => migrate(&config, json).await,
            Action::Status { config, json } => status(&config, json).await,
        }
    }
}

async fn migrate(config: &ConfigFile, as_json: bool) -> anyhow::Result<ExitCode> {
    let database = Database::connect(&settings::postgres(&config.load(Needs::Postgres)?))?;
    let report = database.migrate().await?;
    let mut out = std::io::stdout();
    if as_json {
        writeln!(out, "{}", json!({"applied": report.applied, "notices": report.notices}))?;
    } else {
        match report.applied.as_slice() {
            [] => writeln!(out, "nothing to do")?,
            versions => writeln!(out, "applied {versions:?}")?,
        }
        for notice in &report.notices {
            writeln!(out, "notice: {notice}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn status(config: &ConfigFile, as_json: bool) -> anyhow::Result<ExitCode> {
    let database = Database::connect(&settings::postgres(&config.load(Needs::Postgres)?))?;
    let migrations = database.status().await?;
    let mut out = std::io::stdout();
    let told = |standing| match standing {
        Standing::Applied => "applied",
        Standing::Pending => "pending",
        Standing::Changed => "changed",
        Standing::Newer => "newer",
        Standing::Unknown => "unknown",
    };
    if as_json {
        let items: Vec<_> = migrations
            .iter()
            .map(|migration| {
                json!({"version": migration.version, "name": migration.name, "standing": told(migration.standing)})
            })
            .collect();
        writeln!(out, "{}", json!({"migrations": items}))?;
    } else {
        for migration in &migrations {
            writeln!(out, "{:04} {:<12} {}", migration.version, migration.name, told(migration.standing))?;
        }
    }
    let stands = |standing| matches!(standing, Standing::Applied | Standing::Newer);
    let current = migrations.iter().all(|migration| stands(migration.standing));
    Ok(if current { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
