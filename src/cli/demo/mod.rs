//! `trunkline demo`: everything on this machine, before the user's eyes.

mod canaries;
mod picture;
pub(super) mod platform;
mod readers;
mod screen;
mod services;

use std::collections::HashMap;
use std::io::Write;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use clap::ValueEnum;
use tokio_util::sync::CancellationToken;

use crate::cli::review::Review;
use crate::config::{self, Config, Needs, Source};
use crate::kafka::admin;
use crate::model::name::{Kind, Named};
use crate::postgres::Database;
use crate::topics;
use crate::topology::{self, Instance, settings};
use simulator::{Running as Simulation, Simulator};

use platform::Platform;
use screen::Screen;
use services::Services;

/// One tick of the platform's time.
const TICK_SECONDS: f64 = 30.0;
const REQUESTS_PER_WINDOW: u32 = 300;
/// Consumer groups of the simulated platform's own.
const ANALYTICS_GROUPS: [&str; 5] =
    ["crm-sync", "quality-monitoring", "agent's-desktop", "billing-export", "data-lake"];

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Simulated seconds per second, 1 to 300
    #[arg(long, default_value_t = 30.0, value_parser = speed)]
    speed: f64,
    /// Everything random in the simulated contact centre comes from it
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Which form of the platform's interface is spoken
    #[arg(long, value_enum, default_value_t = Dialect::Seed)]
    dialect: Dialect,
    /// Ends by itself after this time, such as 2m; without it Ctrl-C ends it
    #[arg(long = "for", value_name = "DURATION", value_parser = super::duration)]
    length: Option<Duration>,
    /// Address of the HTTP interface; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0", value_name = "ADDR")]
    listen: std::net::SocketAddr,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Dialect {
    /// The paths the project was asked for
    Seed,
    /// Genesys Cloud's own interface
    Platform,
}

fn speed(text: &str) -> Result<f64, String> {
    let speed = text.parse().ok().filter(|speed| (1.0..=300.0).contains(speed));
    speed.ok_or_else(|| "a number from 1 to 300".to_owned())
}

impl Arguments {
    /// `log`: the file that has what the loops say, where it is not on stderr.
    pub(super) async fn run(
        self,
        shutdown: CancellationToken,
        log: Option<&Path>,
    ) -> anyhow::Result<ExitCode> {
        eprintln!("Starting Kafka and Postgres …");
        let services = Services::start(&shutdown).await?;
        let result = self.with_services(&services, &shutdown, log).await;
        eprintln!("Stopping Kafka and Postgres …");
        services.remove().await?;
        if let Some(log) = log.filter(|log| log.exists()) {
            eprintln!("What the loops said is in {}", log.display());
        }
        result
    }

    async fn with_services(
        &self,
        services: &Services,
        shutdown: &CancellationToken,
        log: Option<&std::path::Path>,
    ) -> anyhow::Result<ExitCode> {
        let simulation = self.simulate().await?;
        let result = self.with_simulation(services, &simulation, shutdown, log).await;
        simulation.shutdown().await;
        result
    }

    async fn simulate(&self) -> anyhow::Result<Simulation> {
        Ok(Simulator::start(simulator::Settings {
            listen: "127.0.0.1:0".parse().expect("an address"),
            dialect: match self.dialect {
                Dialect::Seed => simulator::Dialect::Seed,
                Dialect::Platform => simulator::Dialect::Platform,
            },
            speed: self.speed,
            seed: self.seed,
            scenario: canaries::scenario(),
            requests_per_window: REQUESTS_PER_WINDOW,
            budget_window: self.scaled(60.0),
            // Now and then somebody else changes a campaign under our hands.
            rival_every_seconds: Some(240),
            ..simulator::Settings::default()
        })
        .await?)
    }

    /// A span of the platform's time on our clock.
    fn scaled(&self, seconds: f64) -> Duration {
        Duration::from_secs_f64(seconds / self.speed)
    }

