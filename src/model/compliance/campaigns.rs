//! What holds for which campaign.

use std::collections::BTreeMap;

use super::{Calendar, CalendarError, Terms};
use crate::model::Timestamp;

/// One campaign's terms and its local time.
#[derive(Clone, Debug, PartialEq)]
pub struct CampaignTerms {
    /// Of the IANA database, such as `Europe/London`.
    pub time_zone: String,
    /// A moment of its first day; without it the first call or decision that is known.
    pub began_at: Option<Timestamp>,
    pub terms: Terms,
}

impl CampaignTerms {
    /// The campaign's calendar, where it is known to have begun at `began_at`.
    ///
    /// # Errors
    /// When there is no such time zone.
    pub fn calendar(&self, began_at: Timestamp) -> Result<Calendar, CalendarError> {
        Calendar::new(&self.time_zone, self.began_at.unwrap_or(began_at))
    }
}

/// The terms of all campaigns.
#[derive(Clone, Debug, PartialEq)]
pub struct Campaigns {
    /// Of campaigns that have none of their own.
    pub others: CampaignTerms,
    pub own: BTreeMap<String, CampaignTerms>,
}

impl Campaigns {
    pub fn of(&self, campaign_id: &str) -> &CampaignTerms {
        self.own.get(campaign_id).unwrap_or(&self.others)
    }
}
