//! Facts about outbound campaigns.

use std::borrow::Cow;

use arrayvec::ArrayVec;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Timestamp;
use super::borrow::borrowed;
use super::call_counts::CountSources;
use super::chain::Chain;

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

impl CampaignStats<'_> {
    pub fn reading(&self) -> Reading {
        Reading {
            answer_rate: self.answer_rate,
            attempts: self.attempts,
            answers: self.answers,
            abandoned: self.abandoned,
            calls_delivered: self.calls_delivered,
            agents_idle: self.agents_idle,
            agents_busy: self.agents_busy,
        }
    }
}

/// What a campaign's statistics say, without when and about which campaign.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Reading {
    pub answer_rate: f64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answers: Option<u64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<u64>,
    pub calls_delivered: u64,
    pub agents_idle: u32,
    pub agents_busy: u32,
}

impl Reading {
    /// Whether this is newer data than `before`, which was read earlier, and not the same once
    /// more. While nothing is counted, agents may come, go and end their calls; more of them
    /// busy than before must have been given calls, and counters that do not show those are old.
    pub fn is_news_after(&self, before: &Reading) -> bool {
        let counts = |reading: &Reading| {
            let Reading { attempts, answers, abandoned, calls_delivered, .. } = *reading;
            (attempts, answers, abandoned, calls_delivered)
        };
        if counts(self) != counts(before) || self.answer_rate != before.answer_rate {
            return true;
        }
        let agents = (self.agents_idle, self.agents_busy);
        agents != (before.agents_idle, before.agents_busy) && self.agents_busy <= before.agents_busy
    }

    /// Calls placed since `before`; unknown where the platform does not count them.
    pub fn attempted_since(&self, before: Option<&Reading>) -> Option<u64> {
        match before {
            // None since the counters began is none since whenever.
            None => self.attempts.filter(|attempts| *attempts == 0),
            Some(before) => growth(before.attempts, self.attempts),
        }
    }

    /// Live answers since `before`.
    pub fn answered_since(&self, before: Option<&Reading>) -> Option<u64> {
        growth(before?.answers, self.answers)
    }

    /// Abandoned answers since `before`.
    pub fn abandoned_since(&self, before: Option<&Reading>) -> Option<u64> {
        growth(before?.abandoned, self.abandoned)
    }

    /// Calls handed to an agent since `before`.
    pub fn delivered_since(&self, before: Option<&Reading>) -> Option<u64> {
        growth(Some(before?.calls_delivered), Some(self.calls_delivered))
    }
}

/// Ticks without anything new after which a campaign's statistics are too old for everything.
/// While no agent is idle no call is placed, and all may well stand still for longer.
pub fn ticks_to_stale(agents_idle: u32) -> u32 {
    if agents_idle == 0 { 20 } else { 4 }
}

/// Growth of a counter that may begin anew.
fn growth(before: Option<u64>, now: Option<u64>) -> Option<u64> {
    let (before, now) = (before?, now?);
    Some(if now >= before { now - before } else { now })
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
    /// When the statistics last said anything new, at the latest `observedAt`: since then the
    /// same was read at every poll. Absent in windows of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// Answer rates held, oldest first, at most 10. A poll since whose predecessor no call was
    /// placed, or that said nothing new, adds none.
    #[schemars(with = "Vec<f64>", length(min = 0, max = 10))]
    pub answer_rates: ArrayVec<f64, WINDOW_SAMPLES>,
    /// Mean of `answerRates`, 0 where there are none.
    pub mean_answer_rate: f64,
    /// Calls placed since the poll before; absent where nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempted: Option<u64>,
    /// Live answers since the poll before; absent where nobody counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub answered: Option<u64>,
    /// Abandoned answers since the poll before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<u64>,
    /// Where these three come from. Absent in windows of older programs: from the statistics.
    #[serde(default, skip_serializing_if = "CountSources::are_unknown")]
    pub counts_from: CountSources,
    /// Calls handed to an agent since the poll before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delivered: Option<u64>,
    pub agents_idle: u32,
    pub agents_busy: u32,
    pub dial_rate: f64,
    pub min_dial_rate: f64,
    pub max_dial_rate: f64,
    #[serde(borrow)]
    pub revision: Cow<'a, str>,
}

