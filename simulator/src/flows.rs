//! Architect flows and their versions: what is active, what was, what can be again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::http::StatusCode;
use serde::Serialize;

use crate::measures::Measures;
use crate::operations::{Lock, Operation};
use crate::reply::Refusal;
use crate::scenario::{FlowScenario, MAX_VERSIONS, Scenario, VersionStatus};
use crate::time::Timestamp;

/// The versions of the scenario were published a day apart, the newest a day ago.
const BETWEEN_PUBLISHES: Duration = Duration::from_secs(86_400);

/// One version. `errorRate` is the share of its interactions that fail, which the platform
/// does not tell its clients.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Version {
    pub id: Arc<str>,
    pub status: VersionStatus,
    pub error_rate: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// When it was made, by whatever name that goes.
    pub date_created: Timestamp,
    /// When it last became active; absent where it never was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_published: Option<Timestamp>,
    /// When another took its place; absent while it is active.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub date_published_end: Option<Timestamp>,
}

/// One flow.
#[derive(Clone, Debug)]
pub(crate) struct Flow {
    pub id: Arc<str>,
    /// Traffic and lengths; its versions are those of the start.
    pub habits: FlowScenario,
    pub queue_id: Option<Arc<str>>,
    pub measures: Measures,
    pub lock: Option<Lock>,
    /// The publish that runs, or the last one.
    pub operation: Option<Operation>,
    pub deleted: bool,
    /// Oldest first.
    versions: Vec<Version>,
}

/// From which version to which.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Switch {
    pub from: Arc<str>,
    pub to: Arc<str>,
}

impl Flow {
    fn new(scenario: &FlowScenario, queue_id: Option<Arc<str>>, created_at: Timestamp) -> Self {
        let count = scenario.versions.len();
        let published_at = |index: usize| created_at.minus(BETWEEN_PUBLISHES * (count - index) as u32);
        let versions = scenario.versions.iter().enumerate().map(|(index, version)| Version {
            id: version.id.as_str().into(),
            status: version.status,
            error_rate: version.error_rate,
            description: None,
            date_created: published_at(index),
            date_published: (version.status != VersionStatus::Saved).then(|| published_at(index)),
            date_published_end: (!matches!(version.status, VersionStatus::Active | VersionStatus::Saved))
                .then(|| published_at(index + 1)),
        });
        Self {
            id: scenario.id.as_str().into(),
            habits: scenario.clone(),
            queue_id,
            measures: Measures::default(),
            lock: None,
            operation: None,
            deleted: false,
            versions: versions.collect(),
        }
    }

    pub(crate) fn versions(&self) -> &[Version] {
        &self.versions
    }

    pub(crate) fn active(&self) -> &Version {
        let active = self.versions.iter().find(|version| version.status == VersionStatus::Active);
        active.expect("exactly one version is active")
    }

    pub(crate) fn unknown_version(&self, id: &str) -> Refusal {
        let message = format!("Unable to find version {id} of flow {}", self.id);
        Refusal::new(StatusCode::NOT_FOUND, "not.found", message).about(id)
    }

    pub(crate) fn version_mut(&mut self, id: &str) -> Option<&mut Version> {
        self.versions.iter_mut().find(|version| &*version.id == id)
    }

    /// Makes a version the active one; the active one may be named too and is then
    /// activated once more.
    ///
    /// # Errors
    /// 404 for a version that does not exist or is deleted, 409 for an archived one.
    pub(crate) fn activate(
        &mut self,
        id: &str,
        description: Option<String>,
        at: Timestamp,
    ) -> Result<Switch, Refusal> {
        let wanted = self.versions.iter().position(|version| &*version.id == id);
        let wanted = wanted.filter(|index| self.versions[*index].status != VersionStatus::Deleted);
        let wanted = wanted.ok_or_else(|| self.unknown_version(id))?;
        if self.versions[wanted].status == VersionStatus::Archived {
            let message = format!("version {id} is archived and cannot be activated");
            return Err(Refusal::new(StatusCode::CONFLICT, "general.conflict", message).about(id));
        }
        let from = self.retire_active(at);
        let version = &mut self.versions[wanted];
        version.status = VersionStatus::Active;
        version.date_published = Some(at);
        version.date_published_end = None;
        version.description = description.or(version.description.take());
        Ok(Switch { from, to: version.id.clone() })
    }

