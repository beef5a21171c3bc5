//! What JSON may hold although serde_json lets it pass: keys given twice (the last one
//! would win in silence), U+0000 and lone surrogates (Postgres stores neither), numbers
//! beyond a double. Looks at a text in one pass and finds where a value ends, well
//! formed or not; whether it is well formed serde_json tells.

use std::borrow::Cow;

use memchr::memchr2;

/// Deepest nesting of objects and lists that is read.
pub const MAX_DEPTH: usize = 127;

/// What is wrong with a value that serde_json would take.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Flaw {
    #[error("duplicate_key: \"{0}\" is given twice in one object")]
    DuplicateKey(String),
    #[error("too_deep: nested deeper than {0} levels")]
    TooDeep(usize),
    #[error("nul_character: a text holds U+0000")]
    NulCharacter,
    #[error("lone_surrogate: a text holds half of a UTF-16 pair")]
    LoneSurrogate,
    #[error("number_out_of_range: {0}")]
    NumberOutOfRange(String),
}

/// Where a value ends and the first flaw in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Scan {
    /// The byte after the value.
    pub end: usize,
    /// Whether all brackets and texts that were opened are closed at `end`.
    pub closed: bool,
    pub flaw: Option<Flaw>,
}

/// The first flaw of a value that is known to be well-formed JSON.
///
/// # Errors
/// The flaw.
pub fn check(json: &str, max_depth: usize) -> Result<(), Flaw> {
    match scan(json.as_bytes(), max_depth).flaw {
        Some(flaw) => Err(flaw),
        None => Ok(()),
    }
}

/// Walks over the value at the beginning of `json`, behind white space. Brackets may nest
/// `max_depth` deep.
pub fn scan(json: &[u8], max_depth: usize) -> Scan {
    let (frames, keys) = (Vec::with_capacity(FEW_FRAMES), Vec::with_capacity(FEW_KEYS));
    let mut walk = Walk { json, at: 0, depth: 0, max_depth, frames, keys, flaw: None };
    let closed = walk.value();
    Scan { end: walk.at, closed, flaw: walk.flaw }
}

struct Walk<'j> {
    json: &'j [u8],
    at: usize,
    depth: usize,
    max_depth: usize,
    /// One per open bracket, down to `max_depth`.
    frames: Vec<Frame>,
    /// Keys of all open objects, one object's behind the other's.
    keys: Vec<Cow<'j, [u8]>>,
    flaw: Option<Flaw>,
}

struct Frame {
    is_object: bool,
    first_key: usize,
    key_next: bool,
}

/// Most values nest no deeper.
const FEW_FRAMES: usize = 6;
/// Up to this many keys are compared each with each, more are sorted.
const FEW_KEYS: usize = 12;
/// No finite double of plain digits is longer.
const LONG_NUMBER: usize = 300;

impl<'j> Walk<'j> {
    /// Whether the value is closed at its end.
    fn value(&mut self) -> bool {
        while let Some(byte) = self.json.get(self.at) {
            match byte {
                b'"' => {
                    if !self.text() {
                        return false;
                    }
                }
                b'{' | b'[' => self.open(*byte == b'{'),
                b'}' | b']' => {
                    if self.depth == 0 {
                        return true;
                    }
                    self.close();
                }
                b',' => {
                    if self.depth == 0 {
                        return true;
                    }
                    if let Some(frame) = self.frames.last_mut() {
                        frame.key_next = frame.is_object;
                    }
                    self.at += 1;
                    continue;
                }
                b' ' | b'\t' | b'\r' | b'\n' | b':' => {
                    self.at += 1;
                    continue;
                }
                b'-' | b'0'..=b'9' => self.number(),
                _ => self.word(),
            }
            if self.depth == 0 {
                return true;
            }
        }
        false
    }

    fn open(&mut self, is_object: bool) {
        self.at += 1;
        self.depth += 1;
        if self.depth > self.max_depth {
            let max_depth = self.max_depth;
            self.found(|| Flaw::TooDeep(max_depth));
        } else if self.flaw.is_none() {
            self.frames.push(Frame { is_object, first_key: self.keys.len(), key_next: is_object });
        }
    }

