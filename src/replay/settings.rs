//! What was set at run time, and when: changes of the scopes of dial rates.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde_json::Value;

use crate::model::Timestamp;
use crate::model::settings::{DIAL, DIAL_CAMPAIGN, DialSettings, Setting};
use crate::stages::dialing::{InForce, in_force};

/// Greater than the revision of any change that was made.
const NEWEST: u64 = u64::MAX;

/// Changes by scope, oldest first.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings(BTreeMap<String, Vec<Setting<'static>>>);

impl Settings {
    /// Takes changes in any order; those of other scopes are passed over.
    pub fn of(changes: impl IntoIterator<Item = Setting<'static>>) -> Self {
        let mut by_scope: BTreeMap<String, Vec<Setting<'static>>> = BTreeMap::new();
        for change in changes {
            if change.scope == DIAL || change.scope.starts_with(DIAL_CAMPAIGN) {
                by_scope.entry(change.scope.to_string()).or_default().push(change);
            }
        }
        by_scope.values_mut().for_each(|changes| changes.sort_by_key(|change| change.revision));
        Self(by_scope)
    }

    /// The same, and a change that comes after all of them.
    #[must_use]
    pub fn changed(mut self, scope: &str, value: Value) -> Self {
        let (scope, who) = (Cow::Owned(scope.to_owned()), Cow::Borrowed(""));
        let change = Setting { value, revision: NEWEST, who, when: Timestamp::from_millis(0), scope };
        self.0.entry(change.scope.to_string()).or_default().push(change);
        self
    }

    /// What is in force for a campaign after all changes.
    pub fn newest(&self, campaign_id: &str) -> DialSettings {
        self.dial(campaign_id, NEWEST).settings
    }

    /// What was in force for a campaign at this revision.
    pub fn dial(&self, campaign_id: &str, revision: u64) -> InForce {
        let newest = |scope: &str| {
            let changes = self.0.get(scope)?;
            changes.iter().rev().find(|change| change.revision <= revision)
        };
        let own = newest(&format!("{DIAL_CAMPAIGN}{campaign_id}"));
        InForce { revision, ..in_force([own, newest(DIAL)]) }
    }
}
