//! A ledger made of memory.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::trap::{Disturbance, Trap};
use crate::model::Timestamp;
use crate::model::decision::DecisionId;
use crate::model::outcome::Outcome;
use crate::postgres::intents::{Claim, Claimed, FlowChange, History, Intent, Settlement, Terms};
use crate::postgres::leases::Lease;
use crate::sinks::actuation::ledger::{Ledger, LedgerError};

/// When time begins, by the ledger's clock.
pub(crate) const START_MS: i64 = 1_767_323_045_000;

/// What the ledger holds.
#[derive(Default)]
pub(crate) struct Book {
    token: i64,
    pub(super) intents: Vec<(Intent<Value>, i64, Timestamp)>,
    pub settlements: BTreeMap<DecisionId, Outcome>,
    /// Flow, bad version, event time.
    pub rollbacks: Vec<(DecisionId, String, String, Timestamp)>,
    /// An open maintenance window.
    pub maintenance: Option<String>,
}

#[derive(Clone)]
pub(crate) struct Memory {
    pub book: Arc<Mutex<Book>>,
    pub away: Arc<AtomicBool>,
    pub trap: Trap,
    began: Instant,
    /// How far the ledger's clock is ahead of all others.
    ahead: Arc<Mutex<Duration>>,
}

impl Memory {
    pub(super) fn new() -> Self {
        Self {
            book: Arc::default(),
            away: Arc::default(),
            trap: Trap::default(),
            began: Instant::now(),
            ahead: Arc::default(),
        }
    }

    pub(crate) fn now(&self) -> Timestamp {
        Timestamp::from_millis(START_MS).plus(self.began.elapsed()).plus(*self.ahead.lock().unwrap())
    }

    pub(crate) fn set_ahead(&self, ahead: Duration) {
        *self.ahead.lock().unwrap() = ahead;
    }

    pub(super) fn rob(&self) {
        self.book.lock().unwrap().token += 1;
    }

    async fn answer<T>(&self, with: impl FnOnce(&mut Book) -> T) -> Result<T, LedgerError> {
        let lost = |reason: &str| Err(LedgerError { reason: reason.to_owned(), about_data: false });
        let disturbance = self.trap.next(|| self.rob()).await;
        match disturbance {
            Some(Disturbance::LostBefore | Disturbance::Refused) => return lost("connection refused"),
            Some(Disturbance::Slow) => sleep(Duration::from_secs(9)).await,
            _ => {}
        }
        if self.away.load(Ordering::Relaxed) {
            return lost("connection refused");
        }
        let answer = with(&mut self.book.lock().unwrap());
        match disturbance {
            Some(Disturbance::CrashAfter) => self.trap.crash().await,
            Some(Disturbance::LostAfter) => lost("the connection was cut"),
            _ => Ok(answer),
        }
    }
}

impl Ledger for Memory {
    async fn take_lease(&self, name: &str, _: &str) -> Result<Lease, LedgerError> {
        let mut book = self.book.lock().unwrap();
        book.token += 1;
        Ok(Lease { name: name.to_owned(), token: book.token })
    }

    async fn take_idle_lease(&self, _: &str, _: &str, _: Duration) -> Result<Option<Lease>, LedgerError> {
        unimplemented!("leases over everything are tested on a database")
    }

    async fn renew_lease(&self, _: &Lease) -> Result<bool, LedgerError> {
        unimplemented!("leases over everything are tested on a database")
    }

    async fn release_lease(&self, _: &Lease) -> Result<(), LedgerError> {
        unimplemented!("leases over everything are tested on a database")
    }

    async fn history<P: DeserializeOwned + Send + Unpin>(
        &self,
        decision: DecisionId,
    ) -> Result<History<P>, LedgerError> {
        let now = self.now();
        self.answer(|book| {
            let intents = book.intents.iter().filter(|(intent, ..)| intent.decision_id == decision);
            let claimed = intents.map(|(intent, token, claimed_at)| Claimed {
                intent: Intent {
                    decision_id: decision,
                    attempt: intent.attempt,
                    request: intent.request.clone(),
                    parameters: serde_json::from_value(intent.parameters.clone()).expect("a plan"),
                },
                token: *token,
                claimed_at: *claimed_at,
            });
            History { intents: claimed.collect(), settlement: book.settlements.get(&decision).cloned(), now }
        })
        .await
    }

    /// What the statement in [`crate::postgres::intents`] does.
    async fn claim<P: Serialize + Send + Sync>(
        &self,
        intent: &Intent<P>,
        lease: &Lease,
        terms: &Terms<'_>,
    ) -> Result<Claim, LedgerError> {
        let intent = Intent {
            decision_id: intent.decision_id,
            attempt: intent.attempt,
            request: intent.request.clone(),
            parameters: serde_json::to_value(&intent.parameters).expect("JSON"),
        };
        self.answer(|book| {
            if lease.token != book.token {
                return Claim::LeaseLost;
            }
            if self.now() >= terms.expires_at {
                return Claim::Expired;
            }
            if let (Some(scope), Some(_)) = (&book.maintenance, terms.flow) {
                return Claim::Maintenance(scope.clone());
            }
            if let Some(flow) = terms.flow {
                let others = || {
                    book.rollbacks
                        .iter()
                        .filter(|(id, of, ..)| *id != intent.decision_id && of == flow.flow_id)
                };
                let until = others().map(|(.., at)| at.plus(flow.lockout)).max();
                if let Some(until) = until.filter(|until| *until > flow.event_time) {
                    return Claim::LockedOut(until);
                }
                if others().any(|(_, _, bad, _)| bad == flow.version) {
                    return Claim::TakenBack;
                }
            }
            let same =
                |it: &Intent<Value>| it.decision_id == intent.decision_id && it.attempt == intent.attempt;
            if book.intents.iter().any(|(it, ..)| same(it)) {
                return Claim::Taken;
            }
            book.intents.push((intent, lease.token, self.now()));
            Claim::Granted
        })
        .await
    }

    async fn settle(
        &self,
        outcome: &Outcome,
        change: Option<&FlowChange<'_>>,
        lease: &Lease,
    ) -> Result<Settlement, LedgerError> {
        self.answer(|book| match book.settlements.get(&outcome.decision_id) {
            Some(stands) => Settlement::Stands(Box::new(stands.clone())),
            None if lease.token != book.token => Settlement::LeaseLost,
            None => {
                book.settlements.insert(outcome.decision_id, outcome.clone());
                book.rollbacks.extend(change.map(|it| {
                    (outcome.decision_id, it.flow_id.to_owned(), it.bad_version.to_owned(), it.event_time)
                }));
                Settlement::Stands(Box::new(outcome.clone()))
            }
        })
        .await
    }
}
