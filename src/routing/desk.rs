//! Answers for one configuration: one task that owns what this instance knows about it.
//!
//! Conversations that wait are decided as a block and answered once the block is
//! committed (`exact`). While the counters are slow or away they are answered from what is
//! known here and kept as `late`, to be recorded with the very same destinations as soon as
//! the counters can be reached. Nothing is ever decided twice: a destination that may have
//! been committed is the one that is handed out.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::breaker::Breaker;
use super::journal::Journal;
use super::kit::{Kit, Meters};
use super::sheet::{Sheet, Terms, decide, draw_up};
use super::tally::Tally;
use super::weights::Plan;
use crate::genesys::BoxFuture;
use crate::metrics;
use crate::model::routing::{RouteAnswer, RouteConfiguration, RouteFallback, RouteReason, RouteSource};
use crate::postgres::Error;
use crate::postgres::routing::{Counter, InForce, KnownAnswer, LockedTurn, NewAnswer};
use crate::runtime::clock;

/// Conversations decided with one transaction at most.
const MAX_BLOCK: usize = 1_000;
/// Of these at most so many that were answered already.
const MAX_LATE_IN_BLOCK: usize = 500;
/// Answers given and not recorded yet, at most; those beyond it are lost to the record.
const MAX_LATE: usize = 200_000;
/// After shutdown callers and late answers get this long.
const GRACE: std::time::Duration = std::time::Duration::from_millis(1_200);

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

    /// What an instance of this name gave and could not record before it ended.
    fn take_up_journal(&mut self) {
        let found = self.journal.as_mut().map(Journal::read).unwrap_or_default();
        for answer in found {
            let known = Arc::new(self.answer(&answer, None, answer.source));
            self.unrecorded.insert(Arc::clone(&answer.conversation_id), known);
            self.local.book(&self.plan, &answer.destination_id, answer.reason);
            self.late.push_back(answer);
        }
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
                    work = None;
                    let next = self.finish(done).await;
                    if next.is_some() {
                        work = next;
                    }
                }
                count = messages.recv_many(&mut received, 256), if end.is_none() => {
                    if count == 0 {
                        end = Some(Instant::now() + GRACE);
                    }
                    for message in received.drain(..) {
                        self.take(message).await;
                    }
                }
                () = sleep_until(deadline.unwrap_or(self.began_at)), if deadline.is_some() => self.fall_behind().await,
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

    async fn take(&mut self, message: Message) {
        let Message::Ask(Ask { conversation_id, asked_at, reply }) = message else {
            self.look_again = true;
            return;
        };
        let known = match self.kit.cached(&self.id, &conversation_id).await {
            Some(answer) => Some(answer),
            None => self.unrecorded.get(&conversation_id).cloned(),
        };
        if let Some(answer) = known {
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
            self.give(conversation_id).await;
        } else {
            self.queue.push_back(conversation_id);
        }
    }

    /// What to do next with the counters, if anything.
    fn begin(&mut self) -> Option<BoxFuture<'static, Done>> {
        debug_assert!(matches!(self.step, Step::Idle));
        let now = Instant::now();
        let due = self.breaker.next_attempt().is_none_or(|at| at <= now);
        let waiting = !self.queue.is_empty() && !self.breaker.is_open();
        let upkeep = !self.late.is_empty() || self.look_again || !self.breaker.is_whole();
        if !(waiting || upkeep && due) {
            return None;
        }
        self.began_at = now;
        self.overdue = false;
        if upkeep || self.contended {
            return Some(self.lock());
        }
        let conversations: Vec<_> = self.queue.drain(..self.queue.len().min(MAX_BLOCK)).collect();
        let sheet = self.sheet(Vec::new(), &conversations);
        let (counters, counter, block) =
            (self.kit.counters.clone(), self.counter.clone(), sheet.block.clone());
        self.step = Step::Writing(sheet);
        let limit = self.kit.settings.give_up;
        Some(Box::pin(async move {
            Done::Written(bounded(limit, &counters, counters.write(&counter, &block)).await)
        }))
    }

    fn lock(&mut self) -> BoxFuture<'static, Done> {
        let late = self.late.iter().take(MAX_LATE_IN_BLOCK).map(|answer| &answer.conversation_id);
        let mut asked: Vec<Arc<str>> = late.cloned().collect();
        if !self.breaker.is_open() {
            asked.extend(self.queue.iter().take(MAX_BLOCK - asked.len()).cloned());
        }
        let (counters, id, known, of) =
            (self.kit.counters.clone(), Arc::clone(&self.id), self.counter.revision, asked.clone());
        self.step = Step::Locking(asked);
        let limit = self.kit.settings.give_up;
        Box::pin(async move {
            let locked = bounded(limit, &counters, counters.lock(&id, known, &of)).await;
            Done::Locked(locked.map(|turn| turn.map(Box::new)))
        })
    }

    fn sheet(&mut self, given: Vec<NewAnswer>, conversations: &[Arc<str>]) -> Sheet {
        let shares = self.shares();
        let terms = Terms {
            plan: &self.plan,
            shares: &shares,
            revision: self.counter.revision,
            settings_revision: self.settings_revision,
        };
        let sheet = draw_up(terms, &self.counter.groups, given, conversations, clock::now());
        self.rebase(sheet.after.clone());
        sheet
    }

    /// Late answers come on top of what is known to be counted.
    fn rebase(&mut self, counted: Tally) {
        self.local = counted;
        for answer in &self.late {
            self.local.book(&self.plan, &answer.destination_id, answer.reason);
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

    /// What is on its way takes too long: everybody who waits is answered now.
    async fn fall_behind(&mut self) {
        self.overdue = true;
        self.fail("no answer in time".to_owned(), "overdue");
        self.hand_out_sheet().await;
        self.give_queue().await;
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

    /// Callers of the block on its way get what it says; whether it is recorded shows later.
    async fn hand_out_sheet(&mut self) {
        let source = self.source();
        let answers = match &self.step {
            Step::Writing(sheet) | Step::LockedWriting(sheet) => sheet.block.answers.clone(),
            Step::Idle | Step::Locking(_) => return,
        };
        for mut answer in answers {
            if self.callers.contains_key(&answer.conversation_id) {
                answer.source = source;
                self.write_down(&answer);
                self.hand_out(&answer, None, source).await;
            }
        }
    }

    async fn give_queue(&mut self) {
        while let Some(conversation_id) = self.queue.pop_front() {
            self.give(conversation_id).await;
        }
    }

    fn source(&self) -> RouteSource {
        if self.breaker.is_open() { RouteSource::Fallback } else { RouteSource::Cached }
    }

    /// Answers from what is known here.
    async fn give(&mut self, conversation_id: Arc<str>) {
        let source = self.source();
        let shares = self.shares();
        self.local.set_shares(&shares);
        let (destination_id, reason) =
            if source == RouteSource::Fallback && self.plan.fallback == RouteFallback::Default {
                let destination = Arc::clone(&self.plan.default);
                self.local.book(&self.plan, &destination, RouteReason::FallbackDefault);
                (destination, RouteReason::FallbackDefault)
            } else {
                decide(&self.plan, &mut self.local)
            };
        let (revision, decided_at) = (self.counter.revision, clock::now());
        let answer = NewAnswer { conversation_id, destination_id, revision, source, reason, decided_at };
        self.write_down(&answer);
        self.hand_out(&answer, None, source).await;
        self.keep_late(answer);
    }

    fn write_down(&mut self, answer: &NewAnswer) {
        if let Some(journal) = &mut self.journal {
            journal.append(answer);
        }
    }

    fn keep_late(&mut self, answer: NewAnswer) {
        if self.late.len() >= MAX_LATE {
            self.unrecorded.remove(&answer.conversation_id);
            metrics::ROUTE_LATE.counter(&["lost"]).increment(1);
            return;
        }
        self.late.push_back(answer);
    }

    fn answer(&self, answer: &NewAnswer, sequence: Option<i64>, source: RouteSource) -> RouteAnswer {
        RouteAnswer {
            conversation_id: answer.conversation_id.to_string(),
            configuration_id: self.id.to_string(),
            destination_id: answer.destination_id.to_string(),
            revision: answer.revision.unsigned_abs(),
            sequence: sequence.map(i64::unsigned_abs),
            source,
            decided_at: answer.decided_at,
        }
    }

    /// Tells everybody who asked, and remembers.
    async fn hand_out(&mut self, answer: &NewAnswer, sequence: Option<i64>, source: RouteSource) {
        let told = Arc::new(self.answer(answer, sequence, source));
        if sequence.is_none() {
            self.unrecorded.insert(Arc::clone(&answer.conversation_id), Arc::clone(&told));
        }
        self.tell(&answer.conversation_id, told).await;
    }

    async fn tell(&mut self, conversation_id: &Arc<str>, told: Arc<RouteAnswer>) {
        if let Some(callers) = self.callers.remove(conversation_id) {
            self.meters.answered(told.source, callers.replies.len(), callers.asked_at.elapsed());
            for reply in callers.replies {
                let _ = reply.send(Arc::clone(&told));
            }
        }
        self.kit.remember(&self.id, conversation_id, told).await;
    }

    /// Takes in what came of a step; answers the next one where it follows at once.
    async fn finish(&mut self, done: Done) -> Option<BoxFuture<'static, Done>> {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        match (step, done) {
            (Step::Writing(sheet), Done::Written(Ok(true))) => self.written(sheet).await,
            (Step::LockedWriting(sheet), Done::LockedWritten(Ok(()))) => self.written(sheet).await,
            (Step::Writing(sheet), Done::Written(Ok(false))) => {
                metrics::ROUTE_BLOCKS.counter(&["lost_turn"]).increment(1);
                self.contended = true;
                self.put_back(sheet);
                self.overdue = false;
            }
            (Step::Locking(asked), Done::Locked(Ok(Some(locked)))) => {
                return self.locked(asked, locked).await;
            }
            (Step::Writing(sheet), Done::Written(Err(error))) => {
                self.step = Step::Writing(sheet);
                self.failed(error.to_string()).await;
            }
            (Step::LockedWriting(sheet), Done::LockedWritten(Err(error))) => {
                self.step = Step::LockedWriting(sheet);
                self.failed(error.to_string()).await;
            }
            (Step::Locking(_), Done::Locked(Err(error))) => self.failed(error.to_string()).await,
            (Step::Locking(_), Done::Locked(Ok(None))) => {
                let reason = "the database no longer has this configuration; publish it again";
                self.failed(reason.to_owned()).await;
            }
            _ => unreachable!("each step has its own end"),
        }
        None
    }

    /// A step failed: what its outcome is will show when it is recorded again.
    async fn failed(&mut self, reason: String) {
        if self.overdue {
            tracing::debug!(configuration = &*self.id, reason, "what was overdue has failed");
        } else {
            self.fail(reason, "failed");
        }
        self.hand_out_sheet().await;
        if let Step::Writing(sheet) | Step::LockedWriting(sheet) =
            std::mem::replace(&mut self.step, Step::Idle)
        {
            self.put_back(sheet);
        }
        self.overdue = false;
        self.contended = true;
        // Nobody waits for an attempt that is not due, nor for one that just failed.
        self.give_queue().await;
    }

    /// A block that was not written: answers that were handed out are late, the others wait again.
    fn put_back(&mut self, sheet: Sheet) {
        for mut answer in sheet.block.answers.into_iter().rev() {
            if let Some(given) = self.unrecorded.get(&answer.conversation_id) {
                answer.source = given.source;
                self.late.push_front(answer);
            } else if self.callers.contains_key(&answer.conversation_id) {
                self.queue.push_front(answer.conversation_id);
            }
        }
    }

    async fn written(&mut self, sheet: Sheet) {
        let first = self.counter.decisions + 1;
        metrics::ROUTE_BLOCKS.counter(&["written"]).increment(1);
        metrics::ROUTE_BLOCK_SIZE.histogram(&[]).record(sheet.block.answers.len() as f64);
        if !sheet.block.answers.is_empty() {
            self.counter.turn += 1;
        }
        self.counter.decisions += sheet.block.answers.len() as i64;
        self.counter.groups = sheet.block.groups;
        self.succeed();
        for (sequence, answer) in (first..).zip(&sheet.block.answers) {
            let source = match self.unrecorded.remove(&answer.conversation_id) {
                Some(given) => {
                    metrics::ROUTE_LATE.counter(&["recorded"]).increment(1);
                    given.source
                }
                None => answer.source,
            };
            self.hand_out(answer, Some(sequence), source).await;
        }
        self.rebase(sheet.after);
        self.forget_journal();
    }

    fn forget_journal(&mut self) {
        if self.unrecorded.is_empty()
            && let Some(journal) = &mut self.journal
        {
            journal.clear();
        }
    }

    /// The counter is ours until the block is written.
    async fn locked(
        &mut self,
        asked: Vec<Arc<str>>,
        locked: Box<LockedTurn>,
    ) -> Option<BoxFuture<'static, Done>> {
        self.contended = locked.counter.turn != self.counter.turn;
        self.counter = locked.counter.clone();
        if let Some(definition) = locked.definition.clone() {
            self.definition = definition;
        }
        if self.look_again || locked.definition.is_some() {
            self.look_again = false;
            self.plan_again();
        }
        let mut asked: HashSet<Arc<str>> = asked.into_iter().collect();
        let known: HashSet<&str> = locked.known.iter().map(|known| &*known.conversation_id).collect();
        self.late.retain(|answer| !known.contains(&*answer.conversation_id));
        self.queue.retain(|id| !known.contains(&**id));
        for known in &locked.known {
            self.already_known(known).await;
            asked.remove(known.conversation_id.as_str());
        }
        let take = |answer: &NewAnswer| asked.contains(&answer.conversation_id);
        let (given, late) = std::mem::take(&mut self.late).into_iter().partition(take);
        self.late = late;
        let (fresh, queue): (VecDeque<_>, _) =
            std::mem::take(&mut self.queue).into_iter().partition(|id| asked.contains(id));
        self.queue = queue;
        let given: VecDeque<NewAnswer> = given;
        let sheet = self.sheet(given.into(), &Vec::from(fresh));
        let (counters, block) = (self.kit.counters.clone(), sheet.block.clone());
        self.step = Step::LockedWriting(sheet);
        let limit = self.kit.settings.give_up;
        Some(Box::pin(
            async move { Done::LockedWritten(bounded(limit, &counters, locked.write(&block)).await) },
        ))
    }

    fn plan_again(&mut self) {
        match self.kit.plan(&self.definition) {
            Ok((plan, settings_revision)) => {
                self.kit.alarm(&self.id, "all_weights_zero", plan.all_zero);
                (self.plan, self.settings_revision) = (plan, settings_revision);
            }
            // Checked before it was kept; a newer trunkline may allow what this one does not.
            Err(problem) => {
                tracing::error!(configuration = &*self.id, %problem, "a revision cannot be decided by; the old one stays");
            }
        }
    }

    /// Somebody recorded an answer for this conversation before.
    async fn already_known(&mut self, known: &KnownAnswer) {
        let id: Arc<str> = known.conversation_id.as_str().into();
        if let Some(given) = self.unrecorded.remove(&id) {
            // Given here while another instance, or our own lost commit, recorded it.
            let same = given.destination_id == known.destination_id;
            metrics::ROUTE_LATE.counter(&[if same { "recorded" } else { "conflict" }]).increment(1);
            if !same {
                tracing::warn!(
                    configuration = &*self.id,
                    conversation = &*id,
                    given = given.destination_id,
                    recorded = known.destination_id,
                    "two instances answered a conversation while the counters were away; the recorded one stands"
                );
            }
        }
        let told = RouteAnswer {
            conversation_id: known.conversation_id.clone(),
            configuration_id: self.id.to_string(),
            destination_id: known.destination_id.clone(),
            revision: known.revision.unsigned_abs(),
            sequence: Some(known.sequence.unsigned_abs()),
            source: RouteSource::of(&known.source).unwrap_or(RouteSource::Exact),
            decided_at: known.decided_at,
        };
        self.tell(&id, Arc::new(told)).await;
    }
}

/// Gives up on an attempt after `limit`: its connection is dropped, and the counter's
/// `turn` keeps what may still arrive from counting.
async fn bounded<T>(
    limit: std::time::Duration,
    counters: &crate::postgres::routing::RouteCounters,
    attempt: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(counters.no_answer(limit)))
}
