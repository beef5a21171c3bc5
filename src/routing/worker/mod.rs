//! Answers for one configuration: one task that owns what this instance knows about it.
//!
//! Conversations that wait are decided as a block and answered once the block is
//! committed (`exact`). Whoever has waited as long as callers do is answered from what is
//! known here; that answer is kept as `late`, to be recorded with the very same destination
//! with the next block. Everybody else goes on waiting for the next turn. Only while the
//! counters cannot be reached at all nobody waits.
//!
//! Nothing is ever decided twice: a destination that may have been committed is the one that
//! is handed out and recorded.
//!
//! ```text
//!           ask ──▶ queue ──turn──▶ block on its way ──committed──▶ told, exact
//!                     │                │        └──failed──▶ queue (maybe recorded)
//!            patience over      patience over
//!                     ▼                ▼
//!               told by rule     told as the block says ──▶ late, unless the block commits
//! ```

mod degraded;
mod patience;
mod turns;

pub(super) use patience::looks;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::block::DrawnBlock;
use super::breaker::Breaker;
use super::context::{Context, Meters};
use super::group_counters::GroupCounters;
use super::journal::Journal;
use super::weights::Plan;
use crate::genesys::BoxFuture;
use crate::metrics;
use crate::model::routing::{RouteAnswer, RouteConfiguration, RouteSource};
use crate::postgres::Error;
use crate::postgres::routing::{Counter, InForce, LockedTurn, NewAnswer};

/// After shutdown callers and late answers get this long.
const GRACE: Duration = Duration::from_millis(1_200);

/// What a worker is asked.
pub(super) enum Message {
    Ask(Ask),
    /// Another revision or other weights may be in force.
    LookAgain,
}

/// One request.
pub(super) struct Ask {
    pub conversation_id: Arc<str>,
    pub asked_at: Instant,
    pub traceparent: Option<Arc<str>>,
    pub reply: oneshot::Sender<Arc<RouteAnswer>>,
}

struct Callers {
    asked_at: Instant,
    looked_for: LookedFor,
    /// The trace of the first of them.
    traceparent: Option<Arc<str>>,
    replies: Vec<oneshot::Sender<Arc<RouteAnswer>>>,
}

/// Whether it has been looked, without a turn, if a conversation was answered before.
#[derive(Clone, Copy, PartialEq, Eq)]
enum LookedFor {
    NotYet,
    /// Begun after the last of its callers asked.
    Begun,
    /// What had been recorded before the last of its callers asked has been read.
    Done,
}

enum Step {
    Idle,
    /// A block is on its way in one statement.
    Writing(DrawnBlock),
    /// The counter is being locked to answer these.
    Locking(Vec<Arc<str>>),
    /// A block is on its way under the lock.
    LockedWriting(DrawnBlock),
}

enum Done {
    Written(Result<bool, Error>),
    Locked(Result<Option<Box<LockedTurn>>, Error>),
    LockedWritten(Result<(), Error>),
}

pub(super) struct Worker {
    id: Arc<str>,
    context: Arc<Context>,
    meters: Meters,
    definition: RouteConfiguration,
    plan: Plan,
    settings_revision: i64,
    /// The counter as last read or written.
    counter: Counter,
    /// That, and everything given here since.
    local: GroupCounters,
    /// What was decided here without the counters, balanced by itself.
    own: GroupCounters,
    /// When it last showed that other instances decide as well.
    others_at: Instant,
    /// Who waits for a turn. Of these some may have been answered meanwhile: they have no
    /// callers.
    queue: VecDeque<Arc<str>>,
    /// When whose patience is over, in the order they asked.
    deadlines: VecDeque<(Instant, Arc<str>)>,
    callers: HashMap<Arc<str>, Callers>,
    /// Given, not recorded, and in no block on its way.
    late: VecDeque<NewAnswer>,
    /// The weights that late answers were decided under: they are booked under the same, so that
    /// nobody is owed what came due while it was away.
    decided_under: HashMap<Arc<str>, Arc<[i64]>>,
    /// Given and not known to be recorded.
    unrecorded: HashMap<Arc<str>, Arc<RouteAnswer>>,
    /// Decided in a block that may have been committed, and not told to anybody.
    maybe_recorded: HashMap<Arc<str>, NewAnswer>,
    journal: Option<Journal>,
    step: Step,
    /// When to look beside the step on its way.
    look_at: Instant,
    /// Somebody's patience was over before the step on its way was done.
    overdue: bool,
    breaker: Breaker,
    /// Another instance writes as well: better to lock first.
    contended: bool,
    look_again: bool,
}