/// A dial decision: the rate, and how it came to be.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DialAnswer {
    /// Lines per idle agent before the decision.
    pub previous_dial_rate: f64,
    /// Lines per idle agent the campaign is to have, two decimals.
    pub dial_rate: f64,
    /// From the rule's answer to the rate; absent in decisions of older programs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chain: Option<Chain>,
    /// What keeps the rate from rising now, whether it would have risen or not, as
    /// `statistics_late` or `lag_error:<consumer group>`.
    #[schemars(length(max = 8))]
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub holds: Vec<String>,
    /// Other rates that this loop decided lately: the campaign may have got one since it was observed.
    #[schemars(with = "Vec<f64>", length(max = 2))]
    #[serde(default, skip_serializing_if = "ArrayVec::is_empty")]
    pub own_rates: ArrayVec<f64, OWN_RATES>,
    /// What the shadow policy would have decided in this one's place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowAnswer>,
    /// What the loop remembered of the campaign before this decision, told now and then: from there on its
    /// decisions can be taken again. Its form is the loop's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory: Option<serde_json::Value>,
}

/// The change alone, without how it came to be.
impl From<DialParameters> for DialAnswer {
    fn from(change: DialParameters) -> Self {
        Self {
            previous_dial_rate: change.previous_dial_rate,
            dial_rate: change.dial_rate,
            chain: None,
            holds: Vec::new(),
            own_rates: ArrayVec::new(),
            shadow: None,
            memory: None,
        }
    }
}

impl DialAnswer {
    pub fn change(&self) -> DialParameters {
        DialParameters { previous_dial_rate: self.previous_dial_rate, dial_rate: self.dial_rate }
    }
}

/// Decisions that may still be on their way to the campaign.
pub const OWN_RATES: usize = 2;

/// What another policy answers to the same inputs. Nobody acts on it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShadowAnswer {
    pub policy: String,
    pub policy_version: u32,
    /// First 16 hexadecimal digits of the SHA-256 of its parameters.
    pub policy_hash: String,
    /// Lines per idle agent.
    pub dial_rate: f64,
    pub reason: String,
    pub chain: Chain,
}

/// A change of a campaign's dial rate.
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
    fn a_reading_is_news_unless_nothing_was_counted_and_nothing_moved() {
        let before = Reading {
            answer_rate: 0.3,
            attempts: Some(100),
            answers: Some(30),
            abandoned: Some(1),
            calls_delivered: 29,
            agents_idle: 2,
            agents_busy: 5,
        };
        assert!(!before.is_news_after(&before), "the same once more");
        for news in [
            Reading { attempts: Some(101), ..before },
            Reading { calls_delivered: 30, ..before },
            Reading { answer_rate: 0.0, ..before },
            Reading { agents_idle: 3, agents_busy: 4, ..before },
        ] {
            assert!(news.is_news_after(&before), "{news:?}");
        }
        let given_calls = Reading { agents_idle: 1, agents_busy: 6, ..before };
        assert!(!given_calls.is_news_after(&before), "calls that the counters do not show");
    }

    #[test]
    fn counters_become_growth_and_may_begin_anew() {
        let reading = |attempts: Option<u64>| Reading {
            answer_rate: 0.0,
            attempts,
            answers: None,
            abandoned: None,
            calls_delivered: 0,
            agents_idle: 0,
            agents_busy: 0,
        };
        let attempted = |before: Option<u64>, now| reading(now).attempted_since(Some(&reading(before)));
        assert_eq!(attempted(Some(100), Some(107)), Some(7));
        assert_eq!(attempted(Some(100), Some(4)), Some(4));
        assert_eq!(attempted(None, Some(4)), None);
        assert_eq!(reading(Some(4)).attempted_since(None), None);
        assert_eq!(reading(Some(0)).attempted_since(None), Some(0), "none was ever placed");
    }

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