    fn close(&mut self) {
        self.at += 1;
        self.depth -= 1;
        // After a flaw only the end of the value is of interest.
        if self.flaw.is_some() {
            return;
        }
        let Some(frame) = self.frames.pop() else { return };
        if let Some(key) = duplicate(&mut self.keys[frame.first_key..]) {
            let key: String = String::from_utf8_lossy(key).chars().take(100).collect();
            self.found(|| Flaw::DuplicateKey(key));
        }
        self.keys.truncate(frame.first_key);
    }

    /// Whether the text is closed.
    fn text(&mut self) -> bool {
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            let rest = &self.json[self.at..];
            let Some(found) = memchr2(b'"', b'\\', rest) else {
                self.at = self.json.len();
                return false;
            };
            self.at += found;
            if self.json[self.at] == b'"' {
                break;
            }
            escaped = true;
            self.escape();
        }
        let text = &self.json[start..self.at];
        self.at += 1;
        if self.flaw.is_none()
            && let Some(frame) = self.frames.last_mut()
            && std::mem::take(&mut frame.key_next)
        {
            self.keys.push(if escaped { unescaped(text) } else { Cow::Borrowed(text) });
        }
        true
    }

    /// At a backslash: past what it introduces.
    fn escape(&mut self) {
        let Some(code) = self.code_unit() else {
            self.at = (self.at + 2).min(self.json.len());
            return;
        };
        self.at += 6;
        match code {
            0 => self.found(|| Flaw::NulCharacter),
            0xd800..=0xdbff => match self.code_unit() {
                Some(0xdc00..=0xdfff) => self.at += 6,
                _ => self.found(|| Flaw::LoneSurrogate),
            },
            0xdc00..=0xdfff => self.found(|| Flaw::LoneSurrogate),
            _ => {}
        }
    }

    /// The `\uXXXX` at this place, if there is one.
    fn code_unit(&self) -> Option<u16> {
        let escape = self.json.get(self.at..self.at + 6)?;
        let digits = escape.strip_prefix(br"\u")?;
        digits.iter().try_fold(0u16, |value, digit| {
            let digit = char::from(*digit).to_digit(16)?;
            Some(value * 16 + digit as u16)
        })
    }

    fn number(&mut self) {
        let start = self.at;
        self.word();
        let number = &self.json[start..self.at];
        let may_be_large = number.len() > LONG_NUMBER || memchr2(b'e', b'E', number).is_some();
        if may_be_large && let Ok(number) = std::str::from_utf8(number) {
            let infinite = number.parse::<f64>().is_ok_and(f64::is_infinite);
            if infinite {
                self.found(|| Flaw::NumberOutOfRange(number.chars().take(100).collect()));
            }
        }
    }

    /// Past everything that is no delimiter.
    fn word(&mut self) {
        let is_delimiter = |byte: &u8| {
            matches!(byte, b',' | b':' | b'"' | b'{' | b'}' | b'[' | b']') || byte.is_ascii_whitespace()
        };
        // Past the first byte in any case: form feed is white space to Rust, but not to JSON.
        self.at += 1;
        let rest = &self.json[self.at..];
        self.at += rest.iter().position(is_delimiter).unwrap_or(rest.len());
    }

    /// The first flaw counts.
    fn found(&mut self, flaw: impl FnOnce() -> Flaw) {
        if self.flaw.is_none() {
            self.flaw = Some(flaw());
        }
    }
}

/// A key that is there twice.
fn duplicate<'k>(keys: &'k mut [Cow<'_, [u8]>]) -> Option<&'k [u8]> {
    if keys.len() > FEW_KEYS {
        keys.sort_unstable();
        return keys.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| &*pair[0]);
    }
    let twice = (1..keys.len()).find(|at| keys[..*at].contains(&keys[*at]))?;
    Some(&keys[twice])
}

