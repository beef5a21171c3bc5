//! Lag samples → how each consumer group is, and what help it needs.

mod advice;
pub mod again;
mod ends;
mod episode;
mod history;
mod poll;
mod replicas;
mod rhythm;
pub mod rules;
#[cfg(test)]
mod tests;
mod trend;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::decision::{Action, Loop, Mode, Policy, Position, Saying, Under};
use crate::model::lag::{
    AdvisedOn, AuditAction, LagEvaluation, LagEvidence, LagInputs, LagParameters, LagReason, LagSample,
    LagSource, LagStatus,
};
use crate::pipeline::{Declaration, Outputs, Record, Silence, Stage, Step, Waking, latest_possible};
use crate::role::Role;
use crate::topics::{self, LagDecision};

use advice::{Advice, Measured};
use episode::{Episode, Said};
use poll::{Polled, Summary, Taken};
use rules::Thresholds;

pub static DECLARATION: Declaration = Declaration {
    name: "lag",
    description: "says how each consumer group is, and what would help it",
    input: &topics::CONSUMER_LAG,
    outputs: &[&topics::LAG_STATUS, &topics::LAG_EVALUATIONS],
    changelog: &topics::LAG_CHANGELOG,
    state_version: 2,
    lateness: Duration::from_secs(300),
};

pub static ROLE: Role = DECLARATION.role();

/// Polls without news after which nobody can say how a group is.
const POLLS_OF_LIFE: u32 = 4;

/// See [`DECLARATION`].
pub struct Lag {
    mode: Mode,
    thresholds: Thresholds,
    policy: Policy<'static>,
    intervals: Intervals,
}

/// Time between two polls, by source.
#[derive(Clone, Copy, Debug)]
pub struct Intervals {
    pub broker: Duration,
    pub analytics: Duration,
}

impl Intervals {
    fn of(self, source: LagSource) -> Duration {
        match source {
            LagSource::Broker => self.broker,
            LagSource::Analytics => self.analytics,
        }
    }
}

impl Lag {
    pub fn new(mode: Mode, thresholds: Thresholds, intervals: Intervals) -> Self {
        let policy = named(&thresholds);
        Self { mode, thresholds, policy, intervals }
    }
}

/// What is kept per group.
#[derive(Default, Serialize, Deserialize)]
pub struct State {
    /// Sequence of the last decision.
    sequence: u64,
    /// History. It has another name than in version 1, which is forgotten.
    #[serde(default)]
    polled: BTreeMap<LagSource, Polled>,
    #[serde(default)]
    status: Option<(LagStatus, Timestamp)>,
    #[serde(default)]
    episode: Episode,
    #[serde(default)]
    silence: Silence,
}

impl State {
    /// Polls whose time is ahead of the clock were of a clock that was put right since: right
    /// ones would be old for as long. They are forgotten, and no later time is kept.
    fn heal(&mut self, clock: Timestamp) {
        let latest = latest_possible(clock);
        self.polled.retain(|_, polled| polled.heard_at().is_none_or(|at| at <= latest));
        if let Some((_, since)) = &mut self.status
            && *since > latest
        {
            *since = clock;
        }
        self.episode.heal(clock, latest);
    }
}

/// The rules as decisions name them.
pub fn named(thresholds: &Thresholds) -> Policy<'static> {
    Policy::new(rules::NAME, rules::VERSION, thresholds)
}

/// What was said of an evaluation.
fn decision<'a, C>(
    under: Under<'a, C>,
    inputs: LagInputs,
    said: Said,
    thresholds: &Thresholds,
    policy: Policy<'a>,
) -> LagDecision<'a, C> {
    let evaluation = &inputs.evaluation;
    let now = evaluation.observed_at;
    let saying = Saying {
        event_time: now,
        action: said.action,
        reason: said.reason.into(),
        parameters: LagParameters {
            status: evaluation.status,
            replicas: evaluation.replicas.filter(|_| said.action == Action::ScaleOut),
            recommended_action: evaluation.recommended_action,
            audit_action: evaluation.audit_action,
        },
        inputs,
        policy,
        expires_at: now.plus(Duration::from_millis(thresholds.cooldown_ms)),
    };
    under.says(Loop::Lag, saying)
}

