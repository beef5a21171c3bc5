//! The filter of the event analytics: `consumerGroup IN ['a', 'b'] AND eventType IN ['c']`.

use std::collections::BTreeSet;

/// What may be asked for; nothing said about a dimension means everything.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct EventFilter {
    consumer_groups: Option<BTreeSet<String>>,
    event_types: Option<BTreeSet<String>>,
}

impl EventFilter {
    /// Reads a filter. Quotes inside a name are written `\'` or `''`, a backslash `\\`. The
    /// braces the seed's own code puts around the names (`[{'a', 'b'}]`) are taken too.
    ///
    /// # Errors
    /// What cannot be read, and where.
    pub(super) fn read(text: &str) -> Result<Self, String> {
        let mut reader = Reader { rest: text.trim(), read: text };
        let mut filter = Self::default();
        loop {
            let dimension = reader.word()?;
            reader.keyword("IN")?;
            let names = reader.names()?;
            let place = match dimension {
                "consumerGroup" => &mut filter.consumer_groups,
                "eventType" => &mut filter.event_types,
                other => return Err(format!("unknown dimension {other:?} in the filter")),
            };
            if place.replace(names).is_some() {
                return Err(format!("{dimension} stands twice in the filter"));
            }
            if reader.rest.is_empty() {
                return Ok(filter);
            }
            reader.keyword("AND")?;
        }
    }

    pub(super) fn admits(&self, consumer_group: &str, event_type: &str) -> bool {
        let within = |names: &Option<BTreeSet<String>>, name: &str| {
            names.as_ref().is_none_or(|names| names.contains(name))
        };
        within(&self.consumer_groups, consumer_group) && within(&self.event_types, event_type)
    }
}

/// What is still to be read, without leading blanks.
struct Reader<'a> {
    rest: &'a str,
    read: &'a str,
}

impl<'a> Reader<'a> {
    fn fail<T>(&self, expected: &str) -> Result<T, String> {
        let at = self.read.len() - self.rest.len();
        Err(format!("the filter cannot be read: {expected} expected at byte {at}"))
    }

    fn move_to(&mut self, rest: &'a str) {
        self.rest = rest.trim_start();
    }

    fn word(&mut self) -> Result<&'a str, String> {
        let end = self.rest.find(|letter: char| !letter.is_ascii_alphanumeric()).unwrap_or(self.rest.len());
        if end == 0 {
            return self.fail("a word");
        }
        let word = &self.rest[..end];
        self.move_to(&self.rest[end..]);
        Ok(word)
    }

    fn keyword(&mut self, wanted: &str) -> Result<(), String> {
        match self.word() {
            Ok(word) if word.eq_ignore_ascii_case(wanted) => Ok(()),
            _ => self.fail(wanted),
        }
    }

    fn takes(&mut self, mark: char) -> bool {
        let Some(rest) = self.rest.strip_prefix(mark) else { return false };
        self.move_to(rest);
        true
    }

    fn names(&mut self) -> Result<BTreeSet<String>, String> {
        if !self.takes('[') {
            return self.fail("[");
        }
        let braced = self.takes('{');
        let mut names = BTreeSet::new();
        loop {
            names.insert(self.name()?);
            if !self.takes(',') {
                break;
            }
        }
        if braced && !self.takes('}') {
            return self.fail("}");
        }
        if !self.takes(']') {
            return self.fail("]");
        }
        Ok(names)
    }

    fn name(&mut self) -> Result<String, String> {
        let Some(quoted) = self.rest.strip_prefix('\'') else { return self.fail("a name in single quotes") };
        let mut name = String::new();
        let mut letters = quoted.char_indices().peekable();
        while let Some((at, letter)) = letters.next() {
            match letter {
                '\\' => match letters.next() {
                    Some((_, escaped)) => name.push(escaped),
                    None => break,
                },
                '\'' if letters.peek().is_some_and(|next| next.1 == '\'') => {
                    letters.next();
                    name.push('\'');
                }
                '\'' => {
                    self.move_to(&quoted[at + 1..]);
                    return Ok(name);
                }
                letter => name.push(letter),
            }
        }
        self.fail("the closing quote of a name")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_however_they_are_quoted() {
        let admits = |text: &str, group: &str| EventFilter::read(text).unwrap().admits(group, "e");
        for text in
            ["consumerGroup IN ['a', 'b']", " consumerGroup in['b','a' ] ", "consumerGroup IN [{'a', 'b'}]"]
        {
            assert!(admits(text, "a") && admits(text, "b") && !admits(text, "c"), "{text}");
        }
        assert!(admits(r"consumerGroup IN ['agent\'s', 'x']", "agent's"));
        assert!(admits("consumerGroup IN ['agent''s']", "agent's"));
        assert!(admits(r"consumerGroup IN ['\'] OR x IN [\'', 'back\\slash']", r"back\slash"));
        let both = EventFilter::read("consumerGroup IN ['a'] AND eventType IN ['e', 'f']").unwrap();
        assert!(both.admits("a", "f") && !both.admits("a", "g") && !both.admits("b", "f"));
    }

    #[test]
    fn what_is_no_filter_is_told_where() {
        for text in [
            "",
            "consumerGroup",
            "consumerGroup IN",
            "consumerGroup IN []",
            "consumerGroup IN ['a'",
            "consumerGroup IN ['a]",
            "consumerGroup = 'a'",
            "queue IN ['a']",
            "consumerGroup IN ['a'] x",
            "consumerGroup IN [{'a']",
            "consumerGroup IN ['a'] AND consumerGroup IN ['b']",
            r"consumerGroup IN ['a\",
            "consumerGroup IN ['a'] OR eventType IN ['b']",
            "consumerGroup IN ['agent's']",
        ] {
            assert!(EventFilter::read(text).is_err(), "{text}");
        }
        let problem = EventFilter::read("consumerGroup IN ['a' 'b']").unwrap_err();
        assert!(problem.contains("byte 22"), "{problem}");
    }
}