    fn configuration(
        &self,
        services: &Services,
        simulation: &Simulation,
        flows: &[String],
    ) -> anyhow::Result<Config> {
        let milliseconds = |duration: Duration| format!("{}ms", duration.as_millis());
        let campaigns: Vec<_> =
            simulation.overview().campaigns.into_iter().map(|campaign| campaign.id).collect();
        // What the platform's own interface has no analytics of is not asked for.
        let analytics_groups = match self.dialect {
            Dialect::Seed => ANALYTICS_GROUPS.join(","),
            Dialect::Platform => String::new(),
        };
        let dialect = self.dialect.to_possible_value().expect("none is hidden");
        let environment: HashMap<String, String> = [
            ("TRUNKLINE_GENESYS__DIALECT", dialect.get_name().to_owned()),
            ("TRUNKLINE_KAFKA__BROKERS", services.brokers.clone()),
            ("TRUNKLINE_POSTGRES__URL", services.postgres_url.clone()),
            ("TRUNKLINE_HTTP__LISTEN", self.listen.to_string()),
            ("TRUNKLINE_GENESYS__BASE_URL", simulation.api_url()),
            ("TRUNKLINE_GENESYS__CLIENT_ID", simulator::DEMO_CLIENT_ID.to_owned()),
            ("TRUNKLINE_GENESYS__CLIENT_SECRET", simulator::DEMO_CLIENT_SECRET.to_owned()),
            ("TRUNKLINE_GENESYS__REQUESTS_PER_MINUTE", REQUESTS_PER_WINDOW.to_string()),
            ("TRUNKLINE_GENESYS__BUDGET_WINDOW", milliseconds(self.scaled(60.0))),
            ("TRUNKLINE_DIAL__MODE", "live".to_owned()),
            ("TRUNKLINE_LAG__MODE", "live".to_owned()),
            // A group that falls behind is to be seen, called and helped within a minute.
            ("TRUNKLINE_LAG__INTERVAL", "2s".to_owned()),
            ("TRUNKLINE_LAG__WARNING_AGE", "3s".to_owned()),
            ("TRUNKLINE_LAG__ERROR_AGE", "5s".to_owned()),
            ("TRUNKLINE_LAG__CATCH_UP", "20s".to_owned()),
            ("TRUNKLINE_LAG__ANALYTICS_GROUPS", analytics_groups),
            ("TRUNKLINE_LAG__ANALYTICS_INTERVAL", milliseconds(self.scaled(60.0))),
            ("TRUNKLINE_DIAL__INTERVAL", milliseconds(self.scaled(TICK_SECONDS))),
            ("TRUNKLINE_DIAL__CAMPAIGNS", campaigns.join(",")),
            ("TRUNKLINE_ENRICHMENT__QUIET", milliseconds(self.scaled(60.0))),
            // Analytics know a conversation half a second after its end, by any clock.
            ("TRUNKLINE_ENRICHMENT__SETTLE", "1s".to_owned()),
            ("TRUNKLINE_ENRICHMENT__PATIENCE", milliseconds(self.scaled(7_200.0))),
            // Events bear the real clock's time: below a second their own way here is too long.
            ("TRUNKLINE_EVENTS__WINDOW", milliseconds(self.scaled(60.0).max(Duration::from_secs(1)))),
            ("TRUNKLINE_EVENTS__LATENESS", milliseconds(self.scaled(120.0).max(Duration::from_secs(2)))),
            ("TRUNKLINE_ROLLBACK__MODE", "live".to_owned()),
            ("TRUNKLINE_DELIVERY__MODE", "live".to_owned()),
            ("TRUNKLINE_ROLLBACK__FLOWS", flows.join(",")),
            ("TRUNKLINE_ROLLBACK__INTERVAL", milliseconds(self.scaled(30.0).max(Duration::from_secs(1)))),
        ]
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
        // A `trunkline.toml` that lies here is for the real platform: the demo must not read it.
        Ok(config::load(&Source { file: Some("/dev/null".into()), environment }, Needs::Everything)?)
    }

