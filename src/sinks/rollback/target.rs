//! Which version is in force, and which one to go back to.

use crate::genesys::PlatformVersion;
use crate::model::outcome::OutcomeStatus;
use crate::model::rollback::Candidate;

/// Why nothing can be gone back from.
#[derive(Debug, PartialEq, thiserror::Error)]
pub(super) enum NotInForce {
    #[error("no_active_version: nothing to go back from")]
    Unknown,
    #[error("version_not_active: {active} is in force, not {bad}")]
    Another { active: String, bad: String },
}

impl NotInForce {
    pub(super) fn status(&self) -> OutcomeStatus {
        match self {
            NotInForce::Unknown => OutcomeStatus::Failed,
            NotInForce::Another { .. } => OutcomeStatus::Unchanged,
        }
    }
}

/// The version in force: the one decided about, unless the platform names others as active.
/// It may name none, or the same version twice with different labels. `bad` is empty where the
/// source of the evidence does not tell versions apart.
pub(super) fn in_force<'v>(versions: &'v [PlatformVersion], bad: &'v str) -> Result<&'v str, NotInForce> {
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

/// The first candidate that is still published at the platform and neither `in_force`, under
/// whatever label, nor among `unfit`.
pub(super) fn choose<'c>(
    versions: &[PlatformVersion],
    candidates: &'c [Candidate],
    in_force: &str,
    unfit: &[&str],
) -> Option<&'c str> {
    let exists = |id: &str| versions.iter().any(|version| version.id == id && version.is_published());
    let mut ids = candidates.iter().map(|candidate| &*candidate.flow_version);
    ids.find(|id| *id != in_force && !unfit.contains(id) && exists(id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::rollback::CandidateReason;

    fn version(id: &str, status: &str) -> PlatformVersion {
        PlatformVersion {
            id: id.to_owned(),
            status: status.to_owned(),
            published_at: None,
            replaced_at: None,
        }
    }

    #[test]
    fn the_first_candidate_that_still_exists() {
        let versions = [
            version("9", "published"),
            version("10", "published"),
            version("11", "archived"),
            version("12", "active"),
            version("12", "published"),
            version("8", "deleted"),
        ];
        let candidates = ["11", "12", "9", "8", "10"]
            .map(|id| Candidate { flow_version: id.to_owned(), reason: CandidateReason::InForceBefore });
        assert_eq!(choose(&versions, &candidates, "12", &[]), Some("9"), "in the decision's order");
        assert_eq!(choose(&versions, &candidates, "12", &["9"]), Some("10"));
        assert_eq!(choose(&versions, &candidates, "12", &["9", "10"]), None);
        assert_eq!(choose(&versions, &[], "12", &[]), None, "never one that nobody judged");
    }

    #[test]
    fn the_version_in_force_is_known_from_the_decision_too() {
        let listed = [version("12", "active"), version("12", "published"), version("11", "published")];
        assert_eq!(in_force(&listed, "12"), Ok("12"));
        assert_eq!(in_force(&listed, ""), Ok("12"));
        assert_eq!(in_force(&listed[1..], "12"), Ok("12"), "the platform labels none as active");
        assert_eq!(in_force(&listed[1..], ""), Err(NotInForce::Unknown));
        assert_eq!(in_force(&listed[1..], "13"), Err(NotInForce::Unknown));
        let another = NotInForce::Another { active: "12".to_owned(), bad: "11".to_owned() };
        assert_eq!(in_force(&listed, "11"), Err(another));
    }
}