impl Worker {
    /// `definition` must be one that was checked when it was saved.
    ///
    /// # Errors
    /// When it cannot be decided by after all.
    pub(super) fn new(context: Arc<Context>, in_force: InForce) -> Result<Self, super::weights::Unusable> {
        let InForce { counter, definition } = in_force;
        let id: Arc<str> = definition.id.as_str().into();
        let (plan, settings_revision) = context.plan(&definition, counter.canary.as_ref())?;
        let journal = context.journal(&id);
        let now = Instant::now();
        let mut worker = Self {
            meters: Meters::of(&id),
            id,
            local: GroupCounters::new(&plan, &counter.counts, &plan.weights(|_| true)),
            own: GroupCounters::of_nothing(&plan),
            // Not known yet, so it is taken for granted.
            others_at: now,
            definition,
            plan,
            settings_revision,
            counter,
            queue: VecDeque::new(),
            deadlines: VecDeque::new(),
            callers: HashMap::new(),
            late: VecDeque::new(),
            decided_under: HashMap::new(),
            unrecorded: HashMap::new(),
            maybe_recorded: HashMap::new(),
            journal,
            step: Step::Idle,
            look_at: now,
            overdue: false,
            breaker: Breaker::new(context.settings.breaker_pause),
            contended: false,
            look_again: false,
            context,
        };
        worker.take_up_journal();
        Ok(worker)
    }

    /// Answers until nobody can ask any more or `shutdown`.
    pub(super) async fn run(mut self, mut messages: mpsc::Receiver<Message>, shutdown: CancellationToken) {
        let mut work: Option<BoxFuture<'static, Done>> = None;
        let mut looking: Option<BoxFuture<'static, patience::Looked>> = None;
        let mut received = Vec::with_capacity(256);
        let mut end: Option<Instant> = None;
        loop {
            if work.is_none() {
                work = self.begin();
            }
            let nothing_left = work.is_none() && self.callers.is_empty() && self.late.is_empty();
            if end.is_some_and(|end| nothing_left || Instant::now() >= end) {
                break;
            }
            let deadline = self.deadline();
            let wake = if work.is_none() { self.wake() } else { None };
            let look = (work.is_some() && looking.is_none()).then_some(self.look_at);
            // Polled only under its condition.
            let any = self.look_at;
            tokio::select! {
                biased;
                done = async { work.as_mut().expect("guarded").await }, if work.is_some() => {
                    work = self.finish(done);
                }
                looked = async { looking.as_mut().expect("guarded").await }, if looking.is_some() => {
                    looking = None;
                    self.looked(looked);
                }
                count = messages.recv_many(&mut received, 256), if end.is_none() => {
                    if count == 0 {
                        end = Some(Instant::now() + GRACE);
                    }
                    for message in received.drain(..) {
                        self.take(message);
                    }
                }
                () = sleep_until(deadline.unwrap_or(any)), if deadline.is_some() => {
                    self.expire(Instant::now());
                }
                () = sleep_until(wake.unwrap_or(any)), if wake.is_some() => {}
                () = sleep_until(look.unwrap_or(any)), if look.is_some() => looking = self.look(),
                () = shutdown.cancelled(), if end.is_none() => {
                    messages.close();
                    end = Some(Instant::now() + GRACE);
                }
                () = sleep_until(end.unwrap_or(any)), if end.is_some() => {}
            }
        }
        self.context.board.withdraw(&self.id);
    }

