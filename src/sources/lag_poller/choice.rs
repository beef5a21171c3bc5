//! Which consumer groups are watched.

/// By name, with `*` for any text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Choice {
    /// Empty: every group.
    pub include: Vec<String>,
    /// Wins over `include`.
    pub exclude: Vec<String>,
    /// Groups that must exist, whatever else is said.
    pub required: Vec<String>,
}

impl Choice {
    pub fn takes(&self, group: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, group));
        self.required.iter().any(|required| required == group)
            || ((self.include.is_empty() || any(&self.include)) && !any(&self.exclude))
    }
}

/// Whether `text` follows `pattern`, in which `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let mut parts = parts.peekable();
    if parts.peek().is_none() {
        return rest.is_empty();
    }
    while let Some(part) = parts.next() {
        if parts.peek().is_none() {
            return rest.ends_with(part);
        }
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text, expected) in [
            ("*", "", true),
            ("*", "orders", true),
            ("orders", "orders", true),
            ("orders", "orders-2", false),
            ("orders-*", "orders-2", true),
            ("*-2", "orders-2", true),
            ("o*s-*", "orders-2", true),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} on {text}");
        }
    }

    #[test]
    fn what_is_required_is_watched_and_what_is_excluded_is_not() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let choice =
            Choice { include: list(&["a*"]), exclude: list(&["*-test"]), required: list(&["z-test"]) };
        let taken: Vec<bool> =
            ["a", "a-test", "b", "z-test"].iter().map(|group| choice.takes(group)).collect();
        assert_eq!(taken, [true, false, false, true]);
        assert!(Choice::default().takes("any"));
    }
}
