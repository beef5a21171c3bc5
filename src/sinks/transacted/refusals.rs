//! Outcomes that the brokers refuse.

use tokio::time::Instant;

use super::batch::Batch;
use super::{Member, Worker};
use crate::clock;
use crate::kafka::topic_ids::TopicIds;
use crate::model::decision::Position;
use crate::role::Role;
use crate::runtime::dead_letter::{ErrorHeaders, Reason};
use crate::topics::Topic;

/// Who a dead letter says it comes from.
pub(super) struct Place<'s> {
    pub role: &'static Role,
    /// A topic's full name.
    pub topic: &'s (dyn Fn(&Topic) -> String + Sync),
}

impl<W: Worker> Member<'_, W> {
    /// Which topics are read, for dead letters to say; empty where the brokers do not tell.
    pub(super) async fn topic_ids(&mut self) -> TopicIds {
        self.handle.topic_ids().await.unwrap_or_else(|error| {
            tracing::debug!(role = self.place.role.name, error, "which topics are read is not known");
            TopicIds::new()
        })
    }

    /// What is refused is found by publishing one at a time, and set aside.
    pub(super) fn on_refused(&mut self, batch: &Batch, why: &str) {
        let alone = match batch.offsets[..] {
            [(partition, _)] if batch.statuses.len() == 1 => Some(partition),
            _ => None,
        };
        let Some(partition) = alone else {
            self.publish_alone = batch.statuses.len();
            return;
        };
        let Some(here) = self.partitions.get_mut(&partition) else { return };
        let Some((offset, finished)) = here.tracker.first() else { return };
        let topic = (self.place.topic)(partition.topic);
        let position = Position { topic: &topic, partition: partition.partition, offset };
        let reason = Reason::RefusedByBroker(why.to_owned());
        let role = self.place.role.name;
        let errors = ErrorHeaders::new(role, &reason, position, clock::now()).with_topic_id(here.topic_id);
        if finished.set_refused_aside(&errors) {
            tracing::error!(role, %partition, offset, why, "the brokers refuse an outcome; it is set aside");
        } else {
            let pause = self.pauses.pause();
            self.publish_after = Instant::now() + pause;
            tracing::error!(role, %partition, offset, why, "the brokers refuse even the shortest dead letter");
        }
    }
}
