//! Answers for one configuration: one task that owns what this instance knows about it.
//!
//! Conversations that wait are decided as a block and answered once the block is
//! committed (`exact`). While the counters are slow or away they are answered from what is
//! known here and kept as `late`, to be recorded with the very same destinations as soon as
//! the counters can be reached. Nothing is ever decided twice: a destination that may have
//! been committed is the one that is handed out.

mod degraded;
mod turns;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use hashbrown::HashMap;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::breaker::Breaker;
use super::journal::Journal;
use super::kit::{Kit, Meters};
use super::sheet::Sheet;
use super::tally::Tally;
use super::weights::Plan;
use crate::genesys::BoxFuture;
use crate::metrics;
use crate::model::routing::{RouteAnswer, RouteConfiguration, RouteSource};
use crate::postgres::Error;
use crate::postgres::routing::{Counter, InForce, LockedTurn, NewAnswer};

/// After shutdown callers and late answers get this long.
const GRACE: Duration = Duration::from_millis(1_200);

/// What a desk is asked.
pub enum Message {
    Ask(Ask),
    /// Another revision or other weights may be in force.
    LookAgain,
}

/// One request.
pub struct Ask {
    pub conversation_id: Arc<str>,
    pub asked_at: Instant,
    pub reply: oneshot::Sender<Arc<RouteAnswer>>,
}

struct Callers {
    asked_at: Instant,
    replies: Vec<oneshot::Sender<Arc<RouteAnswer>>>,
}

enum Step {
    Idle,
    /// A block is on its way in one statement.
    Writing(Sheet),
    /// The counter is being locked to answer these.
    Locking(Vec<Arc<str>>),
    /// A block is on its way under the lock.
    LockedWriting(Sheet),
}

enum Done {
    Written(Result<bool, Error>),
    Locked(Result<Option<Box<LockedTurn>>, Error>),
    LockedWritten(Result<(), Error>),
}

pub struct Desk {
    id: Arc<str>,
    kit: Arc<Kit>,
    meters: Meters,
    definition: RouteConfiguration,
    plan: Plan,
    settings_revision: i64,
    /// The counter as last read or written.
    counter: Counter,
    /// That, and everything given here since.
    local: Tally,
    queue: VecDeque<Arc<str>>,
    callers: HashMap<Arc<str>, Callers>,
    /// Given, not recorded, and in no block on its way.
    late: VecDeque<NewAnswer>,
    /// Given and not known to be recorded.
    unrecorded: HashMap<Arc<str>, Arc<RouteAnswer>>,
    journal: Option<Journal>,
    step: Step,
    began_at: Instant,
    /// The step on its way took longer than callers wait.
    overdue: bool,
    breaker: Breaker,
    /// Another instance writes as well: better to lock first.
    contended: bool,
    look_again: bool,
}

impl Desk {
    /// `definition` must be one that was checked when it was saved.
    ///
    /// # Errors
    /// When it cannot be decided by after all.
    pub fn new(kit: Arc<Kit>, in_force: InForce) -> Result<Self, super::weights::Unusable> {
        let InForce { counter, definition } = in_force;
        let id: Arc<str> = definition.id.as_str().into();
        let (plan, settings_revision) = kit.plan(&definition)?;
        let journal = kit.journal(&id);
        let now = Instant::now();
        let mut desk = Self {
            meters: Meters::of(&id),
            id,
            local: Tally::new(&plan, &counter.groups, &plan.shares(|_| true)),
            definition,
            plan,
            settings_revision,
            counter,
            queue: VecDeque::new(),
            callers: HashMap::new(),
            late: VecDeque::new(),
            unrecorded: HashMap::new(),
            journal,
            step: Step::Idle,
            began_at: now,
            overdue: false,
            breaker: Breaker::new(kit.settings.breaker_pause),
            contended: false,
            look_again: false,
            kit,
        };
        desk.take_up_journal();
        Ok(desk)
    }

