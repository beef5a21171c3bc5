//! Tells the audit: turns answers into decisions for `trunkline.routing-decisions.v1`, off
//! the answers' path. The rows of the answers are what nothing can be lost from; the place
//! reached and the messages for the outbox move in one transaction, so each decision goes
//! out once and in order. Several instances may try; the one that is first goes on.

use std::borrow::Cow;
use std::collections::HashMap;
use std::time::Duration;

use serde::Serialize;
use tokio_util::sync::CancellationToken;

use super::group_counters::book;
use super::rule::{self, Standing};
use super::service::ROLE;
use crate::backoff::Backoff;
use crate::health::Part;
use crate::model::Timestamp;
use crate::model::decision::{Action, Decision, DecisionId, Loop, Mode, Policy};
use crate::model::routing::{RouteGroup, RouteInputs, RouteParameters, RouteReason, RouteSource};
use crate::postgres::outbox::Message;
use crate::postgres::routing::{Recordable, RecordedAnswer, RecordedTurn};
use crate::postgres::{Database, Error};
use crate::telemetry;
use crate::topics::{self, RouteDecision, headers};

/// Answers that go to the outbox with one transaction.
const BATCH: i64 = 1_000;
/// Between two looks after something was told, and after many that found nothing.
const IDLE: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(1));
/// After another instance was first, or the database was away.
const STAND_BACK: Duration = Duration::from_secs(2);
/// How often old answers are forgotten.
const FORGET_EVERY: Duration = Duration::from_secs(10);

/// What can change an answer of the rule beside its inputs.
#[derive(Serialize)]
struct RuleParameters {}

/// The policy decisions are taken under.
pub fn policy() -> Policy<'static> {
    Policy::new(rule::NAME, rule::VERSION, &RuleParameters {})
}

/// Runs until `shutdown`.
pub async fn run(
    database: Database,
    mode: Mode,
    retention: Duration,
    part: Part,
    shutdown: CancellationToken,
) {
    let recorder = Recorder { database, mode, policy: policy() };
    let mut idle = Backoff::new(IDLE);
    let mut forget_at = tokio::time::Instant::now() + FORGET_EVERY;
    loop {
        let recorded = recorder.record().await;
        if recorded.is_ok() {
            // Also where another instance does it.
            part.ready();
        }
        let pause = match recorded {
            Ok(Progress::More) => Duration::ZERO,
            Ok(Progress::Told) => {
                idle.reset();
                idle.pause()
            }
            Ok(Progress::Nothing) => idle.pause(),
            Ok(Progress::NotFirst) => STAND_BACK,
            Err(error) => {
                part.not_ready(format!("routing decisions wait to be told to the audit: {error}"));
                STAND_BACK
            }
        };
        if tokio::time::Instant::now() >= forget_at {
            forget_at = tokio::time::Instant::now() + FORGET_EVERY;
            if let Err(error) = recorder.database.forget_route_answers(retention).await {
                tracing::warn!(%error, "old routing answers are not forgotten yet");
            }
        }
        tokio::select! {
            () = shutdown.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
        }
    }
}

/// From the least to the most.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Progress {
    /// Another instance was.
    NotFirst,
    Nothing,
    Told,
    /// A full batch.
    More,
}

struct Recorder {
    database: Database,
    mode: Mode,
    policy: Policy<'static>,
}

