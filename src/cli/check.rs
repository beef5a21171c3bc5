//! `trunkline check`: every connection at once, each problem with its remedy.

mod attempts;
mod organization;

use std::io::Write;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use crate::config::{self, Config, Needs};
use crate::genesys::{self, BucketShape, CallError, Client, InProcessPermits, Priority, Scope};
use crate::health::Health;
use crate::kafka::admin::{self, AdminError, Standing};
use crate::kafka::settings::KafkaSettings;
use crate::postgres::Database;
use crate::sinks::{alerts, drift};
use crate::topology::{Instance, settings};

/// The longest that any one connection is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    #[arg(long)]
    json: bool,
}

/// One thing that was looked at.
struct Finding {
    what: String,
    /// What is wrong and what to do; none when it is as it should be.
    problem: Option<String>,
    /// What is no problem and good to know.
    note: Option<String>,
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { what: what.into(), problem: None, note: None }
    }

    fn bad(what: impl ToString, problem: impl ToString) -> Self {
        Self { what: what.to_string(), problem: Some(problem.to_string()), note: None }
    }

    fn note(what: impl Into<String>, note: impl Into<String>) -> Self {
        Self { what: what.into(), problem: None, note: Some(note.into()) }
    }
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let findings = match config::load(&self.config.source(), Needs::Everything) {
            Err(problems) => {
                problems.0.iter().map(|problem| Finding::bad("configuration", problem)).collect()
            }
            Ok(config) => {
                let (brokers, database, platform, points, receivers, listening) = tokio::join!(
                    kafka(&config),
                    postgres(&config),
                    platform(&config),
                    points(&config),
                    receivers(&config),
                    listening(&config)
                );
                let mut findings = vec![Finding::good("configuration")];
                for found in [brokers, database, platform, points, receivers, listening, journal(&config)] {
                    findings.extend(found);
                }
                findings
            }
        };
        self.report(&findings)?;
        let good = findings.iter().all(|finding| finding.problem.is_none());
        Ok(if good { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn report(&self, findings: &[Finding]) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if self.json {
            let items: Vec<_> = findings
                .iter()
                .map(|finding| json!({"what": finding.what, "ok": finding.problem.is_none(), "problem": finding.problem, "note": finding.note}))
                .collect();
            return writeln!(out, "{}", json!({"findings": items}));
        }
        for finding in findings {
            match (&finding.problem, &finding.note) {
                (Some(problem), _) => writeln!(out, "PROBLEM  {}: {problem}", finding.what)?,
                (None, Some(note)) => writeln!(out, "note     {}: {note}", finding.what)?,
                (None, None) => writeln!(out, "ok       {}", finding.what)?,
            }
        }
        Ok(())
    }
}

async fn kafka(config: &Config) -> Vec<Finding> {
    let instance = match Instance::claim(config.instance.name.as_deref(), config.topic_prefix()) {
        Ok(instance) => instance,
        Err(error) => return vec![Finding::bad("instance name", error)],
    };
    let kafka = settings::kafka(config, &instance);
    let (mut findings, others) = tokio::join!(own_cluster(config, &kafka), other_clusters(config, &kafka));
    findings.extend(others);
    findings
}

/// Those whose consumer groups are watched besides.
async fn other_clusters(config: &Config, kafka: &KafkaSettings) -> Vec<Finding> {
    if config.lag.mode.is_none() {
        return Vec::new();
    }
    let clusters = settings::lag_poller(config, kafka).others;
    let asked = clusters.into_iter().map(|(name, kafka, _)| async move {
        let what = format!("Kafka of lag.clusters {name} at {}", kafka.brokers);
        match admin::reach(&kafka).await {
            Ok(()) => Finding::good(what),
            Err(AdminError::Unreachable { cause, .. }) => {
                let remedy = "are its brokers and properties in lag.clusters right, and the cluster up?";
                Finding::bad(what, format!("no answer: {cause}; {remedy}"))
            }
            Err(error) => Finding::bad(what, error),
        }
    });
    in_order(asked).await
}

