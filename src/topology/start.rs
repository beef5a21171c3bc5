//! Starts the roles of one instance and waits for their end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::dial_tables::DialTables;
use super::instance::Instance;
use super::roles::{self, roles};
use super::routed::Routed;
use super::shared_budget::SharedBudget;
use super::side_tables::SideTables;
use super::{redecide, settings};
use crate::config::Config;
use crate::console::{Console, EventIntake, Metrics};
use crate::genesys::Client;
use crate::health::Health;
use crate::kafka::global_table::GlobalTable;
use crate::kafka::settings::KafkaSettings;
use crate::model::decision::Mode;
use crate::model::settings::DialPolicy;
use crate::pipeline::PartitionStage;
use crate::postgres::Database;
use crate::postgres::routing::RouteCounters;
use crate::routing;
use crate::runtime::{StageHandle, run_stage};
use crate::sinks::rollback::{FlowVersionChange, RollbackActuator};
use crate::sinks::{actuator, alerts, analytics, audit, drift, lag_status, outbox};
use crate::sources::events::Edge;
use crate::sources::{analytics_poller, campaign_poller, flow_poller, lag_poller, queue_poller};
use crate::stages::dialing::Dialing;
use crate::stages::flow_counting::FlowCounting;
use crate::stages::flow_measuring::FlowMeasuring;
use crate::stages::flow_summing::FlowSumming;
use crate::stages::lag::Lag;
use crate::stages::rollback::Rollback;
use crate::stages::windowing::Windowing;
use crate::topics;

/// Queues and settings an instance keeps in memory for routing, at most.
const MOST_TABLE_ENTRIES: usize = 100_000;

/// Every role ends within this; what is cut off then is taken up by the next start.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(9);

/// The roles of this process at work.
pub struct Running {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    stages: Vec<StageHandle>,
    http: Option<SocketAddr>,
    stop: CancellationToken,
}

impl Running {
    /// Where HTTP is served, if this instance has that role.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// Waits until all roles have ended, which `shutdown` asks them to. A role that ends
    /// before that takes the others along: a process that does half its work unnoticed is
    /// worse than one that is restarted.
    ///
    /// # Errors
    /// What a role ended with before it was asked to.
    pub async fn ended(mut self) -> anyhow::Result<()> {
        let mut result = Ok(());
        tokio::select! {
            () = self.stop.cancelled() => {}
            Some(joined) = self.tasks.join_next() => {
                if !self.stop.is_cancelled() {
                    result = Err(match joined {
                        Ok((role, Ok(()))) => anyhow::anyhow!("role {role} ended by itself"),
                        Ok((role, Err(error))) => error.context(format!("role {role} ended")),
                        Err(panic) => anyhow::Error::new(panic).context("a role panicked, which is a bug"),
                    });
                }
                self.stop.cancel();
            }
        }
        let ending = async {
            for stage in self.stages {
                stage.stopped().await;
            }
            while let Some(joined) = self.tasks.join_next().await {
                match joined {
                    Ok((_, Ok(()))) => {}
                    Ok((role, Err(error))) => tracing::warn!(role, "at its end: {error:#}"),
                    Err(panic) => tracing::error!("a role panicked, which is a bug: {panic}"),
                }
            }
        };
        if tokio::time::timeout(SHUTDOWN_LIMIT, ending).await.is_err() {
            tracing::warn!(
                "roles that had not ended after {SHUTDOWN_LIMIT:?} are cut off; the next start takes their work up"
            );
        }
        result
    }
}

/// Starts `names`, which are names of [`roles`]. Brokers, database and platform need not
/// be there: roles wait for them, and readiness says so.
///
/// # Errors
/// When settings cannot be used or the HTTP address is taken.
pub async fn start(
    config: &Config,
    instance: &Instance,
    names: &[&str],
    shutdown: &CancellationToken,
) -> anyhow::Result<Running> {
    let unknown = names.iter().find(|name| roles().iter().all(|role| role.name != **name));
    if let Some(unknown) = unknown {
        bail!("no role is called {unknown}");
    }
    // First of all: what is counted before there is a recorder is counted nowhere.
    let metrics = Metrics::install()?;
    if names.contains(&roles::INGEST) && !names.contains(&roles::CONSOLE) {
        bail!("role {} answers on the listener of role {}: name both", roles::INGEST, roles::CONSOLE);
    }
    let stop = shutdown.child_token();
    let database = Database::connect(&settings::postgres(config))?;
    let health = Health::default();
    let mut starting = Starting {
        config,
        kafka: settings::kafka(config, instance),
        client: None,
        edge: None,
        routed: None,
        running: Running { tasks: JoinSet::new(), stages: Vec::new(), http: None, stop },
        database,
        health,
        metrics,
    };
    starting.watch_database();
    for role in roles().iter().filter(|role| names.contains(&role.name)) {
        starting.role(role.name).await.with_context(|| format!("role {} cannot start", role.name))?;
    }
    Ok(starting.running)
}

