//! What a source cannot observe, as readiness tells it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use crate::health::Part;

/// Which things are not observed and why, as one line of readiness.
pub struct Complaints {
    /// What one is called, and many are.
    one: &'static str,
    many: &'static str,
    open: Mutex<BTreeMap<String, Complaint>>,
    part: Part,
}

struct Complaint {
    reason: String,
    /// The platform answered, and refuses this one: no other is in doubt by that.
    refused: bool,
}

impl Complaints {
    pub fn new(one: &'static str, many: &'static str, part: Part) -> Self {
        part.ready();
        Self { one, many, open: Mutex::default(), part }
    }

    /// `refused`: the platform answered that it will not tell.
    pub fn file(&self, key: &str, reason: String, refused: bool) {
        tracing::warn!(key, reason, "{} not observed", self.one);
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.insert(key.to_owned(), Complaint { reason, refused });
        self.tell(&open);
    }

    pub fn withdraw(&self, key: &str) {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        if open.remove(key).is_some() {
            self.tell(&open);
        }
    }

    /// Those that the platform refuses are a matter for people, and the instance works.
    fn tell(&self, open: &BTreeMap<String, Complaint>) {
        let away = open.iter().find(|(_, complaint)| !complaint.refused);
        let Some((key, Complaint { reason, .. })) = away.or_else(|| open.first_key_value()) else {
            return self.part.ready();
        };
        let told = match open.len() {
            1 => format!("{} {key} is not observed: {reason}", self.one),
            count => format!("{count} {} are not observed, among them {key}: {reason}", self.many),
        };
        if away.is_some() { self.part.not_ready(told) } else { self.part.impaired(told) }
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
        complaints.file("a", "HTTP 404".into(), true);
        assert!(health.reasons().is_empty(), "one that does not exist is not the platform being away");
        assert!(health.impairments()[0].1.contains("campaign a is not observed: HTTP 404"));
        complaints.withdraw("a");
        complaints.file("b", "HTTP 404".into(), false);
        complaints.file("a", "HTTP 503".into(), false);
        let reason = health.reasons().remove(0).1;
        assert!(reason.contains("2 campaigns") && reason.contains("a: HTTP 503"), "{reason}");
        complaints.withdraw("a");
        assert!(health.reasons()[0].1.contains("campaign b is not observed: HTTP 404"));
        complaints.withdraw("b");
        assert!(health.reasons().is_empty());
    }
}
