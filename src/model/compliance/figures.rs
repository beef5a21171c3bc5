//! The five figures of one window, each with numerator, denominator and source. What has no
//! source is not known, with the reason; it is never 0.

use serde::{Deserialize, Serialize};

use super::{Counters, Tally};

/// The figures. What each means, and by which law, stands in [`definitions`](super::definitions).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FigureKind {
    LiveAnswer,
    Platform,
    UkForm,
    MessagePlayed,
    Silent,
}

impl FigureKind {
    pub const ALL: [FigureKind; 5] = [
        FigureKind::LiveAnswer,
        FigureKind::Platform,
        FigureKind::UkForm,
        FigureKind::MessagePlayed,
        FigureKind::Silent,
    ];

    pub fn name(self) -> &'static str {
        match self {
            FigureKind::LiveAnswer => "live_answer",
            FigureKind::Platform => "platform",
            FigureKind::UkForm => "uk_form",
            FigureKind::MessagePlayed => "message_played",
            FigureKind::Silent => "silent",
        }
    }
}

/// When a figure was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Statement {
    /// The window is open, or not settled yet: the figure moves.
    SoFar,
    /// As it was known when the window was settled. Never changed.
    Known,
    /// As it was restated four days later. Never changed.
    Restated,
}

impl Statement {
    pub fn name(self) -> &'static str {
        match self {
            Statement::SoFar => "so_far",
            Statement::Known => "known",
            Statement::Restated => "restated",
        }
    }
}

/// What the platform's own figure divides by: its setting `complianceAbandonRateDenominator`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Denominator {
    CallsThatReachedQueue,
    AllCalls,
}

/// Reasoned estimates of the UK form, as shares, with where they are from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Estimates {
    /// Share of the abandoned calls that answering machines had taken, 0–1.
    pub machines_among_abandoned: f64,
    /// Share of the calls detected as machines that persons had taken, 0–1.
    pub persons_among_machines: f64,
    pub source: String,
    /// When they were made, `2026-01-31`.
    pub date: String,
}

/// What the figures are made under.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Terms {
    /// Greatest rate that is allowed, a fraction.
    pub cap: f64,
    pub denominator: Denominator,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimates: Option<Estimates>,
}

/// One figure of one window.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Figure {
    pub kind: FigureKind,
    /// `calls`, `counters` or both.
    pub source: String,
    /// Whole calls but in the UK form, where estimates are shares.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub numerator: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub denominator: Option<f64>,
    /// Numerator ÷ denominator, a fraction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<f64>,
    /// Why there is no rate.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not_known: Option<String>,
    /// Absent where there is no rate or no cap on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_cap: Option<bool>,
}

/// Answers the counters may have beyond the calls, before the calls count as incomplete: the
/// greater of a share and a number, since polls cut windows up to a minute off.
const MISSING_SHARE: f64 = 0.02;
const MISSING_CALLS: f64 = 10.0;

pub(super) const CALLS: &str = "calls";
pub(super) const COUNTERS: &str = "counters";
const NO_CALLS: &str = "no call was answered by a person in this window";

/// All figures of one window, in the order of [`FigureKind::ALL`].
pub fn figures(tally: &Tally, counters: &Counters, terms: &Terms) -> Vec<Figure> {
    vec![
        live_answer(tally, counters, terms),
        platform(tally, counters, terms),
        uk_form(tally, counters, terms),
        of_abandoned(FigureKind::MessagePlayed, tally, tally.message_in_time),
        of_abandoned(FigureKind::Silent, tally, tally.silence),
    ]
}

/// Whether the calls are all that the counters know of; without counters they are all there is.
fn calls_are_complete(tally: &Tally, counters: &Counters) -> bool {
    let Some(answers) = counters.answers else { return true };
    let missing = answers as f64 - tally.answered() as f64;
    missing <= (answers as f64 * MISSING_SHARE).max(MISSING_CALLS)
}

