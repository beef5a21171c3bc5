//! One call of a campaign, as its events tell it.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::conversation::ConversationEvent;

/// An agent must be there within this time (`docs/compliance-definitions.md`).
const AGENT_WITHIN: Duration = Duration::from_secs(2);
/// A call that nobody has answered by then was not answered, ended or not.
const LONGEST_RING: Duration = Duration::from_secs(60);

/// What an event says about a call.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Heard<'e> {
    pub at: Timestamp,
    pub of: Part,
    /// Where the event names it; `outbound` does.
    pub campaign_id: Option<&'e str>,
    /// The event itself says that it is about a call to somebody.
    pub is_outbound: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Part {
    /// The dialer placed it.
    Placed,
    /// The called person is there.
    Answered,
    AgentJoined,
    Ended,
}

impl<'e> Heard<'e> {
    /// `None` where the event says nothing that is counted.
    pub(super) fn of(event: &'e ConversationEvent<'_>) -> Option<Self> {
        let of = match &*event.event_type {
            "outbound" => Part::Placed,
            "customer.start" => Part::Answered,
            "user.start" => Part::AgentJoined,
            "customer.end" => Part::Ended,
            _ => return None,
        };
        let is = |told: Option<&str>, word: &str| told.is_none_or(|told| told.eq_ignore_ascii_case(word));
        let (direction, campaign_id) = (event.direction.as_deref(), event.campaign_id.as_deref());
        if !is(event.media_type.as_deref(), "voice") || !is(direction, "outbound") {
            return None;
        }
        let is_outbound = direction.is_some() || campaign_id.is_some();
        Some(Self { at: event.occurred_at, of, campaign_id, is_outbound })
    }
}

/// What is known of a call. Of each part the earliest time counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Call {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<Box<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    placed_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    answered_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    agent_at: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ended_at: Option<Timestamp>,
    /// The latest event heard of.
    pub last_at: Timestamp,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_counted: bool,
}

/// What a call counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    NotAnswered,
    Delivered,
    /// Answered, and no agent was there in time.
    Abandoned,
}

impl Call {
    pub(super) fn new(heard: &Heard<'_>) -> Self {
        let mut call = Self {
            campaign_id: None,
            placed_at: None,
            answered_at: None,
            agent_at: None,
            ended_at: None,
            last_at: heard.at,
            is_counted: false,
        };
        call.hear(heard);
        call
    }

    /// Answers whether that is new.
    pub(super) fn hear(&mut self, heard: &Heard<'_>) -> bool {
        let known = match heard.of {
            Part::Placed => &mut self.placed_at,
            Part::Answered => &mut self.answered_at,
            Part::AgentJoined => &mut self.agent_at,
            Part::Ended => &mut self.ended_at,
        };
        let is_earlier = known.is_none_or(|known| heard.at < known);
        if is_earlier {
            *known = Some(heard.at);
        }
        let names = heard.campaign_id.filter(|_| self.campaign_id.is_none());
        if let Some(campaign_id) = names {
            self.campaign_id = Some(campaign_id.into());
        }
        let is_later = heard.at > self.last_at;
        self.last_at = self.last_at.max(heard.at);
        is_earlier || names.is_some() || is_later
    }

    /// When somebody was there: an agent is connected to nobody else.
    fn answered_at(&self) -> Option<Timestamp> {
        [self.answered_at, self.agent_at].into_iter().flatten().min()
    }

    /// When it can be judged; `None` while nobody knows whose call it is, and afterwards.
    pub(super) fn due(&self, settle: Duration) -> Option<Timestamp> {
        if self.is_counted || self.campaign_id.is_none() {
            return None;
        }
        let known = match (self.answered_at(), self.ended_at) {
            (Some(answered_at), _) => answered_at.plus(AGENT_WITHIN),
            (None, Some(ended_at)) => ended_at,
            (None, None) => self.placed_at.unwrap_or(self.last_at).plus(LONGEST_RING),
        };
        Some(known.plus(settle))
    }

    /// What it counts as, by what is known.
    pub(super) fn fate(&self) -> Fate {
        match (self.answered_at(), self.agent_at) {
            (None, _) => Fate::NotAnswered,
            (Some(answered_at), Some(agent_at)) if agent_at <= answered_at.plus(AGENT_WITHIN) => {
                Fate::Delivered
            }
            _ => Fate::Abandoned,
        }
    }
}
