//! Leases: of every partition that is ours, or of everything for one decision.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, sleep_until};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::ledger::Ledger;
use super::{Actuation, Change};
use crate::backoff::Backoff;
use crate::health::Part;
use crate::kafka::subscription::TopicPartition;
use crate::postgres::leases::Lease;

/// Pauses between tries to take a partition's lease.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_millis(1_600));

/// One partition's lease as it stands; changes when it is taken anew.
pub(super) type PartitionLease = watch::Receiver<Option<Lease>>;

/// A lease while a decision is executed under it.
#[derive(Debug)]
pub(super) struct Tenure {
    pub lease: Lease,
    /// How long ago the lease may have been renewed at most for a claim under it.
    pub renewed_within: Option<Duration>,
    /// Somebody else has it, as far as is known without asking.
    pub lost: CancellationToken,
    _renewing: Option<DropGuard>,
}

impl Tenure {
    /// Under a lease that is kept without being renewed.
    pub(super) fn kept(lease: Lease) -> Self {
        Self { lease, renewed_within: None, lost: CancellationToken::new(), _renewing: None }
    }
}

/// Where a decision gets the lease it is executed under.
pub(super) enum Source {
    Partition {
        partition: TopicPartition,
        lease: PartitionLease,
        /// The last one, which was lost.
        last: Option<Lease>,
        lost: mpsc::UnboundedSender<(TopicPartition, Lease)>,
    },
    /// Everything of an organisation.
    Everything(Option<String>),
}

impl Source {
    /// Waits for a lease. The tenure's loss cancels `interrupt`. `None` when `stop` came first.
    pub(super) async fn next<C: Change, L: Ledger>(
        &mut self,
        actuation: &Actuation<C, L>,
        health: &Part,
        interrupt: &CancellationToken,
        stop: &CancellationToken,
    ) -> Option<Tenure> {
        match self {
            Self::Partition { lease, last, .. } => tokio::select! {
                held = lease.wait_for(|held| held.is_some() && held != last) => {
                    held.ok().and_then(|held| held.clone()).map(Tenure::kept)
                }
                () = stop.cancelled() => None,
            },
            Self::Everything(organization) => {
                take_everything(actuation, organization.as_deref(), health, interrupt, stop).await
            }
        }
    }

    /// Somebody else has the lease of this tenure.
    pub(super) fn lost(&mut self, tenure: Tenure) {
        if let Self::Partition { partition, last, lost, .. } = self {
            let _ = lost.send((*partition, tenure.lease.clone()));
            *last = Some(tenure.lease);
        }
    }
}

/// Takes the leases of partitions in the background and takes them back when they were lost
/// by mistake.
pub(super) struct PartitionLeases<C, L> {
    actuation: Arc<Actuation<C, L>>,
    health: Part,
    waiting: HashMap<TopicPartition, watch::Sender<Option<Lease>>>,
}

impl<C: Change, L: Ledger> PartitionLeases<C, L> {
    pub(super) fn new(actuation: Arc<Actuation<C, L>>, health: Part) -> Self {
        Self { actuation, health, waiting: HashMap::new() }
    }

    /// Begins to take the lease of a partition that has become ours.
    pub(super) fn begin(&mut self, partition: TopicPartition, stop: CancellationToken) -> PartitionLease {
        let (sender, held) = watch::channel(None);
        self.waiting.insert(partition, sender.clone());
        self.take(partition, sender, stop, Duration::ZERO);
        held
    }

    /// Somebody else took the lease. If the partition is still ours after a while, it
    /// is taken back.
    pub(super) fn lost(&mut self, partition: TopicPartition, lost: &Lease, stop: CancellationToken) {
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
            self.take(partition, sender.clone(), stop, self.actuation.settings.retake_after);
        }
    }

    pub(super) fn forget(&mut self, partition: TopicPartition) {
        self.waiting.remove(&partition);
    }

    fn take(
        &self,
        partition: TopicPartition,
        held: watch::Sender<Option<Lease>>,
        stop: CancellationToken,
        after: Duration,
    ) {
        let (actuation, health) = (Arc::clone(&self.actuation), self.health.clone());
        tokio::spawn(async move {
            let taking = take_partition(&actuation, partition.partition, &held, &health, after);
            tokio::select! {
                () = taking => {}
                () = stop.cancelled() => {}
            }
        });
    }
}

