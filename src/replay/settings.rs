//! What was set at run time, and when: changes of the scopes of dial rates.

use std::collections::BTreeMap;

use crate::model::settings::{DIAL, DIAL_CAMPAIGN, Setting};
use crate::stages::dialing::{InForce, in_force};

/// Changes by scope, oldest first.
#[derive(Clone, Debug, Default)]
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
