//! Readiness with reasons: each part of a running process says how it is.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

/// How all parts are. Cheap to clone; clones share the same board.
#[derive(Clone, Debug, Default)]
pub struct Health {
    parts: Arc<RwLock<BTreeMap<String, Condition>>>,
}

/// How one part is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    Ready,
    /// It works, but something it needs does not: others must not stop because of it.
    Impaired(String),
    /// Not ready, with a reason a person can act on.
    NotReady(String),
}

impl Health {
    /// Registers a part; it is not ready until it says so.
    pub fn part(&self, name: &str) -> Part {
        let part = Part { name: name.to_owned(), health: self.clone(), among_several: false };
        part.not_ready("starting");
        part
    }

    /// Registers one of several parts that do the same for different people: others go on without it,
    /// so that it never makes the process unready.
    pub fn part_among_several(&self, name: &str) -> Part {
        let part = Part { name: name.to_owned(), health: self.clone(), among_several: true };
        part.not_ready("starting");
        part
    }

    /// Parts and their reasons, where any is not ready; empty means ready.
    pub fn reasons(&self) -> Vec<(String, String)> {
        self.parts_that(|condition| match condition {
            Condition::NotReady(reason) => Some(reason),
            Condition::Ready | Condition::Impaired(_) => None,
        })
    }

    /// Parts that work although something they need does not, and what that is.
    pub fn impairments(&self) -> Vec<(String, String)> {
        self.parts_that(|condition| match condition {
            Condition::Impaired(reason) => Some(reason),
            Condition::Ready | Condition::NotReady(_) => None,
        })
    }

    fn parts_that(&self, told: impl Fn(&Condition) -> Option<&String>) -> Vec<(String, String)> {
        let parts = self.parts.read().unwrap_or_else(PoisonError::into_inner);
        parts.iter().filter_map(|(name, condition)| Some((name.clone(), told(condition)?.clone()))).collect()
    }

    fn set(&self, name: &str, condition: Condition) {
        let mut parts = self.parts.write().unwrap_or_else(PoisonError::into_inner);
        parts.insert(name.to_owned(), condition);
    }
}

/// One part's own line on the board.
#[derive(Clone, Debug)]
pub struct Part {
    name: String,
    health: Health,
    among_several: bool,
}

impl Part {
    pub fn ready(&self) {
        self.health.set(&self.name, Condition::Ready);
    }

    pub fn impaired(&self, reason: impl Into<String>) {
        self.health.set(&self.name, Condition::Impaired(reason.into()));
    }

    pub fn not_ready(&self, reason: impl Into<String>) {
        let condition = if self.among_several { Condition::Impaired } else { Condition::NotReady };
        self.health.set(&self.name, condition(reason.into()));
    }
}

impl Part {
    /// Says ready when it is dropped: for work that may end in the middle of a problem,
    /// aborted or because it is another instance's from now on.
    #[must_use]
    pub fn ready_at_end(&self) -> ReadyAtEnd {
        ReadyAtEnd(self.clone())
    }
}

/// See [`Part::ready_at_end`].
#[derive(Debug)]
pub struct ReadyAtEnd(Part);

impl Drop for ReadyAtEnd {
    fn drop(&mut self) {
        self.0.ready();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_only_when_every_part_is() {
        let health = Health::default();
        let broker = health.part("broker");
        let database = health.part("database");
        broker.ready();
        assert_eq!(health.reasons(), [("database".to_owned(), "starting".to_owned())]);
        database.ready();
        assert!(health.reasons().is_empty());
        broker.not_ready("127.0.0.1:9092 refused the connection");
        assert_eq!(health.reasons().len(), 1);
        let end = database.ready_at_end();
        database.not_ready("no answer");
        assert_eq!(health.reasons().len(), 2);
        drop(end);
        assert_eq!(health.reasons().len(), 1);
        broker.impaired("slow");
        assert!(health.reasons().is_empty());
        assert_eq!(health.impairments(), [("broker".to_owned(), "slow".to_owned())]);
        health.part_among_several("one").not_ready("away");
        assert!(health.reasons().is_empty() && health.impairments().len() == 2);
    }
}
