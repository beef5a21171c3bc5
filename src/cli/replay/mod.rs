//! `trunkline replay`: decides again what is on record (`docs/replay.md`).

mod dial;
mod record;
mod source;
mod table;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use super::ConfigFile;
use crate::clock;
use crate::config::Needs;
use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::replay::{Change, Range, Replay, Report};
use crate::topology::settings::numbers;
pub(super) use dial::observed;
pub(super) use source::{Ledger, Source};
pub(super) use table::dry_run;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Dial rates. What another policy or other numbers would have come to is the simulator's model
    Dial(Decided),
    /// Rollbacks of flow versions, by the evidence that was recorded
    Rollback(Decided),
    /// How consumer groups were, and when help was asked for
    Lag(Decided),
    /// Where conversations went; --set DESTINATION=WEIGHT asks for other weights
    Route(Decided),
    /// Steps and ends of canaries
    Delivery(Decided),
    /// Writes decisions with all that it takes to take them again into one file
    Record(record::Arguments),
}

/// Which decisions are taken again, and under what.
#[derive(Debug, clap::Args)]
struct Decided {
    /// Decided at this time or later: RFC 3339, or so long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment, required_unless_present = "recording")]
    from: Option<Timestamp>,
    /// Decided before this time; without it up to now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// One campaign, flow, group or configuration; without it all
    #[arg(long)]
    key: Option<String>,
    /// A number of the rule that is to be another one; may be given more than once
    #[arg(long, value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
    /// Another policy of the loop
    #[arg(long)]
    policy: Option<String>,
    /// Read a recording instead of the audit
    #[arg(long, value_name = "FILE")]
    recording: Option<PathBuf>,
    /// For programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

/// A time, or how long ago it was.
pub(super) fn moment(text: &str) -> Result<Timestamp, String> {
    if let Ok(at) = text.parse() {
        return Ok(at);
    }
    super::duration(text)
        .map(|ago| clock::now().minus(ago))
        .map_err(|_| "a time such as 2026-01-02T08:00:00Z, or how long ago, such as 2h".to_owned())
}

fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.is_empty() && !value.is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("KEY=VALUE, such as threshold=0.03".to_owned()),
    }
}

/// Longest range of one replay.
const LONGEST: Duration = Duration::from_secs(400 * 86_400);

pub(super) fn range(from: Timestamp, to: Option<Timestamp>) -> anyhow::Result<Range> {
    let to = to.unwrap_or_else(clock::now);
    ensure!(from < to, "--from {from} is not before --to {to}");
    ensure!(to <= from.plus(LONGEST), "--from and --to are more than 400 days apart");
    Ok(Range { from, to })
}

/// A recording, or the audit of the configuration's database.
pub(super) async fn source(recording: Option<&Path>, config: &ConfigFile) -> anyhow::Result<Source> {
    if let Some(path) = recording {
        return Source::file(path).with_context(|| format!("recording {}", path.display()));
    }
    let config = config.load(Needs::Postgres)?;
    let database = super::start::database(&config).await?;
    Ok(Source::Ledger(Box::new(Ledger::new(database, numbers(&config)).await?)))
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let (of, decided) = match self.what {
            What::Dial(decided) => (Loop::Dial, decided),
            What::Rollback(decided) => (Loop::Rollback, decided),
            What::Lag(decided) => (Loop::Lag, decided),
            What::Route(decided) => (Loop::Route, decided),
            What::Delivery(decided) => (Loop::Delivery, decided),
            What::Record(arguments) => return arguments.run().await,
        };
        decided.run(of).await
    }
}

impl Decided {
    async fn run(self, of: Loop) -> anyhow::Result<ExitCode> {
        let change = Change::of(of, &self.set, self.policy.as_deref())?;
        let is_changed = !change.is_none();
        let dial = change.dial;
        let mut source = source(self.recording.as_deref(), &self.config).await?;
        let range = match (self.from, source.range()) {
            (None, Some(recorded)) => recorded,
            (Some(from), Some(recorded)) => range(from, Some(self.to.unwrap_or(recorded.to)))?,
            (Some(from), None) => range(from, self.to)?,
            (None, None) => bail!("--from is needed"),
        };
        let settings = source.settings().await?;
        let mut replay = Replay::new(of, range, source.numbers(), change, settings)?;
        source.each(of, range, self.key.as_deref(), |recorded| Ok(replay.take(recorded)?)).await?;
        let report = replay.report();
        if report.decisions == 0 {
            eprintln!(
                "trunkline: no decision of {} is on record from {} to {}",
                of.name(),
                range.from,
                range.to
            );
        }
        let modelled = match of {
            Loop::Dial if is_changed => {
                dial::modelled(&mut source, range, self.key.as_deref(), &dial).await?
            }
            _ => Vec::new(),
        };
        self.print(&report, &modelled)?;
        let is_as_it_was = is_changed || report.is_identical();
        Ok(if is_as_it_was { ExitCode::SUCCESS } else { ExitCode::FAILURE })
    }

    fn print(&self, report: &Report, modelled: &[dial::Modelled]) -> anyhow::Result<()> {
        if self.json {
            let mut answer = serde_json::to_value(report)?;
            if !modelled.is_empty() {
                answer["modelBased"] = serde_json::to_value(modelled)?;
            }
            return super::print_json(&answer);
        }
        let mut text = table::text(report);
        if !modelled.is_empty() {
            text.push_str(&dial::text(modelled));
        }
        Ok(write!(std::io::stdout(), "{text}")?)
    }
}
