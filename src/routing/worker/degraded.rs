//! Answers while the counters are slow or away: from what is known here, written down, and
//! recorded later.

use std::sync::Arc;
use std::time::Duration;

use super::super::block::{choose, decide};
use super::super::journal::Journal;
use super::Worker;
use crate::clock;
use crate::metrics;
use crate::model::routing::{RouteFallback, RouteReason, RouteSource};
use crate::postgres::routing::NewAnswer;

/// Answers given and not recorded yet, at most; those beyond it are lost to the record.
const MAX_LATE: usize = 200_000;
/// Other instances that did not write for so long do not decide.
const ALONE_AFTER: Duration = Duration::from_secs(60);

impl Worker {
    /// Nobody waits for counters that cannot be reached.
    pub(super) fn give_queue(&mut self) {
        while let Some(conversation_id) = self.queue.pop_front() {
            if self.callers.contains_key(&conversation_id) {
                self.give(conversation_id);
            }
        }
    }

    /// Answers from what is known here.
    pub(super) fn give(&mut self, conversation_id: Arc<str>) {
        self.count_unseen(&conversation_id);
        let answer = match self.maybe_recorded.remove(&conversation_id) {
            Some(decided) => {
                self.local.book(&self.plan, &decided.destination_id, decided.reason);
                NewAnswer { source: RouteSource::Cached, ..decided }
            }
            None => self.decide_here(conversation_id),
        };
        self.write_down(&answer);
        self.hand_out(&answer, None, answer.source);
        self.keep_late(answer);
    }

    /// Notes what an answer was decided under.
    fn note_weights(&mut self, conversation_id: &Arc<str>, weights: &[i64]) {
        let last = self.late.back().and_then(|last| self.decided_under.get(&last.conversation_id));
        let shared = last.filter(|last| ***last == *weights).cloned();
        let weights = shared.unwrap_or_else(|| weights.into());
        self.decided_under.insert(Arc::clone(conversation_id), weights);
    }

    fn decide_here(&mut self, conversation_id: Arc<str>) -> NewAnswer {
        let source = if self.breaker.is_open() { RouteSource::Fallback } else { RouteSource::Cached };
        let weights = self.plan.without_candidate(self.weights());
        self.local.set_weights(&weights);
        let by_default = source == RouteSource::Fallback && self.plan.fallback == RouteFallback::Default;
        let (destination_id, reason) = if by_default {
            (Arc::clone(&self.plan.default), RouteReason::FallbackDefault)
        } else if self.is_alone() {
            choose(&self.plan, &self.local)
        } else {
            self.own.set_weights(&weights);
            decide(&self.plan, &mut self.own)
        };
        self.local.book(&self.plan, &destination_id, reason);
        self.note_weights(&conversation_id, &weights);
        let (revision, decided_at) = (self.counter.revision, clock::now());
        let traceparent = self.trace_of(&conversation_id);
        NewAnswer { conversation_id, destination_id, revision, source, reason, decided_at, traceparent }
    }

    /// Whether the counters are this instance's alone. Then it goes on with their sequence, exact as
    /// ever. Where others decide as well, each of them making good what the counters last said
    /// was missing would make it good as often as there are instances, and too late, so that
    /// the shares would swing ever wider. There each balances what it decides itself, and what is
    /// missing is made good by the decisions that are taken under the lock.
    fn is_alone(&self) -> bool {
        self.others_at.elapsed() > ALONE_AFTER
    }

    pub(super) fn write_down(&mut self, answer: &NewAnswer) {
        if let Some(journal) = &mut self.journal {
            journal.append(answer);
        }
    }

    pub(super) fn keep_late(&mut self, answer: NewAnswer) {
        if self.late.len() >= MAX_LATE {
            self.unrecorded.remove(&answer.conversation_id);
            self.decided_under.remove(&answer.conversation_id);
            metrics::ROUTE_LATE.counter(&["lost"]).increment(1);
            return;
        }
        self.late.push_back(answer);
    }

    /// What an instance of this name gave and could not record before it ended.
    pub(super) fn take_up_journal(&mut self) {
        let found = self.journal.as_mut().map(Journal::read).unwrap_or_default();
        for answer in found {
            let known = Arc::new(self.answer(&answer, None, answer.source));
            self.unrecorded.insert(Arc::clone(&answer.conversation_id), known);
            self.local.book(&self.plan, &answer.destination_id, answer.reason);
            self.late.push_back(answer);
        }
    }

    pub(super) fn forget_journal(&mut self) {
        if self.unrecorded.is_empty()
            && let Some(journal) = &mut self.journal
        {
            journal.clear();
        }
    }
}