    /// Answers until nobody can ask any more or `shutdown`.
    pub async fn run(mut self, mut messages: mpsc::Receiver<Message>, shutdown: CancellationToken) {
        let mut work: Option<BoxFuture<'static, Done>> = None;
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
            let deadline = self.deadline(work.is_some());
            let wake = if work.is_none() { self.wake() } else { None };
            tokio::select! {
                biased;
                done = async { work.as_mut().expect("guarded").await }, if work.is_some() => {
                    work = self.finish(done);
                }
                count = messages.recv_many(&mut received, 256), if end.is_none() => {
                    if count == 0 {
                        end = Some(Instant::now() + GRACE);
                    }
                    for message in received.drain(..) {
                        self.take(message);
                    }
                }
                () = sleep_until(deadline.unwrap_or(self.began_at)), if deadline.is_some() => self.fall_behind(),
                () = sleep_until(wake.unwrap_or(self.began_at)), if wake.is_some() => {}
                () = shutdown.cancelled(), if end.is_none() => {
                    messages.close();
                    end = Some(Instant::now() + GRACE);
                }
                () = sleep_until(end.unwrap_or(self.began_at)), if end.is_some() => {}
            }
        }
        self.kit.board.withdraw(&self.id);
    }

    fn take(&mut self, message: Message) {
        let Message::Ask(Ask { conversation_id, asked_at, reply }) = message else {
            self.look_again = true;
            return;
        };
        let known = self.kit.cached(&self.id, &conversation_id);
        if let Some(answer) = known.or_else(|| self.unrecorded.get(&conversation_id).cloned()) {
            // Whoever asked may have gone.
            let _ = reply.send(answer);
            return;
        }
        if let Some(callers) = self.callers.get_mut(&conversation_id) {
            callers.replies.push(reply);
            return;
        }
        let callers = Callers { asked_at, replies: vec![reply] };
        self.callers.insert(Arc::clone(&conversation_id), callers);
        if self.breaker.is_open() || self.overdue {
            self.give(conversation_id);
        } else {
            self.queue.push_back(conversation_id);
        }
    }

    fn shares(&self) -> Vec<i64> {
        let shares = self.plan.shares(|id| self.kit.view.is_available(id));
        let nobody = self.plan.enabled && shares.iter().all(|&share| share == 0);
        self.kit.alarm(&self.id, "nobody_available", nobody);
        shares
    }

    /// When callers have waited long enough for what is on its way.
    fn deadline(&self, working: bool) -> Option<Instant> {
        if !working || self.overdue {
            return None;
        }
        let queued = self.queue.front().and_then(|id| self.callers.get(id)).map(|callers| callers.asked_at);
        let asked_at = match &self.step {
            Step::Writing(sheet) | Step::LockedWriting(sheet) => {
                let first =
                    sheet.block.answers.iter().find_map(|answer| self.callers.get(&answer.conversation_id));
                first.map(|callers| callers.asked_at).or(queued)
            }
            Step::Locking(_) | Step::Idle => queued,
        };
        Some(asked_at.unwrap_or(self.began_at) + self.kit.settings.patience)
    }

    /// When to try again without being asked.
    fn wake(&self) -> Option<Instant> {
        if self.late.is_empty() && !self.look_again && self.breaker.is_whole() {
            return None;
        }
        self.breaker.next_attempt()
    }

    fn fail(&mut self, reason: String, kind: &'static str) {
        self.breaker.failed(Instant::now());
        metrics::ROUTE_BLOCKS.counter(&[kind]).increment(1);
        let open = self.breaker.is_open();
        metrics::ROUTE_BREAKER_OPEN.gauge(&[&self.id]).set(f64::from(u8::from(open)));
        let how = if open { "by its fallback" } else { "from its last known state" };
        tracing::warn!(configuration = &*self.id, reason, "routing answers {how}");
        self.kit.board.file(&self.id, format!("configuration {} answers {how}: {reason}", self.id));
    }

    fn succeed(&mut self) {
        if !self.breaker.is_whole() {
            tracing::info!(configuration = &*self.id, "routing answers are exact again");
            metrics::ROUTE_BREAKER_OPEN.gauge(&[&self.id]).set(0.0);
        }
        self.breaker.succeeded();
        self.overdue = false;
        self.kit.board.withdraw(&self.id);
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
        self.kit.remember(&told);
    }
}
