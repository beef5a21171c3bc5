//! Which organisation of the platform something belongs to, where one deployment serves several.
//!
//! What belongs to a further organisation is called `name:id`, by the name that the organisation has
//! in the configuration and the id that the object has there; of the first one ids stand as they are.
//! So keys, facts and records of one organisation never meet those of another, although both may have
//! given the same id.

use std::borrow::Cow;

/// Between an organisation's name and an object's own id.
const SEPARATOR: char = ':';
/// Longest name of an organisation, in characters.
const LONGEST_NAME: usize = 32;

/// Whether an organisation can be called so: small letters, digits and `-`, a letter first.
pub fn is_name(text: &str) -> bool {
    let part = |letter: char| letter.is_ascii_lowercase() || letter.is_ascii_digit() || letter == '-';
    text.len() <= LONGEST_NAME
        && text.starts_with(|first: char| first.is_ascii_lowercase())
        && text.chars().all(part)
}

/// What an object of the organisation is called here; the first organisation has no name.
pub fn qualified<'i>(name: Option<&str>, id: &'i str) -> Cow<'i, str> {
    match name {
        Some(name) => Cow::Owned(format!("{name}{SEPARATOR}{id}")),
        None => Cow::Borrowed(id),
    }
}

/// One organisation of those that a deployment serves: the first, or a further one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OneOf {
    /// `None` is the first.
    pub name: Option<String>,
    /// Names of all further ones.
    pub further: Vec<String>,
}

/// What may be the name of an organisation and the id of one of its objects. Ids of the first
/// organisation may look so too: only a name that is configured is one.
pub fn split(id: &str) -> Option<(&str, &str)> {
    id.split_once(SEPARATOR).filter(|(name, own)| is_name(name) && !own.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_taken_apart_as_they_were_put_together() {
        assert_eq!(qualified(None, "a:b"), "a:b");
        let id = qualified(Some("emea"), "a:b");
        assert_eq!((id.as_ref(), split(&id)), ("emea:a:b", Some(("emea", "a:b"))));
        for none in ["a", "emea:", ":a", "Emea:a", "2a:b", "a b:c"] {
            assert_eq!(split(none), None, "{none}");
        }
        assert!(is_name("emea-2") && !is_name("") && !is_name(&"e".repeat(33)));
    }
}
