//! What a loop decided, with everything needed to decide it again.

use std::borrow::Cow;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::Timestamp;

/// The control loops.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Loop {
    Dial,
    Rollback,
    Lag,
    Route,
    Delivery,
}

impl Loop {
    pub const ALL: [Loop; 5] = [Loop::Dial, Loop::Rollback, Loop::Lag, Loop::Route, Loop::Delivery];

    pub fn name(self) -> &'static str {
        match self {
            Loop::Dial => "dial",
            Loop::Rollback => "rollback",
            Loop::Lag => "lag",
            Loop::Route => "route",
            Loop::Delivery => "delivery",
        }
    }
}

/// What a loop may do outside.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Decides and records, changes nothing outside.
    #[default]
    Shadow,
    /// Decides, records and acts.
    Live,
}

/// What is to be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    /// Give the campaign the dial rate in `parameters`.
    SetDialRate,
    /// Take the flow back to an earlier version.
    Rollback,
    /// Tell people; nothing else.
    Alert,
    /// Run as many consumers as `parameters` says.
    ScaleOut,
    /// Start the consumers anew: more of them would not help.
    Restart,
    /// A person has to look.
    Investigate,
    /// Send the conversation to the destination in `parameters`.
    Route,
    /// Give the candidate the share in `parameters`.
    SetShare,
    /// Take the candidate away.
    Abort,
    /// Publish what has proven itself.
    Promote,
    /// Change nothing.
    Hold,
}

impl Action {
    pub fn name(self) -> &'static str {
        match self {
            Action::SetDialRate => "set_dial_rate",
            Action::Rollback => "rollback",
            Action::Alert => "alert",
            Action::ScaleOut => "scale_out",
            Action::Restart => "restart",
            Action::Investigate => "investigate",
            Action::Route => "route",
            Action::SetShare => "set_share",
            Action::Abort => "abort",
            Action::Promote => "promote",
            Action::Hold => "hold",
        }
    }
}

/// Identifies a decision: a UUID of version 8 (RFC 9562) whose first 48 bits are
/// the event time and whose rest is a digest of loop, key, sequence and event
/// time. Deciding the same input again gives the same identity; a state that was
/// lost and began anew at sequence 1 does not repeat old ones.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct DecisionId(#[schemars(with = "String")] pub Uuid);

impl DecisionId {
    pub fn derive(of: Loop, key: &str, sequence: u64, event_time: Timestamp) -> Self {
        let mut hasher = Sha256::new();
        hasher.update(of.name());
        hasher.update([0]);
        hasher.update(key);
        hasher.update([0]);
        hasher.update(sequence.to_be_bytes());
        hasher.update(event_time.as_millis().to_be_bytes());
        let digest = hasher.finalize();
        let mut bytes = [0u8; 16];
        bytes.copy_from_slice(&digest[..16]);
        bytes[..6].copy_from_slice(&event_time.as_millis().to_be_bytes()[2..]);
        Self(uuid::Builder::from_custom_bytes(bytes).into_uuid())
    }
}

impl fmt::Display for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for DecisionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Under which rule a decision was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Policy<'a> {
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Raised whenever the rule can answer differently on the same inputs.
    pub version: u32,
    /// First 16 hexadecimal digits of the SHA-256 of the rule's parameters.
    #[serde(borrow)]
    pub hash: Cow<'a, str>,
}

impl Policy<'static> {
    /// `parameters` are written as JSON for the hash: every number that can
    /// change an answer belongs in them.
    pub fn new(name: &'static str, version: u32, parameters: &impl Serialize) -> Self {
        let text = serde_json::to_vec(parameters).expect("parameters are plain data");
        let digest = Sha256::digest(&text);
        let hash = digest[..8].iter().map(|byte| format!("{byte:02x}")).collect::<String>();
        Self { name: name.into(), version, hash: hash.into() }
    }
}

impl Policy<'_> {
    /// The same policy without a copy of its text.
    pub fn by_reference(&self) -> Policy<'_> {
        Policy { name: Cow::Borrowed(&self.name), version: self.version, hash: Cow::Borrowed(&self.hash) }
    }
}

