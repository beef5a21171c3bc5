//! When help is asked for: once per episode, and not again within the cooldown.

use serde::{Deserialize, Serialize};

use super::rules::Thresholds;
use crate::model::Timestamp;
use crate::model::decision::Action;
use crate::model::lag::{LagEvaluation, LagStatus};

/// From the first status that needs help to the first that needs none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Episode {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Help was asked for in this episode.
    #[serde(default)]
    called: bool,
    /// When help was last asked for, in this episode or one before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub called_at: Option<Timestamp>,
}

/// What an evaluation comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// Ask for this now.
    For(Action),
    /// Ask for nothing, for this reason.
    Nothing(&'static str),
}

/// What is decided of an evaluation.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Said {
    pub action: Action,
    pub reason: String,
}

impl Episode {
    /// Takes the next evaluation in: what is asked for, and why.
    pub(super) fn say(&mut self, evaluation: &LagEvaluation, thresholds: &Thresholds) -> Said {
        let LagEvaluation { observed_at, status, recommended_action, .. } = *evaluation;
        match self.next(observed_at, status, recommended_action, thresholds) {
            Call::For(action) => {
                let reason = evaluation.reasons.first().map_or("ok", |reason| &*reason.rule);
                Said { action, reason: reason.to_owned() }
            }
            Call::Nothing(why) => Said { action: Action::Hold, reason: why.to_owned() },
        }
    }

    /// The episode after a decision that recorded it.
    pub(super) fn after(since: Option<Timestamp>, called_at: Option<Timestamp>) -> Self {
        // Help is asked for within the episode, and so after it began.
        let called = since.is_some_and(|since| called_at.is_some_and(|called_at| called_at >= since));
        Self { since, called, called_at }
    }

    /// Times of a clock that was ahead, later than any may be now, count as of now.
    pub(super) fn heal(&mut self, clock: Timestamp, latest: Timestamp) {
        for time in
            [&mut self.since, &mut self.called_at].into_iter().flatten().filter(|time| **time > latest)
        {
            *time = clock;
        }
    }

    /// Takes the next evaluation in.
    fn next(
        &mut self,
        at: Timestamp,
        status: LagStatus,
        recommended: Action,
        thresholds: &Thresholds,
    ) -> Call {
        match status {
            LagStatus::DataLoss
            | LagStatus::BeyondEnd
            | LagStatus::Abandoned
            | LagStatus::Stopped
            | LagStatus::Stalled
            | LagStatus::Rewind
            | LagStatus::Error
            | LagStatus::MissingGroup => {
                self.since.get_or_insert(at);
            }
            // A warning neither begins an episode nor ends one, and we know no better when
            // our own poll failed.
            LagStatus::Warning => return Call::Nothing("warning_only"),
            LagStatus::Unknown => return Call::Nothing("nothing_known"),
            LagStatus::Uncommitted | LagStatus::Ok => {
                self.since = None;
                self.called = false;
                return Call::Nothing("no_need");
            }
        }
        if self.called {
            return Call::Nothing("called_already");
        }
        if recommended == Action::Hold {
            return Call::Nothing("nothing_would_help_yet");
        }
        let cooldown = i64::try_from(thresholds.cooldown_ms).unwrap_or(i64::MAX);
        if self.called_at.is_some_and(|called_at| at.millis_since(called_at) < cooldown) {
            return Call::Nothing("cooldown");
        }
        self.called = true;
        self.called_at = Some(at);
        Call::For(recommended)
    }
}
