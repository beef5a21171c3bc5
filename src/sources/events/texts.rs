//! Cuts a body into JSON texts that stand one after another, however they are separated: by
//! white space of any kind, commas, record separators (RFC 7464), byte order marks, or by
//! nothing. An array stands for its elements.
//!
//! What is broken costs itself alone. A text that is well formed ends where it ends; one that
//! is not ends before whatever looks like the beginning of another: an object at the beginning
//! of a line, or one that follows directly on an object's end, as happens nowhere within JSON.

use serde::Deserialize;
use serde::de::IgnoredAny;

use super::body::{Item, Items, MAX_ITEM_DEPTH};
use crate::model::ingest::Refusal;
use crate::model::json;

/// Before each text of a JSON text sequence.
const RECORD_SEPARATOR: u8 = 0x1e;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
/// Finding out where broken texts end may take looking at each byte so often on average; after
/// that a text ends where another may begin, so that no body costs more than in proportion to
/// its length.
const MAX_LOOKS: usize = 16;

/// Whether there is nothing but what separates texts.
pub(super) fn is_empty(body: &[u8]) -> bool {
    separators(body, false) == body.len()
}

/// Whether the first text is an array.
pub(super) fn is_array(body: &[u8]) -> bool {
    body.get(separators(body, false)) == Some(&b'[')
}

/// The body as one item.
pub(super) fn whole(body: &[u8]) -> Item<'_> {
    let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body).trim_ascii();
    Item { bytes: body, flaw: json::scan(body, MAX_ITEM_DEPTH).flaw }
}

/// Cuts a body into its texts and the elements of those that are arrays. They need not be
/// well formed; with each comes what it reads as, where it reads as that.
///
/// # Errors
/// When there are more than `limit`.
pub(super) fn cut<'b, T: Deserialize<'b>>(body: &'b [u8], limit: usize) -> Result<Items<'b, T>, Refusal> {
    let mut cutter = Cutter { body, at: 0, looked_at: 0, items: Vec::new(), limit };
    cutter.cut()?;
    Ok(cutter.items)
}

/// Cuts a list that is known to be well-formed JSON into its elements.
pub(super) fn elements(list: &str) -> Items<'_, IgnoredAny> {
    cut(list.as_bytes(), usize::MAX).expect("no limit is reached")
}

struct Cutter<'b, T> {
    body: &'b [u8],
    at: usize,
    /// Bytes looked at so far, each as often as it was.
    looked_at: usize,
    items: Items<'b, T>,
    limit: usize,
}

impl<'b, T: Deserialize<'b>> Cutter<'b, T> {
    fn cut(&mut self) -> Result<(), Refusal> {
        loop {
            self.at += separators(&self.body[self.at..], true);
            match self.body.get(self.at) {
                None => return Ok(()),
                Some(b'[') => self.array()?,
                Some(_) => self.text(false)?,
            }
        }
    }

    /// From an array's bracket to behind its end.
    fn array(&mut self) -> Result<(), Refusal> {
        self.at += 1;
        let mut first = true;
        loop {
            self.at += separators(&self.body[self.at..], false);
            match self.body.get(self.at) {
                Some(b']') if first => break,
                // Nothing where an element is due, or never closed: an item that cannot be used.
                None | Some(b',' | b']') => {
                    self.push(Item { bytes: &self.body[self.at..self.at], flaw: None }, None)?
                }
                Some(_) => self.text(true)?,
            }
            first = false;
            self.at += separators(&self.body[self.at..], false);
            match self.body.get(self.at) {
                Some(b',') => self.at += 1,
                Some(b']') => break,
                None if self.items.last().is_some_and(|(item, _)| item.bytes.is_empty()) => return Ok(()),
                // One that is never closed, or an element that follows on another without a comma.
                _ => {}
            }
        }
        self.at += 1;
        Ok(())
    }

    /// One text, well formed or not.
    fn text(&mut self, in_array: bool) -> Result<(), Refusal> {
        let mut rest = &self.body[self.at..];
        if self.looked_at > MAX_LOOKS * self.body.len() {
            rest = &rest[..next_begin(rest, false).unwrap_or(rest.len())];
        }
        let scan = json::scan(rest, MAX_ITEM_DEPTH);
        let text = Some(&rest[..scan.end]).filter(|text| scan.closed && !text.is_empty());
        let read = text.and_then(|text| serde_json::from_slice(text).ok());
        let is_whole = read.is_some() || text.is_some_and(is_json);
        let end = if is_whole { scan.end } else { broken_end(rest, scan.end, scan.closed, in_array) };
        self.looked_at += scan.end.max(end);
        self.at += end;
        self.push(Item { bytes: rest[..end].trim_ascii(), flaw: scan.flaw }, read)
    }

    fn push(&mut self, item: Item<'b>, read: Option<T>) -> Result<(), Refusal> {
        if self.items.len() == self.limit {
            return Err(Refusal::TooMany { events: self.limit + 1, limit: self.limit });
        }
        self.items.push((item, read));
        Ok(())
    }
}