async fn take_partition<C: Change, L: Ledger>(
    actuation: &Actuation<C, L>,
    partition: i32,
    held: &watch::Sender<Option<Lease>>,
    health: &Part,
    after: Duration,
) {
    // The prefix keeps installations apart that share one database.
    let name = format!("{}/{}/{partition}", C::DECLARATION.lease, actuation.kafka.topic_prefix);
    let mut pauses = Backoff::new(PAUSES);
    sleep(after).await;
    loop {
        match actuation.ledger.take_lease(&name, &actuation.kafka.instance).await {
            Ok(lease) => {
                tracing::debug!(lease = lease.name, token = lease.token, "lease taken");
                health.ready();
                held.send_replace(Some(lease));
                return;
            }
            Err(error) => {
                if pauses.is_fresh() {
                    tracing::warn!(lease = name, error = error.reason, "cannot take a lease; trying on");
                }
                health.not_ready(format!("cannot take lease {name}: {}", error.reason));
                sleep_until(pauses.until()).await;
            }
        }
    }
}

/// Waits until nobody else uses the lease over everything. It is renewed in the background
/// until the tenure is dropped.
async fn take_everything<C: Change, L: Ledger>(
    actuation: &Actuation<C, L>,
    organization: Option<&str>,
    health: &Part,
    interrupt: &CancellationToken,
    stop: &CancellationToken,
) -> Option<Tenure> {
    let of = organization.map(|name| format!("/{name}")).unwrap_or_default();
    let name = format!("{}/{}{of}", C::DECLARATION.lease, actuation.kafka.topic_prefix);
    let settings = &actuation.settings;
    let mut complained = false;
    loop {
        let asked = actuation.ledger.take_idle_lease(&name, &actuation.kafka.instance, settings.lease_idle);
        let taken = tokio::select! {
            taken = asked => taken,
            () = stop.cancelled() => return None,
        };
        match taken {
            Ok(taken) => {
                health.ready();
                if let Some(lease) = taken {
                    return Some(hold(actuation, lease, interrupt.clone()));
                }
            }
            Err(error) => {
                if !complained {
                    tracing::warn!(lease = name, error = error.reason, "cannot take the lease; trying on");
                    complained = true;
                }
                health.not_ready(format!("cannot take lease {name}: {}", error.reason));
            }
        }
        tokio::select! {
            () = sleep(settings.lease_poll) => {}
            () = stop.cancelled() => return None,
        }
    }
}

fn hold<C: Change, L: Ledger>(
    actuation: &Actuation<C, L>,
    lease: Lease,
    interrupt: CancellationToken,
) -> Tenure {
    let (lost, end) = (CancellationToken::new(), CancellationToken::new());
    let (ledger, settings) = (actuation.ledger.clone(), &actuation.settings);
    let (ours, told, ended, idle) = (lease.clone(), lost.clone(), end.clone(), settings.lease_idle);
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sleep(idle / 5) => {}
                () = ended.cancelled() => break,
            }
            // Without an answer it may run out; whoever takes it then is found out by the
            // next statement under it.
            if let Ok(false) = ledger.renew_lease(&ours).await {
                tracing::warn!(lease = ours.name, token = ours.token, "somebody else has taken the lease");
                told.cancel();
                interrupt.cancel();
                return;
            }
        }
        // Left to run out where this gets no answer.
        let _ = ledger.release_lease(&ours).await;
    });
    let renewed_within = Some(settings.lease_idle.saturating_sub(settings.claim_lifetime));
    Tenure { lease, renewed_within, lost, _renewing: Some(end.drop_guard()) }
}
