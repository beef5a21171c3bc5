//! The conversations the platform knows of, as its analytics will tell them.

use std::borrow::Cow;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;

use crate::time::Timestamp;

/// Conversations held before the oldest are forgotten.
pub(crate) const MAX_CONVERSATIONS: usize = 500_000;

/// One conversation that has ended. Analytics know it from `available_at` on.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Conversation {
    pub conversation_id: Uuid,
    pub conversation_start: Timestamp,
    pub conversation_end: Timestamp,
    /// When a details query finds it, by the machine's clock.
    pub available_at: Timestamp,
    /// As analytics spell it: `voice`, `chat` …
    pub media_type: Cow<'static, str>,
    /// `inbound` or `outbound`.
    pub originating_direction: Cow<'static, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flow_version: Option<Arc<str>>,
    /// How it left the flow.
    #[serde(skip)]
    pub exit_reason: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub campaign_id: Option<Arc<str>>,
    /// The agent who took it, if one did.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub user_id: Option<Arc<str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wrap_up_code: Option<Arc<str>>,
    /// After-call work.
    pub wrap_up_ms: u64,
}

/// A page of the conversations, oldest registration first.
#[derive(Debug, Serialize)]
pub(crate) struct ConversationPage {
    pub items: Vec<Conversation>,
    /// What to pass as `since` for those after these; null when there are none yet.
    pub next: Option<u64>,
    /// Registrations so far.
    pub last: u64,
    /// Conversations forgotten because there were too many.
    pub dropped: u64,
}

/// A bounded store. Registering an id again replaces what was known of it.
#[derive(Debug)]
pub(crate) struct Conversations {
    known: HashMap<Uuid, Conversation>,
    /// Ids in the order of their first registration.
    order: VecDeque<Uuid>,
    registered: u64,
    max: usize,
}

impl Conversations {
    pub(crate) fn new() -> Self {
        Self { known: HashMap::new(), order: VecDeque::new(), registered: 0, max: MAX_CONVERSATIONS }
    }

    pub(crate) fn register(&mut self, conversation: Conversation) {
        let id = conversation.conversation_id;
        if self.known.insert(id, conversation).is_none() {
            self.order.push_back(id);
            self.registered += 1;
        }
        while self.order.len() > self.max {
            let Some(oldest) = self.order.pop_front() else { break };
            self.known.remove(&oldest);
        }
    }

    /// The conversation, if analytics know it by now.
    pub(crate) fn available(&self, id: Uuid, now: Timestamp) -> Option<&Conversation> {
        self.get(id).filter(|conversation| conversation.available_at <= now)
    }

    /// The conversation, whether analytics know it yet or not.
    pub(crate) fn get(&self, id: Uuid) -> Option<&Conversation> {
        self.known.get(&id)
    }

    /// Oldest registration first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Conversation> {
        self.order.iter().filter_map(|id| self.known.get(id))
    }

    /// Those first registered after the `since`-th, at most `limit`.
    pub(crate) fn page(&self, since: u64, limit: usize) -> ConversationPage {
        let dropped = self.registered - self.order.len() as u64;
        let skipped = since.saturating_sub(dropped);
        let items: Vec<Conversation> = self
            .order
            .iter()
            .skip(usize::try_from(skipped).unwrap_or(usize::MAX))
            .take(limit)
            .filter_map(|id| self.known.get(id).cloned())
            .collect();
        let reached = dropped + skipped + items.len() as u64;
        let next = (!items.is_empty() && reached < self.registered).then_some(reached);
        ConversationPage { items, next, last: self.registered, dropped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn conversation(number: u128, available_at: i64) -> Conversation {
        Conversation {
            conversation_id: Uuid::from_u128(number),
            conversation_start: Timestamp::from_millis(0),
            conversation_end: Timestamp::from_millis(10),
            available_at: Timestamp::from_millis(available_at),
            media_type: "voice".into(),
            originating_direction: "inbound".into(),
            flow_id: None,
            flow_version: None,
            exit_reason: None,
            queue_id: None,
            campaign_id: None,
            user_id: None,
            wrap_up_code: None,
            wrap_up_ms: 0,
        }
    }

    #[test]
    fn a_conversation_is_found_from_its_moment_on_and_replaced_by_its_id() {
        let mut conversations = Conversations::new();
        conversations.register(conversation(1, 50));
        let found = |conversations: &Conversations, now| {
            conversations.available(Uuid::from_u128(1), Timestamp::from_millis(now)).is_some()
        };
        assert!(!found(&conversations, 49) && found(&conversations, 50));
        conversations.register(conversation(1, 90));
        assert!(!found(&conversations, 89) && found(&conversations, 90));
        assert_eq!(conversations.page(0, 10).last, 1);
    }

    #[test]
    fn pages_follow_each_other_and_the_oldest_go() {
        let mut conversations = Conversations { max: 5, ..Conversations::new() };
        (1..=8).for_each(|number| conversations.register(conversation(number, 0)));
        let numbers = |page: &ConversationPage| {
            page.items.iter().map(|item| item.conversation_id.as_u128()).collect::<Vec<_>>()
        };
        let first = conversations.page(0, 3);
        assert_eq!((numbers(&first), first.next, first.last, first.dropped), (vec![4, 5, 6], Some(6), 8, 3));
        let second = conversations.page(6, 3);
        assert_eq!((numbers(&second), second.next), (vec![7, 8], None));
        assert!(conversations.page(u64::MAX, 3).items.is_empty());
        assert_eq!(conversations.known.len(), 5);
    }
}