impl Recorder {
    /// One batch of each configuration.
    async fn record(&self) -> Result<Progress, Error> {
        let mut progress = Progress::Nothing;
        for of in self.database.recordable_routes().await? {
            let (answers, turns) = self.database.unrecorded_answers(&of, BATCH).await?;
            let Some(last) = answers.last().map(|answer| answer.sequence).filter(|last| *last > of.recorded)
            else {
                continue;
            };
            let texts: Vec<String> = decisions(&of, &answers, &turns, self.mode, &self.policy)
                .map(|decision| serde_json::to_string(&decision).expect("own values are JSON"))
                .collect();
            let key = of.configuration_id.as_bytes();
            ROLE.assert_sends(&topics::ROUTING_DECISIONS);
            let topic = topics::ROUTING_DECISIONS.name;
            let traces: Vec<String> = answers
                .iter()
                .filter(|answer| answer.sequence > of.recorded)
                .map(|answer| answer.traceparent.clone().unwrap_or_else(telemetry::new_traceparent))
                .collect();
            let messages: Vec<Message<'_>> = texts
                .iter()
                .zip(&traces)
                .map(|(text, trace)| {
                    let message = Message::new(topic, key, text.as_bytes());
                    message.with_header(headers::TRACEPARENT, trace.as_bytes())
                })
                .collect();
            if !self.database.record_routes(&of, last, &messages).await? {
                return Ok(Progress::NotFirst);
            }
            let is_full = last == of.recorded + BATCH;
            progress = progress.max(if is_full { Progress::More } else { Progress::Told });
        }
        Ok(progress)
    }
}

/// Each answer as a decision, with the deficits it was taken from: they follow from those at
/// the beginning of its block.
fn decisions<'a>(
    of: &'a Recordable,
    answers: &'a [RecordedAnswer],
    turns: &'a [RecordedTurn],
    mode: Mode,
    policy: &'a Policy<'static>,
) -> impl Iterator<Item = RouteDecision<'a, Vec<String>>> {
    let mut turns = turns.iter().peekable();
    let mut block = Walk::default();
    answers.iter().filter_map(move |answer| {
        while let Some(turn) = turns.next_if(|turn| turn.first_sequence <= answer.sequence) {
            block = Walk::of(turn);
        }
        // Told before, but passed on the way from the beginning of its block.
        let is_new = answer.sequence > of.recorded;
        let decision = is_new.then(|| decision(of, answer, &block, mode, policy));
        block.pass(answer);
        decision
    })
}

/// The groups on their way through a block.
#[derive(Default)]
struct Walk<'a> {
    names: Vec<&'a str>,
    places: HashMap<&'a str, usize>,
    unit: i64,
    standings: Vec<Standing>,
    settings_revision: u64,
}

impl<'a> Walk<'a> {
    fn of(turn: &'a RecordedTurn) -> Self {
        let names: Vec<&str> = turn.groups.iter().map(|(id, ..)| id.as_str()).collect();
        let places = names.iter().enumerate().map(|(index, name)| (*name, index)).collect();
        let standings = turn.groups.iter().map(|&(_, share, deficit)| Standing { share, deficit }).collect();
        Self {
            names,
            places,
            unit: turn.unit,
            standings,
            settings_revision: turn.settings_revision.unsigned_abs(),
        }
    }

    fn pass(&mut self, answer: &RecordedAnswer) {
        if answer.reason == RouteReason::Share.name() {
            book(&mut self.standings, self.unit, self.places.get(answer.destination_id.as_str()).copied());
        }
    }
}

fn decision<'a>(
    of: &'a Recordable,
    answer: &'a RecordedAnswer,
    block: &Walk<'a>,
    mode: Mode,
    policy: &'a Policy<'static>,
) -> RouteDecision<'a, Vec<String>> {
    let groups = block.names.iter().zip(&block.standings);
    let groups = groups.map(|(name, at)| RouteGroup::of(name, block.unit, at.share, at.deficit));
    let inputs =
        RouteInputs { revision: answer.revision.unsigned_abs(), unit: block.unit, groups: groups.collect() };
    let given = Given {
        configuration_id: &of.configuration_id,
        sequence: answer.sequence.unsigned_abs(),
        conversation_id: &answer.conversation_id,
        destination_id: &answer.destination_id,
        source: RouteSource::of(&answer.source).unwrap_or(RouteSource::Exact),
        reason: Cow::Borrowed(&answer.reason),
        decided_at: answer.decided_at,
    };
    given.decision(inputs, mode, policy.by_reference(), block.settings_revision)
}