/// Answered calls and abandoned ones by the better source, with its name.
fn answered_and_abandoned(tally: &Tally, counters: &Counters) -> Option<(u64, u64, &'static str)> {
    let by_calls = (tally.answered(), tally.abandoned, CALLS);
    match (counters.answers, counters.abandoned) {
        (Some(answers), Some(abandoned)) if tally.calls() == 0 || !calls_are_complete(tally, counters) => {
            Some((answers, abandoned, COUNTERS))
        }
        (Some(_), _) | (None, _) if tally.calls() > 0 => Some(by_calls),
        _ => None,
    }
}

fn live_answer(tally: &Tally, counters: &Counters, terms: &Terms) -> Figure {
    let kind = FigureKind::LiveAnswer;
    match answered_and_abandoned(tally, counters) {
        None => unknown(
            kind,
            CALLS,
            "no disposition of a call is recorded and the platform's statistics count no abandoned answers",
        ),
        Some((answered, abandoned, source)) => {
            rated(kind, source, abandoned as f64, answered as f64, terms.cap, NO_CALLS)
        }
    }
}

fn platform(tally: &Tally, counters: &Counters, terms: &Terms) -> Figure {
    let kind = FigureKind::Platform;
    match terms.denominator {
        Denominator::CallsThatReachedQueue if tally.reached_queue == 0 => {
            let reason = if tally.calls() == 0 {
                "no disposition of a call is recorded"
            } else {
                "no recorded call tells when it reached the queue"
            };
            unknown(kind, CALLS, reason)
        }
        Denominator::CallsThatReachedQueue => {
            let (abandoned, reached) = (tally.abandoned_in_queue as f64, tally.reached_queue as f64);
            rated(kind, CALLS, abandoned, reached, terms.cap, NO_CALLS)
        }
        Denominator::AllCalls => match (counters.attempts, counters.abandoned) {
            (Some(attempts), Some(abandoned)) => {
                let none = "no call was placed in this window";
                rated(kind, COUNTERS, abandoned as f64, attempts as f64, terms.cap, none)
            }
            _ => unknown(
                kind,
                COUNTERS,
                "the platform's statistics do not count attempts and abandoned answers",
            ),
        },
    }
}

/// (abandoned − machines among them + persons taken for machines) ÷ (that + passed to agents).
fn uk_form(tally: &Tally, counters: &Counters, terms: &Terms) -> Figure {
    let kind = FigureKind::UkForm;
    let Some(estimates) = &terms.estimates else {
        return unknown(
            kind,
            CALLS,
            "no estimates of machines and false positives are configured; they are never taken as 0",
        );
    };
    if tally.calls() == 0 || !calls_are_complete(tally, counters) {
        return unknown(kind, CALLS, "the recorded dispositions of calls are not complete");
    }
    let persons = tally.abandoned as f64 * (1.0 - estimates.machines_among_abandoned)
        + tally.machines as f64 * estimates.persons_among_machines;
    rated(kind, CALLS, persons, persons + tally.passed_to_agent as f64, terms.cap, NO_CALLS)
}

fn of_abandoned(kind: FigureKind, tally: &Tally, part: u64) -> Figure {
    if tally.calls() == 0 {
        return unknown(kind, CALLS, "no disposition of a call is recorded");
    }
    if tally.message_not_told > 0 {
        let reason = format!(
            "what the called person heard is not told of {} of {} abandoned calls",
            tally.message_not_told, tally.abandoned
        );
        return unknown(kind, CALLS, &reason);
    }
    let none = "no call was abandoned in this window";
    let figure = rated(kind, CALLS, part as f64, tally.abandoned as f64, 1.0, none);
    Figure { over_cap: None, ..figure }
}

fn rated(kind: FigureKind, source: &str, numerator: f64, denominator: f64, cap: f64, none: &str) -> Figure {
    let rate = (denominator > 0.0).then(|| numerator / denominator);
    Figure {
        kind,
        source: source.to_owned(),
        numerator: Some(numerator),
        denominator: Some(denominator),
        rate,
        not_known: rate.is_none().then(|| none.to_owned()),
        over_cap: rate.map(|rate| rate > cap),
    }
}

fn unknown(kind: FigureKind, source: &str, reason: &str) -> Figure {
    Figure {
        kind,
        source: source.to_owned(),
        numerator: None,
        denominator: None,
        rate: None,
        not_known: Some(reason.to_owned()),
        over_cap: None,
    }
}

#[cfg(test)]
mod tests;
