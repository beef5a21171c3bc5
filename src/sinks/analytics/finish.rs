//! From an answer to rows: details, what is to be done next and what is published are
//! committed together.

use std::collections::BTreeMap;

use serde_json::Value;

use super::batching::Batch;
use super::publication::{Publication, row_of, work_of};
use super::work::{Answer, Waits};
use crate::model::Timestamp;
use crate::postgres::enrichment::Change;
use crate::postgres::{Database, Error};

/// What became of the conversations of a query.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Finished {
    pub enriched: u64,
    /// To be asked about again later.
    pub missing: u64,
    pub given_up: u64,
    /// Another answer was dealt with first, or the row is gone.
    pub outdated: u64,
}

/// Deals with the whole answer to `batch`, which came `at`.
///
/// # Errors
/// When the database does not take it. Finishing again is safe: what was committed after
/// all counts as outdated then.
pub(super) async fn finish(
    database: &Database,
    events_topic: &str,
    waits: &Waits,
    batch: &Batch,
    found: &BTreeMap<String, Value>,
    at: Timestamp,
) -> Result<Finished, Error> {
    let mut enrichment = database.enrichment().await?;
    let ids: Vec<&str> = batch.conversations.iter().map(|due| due.conversation_id.as_str()).collect();
    let rows = enrichment.lock(&ids).await?;
    let mut finished = Finished { outdated: (ids.len() - rows.len()) as u64, ..Finished::default() };
    let (mut changes, mut publications, mut told_before) = (Vec::new(), Vec::new(), Vec::new());
    for row in rows {
        let Some(due) = batch.conversations.iter().find(|due| due.conversation_id == row.conversation_id)
        else {
            continue;
        };
        let details = found.get(&row.conversation_id);
        let answer = if details.is_some() { Answer::Found { at } } else { Answer::Missing };
        let mut work = match work_of(&row) {
            Ok(work) => work,
            Err(error) => {
                tracing::error!(row.conversation_id, %error, "a conversation's row cannot be read");
                finished.outdated += 1;
                continue;
            }
        };
        let Some(effect) = work.answered(due.round, due.last_event_at, answer, waits) else {
            finished.outdated += 1;
            continue;
        };
        match (details, effect.give_up) {
            (Some(_), _) => finished.enriched += 1,
            (None, false) => finished.missing += 1,
            (None, true) => finished.given_up += 1,
        }
        if effect.give_up {
            publications.push(Publication::not_available(&row, &work, events_topic, at));
        }
        match details {
            Some(details) if effect.publish => {
                publications.extend(Publication::conversation(&row.conversation_id, &work, details));
            }
            None if effect.publish => told_before.push((row.conversation_id.clone(), work.clone())),
            _ => {}
        }
        let row = row_of(&row.conversation_id, row.position, &work);
        changes.push(Change { row, ask_in: effect.ask_in, details });
    }
    if !told_before.is_empty() {
        let ids: Vec<&str> = told_before.iter().map(|(id, _)| id.as_str()).collect();
        let details: BTreeMap<_, _> = enrichment.details(&ids).await?.into_iter().collect();
        publications.extend(
            told_before.iter().filter_map(|(id, work)| Publication::conversation(id, work, details.get(id)?)),
        );
    }
    enrichment.change(&changes).await?;
    enrichment.publish(&publications.iter().map(Publication::message).collect::<Vec<_>>()).await?;
    fail::fail_point!("enrichment-before-commit", |_| std::process::abort());
    enrichment.commit().await?;
    fail::fail_point!("enrichment-after-commit", |_| std::process::abort());
    Ok(finished)
}
