//! The same decisions from a loop that does nothing else.

use std::collections::HashMap;
use std::time::Duration;

use serde_json::value::RawValue;
use trunkline::model::campaign::{CampaignWindow, DialParameters};
use trunkline::model::decision::{Action, Decision, DecisionId, Loop, Mode, Policy};
use trunkline::model::dial_rate::Limits;
use trunkline::stages::dialing::proportional::{Answer, NAME, Proportional, VERSION};
use trunkline::topics::{self, Topic};

use crate::harness::bare::Work;
use crate::harness::now;

/// Decides and writes the decision down.
pub(crate) struct Maker {
    sequences: HashMap<String, u64>,
    rule: Proportional,
    policy: Policy<'static>,
    buffer: Vec<u8>,
}

impl Default for Maker {
    fn default() -> Self {
        let rule = Proportional::default();
        let policy = Policy::new(NAME, VERSION, &rule);
        Self { sequences: HashMap::new(), rule, policy, buffer: Vec::new() }
    }
}

impl Work for Maker {
    const INPUT: &'static Topic = &topics::CAMPAIGN_WINDOWS;
    const OUTPUT: &'static Topic = &topics::DIAL_DECISIONS;

    fn take(&mut self, value: &[u8], mut send: impl FnMut(&str, &[u8])) {
        let key = self.decide(value);
        send(key, &self.buffer);
    }
}

impl Maker {
    /// Leaves the decision in `buffer`, answers its key.
    fn decide<'r>(&mut self, value: &'r [u8]) -> &'r str {
        let window: CampaignWindow<'r> = serde_json::from_slice(value).expect("a window");
        let std::borrow::Cow::Borrowed(key) = window.campaign_id else { panic!("an id with escapes") };
        let sequence = match self.sequences.get_mut(key) {
            Some(sequence) => sequence,
            None => self.sequences.entry(key.to_owned()).or_default(),
        };
        *sequence += 1;
        let limits = Limits { min: window.min_dial_rate, max: window.max_dial_rate };
        let (action, reason, dial_rate) =
            match self.rule.decide(window.mean_answer_rate, window.dial_rate, limits) {
                Answer::Set { dial_rate, reason } => (Action::SetDialRate, reason, dial_rate),
                Answer::Hold { reason } => (Action::Hold, reason, window.dial_rate),
            };
        let inputs: &RawValue = serde_json::from_slice(value).expect("JSON");
        let decision = Decision {
            decision_id: DecisionId::derive(Loop::Dial, key, *sequence, window.observed_at),
            sequence: *sequence,
            r#loop: Loop::Dial,
            key: key.into(),
            mode: Mode::Live,
            decided_at: now(),
            event_time: window.observed_at,
            action,
            reason: reason.into(),
            parameters: DialParameters { previous_dial_rate: window.dial_rate, dial_rate },
            inputs,
            policy: self.policy.by_reference(),
            settings_revision: 0,
            cause_ids: [(); 0],
            expires_at: window.observed_at.plus(Duration::from_secs(60)),
        };
        self.buffer.clear();
        serde_json::to_writer(&mut self.buffer, &decision).expect("JSON");
        key
    }
}
