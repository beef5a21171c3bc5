//! `trunkline simulate`.

use std::io::Write;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context;
use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use super::demo::platform::Platform;
use simulator::{EventSettings, Scenario, Simulator};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Where the API listens; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:8480", value_name = "ADDR")]
    listen: SocketAddr,
    /// Where the login host listens; the API host gives out tokens too
    #[arg(long, value_name = "ADDR")]
    login_listen: Option<SocketAddr>,
    /// Which form of the platform's interface is spoken
    #[arg(long, value_enum, default_value_t = Dialect::Seed)]
    dialect: Dialect,
    /// Simulated seconds per second; 0 moves only by POST /simulator/clock/advance
    #[arg(long, default_value_t = 1.0)]
    speed: f64,
    /// Everything random comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Campaigns, flows and queues as TOML; without it nine campaigns and six flows of different kinds
    #[arg(long, value_name = "FILE")]
    scenario: Option<PathBuf>,
    /// Requests a client may make per budget window
    #[arg(long, default_value_t = 300)]
    requests_per_window: u32,
    /// Length of the budget window, such as 60s
    #[arg(long, default_value = "60s", value_parser = super::duration)]
    budget_window: Duration,
    /// Posts the organisation's events there, such as http://127.0.0.1:8080/v1/events
    #[arg(long, value_name = "URL")]
    events_to: Option<String>,
    /// API key for it
    #[arg(
        long,
        value_name = "KEY",
        requires = "events_to",
        env = "TRUNKLINE_SIMULATE_EVENTS_KEY",
        hide_env_values = true
    )]
    events_key: Option<String>,
    /// Plays what the demo shows for the trunkline there, such as http://127.0.0.1:8080: events, a bad
    /// version after a while, interactions that ask for a group
    #[arg(long, value_name = "URL", conflicts_with = "events_to")]
    play_for: Option<String>,
    /// API key for it, with the role operate
    #[arg(long, value_name = "KEY", env = "TRUNKLINE_SIMULATE_PLAY_KEY", hide_env_values = true)]
    play_key: Option<String>,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Dialect {
    /// The paths the project was asked for
    Seed,
    /// Genesys Cloud's own interface
    Platform,
    /// Both, from one world
    Both,
}

impl From<Dialect> for simulator::Dialect {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Seed => Self::Seed,
            Dialect::Platform => Self::Platform,
            Dialect::Both => Self::Both,
        }
    }
}

/// How long it takes until whoever it is played for is asked again.
const AGAIN: Duration = Duration::from_secs(2);

/// Begins with each part as soon as that is possible: trunkline may not be there yet.
async fn play(platform: &Platform<'_>, speed: f64) {
    while let Err(error) = platform.ask_for_groups(&[]).await {
        tracing::info!("nobody asks for groups yet: {error:#}");
        tokio::time::sleep(AGAIN).await;
    }
    while let Err(error) = platform.send_events().await {
        tracing::warn!("no events are sent yet: {error:#}");
        tokio::time::sleep(AGAIN).await;
    }
    match platform.publish_bad_version(speed).await {
        Ok(told) => tracing::info!("{told}"),
        Err(error) => tracing::warn!("no bad version is published: {error:#}"),
    }
}

impl Arguments {
    pub(super) async fn run(self, shutdown: CancellationToken) -> anyhow::Result<ExitCode> {
        let scenario = match &self.scenario {
            None => Scenario::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("--scenario {} cannot be read", path.display()))?;
                Scenario::from_toml(&text).with_context(|| format!("--scenario {}", path.display()))?
            }
        };
        let running = Simulator::start(simulator::Settings {
            listen: self.listen,
            login_listen: self.login_listen,
            dialect: self.dialect.into(),
            speed: self.speed,
            seed: self.seed,
            scenario,
            requests_per_window: self.requests_per_window,
            budget_window: self.budget_window,
            events: EventSettings { to: self.events_to, key: self.events_key, ..EventSettings::default() },
            ..simulator::Settings::default()
        })
        .await?;
        let mut out = std::io::stdout();
        writeln!(out, "genesys.base_url = {}", running.api_url())?;
        if running.login_addr.is_some() {
            writeln!(out, "genesys.login_url = {}", running.login_url())?;
        }
        writeln!(out, "genesys.client_id = {}", simulator::DEMO_CLIENT_ID)?;
        writeln!(out, "genesys.client_secret = {}", simulator::DEMO_CLIENT_SECRET)?;
        let overview = running.overview();
        for campaign in overview.campaigns {
            writeln!(out, "campaign {} {}", campaign.id, campaign.name)?;
        }
        for flow in overview.flows {
            writeln!(out, "flow {} {}", flow.id, flow.name)?;
        }
        for queue in overview.queues {
            writeln!(out, "queue {} {}", queue.id, queue.name)?;
        }
        out.flush()?;
        if let Some(edge) = self.play_for {
            let platform = Platform::new(&running, edge.trim_end_matches('/').to_owned(), self.play_key);
            shutdown.run_until_cancelled(play(&platform, self.speed)).await;
        }
        shutdown.cancelled().await;
        running.shutdown().await;
        Ok(ExitCode::SUCCESS)
    }
}