    /// Publishes a new version, which is active at once.
    ///
    /// # Errors
    /// 409 when there is a version of this name already, or no room for another.
    pub(crate) fn publish(
        &mut self,
        id: Option<String>,
        error_rate: f64,
        description: Option<String>,
        at: Timestamp,
    ) -> Result<Switch, Refusal> {
        let id = id.unwrap_or_else(|| self.next_id());
        if self.versions.len() >= MAX_VERSIONS || self.versions.iter().any(|version| *version.id == *id) {
            let message = format!("flow {} has a version {id} already, or {MAX_VERSIONS} versions", self.id);
            return Err(Refusal::new(StatusCode::CONFLICT, "general.conflict", message));
        }
        let from = self.retire_active(at);
        let to: Arc<str> = id.into();
        self.versions.push(Version {
            id: to.clone(),
            status: VersionStatus::Active,
            error_rate,
            description,
            date_created: at,
            date_published: Some(at),
            date_published_end: None,
        });
        Ok(Switch { from, to })
    }

    fn retire_active(&mut self, at: Timestamp) -> Arc<str> {
        let active = self.versions.iter_mut().find(|version| version.status == VersionStatus::Active);
        let active = active.expect("exactly one version is active");
        active.status = VersionStatus::Published;
        active.date_published_end = Some(at);
        active.id.clone()
    }

    /// One above the greatest number a version has: `13.0` after `12.0`.
    fn next_id(&self) -> String {
        let number = |version: &Version| version.id.split('.').next().and_then(|major| major.parse().ok());
        let greatest: u64 = self.versions.iter().filter_map(number).max().unwrap_or(0);
        format!("{}.0", greatest + 1)
    }
}

/// A publish that is still to come.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct PlannedPublish {
    /// In seconds of the world.
    pub due: u64,
    pub flow_id: String,
    pub version: Option<String>,
    pub error_rate: f64,
    pub description: Option<String>,
}

/// Endpoints that fail while a flow is unwell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Endpoint {
    Measures,
    Versions,
    Deployments,
}

/// What fails while any active version's error rate is above a limit.
#[derive(Clone, Debug, PartialEq, Serialize, serde::Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Unwell {
    pub endpoints: Vec<Endpoint>,
    /// 0–1.
    pub above_error_rate: f64,
    /// 400–599.
    pub status: u16,
}

/// Publishes planned at once.
const MAX_PLANNED: usize = 10_000;

/// All flows of the organisation.
#[derive(Debug)]
pub(crate) struct Flows {
    flows: BTreeMap<String, Flow>,
    planned: Vec<PlannedPublish>,
    unwell: Option<Unwell>,
}

