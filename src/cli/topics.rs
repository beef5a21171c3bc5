//! `trunkline topics list|apply`.

use std::io::Write;
use std::process::ExitCode;

use clap::Subcommand;
use serde_json::json;

use super::ConfigFile;
use crate::config::Needs;
use crate::kafka::admin::{self, Standing, TopicReport};
use crate::topics;
use crate::topology::{Instance, settings};

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// The declared topics and how the brokers have them; exit 1 when one is missing or differs
    List(Options),
    /// Creates what is missing and reports what differs; changes and deletes nothing
    Apply(Options),
}

#[derive(Debug, clap::Args)]
struct Options {
    #[command(flatten)]
    config: ConfigFile,
    #[arg(long)]
    json: bool,
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (options, apply) = match self.action {
            Action::List(options) => (options, false),
            Action::Apply(options) => (options, true),
        };
        let config = options.config.load(Needs::Kafka)?;
        let instance = Instance::claim(config.instance.name.as_deref(), config.topic_prefix())?;
        let kafka = settings::kafka(&config, &instance);
        let wanted = settings::topics(&config);
        let reports = if apply {
            admin::apply(&kafka, &wanted, topics::ALL).await?
        } else {
            admin::list(&kafka, &wanted, topics::ALL).await?
        };
        print(&reports, options.json)?;
        Ok(if reports.iter().all(as_declared) { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }
}

fn as_declared(report: &TopicReport) -> bool {
    match &report.standing {
        Standing::Missing => false,
        Standing::Created => true,
        Standing::Present { drift, .. } => drift.is_empty(),
    }
}

fn print(reports: &[TopicReport], as_json: bool) -> std::io::Result<()> {
    let mut out = std::io::stdout().lock();
    if as_json {
        let items: Vec<_> = reports.iter().map(item).collect();
        return writeln!(out, "{}", json!({"topics": items}));
    }
    for report in reports {
        match &report.standing {
            Standing::Missing => writeln!(out, "missing  {}", report.name)?,
            Standing::Created => writeln!(out, "created  {}", report.name)?,
            Standing::Present { drift, .. } if drift.is_empty() => writeln!(out, "ok       {}", report.name)?,
            Standing::Present { drift, .. } => {
                writeln!(out, "differs  {}", report.name)?;
                for drift in drift {
                    writeln!(
                        out,
                        "         {}: {}, declared as {}",
                        drift.property, drift.found, drift.declared
                    )?;
                }
            }
        }
    }
    Ok(())
}

fn item(report: &TopicReport) -> serde_json::Value {
    let (standing, drift) = match &report.standing {
        Standing::Missing => ("missing", &[][..]),
        Standing::Created => ("created", &[][..]),
        Standing::Present { drift, .. } if drift.is_empty() => ("ok", &[][..]),
        Standing::Present { drift, .. } => ("differs", drift.as_slice()),
    };
    let drift: Vec<_> = drift
        .iter()
        .map(|drift| json!({"property": drift.property, "declared": drift.declared, "found": drift.found}))
        .collect();
    json!({"name": report.name, "standing": standing, "drift": drift})
}
