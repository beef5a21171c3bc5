//! A campaign as it was when it was heard of last.

use arrayvec::ArrayVec;
use serde::{Deserialize, Serialize};

use crate::model::Timestamp;
use crate::model::call_counts::CountSources;
use crate::model::campaign::CampaignWindow;

/// What a window says that is still of use when no other follows it.
#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct LastKnown {
    changed_at: Option<Timestamp>,
    agents_idle: u32,
    agents_busy: u32,
    dial_rate: f64,
    min_dial_rate: f64,
    max_dial_rate: f64,
    revision: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    organization_id: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    region: Option<String>,
}

impl LastKnown {
    pub(super) fn dial_rate(&self) -> f64 {
        self.dial_rate
    }

    /// Takes a window's place, in the memory that is there.
    pub(super) fn know(&mut self, window: &CampaignWindow<'_>) {
        self.changed_at = window.changed_at;
        (self.agents_idle, self.agents_busy) = (window.agents_idle, window.agents_busy);
        self.dial_rate = window.dial_rate;
        (self.min_dial_rate, self.max_dial_rate) = (window.min_dial_rate, window.max_dial_rate);
        write(&mut self.revision, &window.revision);
        write_option(&mut self.organization_id, window.organization_id.as_deref());
        write_option(&mut self.region, window.region.as_deref());
    }

    /// The window without its samples and counts: those were decided on, and are not to be
    /// counted twice.
    pub(super) fn window<'a>(&'a self, campaign_id: &'a str, observed_at: Timestamp) -> CampaignWindow<'a> {
        CampaignWindow {
            campaign_id: campaign_id.into(),
            organization_id: self.organization_id.as_deref().map(Into::into),
            region: self.region.as_deref().map(Into::into),
            first_observed_at: observed_at,
            observed_at,
            changed_at: self.changed_at,
            answer_rates: ArrayVec::new(),
            mean_answer_rate: 0.0,
            attempted: None,
            answered: None,
            abandoned: None,
            counts_from: CountSources::default(),
            delivered: None,
            agents_idle: self.agents_idle,
            agents_busy: self.agents_busy,
            dial_rate: self.dial_rate,
            min_dial_rate: self.min_dial_rate,
            max_dial_rate: self.max_dial_rate,
            revision: self.revision.as_str().into(),
        }
    }
}

fn write(to: &mut String, text: &str) {
    to.clear();
    to.push_str(text);
}

fn write_option(to: &mut Option<String>, text: Option<&str>) {
    match text {
        None => *to = None,
        Some(text) => write(to.get_or_insert_default(), text),
    }
}