/// Bytes that separate texts; `commas` count as such between them, not within an array.
fn separators(bytes: &[u8], commas: bool) -> usize {
    let mut at = 0;
    loop {
        match bytes[at..] {
            [b' ' | b'\t' | b'\r' | b'\n' | RECORD_SEPARATOR, ..] => at += 1,
            [b',', ..] if commas => at += 1,
            [0xef, 0xbb, 0xbf, ..] => at += BYTE_ORDER_MARK.len(),
            _ => return at,
        }
    }
}

fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<IgnoredAny>(text).is_ok()
}

/// Where a broken text ends, which seems to end at `end` by its brackets; never at 0.
fn broken_end(bytes: &[u8], end: usize, closed: bool, in_array: bool) -> usize {
    // Framed by another system: no text begins in there.
    if bytes.first() == Some(&0) {
        return line_end(bytes, 1);
    }
    let opened = matches!(bytes.first(), Some(b'{' | b'['));
    if let Some(begin) = next_begin(&bytes[..end], opened && closed) {
        return begin;
    }
    // What follows up to the next text is a part of it.
    let is_end = |byte: &u8| {
        matches!(byte, b'\n' | b'\r' | b',' | b'{' | b'[' | &RECORD_SEPARATOR) || (in_array && *byte == b']')
    };
    let from = if opened || in_array { end.max(1) } else { 1.min(bytes.len()) };
    bytes[from..].iter().position(is_end).map_or(bytes.len(), |at| from + at)
}

/// Where another text begins within a broken one. One whose brackets are closed is left whole
/// but for what begins a line.
fn next_begin(bytes: &[u8], closed: bool) -> Option<usize> {
    memchr::memchr2_iter(b'{', RECORD_SEPARATOR, bytes).filter(|at| *at > 0).find(|at| {
        let before = &bytes[..*at];
        let before = before.strip_suffix(BYTE_ORDER_MARK).unwrap_or(before);
        let follows_on_object = || !closed && before.trim_ascii_end().last() == Some(&b'}');
        bytes[*at] == RECORD_SEPARATOR || matches!(before.last(), Some(b'\n' | b'\r')) || follows_on_object()
    })
}

