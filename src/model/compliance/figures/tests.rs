//! The figures by themselves: edges of the cap, what is not known, any order of calls.

use proptest::prelude::*;

use super::super::call::tests::{answered, at};
use super::super::{AnsweredBy, Calendar, Call, Rules};
use super::*;

const TERMS: Terms = Terms { cap: 0.03, denominator: Denominator::CallsThatReachedQueue, estimates: None };
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
        assert_eq!((figure.over_cap, figure.source.as_str()), (Some(over), CALLS), "{abandoned}/{answered}");
        assert_eq!(figure.denominator, Some(answered as f64));
    }
}

#[test]
fn counters_stand_in_where_calls_are_missing() {
    let few = Tally { abandoned: 1, passed_to_agent: 49, ..Tally::default() };
    let by = |tally: &Tally, counters: &Counters| of(FigureKind::LiveAnswer, tally, counters, &TERMS).source;
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
    (0u8..20, times, 0u8..4, any::<bool>()).prop_map(|(id, (answer, agent, queue), by, parts_told)| Call {
        answered_at: (by != 3).then(|| at(answer)),
        agent_at: agent.map(|wait| at(answer + wait)),
        queued_at: queue.map(|wait| at(answer + wait)),
        reached_agent: agent.is_some(),
        answered_by: [AnsweredBy::Person, AnsweredBy::Person, AnsweredBy::Machine, AnsweredBy::Nobody]
            [usize::from(by)],
        parts_told,
        ended_at: Some(at(answer + 10_000)),
        ..answered(&format!("call-{id}"))
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
