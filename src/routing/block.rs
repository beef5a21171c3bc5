//! Draws up a block: the rule applied once per conversation. Pure.

use std::sync::Arc;

use super::group_counters::GroupCounters;
use super::weights::Plan;
use crate::model::Timestamp;
use crate::model::routing::{RouteReason, RouteSource};
use crate::postgres::routing::{Block, Counts, NewAnswer};

/// Under what a block is drawn up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms<'a> {
    pub plan: &'a Plan,
    /// In the order of the plan's groups.
    pub weights: &'a [i64],
    pub revision: i64,
    pub settings_revision: i64,
}

/// A conversation that waits for its answer.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub conversation_id: Arc<str>,
    /// The trace of whoever asked, where there is one.
    pub traceparent: Option<Arc<str>>,
}

/// A block and how everybody stands after it.
#[derive(Clone, Debug)]
pub(super) struct DrawnBlock {
    pub block: Arc<Block>,
    pub after: GroupCounters,
}

/// Books the answers that are given already, then takes a decision for each conversation. Of
/// all these `superseded` have an earlier answer that counts no longer.
pub(super) fn draw_up(
    terms: Terms<'_>,
    counter: &Counts,
    given: Vec<NewAnswer>,
    conversations: &[Asked],
    superseded: Vec<Arc<str>>,
    at: Timestamp,
) -> DrawnBlock {
    let mut group_counters = GroupCounters::new(terms.plan, counter, terms.weights);
    let taken_from = group_counters.taken_from(terms.plan);
    for answer in &given {
        group_counters.book(terms.plan, &answer.destination_id, answer.reason);
    }
    let mut answers = given;
    for Asked { conversation_id, traceparent } in conversations {
        let (destination_id, reason) = decide(terms.plan, &mut group_counters);
        answers.push(NewAnswer {
            conversation_id: Arc::clone(conversation_id),
            destination_id,
            revision: terms.revision,
            source: RouteSource::Exact,
            reason,
            decided_at: at,
            traceparent: traceparent.clone(),
        });
    }
    let counts = group_counters.counts(terms.plan);
    let settings_revision = terms.settings_revision;
    let block = Block { answers, settings_revision, taken_from, counts, superseded };
    DrawnBlock { block: Arc::new(block), after: group_counters }
}

/// Takes one decision and books it.
pub(super) fn decide(plan: &Plan, group_counters: &mut GroupCounters) -> (Arc<str>, RouteReason) {
    let (destination, reason) = choose(plan, group_counters);
    group_counters.book(plan, &destination, reason);
    (destination, reason)
}

/// Takes one decision.
pub(super) fn choose(plan: &Plan, group_counters: &GroupCounters) -> (Arc<str>, RouteReason) {
    let (destination, reason) = match group_counters.choose() {
        Some(index) => (&plan.groups[index].id, RouteReason::Share),
        None if plan.enabled => (&plan.default, RouteReason::NobodyAvailable),
        None => (&plan.default, RouteReason::Disabled),
    };
    (Arc::clone(destination), reason)
}
