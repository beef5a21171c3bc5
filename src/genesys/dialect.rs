//! Which form of the platform's interface is spoken, and what it leaves to be chosen.

use std::time::Duration;

use super::credentials::Credentials;
use super::flows::ErrorMeasure;
use super::platform::Platform;
use super::platform::campaigns::LISTED;

/// A form of the platform's interface.
#[derive(Clone, Debug, Default)]
pub enum Dialect {
    /// As the project was asked for.
    #[default]
    Seed,
    /// Genesys Cloud's own API.
    Platform(PlatformSettings),
}

/// What Genesys Cloud's own API leaves to be chosen.
#[derive(Clone, Debug)]
pub struct PlatformSettings {
    /// Limits of the dial rate: campaigns there have none of their own.
    pub pacing: Pacing,
    pub campaign_change: CampaignChange,
    pub error_measure: ErrorMeasure,
    /// How old an answer may be that is shared by many who ask.
    pub shared_for: Duration,
    /// How long what holds for the whole organisation is not read again.
    pub organization_for: Duration,
    /// How old a list of the campaigns that are watched may be. What acts on a campaign reads it
    /// anew in any case.
    pub definition_for: Duration,
    /// Campaigns that are asked about one by one; about more it is asked together.
    pub single_campaigns: usize,
    /// Conversations that ended this long ago are looked up by a job.
    pub old_after: Duration,
    /// First pause before a job is asked about again; it doubles to sixteen times as long.
    pub job_pause: Duration,
}

impl Default for PlatformSettings {
    fn default() -> Self {
        Self {
            pacing: Pacing { min: 1.0, max: 15.0 },
            campaign_change: CampaignChange::default(),
            error_measure: ErrorMeasure::default(),
            shared_for: Duration::from_secs(5),
            organization_for: Duration::from_secs(600),
            definition_for: Duration::from_secs(5),
            single_campaigns: SINGLE_CAMPAIGNS,
            old_after: Duration::from_secs(7 * 86_400),
            job_pause: Duration::from_secs(1),
        }
    }
}

const SINGLE_CAMPAIGNS: usize = 20;
/// Of the budget, the part that lists of watched campaigns may take.
const LISTS_SHARE: f64 = 0.1;

impl PlatformSettings {
    /// How old a list of all `campaigns` may be: as old as other shared answers, or so that it
    /// takes a tenth of `requests` in each `window` at most.
    pub fn definition_for(
        campaigns: usize,
        shared_for: Duration,
        requests: u32,
        window: Duration,
    ) -> Duration {
        let calls = campaigns.div_ceil(LISTED) as f64;
        shared_for.max(window.mul_f64(calls / (f64::from(requests.max(1)) * LISTS_SHARE)))
    }
}

/// Calls per agent that are allowed here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Pacing {
    pub min: f64,
    pub max: f64,
}

/// How a campaign's rate is changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CampaignChange {
    /// A request that names the rate alone; the last writer wins.
    #[default]
    Lever,
    /// The whole campaign as it was read; refused where somebody changed it since.
    Whole,
}

/// A dialect with what it keeps in mind.
pub(super) enum Spoken {
    Seed,
    Platform(Box<Platform>),
}

impl Spoken {
    /// `credentials` are our own.
    pub(super) fn new(dialect: &Dialect, credentials: &Credentials) -> Self {
        match dialect {
            Dialect::Seed => Spoken::Seed,
            Dialect::Platform(settings) => {
                Spoken::Platform(Box::new(Platform::new(settings.clone(), credentials.clone())))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_take_a_tenth_of_the_budget_however_many_campaigns_there_are() {
        let (minute, shared) = (Duration::from_secs(60), Duration::from_secs(5));
        let serves = |campaigns| {
            PlatformSettings::definition_for(campaigns, shared, 300, minute).as_secs_f64().round()
        };
        assert_eq!((serves(0), serves(100)), (5.0, 5.0), "as long as other answers");
        assert_eq!((serves(1_000), serves(5_000)), (40.0, 200.0));
    }
}
