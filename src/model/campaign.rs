//! Facts about outbound campaigns.

use std::borrow::Cow;

use arrayvec::ArrayVec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::borrow::borrowed;

/// Samples a sliding window holds at most (`docs/dial.md`).
pub const WINDOW_SAMPLES: usize = 10;

/// One observation of one campaign. Text borrows from the record it was read from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignStats<'a> {
    #[serde(borrow)]
    pub campaign_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub region: Option<Cow<'a, str>>,
    /// When the platform was asked.
    pub observed_at: Timestamp,
    /// Share of attempts answered by a person, 0–1.
    pub answer_rate: f64,
    /// Calls placed since the campaign's counters began; a fall means they began anew.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    /// Live answers since the campaign's counters began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
    /// Live answers nobody was free for within 2 s, since the campaign's counters began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<u64>,
    pub agents_idle: u32,
    pub agents_busy: u32,
    /// Calls handed to an agent since the campaign's counters began.
    pub calls_delivered: u64,
    /// Lines dialled per idle agent, as the platform has it now.
    pub dial_rate: f64,
    pub min_dial_rate: f64,
    pub max_dial_rate: f64,
    /// The platform's version of the campaign: an entity tag or a number, kept verbatim.
    #[serde(borrow)]
    pub revision: Cow<'a, str>,
}

/// The sliding window behind the next dial decision: the samples actually held
/// and the campaign as it was at the newest of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CampaignWindow<'a> {
    #[serde(borrow)]
    pub campaign_id: Cow<'a, str>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub organization_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "borrowed", skip_serializing_if = "Option::is_none")]
    pub region: Option<Cow<'a, str>>,
    /// Time of the oldest sample held.
    pub first_observed_at: Timestamp,
    /// Time of the newest sample held.
    pub observed_at: Timestamp,
    /// Answer rates held, oldest first, 1 to 10 of them.
    #[schemars(with = "Vec<f64>", length(min = 1, max = 10))]
    pub answer_rates: ArrayVec<f64, WINDOW_SAMPLES>,
    /// Mean of `answerRates`.
    pub mean_answer_rate: f64,
    /// Live answers since the sample before; absent where the platform does not count them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u64>,
    /// Abandoned answers since the sample before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<u64>,
    pub agents_idle: u32,
    pub agents_busy: u32,
    pub dial_rate: f64,
    pub min_dial_rate: f64,
    pub max_dial_rate: f64,
    #[serde(borrow)]
    pub revision: Cow<'a, str>,
}

/// What a dial decision asks of the platform.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DialParameters {
    /// Lines per idle agent before the decision.
    pub previous_dial_rate: f64,
    /// Lines per idle agent the campaign is to have, two decimals.
    pub dial_rate: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_is_copied_out_of_a_record() {
        let text = include_str!("../../schemas/examples/trunkline.campaign-windows.v1/full.json");
        let window: CampaignWindow<'_> = serde_json::from_str(text).unwrap();
        assert!(matches!(window.campaign_id, Cow::Borrowed(_)));
        assert!(matches!(window.organization_id, Some(Cow::Borrowed(_))));
        assert!(matches!(window.region, Some(Cow::Borrowed(_))));
        let text = include_str!("../../schemas/examples/genesys.campaign-stats.v1/with-counters.json");
        let stats: CampaignStats<'_> = serde_json::from_str(text).unwrap();
        assert!(matches!(
            (stats.organization_id, stats.region),
            (Some(Cow::Borrowed(_)), Some(Cow::Borrowed(_)))
        ));
    }
}
