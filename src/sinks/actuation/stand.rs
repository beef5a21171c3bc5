//! What executions are tested on: a ledger and a platform made of memory, in time that is
//! moved by hand, disturbed by script or at any call.

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::execution::{Execution, Interrupted};
use super::leases::Tenure;
use super::ledger::{Ledger, LedgerError};
use super::{Actuation, Change, Read, Settings};
use crate::genesys::{CallError, CallErrorKind, Reply, Scope};
use crate::kafka::settings::KafkaSettings;
use crate::model::Timestamp;
use crate::model::decision::DecisionId;
use crate::model::outcome::{Outcome, ReceivedResponse, SentRequest};
use crate::postgres::intents::{Claim, Claimed, FlowChange, History, Intent, Settlement, Terms};
use crate::postgres::leases::Lease;

/// When time begins, by the ledger's clock.
pub(crate) const START_MS: i64 = 1_767_323_045_000;
/// What the platform says it begins.
pub(crate) const OPERATION: &str = "ours";
/// How long the client waits for a reply at most.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(20);
/// How long a slow platform takes.
pub(crate) const SLOW: Duration = Duration::from_secs(20);

/// An object on the platform.
pub(crate) trait Object: Clone + Send + 'static {
    /// Lets a request have its effect, or says why it has none.
    fn apply(&mut self, request: &SentRequest) -> Result<(), CallErrorKind>;
}

/// What the platform does with the next call.
#[derive(Clone)]
pub(crate) enum Act<O> {
    /// As it should.
    Work,
    /// Refuses, without effect.
    Refuse(Refusal),
    /// Has the effect of a write, but the answer is this.
    WorkBut(CallErrorKind),
    /// Somebody else changes the object first.
    After(fn(&mut O)),
    /// Has the effect; then somebody else changes the object; no reply.
    Before(fn(&mut O)),
    /// Never answers.
    Hang,
    /// Has the effect and never answers.
    WorkAndHang,
    /// Takes so long to its effect and its answer.
    Late(Duration),
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Refusal {
    Plain(CallErrorKind),
    RateLimited(Duration),
    Busy(Duration),
    Paused(Duration),
}

impl Refusal {
    fn error(self) -> CallError {
        error(match self {
            Refusal::Plain(kind) => kind,
            Refusal::RateLimited(wait) => CallErrorKind::RateLimited { until: Instant::now() + wait },
            Refusal::Busy(wait) => CallErrorKind::Busy { until: Instant::now() + wait },
            Refusal::Paused(wait) => CallErrorKind::Paused { until: Some(Instant::now() + wait) },
        })
    }
}

pub(crate) fn plain<O>(kind: CallErrorKind) -> Act<O> {
    Act::Refuse(Refusal::Plain(kind))
}

pub(crate) fn error(kind: CallErrorKind) -> CallError {
    let reason = format!("the platform says {}", kind.name());
    let response =
        ReceivedResponse { status: None, body: None, error: Some(reason.clone()), correlation_id: None };
    CallError { kind, reason, response: Box::new(response) }
}

/// What befalls one call of an execution, to the platform or the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Disturbance {
    /// The process is told to stop.
    Stop,
    /// Somebody else takes the lease.
    Robbed,
    /// The process dies before the call.
    CrashBefore,
    /// The process dies after it.
    CrashAfter,
    /// No word, and it had no effect.
    LostBefore,
    /// No word, and it had its effect.
    LostAfter,
    /// It takes long.
    Slow,
    /// It is refused for a while: 429, or no connection to the ledger.
    Refused,
}

pub(crate) const DISTURBANCES: [Disturbance; 8] = [
    Disturbance::Stop,
    Disturbance::Robbed,
    Disturbance::CrashBefore,
    Disturbance::CrashAfter,
    Disturbance::LostBefore,
    Disturbance::LostAfter,
    Disturbance::Slow,
    Disturbance::Refused,
];

/// Which calls are disturbed, counted from 0 over all executions of the decision.
#[derive(Clone, Default)]
pub(crate) struct Trap(Arc<TrapState>);

#[derive(Default)]
struct TrapState {
    calls: AtomicUsize,
    at: Mutex<BTreeMap<usize, Disturbance>>,
    crashed: Notify,
    stop: Mutex<CancellationToken>,
}

impl Trap {
    pub(crate) fn set(&self, disturbances: impl IntoIterator<Item = (usize, Disturbance)>) {
        self.0.at.lock().unwrap().extend(disturbances);
    }

    pub(crate) fn calls(&self) -> usize {
        self.0.calls.load(Ordering::SeqCst)
    }

    /// The next call is being made. `rob` takes the lease away.
    async fn next(&self, rob: impl FnOnce()) -> Option<Disturbance> {
        let call = self.0.calls.fetch_add(1, Ordering::SeqCst);
        let disturbance = self.0.at.lock().unwrap().get(&call).copied()?;
        match disturbance {
            Disturbance::Stop => self.0.stop.lock().unwrap().cancel(),
            Disturbance::Robbed => rob(),
            Disturbance::CrashBefore => self.crash().await,
            other => return Some(other),
        }
        None
    }

