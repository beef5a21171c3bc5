//! Starts the roles of one instance and waits for their end.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::allowances::{Follower, UsedUp};
use super::instance::Instance;
use super::names;
use super::noted_numbers::NotedNumbers;
use super::pauses;
use super::roles::{WIRED, roles};
use super::routed::Routed;
use super::settings;
use super::settings_table::SettingsTable;
use super::shared_budget::SharedBudget;
use crate::config::Config;
use crate::console::{self, Metrics, SettingsReview};
use crate::genesys::{self, Client};
use crate::health::Health;
use crate::kafka::global_consumer::GlobalConsumer;
use crate::kafka::settings::KafkaSettings;
use crate::model::pause::Pauses;
use crate::pipeline::PartitionStage;
use crate::postgres::Database;
use crate::role::Role;
use crate::runtime::{StageHandle, run_stage};
use crate::sources::Names;
use crate::sources::events::{self, Edge};

/// Every role ends within this; what is cut off then is taken up by the next start.
const SHUTDOWN_LIMIT: Duration = Duration::from_secs(9);

/// The roles of this process at work.
pub struct Running {
    tasks: JoinSet<(&'static str, anyhow::Result<()>)>,
    stages: Vec<StageHandle>,
    http: Option<SocketAddr>,
    health: Health,
    stop: CancellationToken,
}

impl Running {
    pub(super) fn serves_at(&mut self, address: SocketAddr) {
        self.http = Some(address);
    }

    /// Where HTTP is served, if this instance has that role.
    pub fn http_address(&self) -> Option<SocketAddr> {
        self.http
    }

    /// How its parts are.
    pub fn health(&self) -> &Health {
        &self.health
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

/// Starts `names`, which are names of [`roles`]; `review` is asked before settings are changed.
/// Brokers, database and platform need not be there: roles wait for them, and readiness says so.
///
/// # Errors
/// When settings cannot be used or the HTTP address is taken.
pub fn start(
    config: &Config,
    instance: &Instance,
    names: &[&str],
    review: Arc<dyn SettingsReview>,
    shutdown: &CancellationToken,
) -> anyhow::Result<Running> {
    let unknown = names.iter().find(|name| roles().all(|role| role.name != **name));
    if let Some(unknown) = unknown {
        bail!("no role is called {unknown}");
    }
    // First of all: what is counted before there is a recorder is counted nowhere.
    let metrics = Metrics::install()?;
    let (ingest, console) = (events::ROLE.name, console::ROLE.name);
    if names.contains(&ingest) && !names.contains(&console) {
        bail!("role {ingest} answers on the listener of role {console}: name both");
    }
    let stop = shutdown.child_token();
    let database = Database::connect(&settings::postgres(config))?;
    let health = Health::default();
    let (platform, others) = (settings::genesys(config), settings::further_organizations(config));
    let follower = Follower::new(config, std::iter::once(&platform).chain(&others), database.clone());
    let kafka = settings::kafka(config, instance);
    let mut starting = Starting {
        config,
        roles: names,
        global: GlobalConsumer::new(&kafka, &stop),
        kafka,
        platform,
        others,
        used_up: follower.used_up.clone(),
        client: None,
        edge: None,
        routed: None,
        pauses: None,
        names: None,
        review,
        settings_table: None,
        running: Running {
            tasks: JoinSet::new(),
            stages: Vec::new(),
            http: None,
            health: health.clone(),
            stop,
        },
        database,
        health,
        metrics,
    };
    starting.watch_database();
    starting.follow_allowances(follower);
    starting.note_numbers();
    for (role, start) in WIRED.iter().filter(|(role, _)| names.contains(&role.name)) {
        start(&mut starting).with_context(|| format!("role {} cannot start", role.name))?;
    }
    Ok(starting.running)
}

/// What the roles of an instance are started with.
pub(super) struct Starting<'c> {
    pub config: &'c Config,
    /// Names of those that are started.
    roles: &'c [&'c str],
    pub kafka: KafkaSettings,
    database: Database,
    /// Whom they call as whom: the first organisation, and all others.
    pub platform: genesys::Settings,
    pub others: Vec<genesys::Settings>,
    /// Campaigns without call attempts left in this month.
    pub used_up: UsedUp,
    /// One for all roles that call the platform.
    client: Option<Client>,
    /// Takes events in behind the console's route.
    pub edge: Option<Arc<Edge>>,
    pub routed: Option<Arc<Routed>>,
    /// Which loops are stopped: one table for all that heed it.
    pauses: Option<watch::Receiver<Pauses>>,
    /// Where what the platform calls things is kept for people.
    names: Option<Names>,
    /// Follows what is read whole, for all roles.
    pub global: GlobalConsumer,
    settings_table: Option<SettingsTable>,
    health: Health,
    pub review: Arc<dyn SettingsReview>,
    pub metrics: Metrics,
    pub running: Running,
}

/// Its own handles for one role.
pub(super) struct Shared {
    pub kafka: KafkaSettings,
    pub database: Database,
    pub health: Health,
    pub stop: CancellationToken,
}

impl Starting<'_> {
    /// The work of a role, until the process stops.
    pub(super) fn task<E>(
        &mut self,
        role: &'static Role,
        work: impl Future<Output = Result<(), E>> + Send + 'static,
    ) -> anyhow::Result<()>
    where
        E: Into<anyhow::Error>,
    {
        self.running.tasks.spawn(async move { (role.name, work.await.map_err(Into::into)) });
        Ok(())
    }

