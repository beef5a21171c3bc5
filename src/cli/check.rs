//! `trunkline check`: every connection at once, each problem with its remedy.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::ConfigFile;
use crate::config::{self, Config, Needs, Source};
use crate::genesys::{BucketShape, Client, InProcessPermits, Priority, Scope};
use crate::health::Health;
use crate::postgres::Database;
use crate::runtime::admin::{self, Standing};
use crate::topology::{Instance, settings};

/// The longest that any one connection is waited for.
const PATIENCE: Duration = Duration::from_secs(15);

#[derive(Debug, clap::Args)]
pub struct Arguments {
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
}

impl Finding {
    fn good(what: impl Into<String>) -> Self {
        Self { what: what.into(), problem: None }
    }

    fn bad(what: impl ToString, problem: impl ToString) -> Self {
        Self { what: what.to_string(), problem: Some(problem.to_string()) }
    }
}

impl Arguments {
    pub async fn run(self) -> anyhow::Result<ExitCode> {
        let findings = match config::load(&Source::process(self.config.config.clone()), Needs::Everything) {
            Err(problems) => {
                problems.0.iter().map(|problem| Finding::bad("configuration", problem)).collect()
            }
            Ok(config) => {
                let (kafka, postgres, platform) =
                    tokio::join!(kafka(&config), postgres(&config), platform(&config));
                let mut findings = vec![Finding::good("configuration")];
                findings.extend(kafka);
                findings.extend(postgres);
                findings.extend(platform);
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
                .map(|finding| json!({"what": finding.what, "ok": finding.problem.is_none(), "problem": finding.problem}))
                .collect();
            return writeln!(out, "{}", json!({"findings": items}));
        }
        for finding in findings {
            match &finding.problem {
                None => writeln!(out, "ok       {}", finding.what)?,
                Some(problem) => writeln!(out, "PROBLEM  {}: {problem}", finding.what)?,
            }
        }
        Ok(())
    }
}

async fn kafka(config: &Config) -> Vec<Finding> {
    let instance = match Instance::claim(config.instance.as_deref(), &config.kafka.topic_prefix) {
        Ok(instance) => instance,
        Err(error) => return vec![Finding::bad("instance name", error)],
    };
    let kafka = settings::kafka(config, &instance);
    let brokers = format!("Kafka at {}", config.kafka.brokers);
    let topics = match admin::list(&kafka, &settings::topics(config), crate::topics::ALL).await {
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
    vec![match database.verify().await {
        Ok(()) => Finding::good("Postgres and its migrations"),
        Err(error) => Finding::bad("Postgres", error),
    }]
}

/// Takes its few permits from a budget of its own: a check must work while the database does not.
async fn platform(config: &Config) -> Vec<Finding> {
    let genesys = settings::genesys(config);
    let name = format!("Genesys Cloud at {}", genesys.base_url);
    let permits = InProcessPermits::new(BucketShape::new(genesys.requests_per_minute, genesys.budget_window));
    let client = match Client::new(&genesys, Arc::new(permits), &Health::default()) {
        Ok(client) => client,
        Err(error) => return vec![Finding::bad(name, error)],
    };
    let scope = Scope {
        priority: Priority::Read,
        deadline: tokio::time::Instant::now() + PATIENCE,
        cancelled: CancellationToken::new(),
    };
    if let Err(error) = client.authenticate(&scope).await {
        let remedy = "check genesys.base_url, genesys.login_url, genesys.client_id and genesys.client_secret";
        return vec![Finding::bad(format!("{name}: token"), format!("{error}; {remedy}"))];
    }
    let mut findings = vec![Finding::good(format!("{name}: token"))];
    for campaign in &config.dial.campaigns {
        let what = format!("campaign {campaign}");
        findings.push(match client.campaign(campaign, &scope).await {
            Ok(_) => Finding::good(what),
            Err(error) => Finding::bad(what, error),
        });
    }
    findings
}
