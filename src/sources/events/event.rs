//! From one item to conversation events: EventBridge envelopes and CloudEvents.

mod envelope;
mod found;

use std::borrow::Cow;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{self, Deserializer};
use serde_json::value::RawValue;

use super::body::{self, CloudAttributes, Item, MAX_ITEM_DEPTH};
use super::names::{self, Kind};
use super::{identity, texts};
use crate::model::Timestamp;
use crate::model::conversation::{ConversationEvent, outcome_of};
use crate::model::json;
use crate::runtime::dead_letter::{AheadOf, Reason};
use crate::runtime::watermark::is_from_the_future;

pub(super) use envelope::Envelope;
use envelope::{Frame, Text};
pub(super) use found::{Found, NoEvent};

/// What the platform tells, in the shape of its event stream (`topicName`, `eventBody`) or flat.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Detail<'a> {
    #[serde(borrow)]
    topic_name: Option<Text<'a>>,
    #[serde(borrow)]
    event_body: Option<Box<Detail<'a>>>,
    #[serde(borrow)]
    timestamp: Option<Text<'a>>,
    #[serde(borrow)]
    id: Option<Text<'a>>,
    #[serde(borrow)]
    event_type: Option<Text<'a>>,
    #[serde(borrow, deserialize_with = "event_time")]
    event_time: Option<EventTime<'a>>,
    #[serde(borrow)]
    conversation_id: Option<Text<'a>>,
    #[serde(borrow)]
    flow_id: Option<Text<'a>>,
    #[serde(borrow)]
    flow_version: Option<TextOrNumber<'a>>,
    #[serde(borrow)]
    queue_id: Option<Text<'a>>,
    #[serde(borrow)]
    outbound_campaign_id: Option<Text<'a>>,
    #[serde(borrow)]
    campaign_id: Option<Text<'a>>,
    #[serde(borrow)]
    media_type: Option<Text<'a>>,
    #[serde(borrow)]
    direction: Option<Text<'a>>,
    #[serde(borrow)]
    exit_reason: Option<Text<'a>>,
    #[serde(borrow)]
    flow_outcome_value: Option<Text<'a>>,
}

/// An envelope around a list is kept with each of its elements up to this length, in bytes.
const MAX_KEPT_FRAME: usize = 4_096;

