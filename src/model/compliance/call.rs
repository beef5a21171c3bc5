//! One call of a campaign: what is known of it and what became of it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;

/// An agent must be there within this time, after the greeting (16 CFR 310.4(b)(4)(iii),
/// 47 CFR 64.1200(a)(7)).
pub(super) const AGENT_WITHIN: Duration = Duration::from_secs(2);

/// Who answered a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AnsweredBy {
    /// Call analysis says a person, or the call was answered and nothing says by whom: counting
    /// it as a person's is the safe side.
    Person,
    /// Answering machine, fax or a network announcement.
    Machine,
    /// Busy, no answer, failed.
    Nobody,
}

/// What is known of one call. Times are as far as they are told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Call {
    pub conversation_id: String,
    pub campaign_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contact_id: Option<String>,
    /// The campaign's number and the called one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_number: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to_number: Option<String>,
    pub placed_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered_at: Option<Timestamp>,
    /// When it was transferred to the queue.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<Timestamp>,
    /// When the first agent was there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent_at: Option<Timestamp>,
    /// When a recorded message or a flow began that the called person heard instead of an agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    pub answered_by: AnsweredBy,
    /// An agent took part, even where it is not told when.
    pub reached_agent: bool,
    /// The platform itself counts it as abandoned; absent where it does not say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned_by_platform: Option<bool>,
    /// Whether the call's parts are told, so that a missing queue or message is one that was not.
    pub parts_told: bool,
}

/// What a call counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disposition {
    /// A person answered and an agent was there in time.
    PassedToAgent,
    /// A person answered and no agent was there in time, whoever hung up first: that is not told
    /// reliably.
    Abandoned,
    Machine,
    NotAnswered,
}

impl Disposition {
    pub const ALL: [Disposition; 4] =
        [Disposition::PassedToAgent, Disposition::Abandoned, Disposition::Machine, Disposition::NotAnswered];

    pub fn name(self) -> &'static str {
        match self {
            Disposition::PassedToAgent => "passed_to_agent",
            Disposition::Abandoned => "abandoned",
            Disposition::Machine => "machine",
            Disposition::NotAnswered => "not_answered",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|disposition| disposition.name() == name)
    }
}

/// What the person of an abandoned call heard.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MessageHeard {
    /// The recorded message, in time.
    InTime,
    /// The recorded message, too late.
    Late,
    /// Nothing.
    Silence,
    /// It is not told.
    NotTold,
}

impl MessageHeard {
    pub const ALL: [MessageHeard; 4] =
        [MessageHeard::InTime, MessageHeard::Late, MessageHeard::Silence, MessageHeard::NotTold];

    pub fn name(self) -> &'static str {
        match self {
            MessageHeard::InTime => "in_time",
            MessageHeard::Late => "late",
            MessageHeard::Silence => "silence",
            MessageHeard::NotTold => "not_told",
        }
    }

    pub fn of_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|heard| heard.name() == name)
    }
}

/// What calls are judged by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Rules {
    /// From the answer to the end of the called person's greeting, 0 to 3000 ms: the law's two
    /// seconds begin there.
    pub greeting_allowance_ms: u32,
}

impl Rules {
    /// From the answer until an agent must be there, in ms.
    fn limit_ms(self) -> i64 {
        AGENT_WITHIN.as_millis() as i64 + i64::from(self.greeting_allowance_ms)
    }
}

impl Call {
    /// The moment that decides which windows the call counts in.
    pub fn counted_at(&self) -> Timestamp {
        self.answered_at.unwrap_or(self.placed_at)
    }

    pub fn disposition(&self, rules: Rules) -> Disposition {
        match self.answered_by {
            AnsweredBy::Nobody => return Disposition::NotAnswered,
            AnsweredBy::Machine => return Disposition::Machine,
            AnsweredBy::Person => {}
        }
        match self.agent_at.map(|at| at.millis_since(self.counted_at())) {
            Some(waited_ms) if waited_ms <= rules.limit_ms() => Disposition::PassedToAgent,
            Some(_) => Disposition::Abandoned,
            // When is not told; that somebody was there is.
            None if self.reached_agent => Disposition::PassedToAgent,
            None => Disposition::Abandoned,
        }
    }

    /// What the person heard, of a call that was abandoned.
    pub fn heard(&self, rules: Rules) -> MessageHeard {
        match self.message_at.map(|at| at.millis_since(self.counted_at())) {
            Some(waited_ms) if waited_ms <= rules.limit_ms() => MessageHeard::InTime,
            Some(_) => MessageHeard::Late,
            None if self.parts_told => MessageHeard::Silence,
            None => MessageHeard::NotTold,
        }
    }