async fn own_cluster(config: &Config, kafka: &KafkaSettings) -> Vec<Finding> {
    let brokers = format!("Kafka at {}", config.kafka.brokers);
    let topics = match admin::list(kafka, &settings::topics(config), crate::topics::ALL).await {
        Ok(topics) => topics,
        Err(error) => return vec![Finding::bad(brokers, error)],
    };
    let mut findings = vec![Finding::good(brokers)];
    for report in topics {
        let what = format!("topic {}", report.name);
        match report.standing {
            Standing::Missing => findings.push(Finding::bad(what, "missing; run: trunkline topics apply")),
            Standing::Present { drift, .. } => findings.extend(drift.iter().map(|drift| {
                Finding::bad(
                    &what,
                    format!("{} is {}, declared as {}", drift.property, drift.found, drift.declared),
                )
            })),
            Standing::Created => {}
        }
    }
    findings
}

async fn postgres(config: &Config) -> Vec<Finding> {
    let database = match Database::connect(&settings::postgres(config)) {
        Ok(database) => database,
        Err(error) => return vec![Finding::bad("Postgres", error)],
    };
    match database.verify().await {
        Ok(()) => {
            let good = Finding::good("Postgres and its migrations");
            std::iter::once(good).chain(attempts::finding(&database, config).await).collect()
        }
        Err(error) => vec![Finding::bad("Postgres", error)],
    }
}

/// Takes its few permits from a budget of its own: a check must work while the database does not.
async fn platform(config: &Config) -> Vec<Finding> {
    let (first, others) = (settings::genesys(config), settings::further_organizations(config));
    let mut further = Vec::new();
    for organization in &others {
        match client(organization) {
            Ok(client) => further.push(client),
            Err(error) => return vec![Finding::bad(called(organization), error)],
        }
    }
    let first_client = match client(&first) {
        Ok(client) => client.serving(further),
        Err(error) => return vec![Finding::bad(called(&first), error)],
    };
    let mut findings = Vec::new();
    for platform in std::iter::once(&first).chain(&others) {
        findings.extend(of_one(config, &first_client, platform).await);
    }
    findings
}

fn client(platform: &genesys::Settings) -> Result<Client, genesys::ClientError> {
    let permits =
        InProcessPermits::new(BucketShape::new(platform.requests_per_minute, platform.budget_window));
    Client::new(platform, Arc::new(permits), &Health::default())
}

fn called(platform: &genesys::Settings) -> String {
    match &platform.organization.name {
        Some(name) => format!("Genesys Cloud of {name} at {}", platform.base_url),
        None => format!("Genesys Cloud at {}", platform.base_url),
    }
}

/// One organisation. Its own things alone are asked about, by the client that knows all.
async fn of_one(config: &Config, client: &Client, platform: &genesys::Settings) -> Vec<Finding> {
    let (name, of) = (called(platform), platform.organization.name.as_deref());
    let own = client.organizations().find(|it| it.organization().name.as_deref() == of);
    let Some(own) = own else { return Vec::new() };
    if let Err(error) = own.authenticate(&scope()).await {
        let remedy = match of {
            Some(name) => {
                format!("check its hosts, client_id and client_secret in genesys.organizations {name}")
            }
            None => "check genesys.base_url, genesys.login_url, genesys.client_id and genesys.client_secret"
                .to_owned(),
        };
        return vec![Finding::bad(format!("{name}: token"), format!("{error}; {remedy}"))];
    }
    let mut findings = vec![Finding::good(format!("{name}: token"))];
    let is_its_own = |id: &&String| config.genesys.organization_of(id) == of;
    let mut look = |what: String, key: &str, looked: Result<(), CallError>| {
        findings.push(match looked {
            Ok(()) => Finding::good(what),
            Err(error) => {
                let remedy = organization::remedy(&error)
                    .unwrap_or_else(|| format!("check {key} and what the OAuth client may read"));
                Finding::bad(what, format!("{error}; {remedy}"))
            }
        });
    };
    for campaign in config.dial.campaigns.iter().filter(is_its_own) {
        let found = client.campaign(campaign, &scope()).await.map(drop);
        look(format!("campaign {campaign}"), "dial.campaigns", found);
    }
    for flow in settings::flow_poller(config).flows.iter().filter(is_its_own) {
        let found = client.flow(flow, &scope()).await.map(drop);
        look(format!("flow {flow}"), "rollback.flows, rollback.polled_flows", found);
    }
    for queue in config.route.queues.iter().filter(is_its_own) {
        let found = client.queue_availability(queue, &scope()).await.map(drop);
        look(format!("queue {queue}"), "route.queues", found);
    }
    findings.extend(organization::findings(client, own, platform, config).await);
    findings
}