/// What an evaluation is made on.
struct Occasion<'a> {
    key: &'a str,
    /// The runtime's clock.
    at: Timestamp,
    /// Of the poll, or of the silence.
    now: Timestamp,
    valid_until: Timestamp,
    cause: Option<Position<'a>>,
}

impl Stage for Lag {
    type Input<'a> = LagSample;
    type State = State;

    fn declaration(&self) -> &'static Declaration {
        &DECLARATION
    }

    fn key(input: &LagSample) -> &str {
        &input.consumer_group
    }

    fn event_time(input: &LagSample) -> Timestamp {
        input.observed_at
    }

    fn step(&self, record: &Record<'_>, state: &mut State, sample: LagSample, outputs: &mut Outputs) -> Step {
        if sample.poll_samples == 0 {
            return Step::Rejected("pollSamples is 0, and this is one".into());
        }
        state.heal(record.at);
        match state.polled.entry(sample.source).or_default().take(&sample, &self.thresholds) {
            Taken::Old => return Step::NoOp("poll_is_over"),
            Taken::Gathered => {}
            Taken::SummedUp => {
                let now = sample.observed_at;
                let valid_until = now.plus(self.life(sample.source));
                let cause = Some(record.position);
                let occasion = Occasion { key: record.key, at: record.at, now, valid_until, cause };
                let fresh = self.fresh(state, now);
                self.evaluate(&occasion, state, &fresh, outputs);
            }
        }
        state.silence = Silence::default();
        Step::Applied
    }

    fn idle_after(&self) -> Option<Duration> {
        Some(self.intervals.broker.min(self.intervals.analytics))
    }

    fn due(&self, state: &State) -> Option<Timestamp> {
        let silent_from = |(source, polled): (&LagSource, &Polled)| {
            Some(polled.heard_at()?.plus(self.life(*source)).plus(Duration::from_millis(1)))
        };
        state.silence.due(state.polled.iter().filter_map(silent_from).max()?)
    }

    /// Nothing was heard of the group for four polls.
    fn wake(&self, waking: &Waking<'_>, state: &mut State, outputs: &mut Outputs) -> bool {
        // Event time is a poller's clock: one that is ahead makes no silence by itself.
        if self.due(state).is_none_or(|due| waking.at < due) {
            return false;
        }
        let patience = state.polled.keys().map(|source| self.life(*source)).max().unwrap_or_default();
        if !state.silence.is_to_be_told(waking, patience) {
            return false;
        }
        let summaries =
            state.polled.iter().filter_map(|(source, polled)| Some((*source, polled.summary.as_ref()?)));
        let Some((source, last)) = summaries.max_by_key(|(_, summary)| summary.observed_at) else {
            return true;
        };
        let silent = [(source, last.silent_at(waking.time))];
        // Nobody is to go by it: metrics of a group that is not heard of go.
        let (now, valid_until) = (waking.time, waking.time);
        let occasion = Occasion { key: waking.key, at: waking.at, now, valid_until, cause: None };
        self.evaluate(&occasion, state, &silent, outputs);
        true
    }
}

impl Lag {
    /// What sources that are heard know.
    fn fresh(&self, state: &State, now: Timestamp) -> Vec<(LagSource, Summary)> {
        let summaries =
            state.polled.iter().filter_map(|(source, polled)| Some((*source, polled.summary.clone()?)));
        summaries.filter(|(source, summary)| summary.observed_at.plus(self.life(*source)) >= now).collect()
    }

    fn evaluate(
        &self,
        occasion: &Occasion<'_>,
        state: &mut State,
        fresh: &[(LagSource, Summary)],
        outputs: &mut Outputs,
    ) {
        if let Some((worst, advised_on, evaluation)) = self.evaluation(occasion, state, fresh) {
            outputs.send(&topics::LAG_STATUS, occasion.key, &evaluation);
            self.decide(occasion, state, worst, advised_on, evaluation, outputs);
        }
    }

