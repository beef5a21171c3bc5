//! What an event's name says: the platform's topics, with and without ids in them.

use std::borrow::Cow;
use std::ops::Range;

use uuid::Uuid;

/// An event's type, and whose event it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name<'a> {
    /// Without any id: `customer.end`, `v2.conversations.{id}.transcription`.
    pub event_type: Cow<'a, str>,
    /// The conversation's id, where it stands in the name.
    pub conversation_id: Option<Cow<'a, str>>,
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Something that happened to a conversation.
    Conversation,
    /// The whole of a conversation as it stands: its body's own id is the conversation's.
    Snapshot,
    /// A topic of the platform's that is about something else: presence, audits and so on.
    Elsewhere,
    /// No name of the platform's.
    Foreign,
}

/// The platform's topics of conversation events begin with this, then the conversation's id.
const TOPIC: &str = "v2.detail.events.conversation.";
/// Others about conversations: the conversation's id follows.
const CONVERSATIONS: &str = "v2.conversations.";
/// All topics of the platform's.
const PLATFORM: &str = "v2.";
/// The name older integrations give the end of a conversation, and ours for it.
pub(super) const ENDED: (&str, &str) = ("ConversationEnded", "customer.end");
/// Where an id stands.
const ID: &str = "{id}";

pub(super) fn read(name: Cow<'_, str>) -> Name<'_> {
    if name.eq_ignore_ascii_case(ENDED.0) {
        let event_type = Cow::Borrowed(ENDED.1);
        return Name { event_type, conversation_id: None, kind: Kind::Conversation };
    }
    if let Some((id, event_type)) = name.strip_prefix(TOPIC).and_then(|rest| rest.split_once('.')) {
        let type_at = name.len() - event_type.len();
        let (id, event_type) = (TOPIC.len()..TOPIC.len() + id.len(), type_at..name.len());
        let (id, event_type) = (part(&name, id), part(&name, event_type));
        let conversation_id = Some(id).filter(|id| id != ID);
        let event_type = without_ids(event_type, is_platform_id);
        return Name { event_type, conversation_id, kind: Kind::Conversation };
    }
    if let Some(rest) = name.strip_prefix(CONVERSATIONS) {
        let id = rest.split('.').find(|segment| is_platform_id(segment));
        let conversation_id = id.filter(|id| *id != ID).map(|id| Cow::Owned(id.to_owned()));
        let is_snapshot = id.is_some_and(|id| rest.ends_with(id));
        let kind = if is_snapshot { Kind::Snapshot } else { Kind::Conversation };
        return Name { event_type: without_ids(name, is_platform_id), conversation_id, kind };
    }
    let (is_id, kind): (fn(&str) -> bool, _) = match name.starts_with(PLATFORM) {
        true => (is_platform_id, Kind::Elsewhere),
        false => (is_uuid, Kind::Foreign),
    };
    Name { event_type: without_ids(name, is_id), conversation_id: None, kind }
}

/// A part of a name, borrowed where the name is.
fn part<'a>(name: &Cow<'a, str>, at: Range<usize>) -> Cow<'a, str> {
    match name {
        Cow::Borrowed(name) => Cow::Borrowed(&name[at]),
        Cow::Owned(name) => Cow::Owned(name[at].to_owned()),
    }
}

/// The same name for all events of a kind: how many there are must not grow with the ids.
fn without_ids(name: Cow<'_, str>, is_id: impl Fn(&str) -> bool) -> Cow<'_, str> {
    let version = |index| index == 0;
    let has_id =
        name.split('.').enumerate().any(|(index, part)| !version(index) && part != ID && is_id(part));
    if !has_id {
        return name;
    }
    let parts = name.split('.').enumerate();
    let parts: Vec<&str> =
        parts.map(|(index, part)| if !version(index) && is_id(part) { ID } else { part }).collect();
    Cow::Owned(parts.join("."))
}

/// The words in the platform's names are letters only.
fn is_platform_id(segment: &str) -> bool {
    segment == ID || segment.bytes().any(|byte| byte.is_ascii_digit())
}

fn is_uuid(segment: &str) -> bool {
    segment == ID || (segment.len() == 36 && Uuid::try_parse(segment).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const UUID: &str = "94f127ac-14ed-427d-8f7a-319994d6dcf1";

    fn of(name: &str) -> (String, Option<String>, Kind) {
        let name = read(Cow::Borrowed(name));
        (name.event_type.into_owned(), name.conversation_id.map(Cow::into_owned), name.kind)
    }

    #[test]
    fn ids_within_names_are_no_part_of_the_type() {
        let of_conversation =
            |event_type: &str, id: Option<&str>, kind| (event_type.to_owned(), id.map(str::to_owned), kind);
        for (name, expected) in [
            (
                "v2.detail.events.conversation.{id}.flow.end".to_owned(),
                of_conversation("flow.end", None, Kind::Conversation),
            ),
            (
                format!("v2.detail.events.conversation.{UUID}.flow.end"),
                of_conversation("flow.end", Some(UUID), Kind::Conversation),
            ),
            (
                "v2.detail.events.conversation.c.acw".to_owned(),
                of_conversation("acw", Some("c"), Kind::Conversation),
            ),
            (
                "v2.conversations.{id}.transcription".to_owned(),
                of_conversation("v2.conversations.{id}.transcription", None, Kind::Conversation),
            ),
            (
                format!("v2.conversations.{UUID}.transcription"),
                of_conversation("v2.conversations.{id}.transcription", Some(UUID), Kind::Conversation),
            ),
            (
                format!("v2.conversations.{UUID}"),
                of_conversation("v2.conversations.{id}", Some(UUID), Kind::Snapshot),
            ),
            (
                "v2.conversations.{id}".to_owned(),
                of_conversation("v2.conversations.{id}", None, Kind::Snapshot),
            ),
            (
                format!("v2.users.{UUID}.presence"),
                of_conversation("v2.users.{id}.presence", None, Kind::Elsewhere),
            ),
            (
                "v2.audits.entitytype.{id}.entityid.4711".to_owned(),
                of_conversation("v2.audits.entitytype.{id}.entityid.{id}", None, Kind::Elsewhere),
            ),
            ("conversationENDED".to_owned(), of_conversation("customer.end", None, Kind::Conversation)),
            (format!("shop.order2.{UUID}"), of_conversation("shop.order2.{id}", None, Kind::Foreign)),
            ("customer.end".to_owned(), of_conversation("customer.end", None, Kind::Foreign)),
        ] {
            assert_eq!(of(&name), expected, "{name}");
        }
    }
}
