//! Answers while the counters are slow or away: from what is known here, written down, and
//! recorded later.

use std::sync::Arc;

use super::super::journal::Journal;
use super::super::sheet::decide;
use super::{Desk, Step};
use crate::metrics;
use crate::model::routing::{RouteFallback, RouteReason, RouteSource};
use crate::postgres::routing::NewAnswer;
use crate::runtime::clock;

/// Answers given and not recorded yet, at most; those beyond it are lost to the record.
const MAX_LATE: usize = 200_000;

impl Desk {
    /// What is on its way takes too long: everybody who waits is answered now.
    pub(super) fn fall_behind(&mut self) {
        self.overdue = true;
        self.fail("no answer in time".to_owned(), "overdue");
        self.hand_out_sheet();
        self.give_queue();
    }

    /// Callers of the block on its way get what it says; whether it is recorded shows later.
    pub(super) fn hand_out_sheet(&mut self) {
        let source = self.source();
        let block = match &self.step {
            Step::Writing(sheet) | Step::LockedWriting(sheet) => Arc::clone(&sheet.block),
            Step::Idle | Step::Locking(_) => return,
        };
        for answer in &block.answers {
            if self.callers.contains_key(&answer.conversation_id) {
                let answer = NewAnswer { source, ..answer.clone() };
                self.write_down(&answer);
                self.hand_out(&answer, None, source);
            }
        }
    }

    pub(super) fn give_queue(&mut self) {
        while let Some(conversation_id) = self.queue.pop_front() {
            self.give(conversation_id);
        }
    }

    /// Answers from what is known here.
    pub(super) fn give(&mut self, conversation_id: Arc<str>) {
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
        self.hand_out(&answer, None, source);
        self.keep_late(answer);
    }

    pub(super) fn source(&self) -> RouteSource {
        if self.breaker.is_open() { RouteSource::Fallback } else { RouteSource::Cached }
    }

    pub(super) fn write_down(&mut self, answer: &NewAnswer) {
        if let Some(journal) = &mut self.journal {
            journal.append(answer);
        }
    }

    pub(super) fn keep_late(&mut self, answer: NewAnswer) {
        if self.late.len() >= MAX_LATE {
            self.unrecorded.remove(&answer.conversation_id);
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
