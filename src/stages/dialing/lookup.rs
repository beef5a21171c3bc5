//! What the stage looks up beside its records.

use crate::model::Timestamp;
use crate::model::settings::DialSettings;

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
