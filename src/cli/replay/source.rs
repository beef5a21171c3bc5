//! Where the record is read: the audit in Postgres, page by page, or a recording.

use std::fs::File;
use std::io::{BufReader, IsTerminal as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use flate2::read::MultiGzDecoder;
use serde::Deserialize as _;
use serde_json::value::RawValue;

use crate::model::decision::Loop;
use crate::postgres::Database;
use crate::postgres::ledger::{LedgerEntry, Place};
use crate::replay::{Header, Line, Numbers, Range, Recorded, Settings, read_lines};

/// Decisions read at once.
const PAGE: u32 = 1_000;
/// Changes of settings that are looked through.
const SETTINGS_LIMIT: u32 = 100_000;
/// Configurations that are looked through.
const NUMBERS_LIMIT: u32 = 1_000;
/// Decisions between two lines of progress.
const PROGRESS: u64 = 20_000;

/// See the module.
pub(in crate::cli) enum Source {
    Ledger(Box<Ledger>),
    File { path: PathBuf, header: Header },
}

/// The audit, and the configuration's numbers.
pub(in crate::cli) struct Ledger {
    database: Database,
    /// Those of the configuration here first, then those that were noted.
    pub numbers: Vec<Numbers>,
}

/// A recording, read line by line.
fn lines(
    path: &Path,
) -> anyhow::Result<(Header, impl Iterator<Item = Result<Line, crate::replay::RecordingError>>)> {
    let file = File::open(path)?;
    Ok(read_lines(BufReader::new(MultiGzDecoder::new(BufReader::new(file))))?)
}

impl Source {
    pub(super) fn file(path: &Path) -> anyhow::Result<Self> {
        let (header, _) = lines(path)?;
        Ok(Source::File { path: path.to_owned(), header })
    }

    /// What it holds, where it says.
    pub(in crate::cli) fn range(&self) -> Option<Range> {
        match self {
            Source::Ledger(_) => None,
            Source::File { header, .. } => Some(Range { from: header.from, to: header.to }),
        }
    }

    /// The numbers that decisions were taken under, as far as it knows.
    pub(super) fn numbers(&self) -> Vec<Numbers> {
        match self {
            Source::Ledger(ledger) => ledger.numbers.clone(),
            Source::File { header, .. } => header.numbers.clone(),
        }
    }

    pub(super) async fn settings(&self) -> anyhow::Result<Settings> {
        match self {
            Source::Ledger(ledger) => ledger.settings().await,
            Source::File { path, .. } => {
                let mut changes = Vec::new();
                for line in lines(path)?.1 {
                    match line? {
                        Line::Setting(setting) => changes.push(setting),
                        // They come before all decisions.
                        Line::Decision(_) => break,
                    }
                }
                Ok(Settings::of(changes))
            }
        }
    }

    /// Hands decisions on, key by key, each key's in the order of their sequence, beginning early
    /// enough for what the loop remembers.
    pub(super) async fn each(
        &mut self,
        of: Loop,
        range: Range,
        key: Option<&str>,
        mut take: impl FnMut(&Recorded) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        match self {
            Source::Ledger(ledger) => ledger.each(of, range, key, take).await,
            Source::File { path, .. } => {
                for line in lines(path)?.1 {
                    let Line::Decision(recorded) = line? else { continue };
                    let common: crate::replay::Common = serde_json::from_str(recorded.decision.get())?;
                    let is_meant = key.is_none_or(|key| key == common.key);
                    if common.r#loop == of && is_meant && common.decided_at < range.to {
                        take(&recorded)?;
                    }
                }
                Ok(())
            }
        }
    }
}

impl Ledger {
    /// `own`: the numbers of the configuration here.
    pub(in crate::cli) async fn new(database: Database, own: Numbers) -> anyhow::Result<Self> {
        let noted = database.rule_numbers(NUMBERS_LIMIT).await?;
        // Those of another release may have another form.
        let noted = noted.into_iter().filter_map(|numbers| Numbers::deserialize(numbers).ok());
        let numbers = std::iter::once(own).chain(noted).collect();
        Ok(Self { database, numbers })
    }

    pub(in crate::cli) async fn settings(&self) -> anyhow::Result<Settings> {
        Ok(Settings::of(self.database.settings_history(None, SETTINGS_LIMIT).await?))
    }

    pub(in crate::cli) async fn each(
        &self,
        of: Loop,
        range: Range,
        key: Option<&str>,
        mut take: impl FnMut(&Recorded) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let mut count = 0;
        let mut keys: Vec<String> = key.map(str::to_owned).into_iter().collect();
        let mut after: Option<String> = None;
        loop {
            if key.is_none() {
                let times = [range.from, range.to];
                keys = self.database.keys_decided(of, times, after.as_deref(), PAGE).await?;
                after = keys.last().cloned();
            }
            for key in &keys {
                self.each_of(of, range, key, &mut count, &mut take).await?;
            }
            if key.is_some() || keys.len() < PAGE as usize {
                return Ok(());
            }
        }
    }

    async fn each_of(
        &self,
        of: Loop,
        range: Range,
        key: &str,
        count: &mut u64,
        take: &mut impl FnMut(&Recorded) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let from = self.database.remembered_from(of, key, range.from).await?;
        let mut after: Option<Place> = None;
        loop {
            let page = self.database.decided(of, key, [from, range.to], after, PAGE).await?;
            after = page.last().map(Place::of);
            let is_last = page.len() < PAGE as usize;
            for entry in page {
                take(&recorded(entry)?)?;
                *count += 1;
                if count.is_multiple_of(PROGRESS) && std::io::stderr().is_terminal() {
                    eprintln!("{count} decisions of {}", of.name());
                }
            }
            if is_last {
                return Ok(());
            }
        }
    }
}

/// A row as it stands on its topic.
fn recorded(entry: LedgerEntry) -> anyhow::Result<Recorded> {
    let outcome = entry.outcome.as_ref().map(|outcome| outcome.status.clone());
    let mut value = serde_json::to_value(LedgerEntry { outcome: None, verification: None, ..entry })?;
    value.as_object_mut().context("a decision is an object")?.remove("outcome");
    Ok(Recorded { decision: RawValue::from_string(value.to_string())?, outcome })
}
