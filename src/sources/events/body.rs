//! From the body of a request to its items, each judged by itself: one that is broken
//! does not take its neighbours along.

use std::borrow::Cow;

use axum::http::{HeaderMap, header};

use crate::model::ingest::Refusal;
use crate::model::json::{self, Flaw, MAX_DEPTH};
use crate::runtime::dead_letter::Reason;

/// How the body says its items.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    /// One value, an array of them, or one per line: told apart by looking.
    Json,
    /// One value per line.
    Lines,
    /// A CloudEvent in structured mode.
    CloudEvent,
    /// An array of CloudEvents.
    CloudEventBatch,
    /// A CloudEvent in binary mode: the body is its data.
    Binary(CloudAttributes),
}

/// A CloudEvent's attributes from the headers of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CloudAttributes {
    pub specversion: String,
    pub id: Option<String>,
    pub r#type: Option<String>,
    pub time: Option<String>,
}

/// One item of a body as it stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item<'b> {
    pub bytes: &'b [u8],
    /// The first flaw found while looking for the item's end.
    pub flaw: Option<Flaw>,
}

/// Largest item, in bytes: what its topic holds.
const MAX_ITEM: usize = crate::topics::CONVERSATION_EVENTS.max_message_bytes;
/// An event's detail stands one level deep in its record.
pub const MAX_ITEM_DEPTH: usize = MAX_DEPTH - 1;

impl Form {
    /// # Errors
    /// When the headers announce something that is not read here.
    pub fn of(headers: &HeaderMap) -> Result<Self, Refusal> {
        if let Some(encoding) = headers.get(header::CONTENT_ENCODING)
            && !encoding.as_bytes().eq_ignore_ascii_case(b"identity")
        {
            return Err(unsupported("bodies are read as they are, without content-encoding"));
        }
        let Some(content_type) = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok())
        else {
            return Err(unsupported("content-type is missing; send application/json"));
        };
        let (media_type, parameters) = content_type.split_once(';').unwrap_or((content_type, ""));
        let media_type = media_type.trim().to_ascii_lowercase();
        if !is_utf8(parameters) {
            return Err(unsupported("only UTF-8 is read"));
        }
        let binary = headers.get("ce-specversion");
        match media_type.as_str() {
            "application/cloudevents+json" => Ok(Form::CloudEvent),
            "application/cloudevents-batch+json" => Ok(Form::CloudEventBatch),
            "application/json" | "text/json" => Ok(match binary {
                Some(_) => Form::Binary(CloudAttributes::of(headers)),
                None => Form::Json,
            }),
            "application/x-ndjson" | "application/ndjson" | "application/jsonl" if binary.is_none() => {
                Ok(Form::Lines)
            }
            other => Err(unsupported(&format!(
                "{other} is not read; send application/json, application/x-ndjson or application/cloudevents+json"
            ))),
        }
    }

    /// Cuts the body into its items.
    ///
    /// # Errors
    /// When it holds nothing, or more than `limit` items.
    pub fn items<'b>(&self, body: &'b [u8], limit: usize) -> Result<Vec<Item<'b>>, Refusal> {
        let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
        if body.is_empty() {
            return Err(Refusal::Malformed("the body is empty".to_owned()));
        }
        let is_array = body[0] == b'[';
        match self {
            Form::Lines => lines(body, limit),
            Form::Json | Form::CloudEventBatch if is_array => array(body, limit),
            Form::CloudEventBatch => Err(Refusal::Malformed("a batch of CloudEvents is an array".to_owned())),
            Form::Json => {
                let item = whole(body);
                // A line behind the first that opens an object: one value per line.
                let more = body.split(|byte| *byte == b'\n').skip(1);
                let looks_like_lines = !(item.closed && item.end == body.len())
                    && more.into_iter().any(|line| line.trim_ascii_start().starts_with(b"{"));
                if looks_like_lines { lines(body, limit) } else { Ok(vec![item.item]) }
            }
            Form::CloudEvent | Form::Binary(_) => Ok(vec![whole(body).item]),
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
        }
    }
}

