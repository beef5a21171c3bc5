//! What a source cannot observe, as readiness tells it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::health::Part;

/// Which things are not observed and why, as one line of readiness.
pub struct Complaints {
    /// What one is called, and many are.
    one: &'static str,
    many: &'static str,
    open: Mutex<BTreeMap<String, String>>,
    part: Part,
}

impl Complaints {
    pub fn new(one: &'static str, many: &'static str, part: Part) -> Self {
        part.ready();
        Self { one, many, open: Mutex::default(), part }
    }

    pub fn file(&self, key: &str, reason: String) {
        tracing::warn!(key, reason, "{} not observed", self.one);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(key.to_owned(), reason);
        self.tell(&open);
    }

    pub fn withdraw(&self, key: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.remove(key).is_some() {
            self.tell(&open);
        }
    }

    fn tell(&self, open: &BTreeMap<String, String>) {
        match open.first_key_value() {
            None => self.part.ready(),
            Some((key, reason)) if open.len() == 1 => {
                self.part.not_ready(format!("{} {key} is not observed: {reason}", self.one));
            }
            Some((key, reason)) => self.part.not_ready(format!(
                "{} {} are not observed, among them {key}: {reason}",
                open.len(),
                self.many
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::health::Health;

    #[test]
    fn readiness_names_a_campaign_and_its_reason() {
        let health = Health::default();
        let complaints = Complaints::new("campaign", "campaigns", health.part("poller"));
        assert!(health.reasons().is_empty());
        complaints.file("b", "HTTP 404".into());
        complaints.file("a", "HTTP 503".into());
        let reason = health.reasons().remove(0).1;
        assert!(reason.contains("2 campaigns") && reason.contains("a: HTTP 503"), "{reason}");
        complaints.withdraw("a");
        assert!(health.reasons()[0].1.contains("campaign b is not observed: HTTP 404"));
        complaints.withdraw("b");
        assert!(health.reasons().is_empty());
    }
}