    /// Whether the platform's own figure counts it as abandoned: as the platform says, else
    /// nobody within two seconds of the queue. `None` for a call that reached no queue, as far
    /// as is told.
    pub fn abandoned_in_queue(&self) -> Option<bool> {
        let queued_at = self.queued_at?;
        let waited_ms = self.agent_at.map(|agent_at| agent_at.millis_since(queued_at));
        let too_long = waited_ms.is_none_or(|waited_ms| waited_ms > AGENT_WITHIN.as_millis() as i64);
        let late = too_long && !(self.agent_at.is_none() && self.reached_agent);
        Some(self.abandoned_by_platform.unwrap_or(late))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) fn at(ms: i64) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000 + ms)
    }

    /// A call that a person answered at 0 and nobody took.
    pub(crate) fn answered(id: &str) -> Call {
        Call {
            conversation_id: id.to_owned(),
            campaign_id: "campaign".to_owned(),
            contact_id: None,
            from_number: None,
            to_number: None,
            placed_at: at(-9_000),
            answered_at: Some(at(0)),
            queued_at: None,
            agent_at: None,
            message_at: None,
            ended_at: None,
            answered_by: AnsweredBy::Person,
            reached_agent: false,
            abandoned_by_platform: None,
            parts_told: false,
        }
    }

    const NO_GREETING: Rules = Rules { greeting_allowance_ms: 0 };
    const LONG_GREETING: Rules = Rules { greeting_allowance_ms: 3_000 };

    #[test]
    fn two_seconds_themselves_are_in_time_and_the_greeting_comes_before_them() {
        let taken = |ms| Call { agent_at: Some(at(ms)), reached_agent: true, ..answered("c") };
        for (ms, rules, expected) in [
            (2_000, NO_GREETING, Disposition::PassedToAgent),
            (2_001, NO_GREETING, Disposition::Abandoned),
            (5_000, LONG_GREETING, Disposition::PassedToAgent),
            (5_001, LONG_GREETING, Disposition::Abandoned),
        ] {
            assert_eq!(taken(ms).disposition(rules), expected, "{ms} ms");
        }
    }

    #[test]
    fn who_answered_decides_and_nobody_there_is_abandoned() {
        for (call, expected) in [
            (answered("c"), Disposition::Abandoned),
            (Call { ended_at: Some(at(200)), ..answered("c") }, Disposition::Abandoned),
            (Call { reached_agent: true, ..answered("c") }, Disposition::PassedToAgent),
            (Call { answered_by: AnsweredBy::Machine, ..answered("c") }, Disposition::Machine),
            (Call { answered_by: AnsweredBy::Nobody, ..answered("c") }, Disposition::NotAnswered),
        ] {
            assert_eq!(call.disposition(NO_GREETING), expected, "{call:?}");
        }
    }

    #[test]
    fn silence_is_told_only_where_a_message_would_be() {
        let heard = |message: Option<i64>, parts_told| {
            Call { message_at: message.map(at), parts_told, ..answered("c") }.heard(NO_GREETING)
        };
        assert_eq!(heard(Some(2_000), true), MessageHeard::InTime);
        assert_eq!(heard(Some(2_001), true), MessageHeard::Late);
        assert_eq!(heard(None, true), MessageHeard::Silence);
        assert_eq!(heard(None, false), MessageHeard::NotTold);
    }

    #[test]
    fn the_platforms_clock_starts_at_the_queue_and_its_own_word_goes_first() {
        let queued = Call { queued_at: Some(at(4_000)), ..answered("c") };
        let taken = |ms| Call { agent_at: Some(at(ms)), reached_agent: true, ..queued.clone() };
        assert_eq!(answered("c").abandoned_in_queue(), None);
        assert_eq!(queued.abandoned_in_queue(), Some(true));
        assert_eq!(taken(6_000).abandoned_in_queue(), Some(false), "two seconds after the queue");
        assert_eq!(taken(6_001).abandoned_in_queue(), Some(true));
        assert_eq!(taken(6_000).disposition(NO_GREETING), Disposition::Abandoned, "six after the answer");
        let said = Call { abandoned_by_platform: Some(false), ..taken(9_000) };
        assert_eq!(said.abandoned_in_queue(), Some(false));
    }
}
