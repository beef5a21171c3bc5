//! Which form of the platform's interface is spoken, and what it leaves to be chosen.

use std::time::Duration;

use super::credentials::Credentials;
use super::flows::ErrorMeasure;
use super::platform::Platform;

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
    /// How long the definition of a campaign that is watched is not read again; zero reads it
    /// each time. What acts on a campaign reads it anew in any case.
    pub definition_for: Duration,
    /// Campaigns whose statistics are asked for one by one; of more they are asked for together.
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
            definition_for: Duration::ZERO,
            single_campaigns: SINGLE_CAMPAIGNS,
            old_after: Duration::from_secs(7 * 86_400),
            job_pause: Duration::from_secs(1),
        }
    }
}

const SINGLE_CAMPAIGNS: usize = 20;
/// Of the budget, the part that reading the definitions of watched campaigns may take.
const DEFINITIONS_SHARE: f64 = 1.0 / 3.0;

impl PlatformSettings {
    /// How long a definition serves, so that reading those of all `campaigns` once takes a third
    /// of `requests` in each `window` at most; zero where each poll can read its own.
    pub fn definition_for(campaigns: usize, poll: Duration, requests: u32, window: Duration) -> Duration {
        let needed = window.mul_f64(campaigns as f64 / (f64::from(requests.max(1)) * DEFINITIONS_SHARE));
        if needed <= poll { Duration::ZERO } else { needed }
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
    fn definitions_take_a_third_of_the_budget_however_many_there_are() {
        let minute = Duration::from_secs(60);
        let serves = |campaigns| {
            PlatformSettings::definition_for(campaigns, minute / 2, 300, minute).as_secs_f64().round()
        };
        assert_eq!((serves(0), serves(9), serves(50)), (0.0, 0.0, 0.0), "at each poll");
        assert_eq!((serves(100), serves(1_000)), (60.0, 600.0));
    }
}
