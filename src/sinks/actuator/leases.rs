//! The lease of every partition that is ours.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::platform::{Ledger, Platform};
use super::{Actuator, ROLE};
use crate::health::Part;
use crate::postgres::leases::Lease;
use crate::runtime::subscription::TopicPartition;

/// One partition's lease as it stands; changes when it is taken anew.
pub type Held = watch::Receiver<Option<Lease>>;

/// The name of a partition's lease. The prefix keeps installations apart that share
/// one database.
pub fn name(topic_prefix: &str, partition: i32) -> String {
    format!("{ROLE}/dial/{topic_prefix}/{partition}")
}

/// Takes leases in the background and takes them back when they were lost by mistake.
pub struct Leases<P, L> {
    actuator: Arc<Actuator<P, L>>,
    health: Part,
    waiting: HashMap<TopicPartition, watch::Sender<Option<Lease>>>,
}

impl<P: Platform, L: Ledger> Leases<P, L> {
    pub fn new(actuator: Arc<Actuator<P, L>>, health: Part) -> Self {
        health.ready();
        Self { actuator, health, waiting: HashMap::new() }
    }

    /// Begins to take the lease of a partition that has become ours.
    pub fn begin(&mut self, partition: TopicPartition, stop: CancellationToken) -> Held {
        let (sender, held) = watch::channel(None);
        self.waiting.insert(partition, sender.clone());
        tokio::spawn(take(
            Arc::clone(&self.actuator),
            partition.partition,
            sender,
            stop,
            self.health.clone(),
            Duration::ZERO,
        ));
        held
    }

    /// Somebody else took the lease. If the partition is still ours after a while, it
    /// is taken back.
    pub fn lost(&mut self, partition: TopicPartition, lost: &Lease, stop: CancellationToken) {
        let Some(sender) = self.waiting.get(&partition) else { return };
        // Several decisions find it out; one of them counts.
        let withdrawn = sender.send_if_modified(|held| {
            let ours = held.as_ref() == Some(lost);
            if ours {
                *held = None;
            }
            ours
        });
        if withdrawn {
            tracing::warn!(%partition, token = lost.token, "somebody else has taken the lease of this partition");
            tokio::spawn(take(
                Arc::clone(&self.actuator),
                partition.partition,
                sender.clone(),
                stop,
                self.health.clone(),
                self.actuator.settings.retake_after,
            ));
        }
    }

    pub fn forget(&mut self, partition: TopicPartition) {
        self.waiting.remove(&partition);
    }
}

async fn take<P: Platform, L: Ledger>(
    actuator: Arc<Actuator<P, L>>,
    partition: i32,
    held: watch::Sender<Option<Lease>>,
    stop: CancellationToken,
    health: Part,
    after: Duration,
) {
    let name = name(&actuator.kafka.topic_prefix, partition);
    let mut pause = after;
    for tries in 0u32.. {
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        let taken = tokio::select! {
            taken = actuator.ledger.take_lease(&name, &actuator.kafka.instance) => taken,
            () = stop.cancelled() => return,
        };
        match taken {
            Ok(lease) => {
                tracing::debug!(lease = lease.name, token = lease.token, "lease taken");
                health.ready();
                held.send_replace(Some(lease));
                return;
            }
            Err(error) => {
                if tries == 0 {
                    tracing::warn!(lease = name, error = error.reason, "cannot take a lease; trying on");
                }
                health.not_ready(format!("cannot take lease {name}: {}", error.reason));
                pause = Duration::from_millis(100 << tries.min(4));
            }
        }
    }
}
