//! From the body of a request to its items, each judged by itself: one that is broken
//! does not take its neighbours along.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};
use serde::Deserialize;

use crate::model::ingest::Refusal;
use crate::model::json::{Flaw, MAX_DEPTH};
use crate::runtime::dead_letter::Reason;

use super::texts;

/// How the body says its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// JSON texts one after another, however separated; an array stands for its elements.
    Json,
    /// An array of CloudEvents.
    CloudEventBatch,
    /// A CloudEvent in binary mode: the body is its data.
    Binary(CloudAttributes),
}

/// A CloudEvent's attributes from the headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct CloudAttributes {
    pub specversion: String,
    pub id: Option<String>,
    pub r#type: Option<String>,
    pub time: Option<String>,
    pub source: Option<String>,
}

/// Content types of JSON texts one after another.
const SEQUENCES: &[&str] = &[
    "application/x-ndjson",
    "application/ndjson",
    "application/jsonl",
    "application/jsonlines",
    "application/x-jsonlines",
    "application/json-seq",
];

/// One item of a body as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item<'b> {
    pub bytes: &'b [u8],
    /// The first flaw found while looking for the item's end.
    pub flaw: Option<Flaw>,
}

/// Items, each with what it reads as, where it reads as that.
pub(super) type Items<'b, T> = Vec<(Item<'b>, Option<T>)>;

/// Largest item, in bytes: what its topic holds.
const MAX_ITEM: usize = crate::topics::CONVERSATION_EVENTS.max_message_bytes;
/// An event's detail stands one level deep in its record.
pub(super) const MAX_ITEM_DEPTH: usize = MAX_DEPTH - 1;

impl Form {
    /// By the content type; without one it is taken for JSON.
    ///
    /// # Errors
    /// When the headers announce something that is not read here.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        let content_type = match headers.get(header::CONTENT_TYPE) {
            None => "",
            Some(value) => value.to_str().map_err(|_| unsupported("content-type is no ASCII text"))?,
        };
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let media_type = media_type.trim().to_ascii_lowercase();
        if !is_utf8(parameters) {
            return Err(unsupported("another charset than UTF-8 is not read; send charset=utf-8, or none"));
        }
        let is_json = matches!(media_type.as_str(), "" | "application/json" | "text/json")
            || media_type.starts_with("application/") && media_type.ends_with("+json");
        let is_sequence = SEQUENCES.contains(&media_type.as_str());
        match media_type.as_str() {
            "application/cloudevents+json" => Ok(Form::Json),
            "application/cloudevents-batch+json" => Ok(Form::CloudEventBatch),
            _ if is_json && headers.contains_key("ce-specversion") => {
                Ok(Form::Binary(CloudAttributes::of(headers)))
            }
            _ if is_json || is_sequence => Ok(Form::Json),
            other => Err(unsupported(&format!(
                "{:?} is not read; send application/json, another application/…+json, {} or application/cloudevents+json",
                other.chars().take(100).collect::<String>(),
                SEQUENCES.join(", ")
            ))),
        }
    }

    /// Cuts the body into its items and reads them, but for the data of a CloudEvent in binary mode.
    ///
    /// # Errors
    /// When it holds nothing, or more than `limit` items.
    pub(super) fn items<'b, T: Deserialize<'b>>(
        &self,
        body: &'b [u8],
        limit: usize,
    ) -> Result<Items<'b, T>, Refusal> {
        if texts::is_empty(body) {
            return Err(Refusal::Malformed("the body is empty".to_owned()));
        }
        match self {
            Form::Json => texts::cut(body, limit),
            Form::CloudEventBatch if texts::is_array(body) => texts::cut(body, limit),
            Form::CloudEventBatch => Err(Refusal::Malformed("a batch of CloudEvents is an array".to_owned())),
            Form::Binary(_) => Ok(vec![(texts::whole(body), None)]),
        }
    }
}

impl CloudAttributes {
    fn of(headers: &HeaderMap) -> Self {
        let attribute = |name: &str| headers.get(name).map(|value| percent_decoded(value.as_bytes()));
        Self {
            specversion: attribute("ce-specversion").unwrap_or_default(),
            id: attribute("ce-id"),
            r#type: attribute("ce-type"),
            time: attribute("ce-time"),
            source: attribute("ce-source"),
        }
    }
}