impl<'b> Item<'b> {
    /// The item as text, if it can be an event at all.
    ///
    /// # Errors
    /// Why it cannot.
    pub fn text(&self) -> Result<&'b str, Reason> {
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
pub fn reason(flaw: &Flaw) -> Reason {
    match flaw {
        Flaw::TooDeep(_) => Reason::TooDeep,
        Flaw::NulCharacter => Reason::NulCharacter,
        other => Reason::Rejected(other.to_string()),
    }
}

/// Cuts an array into its elements, which need not be well formed.
///
/// # Errors
/// When there are more than `limit`.
pub fn array(json: &[u8], limit: usize) -> Result<Vec<Item<'_>>, Refusal> {
    let mut items = Vec::new();
    let mut at = 1;
    loop {
        at += leading_space(&json[at..]);
        if json.get(at) == Some(&b']') && items.is_empty() {
            at += 1;
            break;
        }
        let element = element(json, at);
        at = element.end;
        push(&mut items, element.item, limit)?;
        at += leading_space(&json[at..]);
        let delimiter = json.get(at).copied();
        at = (at + 1).min(json.len());
        match delimiter {
            Some(b',') => {}
            Some(_) => break,
            // Never closed: what is missing is an item too, one that cannot be used.
            None => {
                push(&mut items, Item { bytes: &json[json.len()..], flaw: None }, limit)?;
                break;
            }
        }
    }
    let behind = json[at..].trim_ascii();
    if !behind.is_empty() {
        push(&mut items, Item { bytes: behind, flaw: None }, limit)?;
    }
    Ok(items)
}

struct Cut<'b> {
    item: Item<'b>,
    end: usize,
    closed: bool,
}

/// Everything from `start` to the next comma or bracket that belongs to the array.
fn element(json: &[u8], start: usize) -> Cut<'_> {
    let (mut at, mut flaw) = (start, None);
    let closed = loop {
        let scan = json::scan(&json[at..], MAX_ITEM_DEPTH);
        at += scan.end;
        flaw = flaw.or(scan.flaw);
        let space = leading_space(&json[at..]);
        match json.get(at + space) {
            None | Some(b',' | b']') => break scan.closed,
            // Something else behind the value: it makes the element unusable.
            Some(_) => at += space + 1,
        }
    };
    Cut { item: Item { bytes: json[start..at].trim_ascii(), flaw }, end: at, closed }
}

fn whole(body: &[u8]) -> Cut<'_> {
    let scan = json::scan(body, MAX_ITEM_DEPTH);
    Cut { item: Item { bytes: body, flaw: scan.flaw }, end: scan.end, closed: scan.closed }
}

fn lines(body: &[u8], limit: usize) -> Result<Vec<Item<'_>>, Refusal> {
    let mut items = Vec::new();
    for line in body.split(|byte| *byte == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.is_empty()) {
        push(&mut items, whole(line).item, limit)?;
    }
    Ok(items)
}

fn push<'b>(items: &mut Vec<Item<'b>>, item: Item<'b>, limit: usize) -> Result<(), Refusal> {
    if items.len() == limit {
        return Err(Refusal::TooMany { events: items.len() + 1, limit });
    }
    items.push(item);
    Ok(())
}

