//! `trunkline replay record`: a file that has what it takes to take decisions again, for bug
//! reports and tests.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, ensure};
use flate2::Compression;
use flate2::write::GzEncoder;

use super::source::Ledger;
use super::{ConfigFile, moment, range};
use crate::config::Needs;
use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::model::settings::{DIAL, DIAL_CAMPAIGN, Setting};
use crate::replay::{Header, Line};
use crate::topology::settings::numbers;

/// Changes of settings that are looked through.
const SETTINGS_LIMIT: u32 = 100_000;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Decided at this time or later: RFC 3339, or so long ago, such as 2h
    #[arg(long, value_name = "TIME", value_parser = moment)]
    from: Timestamp,
    /// Decided before this time; without it up to now
    #[arg(long, value_name = "TIME", value_parser = moment)]
    to: Option<Timestamp>,
    /// The loops that are recorded; without it all
    #[arg(long, value_name = "LOOP,…", value_delimiter = ',', value_parser = named)]
    loops: Vec<Loop>,
    /// The file: lines of JSON, compressed with gzip
    #[arg(long, value_name = "FILE")]
    output: PathBuf,
    /// Decisions that it may hold at most
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..=100_000_000))]
    limit: u64,
    #[command(flatten)]
    config: ConfigFile,
}

fn named(name: &str) -> Result<Loop, String> {
    let found = Loop::ALL.into_iter().find(|of| of.name() == name);
    found.ok_or_else(|| format!("one of {}", Loop::ALL.map(Loop::name).join(", ")))
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let range = range(self.from, self.to)?;
        let config = self.config.load(Needs::Postgres)?;
        let database = crate::cli::start::database(&config).await?;
        let history = database.settings_history(None, SETTINGS_LIMIT).await?;
        let ledger = Ledger::new(database, numbers(&config)).await?;
        let path = self.output.display();
        let file = File::create(&self.output).with_context(|| format!("{path} cannot be written"))?;
        let mut out = BufWriter::new(GzEncoder::new(file, Compression::best()));
        let header = Header::new(env!("CARGO_PKG_VERSION"), range.from, range.to, ledger.numbers.clone());
        line(&mut out, &header)?;
        for change in history.into_iter().rev().filter(|change| is_of_dial(&change.scope)) {
            // Nobody needs to know who it was.
            line(&mut out, &Line::Setting(Setting { who: "".into(), ..change }))?;
        }
        let mut count: u64 = 0;
        let loops = if self.loops.is_empty() { Loop::ALL.to_vec() } else { self.loops.clone() };
        for of in loops {
            let each = ledger.each(of, range, None, |recorded| {
                count += 1;
                ensure!(count <= self.limit, "there are more than {} decisions: raise --limit", self.limit);
                line(&mut out, &Line::Decision(recorded.clone()))
            });
            each.await?;
        }
        out.into_inner().map_err(std::io::IntoInnerError::into_error)?.finish()?.sync_all()?;
        eprintln!("{count} decisions in {path}");
        Ok(ExitCode::SUCCESS)
    }
}

fn is_of_dial(scope: &str) -> bool {
    scope == DIAL || scope.starts_with(DIAL_CAMPAIGN)
}

fn line(out: &mut impl Write, value: &impl serde::Serialize) -> anyhow::Result<()> {
    serde_json::to_writer(&mut *out, value)?;
    Ok(out.write_all(b"\n")?)
}