impl<'b> Item<'b> {
    /// The item as text, if it can be an event at all.
    ///
    /// # Errors
    /// Why it cannot.
    pub(super) fn text(&self) -> Result<&'b str, Reason> {
        if self.bytes.first() == Some(&0) {
            return Err(Reason::SchemaRegistryFraming);
        }
        if self.bytes.len() > MAX_ITEM {
            return Err(Reason::TooLarge { bytes: self.bytes.len(), limit: MAX_ITEM });
        }
        let text = std::str::from_utf8(self.bytes)
            .map_err(|error| Reason::InvalidUtf8 { at: error.valid_up_to() })?;
        if memchr::memchr(0, self.bytes).is_some() {
            return Err(Reason::NulCharacter);
        }
        Ok(text)
    }
}

/// What a flaw is called where records are set aside.
pub(super) fn reason(flaw: &Flaw) -> Reason {
    match flaw {
        Flaw::TooDeep(_) => Reason::TooDeep,
        Flaw::NulCharacter => Reason::NulCharacter,
        other => Reason::Rejected(other.to_string()),
    }
}

fn unsupported(detail: &str) -> Refusal {
    Refusal::UnsupportedMediaType(detail.to_owned())
}

/// Whether a content type's parameters leave the text UTF-8.
fn is_utf8(parameters: &str) -> bool {
    let charset =
        parameters.split(';').filter_map(|parameter| parameter.split_once('=')).find_map(|(name, value)| {
            name.trim().eq_ignore_ascii_case("charset").then(|| value.trim().trim_matches('"'))
        });
    charset.is_none_or(|charset| {
        ["utf-8", "utf8", "us-ascii", ""].iter().any(|known| charset.eq_ignore_ascii_case(known))
    })
}

/// As CloudEvents' HTTP binding writes header values.
fn percent_decoded(value: &[u8]) -> String {
    let mut decoded = Vec::with_capacity(value.len());
    let mut at = 0;
    while at < value.len() {
        let digits = value.get(at + 1..at + 3).and_then(|digits| std::str::from_utf8(digits).ok());
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) if value[at] == b'%' => {
                decoded.push(byte);
                at += 3;
            }
            _ => {
                decoded.push(value[at]);
                at += 1;
            }
        }
    }
    match String::from_utf8_lossy(&decoded) {
        Cow::Borrowed(text) => text.to_owned(),
        Cow::Owned(text) => text,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn headers_say_the_form_or_are_refused() {
        let form = |pairs: &[(&'static str, &str)]| Form::of(&headers(pairs));
        for json in [
            "",
            " ; charset=utf8",
            "application/json; charset=UTF-8",
            "application/json;charset=\"utf8\"",
            "application/x+json",
            "application/vnd.amazon.eventbridge+json",
            "Application/X-NDJSON",
            "application/json-seq",
            "application/cloudevents+json",
        ] {
            assert_eq!(form(&[("content-type", json)]), Ok(Form::Json), "{json}");
        }
        assert_eq!(form(&[]), Ok(Form::Json), "none at all");
        assert_eq!(
            form(&[("content-type", "application/cloudevents-batch+json")]),
            Ok(Form::CloudEventBatch)
        );
        let binary = form(&[
            ("content-type", "application/json"),
            ("ce-specversion", "1.0"),
            ("ce-id", "a%20%C3%BC%zz"),
            ("ce-type", "ConversationEnded"),
        ]);
        let attributes = CloudAttributes {
            specversion: "1.0".into(),
            id: Some("a ü%zz".into()),
            r#type: Some("ConversationEnded".into()),
            time: None,
            source: None,
        };
        assert_eq!(binary, Ok(Form::Binary(attributes)));
        for refused in [
            &[("content-type", "text/plain")][..],
            &[("content-type", "image/svg+xml")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "application/json; charset=latin1")],
        ] {
            let Err(Refusal::UnsupportedMediaType(why)) = form(refused) else { panic!("{refused:?}") };
            assert!(why.contains("application/json") || why.contains("utf-8"), "what is taken: {why}");
        }
    }
}
