//! What is changed at run time: facts like all others, each with who and when.

use std::borrow::Cow;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Timestamp;

/// One setting as it is in force. The newest of its scope counts.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Setting<'a> {
    /// What it is about: `maintenance/<id>`, `route/<configurationId>` …
    pub scope: Cow<'a, str>,
    /// `null`: withdrawn, as if it had never been set.
    pub value: Value,
    /// Counts the changes of all scopes, from 1: a later change has a greater one.
    pub revision: u64,
    /// Who changed it: the name of an API key, or the user of the command line.
    pub who: Cow<'a, str>,
    pub when: Timestamp,
}

/// Scopes of maintenance windows begin so; the window's id follows.
pub const MAINTENANCE: &str = "maintenance/";

/// While it is open, flows are not rolled back. The value of scope `maintenance/<id>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MaintenanceWindow {
    /// Absent: all flows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub flow_id: Option<String>,
    pub from: Timestamp,
    /// Closing a window early moves this to the time of closing.
    pub until: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

impl MaintenanceWindow {
    /// Whether it is about this flow.
    pub fn is_about(&self, flow_id: &str) -> bool {
        self.flow_id.as_deref().is_none_or(|flow| flow == flow_id)
    }

    /// Whether it is open at this time.
    pub fn covers(&self, at: Timestamp) -> bool {
        self.from <= at && at < self.until
    }

    /// Whether it is open at any time of `length` from `from` on.
    pub fn overlaps(&self, from: Timestamp, length: Duration) -> bool {
        self.from < from.plus(length) && from < self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_ends_where_the_next_may_begin() {
        let at = |seconds: i64| Timestamp::from_millis(seconds * 1_000);
        let window = MaintenanceWindow { flow_id: None, from: at(60), until: at(120), reason: None };
        assert!(window.covers(at(60)) && !window.covers(at(120)) && !window.covers(at(59)));
        let minute = Duration::from_secs(60);
        assert!(window.overlaps(at(1), minute) && window.overlaps(at(119), minute));
        assert!(!window.overlaps(at(0), minute) && !window.overlaps(at(120), minute));
        assert!(window.is_about("any"));
        assert!(!MaintenanceWindow { flow_id: Some("f".into()), ..window }.is_about("g"));
    }
}
