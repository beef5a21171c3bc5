//! What the platform's publish timeline of a flow says.

use std::cmp::Ordering;

use crate::model::Timestamp;
use crate::model::flow::{FlowVersion, FlowVersions};

/// The platform's labels for the version in force, and for one that can be put in force.
const ACTIVE: &str = "active";
const PUBLISHED: &str = "published";

fn is(version: &FlowVersion<'_>, status: &str) -> bool {
    version.status.as_deref().is_some_and(|it| it.eq_ignore_ascii_case(status))
}

/// The version that is labelled active; the newest, should there be several.
pub(super) fn active_version<'v>(versions: &'v FlowVersions<'_>) -> Option<&'v str> {
    let mut active = versions.versions.iter().filter(|version| is(version, ACTIVE));
    active.next_back().map(|version| &*version.version)
}

/// Versions that were published before `current`, the last in force first where the platform
/// tells, else the newest, whatever became of them. `current` itself may be listed more than once, under several labels.
pub(super) fn published_before<'v>(versions: &'v FlowVersions<'_>, current: &str) -> Vec<&'v str> {
    let listed = &versions.versions;
    let place = listed.iter().position(|version| version.version == current);
    let before = |(at, version): &(usize, &FlowVersion<'_>)| {
        let Some(place) = place else { return true };
        order((*at, *version), (place, &listed[place]), |version| version.published_at) == Ordering::Less
    };
    let mut found: Vec<_> = listed
        .iter()
        .enumerate()
        .filter(|(_, version)| is(version, PUBLISHED) && version.version != current)
        .filter(before)
        .collect();
    found.sort_by(|one, other| order(*other, *one, last_in_force));
    let mut found: Vec<&str> = found.into_iter().map(|(_, version)| &*version.version).collect();
    found.dedup();
    found
}

/// Not the greatest number was in force last, but the version replaced last.
fn last_in_force(version: &FlowVersion<'_>) -> Option<Timestamp> {
    version.replaced_at.or(version.published_at)
}

/// By this time, else by number, else by place: the timeline has the newest last.
fn order(
    one: (usize, &FlowVersion<'_>),
    other: (usize, &FlowVersion<'_>),
    time: impl Fn(&FlowVersion<'_>) -> Option<Timestamp>,
) -> Ordering {
    if let (Some(one), Some(other)) = (time(one.1), time(other.1)) {
        return one.cmp(&other);
    }
    match (number(&one.1.version), number(&other.1.version)) {
        (Some(one), Some(other)) => one.total_cmp(&other),
        _ => one.0.cmp(&other.0),
    }
}

fn number(version: &str) -> Option<f64> {
    version.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Whether both are numbers, as the platform's versions are, and the first is lower.
pub(super) fn is_older(version: &str, than: &str) -> bool {
    matches!((number(version), number(than)), (Some(one), Some(other)) if one < other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn timeline(listed: &[(&'static str, &'static str, Option<i64>)]) -> FlowVersions<'static> {
        let version = |(version, status, at): &(&'static str, &'static str, Option<i64>)| FlowVersion {
            version: (*version).into(),
            status: Some((*status).into()),
            published_at: at.map(Timestamp::from_millis),
            replaced_at: None,
        };
        FlowVersions {
            flow_id: "f".into(),
            observed_at: Timestamp::from_millis(0),
            versions: listed.iter().map(version).collect(),
        }
    }

    #[test]
    fn what_was_published_before_is_told_newest_first_and_never_the_version_in_force() {
        let twice = timeline(&[
            ("2", "published", None),
            ("3", "archived", None),
            ("4", "deleted", None),
            ("5", "published", None),
            ("5", "active", None),
        ]);
        assert_eq!(published_before(&twice, "5"), ["2"]);
        let labelled =
            timeline(&[("2", "published", None), ("5", "PUBLISHED", None), ("10", "published", None)]);
        assert_eq!(published_before(&labelled, "5"), ["2"], "as numbers, and none that is newer");
        let by_time =
            timeline(&[("b", "published", Some(2)), ("a", "published", Some(1)), ("c", "active", Some(3))]);
        assert_eq!(published_before(&by_time, "c"), ["b", "a"]);
        assert_eq!(published_before(&labelled, "unknown"), ["10", "5", "2"]);
        let mut replaced = timeline(&[
            ("10", "published", Some(1)),
            ("11", "published", Some(2)),
            ("12", "active", Some(9)),
        ]);
        replaced.versions[0].replaced_at = Some(Timestamp::from_millis(9));
        replaced.versions[1].replaced_at = Some(Timestamp::from_millis(5));
        assert_eq!(published_before(&replaced, "12"), ["10", "11"], "10 was published again after 11");
    }
}
