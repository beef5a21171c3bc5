//! What a source cannot observe, as readiness tells it.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::health::Part;

/// Which things are not observed and why, as one line of readiness.
pub(super) struct Readiness {
    /// What one is called, and many are.
    one: &'static str,
    many: &'static str,
    board: Mutex<Board>,
    part: Part,
}

struct Problem {
    reason: String,
    /// The platform answered, and refuses this one: no other is in doubt by that.
    refused: bool,
}

/// Reasons by what they are about.
#[derive(Default)]
struct Board {
    /// What is not observed.
    open: BTreeMap<String, Problem>,
    /// What is observed, and cannot be relied on.
    doubts: BTreeMap<String, String>,
}

impl Readiness {
    pub(super) fn new(one: &'static str, many: &'static str, part: Part) -> Self {
        part.ready();
        Self { one, many, board: Mutex::default(), part }
    }

    /// `refused`: the platform answered that it will not tell.
    pub(super) fn file(&self, key: &str, reason: String, refused: bool) {
        tracing::warn!(key, reason, "{} not observed", self.one);
        let mut board = self.board();
        board.open.insert(key.to_owned(), Problem { reason, refused });
        self.tell(&board);
    }

    pub(super) fn withdraw(&self, key: &str) {
        let mut board = self.board();
        if board.open.remove(key).is_some() {
            self.tell(&board);
        }
    }

    /// Withdraws what is open about `key` when it is dropped: whoever watches it may be aborted.
    pub(super) fn until_dropped<'c>(&'c self, key: &'c str) -> UntilDropped<'c> {
        UntilDropped { readiness: self, key }
    }

    /// What is observed cannot be relied on, or can again: an impairment, for the rest goes on.
    pub(super) fn doubt(&self, key: &str, reason: Option<String>) {
        let mut board = self.board();
        let was_doubted = board.doubts.contains_key(key);
        match reason {
            Some(reason) => {
                if !was_doubted {
                    tracing::warn!(key, reason, "{} observed, but", self.one);
                }
                board.doubts.insert(key.to_owned(), reason);
            }
            None if was_doubted => drop(board.doubts.remove(key)),
            None => return,
        }
        self.tell(&board);
    }

    fn board(&self) -> MutexGuard<'_, Board> {
        self.board.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Those that the platform refuses are a matter for people, and the instance works; so it
    /// does with what cannot be relied on.
    fn tell(&self, board: &Board) {
        let Board { open, doubts } = board;
        let away = open.iter().find(|(_, problem)| !problem.refused);
        let Some((key, Problem { reason, .. })) = away.or_else(|| open.first_key_value()) else {
            return match doubts.first_key_value() {
                None => self.part.ready(),
                Some((key, reason)) if doubts.len() == 1 => {
                    self.part.impaired(format!("{} {key}: {reason}", self.one));
                }
                Some((key, reason)) => self.part.impaired(format!(
                    "{} {} cannot be relied on, among them {key}: {reason}",
                    doubts.len(),
                    self.many
                )),
            };
        };
        let told = match open.len() {
            1 => format!("{} {key} is not observed: {reason}", self.one),
            count => format!("{count} {} are not observed, among them {key}: {reason}", self.many),
        };
        if away.is_some() { self.part.not_ready(told) } else { self.part.impaired(told) }
    }
}

/// See [`Readiness::until_dropped`].
pub(super) struct UntilDropped<'c> {
    readiness: &'c Readiness,
    key: &'c str,
}

impl Drop for UntilDropped<'_> {
    fn drop(&mut self) {
        self.readiness.withdraw(self.key);
        self.readiness.doubt(self.key, None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    #[test]
    fn readiness_names_a_campaign_and_its_reason() {
        let health = Health::default();
        let readiness = Readiness::new("campaign", "campaigns", health.part("poller"));
        assert!(health.reasons().is_empty());
        readiness.file("a", "HTTP 404".into(), true);
        assert!(health.reasons().is_empty(), "one that does not exist is not the platform being away");
        assert!(health.impairments()[0].1.contains("campaign a is not observed: HTTP 404"));
        readiness.withdraw("a");
        readiness.file("b", "HTTP 404".into(), false);
        readiness.file("a", "HTTP 503".into(), false);
        let reason = health.reasons().remove(0).1;
        assert!(reason.contains("2 campaigns") && reason.contains("a: HTTP 503"), "{reason}");
        readiness.withdraw("a");
        assert!(health.reasons()[0].1.contains("campaign b is not observed: HTTP 404"));
        readiness.withdraw("b");
        assert!(health.reasons().is_empty());
    }

    #[test]
    fn a_doubt_impairs_and_what_is_not_observed_comes_first() {
        let health = Health::default();
        let readiness = Readiness::new("campaign", "campaigns", health.part("poller"));
        readiness.doubt("b", Some("frozen".into()));
        assert!(health.reasons().is_empty());
        assert_eq!(health.impairments()[0].1, "campaign b: frozen");
        readiness.file("a", "HTTP 503".into(), false);
        assert_eq!((health.reasons().len(), health.impairments().len()), (1, 0));
        readiness.withdraw("a");
        assert_eq!(health.impairments().len(), 1);
        readiness.doubt("b", None);
        assert!(health.impairments().is_empty() && health.reasons().is_empty());
    }

    #[tokio::test]
    async fn who_is_aborted_leaves_no_complaint_behind() {
        let health = Health::default();
        let readiness = std::sync::Arc::new(Readiness::new("flow", "flows", health.part("poller")));
        let watching = tokio::spawn({
            let readiness = std::sync::Arc::clone(&readiness);
            async move {
                let _open = readiness.until_dropped("a");
                readiness.file("a", "no reply".into(), false);
                std::future::pending::<()>().await;
            }
        });
        while health.reasons().is_empty() {
            tokio::task::yield_now().await;
        }
        watching.abort();
        assert!(watching.await.is_err());
        assert!(health.reasons().is_empty());
    }
}
