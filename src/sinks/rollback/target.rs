//! Which version to go back to, chosen when acting.

use std::cmp::Ordering;

use crate::genesys::PlatformVersion;

/// The newest published version that is not active and not among `unfit`: those marked
/// bad by earlier rollbacks, and those the platform refused.
pub fn choose<'v>(versions: &'v [PlatformVersion], unfit: &[String]) -> Option<&'v PlatformVersion> {
    let fit = versions.iter().filter(|version| version.is_published() && !unfit.contains(&version.id));
    fit.max_by(|one, other| newer(one, other))
}

/// By number where both have one, else by the time of publishing; versions that cannot be
/// told apart so stand in the platform's order, newest last.
fn newer(one: &PlatformVersion, other: &PlatformVersion) -> Ordering {
    let number =
        |version: &PlatformVersion| version.id.parse::<f64>().ok().filter(|number| number.is_finite());
    match (number(one), number(other)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => one.published_at.cmp(&other.published_at),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Timestamp;

    fn version(id: &str, status: &str, published_at: Option<i64>) -> PlatformVersion {
        let published_at = published_at.map(Timestamp::from_millis);
        PlatformVersion { id: id.to_owned(), status: status.to_owned(), published_at }
    }

    fn chosen(versions: &[PlatformVersion], unfit: &[&str]) -> Option<String> {
        let unfit: Vec<String> = unfit.iter().map(|id| (*id).to_owned()).collect();
        choose(versions, &unfit).map(|version| version.id.clone())
    }

    #[test]
    fn the_newest_that_is_published_and_not_bad() {
        let versions = [
            version("9", "published", None),
            version("10", "published", None),
            version("11", "archived", None),
            version("12", "active", None),
            version("8", "deleted", None),
        ];
        assert_eq!(chosen(&versions, &[]).as_deref(), Some("10"), "as numbers, not as texts");
        assert_eq!(chosen(&versions, &["10"]).as_deref(), Some("9"));
        assert_eq!(chosen(&versions, &["10", "9"]), None);
        assert_eq!(chosen(&[], &[]), None);
    }

    #[test]
    fn names_that_are_no_numbers_go_by_time_and_then_by_place() {
        let by_time = [version("b", "published", Some(2)), version("a", "published", Some(1))];
        assert_eq!(chosen(&by_time, &[]).as_deref(), Some("b"));
        let by_place = [version("b", "published", None), version("a", "published", None)];
        assert_eq!(chosen(&by_place, &[]).as_deref(), Some("a"));
    }
}
