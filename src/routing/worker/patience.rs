//! Each caller's own patience: who is answered from what is known here, and when; and
//! looking, beside a turn that takes long, who was answered before.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::{LookedFor, Step, Worker};
use crate::genesys::BoxFuture;
use crate::metrics;
use crate::model::routing::RouteSource;
use crate::postgres::Error;
use crate::postgres::routing::{Block, KnownAnswer, NewAnswer};

/// Conversations looked for at once.
const MAX_LOOKED_FOR: usize = 500;

/// What came of looking.
pub(super) struct Looked {
    asked: Vec<Arc<str>>,
    /// Nothing when there was no answer in time.
    known: Option<Result<Vec<KnownAnswer>, Error>>,
}

impl Worker {
    /// When the first caller's patience is over.
    pub(super) fn deadline(&mut self) -> Option<Instant> {
        while let Some((at, id)) = self.deadlines.front() {
            if self.waits_until(id) == Some(*at) {
                return Some(*at);
            }
            self.deadlines.pop_front();
        }
        None
    }

    fn waits_until(&self, conversation_id: &str) -> Option<Instant> {
        let callers = self.callers.get(conversation_id)?;
        Some(callers.asked_at + self.context.settings.patience)
    }

    /// Answers those whose patience is over, and nobody else: with what was recorded if it is
    /// known by now, with what the block on its way says about them, or by the rule.
    pub(super) fn expire(&mut self, now: Instant) {
        let mut over = Vec::new();
        while self.deadline().is_some_and(|at| at <= now) {
            over.extend(self.deadlines.pop_front().map(|(_, id)| id));
        }
        if over.is_empty() {
            return;
        }
        self.told_to_be_slow();
        over.retain(|id| match self.known_here(id) {
            Some(known) => {
                self.tell(known);
                false
            }
            None => true,
        });
        if let Some(block) = self.on_its_way() {
            let ids: HashSet<&Arc<str>> = over.iter().collect();
            let decided = block.answers.iter().filter(|answer| ids.contains(&answer.conversation_id));
            // Recorded as it is told, now or with a later block.
            decided.for_each(|answer| self.tell_unrecorded(answer.clone()));
        }
        for conversation_id in over {
            if self.callers.contains_key(&conversation_id) {
                self.give(conversation_id);
            }
        }
        while self.queue.front().is_some_and(|id| !self.callers.contains_key(id)) {
            self.queue.pop_front();
        }
    }

    fn on_its_way(&self) -> Option<Arc<Block>> {
        match &self.step {
            Step::Writing(drawn) | Step::LockedWriting(drawn) => Some(Arc::clone(&drawn.block)),
            Step::Idle | Step::Locking(_) => None,
        }
    }

    fn tell_unrecorded(&mut self, answer: NewAnswer) {
        // Under the lock it was read what had been recorded.
        if !matches!(self.step, Step::LockedWriting(_)) {
            self.count_unseen(&answer.conversation_id);
        }
        let answer = NewAnswer { source: RouteSource::Cached, ..answer };
        self.write_down(&answer);
        self.hand_out(&answer, None, answer.source);
    }

    /// An answer is given now that may contradict a recorded one.
    pub(super) fn count_unseen(&self, conversation_id: &str) {
        let looked_for = self.callers.get(conversation_id).map(|callers| callers.looked_for);
        if looked_for != Some(LookedFor::Done) {
            metrics::ROUTE_UNSEEN.counter(&[&self.id]).increment(1);
        }
    }

    /// Said once for each turn, and when nothing can be asked at all.
    fn told_to_be_slow(&mut self) {
        if std::mem::replace(&mut self.overdue, true) {
            return;
        }
        metrics::ROUTE_BLOCKS.counter(&["overdue"]).increment(1);
        if self.breaker.is_whole() {
            self.not_exact("no answer in time");
        }
    }

    /// Begins to look for those who wait beside the turn on its way and may have been answered
    /// before: reading may go well where writing is slow.
    pub(super) fn look(&mut self) -> Option<BoxFuture<'static, Looked>> {
        self.look_at = Instant::now() + self.look_after();
        let turn = Arc::clone(self.context.looks()).try_acquire_owned().ok()?;
        // A block under the lock holds nobody who was answered before.
        let unsure = match &self.step {
            Step::Writing(drawn) => Some(Arc::clone(&drawn.block)),
            Step::Idle | Step::Locking(_) | Step::LockedWriting(_) => None,
        };
        let unsure = unsure.iter().flat_map(|block| &block.answers).map(|answer| &answer.conversation_id);
        let mut ids = Vec::new();
        for id in unsure.chain(&self.queue) {
            if ids.len() == MAX_LOOKED_FOR {
                break;
            }
            if let Some(callers) = self.callers.get_mut(id)
                && callers.looked_for == LookedFor::NotYet
            {
                callers.looked_for = LookedFor::Begun;
                ids.push(Arc::clone(id));
            }
        }
        if ids.is_empty() {
            return None;
        }
        let (counters, configuration) = (self.context.counters.clone(), self.counter.configuration);
        let patience = self.context.settings.patience;
        Some(Box::pin(async move {
            let _turn = turn;
            let known = timeout(patience, counters.known(configuration, &ids)).await.ok();
            Looked { asked: ids, known }
        }))
    }

    /// How long a turn may take before it is looked beside it.
    pub(super) fn look_after(&self) -> std::time::Duration {
        self.context.settings.patience / 3
    }

    /// Tells those who wait what they were told before.
    pub(super) fn looked(&mut self, looked: Looked) {
        match looked.known {
            Some(Ok(known)) => {
                for id in looked.asked {
                    if let Some(callers) = self.callers.get_mut(&id)
                        && callers.looked_for == LookedFor::Begun
                    {
                        callers.looked_for = LookedFor::Done;
                    }
                }
                for known in known {
                    if self.callers.contains_key(known.conversation_id.as_str())
                        && self.plan.has(&known.destination_id)
                    {
                        self.already_known(&known);
                    }
                }
            }
            Some(Err(error)) => {
                tracing::debug!(configuration = &*self.id, %error, "earlier answers cannot be looked for");
            }
            None => {}
        }
    }
}

/// Looks under way at the same time on one instance: they must not take all connections.
pub(super) const LOOKS: usize = 2;

/// Places for looks.
pub(crate) fn looks() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(LOOKS))
}
