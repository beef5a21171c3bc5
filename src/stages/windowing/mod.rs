//! Campaign statistics → the sliding window behind the next dial decision.

mod window;

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::flow::{Declaration, Outputs, Record, Stage, Step};
use crate::model::Timestamp;
use crate::model::campaign::{CampaignStats, CampaignWindow};
use crate::topics;

use window::{Held, Window};

pub static DECLARATION: Declaration = Declaration {
    name: "windowing",
    description: "keeps the last 10 samples of each campaign and their mean",
    input: &topics::CAMPAIGN_STATS,
    outputs: &[&topics::CAMPAIGN_WINDOWS],
    changelog: &topics::WINDOWING_CHANGELOG,
    state_version: 1,
    // A window spans 10 ticks of 30 s; what is older cannot be in it.
    lateness: Duration::from_secs(300),
};

/// See [`DECLARATION`].
pub struct Windowing;

/// What is kept per campaign.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    window: Window,
    /// Counters at the newest sample, to tell what came since.
    answers: Option<u64>,
    abandoned: Option<u64>,
}

impl Stage for Windowing {
    type Input<'a> = CampaignStats<'a>;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key<'i>(input: &'i CampaignStats<'_>) -> &'i str {
        &input.campaign_id
    }

    fn event_time(input: &CampaignStats<'_>) -> Timestamp {
        input.observed_at
    }

    fn step(
        &self,
        _: &Record<'_>,
        state: &mut State,
        stats: CampaignStats<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        if let Some(contradiction) = contradiction(&stats) {
            return Step::Rejected(contradiction);
        }
        match state.window.hold(stats.observed_at, stats.answer_rate) {
            Held::Repeated => return Step::NoOp("observation_repeated"),
            Held::BeforeWindow => return Step::Late,
            // The campaign's newest facts are known already: the sample counts in
            // the next window, and no decision is taken on old limits.
            Held::InBetween => return Step::Applied,
            Held::Newest => {}
        }
        let answered = since(state.answers, stats.answers);
        let abandoned = since(state.abandoned, stats.abandoned);
        state.answers = stats.answers;
        state.abandoned = stats.abandoned;
        outputs.send(
            &topics::CAMPAIGN_WINDOWS,
            &stats.campaign_id,
            &CampaignWindow {
                first_observed_at: state.window.first_observed_at(),
                observed_at: stats.observed_at,
                answer_rates: state.window.answer_rates(),
                mean_answer_rate: state.window.mean(),
                answered,
                abandoned,
                agents_idle: stats.agents_idle,
                agents_busy: stats.agents_busy,
                dial_rate: stats.dial_rate,
                min_dial_rate: stats.min_dial_rate,
                max_dial_rate: stats.max_dial_rate,
                campaign_id: stats.campaign_id.as_ref().into(),
                organization_id: stats.organization_id.as_deref().map(Into::into),
                region: stats.region.as_deref().map(Into::into),
                revision: stats.revision.as_ref().into(),
            },
        );
        Step::Applied
    }
}

/// Growth of a counter that may begin anew. Unknown before the second reading.
fn since(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    let (before, now) = (before?, now?);
    Some(if now >= before { now - before } else { now })
}

