//! Takes recorded decisions about one campaign again: the stage itself, on what was recorded. What
//! it looked up then is in the decisions, what it remembered in those that tell its memory.

use std::sync::{Arc, RwLock};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::rules::Rules;
use super::{Dialing, InForce, Lookup, State, judgement};
use crate::model::Timestamp;
use crate::model::chain::Limit;
use crate::model::decision::{Mode, Position};
use crate::model::settings::DialSettings;
use crate::pipeline::{Outputs, Record, Stage, Waking};
use crate::topics::DialDecision;

/// A campaign's memory is told with the first decision on a window after so many.
const DECISIONS_TO_MEMORY: u64 = 100;
/// Version of the form in which it is told.
const MEMORY_VERSION: u32 = 2;

/// Why a decision cannot be taken again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotTaken {
    #[error(
        "what the loop remembered before it is not known: the record begins later than the campaign, \
         and no decision before it tells the memory"
    )]
    MemoryUnknown,
    #[error("its memory is of another form than this program's")]
    MemoryUnreadable,
    #[error("its inputs cannot be read, or nothing is decided on them")]
    InputsUnusable,
}

/// What the stage looks up, as it was recorded.
#[derive(Default)]
struct Recorded {
    set: InForce,
    lagging: Vec<String>,
    attempts_used_up: bool,
}

struct LookedUp(RwLock<Recorded>);

impl LookedUp {
    fn read<T>(&self, of: impl FnOnce(&Recorded) -> T) -> T {
        of(&self.0.read().unwrap_or_else(std::sync::PoisonError::into_inner))
    }
}

impl Lookup for LookedUp {
    fn settings(&self, _: &str) -> InForce {
        self.read(|recorded| recorded.set)
    }

    fn lagging(&self, _: Timestamp) -> Vec<String> {
        self.read(|recorded| recorded.lagging.clone())
    }

    fn attempts_used_up(&self, _: &str) -> bool {
        self.read(|recorded| recorded.attempts_used_up)
    }
}

/// A configuration's rules, and the stage by them.
struct Known {
    rules: Rules,
    tick: Duration,
    shadow: Dialing,
    live: Dialing,
}

impl Known {
    /// Whether the decision names these rules, with what was set at run time.
    fn are_those_of(&self, recorded: &DialDecision<'_, Vec<String>>, set: &DialSettings) -> bool {
        let rules = self.rules.with(set);
        let shadow = rules.shadow.map(|shadow| rules.named(shadow, self.tick).hash);
        let recorded_shadow = recorded.parameters.shadow.as_ref().map(|shadow| shadow.policy_hash.as_str());
        rules.named(rules.policy, self.tick) == recorded.policy && shadow.as_deref() == recorded_shadow
    }
}

/// One campaign, decision after decision in the order of their sequence.
pub struct Again {
    /// By the numbers that decisions may have been taken under.
    known: Vec<Known>,
    looked_up: Arc<LookedUp>,
    state: Option<State>,
    outputs: Outputs,
}

impl Again {
    /// By the rules of these configurations, each with the time between two observations; what was
    /// set at run time comes with each decision.
    pub fn new(configurations: impl IntoIterator<Item = (Rules, Duration)>) -> Self {
        let looked_up = Arc::new(LookedUp(RwLock::default()));
        let known = configurations.into_iter().map(|(rules, tick)| {
            let stage = |mode| Dialing::new(mode, tick, rules, looked_up.clone());
            Known { rules, tick, shadow: stage(Mode::Shadow), live: stage(Mode::Live) }
        });
        let known = known.collect();
        Self { known, looked_up, state: None, outputs: Outputs::default() }
    }