    fn take(&mut self, message: Message) {
        let Message::Ask(Ask { conversation_id, asked_at, traceparent, reply }) = message else {
            self.look_again = true;
            return;
        };
        if let Some(answer) = self.known_here(&conversation_id) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
            return;
        }
        if let Some(callers) = self.callers.get_mut(&conversation_id) {
            callers.replies.push(reply);
            // It may have been answered elsewhere since the others asked.
            callers.looked_for = LookedFor::NotYet;
            return;
        }
        let callers = Callers { asked_at, looked_for: LookedFor::NotYet, traceparent, replies: vec![reply] };
        self.callers.insert(Arc::clone(&conversation_id), callers);
        if self.breaker.is_open() {
            self.give(conversation_id);
        } else {
            let deadline = asked_at + self.context.settings.patience;
            self.deadlines.push_back((deadline, Arc::clone(&conversation_id)));
            self.queue.push_back(conversation_id);
        }
    }

    fn trace_of(&self, conversation_id: &str) -> Option<Arc<str>> {
        self.callers.get(conversation_id)?.traceparent.clone()
    }

    /// What this instance knows was told about the conversation. What was recorded for a group
    /// that has been removed since counts no longer.
    fn known_here(&self, conversation_id: &str) -> Option<Arc<RouteAnswer>> {
        let known = self.context.cached(&self.id, conversation_id);
        let known = known.filter(|known| known.sequence.is_none() || self.plan.has(&known.destination_id));
        known.or_else(|| self.unrecorded.get(conversation_id).cloned())
    }

    /// Weights of those who can take a conversation now.
    fn weights(&self) -> Vec<i64> {
        let weights = self.plan.weights(|id| self.context.view.is_available(id));
        let nobody = self.plan.enabled && weights.iter().all(|&weight| weight == 0);
        self.context.alarm(&self.id, "nobody_available", nobody);
        weights
    }

    /// When to try again without being asked.
    fn wake(&self) -> Option<Instant> {
        if self.late.is_empty() && !self.look_again && self.breaker.is_whole() {
            return None;
        }
        self.breaker.next_attempt()
    }

    fn fail(&mut self, reason: &str) {
        self.breaker.failed(Instant::now());
        metrics::ROUTE_BLOCKS.counter(&["failed"]).increment(1);
        let open = self.breaker.is_open();
        metrics::ROUTE_BREAKER_OPEN.gauge(&[&self.id]).set(f64::from(u8::from(open)));
        self.not_exact(reason);
    }

    fn not_exact(&self, reason: &str) {
        let how = if self.breaker.is_open() { "by its fallback" } else { "from its last known state" };
        tracing::warn!(configuration = &*self.id, reason, "routing answers {how}");
        self.context.board.file(&self.id, format!("configuration {} answers {how}: {reason}", self.id));
    }

    fn succeed(&mut self) {
        if !self.breaker.is_whole() {
            tracing::info!(configuration = &*self.id, "routing answers are exact again");
            metrics::ROUTE_BREAKER_OPEN.gauge(&[&self.id]).set(0.0);
        }
        self.breaker.succeeded();
        self.overdue = false;
        self.context.board.withdraw(&self.id);
    }

    fn answer(&self, answer: &NewAnswer, sequence: Option<i64>, source: RouteSource) -> RouteAnswer {
        RouteAnswer {
            conversation_id: Arc::clone(&answer.conversation_id),
            configuration_id: Arc::clone(&self.id),
            destination_id: Arc::clone(&answer.destination_id),
            revision: answer.revision.unsigned_abs(),
            sequence: sequence.map(i64::unsigned_abs),
            source,
            decided_at: answer.decided_at,
        }
    }

    /// Tells everybody who asked, and remembers.
    fn hand_out(&mut self, answer: &NewAnswer, sequence: Option<i64>, source: RouteSource) {
        let told = Arc::new(self.answer(answer, sequence, source));
        if sequence.is_none() {
            self.unrecorded.insert(Arc::clone(&answer.conversation_id), Arc::clone(&told));
        }
        self.tell(told);
    }

    fn tell(&mut self, told: Arc<RouteAnswer>) {
        if let Some(callers) = self.callers.remove(&told.conversation_id) {
            self.meters.answered(told.source, callers.replies.len(), callers.asked_at.elapsed());
            for reply in callers.replies {
                let _ = reply.send(Arc::clone(&told));
            }
        }
        self.context.remember(&told);
    }
}
