//! Taking turns at the counter: what waits is decided as a block and written, and what came of it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::sheet::{Sheet, Terms, draw_up};
use super::super::tally::Tally;
use super::{Desk, Done, Step};
use crate::genesys::BoxFuture;
use crate::metrics;
use crate::model::routing::{RouteAnswer, RouteSource};
use crate::postgres::Error;
use crate::postgres::routing::{KnownAnswer, LockedTurn, NewAnswer, RouteCounters};
use crate::runtime::clock;

/// Conversations decided with one transaction at most.
const MAX_BLOCK: usize = 1_000;
/// Of these at most so many that were answered already.
const MAX_LATE_IN_BLOCK: usize = 500;

impl Desk {
    /// What to do next with the counters, if anything.
    pub(super) fn begin(&mut self) -> Option<BoxFuture<'static, Done>> {
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
            (self.kit.counters.clone(), self.counter.clone(), Arc::clone(&sheet.block));
        self.step = Step::Writing(sheet);
        let limit = self.kit.settings.give_up;
        Some(Box::pin(async move {
            Done::Written(bounded(limit, &counters, counters.write(&counter, &block)).await)
        }))
    }

    pub(super) fn lock(&mut self) -> BoxFuture<'static, Done> {
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

    pub(super) fn sheet(&mut self, given: Vec<NewAnswer>, conversations: &[Arc<str>]) -> Sheet {
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
    pub(super) fn rebase(&mut self, counted: Tally) {
        self.local = counted;
        for answer in &self.late {
            self.local.book(&self.plan, &answer.destination_id, answer.reason);
        }
    }

    /// Takes in what came of a step; answers the next one where it follows at once.
    pub(super) fn finish(&mut self, done: Done) -> Option<BoxFuture<'static, Done>> {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        match (step, done) {
            (Step::Writing(sheet), Done::Written(Ok(true))) => self.written(sheet),
            (Step::LockedWriting(sheet), Done::LockedWritten(Ok(()))) => self.written(sheet),
            (Step::Writing(sheet), Done::Written(Ok(false))) => {
                metrics::ROUTE_BLOCKS.counter(&["lost_turn"]).increment(1);
                self.contended = true;
                self.put_back(sheet);
                self.overdue = false;
            }
            (Step::Locking(asked), Done::Locked(Ok(Some(locked)))) => {
                return self.locked(asked, locked);
            }
            (Step::Writing(sheet), Done::Written(Err(error))) => {
                self.step = Step::Writing(sheet);
                self.failed(error.to_string());
            }
            (Step::LockedWriting(sheet), Done::LockedWritten(Err(error))) => {
                self.step = Step::LockedWriting(sheet);
                self.failed(error.to_string());
            }
            (Step::Locking(_), Done::Locked(Err(error))) => self.failed(error.to_string()),
            (Step::Locking(_), Done::Locked(Ok(None))) => {
                let reason = "the database no longer has this configuration; publish it again";
                self.failed(reason.to_owned());
            }
            _ => unreachable!("each step has its own end"),
        }
        None
    }

    /// A step failed: what its outcome is will show when it is recorded again.
    pub(super) fn failed(&mut self, reason: String) {
        if self.overdue {
            tracing::debug!(configuration = &*self.id, reason, "what was overdue has failed");
        } else {
            self.fail(reason, "failed");
        }
        self.hand_out_sheet();
        if let Step::Writing(sheet) | Step::LockedWriting(sheet) =
            std::mem::replace(&mut self.step, Step::Idle)
        {
            self.put_back(sheet);
        }
        self.overdue = false;
        self.contended = true;
        // Nobody waits for an attempt that is not due, nor for one that just failed.
        self.give_queue();
    }

    /// A block that was not written: answers that were handed out are late, the others wait again.
    pub(super) fn put_back(&mut self, sheet: Sheet) {
        for mut answer in Arc::unwrap_or_clone(sheet.block).answers.into_iter().rev() {
            if let Some(given) = self.unrecorded.get(&answer.conversation_id) {
                answer.source = given.source;
                self.late.push_front(answer);
            } else if self.callers.contains_key(&answer.conversation_id) {
                self.queue.push_front(answer.conversation_id);
            }
        }
    }

    pub(super) fn written(&mut self, sheet: Sheet) {
        let first = self.counter.decisions + 1;
        metrics::ROUTE_BLOCKS.counter(&["written"]).increment(1);
        metrics::ROUTE_BLOCK_SIZE.histogram(&[]).record(sheet.block.answers.len() as f64);
        if !sheet.block.answers.is_empty() {
            self.counter.turn += 1;
        }
        self.counter.decisions += sheet.block.answers.len() as i64;
        self.counter.groups.clone_from(&sheet.block.groups);
        self.succeed();
        for (sequence, answer) in (first..).zip(&sheet.block.answers) {
            let source = match self.unrecorded.remove(&answer.conversation_id) {
                Some(given) => {
                    metrics::ROUTE_LATE.counter(&["recorded"]).increment(1);
                    given.source
                }
                None => answer.source,
            };
            self.hand_out(answer, Some(sequence), source);
        }
        self.rebase(sheet.after);
        self.forget_journal();
    }

    /// The counter is ours until the block is written.
    pub(super) fn locked(
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
            self.already_known(known);
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
        let (counters, block) = (self.kit.counters.clone(), Arc::clone(&sheet.block));
        self.step = Step::LockedWriting(sheet);
        let limit = self.kit.settings.give_up;
        Some(Box::pin(
            async move { Done::LockedWritten(bounded(limit, &counters, locked.write(&block)).await) },
        ))
    }

    pub(super) fn plan_again(&mut self) {
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
    pub(super) fn already_known(&mut self, known: &KnownAnswer) {
        let id: Arc<str> = known.conversation_id.as_str().into();
        if let Some(given) = self.unrecorded.remove(&id) {
            // Given here while another instance, or our own lost commit, recorded it.
            let same = *given.destination_id == *known.destination_id;
            metrics::ROUTE_LATE.counter(&[if same { "recorded" } else { "conflict" }]).increment(1);
            if !same {
                tracing::warn!(
                    configuration = &*self.id,
                    conversation = &*id,
                    given = &*given.destination_id,
                    recorded = known.destination_id,
                    "two instances answered a conversation while the counters were away; the recorded one stands"
                );
            }
        }
        let told = RouteAnswer {
            conversation_id: Arc::clone(&id),
            configuration_id: Arc::clone(&self.id),
            destination_id: known.destination_id.as_str().into(),
            revision: known.revision.unsigned_abs(),
            sequence: Some(known.sequence.unsigned_abs()),
            source: RouteSource::of(&known.source).unwrap_or(RouteSource::Exact),
            decided_at: known.decided_at,
        };
        self.tell(Arc::new(told));
    }
}

/// Gives up on an attempt after `limit`: its connection is dropped, and the counter's
/// `turn` keeps what may still arrive from counting.
async fn bounded<T>(
    limit: Duration,
    counters: &RouteCounters,
    attempt: impl Future<Output = Result<T, Error>>,
) -> Result<T, Error> {
    tokio::time::timeout(limit, attempt).await.unwrap_or_else(|_| Err(counters.no_answer(limit)))
}
