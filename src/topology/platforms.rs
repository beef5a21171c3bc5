//! From the configuration to what each organisation's client wants to know.

use std::time::Duration;

use crate::config::{CampaignChange, Config, Dialect, ErrorMeasure, Organization};
use crate::genesys;

use super::credentials;
use super::settings::at_pace;

/// Longest time an answer serves all who ask for the like of it.
const SHARED_FOR: Duration = Duration::from_secs(5);

/// As the organisation of this name speaks, which shares `requests` a window among its campaigns.
fn dialect(config: &Config, name: Option<&str>, spoken: Dialect, requests: u32) -> genesys::Dialect {
    if spoken == Dialect::Seed {
        return genesys::Dialect::Seed;
    }
    let defaults = genesys::PlatformSettings::default();
    let poll = config.dial.interval.min(config.route.availability_interval);
    // No poll is to see what the one before has seen.
    let shared_for = (poll / 4).min(SHARED_FOR);
    genesys::Dialect::Platform(genesys::PlatformSettings {
        pacing: genesys::Pacing { min: config.dial.min_rate, max: config.dial.max_rate },
        campaign_change: match config.genesys.campaign_change {
            CampaignChange::Put => genesys::CampaignChange::Whole,
            CampaignChange::Patch => genesys::CampaignChange::Lever,
        },
        error_measure: match config.rollback.errors {
            ErrorMeasure::Outcome => genesys::ErrorMeasure::Outcome,
            ErrorMeasure::ExitReason => genesys::ErrorMeasure::ExitReason,
        },
        shared_for,
        definition_for: genesys::PlatformSettings::definition_for(
            campaigns_of(config, name),
            shared_for,
            requests,
            config.genesys.budget_window,
        ),
        job_pause: at_pace(config, defaults.job_pause),
        ..defaults
    })
}

/// How many campaigns the organisation of this name has here.
fn campaigns_of(config: &Config, name: Option<&str>) -> usize {
    config.dial.campaigns.iter().filter(|id| config.genesys.organization_of(id) == name).count()
}

/// Whether changes of campaigns name the state they are for, in every organisation.
pub(super) fn conditional_changes(config: &Config) -> bool {
    let others = config.genesys.organizations.iter().map(|other| other.dialect);
    let all_seed = others.chain([config.genesys.dialect]).all(|dialect| dialect == Dialect::Seed);
    all_seed || config.genesys.campaign_change == CampaignChange::Put
}

/// The first organisation.
pub fn genesys(config: &Config) -> genesys::Settings {
    let (defaults, genesys) = (genesys::Settings::default(), &config.genesys);
    let requests = genesys.requests_per_minute;
    genesys::Settings {
        organization: genesys::Identity {
            name: None,
            id: genesys.organization_id.clone(),
            region: genesys.region.clone(),
            among_several: !genesys.organizations.is_empty(),
        },
        dialect: dialect(config, None, genesys.dialect, requests),
        base_url: genesys.base_url.clone(),
        login_url: genesys.login_url.clone(),
        credentials: credentials::of(config),
        requests_per_minute: requests,
        budget_window: genesys.budget_window,
        breaker_pause: at_pace(config, defaults.breaker_pause),
        ..defaults
    }
}

/// All others.
pub fn further_organizations(config: &Config) -> Vec<genesys::Settings> {
    let defaults = genesys::Settings::default();
    let of = |other: &Organization| genesys::Settings {
        organization: genesys::Identity {
            name: Some(other.name.clone()),
            id: Some(other.organization_id.as_ref().unwrap_or(&other.name).clone()),
            region: other.region.clone(),
            among_several: true,
        },
        dialect: dialect(config, Some(&other.name), other.dialect, other.requests_per_minute),
        base_url: other.base_url.clone(),
        login_url: other.login_url.clone(),
        credentials: credentials::of_further(other),
        requests_per_minute: other.requests_per_minute,
        budget_window: config.genesys.budget_window,
        breaker_pause: at_pace(config, defaults.breaker_pause),
        ..defaults.clone()
    };
    config.genesys.organizations.iter().map(of).collect()
}
