//! Draws up a block: the rule applied once per conversation. Pure.

use std::sync::Arc;

use super::tally::Tally;
use super::weights::Plan;
use crate::model::Timestamp;
use crate::model::routing::{RouteReason, RouteSource};
use crate::postgres::routing::{Block, Groups, NewAnswer};

/// Under what a block is drawn up.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    pub plan: &'a Plan,
    pub shares: &'a [i64],
    pub revision: i64,
    pub settings_revision: i64,
}

/// A block and how everybody stands after it.
#[derive(Clone, Debug)]
pub struct Sheet {
    pub block: Arc<Block>,
    pub after: Tally,
}

/// Books the answers that were given already, then takes a decision for each conversation.
pub fn draw_up(
    terms: Terms<'_>,
    counter: &Groups,
    given: Vec<NewAnswer>,
    conversations: &[Arc<str>],
    at: Timestamp,
) -> Sheet {
    let mut tally = Tally::new(terms.plan, counter, terms.shares);
    let taken_from = tally.taken_from(terms.plan);
    for answer in &given {
        tally.book(terms.plan, &answer.destination_id, answer.reason);
    }
    let mut answers = given;
    for conversation_id in conversations {
        let (destination_id, reason) = decide(terms.plan, &mut tally);
        answers.push(NewAnswer {
            conversation_id: Arc::clone(conversation_id),
            destination_id,
            revision: terms.revision,
            source: RouteSource::Exact,
            reason,
            decided_at: at,
        });
    }
    let groups = tally.groups(terms.plan);
    let block = Block { answers, settings_revision: terms.settings_revision, taken_from, groups };
    Sheet { block: Arc::new(block), after: tally }
}

/// Takes one decision and books it.
pub fn decide(plan: &Plan, tally: &mut Tally) -> (Arc<str>, RouteReason) {
    let (destination, reason) = match tally.choose() {
        Some(index) => (&plan.groups[index].id, RouteReason::Share),
        None if plan.enabled => (&plan.default, RouteReason::NobodyAvailable),
        None => (&plan.default, RouteReason::Disabled),
    };
    let destination = Arc::clone(destination);
    tally.book(plan, &destination, reason);
    (destination, reason)
}