/// Why these statistics cannot be true, if they cannot. Limits that contradict
/// each other are a fact about the campaign and pass.
fn contradiction(stats: &CampaignStats<'_>) -> Option<String> {
    if !(0.0..=1.0).contains(&stats.answer_rate) {
        return Some(format!("answerRate {} is not within 0 and 1", stats.answer_rate));
    }
    for (name, rate) in [
        ("dialRate", stats.dial_rate),
        ("minDialRate", stats.min_dial_rate),
        ("maxDialRate", stats.max_dial_rate),
    ] {
        if rate < 0.0 {
            return Some(format!("{name} {rate} is below 0"));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::decision::Position;

    fn stats(at_seconds: i64, answer_rate: f64) -> CampaignStats<'static> {
        CampaignStats {
            campaign_id: "c".into(),
            organization_id: None,
            region: None,
            observed_at: Timestamp::from_millis(at_seconds * 1_000),
            answer_rate,
            attempts: None,
            answers: None,
            abandoned: None,
            agents_idle: 1,
            agents_busy: 2,
            calls_delivered: 3,
            dial_rate: 1.0,
            min_dial_rate: 0.5,
            max_dial_rate: 3.0,
            revision: "\"1\"".into(),
        }
    }

    fn step(state: &mut State, stats: CampaignStats<'_>) -> (Step, Option<CampaignWindow<'static>>) {
        let mut outputs = Outputs::default();
        let position = Position { topic: "t", partition: 0, offset: 0 };
        let record = Record { at: stats.observed_at, key: "c", value: "", position };
        let result = Windowing.step(&record, state, stats, &mut outputs);
        let window = outputs.iter().next().map(|output| {
            let window: CampaignWindow<'_> = serde_json::from_slice(output.value).unwrap();
            CampaignWindow {
                campaign_id: window.campaign_id.into_owned().into(),
                revision: window.revision.into_owned().into(),
                organization_id: None,
                region: None,
                ..window
            }
        });
        (result, window)
    }

    #[test]
    fn a_constant_rate_is_its_own_mean_over_wraps_and_restarts() {
        for rate in [0.5, 0.1, 0.3, 1.0 / 3.0] {
            let mut state = State::default();
            for tick in 0..57 {
                let (_, window) = step(&mut state, stats(tick * 30, rate));
                let window = window.expect("every new sample gives a window");
                assert_eq!(window.mean_answer_rate, rate, "tick {tick}");
                assert_eq!(window.answer_rates.len(), usize::min(tick as usize + 1, 10));
                let written = serde_json::to_vec(&state).unwrap();
                state = serde_json::from_slice(&written).unwrap();
            }
        }
    }

    #[test]
    fn repeated_and_disordered_observations_count_once_and_in_their_place() {
        let mut state = State::default();
        step(&mut state, stats(0, 0.1));
        step(&mut state, stats(60, 0.3));
        assert_eq!(step(&mut state, stats(60, 0.9)), (Step::NoOp("observation_repeated"), None));
        assert_eq!(step(&mut state, stats(30, 0.2)), (Step::Applied, None));
        let (_, window) = step(&mut state, stats(90, 0.4));
        assert_eq!(window.unwrap().answer_rates.as_slice(), [0.1, 0.2, 0.3, 0.4]);
    }

    #[test]
    fn a_sample_older_than_a_full_window_is_late() {
        let mut state = State::default();
        for tick in 1..=10 {
            step(&mut state, stats(tick * 30, 0.5));
        }
        assert_eq!(step(&mut state, stats(0, 0.5)), (Step::Late, None));
    }

    #[test]
    fn counters_become_growth_and_survive_beginning_anew() {
        let mut state = State::default();
        let with = |at, answers| CampaignStats { answers: Some(answers), ..stats(at, 0.5) };
        let grown: Vec<_> = [(0, 100), (30, 107), (60, 4)]
            .into_iter()
            .map(|(at, answers)| step(&mut state, with(at, answers)).1.unwrap().answered)
            .collect();
        assert_eq!(grown, [None, Some(7), Some(4)]);
    }

    #[test]
    fn impossible_statistics_are_rejected_and_leave_the_state_alone() {
        let mut state = State::default();
        step(&mut state, stats(0, 0.5));
        let before = serde_json::to_string(&state).unwrap();
        for wrong in [
            stats(30, 1.01),
            stats(30, -0.1),
            CampaignStats { dial_rate: -1.0, ..stats(30, 0.5) },
            CampaignStats { max_dial_rate: -1.0, ..stats(30, 0.5) },
        ] {
            assert!(matches!(step(&mut state, wrong), (Step::Rejected(_), None)));
        }
        assert_eq!(serde_json::to_string(&state).unwrap(), before);
    }
}
