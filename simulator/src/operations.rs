//! Publishing by Genesys Cloud's own interface: an operation that is begun, takes a while, and ends
//! well or not.

use std::time::Duration;

use axum::http::StatusCode;
use uuid::Uuid;

use crate::flows::Flow;
use crate::journal::{Effect, Origin};
use crate::organization::{Moment, Organization};
use crate::platform::gone;
use crate::publishes::version_change;
use crate::reply::Refusal;
use crate::scenario::VersionStatus;
use crate::time::Timestamp;

/// Somebody who keeps a flow for himself.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Lock {
    /// A client's id, not a user's.
    pub is_client: bool,
    pub id: String,
    pub name: Option<String>,
}

/// Putting a version in force. A flow has one at a time and keeps the last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Operation {
    pub id: Uuid,
    /// OAuth client who asked.
    pub client: String,
    pub version: String,
    pub started_at: Timestamp,
    due: Due,
    will_fail: bool,
    /// Once it has ended: whether well.
    pub outcome: Option<bool>,
}

/// When an operation ends: both have to have come.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Due {
    /// Since the simulator started, by the machine's clock.
    elapsed: Duration,
    /// Second of the world.
    second: u64,
}

impl Operation {
    fn is_running(&self) -> bool {
        self.outcome.is_none()
    }
}

impl Organization {
    /// # Errors
    /// 404 for an unknown flow or version, 410 for a deleted flow, 409 while somebody else has
    /// it locked or an operation runs, 405 for a version that cannot be put in force.
    pub(crate) fn begin_publish(
        &mut self,
        flow_id: &str,
        version: &str,
        client: &str,
        moment: Moment,
    ) -> Result<Operation, Refusal> {
        let (manners, second) = (self.platform.manners, self.world.now());
        let flow = self.flows.get_mut(flow_id)?;
        check_publishable(flow, version, client)?;
        let operation = Operation {
            id: Uuid::now_v7(),
            client: client.to_owned(),
            version: version.to_owned(),
            started_at: moment.wall,
            due: Due {
                elapsed: moment.elapsed + Duration::from_millis(manners.publish_ms),
                second: second + manners.publish_simulated_seconds,
            },
            will_fail: manners.publish_fails,
            outcome: None,
        };
        flow.operation = Some(operation.clone());
        self.running_operations += 1;
        Ok(operation)
    }

    /// Ends what is due by now.
    pub(super) fn settle_operations(&mut self, moment: Moment) {
        if self.running_operations == 0 {
            return;
        }
        let (now, mut switched) = (self.world.now(), Vec::new());
        for flow in self.flows.iter_mut() {
            let Some(mut operation) = flow.operation.clone().filter(Operation::is_running) else { continue };
            if operation.due.elapsed > moment.elapsed || operation.due.second > now {
                continue;
            }
            self.running_operations -= 1;
            let ended = (!operation.will_fail)
                .then(|| flow.activate(&operation.version, None, moment.wall))
                .and_then(Result::ok);
            operation.outcome = Some(ended.is_some());
            if let Some(switch) = ended {
                let change = version_change(flow.id.to_string(), &switch, operation.started_at, moment.wall);
                switched.push((operation.client.clone(), change));
            }
            flow.operation = Some(operation);
        }
        for (client, change) in switched {
            let (flow_id, version) = (&change.flow_id, &change.to_version);
            let path = format!("/api/v2/flows/actions/publish?flow={flow_id}&version={version}");
            let effect = Effect::Version(change);
            self.note_for(Some(client), (Origin::Operation, "POST"), path, None, effect, moment);
        }
    }
}

fn check_publishable(flow: &Flow, version: &str, client: &str) -> Result<(), Refusal> {
    let id = &*flow.id;
    if flow.deleted {
        return Err(gone(id));
    }
    let found = flow.versions().iter().find(|it| &*it.id == version && it.status != VersionStatus::Deleted);
    let found = found.ok_or_else(|| flow.unknown_version(version))?;
    let conflict = |message: &str| Refusal::new(StatusCode::CONFLICT, "general.conflict", message).about(id);
    if flow.lock.as_ref().is_some_and(|lock| !(lock.is_client && lock.id == client)) {
        return Err(conflict("Flow is locked by another user"));
    }
    if flow.operation.as_ref().is_some_and(Operation::is_running) {
        return Err(conflict("An operation is running on the flow"));
    }
    if found.status == VersionStatus::Archived {
        let message = format!("version {version} is in a state in which it cannot be published");
        return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "flow.not.publishable", message).about(id));
    }
    Ok(())
}
