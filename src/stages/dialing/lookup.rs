//! What the stage looks up beside its records.

use serde_json::Value;

use crate::model::Timestamp;
use crate::model::settings::{DialSettings, Setting};

/// What the stage looks up beside its records. What it used is recorded in the decision.
pub trait Lookup: Send + Sync + 'static {
    /// What was set at run time for a campaign, and the newest revision that is about it.
    fn settings(&self, campaign_id: &str) -> InForce;

    /// Consumer groups on the statistics' way to here whose lag is in error, at most 4.
    fn lagging(&self, at: Timestamp) -> Vec<String>;

    /// Whether the campaign has made all the call attempts it may make in this month.
    fn attempts_used_up(&self, _campaign_id: &str) -> bool {
        false
    }
}

/// What was set at run time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct InForce {
    /// 0: nothing was ever set.
    pub revision: u64,
    pub settings: DialSettings,
}

/// Nothing is set and nothing is behind.
impl Lookup for () {
    fn settings(&self, _: &str) -> InForce {
        InForce::default()
    }

    fn lagging(&self, _: Timestamp) -> Vec<String> {
        Vec::new()
    }
}

/// What holds for a campaign: its own setting over that of all campaigns. One that cannot be read
/// counts as not set; it cannot be made.
pub fn in_force(own_and_general: [Option<&Setting<'_>>; 2]) -> InForce {
    let read = |setting: &Setting<'_>| match &setting.value {
        Value::Null => None,
        value => serde_json::from_value::<DialSettings>(value.clone()).ok(),
    };
    let [own, general] = own_and_general.map(|setting| setting.and_then(read).unwrap_or_default());
    let revisions = own_and_general.into_iter().flatten().map(|setting| setting.revision);
    InForce { revision: revisions.max().unwrap_or(0), settings: own.or(general) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn setting(revision: u64, value: Value) -> Setting<'static> {
        Setting { scope: "dial".into(), value, revision, who: "w".into(), when: Timestamp::from_millis(0) }
    }

    #[test]
    fn a_campaigns_own_setting_stands_before_that_of_all() {
        let general = setting(7, json!({"goal": 0.01, "cap": 0.02}));
        let own = setting(3, json!({"cap": 0.025}));
        let both = in_force([Some(&own), Some(&general)]);
        assert_eq!((both.revision, both.settings.goal, both.settings.cap), (7, Some(0.01), Some(0.025)));
        assert_eq!(in_force([None, None]), InForce::default());
        let withdrawn = in_force([Some(&setting(9, Value::Null)), None]);
        assert_eq!(withdrawn, InForce { revision: 9, ..InForce::default() });
    }
}
