//! Taking turns at the counter: what waits is decided as a block and written, and what came of it.

use std::collections::{HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::super::block::{Asked, DrawnBlock, Terms, draw_up};
use super::super::group_counters::GroupCounters;
use super::{Done, Step, Worker};
use crate::clock;
use crate::genesys::BoxFuture;
use crate::metrics;
use crate::model::routing::{RouteAnswer, RouteSource};
use crate::postgres::Error;
use crate::postgres::routing::{KnownAnswer, LockedTurn, NewAnswer, RouteCounters};

/// Conversations decided with one transaction at most.
const MAX_BLOCK: usize = 1_000;
/// Of these at most so many that were answered already.
const MAX_LATE_IN_BLOCK: usize = 500;

impl Worker {
    /// What to do next with the counters, if anything.
    pub(super) fn begin(&mut self) -> Option<BoxFuture<'static, Done>> {
        debug_assert!(matches!(self.step, Step::Idle));
        let now = Instant::now();
        if self.breaker.next_attempt().is_some_and(|at| at > now) {
            return None;
        }
        let upkeep = !self.late.is_empty() || self.look_again || !self.breaker.is_whole();
        let waiting = !self.breaker.is_open() && self.queue.iter().any(|id| self.callers.contains_key(id));
        if !(waiting || upkeep) {
            return None;
        }
        self.look_at = now + self.look_after();
        self.overdue = false;
        if upkeep || self.contended {
            return Some(self.lock());
        }
        let mut conversations = Vec::new();
        while conversations.len() < MAX_BLOCK
            && let Some(id) = self.queue.pop_front()
        {
            if self.callers.contains_key(&id) {
                conversations.push(id);
            }
        }
        let weights = self.weights();
        let drawn = self.drawn(&weights, Vec::new(), &conversations, Vec::new());
        let (counters, counter, block) =
            (self.context.counters.clone(), self.counter.clone(), Arc::clone(&drawn.block));
        self.step = Step::Writing(drawn);
        let limit = self.context.settings.give_up;
        Some(Box::pin(async move {
            Done::Written(bounded(limit, &counters, counters.write(&counter, &block)).await)
        }))
    }

    fn lock(&mut self) -> BoxFuture<'static, Done> {
        let late = self.late.iter().take(MAX_LATE_IN_BLOCK).map(|answer| &answer.conversation_id);
        let mut asked: Vec<Arc<str>> = late.cloned().collect();
        if !self.breaker.is_open() {
            let waiting = self.queue.iter().filter(|id| self.callers.contains_key(*id));
            asked.extend(waiting.take(MAX_BLOCK - asked.len()).cloned());
        }
        let (counters, id, known, of) =
            (self.context.counters.clone(), Arc::clone(&self.id), self.counter.revision, asked.clone());
        self.step = Step::Locking(asked);
        let limit = self.context.settings.give_up;
        Box::pin(async move {
            let locked = bounded(limit, &counters, counters.lock(&id, known, &of)).await;
            Done::Locked(locked.map(|turn| turn.map(Box::new)))
        })
    }

    fn drawn(
        &mut self,
        weights: &[i64],
        given: Vec<NewAnswer>,
        conversations: &[Arc<str>],
        superseded: Vec<Arc<str>>,
    ) -> DrawnBlock {
        let terms = Terms {
            plan: &self.plan,
            weights,
            revision: self.counter.revision,
            settings_revision: self.settings_revision,
        };
        let asked: Vec<Asked> = conversations
            .iter()
            .map(|id| Asked { conversation_id: Arc::clone(id), traceparent: self.trace_of(id) })
            .collect();
        let now = clock::now();
        let drawn = draw_up(terms, &self.counter.counts, given, &asked, superseded, now);
        self.rebase(drawn.after.clone());
        drawn
    }

    /// Late answers come on top of what is known to be counted.
    fn rebase(&mut self, counted: GroupCounters) {
        self.local = counted;
        for answer in &self.late {
            if let Some(weights) = self.decided_under.get(&answer.conversation_id) {
                self.local.set_weights(weights);
            }
            self.local.book(&self.plan, &answer.destination_id, answer.reason);
        }
    }

    /// Takes in what came of a step; answers the next one where it follows at once.
    pub(super) fn finish(&mut self, done: Done) -> Option<BoxFuture<'static, Done>> {
        let step = std::mem::replace(&mut self.step, Step::Idle);
        match (step, done) {
            (Step::Writing(drawn), Done::Written(Ok(true))) => self.written(drawn),
            (Step::LockedWriting(drawn), Done::LockedWritten(Ok(()))) => self.written(drawn),
            (Step::Writing(drawn), Done::Written(Ok(false))) => {
                metrics::ROUTE_BLOCKS.counter(&["lost_turn"]).increment(1);
                self.contended = true;
                for answer in self.put_back(drawn) {
                    self.queue.push_front(answer.conversation_id);
                }
            }
            (Step::Locking(asked), Done::Locked(Ok(Some(locked)))) => {
                return self.locked(asked, locked);
            }
            (Step::Writing(drawn), Done::Written(Err(error))) => {
                self.step = Step::Writing(drawn);
                self.failed(error.to_string());
            }
            (Step::LockedWriting(drawn), Done::LockedWritten(Err(error))) => {
                self.step = Step::LockedWriting(drawn);
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

    /// A step failed: what its outcome is will show with the next turn. Whoever still has
    /// patience waits for that one.
    fn failed(&mut self, reason: String) {
        self.fail(&reason);
        if let Step::Writing(drawn) | Step::LockedWriting(drawn) =
            std::mem::replace(&mut self.step, Step::Idle)
        {
            for answer in self.put_back(drawn) {
                self.queue.push_front(Arc::clone(&answer.conversation_id));
                self.maybe_recorded.insert(Arc::clone(&answer.conversation_id), answer);
            }
        }
        self.contended = true;
        if self.breaker.is_open() {
            self.give_queue();
        }
    }

    /// A block is not known to be written: answers that were handed out are late, those that
    /// somebody still waits for come back, the last first.
    fn put_back(&mut self, drawn: DrawnBlock) -> Vec<NewAnswer> {
        let mut waiting = Vec::new();
        for mut answer in Arc::unwrap_or_clone(drawn.block).answers.into_iter().rev() {
            if let Some(given) = self.unrecorded.get(&answer.conversation_id) {
                answer.source = given.source;
                self.late.push_front(answer);
            } else if self.callers.contains_key(&answer.conversation_id) {
                waiting.push(answer);
            }
        }
        self.rebase(GroupCounters::new(&self.plan, &self.counter.counts, &self.plan.weights(|_| true)));
        waiting
    }

    fn written(&mut self, drawn: DrawnBlock) {
        let first = self.counter.decisions + 1;
        metrics::ROUTE_BLOCKS.counter(&["written"]).increment(1);
        metrics::ROUTE_BLOCK_SIZE.histogram(&[]).record(drawn.block.answers.len() as f64);
        if !drawn.block.answers.is_empty() {
            self.counter.turn += 1;
        }
        self.counter.decisions += drawn.block.answers.len() as i64;
        self.counter.counts.clone_from(&drawn.block.counts);
        self.succeed();
        for (sequence, answer) in (first..).zip(&drawn.block.answers) {
            self.decided_under.remove(&answer.conversation_id);
            let source = match self.unrecorded.remove(&answer.conversation_id) {
                Some(given) => {
                    metrics::ROUTE_LATE.counter(&["recorded"]).increment(1);
                    given.source
                }
                None => answer.source,
            };
            self.hand_out(answer, Some(sequence), source);
        }
        self.rebase(drawn.after);
        self.forget_journal();
    }

    /// The counter is ours until the block is written.
    fn locked(&mut self, asked: Vec<Arc<str>>, locked: Box<LockedTurn>) -> Option<BoxFuture<'static, Done>> {
        self.contended = locked.counter.turn != self.counter.turn;
        if self.contended {
            self.others_at = Instant::now();
        }
        let other_canary = locked.counter.canary != self.counter.canary;
        self.counter = locked.counter.clone();
        if let Some(definition) = locked.definition.clone() {
            self.definition = definition;
        }
        if self.look_again || other_canary || locked.definition.is_some() {
            self.look_again = false;
            self.plan_again();
        }
        let mut asked: HashSet<Arc<str>> = asked.into_iter().collect();
        // Whose group was removed is decided anew, this once: what is recorded now counts.
        let (standing, gone): (Vec<&KnownAnswer>, Vec<_>) =
            locked.known.iter().partition(|known| self.plan.has(&known.destination_id));
        let known: HashSet<&str> = standing.iter().map(|known| &*known.conversation_id).collect();
        self.late.retain(|answer| !known.contains(&*answer.conversation_id));
        self.queue.retain(|id| !known.contains(&**id));
        for known in standing {
            self.already_known(known);
            asked.remove(known.conversation_id.as_str());
        }
        let take = |answer: &NewAnswer| asked.contains(&answer.conversation_id);
        let (mut given, late): (Vec<NewAnswer>, Vec<_>) =
            std::mem::take(&mut self.late).into_iter().partition(take);
        self.late = VecDeque::from(late);
        let (mut fresh, queue): (Vec<Arc<str>>, Vec<_>) =
            std::mem::take(&mut self.queue).into_iter().partition(|id| asked.contains(id));
        self.queue = VecDeque::from(queue);
        // Answered without the counters since this turn was asked for, they are in `given`.
        fresh.retain(|id| self.callers.contains_key(id));
        let weights = self.one_weighing(&mut given, &mut fresh);
        // Under the lock it shows that these were not recorded, and nobody was told of them: who was
        // to get one and can get nothing any more does not.
        let still_gets = |answer: &NewAnswer| {
            self.plan.index(&answer.destination_id).is_none_or(|index| weights[index] > 0)
        };
        given.extend(fresh.iter().filter_map(|id| self.maybe_recorded.remove(id)).filter(still_gets));
        let decided: HashSet<&str> = given.iter().map(|answer| &*answer.conversation_id).collect();
        fresh.retain(|id| !decided.contains(&**id));
        let answered = |id: &str| decided.contains(id) || fresh.iter().any(|fresh| **fresh == *id);
        let superseded = gone.iter().map(|known| Arc::from(known.conversation_id.as_str()));
        let superseded = superseded.filter(|id: &Arc<str>| answered(id)).collect();
        let drawn = self.drawn(&weights, given, &fresh, superseded);
        let (counters, block) = (self.context.counters.clone(), Arc::clone(&drawn.block));
        self.step = Step::LockedWriting(drawn);
        let limit = self.context.settings.give_up;
        Some(Box::pin(
            async move { Done::LockedWritten(bounded(limit, &counters, locked.write(&block)).await) },
        ))
    }

    /// A block is booked under one set of weights: what was given under others than the first
    /// of it waits for the next, and so do those who are still to be decided where these are not
    /// the weights of now.
    fn one_weighing(&mut self, given: &mut Vec<NewAnswer>, fresh: &mut Vec<Arc<str>>) -> Vec<i64> {
        let now = self.weights();
        let Some(first) = given.first().map(|first| self.under(first, &now).to_vec()) else { return now };
        let is_first = |answer: &NewAnswer| *self.under(answer, &now) == *first;
        let (block, others): (Vec<_>, Vec<_>) = std::mem::take(given).into_iter().partition(is_first);
        *given = block;
        others.into_iter().rev().for_each(|answer| self.late.push_front(answer));
        if first != now {
            fresh.drain(..).rev().for_each(|id| self.queue.push_front(id));
        }
        first
    }

    fn under<'d>(&'d self, answer: &NewAnswer, now: &'d [i64]) -> &'d [i64] {
        self.decided_under.get(&answer.conversation_id).map_or(now, |weights| &**weights)
    }

    fn plan_again(&mut self) {
        match self.context.plan(&self.definition, self.counter.canary.as_ref()) {
            Ok((plan, settings_revision)) => {
                self.context.alarm(&self.id, "all_weights_zero", plan.all_zero);
                if !plan.has_groups_of(&self.plan) {
                    self.own = GroupCounters::of_nothing(&plan);
                    self.decided_under.clear();
                }
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
        self.maybe_recorded.remove(&id);
        let was_decided_here = self.decided_under.remove(&id).is_some();
        if let Some(given) = self.unrecorded.remove(&id) {
            // Given here while another instance, or our own lost commit, recorded it.
            let same = *given.destination_id == *known.destination_id;
            metrics::ROUTE_LATE.counter(&[if same { "recorded" } else { "conflict" }]).increment(1);
            if !same {
                // It counts for nobody: what is decided here next makes it good.
                if was_decided_here {
                    self.own.take_back(&self.plan, &given.destination_id);
                }
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
