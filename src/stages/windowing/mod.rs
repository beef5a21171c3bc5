//! Campaign statistics → the sliding window behind the next dial decision.

mod counted;
mod window;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::call_counts::CallCounts;
use crate::model::campaign::{CampaignStats, CampaignWindow, Reading};
use crate::pipeline::{Declaration, Outputs, Record, Stage, Step, latest_possible};
use crate::role::Role;
use crate::topics;

use counted::{FromEvents, counted};
use window::{Held, Window};

pub static DECLARATION: Declaration = Declaration {
    name: "windowing",
    description: "keeps the last 10 samples of each campaign and their mean",
    input: &topics::CAMPAIGN_STATS,
    outputs: &[&topics::CAMPAIGN_WINDOWS],
    changelog: &topics::WINDOWING_CHANGELOG,
    state_version: 2,
    // A window spans 10 ticks of 30 s; what is older cannot be in it.
    lateness: Duration::from_secs(300),
};

/// Beside the statistics it looks up what conversation events count.
pub static ROLE: Role =
    Role { reads: &[&topics::CAMPAIGN_STATS, &topics::CAMPAIGN_COUNTS], ..DECLARATION.role() };

/// What conversation events count, looked up beside the records. What was used is in the window.
pub trait EventCounts: Send + Sync + 'static {
    /// A campaign's calls since some beginning, where events tell of any.
    fn of(&self, campaign_id: &str) -> Option<CallCounts>;
}

/// No events.
impl EventCounts for () {
    fn of(&self, _: &str) -> Option<CallCounts> {
        None
    }
}

/// See [`DECLARATION`].
pub struct Windowing {
    events: Arc<dyn EventCounts>,
}

impl Windowing {
    pub fn new(events: Arc<dyn EventCounts>) -> Self {
        Self { events }
    }
}

/// What is kept per campaign.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    window: Window,
    /// Time of the newest observation, a sample of the window or not.
    #[serde(default)]
    observed_at: Option<Timestamp>,
    /// What it said, to tell what came since.
    #[serde(default)]
    reading: Option<Reading>,
    /// When that was said first.
    #[serde(default)]
    changed_at: Option<Timestamp>,
    /// What conversation events counted then.
    #[serde(default, skip_serializing_if = "FromEvents::have_told_nothing")]
    from_events: FromEvents,
}

impl State {
    /// A clock that was ahead must not stand against what is observed in its time.
    fn forget_after(&mut self, latest: Timestamp) {
        self.window.forget_after(latest);
        self.observed_at = self.observed_at.filter(|observed_at| *observed_at <= latest);
        self.changed_at = self.changed_at.filter(|changed_at| *changed_at <= latest);
    }

