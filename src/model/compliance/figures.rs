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

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether it is a share of abandoned calls, which a cap is put on.
    pub fn is_capped(self) -> bool {
        matches!(self, FigureKind::LiveAnswer | FigureKind::Platform | FigureKind::UkForm)
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

pub const CALLS: &str = "calls";
pub const COUNTERS: &str = "counters";
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
mod tests {
    use proptest::prelude::*;

    use super::super::call::tests::{answered, at};
    use super::super::{AnsweredBy, Calendar, Call, Rules};
    use super::*;

    const TERMS: Terms =
        Terms { cap: 0.03, denominator: Denominator::CallsThatReachedQueue, estimates: None };
    const NONE: Counters = Counters { attempts: None, answers: None, abandoned: None };

    fn of(kind: FigureKind, tally: &Tally, counters: &Counters, terms: &Terms) -> Figure {
        let all = figures(tally, counters, terms);
        assert_eq!(all.iter().map(|figure| figure.kind).collect::<Vec<_>>(), FigureKind::ALL);
        all.into_iter().find(|figure| figure.kind == kind).unwrap()
    }

    fn counted(attempts: u64, answers: u64, abandoned: u64) -> Counters {
        Counters { attempts: Some(attempts), answers: Some(answers), abandoned: Some(abandoned) }
    }

    #[test]
    fn three_percent_itself_is_within_the_cap() {
        for (abandoned, answered, over) in
            [(3, 100, false), (4, 100, true), (30, 1_000, false), (31, 1_000, true)]
        {
            let tally = Tally { abandoned, passed_to_agent: answered - abandoned, ..Tally::default() };
            let figure = of(FigureKind::LiveAnswer, &tally, &NONE, &TERMS);
            assert_eq!(
                (figure.over_cap, figure.source.as_str()),
                (Some(over), CALLS),
                "{abandoned}/{answered}"
            );
            assert_eq!(figure.denominator, Some(answered as f64));
        }
    }

    #[test]
    fn counters_stand_in_where_calls_are_missing() {
        let few = Tally { abandoned: 1, passed_to_agent: 49, ..Tally::default() };
        let by =
            |tally: &Tally, counters: &Counters| of(FigureKind::LiveAnswer, tally, counters, &TERMS).source;
        assert_eq!(by(&few, &counted(900, 60, 2)), CALLS, "ten answers may be on their way");
        assert_eq!(by(&few, &counted(900, 61, 2)), COUNTERS);
        assert_eq!(by(&Tally::default(), &counted(9, 3, 0)), COUNTERS);
        let half = Counters { abandoned: None, ..counted(900, 900, 0) };
        assert_eq!(by(&few, &half), CALLS, "nothing else counts what was abandoned");
    }

    #[test]
    fn what_has_no_source_is_not_known_and_says_why() {
        let nothing = figures(&Tally::default(), &NONE, &TERMS);
        for figure in &nothing {
            assert_eq!((figure.rate, figure.numerator, figure.over_cap), (None, None, None), "{figure:?}");
            assert!(figure.not_known.as_ref().is_some_and(|reason| !reason.is_empty()), "{figure:?}");
        }
        let calls =
            Tally { abandoned: 2, passed_to_agent: 98, message_not_told: 1, silence: 1, ..Tally::default() };
        let reason = |kind| of(kind, &calls, &NONE, &TERMS).not_known.unwrap();
        assert!(reason(FigureKind::Platform).contains("queue"));
        assert!(reason(FigureKind::UkForm).contains("estimates"));
        assert!(reason(FigureKind::Silent).contains("1 of 2 abandoned calls"));
        let quiet = Tally { not_answered: 5, ..Tally::default() };
        let figure = of(FigureKind::LiveAnswer, &quiet, &NONE, &TERMS);
        assert_eq!((figure.denominator, figure.rate), (Some(0.0), None), "five calls and no answer");
    }

    /// 3 % of all calls at a connect rate of .15 is 20 % of the answers.
    #[test]
    fn the_platforms_denominator_changes_what_three_percent_means() {
        let counters = counted(1_000, 150, 30);
        let all = Terms { denominator: Denominator::AllCalls, ..TERMS };
        let platform = of(FigureKind::Platform, &Tally::default(), &counters, &all);
        assert_eq!((platform.rate, platform.over_cap), (Some(0.03), Some(false)));
        let live = of(FigureKind::LiveAnswer, &Tally::default(), &counters, &all);
        assert_eq!((live.rate, live.over_cap), (Some(0.2), Some(true)));
    }

    #[test]
    fn the_uk_form_takes_machines_out_and_wrongly_detected_persons_in() {
        let estimates = Estimates {
            machines_among_abandoned: 0.25,
            persons_among_machines: 0.01,
            source: "own sample of 400 recordings".to_owned(),
            date: "2026-01-31".to_owned(),
        };
        let terms = Terms { estimates: Some(estimates), ..TERMS };
        let tally = Tally { abandoned: 8, machines: 200, passed_to_agent: 92, ..Tally::default() };
        let figure = of(FigureKind::UkForm, &tally, &NONE, &terms);
        assert_eq!((figure.numerator, figure.denominator), (Some(8.0), Some(100.0)));
        assert_eq!(figure.rate, Some(0.08));
    }

    fn any_call() -> impl Strategy<Value = Call> {
        let times = (0i64..9_000, prop::option::of(0i64..9_000), prop::option::of(0i64..9_000));
        (0u8..20, times, 0u8..4, any::<bool>()).prop_map(|(id, (answer, agent, queue), by, parts_told)| {
            Call {
                answered_at: (by != 3).then(|| at(answer)),
                agent_at: agent.map(|wait| at(answer + wait)),
                queued_at: queue.map(|wait| at(answer + wait)),
                reached_agent: agent.is_some(),
                answered_by: [
                    AnsweredBy::Person,
                    AnsweredBy::Person,
                    AnsweredBy::Machine,
                    AnsweredBy::Nobody,
                ][usize::from(by)],
                parts_told,
                ended_at: Some(at(answer + 10_000)),
                ..answered(&format!("call-{id}"))
            }
        })
    }

    proptest! {
        /// Statements come in any order and more than once.
        #[test]
        fn any_order_and_any_repetition_give_the_same_figures(
            calls in prop::collection::vec((0u32..4, any_call()), 0..60),
            order in prop::collection::vec(any::<prop::sample::Index>(), 0..80),
            greeting_allowance_ms in 0u32..=3_000,
        ) {
            let rules = Rules { greeting_allowance_ms };
            // One revision of one call says the same each time it is told.
            let mut told: Vec<(u32, Call)> = Vec::new();
            for (revision, call) in calls {
                let known = |(other, of): &(u32, Call)| *other == revision && of.conversation_id == call.conversation_id;
                if !told.iter().any(known) {
                    told.push((revision, call));
                }
            }
            let calendar = Calendar::new("UTC", at(0)).unwrap();
            let hour = calendar.hour(at(0));
            let of = |told: &[&(u32, Call)]| {
                let revisions = || told.iter().map(|(revision, call)| (*revision, rules, call));
                let tally = Tally::of(revisions(), &hour);
                assert_eq!(Tally::of(revisions(), &calendar.hour(hour.end)), Tally::default());
                (tally, figures(&tally, &NONE, &TERMS))
            };
            let mut shuffled: Vec<&(u32, Call)> =
                if told.is_empty() { Vec::new() } else { order.iter().map(|index| index.get(&told)).collect() };
            shuffled.extend(told.iter().rev());
            let straight: Vec<&(u32, Call)> = told.iter().collect();
            let (tally, figures) = of(&straight);
            prop_assert_eq!(of(&shuffled), (tally, figures.clone()));
            let ids: std::collections::BTreeSet<_> = told.iter().map(|(_, call)| &call.conversation_id).collect();
            prop_assert_eq!(tally.calls(), ids.len() as u64);
            for figure in figures {
                prop_assert!(figure.rate.is_none_or(|rate| (0.0..=1.0).contains(&rate)), "{:?}", figure);
                prop_assert_eq!(figure.rate.is_none(), figure.not_known.is_some());
            }
        }
    }
}
