//! A platform made of memory.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

use super::memory::Memory;
use super::trap::Disturbance;
use crate::genesys::{CallError, CallErrorKind, Reply, Scope};
use crate::model::outcome::{ReceivedResponse, SentRequest};

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
    pub(super) landing: Vec<(Instant, SentRequest)>,
}

impl<O: Object> World<O> {
    pub(crate) fn write(&mut self, request: &SentRequest) -> Result<Reply, CallError> {
        self.object.apply(request).map_err(error)?;
        self.effects.push(request.clone());
        let response = ReceivedResponse { status: Some(200), body: None, error: None, correlation_id: None };
        Ok(Reply { response, revision: None, operation: Some(OPERATION.to_owned()) })
    }

    pub(super) fn land(&mut self) {
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
    pub(super) world: Arc<Mutex<World<O>>>,
    pub(super) memory: Memory,
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