    /// How the group is by the newest word of every source, and the part of it that is worst.
    fn evaluation(
        &self,
        occasion: &Occasion<'_>,
        state: &State,
        fresh: &[(LagSource, Summary)],
    ) -> Option<(LagEvidence, AdvisedOn, LagEvaluation)> {
        let now = occasion.now;
        let (_, leading) = fresh.iter().min_by_key(|(_, summary)| summary.status)?;
        let worst = leading.worst.clone()?;
        let since = match state.status {
            Some((status, since)) if status == leading.status => since,
            _ => now,
        };
        let mut reasons: Vec<LagReason> = fresh
            .iter()
            .flat_map(|(_, summary)| &summary.reasons)
            .map(|reason| reason.told.clone())
            .collect();
        reasons.sort_by_key(|reason| rules::rank(&reason.rule));
        // What only the brokers know, whichever source is worse.
        let measured = fresh.iter().map(|(_, summary)| summary).find(|summary| summary.members.is_some());
        let measured = measured.unwrap_or(leading);
        let calm_ms = now.millis_since(since).unsigned_abs();
        let (advised_on, advice) = self.advised(leading, measured, calm_ms);
        let exceeded = fresh.iter().any(|(_, summary)| summary.exceeded);
        let evaluation = LagEvaluation {
            consumer_group: occasion.key.into(),
            group_type: fresh.iter().find_map(|(_, summary)| summary.group_type),
            observed_at: now,
            valid_until: occasion.valid_until,
            status: leading.status,
            since,
            reasons,
            lag: measured.lag,
            age_seconds: leading.age_ms as f64 / 1_000.0,
            parts: fresh.iter().map(|(_, summary)| summary.parts).sum(),
            members: measured.members,
            arrival_per_second: measured.arrival_per_second,
            drain_per_second: measured.drain_per_second,
            catch_up_seconds: measured.catch_up_seconds,
            open_transaction_seconds: measured.open_transaction_ms.map(|ms| ms as f64 / 1_000.0),
            replicas: advice.replicas,
            recommended_action: advice.action,
            audit_action: match exceeded {
                true => AuditAction::LagThresholdExceeded,
                false => AuditAction::MonitorCycleComplete,
            },
        };
        Some((worst, advised_on, evaluation))
    }

    /// What would help, and what that goes by.
    fn advised(&self, leading: &Summary, measured: &Summary, calm_ms: u64) -> (AdvisedOn, Advice) {
        let on = AdvisedOn {
            parts: measured.parts,
            members_before: measured.members_before,
            may_mend_itself: leading.may_mend_itself,
            needed: measured.needed,
        };
        let advice = self.thresholds.advice(&Measured {
            status: leading.status,
            calm_ms,
            members: measured.members,
            drain_per_second: measured.drain_per_second,
            catch_up_seconds: measured.catch_up_seconds,
            on,
        });
        (on, advice)
    }

    /// Records a change of status and every call for help.
    fn decide(
        &self,
        occasion: &Occasion<'_>,
        state: &mut State,
        worst: LagEvidence,
        advised_on: AdvisedOn,
        evaluation: LagEvaluation,
        outputs: &mut Outputs,
    ) {
        let previous = state.status.map(|(status, _)| status);
        let said = state.episode.say(&evaluation, &self.thresholds);
        if previous == Some(evaluation.status) && said.action == Action::Hold {
            return;
        }
        state.status = Some((evaluation.status, evaluation.since));
        state.sequence += 1;
        let inputs = LagInputs {
            worst,
            previous_status: previous,
            episode_since: state.episode.since,
            called_at: state.episode.called_at,
            advised_on: Some(advised_on),
            evaluation,
        };
        let under = Under {
            key: occasion.key,
            sequence: state.sequence,
            mode: self.mode,
            at: occasion.at,
            // No setting is about lag: the configuration alone.
            settings_revision: 0,
            causes: occasion.cause.as_slice(),
        };
        let decision = decision(under, inputs, said, &self.thresholds, self.policy.by_reference());
        outputs.send(&topics::LAG_EVALUATIONS, occasion.key, &decision);
    }

    fn life(&self, source: LagSource) -> Duration {
        self.intervals.of(source).saturating_mul(POLLS_OF_LIFE)
    }
}
