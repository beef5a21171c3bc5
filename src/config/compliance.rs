//! How campaigns are counted, and what a month covers.

use std::collections::BTreeMap;

use super::campaign::{CampaignEntry, EVERY_OTHER};
use super::{Compliance, Genesys, Organization};
use crate::model::allowance::{self, Allowances};
use crate::model::compliance::{CampaignTerms, Campaigns, Rules, Terms, WarningRule};
use crate::model::organization;

impl Compliance {
    pub fn rules(&self) -> Rules {
        Rules { greeting_allowance_ms: u32::try_from(self.greeting_allowance.as_millis()).unwrap_or(0) }
    }

    pub fn warning(&self) -> WarningRule {
        WarningRule { cap_share: self.warn_at, min_answers: self.warn_answers }
    }

    /// Call attempts a month: of all campaigns what the licences cover, of single ones what they
    /// may use.
    pub fn attempts(&self) -> Allowances {
        let of = |entry: &CampaignEntry| Some((entry.id.clone(), entry.attempts_per_month?));
        let campaigns: BTreeMap<String, u64> = self.campaigns.iter().filter_map(of).collect();
        Allowances {
            all: allowance::Terms { per_month: self.attempts_per_month, price: Some(self.price_per_attempt) },
            every_other: campaigns.get(EVERY_OTHER).copied(),
            campaigns,
        }
    }

    /// The terms of all campaigns. What single ones leave out is as for all.
    pub fn terms(&self) -> Campaigns {
        let all = CampaignTerms {
            time_zone: self.time_zone.clone(),
            began_at: None,
            terms: Terms { cap: self.cap, denominator: self.denominator, estimates: None },
        };
        let of = |entry: &CampaignEntry, base: &CampaignTerms| CampaignTerms {
            time_zone: entry.time_zone.as_ref().unwrap_or(&base.time_zone).clone(),
            began_at: entry.began_at.or(base.began_at),
            terms: Terms {
                cap: entry.cap.unwrap_or(base.terms.cap),
                denominator: self.denominator,
                estimates: entry.estimates.as_ref().or(base.terms.estimates.as_ref()).cloned(),
            },
        };
        let every_other = self.campaigns.iter().find(|entry| entry.id == EVERY_OTHER);
        let others = every_other.map_or(all.clone(), |entry| of(entry, &all));
        let own = self.campaigns.iter().filter(|entry| entry.id != EVERY_OTHER);
        let own = own.map(|entry| (entry.id.clone(), of(entry, &others))).collect();
        Campaigns { others, own }
    }
}

impl Genesys {
    /// The further organisation that an object belongs to.
    pub fn organization_of<'i>(&self, id: &'i str) -> Option<&'i str> {
        let (name, _) = organization::split(id)?;
        self.organizations.iter().any(|other| other.name == name).then_some(name)
    }

    /// API calls that a month covers.
    pub fn calls(&self) -> allowance::Terms {
        allowance::Terms { per_month: self.calls_per_month, price: self.price_per_call }
    }
}

impl Organization {
    /// API calls that a month covers.
    pub fn calls(&self) -> allowance::Terms {
        allowance::Terms { per_month: self.calls_per_month, price: self.price_per_call }
    }
}
