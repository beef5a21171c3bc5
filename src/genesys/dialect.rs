//! Which form of the platform's interface is spoken, and what it leaves to be chosen.

use std::time::Duration;

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
            single_campaigns: 20,
            old_after: Duration::from_secs(7 * 86_400),
            job_pause: Duration::from_secs(1),
        }
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
pub enum Spoken {
    Seed,
    Platform(Box<Platform>),
}

impl Spoken {
    /// `client_id` is our own.
    pub fn new(dialect: &Dialect, client_id: &str) -> Self {
        match dialect {
            Dialect::Seed => Spoken::Seed,
            Dialect::Platform(settings) => {
                Spoken::Platform(Box::new(Platform::new(settings.clone(), client_id)))
            }
        }
    }
}
