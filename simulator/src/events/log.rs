//! What was emitted, for checkers: every event once, with all that decides how it counts.

use std::collections::VecDeque;

use serde::Serialize;
use serde_json::{Value, json};

use super::Event;
use crate::time::Timestamp;
use crate::traffic::EventKind;

/// Entries held before the oldest are forgotten: half an hour at 1 000 events a second.
const MAX_ENTRIES: usize = 2_000_000;

/// An event the receiver has answered about.
#[derive(Clone, Debug)]
pub(super) struct Emitted {
    pub event: Event,
    pub acknowledged_at: Timestamp,
    pub late: bool,
    /// The receiver named it as one it does not take.
    pub rejected: bool,
}

/// A page of the log.
#[derive(Debug, Serialize)]
pub(crate) struct LogPage {
    pub items: Vec<Value>,
    /// What to pass as `since` for the entries after these; null when there are none yet.
    pub next: Option<u64>,
    /// Sequence of the newest entry, 0 for none.
    pub last: u64,
    /// Entries forgotten because the log was full.
    pub dropped: u64,
}

/// Entries in the order of their acknowledgement.
#[derive(Debug, Default)]
pub(super) struct EmittedLog {
    entries: VecDeque<Emitted>,
    last: u64,
}

impl EmittedLog {
    pub(super) fn push(&mut self, emitted: Emitted) {
        self.last += 1;
        self.entries.push_back(emitted);
        if self.entries.len() > MAX_ENTRIES {
            self.entries.pop_front();
        }
    }

    /// Entries after `since`, at most `limit`.
    pub(super) fn page(&self, since: u64, limit: usize) -> LogPage {
        let dropped = self.last - self.entries.len() as u64;
        let skipped = usize::try_from(since.saturating_sub(dropped)).unwrap_or(usize::MAX);
        let first = dropped + skipped as u64 + 1;
        let held = self.entries.iter().skip(skipped).take(limit);
        let items: Vec<Value> = (first..).zip(held).map(|(sequence, entry)| entry.shown(sequence)).collect();
        let reached = first - 1 + items.len() as u64;
        let next = (!items.is_empty() && reached < self.last).then_some(reached);
        LogPage { items, next, last: self.last, dropped }
    }
}

impl Emitted {
    fn shown(&self, sequence: u64) -> Value {
        let Event { id, kind, at, journey } = &self.event;
        let mut shown = json!({
            "sequence": sequence,
            "eventId": id,
            "eventType": kind.name(),
            "conversationId": journey.conversation_id,
            "eventTime": at,
            "acknowledgedAt": self.acknowledged_at,
            "late": self.late,
            "rejected": self.rejected,
        });
        let told = matches!(kind, EventKind::FlowStart | EventKind::FlowEnd | EventKind::FlowOutcome);
        if let Some(visit) = journey.flow.as_ref().filter(|_| told) {
            shown["flowId"] = json!(visit.flow_id);
            shown["flowVersion"] = json!(visit.version);
            match kind {
                EventKind::FlowEnd => shown["reason"] = json!(visit.exit_reason),
                EventKind::FlowOutcome => shown["reason"] = json!(visit.outcome_value()),
                _ => {}
            }
        }
        shown
    }
}
