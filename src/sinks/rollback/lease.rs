//! The one lease under which all rollbacks are carried out.

use std::time::Duration;

use tokio::time::{sleep, timeout};
use tokio_util::sync::{CancellationToken, DropGuard};

use super::{ROLE, RollbackActuator};
use crate::postgres::Database;
use crate::postgres::leases::Lease;

/// No statement is waited for longer: a connection that is dead without saying so would
/// hold the lease's owner up for minutes.
pub const ANSWER_WITHIN: Duration = Duration::from_secs(10);

/// The lease while it is ours: renewed in the background until it is dropped.
pub struct Held {
    pub lease: Lease,
    /// Somebody else has it.
    pub lost: CancellationToken,
    _renewing: DropGuard,
}

/// Waits for the lease. `None` when `stop` came first.
pub async fn take(actuator: &RollbackActuator, stop: &CancellationToken) -> Option<Held> {
    // The prefix keeps installations apart that share one database.
    let name = format!("{ROLE}/{}", actuator.kafka.topic_prefix);
    let (settings, ledger) = (&actuator.settings, &actuator.ledger);
    let mut complained = false;
    loop {
        let asked = ledger.take_idle_lease(&name, &actuator.kafka.instance, settings.lease_idle);
        let taken = tokio::select! {
            taken = timeout(ANSWER_WITHIN, asked) => taken,
            () = stop.cancelled() => return None,
        };
        match taken {
            Ok(Ok(Some(lease))) => return Some(hold(ledger.clone(), lease, settings.lease_idle)),
            Ok(Ok(None)) => {}
            Ok(Err(error)) if !complained => {
                tracing::warn!(lease = name, %error, "cannot take the lease; trying on");
                complained = true;
            }
            Ok(Err(_)) | Err(_) => {}
        }
        tokio::select! {
            () = sleep(settings.lease_poll) => {}
            () = stop.cancelled() => return None,
        }
    }
}

fn hold(ledger: Database, lease: Lease, idle: Duration) -> Held {
    let (lost, end) = (CancellationToken::new(), CancellationToken::new());
    let (ours, told, ended) = (lease.clone(), lost.clone(), end.clone());
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = sleep(idle / 5) => {}
                () = ended.cancelled() => break,
            }
            // Without an answer it may run out; whoever takes it then is found out by the
            // next statement under it.
            if let Ok(Ok(false)) = timeout(ANSWER_WITHIN, ledger.renew_lease(&ours)).await {
                tracing::warn!(lease = ours.name, token = ours.token, "somebody else has taken the lease");
                told.cancel();
                return;
            }
        }
        // Left to run out where this gets no answer.
        let _ = timeout(ANSWER_WITHIN, ledger.release_lease(&ours)).await;
    });
    Held { lease, lost, _renewing: end.drop_guard() }
}