/// The end of the line that `from` is in.
fn line_end(bytes: &[u8], from: usize) -> usize {
    let is_end = |byte: &u8| matches!(byte, b'\n' | b'\r' | &RECORD_SEPARATOR);
    bytes[from..].iter().position(is_end).map_or(bytes.len(), |at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn texts(body: &str) -> Vec<&str> {
        let items = cut::<IgnoredAny>(body.as_bytes(), 1_000).expect("items");
        items
            .iter()
            .map(|(item, _)| std::str::from_utf8(item.bytes).expect("cut between characters"))
            .collect()
    }

    #[test]
    fn texts_are_told_apart_however_they_are_separated() {
        let (a, b, c) = (r#"{"a":1}"#, r#"{"b":{"}{":[2,3]}}"#, r#"{"c":"x\"}{"}"#);
        for separator in [
            "\n",
            "\r\n",
            "\r",
            " ",
            "\t",
            ",",
            ", ",
            ",\n",
            "",
            "\n\n",
            "\n\u{1e}",
            "\u{feff}",
            "\n\u{feff}",
        ] {
            let body = [a, b, c].join(separator);
            assert_eq!(texts(&body), [a, b, c], "separated by {separator:?}");
            assert_eq!(texts(&format!("\u{feff}{body}\n")), [a, b, c], "separated by {separator:?}");
        }
        assert_eq!(texts(&format!("\u{1e}{a}\n\u{1e}{b}\n")), [a, b]);
        let pretty = |text: &str| {
            serde_json::to_string_pretty(&serde_json::from_str::<serde_json::Value>(text).unwrap()).unwrap()
        };
        let long = [a, b, c].map(pretty);
        assert_eq!(texts(&long.join("\n")), long);
        assert_eq!(texts(&long.join(",\n")), long);
        assert_eq!(texts(&long.concat()), long);
        let unindented = "{\n\"a\":\n{\n\"b\": 1}\n}";
        assert_eq!(texts(unindented), [unindented]);
    }

    #[test]
    fn an_array_stands_for_its_elements_wherever_it_is() {
        for (body, expected) in [
            ("\u{feff} [1, {\"a\":[2,3]} ,\"x,]\"]\n", vec!["1", r#"{"a":[2,3]}"#, r#""x,]""#]),
            ("[]", vec![]),
            ("[1,2]\n[3]{\"a\":1}", vec!["1", "2", "3", r#"{"a":1}"#]),
            (r#"[{"a":1}{"b":2},3]"#, vec![r#"{"a":1}"#, r#"{"b":2}"#, "3"]),
        ] {
            assert_eq!(texts(body), expected, "{body}");
        }
        assert!(matches!(cut::<IgnoredAny>(b"[1,2,3]", 2), Err(Refusal::TooMany { limit: 2, .. })));
        assert!(matches!(cut::<IgnoredAny>(b"1 2 3", 2), Err(Refusal::TooMany { limit: 2, .. })));
    }

    #[test]
    fn a_broken_element_leaves_its_neighbours_whole() {
        for (body, expected) in [
            (r#"[{"a":1},{nonsense},{"b":2}]"#, vec![r#"{"a":1}"#, "{nonsense}", r#"{"b":2}"#]),
            (r#"[{"a":1},nonsense here,{"b":2}]"#, vec![r#"{"a":1}"#, "nonsense here", r#"{"b":2}"#]),
            (r#"[{"a":1},,{"b":2}]"#, vec![r#"{"a":1}"#, "", r#"{"b":2}"#]),
            (r#"[{"a":1},]"#, vec![r#"{"a":1}"#, ""]),
            (r#"[{"a":1},{"b":2}"#, vec![r#"{"a":1}"#, r#"{"b":2}"#, ""]),
            (r#"[{"a":1}] x"#, vec![r#"{"a":1}"#, "x"]),
            ("[\n{\"a\":1},\n{\"b\":\n{\"c\":3}\n]", vec![r#"{"a":1}"#, r#"{"b":"#, r#"{"c":3}"#]),
            ("[", vec![""]),
        ] {
            assert_eq!(texts(body), expected, "{body}");
        }
    }

    #[test]
    fn a_broken_text_costs_itself_alone_and_keeps_its_bytes() {
        for (body, expected) in [
            ("{\"a\":1} trailing", vec!["{\"a\":1}", "trailing"]),
            ("{\"a\":\n{\"b\":2}", vec!["{\"a\":", "{\"b\":2}"]),
            ("{\"a\":\r{\"b\":2}\r{\"c\":3}", vec!["{\"a\":", "{\"b\":2}", "{\"c\":3}"]),
            ("nonsense here\n{}\n", vec!["nonsense here", "{}"]),
            ("nonsense {\"a\":1}", vec!["nonsense", "{\"a\":1}"]),
            ("{\"a\":1}{nonsense}{\"b\":2}", vec!["{\"a\":1}", "{nonsense}", "{\"b\":2}"]),
            ("{\"a\":1},{nonsense}}},{\"b\":2}", vec!["{\"a\":1}", "{nonsense}}}", "{\"b\":2}"]),
            ("{\"a\":{\"x\":1}{\"b\":2}", vec!["{\"a\":{\"x\":1}", "{\"b\":2}"]),
            ("{\"a\":\"never closed}\n{\"b\":\"2\"}\n", vec!["{\"a\":\"never closed}", "{\"b\":\"2\"}"]),
            ("\u{1e}{\"a\":\n\u{1e}{\"b\":2}\n", vec!["{\"a\":", "{\"b\":2}"]),
            (
                "{\n  \"a\": [\n    {\"x\" 1},\n    {\"y\": 2}\n  ]\n}\n{\n  \"b\": 2\n}",
                vec!["{\n  \"a\": [\n    {\"x\" 1},\n    {\"y\": 2}\n  ]\n}", "{\n  \"b\": 2\n}"],
            ),
            ("\0\0\0\0\u{1}{}", vec!["\0\0\0\0\u{1}{}"]),
        ] {
            assert_eq!(texts(body), expected, "{body}");
        }
    }

    #[test]
    fn a_body_of_broken_texts_costs_no_more_than_in_proportion_to_its_length() {
        for text in ["{\"a\":\n", "{{}", "{\"a\n"] {
            let body = text.repeat(50_000);
            let body = body.as_bytes();
            let mut cutter =
                Cutter::<IgnoredAny> { body, at: 0, looked_at: 0, items: Vec::new(), limit: usize::MAX };
            cutter.cut().expect("no limit is reached");
            assert_eq!(cutter.items.len(), 50_000, "{text}");
            assert!(cutter.looked_at <= (MAX_LOOKS + 2) * body.len(), "{} for {text}", cutter.looked_at);
        }
    }

    proptest! {
        #[test]
        fn whatever_comes_is_cut_without_harm(body in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(items) = cut::<IgnoredAny>(&body, 1_000) {
                prop_assert!(items.iter().map(|(item, _)| item.bytes.len()).sum::<usize>() <= body.len());
            }
        }

        /// No byte that is not a separator is lost: what is set aside can be mended.
        #[test]
        fn what_is_broken_is_kept_whole(body in "[\\[\\]{}\":,a1 \n]{0,60}") {
            let items = cut::<IgnoredAny>(body.as_bytes(), 1_000).unwrap();
            let kept: usize = items.iter().flat_map(|(item, _)| item.bytes).filter(|byte| b"{}\":a1".contains(byte)).count();
            prop_assert_eq!(kept, body.bytes().filter(|byte| b"{}\":a1".contains(byte)).count());
        }

        #[test]
        fn good_values_come_back_whole(
            values in prop::collection::vec("[a-z,\\[\\]{}\"\\\\]{0,20}", 0..8),
            separator in "[ \t\r\n,\u{1e}]{0,3}",
        ) {
            let values: Vec<String> =
                values.iter().map(|value| serde_json::json!({"id": value, "list": [value]}).to_string()).collect();
            let array = format!("[{}]", values.join(" , "));
            prop_assert_eq!(texts(&array), values.clone());
            let stream = values.join(&separator);
            prop_assert_eq!(texts(&stream), values);
        }
    }
}
