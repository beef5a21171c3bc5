//! Lists of tables as values of one key: each field is asked for by name, and everything
//! that is wrong is told with its place and without its value.

use std::collections::BTreeSet;

use toml::{Table, Value as Toml};

/// What is wrong inside a value. Says what is allowed there and never what was found: that
/// may be a secret that stands in the wrong place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Such as `[2].role`, counted from 1; empty where it is the value itself.
    pub place: String,
    pub allowed: String,
}

/// One table of a list.
pub(super) struct Item<'t> {
    table: &'t Table,
    place: String,
    known: BTreeSet<&'static str>,
    faults: Vec<Fault>,
}

impl<'t> Item<'t> {
    /// A text that must be there.
    pub(super) fn text(
        &mut self,
        field: &'static str,
        allowed: &str,
        good: impl FnOnce(&str) -> bool,
    ) -> Option<&'t str> {
        let text = self.field(field).and_then(Toml::as_str).filter(|text| good(text));
        if text.is_none() {
            self.fault(field, allowed);
        }
        text
    }

    /// A list of different texts, none empty; left out it is empty.
    pub(super) fn texts(&mut self, field: &'static str) -> Vec<&'t str> {
        let Some(value) = self.field(field) else { return Vec::new() };
        let texts: Option<Vec<&str>> = value.as_array().and_then(|items| {
            items.iter().map(|item| item.as_str().filter(|text| !text.trim().is_empty())).collect()
        });
        match texts {
            Some(texts) if texts.iter().collect::<BTreeSet<_>>().len() == texts.len() => texts,
            _ => {
                self.fault(field, "a list of different texts, none empty");
                Vec::new()
            }
        }
    }

    /// A field as it stands.
    pub(super) fn field(&mut self, field: &'static str) -> Option<&'t Toml> {
        self.known.insert(field);
        self.table.get(field)
    }

    /// `field` may name something inside a field.
    pub(super) fn fault(&mut self, field: &str, allowed: impl Into<String>) {
        self.faults.push(Fault { place: format!("{}.{field}", self.place), allowed: allowed.into() });
    }

    fn unknown_fields(&mut self) {
        let known = self.known.iter().copied().collect::<Vec<_>>().join(", ");
        let unknown: Vec<_> = self
            .table
            .keys()
            .filter(|name| !self.known.contains(name.as_str()))
            .map(|name| printable(name))
            .collect();
        for name in unknown {
            self.fault(&name, format!("no such field; there are {known}"));
        }
    }
}

/// Reads a list of tables with `read`, which answers `None` after telling what is wrong.
/// The texts that `name` picks must differ.
pub(super) fn list<T>(
    items: &[Toml],
    read: impl Fn(&mut Item<'_>) -> Option<T>,
    name: impl Fn(&T) -> &str,
) -> Result<Vec<T>, Vec<Fault>> {
    let (mut values, mut faults): (Vec<T>, Vec<Fault>) = (Vec::new(), Vec::new());
    for (index, item) in items.iter().enumerate() {
        let place = format!("[{}]", index + 1);
        let Some(table) = item.as_table() else {
            faults.push(Fault { place, allowed: "a table: { … }".into() });
            continue;
        };
        let mut item = Item { table, place: place.clone(), known: BTreeSet::new(), faults: Vec::new() };
        let value = read(&mut item);
        item.unknown_fields();
        faults.append(&mut item.faults);
        if let Some(value) = value {
            if values.iter().any(|other| name(other) == name(&value)) {
                faults.push(Fault {
                    place: format!("{place}.name"),
                    allowed: "another one has this name".into(),
                });
            }
            values.push(value);
        }
    }
    if faults.is_empty() { Ok(values) } else { Err(faults) }
}

/// A name that is written in a message only if it looks like one: a value that got into the
/// place of a name by a misplaced quote does not.
pub(super) fn printable(name: &str) -> String {
    let is_name = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '_' | '-');
    if name.len() <= 64 && name.chars().all(is_name) { name.to_owned() } else { "(not a name)".to_owned() }
}