struct Starting<'c> {
    config: &'c Config,
    kafka: KafkaSettings,
    database: Database,
    /// One for all roles that call the platform.
    client: Option<Client>,
    /// Takes events in behind the console's route.
    edge: Option<Arc<Edge>>,
    routed: Option<Arc<Routed>>,
    health: Health,
    metrics: Metrics,
    running: Running,
}

impl Starting<'_> {
    fn task<E>(&mut self, role: &'static str, work: impl Future<Output = Result<(), E>> + Send + 'static)
    where
        E: Into<anyhow::Error>,
    {
        self.running.tasks.spawn(async move { (role, work.await.map_err(Into::into)) });
    }

    fn watch_database(&mut self) {
        let (database, part) = (self.database.clone(), self.health.part("postgres"));
        let stop = self.running.stop.clone();
        self.task("postgres watch", async move {
            database.watch(part, stop).await;
            Ok::<_, anyhow::Error>(())
        });
    }

    fn client(&mut self) -> anyhow::Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let genesys = settings::genesys(self.config);
        let permits = Arc::new(SharedBudget::new(self.database.clone(), &genesys));
        let client = Client::new(&genesys, permits, &self.health)?;
        self.client = Some(client.clone());
        Ok(client)
    }

    async fn role(&mut self, name: &'static str) -> anyhow::Result<()> {
        // A loop that is off has no source, no stages and no actuator; what was recorded stays readable.
        match (name, self.config.dial.mode) {
            (roles::AUDIT, _) => self.audit(),
            (roles::CONSOLE, _) => self.console().await?,
            (roles::OUTBOX, _) => self.outbox(),
            (roles::INGEST, _) => self.ingest()?,
            (roles::ALERTS, _) => self.alerts(),
            (roles::DRIFT, _) => self.drift()?,
            (roles::ENRICHMENT, _) => self.enrichment()?,
            (roles::FLOW_COUNTING, _) => {
                self.stage(FlowCounting::new(self.config.events.window, self.config.events.lateness));
            }
            (roles::FLOW_SUMMING, _) => self.stage(FlowSumming::new(self.config.events.window)),
            (roles::FLOW_MEASURING, _) => self.stage(FlowMeasuring),
            (roles::ROUTING, _) => self.routing()?,
            (roles::QUEUE_POLLER, _) => self.queue_poller()?,
            (roles::LAG_STATUS, _) => self.lag_status(),
            (roles::LAG | roles::LAG_POLLER | roles::ANALYTICS_POLLER, _) => self.lag(name)?,
            (roles::FLOW_POLLER | roles::ROLLBACK | roles::ROLLBACK_ACTUATOR, _) => self.rollback(name)?,
            (_, None) => tracing::info!(role = name, "dial.mode is off: not started"),
            (roles::CAMPAIGN_POLLER, Some(_)) => self.campaign_poller()?,
            (roles::WINDOWING, Some(_)) => self.stage(Windowing),
            (roles::DIALING, Some(mode)) => self.dialing(mode),
            (roles::ACTUATOR, Some(_)) => self.actuator()?,
            (name, Some(_)) => unreachable!("role {name} is declared and not wired"),
        }
        Ok(())
    }

    fn stage(&mut self, stage: impl PartitionStage) {
        let part = self.health.part(stage.declaration().name);
        let (settings, stop) = (settings::stage(self.config), self.running.stop.clone());
        self.running.stages.push(run_stage(stage, &self.kafka, &settings, part, stop));
    }

    fn dialing(&mut self, mode: Mode) {
        let rules = settings::dial_rules(self.config);
        if rules.policy == DialPolicy::Proportional {
            tracing::warn!(
                "dial.policy is proportional: it has no fixed point and walks to a campaign's greatest rate while \
                 the answer rate is below dial.target; keep maxDialRate tight, or take pacing"
            );
        }
        let (kafka, health, stop) = (self.kafka.clone(), self.health.clone(), self.running.stop.clone());
        let tables = DialTables::open(&kafka, &health, &stop);
        let stage = Dialing::new(mode, self.config.dial.interval, rules, Arc::new(tables.clone()));
        let settings = settings::stage(self.config);
        // Without knowing what is set nothing is decided.
        self.task(roles::DIALING, async move {
            if tables.caught_up().await {
                run_stage(stage, &kafka, &settings, health.part(roles::DIALING), stop).stopped().await;
            }
            Ok::<_, anyhow::Error>(())
        });
    }

    fn campaign_poller(&mut self) -> anyhow::Result<()> {
        let settings = settings::campaign_poller(self.config);
        let (kafka, client, health) = (self.kafka.clone(), self.client()?, self.health.clone());
        let stop = self.running.stop.clone();
        self.task(roles::CAMPAIGN_POLLER, async move {
            campaign_poller::run(settings, kafka, client, &health, stop).await
        });
        Ok(())
    }

    fn actuator(&mut self) -> anyhow::Result<()> {
        let change = actuator::DialChange::new(self.client()?, redecide::from_the_record());
        let (kafka, settings) = (self.kafka.clone(), actuator::settings());
        let actuator = actuator::Actuator::new(kafka, settings, change, self.database.clone());
        let (health, stop) = (self.health.clone(), self.running.stop.clone());
        self.task(roles::ACTUATOR, async move { actuator.run(&health, stop).await });
        Ok(())
    }

    /// The roles of the rollback guard.
    fn rollback(&mut self, name: &'static str) -> anyhow::Result<()> {
        let Some(mode) = self.config.rollback.mode else {
            tracing::info!(role = name, "rollback.mode is off: not started");
            return Ok(());
        };
        let (kafka, health, stop) = (self.kafka.clone(), self.health.clone(), self.running.stop.clone());
        match name {
            roles::FLOW_POLLER => {
                let (settings, client) = (settings::flow_poller(self.config), self.client()?);
                self.task(
                    name,
                    async move { flow_poller::run(settings, kafka, client, &health, stop).await },
                );
            }
            roles::ROLLBACK => {
                let tables = SideTables::open(&kafka, &health, &stop);
                let sources = settings::rollback_sources(self.config);
                let lookup = Arc::new(tables.clone());
                let stage = Rollback::new(mode, settings::rollback_rule(self.config), sources, lookup);
                let settings = settings::stage(self.config);
                // Without knowing what is in force nothing is decided.
                self.task(name, async move {
                    if tables.caught_up().await {
                        run_stage(stage, &kafka, &settings, health.part(name), stop).stopped().await;
                    }
                    Ok::<_, anyhow::Error>(())
                });
            }
            _ => {
                let change = FlowVersionChange::new(self.client()?, settings::rollback_lockout(self.config));
                let (settings, database) = (Default::default(), self.database.clone());
                let actuator = RollbackActuator::new(kafka, settings, change, database);
                self.task(name, async move { actuator.run(&health, stop).await });
            }
        }
        Ok(())
    }

    fn audit(&mut self) {
        let (kafka, database, health) = (self.kafka.clone(), self.database.clone(), self.health.clone());
        let stop = self.running.stop.clone();
        self.task(roles::AUDIT, async move {
            audit::run(audit::Settings::default(), &kafka, database, &health, stop).await
        });
    }

    fn alerts(&mut self) {
        let (kafka, database, health) = (self.kafka.clone(), self.database.clone(), self.health.clone());
        let (settings, stop) = (settings::alerts(self.config), self.running.stop.clone());
        self.task(roles::ALERTS, async move { alerts::run(settings, kafka, database, &health, stop).await });
    }

    fn outbox(&mut self) {
        let (kafka, database, health) = (self.kafka.clone(), self.database.clone(), self.health.clone());
        let stop = self.running.stop.clone();
        self.task(roles::OUTBOX, async move {
            outbox::run(outbox::Settings::default(), kafka, database, &health, stop).await;
            Ok::<_, anyhow::Error>(())
        });
    }

    fn enrichment(&mut self) -> anyhow::Result<()> {
        let Some(settings) = settings::enrichment(self.config) else {
            tracing::info!(role = roles::ENRICHMENT, "enrichment.mode is off: not started");
            return Ok(());
        };
        let (kafka, database, client) = (self.kafka.clone(), self.database.clone(), self.client()?);
        let (health, stop) = (self.health.clone(), self.running.stop.clone());
        self.task(roles::ENRICHMENT, async move {
            analytics::run(settings, &kafka, database, client, &health, stop).await
        });
        Ok(())
    }

    fn lag(&mut self, name: &'static str) -> anyhow::Result<()> {
        let Some(mode) = self.config.lag.mode else {
            tracing::info!(role = name, "lag.mode is off: not started");
            return Ok(());
        };
        match name {
            roles::LAG => {
                let thresholds = settings::lag_thresholds(self.config);
                self.stage(Lag::new(mode, thresholds, settings::lag_intervals(self.config)));
            }
            roles::ANALYTICS_POLLER => self.analytics_poller()?,
            _ => self.lag_poller(),
        }
        Ok(())
    }

    fn analytics_poller(&mut self) -> anyhow::Result<()> {
        let Some(settings) = settings::analytics_poller(self.config) else {
            let role = roles::ANALYTICS_POLLER;
            tracing::info!(role, "lag.analytics_groups names no group: not started");
            return Ok(());
        };
        let (kafka, client, health) = (self.kafka.clone(), self.client()?, self.health.clone());
        let stop = self.running.stop.clone();
        self.task(roles::ANALYTICS_POLLER, async move {
            analytics_poller::run(settings, kafka, client, &health, stop).await
        });
        Ok(())
    }

    fn lag_poller(&mut self) {
        let settings = settings::lag_poller(self.config, &self.kafka);
        let (kafka, health, stop) = (self.kafka.clone(), self.health.clone(), self.running.stop.clone());
        self.task(roles::LAG_POLLER, async move { lag_poller::run(settings, kafka, &health, stop).await });
    }

    fn lag_status(&mut self) {
        let (kafka, database, health) = (self.kafka.clone(), self.database.clone(), self.health.clone());
        let stop = self.running.stop.clone();
        self.task(roles::LAG_STATUS, async move { lag_status::run(&kafka, database, &health, stop).await });
    }

    fn drift(&mut self) -> anyhow::Result<()> {
        let Some(settings) = settings::drift(self.config) else {
            tracing::info!(role = roles::DRIFT, "influx.url is not set: not started");
            return Ok(());
        };
        let (kafka, health, stop) = (self.kafka.clone(), self.health.clone(), self.running.stop.clone());
        self.task(roles::DRIFT, async move { drift::run(&kafka, settings, &health, stop).await });
        Ok(())
    }

    fn ingest(&mut self) -> anyhow::Result<()> {
        let edge = Arc::new(Edge::new(settings::ingest(self.config), &self.kafka, &self.health)?);
        self.edge = Some(edge.clone());
        let stop = self.running.stop.clone();
        self.task(roles::INGEST, async move {
            edge.run(stop).await;
            Ok::<_, anyhow::Error>(())
        });
        Ok(())
    }

    fn queue_poller(&mut self) -> anyhow::Result<()> {
        let settings = settings::queue_poller(self.config);
        if self.config.route.mode.is_none() || settings.queues.is_empty() {
            tracing::info!(
                role = roles::QUEUE_POLLER,
                "route.mode is off or route.queues is empty: not started"
            );
            return Ok(());
        }
        let (kafka, client, health) = (self.kafka.clone(), self.client()?, self.health.clone());
        let stop = self.running.stop.clone();
        self.task(roles::QUEUE_POLLER, async move {
            queue_poller::run(settings, kafka, client, &health, stop).await
        });
        Ok(())
    }

    fn routing(&mut self) -> anyhow::Result<()> {
        let route = &self.config.route;
        let Some(mode) = route.mode else {
            tracing::info!(role = roles::ROUTING, "route.mode is off: not started");
            return Ok(());
        };
        let stop = self.running.stop.clone();
        let table = |name: &str| self.health.part(&format!("routing {name}"));
        let view = routing::Topics {
            availability: GlobalTable::open(
                &self.kafka,
                &topics::QUEUE_AVAILABILITY,
                MOST_TABLE_ENTRIES,
                table("availability"),
                &stop,
            ),
            settings: GlobalTable::open(
                &self.kafka,
                &topics::SETTINGS,
                MOST_TABLE_ENTRIES,
                table("settings"),
                &stop,
            ),
            limit: route.availability_limit,
        };
        let counters = RouteCounters::new(
            &settings::postgres(self.config),
            route.connections,
            settings::ROUTE_PATIENCE,
        )?;
        let own = settings::routing(self.config, &self.kafka.instance);
        let retention = own.retention;
        let service = routing::Service::new(own, counters, Arc::new(view), &self.health, stop.clone());
        service.follow(&self.kafka, self.health.part("routing follower"));
        let platform = if self.config.route.platform_publish { Some(self.client()?) } else { None };
        let publisher = routing::Publisher::new(self.database.clone(), platform, mode, stop.clone());
        self.routed = Some(Arc::new(Routed::new(service.clone(), publisher)));
        let (database, part) = (self.database.clone(), self.health.part("routing recorder"));
        self.task(roles::ROUTING, async move {
            tokio::join!(service.run(), routing::recorder::run(database, mode, retention, part, stop));
            Ok::<_, anyhow::Error>(())
        });
        Ok(())
    }

    async fn console(&mut self) -> anyhow::Result<()> {
        let settings = settings::console(self.config)?;
        let (database, health) = (self.database.clone(), self.health.clone());
        let intake = self.edge.clone().map(|edge| edge as Arc<dyn EventIntake>);
        let console = Console::bind(settings, database, health, self.metrics.clone(), intake).await?;
        let console = match self.routed.clone() {
            Some(routed) => console.with_routing(routed),
            None => console,
        };
        self.running.http = Some(console.address());
        let stop = self.running.stop.clone();
        self.task(roles::CONSOLE, async move {
            console.serve(stop).await;
            Ok::<_, anyhow::Error>(())
        });
        Ok(())
    }
}
