//! Told before the cap is reached.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Figure, FigureKind, Window, WindowKind};
use crate::model::Timestamp;

/// When people are warned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct WarningRule {
    /// Share of the cap that is enough, 0–1.
    pub cap_share: f64,
    /// With fewer answers a rate says too little.
    pub min_answers: u64,
}

impl WarningRule {
    /// Whether the live-answer rate of an open window is near its cap. No rule counts by hours,
    /// and the life of a campaign is its periods.
    pub fn applies(&self, window: WindowKind, figure: &Figure, cap: f64) -> bool {
        let (Some(rate), Some(abandoned), Some(answered)) =
            (figure.rate, figure.numerator, figure.denominator)
        else {
            return false;
        };
        figure.kind == FigureKind::LiveAnswer
            && !matches!(window, WindowKind::Hour | WindowKind::Life)
            && answered >= self.min_answers as f64
            && abandoned > 0.0
            && rate >= cap * self.cap_share
    }
}

/// A campaign whose abandonment nears its cap; told once for each of its windows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ComplianceWarning {
    pub campaign_id: String,
    pub window: WindowKind,
    /// The window; one that rolls is told once per local day.
    pub window_start: Timestamp,
    pub window_end: Timestamp,
    /// The local day it is filed under.
    #[schemars(extend("format" = "date"))]
    pub day: String,
    /// When it came to this.
    pub observed_at: Timestamp,
    /// Calls answered by a person, so far.
    pub answered: u64,
    /// Of them those no agent was there for in time.
    pub abandoned: u64,
    /// `abandoned` ÷ `answered`, a fraction.
    pub abandonment_rate: f64,
    /// Greatest rate that is allowed, a fraction.
    pub cap: f64,
    /// The cap is passed already.
    pub over_cap: bool,
    /// `calls` or `counters`.
    pub source: String,
}

impl ComplianceWarning {
    /// `None` where the figure has no rate.
    pub fn new(campaign_id: &str, window: &Window, at: Timestamp, figure: &Figure, cap: f64) -> Option<Self> {
        Some(Self {
            campaign_id: campaign_id.to_owned(),
            window: window.kind,
            window_start: window.start,
            window_end: window.end,
            day: window.day.to_string(),
            observed_at: at,
            answered: figure.denominator? as u64,
            abandoned: figure.numerator? as u64,
            abandonment_rate: figure.rate?,
            cap,
            over_cap: figure.over_cap?,
            source: figure.source.clone(),
        })
    }

    /// What there is one warning per.
    pub fn identity(&self) -> String {
        match self.window {
            // They have a new beginning with every look.
            WindowKind::Rolling24h | WindowKind::Life => {
                format!("compliance/{}/{}/{}", self.campaign_id, self.window, self.day)
            }
            _ => format!("compliance/{}/{}/{}", self.campaign_id, self.window, self.window_start),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Counters, Denominator, Tally, Terms, figures};
    use super::*;

    const RULE: WarningRule = WarningRule { cap_share: 0.8, min_answers: 50 };

    fn live(abandoned: u64, answered: u64) -> Figure {
        let tally = Tally { abandoned, passed_to_agent: answered - abandoned, ..Tally::default() };
        let terms = Terms { cap: 0.03, denominator: Denominator::CallsThatReachedQueue, estimates: None };
        figures(&tally, &Counters::default(), &terms).remove(0)
    }

    #[test]
    fn people_are_warned_before_the_cap_and_not_by_a_handful_of_calls() {
        for (abandoned, answered, warned) in [
            (24, 1_000, true),
            (23, 1_000, false),
            (2, 49, false),
            (2, 50, true),
            (0, 5_000, false),
            (40, 1_000, true),
        ] {
            let figure = live(abandoned, answered);
            assert_eq!(RULE.applies(WindowKind::Day, &figure, 0.03), warned, "{abandoned}/{answered}");
            assert!(!RULE.applies(WindowKind::Hour, &figure, 0.03));
        }
        assert!(RULE.applies(WindowKind::Day, &live(1, 50), 0.0), "a cap of nothing");
        assert!(!RULE.applies(WindowKind::Day, &live(0, 50), 0.0));
    }
}