fn leading_space(bytes: &[u8]) -> usize {
    bytes.len() - bytes.trim_ascii_start().len()
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
        charset.eq_ignore_ascii_case("utf-8") || charset.eq_ignore_ascii_case("us-ascii")
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
    use proptest::prelude::*;

    fn cut(form: &Form, body: &str) -> Vec<String> {
        let items = form.items(body.as_bytes(), 1_000).expect("items");
        items.iter().map(|item| String::from_utf8_lossy(item.bytes).into_owned()).collect()
    }

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), value.parse().unwrap()))
            .collect()
    }

    #[test]
    fn one_value_an_array_and_lines_are_told_apart() {
        for (body, expected) in [
            (r#"{"a":1}"#, vec![r#"{"a":1}"#]),
            ("{\n  \"a\": {\n  \"b\": 1}\n}", vec!["{\n  \"a\": {\n  \"b\": 1}\n}"]),
            ("\u{feff} [1, {\"a\":[2,3]} ,\"x,]\"]\n", vec!["1", r#"{"a":[2,3]}"#, r#""x,]""#]),
            ("{\"a\":1}\r\n\n{\"b\":2}\n", vec![r#"{"a":1}"#, r#"{"b":2}"#]),
            ("{\"a\":\n{\"b\":2}", vec![r#"{"a":"#, r#"{"b":2}"#]),
            ("[]", vec![]),
            ("{\"a\":1} trailing", vec!["{\"a\":1} trailing"]),
        ] {
            assert_eq!(cut(&Form::Json, body), expected, "{body}");
        }
        assert_eq!(cut(&Form::Lines, "nonsense\n{}\n"), ["nonsense", "{}"]);
        assert!(matches!(Form::Json.items(b" \n", 10), Err(Refusal::Malformed(_))));
        assert!(matches!(Form::Json.items(b"[1,2,3]", 2), Err(Refusal::TooMany { limit: 2, .. })));
    }

    #[test]
    fn a_broken_element_leaves_its_neighbours_whole() {
        for (body, expected) in [
            (r#"[{"a":1},{nonsense},{"b":2}]"#, vec![r#"{"a":1}"#, "{nonsense}", r#"{"b":2}"#]),
            (r#"[{"a":1},,{"b":2}]"#, vec![r#"{"a":1}"#, "", r#"{"b":2}"#]),
            (r#"[{"a":1}{"b":2},3]"#, vec![r#"{"a":1}{"b":2}"#, "3"]),
            (r#"[{"a":1},]"#, vec![r#"{"a":1}"#, ""]),
            (r#"[{"a":1},{"b":2}"#, vec![r#"{"a":1}"#, r#"{"b":2}"#, ""]),
            (r#"[{"a":1}] x"#, vec![r#"{"a":1}"#, "x"]),
            ("[", vec!["", ""]),
        ] {
            assert_eq!(cut(&Form::Json, body), expected, "{body}");
        }
    }

    #[test]
    fn headers_say_the_form_or_are_refused() {
        let form = |pairs: &[(&'static str, &str)]| Form::of(&headers(pairs));
        assert_eq!(form(&[("content-type", "application/json; charset=UTF-8")]), Ok(Form::Json));
        assert_eq!(form(&[("content-type", "Application/X-NDJSON")]), Ok(Form::Lines));
        assert_eq!(form(&[("content-type", "application/cloudevents+json")]), Ok(Form::CloudEvent));
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
        };
        assert_eq!(binary, Ok(Form::Binary(attributes)));
        for refused in [
            &[][..],
            &[("content-type", "text/plain")],
            &[("content-type", "application/x-www-form-urlencoded")],
            &[("content-type", "application/json; charset=latin1")],
            &[("content-type", "application/json"), ("content-encoding", "gzip")],
        ] {
            assert!(matches!(form(refused), Err(Refusal::UnsupportedMediaType(_))), "{refused:?}");
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_without_harm(body in prop::collection::vec(any::<u8>(), 0..200)) {
            for form in [Form::Json, Form::Lines, Form::CloudEventBatch] {
                if let Ok(items) = form.items(&body, 1_000) {
                    prop_assert!(items.iter().map(|item| item.bytes.len()).sum::<usize>() <= body.len());
                }
            }
        }

        #[test]
        fn good_values_come_back_whole(values in prop::collection::vec("[a-z,\\[\\]{}\"\\\\]{0,20}", 0..8)) {
            let values: Vec<String> =
                values.iter().map(|value| serde_json::json!({"id": value, "list": [value]}).to_string()).collect();
            prop_assert_eq!(cut(&Form::Json, &format!("[{}]", values.join(" , "))), values.clone());
            if !values.is_empty() {
                prop_assert_eq!(cut(&Form::Json, &values.join("\n")), values);
            }
        }
    }
}