    async fn with_simulation(
        &self,
        services: &Services,
        simulation: &Simulation,
        shutdown: &CancellationToken,
        log: Option<&std::path::Path>,
    ) -> anyhow::Result<ExitCode> {
        let overview = simulation.overview();
        let flows: Vec<String> = overview.flows.iter().map(|flow| flow.id.clone()).collect();
        let config = self.configuration(services, simulation, &flows)?;
        let instance = Instance::claim(Some("demo"), "")?;
        let kafka = settings::kafka(&config, &instance);
        admin::apply(&kafka, &settings::topics(&config), topics::ALL)
            .await
            .context("topics could not be created")?;
        let database = Database::connect(&settings::postgres(&config))?;
        database.migrate().await?;
        // The seed's interface tells versions of flows and not what they are called.
        let named = overview.flows.iter().filter_map(|flow| Named::new(Kind::Flow, &flow.id, &flow.name));
        database.keep_names(&named.collect::<Vec<_>>()).await?;

        let stop = shutdown.child_token();
        let names: Vec<&str> = topology::roles().map(|role| role.name).collect();
        let review = Arc::new(Review::new(&config)?);
        let running = topology::start(&config, &instance, &names, review, &stop)?;
        let http = running.http_address().context("the demo serves HTTP")?;

        let platform = Platform::new(simulation, format!("http://{http}"), None);
        platform.send_events().await.context("the simulated platform's events")?;
        let bad =
            platform.publish_bad_version(self.speed).await.context("the simulated platform's publish")?;
        let tried =
            canaries::begin(&platform, &simulation.overview()).await.context("the demo's canaries")?;
        let dispatchers: Vec<&str> = canaries::routes().collect();
        let shares =
            platform.ask_for_groups(&dispatchers).await.context("the demo's routing configuration")?;

        let told = [("Rollback", &*bad), ("Canaries", &tried), ("Routing", &shares)];
        welcome(services, simulation, http, told, log)?;

        let readers = readers::start(&kafka, http, stop.clone());
        let log = log.map(|log| format!("   log {}", log.display())).unwrap_or_default();
        let screen = Screen::new(vec![format!("Console http://{http}/{log}")]);
        tokio::select! {
            shown = self.show(screen, &database, simulation, &readers, shutdown) => shown?,
            () = canaries::promote_what_is_done(&platform, &stop) => {}
        }

        let facts = admin::record_count(&kafka, &topics::CAMPAIGN_STATS).await?;
        stop.cancel();
        readers.ended().await;
        running.ended().await?;
        let (totals, overview) = (database.totals().await?, simulation.overview());
        let canaries = canaries::lines(&overview, &database.canaries().await?);
        write!(std::io::stdout(), "{}", screen::summary(facts, &totals, &canaries, &overview))?;
        database.close().await;
        Ok(ExitCode::SUCCESS)
    }

    /// Shows what happens until the time is over or the user has seen enough.
    async fn show(
        &self,
        mut screen: Screen,
        database: &Database,
        simulation: &Simulation,
        readers: &readers::Readers,
        shutdown: &CancellationToken,
    ) -> anyhow::Result<()> {
        let end = self.length.map(|length| Instant::now() + length);
        let mut refresh = tokio::time::interval(screen.pause());
        refresh.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut canaries = Vec::new();
        while end.is_none_or(|end| Instant::now() < end) {
            tokio::select! {
                () = shutdown.cancelled() => break,
                _ = refresh.tick() => {}
            }
            // What cannot be asked now is shown at the next turn.
            let totals = database.totals().await.unwrap_or_default();
            let mut recent = Vec::new();
            for (of, limit) in screen.recent_decisions() {
                recent.extend(database.recent(of, limit).await.unwrap_or_default());
            }
            let overview = simulation.overview();
            if let Ok(now) = database.canaries().await {
                canaries = canaries::lines(&overview, &now);
            }
            screen.show(&overview, &totals, &recent, &readers.standing(), &canaries)?;
        }
        Ok(())
    }
}

/// Says where everything is to be seen.
fn welcome(
    services: &Services,
    simulation: &Simulation,
    http: SocketAddr,
    shown: [(&str, &str); 3],
    log: Option<&Path>,
) -> anyhow::Result<()> {
    let mut out = std::io::stdout();
    writeln!(out, "Console    http://{http}/  what is being done now, why, and the button that stops it")?;
    writeln!(out, "HTTP       http://{http}/v1/decisions  /readyz  /metrics  /openapi.json")?;
    writeln!(out, "SQL        psql '{}' -c 'select * from audit.explained limit 5'", services.postgres_url)?;
    let program = std::env::args().next().unwrap_or_else(|| "trunkline".to_owned());
    writeln!(
        out,
        "Why        TRUNKLINE_POSTGRES__URL='{}' {program} explain DECISION_ID",
        services.postgres_url
    )?;
    for (what, told) in shown {
        writeln!(out, "{what:<10} {told}")?;
    }
    writeln!(out, "Topics     brokers {}; `trunkline topology` names the topics", services.brokers)?;
    writeln!(out, "Platform   {}/simulator/campaigns  /simulator/requests", simulation.api_url())?;
    if let Some(log) = log {
        writeln!(out, "Log        {}", log.display())?;
    }
    Ok(out.flush()?)
}
