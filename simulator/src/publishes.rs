//! Versions that somebody else publishes: good ones and bad ones, now or later.

use serde_json::json;

use crate::flows::{PlannedPublish, Switch};
use crate::journal::{Effect, Origin, VersionChange};
use crate::organization::{Moment, Organization};
use crate::reply::Refusal;
use crate::time::Timestamp;

impl Organization {
    /// Publishes what is due in the world's second.
    pub(crate) fn publish_due(&mut self, moment: Moment) {
        for planned in self.flows.take_due(self.world.now()) {
            // A name that was taken meanwhile is the only thing that can be wrong.
            if let Err(refusal) = self.publish(planned, moment) {
                tracing::warn!(problem = refusal.message, "a planned version was not published");
            }
        }
    }

    /// # Errors
    /// 404 for an unknown flow, 409 for a version that exists.
    pub(crate) fn publish(
        &mut self,
        publish: PlannedPublish,
        moment: Moment,
    ) -> Result<VersionChange, Refusal> {
        let PlannedPublish { flow_id, version, error_rate, description, .. } = publish;
        let body = json!({ "errorRate": error_rate, "description": description });
        let switch = self.flows.get_mut(&flow_id)?.publish(version, error_rate, description, moment.wall)?;
        let path = format!("/api/v2/architect/flows/{flow_id}/versions");
        let change = version_change(flow_id, &switch, moment.wall, moment.wall);
        let effect = Effect::Version(change.clone());
        self.note(Origin::Control, "POST", path, Some(body.to_string()), effect, moment);
        Ok(change)
    }
}

pub(crate) fn version_change(
    flow_id: String,
    switch: &Switch,
    started_at: Timestamp,
    ended_at: Timestamp,
) -> VersionChange {
    VersionChange {
        flow_id,
        from_version: switch.from.to_string(),
        to_version: switch.to.to_string(),
        started_at,
        ended_at,
    }
}