/// An answer, without what it was taken from.
pub(super) struct Given<'a> {
    pub configuration_id: &'a str,
    pub sequence: u64,
    pub conversation_id: &'a str,
    pub destination_id: &'a str,
    pub source: RouteSource,
    pub reason: Cow<'a, str>,
    pub decided_at: Timestamp,
}

impl<'a> Given<'a> {
    /// As it stands on its topic.
    pub(super) fn decision(
        self,
        inputs: RouteInputs<'a>,
        mode: Mode,
        policy: Policy<'a>,
        settings_revision: u64,
    ) -> RouteDecision<'a, Vec<String>> {
        let (key, at) = (self.configuration_id, self.decided_at);
        Decision {
            decision_id: DecisionId::derive(Loop::Route, key, self.sequence, at),
            sequence: self.sequence,
            r#loop: Loop::Route,
            key: Cow::Borrowed(key),
            mode,
            decided_at: at,
            event_time: at,
            action: Action::Route,
            reason: self.reason,
            parameters: RouteParameters {
                conversation_id: Cow::Borrowed(self.conversation_id),
                destination_id: Cow::Borrowed(self.destination_id),
                source: self.source,
            },
            inputs,
            policy,
            settings_revision,
            cause_ids: Vec::new(),
            // It was carried out by being given.
            expires_at: at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::routing::BILLION;

    #[test]
    fn decisions_hold_what_they_were_taken_from_also_in_the_middle_of_a_block() {
        let of = Recordable { configuration: 1, configuration_id: "c".into(), recorded: 0 };
        let answer = |sequence, destination: &str, reason: RouteReason| RecordedAnswer {
            sequence,
            conversation_id: format!("v{sequence}"),
            destination_id: destination.into(),
            revision: 1,
            source: "exact".into(),
            reason: reason.name().into(),
            decided_at: Timestamp::from_millis(1_767_323_045_678),
            traceparent: None,
        };
        // Halves, and a unit that is not billionths.
        let unit = BILLION + 2;
        let turn = |first_sequence, a, b| RecordedTurn {
            first_sequence,
            settings_revision: 4,
            unit,
            groups: vec![("a".into(), unit / 2, a), ("b".into(), unit / 2, b)],
        };
        let answers = [
            answer(1, "a", RouteReason::Share),
            answer(2, "z", RouteReason::FallbackDefault),
            answer(3, "b", RouteReason::Share),
            answer(4, "a", RouteReason::Share),
        ];
        let turns = [turn(1, 0, 0), turn(4, 0, 0)];
        let policy = policy();
        let all: Vec<_> = decisions(&of, &answers, &turns, Mode::Live, &policy).collect();
        let in_the_middle = Recordable { recorded: 2, ..of.clone() };
        let rest: Vec<_> = decisions(&in_the_middle, &answers, &turns, Mode::Live, &policy).collect();
        assert_eq!(rest, all[2..]);
        let deficits: Vec<Vec<i64>> = all
            .iter()
            .map(|decision| decision.inputs.groups.iter().map(|group| group.deficit.unwrap()).collect())
            .collect();
        let half = unit / 2;
        assert_eq!(deficits, [vec![0, 0], vec![-half, half], vec![-half, half], vec![0, 0]]);
        for decision in all.iter().filter(|decision| decision.reason == "share") {
            let standings: Vec<Standing> = decision
                .inputs
                .groups
                .iter()
                .map(|group| Standing { share: group.share.unwrap(), deficit: group.deficit.unwrap() })
                .collect();
            let again = rule::choose(&standings, decision.inputs.unit)
                .map(|index| &*decision.inputs.groups[index].destination_id);
            assert_eq!(again, Some(&*decision.parameters.destination_id), "decided again from its record");
            assert_eq!(decision.settings_revision, 4);
            assert_eq!(decision.inputs.groups[0].share_billionths, BILLION / 2, "rounded for people");
        }
    }
}