/// A record's place in Kafka, written `topic/partition/offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position<'a> {
    pub topic: &'a str,
    pub partition: i32,
    pub offset: i64,
}

impl fmt::Display for Position<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.topic, self.partition, self.offset)
    }
}

impl Serialize for Position<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// One decision. `I` are the inputs it was taken from, `P` what it asks for and
/// `C` the records that caused it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Decision<'a, I, P, C> {
    pub decision_id: DecisionId,
    /// Counts the decisions of this loop and key from 1, without gaps.
    pub sequence: u64,
    pub r#loop: Loop,
    #[serde(borrow)]
    pub key: Cow<'a, str>,
    pub mode: Mode,
    pub decided_at: Timestamp,
    /// When the facts behind it were observed.
    pub event_time: Timestamp,
    pub action: Action,
    /// Why, in a form a program can branch on.
    #[serde(borrow)]
    pub reason: Cow<'a, str>,
    pub parameters: P,
    pub inputs: I,
    #[serde(borrow)]
    pub policy: Policy<'a>,
    /// Revision of the run-time settings it was taken under; 0 is the configuration alone.
    pub settings_revision: u64,
    /// Records that caused it, as `topic/partition/offset`.
    pub cause_ids: C,
    /// After this it must not be applied.
    pub expires_at: Timestamp,
}

/// What a decision is taken under, whatever it says.
pub(crate) struct Under<'a, C> {
    pub key: &'a str,
    pub sequence: u64,
    pub mode: Mode,
    pub at: Timestamp,
    pub settings_revision: u64,
    pub causes: C,
}

/// What a decision says, of when, and until when.
pub(crate) struct Saying<'a, I, P> {
    pub event_time: Timestamp,
    pub action: Action,
    pub reason: Cow<'a, str>,
    pub parameters: P,
    pub inputs: I,
    pub policy: Policy<'a>,
    pub expires_at: Timestamp,
}

impl<'a> Under<'a, Vec<String>> {
    /// What a recorded decision was taken under.
    pub(crate) fn of<I, P>(recorded: &'a Decision<'_, I, P, Vec<String>>) -> Self {
        Self {
            key: &recorded.key,
            sequence: recorded.sequence,
            mode: recorded.mode,
            at: recorded.decided_at,
            settings_revision: recorded.settings_revision,
            causes: recorded.cause_ids.clone(),
        }
    }
}

impl<'a, C> Under<'a, C> {
    /// The decision that says this, as it stands on its topic.
    pub(crate) fn says<I, P>(self, of: Loop, saying: Saying<'a, I, P>) -> Decision<'a, I, P, C> {
        Decision {
            decision_id: DecisionId::derive(of, self.key, self.sequence, saying.event_time),
            sequence: self.sequence,
            r#loop: of,
            key: self.key.into(),
            mode: self.mode,
            decided_at: self.at,
            event_time: saying.event_time,
            action: saying.action,
            reason: saying.reason,
            parameters: saying.parameters,
            inputs: saying.inputs,
            policy: saying.policy,
            settings_revision: self.settings_revision,
            cause_ids: self.causes,
            expires_at: saying.expires_at,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identity_depends_on_everything_that_tells_decisions_apart() {
        let at = Timestamp::from_millis(1_767_323_045_678);
        let base = DecisionId::derive(Loop::Dial, "a", 1, at);
        assert_eq!(base, DecisionId::derive(Loop::Dial, "a", 1, at));
        assert_ne!(base, DecisionId::derive(Loop::Dial, "b", 1, at));
        assert_ne!(base, DecisionId::derive(Loop::Dial, "a", 2, at));
        let later = at.plus(std::time::Duration::from_millis(1));
        assert_ne!(base, DecisionId::derive(Loop::Dial, "a", 1, later));
        assert_eq!(base.0.get_version_num(), 8);
        assert!(base < DecisionId::derive(Loop::Dial, "a", 1, later), "ordered by event time");
    }
}