/// Hands each event of an item to `take`, or why it is none. `envelope` is what the item reads as.
/// `attributes` are those of a CloudEvent in binary mode, whose data the item is then.
pub(super) fn read(
    (item, envelope): &(Item<'_>, Option<Envelope<'_>>),
    attributes: Option<&CloudAttributes>,
    received_at: Timestamp,
    mut take: impl FnMut(Found<'_>),
) {
    let refuse = |reason: Reason| Found {
        detail_index: None,
        source: None,
        event: Err(reason.into()),
        original: item.bytes.into(),
    };
    let text = match item.text() {
        Ok(text) => text,
        Err(reason) => return take(refuse(reason)),
    };
    let read = match attributes {
        Some(attributes) => read_binary(item, text, attributes, received_at, &mut take),
        None => read_envelope(item, text, envelope.as_ref(), received_at, &mut take),
    };
    if let Err(reason) = read {
        take(refuse(reason));
    }
}

fn read_envelope(
    item: &Item<'_>,
    text: &str,
    envelope: Option<&Envelope<'_>>,
    received_at: Timestamp,
    take: &mut impl FnMut(Found<'_>),
) -> Result<(), Reason> {
    // A list's elements are judged one by one, so a flaw is no verdict on all of them yet.
    let read_here;
    let envelope = match envelope {
        Some(envelope) => envelope,
        None => {
            read_here = serde_json::from_str(text).map_err(|error| match &item.flaw {
                Some(flaw) => body::reason(flaw),
                None => Reason::BadJson(error.to_string()),
            })?;
            &read_here
        }
    };
    let frame = Frame { received_at: Some(received_at), ..Frame::of(envelope) };
    if let Some(version) = &envelope.specversion {
        known_version(&version.0)?;
        let encoded = envelope.data_base64.as_ref().map(|data| data.0.as_ref());
        return match (envelope.data, encoded) {
            (Some(data), None) => read_detail(item, text, data, &frame, take),
            (None, Some(encoded)) => read_encoded(item, encoded, &frame, take),
            _ => Err(rejected("no_data: a CloudEvent needs either data or data_base64")),
        };
    }
    match envelope.detail {
        Some(detail) => read_detail(item, text, detail, &frame, take),
        None => Err(rejected("no_detail: neither an EventBridge envelope with detail nor a CloudEvent")),
    }
}

fn read_binary(
    item: &Item<'_>,
    text: &str,
    attributes: &CloudAttributes,
    received_at: Timestamp,
    take: &mut impl FnMut(Found<'_>),
) -> Result<(), Reason> {
    known_version(&attributes.specversion)?;
    if let Some(flaw) = &item.flaw {
        return Err(body::reason(flaw));
    }
    let data: &RawValue = serde_json::from_str(text).map_err(|error| Reason::BadJson(error.to_string()))?;
    let borrowed = |text: &Option<String>| text.clone().map(Cow::Owned);
    let frame = Frame {
        id: borrowed(&attributes.id),
        name: borrowed(&attributes.r#type),
        time: borrowed(&attributes.time),
        source: borrowed(&attributes.source),
        received_at: Some(received_at),
    };
    read_detail(item, text, data, &frame, take)
}

/// Data that is JSON in base64.
fn read_encoded(
    item: &Item<'_>,
    encoded: &str,
    frame: &Frame<'_>,
    take: &mut impl FnMut(Found<'_>),
) -> Result<(), Reason> {
    let decoded = STANDARD.decode(encoded).map_err(|_| rejected("bad_base64: data_base64 is no base64"))?;
    let decoded = Item { flaw: json::scan(&decoded, MAX_ITEM_DEPTH).flaw, bytes: &decoded };
    let text = decoded.text()?;
    if let Some(flaw) = item.flaw.as_ref().or(decoded.flaw.as_ref()) {
        return Err(body::reason(flaw));
    }
    let data: &RawValue = serde_json::from_str(text).map_err(|error| Reason::BadJson(error.to_string()))?;
    let mut kept = |found: Found<'_>| take(Found { original: item.bytes.into(), ..found });
    read_detail(&decoded, text, data, frame, &mut kept)
}

fn read_detail(
    item: &Item<'_>,
    text: &str,
    detail: &RawValue,
    frame: &Frame<'_>,
    take: &mut impl FnMut(Found<'_>),
) -> Result<(), Reason> {
    match detail.get().as_bytes().first() {
        Some(b'{') => {
            if let Some(flaw) = &item.flaw {
                return Err(body::reason(flaw));
            }
            let event = event(detail, frame, true);
            take(Found {
                detail_index: None,
                source: frame.source.clone(),
                event,
                original: item.bytes.into(),
            });
            Ok(())
        }
        Some(b'[') => read_list(item, text, detail, frame, take),
        _ => Err(rejected("detail_not_object: detail must be an object or a list of objects")),
    }
}

fn read_list(
    item: &Item<'_>,
    text: &str,
    detail: &RawValue,
    frame: &Frame<'_>,
    take: &mut impl FnMut(Found<'_>),
) -> Result<(), Reason> {
    let list = detail.get();
    let start = list.as_ptr() as usize - text.as_ptr() as usize;
    let (before, after) = (&text[..start], &text[start + list.len()..]);
    if item.flaw.is_some() {
        // Is it in the envelope itself?
        json::check(&format!("{before}0{after}"), MAX_ITEM_DEPTH).map_err(|flaw| body::reason(&flaw))?;
    }
    for (index, (element, _)) in texts::elements(list).iter().enumerate() {
        let event = match &element.flaw {
            Some(flaw) => Err(body::reason(flaw).into()),
            None => element.text().map_err(NoEvent::from).and_then(|text| {
                let detail: &RawValue =
                    serde_json::from_str(text).map_err(|error| Reason::BadJson(error.to_string()))?;
                if text.starts_with('{') {
                    event(detail, frame, false)
                } else {
                    Err(rejected("detail_not_object: each element of detail must be an object").into())
                }
            }),
        };
        let original = match &event {
            Err(_) if before.len() + after.len() <= MAX_KEPT_FRAME => {
                [before.as_bytes(), element.bytes, after.as_bytes()].concat().into()
            }
            _ => Cow::Borrowed(element.bytes),
        };
        take(Found { detail_index: Some(index), source: frame.source.clone(), event, original });
    }
    Ok(())
}

/// `alone`: the envelope's id is that of this event.
fn event<'a>(raw: &'a RawValue, frame: &Frame<'a>, alone: bool) -> Result<ConversationEvent<'a>, NoEvent> {
    let detail: Detail<'a> =
        serde_json::from_str(raw.get()).map_err(|error| Reason::BadJson(error.to_string()))?;
    let mut own_id = some(detail.id.clone());
    let timestamp = detail.timestamp.clone();
    let (topic_name, body, is_flat) = match detail.event_body {
        Some(body) => (detail.topic_name, *body, false),
        None => (detail.topic_name.clone(), detail, true),
    };
    let name = some(topic_name).or_else(|| some(body.event_type.clone())).or_else(|| frame.name.clone());
    let name = names::read(name.unwrap_or(Cow::Borrowed(names::ENDED.0)));
    let mut conversation_id = body.conversation_id.map(|id| id.0).or(name.conversation_id);
    if name.kind == Kind::Snapshot {
        conversation_id = conversation_id.or_else(|| some(body.id.clone()));
        own_id = own_id.filter(|_| !is_flat);
    }
    let event_type = name.event_type;
    let Some(conversation_id) = conversation_id else {
        if name.kind == Kind::Elsewhere {
            return Err(NoEvent::Elsewhere { event_type: event_type.into_owned() });
        }
        return Err(rejected("conversation_missing: conversationId is needed").into());
    };
    let occurred_at = match body.event_time.map(|EventTime(told)| told) {
        Some(Ok(at)) => at,
        Some(Err(told)) => {
            let told: String = told.chars().take(100).collect();
            let why = "neither milliseconds since 1970 nor an RFC 3339 time";
            return Err(rejected(format!("bad_time: eventTime {told} is {why}")).into());
        }
        None => {
            let told = some(timestamp).or_else(|| some(body.timestamp)).or_else(|| frame.time.clone());
            match told.filter(|time| !time.is_empty()) {
                Some(text) => text.parse().map_err(|error| rejected(format!("bad_time: {error}")))?,
                None => frame.received_at.unwrap_or_default(),
            }
        }
    };
    let event_id = match own_id.or_else(|| frame.id.clone().filter(|_| alone)) {
        Some(id) => id,
        None => Cow::Owned(identity::of(&event_type, raw.get())),
    };
    let ending = body.exit_reason.as_ref().or(body.flow_outcome_value.as_ref());
    let outcome = outcome_of(&event_type, ending.map(|value| value.0.as_ref()));
    let event = ConversationEvent {
        event_id,
        occurred_at,
        conversation_id,
        flow_id: some(body.flow_id),
        flow_version: body.flow_version.map(|version| version.0).filter(|version| !version.is_empty()),
        queue_id: some(body.queue_id),
        campaign_id: some(body.outbound_campaign_id.or(body.campaign_id)),
        media_type: some(body.media_type),
        direction: some(body.direction),
        outcome,
        event_type,
        detail: Some(raw),
    };
    event.validate_fields().map_err(|invalid| rejected(invalid.to_string()))?;
    let received_at = frame.received_at.unwrap_or_default();
    if is_from_the_future(event.occurred_at, received_at) {
        let by_ms = event.occurred_at.millis_since(received_at);
        return Err(Reason::FromTheFuture { by_ms, ahead_of: AheadOf::Reader }.into());
    }
    Ok(event)
}

/// The platform writes empty text where it knows nothing.
fn some(text: Option<Text<'_>>) -> Option<Cow<'_, str>> {
    text.map(|text| text.0).filter(|text| !text.is_empty())
}

fn known_version(version: &str) -> Result<(), Reason> {
    if version == "1.0" {
        return Ok(());
    }
    let version: String = version.chars().take(20).collect();
    Err(rejected(format!("cloudevents_version: {version} is not read, 1.0 is")))
}

fn rejected(why: impl Into<String>) -> Reason {
    Reason::Rejected(why.into())
}

/// Milliseconds since the Unix epoch, as a number or in quotes, or RFC 3339; what is none of
/// them, as it stands there.
struct EventTime<'a>(Result<Timestamp, &'a str>);

impl<'de: 'a, 'a> EventTime<'a> {
    fn read(raw: &'de RawValue) -> Option<Self> {
        let told = raw.get();
        // Beyond what can be written down the cast stops at the ends of the range.
        let millis = |text: &str| match text.parse::<i64>() {
            Ok(millis) => Some(Timestamp::from_millis(millis)),
            Err(_) => text.parse::<f64>().ok().map(|millis| Timestamp::from_millis(millis as i64)),
        };
        let read = match told.as_bytes().first() {
            Some(b'-' | b'0'..=b'9') => millis(told),
            Some(b'"') => {
                let text: Cow<'_, str> =
                    serde_json::from_str::<Text<'_>>(told).map_or_else(|_| told.into(), |text| text.0);
                if text.is_empty() {
                    return None;
                }
                let digits = text.bytes().all(|byte| byte.is_ascii_digit());
                if digits { millis(&text) } else { text.parse().ok() }
            }
            _ => None,
        };
        Some(Self(read.ok_or(told)))
    }
}

/// The time, where there is one: empty text is none.
fn event_time<'de: 'a, 'a, D: Deserializer<'de>>(deserializer: D) -> Result<Option<EventTime<'a>>, D::Error> {
    let raw: Option<&'de RawValue> = Deserialize::deserialize(deserializer)?;
    Ok(raw.and_then(EventTime::read))
}

/// Versions are text, but some senders write `12.0` without quotes.
struct TextOrNumber<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for TextOrNumber<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: &'de RawValue = Deserialize::deserialize(deserializer)?;
        let text = raw.get();
        match text.as_bytes().first() {
            Some(b'"') => serde_json::from_str(text).map(|Text(text)| Self(text)).map_err(de::Error::custom),
            Some(b'-' | b'0'..=b'9') => Ok(Self(Cow::Borrowed(text))),
            _ => Err(de::Error::custom("text or a number is expected")),
        }
    }
}

#[cfg(test)]
mod tests;