fn scope() -> Scope {
    Scope {
        priority: Priority::Read,
        deadline: tokio::time::Instant::now() + PATIENCE,
        cancelled: CancellationToken::new(),
        withdrawn: CancellationToken::new(),
        waited_ms: Arc::default(),
    }
}

/// The server that takes drift points.
async fn points(config: &Config) -> Vec<Finding> {
    let Some(drift) = settings::drift(config) else { return Vec::new() };
    let what = format!("InfluxDB at {}", drift.url);
    vec![match drift::reach(&drift).await {
        Ok(()) => Finding::good(what),
        Err(error) => {
            let remedy = "check influx.url, influx.org, influx.bucket and influx.token";
            Finding::bad(what, format!("{error}; {remedy}"))
        }
    }]
}

/// Those who are told of incidents; nothing is sent to them.
async fn receivers(config: &Config) -> Vec<Finding> {
    let alerts = settings::alerts(config);
    let private = alerts.private_receivers;
    let asked = alerts.receivers.into_iter().map(|receiver| async move {
        let what = format!("receiver {} of alerts", receiver.name);
        match alerts::reach(&receiver, private).await {
            Ok(()) => Finding::good(what),
            Err(error) => Finding::bad(what, error),
        }
    });
    in_order(asked).await
}

/// Whether HTTP can be offered there: listens for a moment.
async fn listening(config: &Config) -> Vec<Finding> {
    let address = config.http.listen;
    let what = format!("http.listen {address}");
    vec![match tokio::net::TcpListener::bind(address).await {
        Ok(_) => Finding::good(what),
        Err(error) => {
            let remedy = "end what listens there (another instance?), or choose another address or port";
            Finding::bad(what, format!("cannot be listened on: {error}; {remedy}"))
        }
    }]
}

/// Whether answers that cannot be recorded at once can be kept.
fn journal(config: &Config) -> Vec<Finding> {
    let Some(folder) = config.route.journal.as_deref().filter(|_| config.route.mode.is_some()) else {
        return Vec::new();
    };
    let what = format!("route.journal {folder}");
    // It is made where it is missing.
    let existing = Path::new(folder).ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
    let wanted = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
    vec![if existing.is_dir() && rustix::fs::access(existing, wanted).is_ok() {
        Finding::good(what)
    } else {
        let problem = format!("{} is no folder that this user may write to", existing.display());
        Finding::bad(what, format!("{problem}; choose another, or let this user write there"))
    }]
}

/// All at once, told in their order.
async fn in_order(
    asked: impl Iterator<Item = impl Future<Output = Finding> + Send + 'static>,
) -> Vec<Finding> {
    let asked: Vec<_> = asked.map(tokio::spawn).collect();
    let mut findings = Vec::with_capacity(asked.len());
    for asked in asked {
        findings.push(asked.await.unwrap_or_else(|error| Finding::bad("check", error)));
    }
    findings
}