/// As the text reads; one that cannot be read is refused by serde_json.
fn unescaped(text: &[u8]) -> Cow<'_, [u8]> {
    let quoted = [b"\"", text, b"\""].concat();
    match serde_json::from_slice::<String>(&quoted) {
        Ok(read) => Cow::Owned(read.into_bytes()),
        Err(_) => Cow::Borrowed(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn flaw(json: &str) -> Option<Flaw> {
        check(json, MAX_DEPTH).err()
    }

    #[test]
    fn a_key_given_twice_in_one_object_is_found_however_it_is_spelled() {
        for json in [
            r#"{"a":1,"a":2}"#,
            r#"[0,{"x":{"a":1,"b":{"a":3},"a":[]}}]"#,
            r#"{"a":1,"\u0061":2}"#,
            r#"{"k":"a","a":{"a":1},"a":null}"#,
        ] {
            assert_eq!(flaw(json), Some(Flaw::DuplicateKey("a".into())), "{json}");
        }
        for json in [r#"{"a":{"a":1},"b":{"a":1}}"#, r#"[{"a":1},{"a":1}]"#, r#"{"a":"a","b":["a","a"]}"#] {
            assert_eq!(flaw(json), None, "{json}");
        }
        let many: Vec<String> = (0..1_000).map(|number| format!("\"k{number}\":0")).collect();
        assert_eq!(flaw(&format!("{{{}}}", many.join(","))), None);
        let twice = format!("{{{},\"k500\":1}}", many.join(","));
        assert_eq!(flaw(&twice), Some(Flaw::DuplicateKey("k500".into())));
    }

    #[test]
    fn texts_that_postgres_refuses_are_found() {
        assert_eq!(flaw(r#"{"a":"x\u0000"}"#), Some(Flaw::NulCharacter));
        assert_eq!(flaw(r#"{"a":"\\u0000 \\\\u0000"}"#), None);
        assert_eq!(flaw(r#"{"a":"\ud83d\ude00"}"#), None);
        for json in [r#"["\ud83d"]"#, r#"["\ud83dx"]"#, r#"["\ude00"]"#, r#"["\ud83d\n"]"#] {
            assert_eq!(flaw(json), Some(Flaw::LoneSurrogate), "{json}");
        }
    }

    #[test]
    fn numbers_beyond_a_double_are_found() {
        for json in ["1e999", r#"{"a":-1E400}"#] {
            assert!(matches!(flaw(json), Some(Flaw::NumberOutOfRange(_))), "{json}");
        }
        assert!(matches!(flaw(&"9".repeat(400)), Some(Flaw::NumberOutOfRange(_))));
        for json in ["1e308", "1e-999", r#"{"a":"1e999"}"#, "12345678901234567890"] {
            assert_eq!(flaw(json), None, "{json}");
        }
    }

    #[test]
    fn depth_is_counted_outside_texts() {
        let nested = |levels: usize| format!("{}{}", "[".repeat(levels), "]".repeat(levels));
        assert_eq!(flaw(&nested(MAX_DEPTH)), None);
        assert_eq!(flaw(&nested(MAX_DEPTH + 1)), Some(Flaw::TooDeep(MAX_DEPTH)));
        assert_eq!(flaw(&format!(r#"{{"a":"\"{}"}}"#, "[".repeat(1_000))), None);
    }

    #[test]
    fn the_end_is_found_in_good_and_in_broken_values() {
        for (json, end, closed) in [
            (r#"{"a":[1,"}"]},{"b":1}"#, 13, true),
            ("  12 , 13", 4, true),
            (r#""a\"b" rest"#, 6, true),
            ("{nonsense},1", 10, true),
            (r#"{"a":1"#, 6, false),
            (r#"{"a":"x"#, 7, false),
            (r#"{"a":"x\"#, 8, false),
            ("[\u{c}]", 3, true),
            ("", 0, false),
            (",", 0, true),
        ] {
            let found = scan(json.as_bytes(), MAX_DEPTH);
            assert_eq!((found.end, found.closed), (end, closed), "{json}");
        }
    }

    proptest! {
        #[test]
        fn values_end_where_they_end_and_bytes_do_no_harm(
            text in "[\\[\\]{}\",:\\\\u0aeE. -]{0,60}",
            before in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut read = serde_json::Deserializer::from_str(&text).into_iter::<serde::de::IgnoredAny>();
            if let Some(Ok(_)) = read.next() {
                prop_assert_eq!(scan(text.as_bytes(), MAX_DEPTH).end, read.byte_offset());
            }
            let found = scan(&before, MAX_DEPTH);
            prop_assert!(found.end <= before.len());
        }
    }
}
