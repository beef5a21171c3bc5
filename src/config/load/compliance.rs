//! How campaigns are counted.

use super::super::Compliance;
use super::super::campaign::{CampaignEntry, EVERY_OTHER};
use super::super::keys::{self, Key};
use super::super::kind::Value;
use super::Reader;
use crate::model::compliance::{CampaignTerms, Campaigns, Denominator, Rules, Terms, WarningRule};

impl Reader {
    pub(super) fn compliance(&self) -> Compliance {
        let number = |key: &Key| match self.value(key) {
            Some(Value::Number(number)) => number,
            _ => unreachable!("has a default"),
        };
        let allowance = self.duration(&keys::COMPLIANCE_GREETING_ALLOWANCE);
        Compliance {
            is_on: self.text(&keys::COMPLIANCE_MODE).as_deref() != Some("off"),
            interval: self.duration(&keys::COMPLIANCE_INTERVAL),
            settle: self.duration(&keys::COMPLIANCE_SETTLE),
            restate: self.text(&keys::COMPLIANCE_RESTATE).as_deref() != Some("no"),
            retention: self.duration(&keys::COMPLIANCE_RETENTION),
            rules: Rules { greeting_allowance_ms: u32::try_from(allowance.as_millis()).unwrap_or(0) },
            warning: WarningRule {
                cap_share: number(&keys::COMPLIANCE_WARN_AT),
                min_answers: self.integer(&keys::COMPLIANCE_WARN_ANSWERS).expect("has a default"),
            },
            campaigns: self.campaigns(number(&keys::COMPLIANCE_CAP)),
            attempts_per_month: self.integer(&keys::COMPLIANCE_ATTEMPTS_PER_MONTH),
            signing_key: self.secret(&keys::COMPLIANCE_SIGNING_KEY),
        }
    }

    /// What single campaigns leave out is as for all.
    fn campaigns(&self, cap: f64) -> Campaigns {
        let denominator = match self.text(&keys::COMPLIANCE_DENOMINATOR).as_deref() {
            Some("all_calls") => Denominator::AllCalls,
            _ => Denominator::CallsThatReachedQueue,
        };
        let all = CampaignTerms {
            time_zone: self.text(&keys::COMPLIANCE_TIME_ZONE).expect("has a default"),
            began_at: None,
            terms: Terms { cap, denominator, estimates: None },
        };
        let entries = match self.value(&keys::COMPLIANCE_CAMPAIGNS) {
            Some(Value::Campaigns(entries)) => entries,
            _ => Vec::new(),
        };
        let of = |entry: CampaignEntry, base: &CampaignTerms| CampaignTerms {
            time_zone: entry.time_zone.unwrap_or_else(|| base.time_zone.clone()),
            began_at: entry.began_at.or(base.began_at),
            terms: Terms {
                cap: entry.cap.unwrap_or(base.terms.cap),
                denominator,
                estimates: entry.estimates.or_else(|| base.terms.estimates.clone()),
            },
        };
        let every_other = entries.iter().find(|entry| entry.id == EVERY_OTHER).cloned();
        let others = every_other.map_or(all.clone(), |entry| of(entry, &all));
        let own = entries.into_iter().filter(|entry| entry.id != EVERY_OTHER);
        let own = own.map(|entry| (entry.id.clone(), of(entry, &others))).collect();
        Campaigns { others, own }
    }
}