    async fn crash<T>(&self) -> T {
        self.0.crashed.notify_one();
        std::future::pending().await
    }
}

/// The platform.
pub(crate) struct World<O> {
    pub object: O,
    pub reads: VecDeque<Act<O>>,
    pub writes: VecDeque<Act<O>>,
    /// Requests of ours that changed something.
    pub effects: Vec<SentRequest>,
    /// Every request that reached the platform.
    pub sent: Vec<SentRequest>,
    /// On their way to their effect.
    landing: Vec<(Instant, SentRequest)>,
}

impl<O: Object> World<O> {
    pub(crate) fn write(&mut self, request: &SentRequest) -> Result<Reply, CallError> {
        self.object.apply(request).map_err(error)?;
        self.effects.push(request.clone());
        let response = ReceivedResponse { status: Some(200), body: None, error: None, correlation_id: None };
        Ok(Reply { response, revision: None, operation: Some(OPERATION.to_owned()) })
    }

    fn land(&mut self) {
        let (landed, coming) = self.landing.drain(..).partition::<Vec<_>, _>(|(at, _)| *at <= Instant::now());
        self.landing = coming;
        for (_, request) in landed {
            let _ = self.write(&request);
        }
    }
}

/// A client of the platform.
#[derive(Clone)]
pub(crate) struct Scripted<O> {
    world: Arc<Mutex<World<O>>>,
    memory: Memory,
}

/// What the client does with a call that gets no answer.
async fn unanswered<T>(
    until: Instant,
    scope: &Scope,
    late: CallErrorKind,
    stopped: CallErrorKind,
) -> Result<T, CallError> {
    tokio::select! {
        () = sleep_until(until) => Err(error(late)),
        () = scope.cancelled.cancelled() => Err(error(stopped)),
    }
}

impl<O: Object> Scripted<O> {
    fn world(&self) -> MutexGuard<'_, World<O>> {
        let mut world = self.world.lock().unwrap();
        world.land();
        world
    }

    pub(crate) async fn look(&self, scope: &Scope) -> Result<O, CallError> {
        match self.memory.trap.next(|| self.memory.rob()).await {
            Some(Disturbance::CrashAfter) => return self.memory.trap.crash().await,
            Some(Disturbance::LostBefore | Disturbance::LostAfter) => {
                return Err(error(CallErrorKind::NotSent));
            }
            Some(Disturbance::Refused) => return Err(Refusal::RateLimited(Duration::from_secs(3)).error()),
            Some(Disturbance::Slow) => sleep_until(scope.deadline.min(Instant::now() + SLOW)).await,
            _ => {}
        }
        let act = self.world().reads.pop_front().unwrap_or(Act::Work);
        match act {
            Act::Refuse(refusal) => Err(refusal.error()),
            Act::Hang => {
                let kinds = (CallErrorKind::DeadlinePassed, CallErrorKind::Cancelled);
                unanswered(scope.deadline, scope, kinds.0, kinds.1).await
            }
            _ => Ok(self.world().object.clone()),
        }
    }

    pub(crate) async fn write(&self, request: &SentRequest, scope: &Scope) -> Result<Reply, CallError> {
        let disturbance = self.memory.trap.next(|| self.memory.rob()).await;
        if Instant::now() >= scope.deadline {
            return Err(error(CallErrorKind::DeadlinePassed));
        }
        let mut act = Act::Work;
        {
            let mut world = self.world();
            world.sent.push(request.clone());
            act = world.writes.pop_front().unwrap_or(act);
        }
        act = match disturbance {
            Some(Disturbance::CrashAfter) => {
                let _ = self.world().write(request);
                return self.memory.trap.crash().await;
            }
            Some(Disturbance::LostBefore) => plain(CallErrorKind::NoReply),
            Some(Disturbance::LostAfter) => Act::WorkBut(CallErrorKind::NoReply),
            Some(Disturbance::Refused) => Act::Refuse(Refusal::RateLimited(Duration::from_secs(3))),
            Some(Disturbance::Slow) => Act::Late(SLOW),
            _ => act,
        };
        let mut answer_at = None;
        match act {
            Act::Work => return self.world().write(request),
            Act::Refuse(refusal) => return Err(refusal.error()),
            Act::WorkBut(kind) => {
                let _ = self.world().write(request);
                return Err(error(kind));
            }
            Act::After(meddle) => {
                let mut world = self.world();
                meddle(&mut world.object);
                return world.write(request);
            }
            Act::Before(meddle) => {
                let mut world = self.world();
                let _ = world.write(request);
                meddle(&mut world.object);
                return Err(error(CallErrorKind::NoReply));
            }
            Act::Hang => {}
            Act::WorkAndHang => {
                let _ = self.world().write(request);
            }
            Act::Late(after) => {
                let at = Instant::now() + after;
                self.world().landing.push((at, request.clone()));
                answer_at = Some(at);
            }
        }
        let given_up = scope.deadline.min(Instant::now() + CLIENT_TIMEOUT);
        if let Some(at) = answer_at.filter(|at| *at < given_up) {
            tokio::select! {
                () = sleep_until(at) => {
                    let response =
                        ReceivedResponse { status: Some(200), body: None, error: None, correlation_id: None };
                    return Ok(Reply { response, revision: None, operation: Some(OPERATION.to_owned()) });
                }
                () = scope.cancelled.cancelled() => return Err(error(CallErrorKind::NoReply)),
            }
        }
        unanswered(given_up, scope, CallErrorKind::NoReply, CallErrorKind::NoReply).await
    }
}

