//! `trunkline run`.

use std::process::ExitCode;
use std::sync::Arc;

use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use super::notify::Supervisor;
use super::review::Review;
use crate::config::Needs;
use crate::topology::{self, Instance};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Roles to run, separated by commas; all by default. `trunkline topology` names them
    #[arg(long, value_delimiter = ',', value_name = "A,B", value_parser = role)]
    stages: Vec<String>,
}

/// Wrong names are wrong usage, told before anything starts.
fn role(name: &str) -> Result<String, String> {
    let known: Vec<_> = topology::roles().map(|role| role.name).collect();
    if known.contains(&name) { Ok(name.to_owned()) } else { Err(format!("one of {}", known.join(", "))) }
}

impl Arguments {
    pub(super) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
        let config = self.config.load(Needs::Everything)?;
        let instance = Instance::claim(config.instance.name.as_deref(), config.topic_prefix())?;
        tracing::info!(instance = instance.name(), "starting");
        let names: Vec<&str> = match self.stages.as_slice() {
            [] => topology::roles().map(|role| role.name).collect(),
            chosen => chosen.iter().map(String::as_str).collect(),
        };
        let review = Arc::new(Review::new(&config)?);
        let running = topology::start(&config, &instance, &names, review, &shutdown)?;
        if let Some(address) = running.http_address() {
            tracing::info!(%address, "HTTP");
        }
        if let Some(supervisor) = Supervisor::of_environment() {
            tokio::spawn(supervisor.keep_told(running.health().clone(), shutdown.clone()));
        }
        running.ended().await?;
        tracing::info!("stopped");
        Ok(ExitCode::SUCCESS)
    }
}
