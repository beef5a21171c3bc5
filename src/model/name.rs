//! What people call the things that decisions are about. For reading alone: nothing is decided by a
//! name, and whoever shows one can do without it.

use std::collections::BTreeMap;

use super::decision::Loop;

/// Longest name that is kept, in characters.
pub const NAME_LIMIT: usize = 200;
/// Longest id that a name is kept for, in bytes.
const ID_LIMIT: usize = 512;

/// What has a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    Campaign,
    Flow,
    /// A routing configuration.
    Route,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Campaign, Kind::Flow, Kind::Route];

    pub fn name(self) -> &'static str {
        match self {
            Kind::Campaign => "campaign",
            Kind::Flow => "flow",
            Kind::Route => "route",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// What the keys of a loop's decisions are; those of consumer groups are names already.
    pub fn of_keys(of: &str) -> Option<Self> {
        match Loop::ALL.into_iter().find(|each| each.name() == of)? {
            Loop::Dial => Some(Kind::Campaign),
            Loop::Rollback => Some(Kind::Flow),
            Loop::Route | Loop::Delivery => Some(Kind::Route),
            Loop::Lag => None,
        }
    }
}

/// Something with its name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Named {
    pub kind: Kind,
    pub id: String,
    /// One line, at most [`NAME_LIMIT`] characters.
    pub name: String,
}

impl Named {
    /// `None` where nothing is left of the name that could be read, or the id is none.
    pub fn new(kind: Kind, id: &str, name: &str) -> Option<Self> {
        let shown: String = name.chars().filter(|letter| !steers(*letter)).take(NAME_LIMIT).collect();
        let shown = shown.trim();
        let is_id = (1..=ID_LIMIT).contains(&id.len()) && !id.contains('\0');
        (is_id && !shown.is_empty()).then(|| Self { kind, id: id.to_owned(), name: shown.to_owned() })
    }
}

/// Breaks a line, or turns the text around it the other way.
fn steers(letter: char) -> bool {
    letter.is_control() || matches!(letter, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Names, by what has them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<Kind, BTreeMap<String, String>>);

impl Names {
    pub fn of(&self, kind: Kind, id: &str) -> Option<&str> {
        self.0.get(&kind)?.get(id).map(String::as_str)
    }

    /// Of what a loop's decision is about.
    pub fn of_key(&self, of: &str, key: &str) -> Option<&str> {
        self.of(Kind::of_keys(of)?, key)
    }
}

impl FromIterator<Named> for Names {
    fn from_iter<I: IntoIterator<Item = Named>>(all: I) -> Self {
        let mut names = BTreeMap::<_, BTreeMap<_, _>>::new();
        for Named { kind, id, name } in all {
            names.entry(kind).or_default().insert(id, name);
        }
        Self(names)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_one_line_and_bounded() {
        let name = |text: &str| Named::new(Kind::Flow, "f", text).map(|named| named.name);
        assert_eq!(name(" Main\nmenu\u{202e} ").as_deref(), Some("Mainmenu"));
        assert_eq!(name("\u{1b}\u{7} "), None);
        assert_eq!(name(&"é".repeat(300)), Some("é".repeat(NAME_LIMIT)));
        assert_eq!(Named::new(Kind::Flow, "", "Main"), None);
        assert_eq!(Named::new(Kind::Flow, &"i".repeat(ID_LIMIT + 1), "Main"), None);
    }

    #[test]
    fn a_key_is_called_as_what_its_loop_decides_about() {
        let named = |kind, name| Named::new(kind, "a", name).unwrap();
        let names: Names =
            [named(Kind::Campaign, "Renewals"), named(Kind::Flow, "Menu")].into_iter().collect();
        assert_eq!(
            (names.of_key("dial", "a"), names.of_key("rollback", "a")),
            (Some("Renewals"), Some("Menu"))
        );
        assert_eq!((names.of_key("route", "a"), names.of_key("lag", "a")), (None, None));
        assert_eq!(names.of_key("dial", "b"), None);
        assert!(Kind::ALL.into_iter().all(|kind| Kind::named(kind.name()) == Some(kind)));
    }
}
