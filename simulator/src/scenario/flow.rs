//! One Architect flow of a scenario.

use serde::{Deserialize, Serialize};

use super::{Checker, QueueScenario};

/// Interactions per simulated minute nothing may exceed.
pub(super) const MAX_INTERACTIONS_PER_MINUTE: f64 = 600_000.0;
/// Versions one flow may have.
pub(crate) const MAX_VERSIONS: usize = 1_000;

/// A flow, its versions, and what happens to those who enter it. Times are means in
/// simulated seconds, rates and shares fractions.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FlowScenario {
    /// UUID; empty for one derived from the name, the same on every run.
    pub id: String,
    pub name: String,
    /// Interactions per simulated minute, arriving at random (Poisson).
    pub interactions_per_minute: f64,
    /// Oldest first, exactly one of them active.
    pub versions: Vec<VersionScenario>,
    /// Share of callers who hang up inside the flow.
    pub abandon_rate: f64,
    /// Share of the others who are handed over to the queue.
    pub transfer_rate: f64,
    /// Name of that queue; empty for none.
    pub queue: String,
    /// Share of interactions that also report a flow outcome.
    pub outcome_share: f64,
    /// Time in the flow, exponential.
    pub flow_seconds: f64,
    /// Time in the queue, exponential.
    pub wait_seconds: f64,
    /// Time with an agent, exponential.
    pub talk_seconds: f64,
    /// After-call work, exponential.
    pub wrap_up_seconds: f64,
}

/// A version of a flow.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VersionScenario {
    /// As events and the platform's paths spell it: `12.0`.
    pub id: String,
    pub status: VersionStatus,
    /// Share of interactions that end with an error, 0–1.
    #[serde(default)]
    pub error_rate: f64,
}

/// What has become of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum VersionStatus {
    /// Takes all new interactions.
    Active,
    /// Was active once and may be again.
    Published,
    /// Is kept, but cannot be activated.
    Archived,
    /// Was never active and can be.
    Saved,
    /// Only its name is left.
    Deleted,
}

impl Default for FlowScenario {
    fn default() -> Self {
        let version = |id: &str, status| VersionScenario { id: id.into(), status, error_rate: 0.01 };
        Self {
            id: String::new(),
            name: String::new(),
            interactions_per_minute: 20.0,
            versions: vec![version("1.0", VersionStatus::Published), version("2.0", VersionStatus::Active)],
            abandon_rate: 0.05,
            transfer_rate: 0.6,
            queue: String::new(),
            outcome_share: 0.0,
            flow_seconds: 20.0,
            wait_seconds: 15.0,
            talk_seconds: 120.0,
            wrap_up_seconds: 20.0,
        }
    }
}

impl FlowScenario {
    pub(super) fn find_problems(&self, queues: &[QueueScenario], problems: &mut Vec<String>) {
        let mut checker = Checker { kind: "flow", name: &self.name, problems };
        checker.check_name_and_id(&self.id);
        self.check_habits(&mut checker);
        let known = self.queue.is_empty() || queues.iter().any(|queue| queue.name == self.queue);
        checker.check(known, "queue", &self.queue, "the name of one of the queues, or nothing");
        let ids: std::collections::BTreeSet<_> = self.versions.iter().map(|version| &version.id).collect();
        let active = self.versions.iter().filter(|version| version.status == VersionStatus::Active).count();
        let possible = active == 1
            && ids.len() == self.versions.len()
            && self.versions.len() <= MAX_VERSIONS
            && self.versions.iter().all(VersionScenario::possible);
        checker.check(
            possible,
            "versions",
            &self.versions,
            "at most 1000 with different ids of 1 to 64 letters, digits, dots or dashes, error rates from 0 to 1, exactly one active",
        );
    }
}

impl FlowScenario {
    /// All that is impossible about how people use the flow.
    pub fn habit_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        self.check_habits(&mut Checker { kind: "flow", name: &self.name, problems: &mut problems });
        problems
    }

    fn check_habits(&self, checker: &mut Checker<'_>) {
        checker.check(
            (0.0..=MAX_INTERACTIONS_PER_MINUTE).contains(&self.interactions_per_minute),
            "interactions_per_minute",
            &self.interactions_per_minute,
            "0 to 600000",
        );
        for (field, value) in [
            ("abandon_rate", self.abandon_rate),
            ("transfer_rate", self.transfer_rate),
            ("outcome_share", self.outcome_share),
        ] {
            checker.check_fraction(field, value);
        }
        for (field, value) in [
            ("flow_seconds", self.flow_seconds),
            ("wait_seconds", self.wait_seconds),
            ("talk_seconds", self.talk_seconds),
            ("wrap_up_seconds", self.wrap_up_seconds),
        ] {
            checker.check((0.0..=86_400.0).contains(&value), field, &value, "0 to 86400");
        }
    }
}

impl VersionScenario {
    fn possible(&self) -> bool {
        possible_version_id(&self.id) && (0.0..=1.0).contains(&self.error_rate)
    }
}

/// Whether a version may be called so: it stands in paths.
pub(crate) fn possible_version_id(id: &str) -> bool {
    (1..=64).contains(&id.len())
        && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'-')
}