    /// The decision as the stage takes it now, as it would stand on its topic. `inputs` are the
    /// recorded ones as JSON, `set` is what was set at run time for the campaign, and `under` what it is
    /// taken under now.
    ///
    /// What is remembered goes on from the rates that were really decided, whatever is answered here.
    ///
    /// # Errors
    /// When the record does not have what it takes.
    pub fn take(
        &mut self,
        recorded: &DialDecision<'_, Vec<String>>,
        inputs: &str,
        set: InForce,
        under: DialSettings,
    ) -> Result<&[u8], NotTaken> {
        let mut state = self.remembered(recorded)?;
        self.look_up(&recorded.parameters.holds, InForce { settings: under, ..set });
        self.outputs.clear();
        let taken_under = self.known.iter().find(|known| known.are_those_of(recorded, &set.settings));
        let known = taken_under.or(self.known.first()).ok_or(NotTaken::InputsUnusable)?;
        let stage = if recorded.mode == Mode::Live { &known.live } else { &known.shadow };
        match recorded.cause_ids.first() {
            Some(cause) => {
                let record = Record {
                    at: recorded.decided_at,
                    key: &recorded.key,
                    value: inputs,
                    position: position(cause).ok_or(NotTaken::InputsUnusable)?,
                };
                let window = serde_json::from_str(inputs).map_err(|_| NotTaken::InputsUnusable)?;
                stage.step(&record, &mut state, window, &mut self.outputs);
            }
            None => {
                stage.wake(&waking(recorded, stage.life), &mut state, &mut self.outputs);
            }
        }
        if let Some(own) = state.own.last_mut() {
            *own = recorded.parameters.dial_rate;
        }
        self.state = Some(state);
        self.outputs.iter().next().map(|output| output.value).ok_or(NotTaken::InputsUnusable)
    }

    /// What was remembered before the decision.
    fn remembered(&mut self, recorded: &DialDecision<'_, Vec<String>>) -> Result<State, NotTaken> {
        if recorded.sequence == 1 {
            return Ok(State::default());
        }
        if let Some(state) = self.state.take().filter(|state| state.sequence + 1 == recorded.sequence) {
            return Ok(state);
        }
        told(recorded.parameters.memory.as_ref().ok_or(NotTaken::MemoryUnknown)?)
    }

    fn look_up(&self, holds: &[String], set: InForce) {
        let prefix = format!("{}:", judgement::LAG_ERROR);
        let lagging = holds.iter().filter_map(|hold| hold.strip_prefix(&prefix)).map(str::to_owned).collect();
        let attempts_used_up = holds.iter().any(|hold| hold == judgement::ATTEMPTS_USED_UP);
        *self.looked_up.0.write().unwrap_or_else(std::sync::PoisonError::into_inner) =
            Recorded { set, lagging, attempts_used_up };
    }
}

impl State {
    /// As it is told with a decision, where it is time for that: with all that answers hang on.
    pub(super) fn told(&self) -> Option<serde_json::Value> {
        if self.sequence == 0 || !self.sequence.is_multiple_of(DECISIONS_TO_MEMORY) {
            return None;
        }
        let mut told = serde_json::to_value(self).expect("own state is JSON");
        // When somebody is to look again says nothing about an answer.
        told.as_object_mut()?.remove("due");
        if let Some(pacing) = &self.pacing {
            // Each by itself, as people read it.
            told["pacing"]["polls"] = serde_json::to_value(pacing.polls()).expect("numbers are JSON");
        }
        Some(serde_json::json!({ "version": MEMORY_VERSION, "state": told }))
    }
}

/// A memory as a decision tells it.
fn told(memory: &Value) -> Result<State, NotTaken> {
    let version = memory["version"].as_u64();
    if version != Some(u64::from(MEMORY_VERSION)) {
        return Err(NotTaken::MemoryUnreadable);
    }
    State::deserialize(&memory["state"]).map_err(|_| NotTaken::MemoryUnreadable)
}

/// How the stage was woken, as far as the decision depends on it.
fn waking<'d>(recorded: &'d DialDecision<'_, Vec<String>>, life: Duration) -> Waking<'d> {
    let chain = recorded.parameters.chain.as_ref();
    // Whoever had not looked for long enough could say only that news are lacking.
    let looked_briefly = chain.is_some_and(|chain| chain.after(Limit::Evidence).is_some());
    let looked_for = if looked_briefly { life } else { Duration::from_secs(86_400) };
    Waking {
        key: &recorded.key,
        time: recorded.event_time,
        at: recorded.decided_at,
        by_clock: recorded.expires_at == recorded.decided_at.plus(life),
        held_since: recorded.decided_at.minus(looked_for),
    }
}

/// `topic/partition/offset`.
fn position(text: &str) -> Option<Position<'_>> {
    let (rest, offset) = text.rsplit_once('/')?;
    let (topic, partition) = rest.rsplit_once('/')?;
    Some(Position { topic, partition: partition.parse().ok()?, offset: offset.parse().ok()? })
}
