//! Decides again what is on record, by the very rules of the loops, and says what is different
//! (`docs/replay.md`). Records come in, a report comes out: no clock, no database, no file.

mod compare;
mod key;
mod numbers;
mod recording;
mod report;
mod score;
mod settings;

pub use compare::{Cause, Mismatch};
pub use numbers::{Numbers, Unusable};
pub use recording::{Header, Line, RecordingError, read_lines};
pub use report::{Figure, Report};
pub use settings::Settings;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::model::settings::DialSettings;
use key::KeyReplay;
use score::Scores;

/// A decision as it stands on its topic, and how it ended where that is known.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Recorded {
    pub decision: Box<RawValue>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
}

/// What every decision says, whatever its loop.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Common {
    pub r#loop: Loop,
    pub key: String,
    pub sequence: u64,
    pub decided_at: Timestamp,
}

/// Which decisions count.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Range {
    /// Decided at this time or later.
    pub from: Timestamp,
    /// Decided before this time.
    pub to: Timestamp,
}

impl Range {
    pub fn has(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.to
    }
}

/// What is to be different.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Change {
    /// Of rollback, lag and delivery, by the names of their rule's numbers; of route, weights by
    /// destination.
    pub numbers: Vec<(String, String)>,
    /// Of dial: stands over what was set at run time.
    pub dial: DialSettings,
    /// Of dial: the newest of these stands for what was set at run time.
    pub settings: Option<Settings>,
}

impl Change {
    /// From `key=value` texts and the name of a policy.
    ///
    /// # Errors
    /// A sentence that says what can be changed.
    pub fn of(of: Loop, set: &[(String, String)], policy: Option<&str>) -> Result<Self, Unusable> {
        numbers::change(of, set, policy)
    }

    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// Differences that a report lists; all are counted.
pub const LISTED: usize = 1_000;

/// One loop over one range. Decisions come key by key, each key's in the order of their sequence.
pub struct Replay {
    of: Loop,
    range: Range,
    rules: key::Rules,
    settings: Settings,
    key: Option<KeyReplay>,
    scores: Scores,
    report: Report,
}

impl Replay {
    /// `numbers` are those that decisions may have been taken under: each is taken again with those
    /// that it names, or else with the first.
    ///
    /// # Errors
    /// When the change names what the loop does not have, and without any numbers.
    pub fn new(
        of: Loop,
        range: Range,
        numbers: Vec<Numbers>,
        change: Change,
        settings: Settings,
    ) -> Result<Self, Unusable> {
        let report = Report::new(of, range, !change.is_none());
        let rules = key::Rules::new(of, numbers, change)?;
        Ok(Self { of, range, rules, settings, key: None, scores: Scores::new(of), report })
    }

    /// One decision more. Those before the range are gone by, so that what is remembered is known.
    ///
    /// # Errors
    /// When the record is no decision of this loop.
    pub fn take(&mut self, recorded: &Recorded) -> Result<(), serde_json::Error> {
        let common: Common = serde_json::from_str(recorded.decision.get())?;
        if common.r#loop != self.of {
            return Ok(());
        }
        let key = match self.key.take().filter(|key| key.is(&common.key)) {
            Some(key) => key,
            None => KeyReplay::new(&common.key, &self.rules),
        };
        let key = self.key.insert(key);
        let compared = key.take(recorded.decision.get(), &self.rules, &self.settings)?;
        if self.range.has(common.decided_at) {
            self.scores.add(&common, &compared);
            self.report.add(&common, compared, recorded.outcome.as_deref());
        }
        Ok(())
    }

    /// What came of it.
    pub fn report(self) -> Report {
        let mut report = self.report;
        report.score = self.scores.figures();
        report.actions.sort_by_key(|counted| std::cmp::Reverse(counted.decisions));
        report
    }
}

#[cfg(test)]
mod tests;
