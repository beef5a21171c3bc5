//! Calls, answers and abandoned answers since the poll before: from the statistics where they
//! count them, else from conversation events.

use serde::{Deserialize, Serialize};

use crate::model::call_counts::{CallCounts, CountSource, CountSources};
use crate::model::campaign::Reading;

/// Of what events and statistics say about delivered calls this much is kept from poll to poll.
const KEPT: f64 = 0.9;
/// Events that tell of fewer than this share of the delivered calls, but for a few, do not tell
/// all: nothing is known of the abandoned ones.
const LEAST_SHARE: f64 = 0.8;
const FEW_CALLS: f64 = 3.0;

/// Each as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counted {
    pub attempted: Option<u64>,
    pub answered: Option<u64>,
    pub abandoned: Option<u64>,
    pub from: CountSources,
}

impl Counted {
    /// Nobody was called. Answers that did not come say nothing of that.
    pub(super) fn is_without_calls(&self) -> bool {
        self.attempted == Some(0) && self.from.attempted != Some(CountSource::AnswerRate)
    }
}

/// What events had counted at the poll before, and whether they tell all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct FromEvents {
    told: Option<CallCounts>,
    /// Calls that reached an agent, lately: by the events, and by the statistics.
    delivered: (f64, f64),
}

impl FromEvents {
    pub(super) fn have_told_nothing(&self) -> bool {
        *self == Self::default()
    }

    /// What events have counted since the poll before. `None` where they tell nothing, began
    /// anew, or tell of fewer calls than reached an agent by the statistics.
    fn since(&mut self, told: Option<CallCounts>, delivered: Option<u64>) -> Option<CallCounts> {
        let before = std::mem::replace(&mut self.told, told);
        let Some(grown) = told?.since(before?) else {
            self.delivered = (0.0, 0.0);
            return None;
        };
        let reached = grown.answers.saturating_sub(grown.abandoned) as f64;
        self.delivered = (
            KEPT * self.delivered.0 + reached,
            KEPT * self.delivered.1 + delivered.unwrap_or_default() as f64,
        );
        (self.delivered.0 >= LEAST_SHARE * self.delivered.1 - FEW_CALLS).then_some(grown)
    }

    /// Whether they have ever told of a call that nobody answered.
    fn tell_of_attempts(&self) -> bool {
        self.told.is_some_and(|told| told.attempts > told.answers)
    }
}

/// What was counted since the poll before. `told` is what events have counted until now.
pub(super) fn counted(
    reading: &Reading,
    before: Option<&Reading>,
    told: Option<CallCounts>,
    events: &mut FromEvents,
) -> Counted {
    let since = events.since(told, reading.delivered_since(before));
    let of = |by_statistics: Option<u64>, has_statistics: bool, by_events: Option<(u64, CountSource)>| {
        match (by_statistics, by_events) {
            (Some(count), _) => (Some(count), Some(CountSource::Statistics)),
            // They count it, and will have something to compare with at the next poll.
            (None, _) if has_statistics => (None, None),
            (None, Some((count, source))) => (Some(count), Some(source)),
            (None, None) => (None, None),
        }
    };
    let told = |count: fn(CallCounts) -> u64| since.map(|since| (count(since), CountSource::Events));
    let attempts = since.map(|since| match events.tell_of_attempts() {
        true => (since.attempts, CountSource::Events),
        false => (attempts_behind(since.answers, reading.answer_rate), CountSource::AnswerRate),
    });
    let (attempted, by_attempted) = of(reading.attempted_since(before), reading.attempts.is_some(), attempts);
    let (answered, by_answered) =
        of(reading.answered_since(before), reading.answers.is_some(), told(|since| since.answers));
    let (abandoned, by_abandoned) =
        of(reading.abandoned_since(before), reading.abandoned.is_some(), told(|since| since.abandoned));
    let from = CountSources { attempted: by_attempted, answered: by_answered, abandoned: by_abandoned };
    Counted { attempted, answered, abandoned, from }
}