    fn watch_database(&mut self) {
        let (database, part) = (self.database.clone(), self.health.part("postgres"));
        let stop = self.running.stop.clone();
        self.running.tasks.spawn(async move {
            database.watch(part, stop).await;
            ("postgres watch", Ok(()))
        });
    }

    fn follow_allowances(&mut self, follower: Follower) {
        let stop = self.running.stop.clone();
        self.running.tasks.spawn(async move {
            follower.follow(stop).await;
            ("allowances followed", Ok(()))
        });
    }

    /// Of every organisation, the first before all others.
    pub(super) fn platforms(&self) -> impl Iterator<Item = &genesys::Settings> {
        std::iter::once(&self.platform).chain(&self.others)
    }

    fn note_numbers(&mut self) {
        let noted = NotedNumbers::new(self.config, self.database.clone());
        let stop = self.running.stop.clone();
        self.running.tasks.spawn(async move {
            noted.keep(stop).await;
            ("rule numbers noted", Ok(()))
        });
    }

    pub(super) fn client(&mut self) -> anyhow::Result<Client> {
        if let Some(client) = &self.client {
            return Ok(client.clone());
        }
        let of = |platform: &genesys::Settings| {
            let permits = Arc::new(SharedBudget::new(self.database.clone(), platform));
            Client::new(platform, permits, &self.health)
        };
        let others: Vec<Client> = self.others.iter().map(of).collect::<Result<_, _>>()?;
        let client = of(&self.platform)?.serving(others);
        self.client = Some(client.clone());
        Ok(client)
    }

    pub(super) fn pauses(&mut self) -> watch::Receiver<Pauses> {
        let settings = self.settings_table();
        let known = self.pauses.get_or_insert_with(|| pauses::follow(settings.0, &self.health));
        known.clone()
    }

    /// Where pollers hand names on: one keeper for all of them.
    pub(super) fn names(&mut self) -> Names {
        if let Some(names) = &self.names {
            return names.clone();
        }
        let (names, told) = Names::channel(names::WAITING);
        let (database, stop) = (self.database.clone(), self.running.stop.clone());
        self.running.tasks.spawn(async move {
            names::keep(database, told, stop).await;
            ("names kept", Ok(()))
        });
        self.names = Some(names.clone());
        names
    }

    /// One for all roles that look anything up in it.
    pub(super) fn settings_table(&mut self) -> SettingsTable {
        let (global, health) = (&self.global, &self.health);
        self.settings_table.get_or_insert_with(|| SettingsTable::open(global, health)).clone()
    }

    /// Whether this instance has a role.
    pub(super) fn plays(&self, role: &Role) -> bool {
        self.roles.contains(&role.name)
    }

    /// What every role is given.
    pub(super) fn shared(&self) -> Shared {
        Shared {
            kafka: self.kafka.clone(),
            database: self.database.clone(),
            health: self.health.clone(),
            stop: self.running.stop.clone(),
        }
    }

    pub(super) fn stage(&mut self, stage: impl PartitionStage) -> anyhow::Result<()> {
        let part = self.health.part(stage.declaration().name);
        let (settings, stop) = (settings::stage(self.config), self.running.stop.clone());
        self.running.stages.push(run_stage(stage, &self.kafka, &settings, part, stop));
        Ok(())
    }
}
