//! One membership in a consumer group after the other. What ends one does not end the role: it
//! says why on its readiness, the process's other roles go on, and a new membership tries again
//! until the cause is gone.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::settings::KafkaSettings;
use super::subscription::{Subscription, SubscriptionError, SubscriptionOptions};
use crate::backoff::Backoff;
use crate::health::Part;
use crate::role::Role;
use crate::topics::Topic;

/// Why a membership in the group ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ended {
    Shutdown,
    /// A new one may go on, for this reason the old one could not.
    Again(String),
}

impl From<SubscriptionError> for Ended {
    fn from(error: SubscriptionError) -> Self {
        Self::Again(error.to_string())
    }
}

/// The memberships of a role.
pub struct Memberships<'k> {
    kafka: &'k KafkaSettings,
    role: &'static Role,
    topics: Vec<&'static Topic>,
    options: SubscriptionOptions,
    part: Part,
    pause: Backoff,
    shutdown: CancellationToken,
}

impl<'k> Memberships<'k> {
    /// Of the group that reads what the role declares. `part` says why there is none at the
    /// moment; `retry` is the shortest and longest pause between two that fail.
    pub fn new(
        kafka: &'k KafkaSettings,
        role: &'static Role,
        options: SubscriptionOptions,
        part: Part,
        retry: (Duration, Duration),
        shutdown: CancellationToken,
    ) -> Self {
        let topics = role.reads.to_vec();
        Self { kafka, role, topics, options, part, pause: Backoff::new(retry), shutdown }
    }

    /// Of a group over this topic instead, to share its partitions.
    #[must_use]
    pub fn over(mut self, topic: &'static Topic) -> Self {
        self.topics = vec![topic];
        self
    }

    /// The next one; `None` at shutdown.
    ///
    /// # Errors
    /// When the Kafka settings are not accepted, which no pause helps.
    pub fn next(&self) -> Result<Option<Subscription>, SubscriptionError> {
        if self.shutdown.is_cancelled() {
            return Ok(None);
        }
        let (options, shutdown) = (self.options.clone(), self.shutdown.clone());
        Subscription::open(self.kafka, self.role, &self.topics, options, shutdown).map(Some)
    }

    /// Leaves the group and waits, longer each time, before the next membership.
    pub async fn end(&mut self, subscription: Subscription, ended: Ended) {
        subscription.close().await;
        if let Ended::Again(reason) = ended {
            tracing::error!(role = self.role.name, reason, "a membership ended; another one goes on");
            self.part.not_ready(reason);
            self.pause.wait(&self.shutdown).await;
        }
    }

    /// Pauses between tries of whatever fails, the memberships' own included: something that has
    /// succeeded resets them.
    pub fn pause(&mut self) -> &mut Backoff {
        &mut self.pause
    }
}