/// Calls placed for so many answers. Without an answer rate no more than these: over-estimating
/// how many answer is the safe side.
fn attempts_behind(answers: u64, answer_rate: f64) -> u64 {
    if answer_rate > 0.0 { (answers as f64 / answer_rate).round() as u64 } else { answers }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(delivered: u64) -> Reading {
        Reading {
            answer_rate: 0.25,
            attempts: None,
            answers: None,
            abandoned: None,
            calls_delivered: delivered,
            agents_idle: 3,
            agents_busy: 17,
        }
    }

    fn told(attempts: u64, answers: u64, abandoned: u64) -> Option<CallCounts> {
        Some(CallCounts { attempts, answers, abandoned })
    }

    /// Polls one after the other.
    fn polled(polls: &[(Reading, Option<CallCounts>)]) -> Vec<Counted> {
        let (mut events, mut before) = (FromEvents::default(), None);
        polls
            .iter()
            .map(|(reading, told)| {
                let counted = counted(reading, before.as_ref(), *told, &mut events);
                before = Some(*reading);
                counted
            })
            .collect()
    }

    fn numbers(counted: &Counted) -> [Option<u64>; 3] {
        [counted.attempted, counted.answered, counted.abandoned]
    }

    #[test]
    fn what_the_statistics_count_comes_from_them() {
        let of = |attempts, answers, abandoned| Reading {
            attempts: Some(attempts),
            answers: Some(answers),
            abandoned: Some(abandoned),
            ..reading(answers - abandoned)
        };
        let polls = polled(&[(of(100, 30, 1), told(9, 9, 9)), (of(140, 40, 2), told(99, 99, 99))]);
        assert_eq!(polls[0], Counted::default(), "events do not stand in for the first poll");
        assert_eq!(numbers(&polls[1]), [Some(40), Some(10), Some(1)]);
        let source = Some(CountSource::Statistics);
        assert_eq!(polls[1].from, CountSources { attempted: source, answered: source, abandoned: source });
    }

    #[test]
    fn what_they_lack_comes_from_events_each_count_by_itself() {
        let with_attempts = |attempts, delivered| Reading { attempts: Some(attempts), ..reading(delivered) };
        let polls =
            polled(&[(with_attempts(100, 29), told(30, 30, 1)), (with_attempts(140, 38), told(40, 40, 2))]);
        assert_eq!(numbers(&polls[1]), [Some(40), Some(10), Some(1)]);
        assert_eq!(polls[1].from.attempted, Some(CountSource::Statistics));
        assert_eq!(polls[1].from.abandoned, Some(CountSource::Events));
    }

    #[test]
    fn attempts_come_from_events_that_tell_of_unanswered_calls_else_from_the_answer_rate() {
        let tell_all = polled(&[(reading(29), told(120, 30, 1)), (reading(38), told(157, 40, 2))]);
        assert_eq!(numbers(&tell_all[1]), [Some(37), Some(10), Some(1)]);
        assert_eq!(tell_all[1].from.attempted, Some(CountSource::Events));
        let answered_only = polled(&[(reading(29), told(30, 30, 1)), (reading(38), told(40, 40, 2))]);
        assert_eq!(numbers(&answered_only[1]), [Some(40), Some(10), Some(1)]);
        assert_eq!(answered_only[1].from.attempted, Some(CountSource::AnswerRate));
        assert_eq!(attempts_behind(7, 0.0), 7);
    }

    #[test]
    fn events_that_fall_silent_or_begin_anew_are_no_source() {
        let mut polls = vec![(reading(0), told(0, 0, 0))];
        polls.extend((1..=20).map(|poll| (reading(5 * poll), told(5 * poll, 5 * poll, 0))));
        polls.extend((21..=40).map(|poll| (reading(5 * poll), told(100, 100, 0))));
        let counted = polled(&polls);
        assert!(counted[1..=20].iter().all(|counted| counted.answered == Some(5)));
        let until = (21..=40).find(|poll| counted[*poll].answered.is_none()).expect("that is noticed");
        assert!((22..=25).contains(&until), "{until}");
        assert_eq!(numbers(&counted[40]), [None; 3]);
        let anew = polled(&[
            (reading(0), told(50, 50, 1)),
            (reading(0), told(3, 3, 0)),
            (reading(2), told(5, 5, 0)),
        ]);
        assert_eq!((anew[1].answered, anew[2].answered), (None, Some(2)));
        assert_eq!(polled(&[(reading(0), None), (reading(9), None)])[1], Counted::default());
    }
}
