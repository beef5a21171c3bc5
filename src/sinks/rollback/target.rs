//! Which version is in force, and which one to go back to.

use std::cmp::Ordering;

use crate::genesys::PlatformVersion;
use crate::model::outcome::OutcomeStatus;

/// Why nothing can be gone back from.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum NotInForce {
    #[error("no_active_version: nothing to go back from")]
    Unknown,
    #[error("version_not_active: {active} is in force, not {bad}")]
    Another { active: String, bad: String },
}

impl NotInForce {
    pub fn status(&self) -> OutcomeStatus {
        match self {
            NotInForce::Unknown => OutcomeStatus::Failed,
            NotInForce::Another { .. } => OutcomeStatus::Unchanged,
        }
    }
}

/// The version in force: the one decided about, unless the platform names others as active.
/// It may name none, or the same version twice with different labels. `bad` is empty where the
/// source of the evidence does not tell versions apart.
pub fn in_force<'v>(versions: &'v [PlatformVersion], bad: &'v str) -> Result<&'v str, NotInForce> {
    let mut active = versions.iter().filter(|version| version.is_active()).map(|version| &*version.id);
    if bad.is_empty() {
        return active.next_back().ok_or(NotInForce::Unknown);
    }
    match active.clone().next_back() {
        None if versions.iter().any(|version| version.id == bad) => Ok(bad),
        None => Err(NotInForce::Unknown),
        Some(_) if active.any(|active| active == bad) => Ok(bad),
        Some(active) => Err(NotInForce::Another { active: active.to_owned(), bad: bad.to_owned() }),
    }
}

/// The newest published version that is neither `in_force`, under whatever label, nor among `unfit`.
pub fn choose<'v>(
    versions: &'v [PlatformVersion],
    in_force: &str,
    unfit: &[&str],
) -> Option<&'v PlatformVersion> {
    let fit = |version: &&PlatformVersion| {
        version.is_published() && version.id != in_force && !unfit.contains(&&*version.id)
    };
    versions.iter().filter(fit).max_by(|one, other| newer(one, other))
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
    use super::*;
    use crate::model::Timestamp;

    fn version(id: &str, status: &str, published_at: Option<i64>) -> PlatformVersion {
        let published_at = published_at.map(Timestamp::from_millis);
        PlatformVersion { id: id.to_owned(), status: status.to_owned(), published_at }
    }

    fn chosen(versions: &[PlatformVersion], unfit: &[&str]) -> Option<String> {
        choose(versions, "12", unfit).map(|version| version.id.clone())
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