/// What the ledger holds.
#[derive(Default)]
pub(crate) struct Book {
    token: i64,
    intents: Vec<(Intent<Value>, i64, Timestamp)>,
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
    fn new() -> Self {
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

    fn rob(&self) {
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

/// A kind of change on the stand.
pub(crate) trait Staged: Change {
    type Object: Object;
    /// How long its decision may be carried out.
    const LIFE: Duration;
    fn object() -> Self::Object;
    fn change(platform: Scripted<Self::Object>) -> Self;
    /// To change [`object`](Self::object).
    fn decision() -> Read<'static, Self>;
    /// An object as it must be once the decision is applied.
    fn is_changed(object: &Self::Object) -> bool;
}

/// One decision and all around it.
pub(crate) struct Stand<C: Staged> {
    pub actuation: Actuation<C, Memory>,
    pub world: Arc<Mutex<World<C::Object>>>,
    pub memory: Memory,
    pub decision: Read<'static, C>,
    pub lease: Lease,
    pub superseded: CancellationToken,
    pub stop: CancellationToken,
}

impl<C: Staged> Stand<C> {
    pub(crate) async fn new() -> Self {
        let world = Arc::new(Mutex::new(World {
            object: C::object(),
            reads: VecDeque::new(),
            writes: VecDeque::new(),
            effects: Vec::new(),
            sent: Vec::new(),
            landing: Vec::new(),
        }));
        let kafka = KafkaSettings {
            brokers: String::new(),
            topic_prefix: "t-".to_owned(),
            instance: "one".to_owned(),
            properties: BTreeMap::new(),
        };
        let memory = Memory::new();
        let lease = memory.take_lease("l", "one").await.unwrap();
        let platform = Scripted { world: Arc::clone(&world), memory: memory.clone() };
        let (change, settings) = (C::change(platform), Settings::default());
        Self {
            actuation: Actuation::new(kafka, settings, change, memory.clone()),
            world,
            memory,
            decision: C::decision(),
            lease,
            superseded: CancellationToken::new(),
            stop: CancellationToken::new(),
        }
    }

    pub(crate) fn writes(self, acts: &[Act<C::Object>]) -> Self {
        self.world.lock().unwrap().writes.extend(acts.iter().cloned());
        self
    }

    pub(crate) fn reads(self, acts: &[Act<C::Object>]) -> Self {
        self.world.lock().unwrap().reads.extend(acts.iter().cloned());
        self
    }

    pub(crate) fn with(self, change: impl FnOnce(&mut C::Object)) -> Self {
        change(&mut self.world.lock().unwrap().object);
        self
    }

    pub(crate) async fn run(&self) -> Result<Outcome, Interrupted> {
        let tenure = Tenure::kept(self.lease.clone());
        let (superseded, stop) = (self.superseded.clone(), self.stop.clone());
        Execution::new(&self.actuation, &self.decision, &tenure, superseded, stop).run().await
    }

    pub(crate) async fn outcome(&self) -> Outcome {
        self.run().await.expect("an outcome")
    }

    /// Executes the decision as often as it takes, each time under a new lease, as whoever
    /// takes it up after a stop, a crash or a lost lease does.
    pub(crate) async fn outcome_in_the_end(&mut self) -> Outcome {
        for _ in 0..20 {
            self.lease = self.memory.take_lease("l", "one").await.unwrap();
            self.stop = CancellationToken::new();
            *self.memory.trap.0.stop.lock().unwrap() = self.stop.clone();
            tokio::select! {
                ended = self.run() => if let Ok(outcome) = ended { return outcome },
                () = self.memory.trap.0.crashed.notified() => {}
            }
        }
        panic!("no outcome after twenty executions");
    }

    /// Lets everything that is on its way arrive.
    pub(crate) async fn all_has_landed(&self) {
        tokio::time::advance(SLOW * 2).await;
        self.world.lock().unwrap().land();
    }

    pub(crate) fn effects(&self) -> usize {
        self.world.lock().unwrap().effects.len()
    }

    pub(crate) fn sent(&self) -> usize {
        self.world.lock().unwrap().sent.len()
    }

    pub(crate) fn intents(&self) -> usize {
        self.memory.book.lock().unwrap().intents.len()
    }
}