impl Flows {
    pub(crate) fn new(scenario: &Scenario, created_at: Timestamp) -> Self {
        let flows = scenario.flows.iter().map(|flow| {
            let queue = scenario.queues.iter().find(|queue| queue.name == flow.queue);
            let queue_id = queue.map(|queue| queue.id.as_str().into());
            (flow.id.clone(), Flow::new(flow, queue_id, created_at))
        });
        Self { flows: flows.collect(), planned: Vec::new(), unwell: None }
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Flow> {
        self.flows.values_mut()
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Flow> {
        self.flows.values()
    }

    /// # Errors
    /// 404 where there is none.
    pub(crate) fn get(&self, id: &str) -> Result<&Flow, Refusal> {
        self.flows.get(id).ok_or_else(|| unknown_flow(id))
    }

    /// # Errors
    /// 404 where there is none.
    pub(crate) fn get_mut(&mut self, id: &str) -> Result<&mut Flow, Refusal> {
        self.flows.get_mut(id).ok_or_else(|| unknown_flow(id))
    }

    /// # Errors
    /// 404 for an unknown flow, 400 when too many are planned.
    pub(crate) fn plan(&mut self, publish: PlannedPublish) -> Result<(), Refusal> {
        self.get(&publish.flow_id)?;
        if self.planned.len() >= MAX_PLANNED {
            let message = format!("{MAX_PLANNED} publishes are planned already");
            return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad.request", message));
        }
        self.planned.push(publish);
        Ok(())
    }

    /// Publishes whose time has come, in the order they were planned.
    pub(crate) fn take_due(&mut self, now: u64) -> Vec<PlannedPublish> {
        if self.planned.iter().all(|publish| publish.due > now) {
            return Vec::new();
        }
        let (due, later) =
            std::mem::take(&mut self.planned).into_iter().partition(|publish| publish.due <= now);
        self.planned = later;
        due
    }

    pub(crate) fn set_unwell(&mut self, unwell: Option<Unwell>) {
        self.unwell = unwell;
    }

    /// # Errors
    /// The status in force while a flow is unwell.
    pub(crate) fn check_well(&self, endpoint: Endpoint) -> Result<(), Refusal> {
        let Some(unwell) = self.unwell.as_ref().filter(|unwell| unwell.endpoints.contains(&endpoint)) else {
            return Ok(());
        };
        if self.iter().any(|flow| flow.active().error_rate > unwell.above_error_rate) {
            let status = StatusCode::from_u16(unwell.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
            return Err(super::reply::refusal_for_status(status));
        }
        Ok(())
    }
}

fn unknown_flow(id: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not.found", format!("Unable to find a flow with id {id}")).about(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::VersionScenario;

    fn flow() -> Flow {
        let scenario = Scenario::default();
        Flow::new(&scenario.flows[0], None, Timestamp::from_millis(1_000_000_000_000))
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_millis(1_000_000_000_000 + seconds * 1_000)
    }

    #[test]
    fn the_scenarios_versions_have_a_past() {
        let flow = flow();
        assert_eq!(&*flow.active().id, "12.0");
        for pair in flow.versions().windows(2) {
            assert_eq!(pair[0].date_published_end, pair[1].date_published);
        }
        assert_eq!(flow.active().date_published, Some(at(-86_400)));
    }

    #[test]
    fn a_saved_version_has_no_past_until_it_is_activated() {
        let mut scenario = Scenario::default().flows[4].clone();
        scenario.versions.push(VersionScenario {
            id: "2.0".into(),
            status: VersionStatus::Saved,
            error_rate: 0.0,
        });
        let mut flow = Flow::new(&scenario, None, Timestamp::from_millis(1_000_000_000_000));
        let saved = &flow.versions()[1];
        assert_eq!((saved.date_published, saved.date_published_end), (None, None));
        flow.activate("2.0", None, at(1)).unwrap();
        assert_eq!(flow.active().date_published, Some(at(1)));
    }

    #[test]
    fn one_version_is_active_whatever_is_activated_or_published() {
        let mut flow = flow();
        let switch = |from: &str, to: &str| Switch { from: from.into(), to: to.into() };
        assert_eq!(flow.publish(None, 0.2, None, at(1)).unwrap(), switch("12.0", "13.0"));
        assert_eq!(flow.activate("12.0", Some("back".into()), at(2)).unwrap(), switch("13.0", "12.0"));
        assert_eq!(flow.active().description.as_deref(), Some("back"));
        assert_eq!(flow.active().date_published, Some(at(2)));
        let bad = flow.version_mut("13.0").unwrap().clone();
        assert_eq!((bad.status, bad.date_published_end), (VersionStatus::Published, Some(at(2))));
        assert_eq!(flow.activate("12.0", None, at(3)).unwrap(), switch("12.0", "12.0"));
        for (id, status) in [("8.0", 404), ("9.0", 409), ("99.0", 404)] {
            assert_eq!(flow.activate(id, None, at(4)).unwrap_err().status.as_u16(), status, "{id}");
        }
        assert!(flow.publish(Some("10.0".into()), 0.0, None, at(5)).is_err());
        let active = flow.versions().iter().filter(|version| version.status == VersionStatus::Active);
        assert_eq!((active.count(), &*flow.active().id), (1, "12.0"));
    }

    #[test]
    fn endpoints_fail_only_while_a_version_is_worse_than_the_limit() {
        let scenario = Scenario::default();
        let mut flows = Flows::new(&scenario, at(0));
        let unwell = Unwell { endpoints: vec![Endpoint::Measures], above_error_rate: 0.05, status: 503 };
        flows.set_unwell(Some(unwell));
        assert!(flows.check_well(Endpoint::Measures).is_ok());
        let id = &scenario.flows[1].id;
        flows.get_mut(id).unwrap().publish(None, 0.2, None, at(1)).unwrap();
        assert_eq!(flows.check_well(Endpoint::Measures).unwrap_err().status.as_u16(), 503);
        assert!(flows.check_well(Endpoint::Versions).is_ok());
        flows.get_mut(id).unwrap().activate("2.0", None, at(2)).unwrap();
        assert!(flows.check_well(Endpoint::Measures).is_ok());
    }
}
