//! What an item brought.

use std::borrow::Cow;
use std::collections::BTreeMap;

use crate::model::conversation::ConversationEvent;
use crate::model::organization::qualified;
use crate::runtime::dead_letter::Reason;

/// One event found in an item, or why it is none.
pub(in crate::sources::events) struct Found<'i> {
    /// Place in `detail` where that is a list.
    pub detail_index: Option<usize>,
    /// Who tells it, as the envelope says.
    pub(super) source: Option<Cow<'i, str>>,
    pub event: Result<ConversationEvent<'i>, NoEvent>,
    /// What to keep where it is unusable: could be sent again as it is.
    pub original: Cow<'i, [u8]>,
}

impl Found<'_> {
    /// Spells ids as those of the organisation that tells the event, where that is a further one: of
    /// `names` by the organisations' own ids.
    pub(in crate::sources::events) fn belongs_to(&mut self, names: &BTreeMap<String, String>) {
        let named = |source: &Cow<'_, str>| source.split('/').find_map(|part| names.get(part));
        let name = self.source.as_ref().filter(|_| !names.is_empty()).and_then(named);
        let (Some(name), Ok(event)) = (name, &mut self.event) else { return };
        let of = |id: &str| Cow::Owned(qualified(Some(name), id).into_owned());
        event.conversation_id = of(&event.conversation_id);
        for id in [&mut event.flow_id, &mut event.queue_id, &mut event.campaign_id].into_iter().flatten() {
            *id = of(id);
        }
    }
}

/// Why something brings no conversation event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::sources::events) enum NoEvent {
    /// The platform tells of something else on the same bus.
    Elsewhere {
        event_type: String,
    },
    Unusable(Reason),
}

impl From<Reason> for NoEvent {
    fn from(reason: Reason) -> Self {
        Self::Unusable(reason)
    }
}