    /// Takes in an observation that is not the newest. The campaign's newest facts are known
    /// already: the sample counts in the next window, and no decision is taken on old limits.
    fn hold_older(&mut self, newest: Timestamp, stats: &CampaignStats<'_>) -> Step {
        if newest == stats.observed_at {
            return Step::NoOp("observation_repeated");
        }
        match self.window.hold(stats.observed_at, stats.answer_rate) {
            Held::Repeated => Step::NoOp("observation_repeated"),
            Held::BeforeWindow => Step::Late,
            Held::InBetween | Held::Newest => Step::Applied,
        }
    }
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
        record: &Record<'_>,
        state: &mut State,
        stats: CampaignStats<'_>,
        outputs: &mut Outputs,
    ) -> Step {
        if let Some(contradiction) = contradiction(&stats) {
            return Step::Rejected(contradiction);
        }
        state.forget_after(latest_possible(record.at));
        let newest = state.observed_at.max(state.window.last_observed_at());
        if let Some(newest) = newest.filter(|newest| stats.observed_at <= *newest) {
            return state.hold_older(newest, &stats);
        }
        let reading = stats.reading();
        let before = state.reading.replace(reading);
        let before = before.as_ref();
        let told = self.events.of(&stats.campaign_id);
        let counted = counted(&reading, before, told, &mut state.from_events);
        let is_news = before.is_none_or(|before| reading.is_news_after(before));
        // Without a call there is no answer rate, and the same once more is none again.
        if is_news && !counted.is_without_calls() {
            state.window.hold(stats.observed_at, stats.answer_rate);
        }
        let changed_at = match (is_news, state.changed_at.or(newest)) {
            (false, Some(changed_at)) => changed_at,
            _ => stats.observed_at,
        };
        state.observed_at = Some(stats.observed_at);
        state.changed_at = Some(changed_at);
        outputs.send(
            &topics::CAMPAIGN_WINDOWS,
            &stats.campaign_id,
            &CampaignWindow {
                first_observed_at: state.window.first_observed_at().unwrap_or(stats.observed_at),
                observed_at: stats.observed_at,
                changed_at: Some(changed_at),
                answer_rates: state.window.answer_rates(),
                mean_answer_rate: state.window.mean(),
                attempted: counted.attempted,
                answered: counted.answered,
                abandoned: counted.abandoned,
                counts_from: counted.from,
                delivered: reading.delivered_since(before),
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

    /// Calls were delivered since the one before.
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
            calls_delivered: at_seconds.unsigned_abs(),
            dial_rate: 1.0,
            min_dial_rate: 0.5,
            max_dial_rate: 3.0,
            revision: "\"1\"".into(),
        }
    }

    /// Read an hour after it all.
    fn step(state: &mut State, stats: CampaignStats<'_>) -> (Step, Option<CampaignWindow<'static>>) {
        step_at(3_600, state, stats)
    }

    fn step_at(
        second: i64,
        state: &mut State,
        stats: CampaignStats<'_>,
    ) -> (Step, Option<CampaignWindow<'static>>) {
        let mut outputs = Outputs::default();
        let position = Position { topic: "t", partition: 0, offset: 0 };
        let record = Record { at: Timestamp::from_millis(second * 1_000), key: "c", value: "", position };
        let result = Windowing::new(Arc::new(())).step(&record, state, stats, &mut outputs);
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
        let with = |at, count| CampaignStats {
            attempts: Some(2 * count),
            answers: Some(count),
            abandoned: Some(count / 4),
            ..stats(at, 0.5)
        };
        let grown: Vec<_> = [(0, 100), (30, 107), (60, 4)]
            .into_iter()
            .map(|(at, count)| {
                let window = step(&mut state, with(at, count)).1.unwrap();
                (window.attempted, window.answered, window.abandoned, window.delivered)
            })
            .collect();
        assert_eq!(
            grown,
            [
                (None, None, None, None),
                (Some(14), Some(7), Some(1), Some(30)),
                (Some(8), Some(4), Some(1), Some(30)),
            ]
        );
    }

    #[test]
    fn a_poll_since_whose_predecessor_nobody_was_called_is_no_sample() {
        let mut state = State::default();
        let with = |at, rate, attempts| CampaignStats { attempts: Some(attempts), ..stats(at, rate) };
        step(&mut state, with(0, 0.4, 100));
        step(&mut state, with(30, 0.6, 150));
        let (_, window) = step(&mut state, with(60, 0.0, 150));
        let window = window.unwrap();
        assert_eq!((window.attempted, window.mean_answer_rate), (Some(0), 0.5));
        assert_eq!(window.answer_rates.as_slice(), [0.4, 0.6]);
        let (_, window) = step(&mut state, with(90, 0.2, 160));
        assert_eq!(window.unwrap().answer_rates.as_slice(), [0.4, 0.6, 0.2]);
        let (_, first) = step(&mut State::default(), with(0, 0.0, 0));
        assert_eq!((first.as_ref().unwrap().attempted, first.unwrap().answer_rates.len()), (Some(0), 0));
    }

    #[test]
    fn the_same_statistics_once_more_are_no_sample_and_the_window_says_since_when() {
        let mut state = State::default();
        let frozen = |at| CampaignStats { calls_delivered: 605, ..stats(at, 0.31) };
        let mut window = None;
        for tick in 0..5 {
            window = step(&mut state, frozen(tick * 30)).1;
            let written = serde_json::to_vec(&state).unwrap();
            state = serde_json::from_slice(&written).unwrap();
        }
        let window = window.unwrap();
        assert_eq!(window.changed_at, Some(Timestamp::from_millis(0)));
        assert_eq!(window.observed_at, Timestamp::from_millis(120_000));
        assert_eq!(window.answer_rates.as_slice(), [0.31]);
        let moved = CampaignStats { calls_delivered: 606, ..stats(150, 0.31) };
        let window = step(&mut state, moved).1.unwrap();
        assert_eq!(window.changed_at, Some(window.observed_at));
    }

    #[test]
    fn what_a_clock_ahead_has_observed_does_not_stand_against_the_right_ones() {
        let mut state = State::default();
        step_at(0, &mut state, stats(0, 0.1));
        step_at(3_000, &mut state, stats(3_000, 0.9));
        let (result, window) = step_at(30, &mut state, stats(30, 0.3));
        assert_eq!(result, Step::Applied);
        assert_eq!(window.expect("it is the newest").answer_rates.as_slice(), [0.1, 0.3]);
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
