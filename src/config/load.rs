//! From file and environment to a checked [`Config`].

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::keys::{self, Config, Key};
use super::kind::Value;
use super::reader::Reader;
use super::{ApiKey, CredentialFiles, Dialect, Organization, Problems, Webhook};
use crate::model::organization;
use crate::model::region::{self, REGIONS, Region};

/// Where a configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Source {
    /// `None`: `trunkline.toml` in the working directory, if it is there.
    pub file: Option<PathBuf>,
    /// Environment variables; all but `TRUNKLINE_<SECTION>__<FIELD>` are ignored.
    pub environment: HashMap<String, String>,
}

impl Source {
    pub fn process(file: Option<PathBuf>) -> Self {
        // A variable that is not UTF-8 cannot be one of ours.
        let environment = std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect();
        Self { file, environment }
    }
}

/// What a command works with. What it does not need may be missing and is empty then;
/// what is there is checked all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Needs {
    Everything,
    Postgres,
    Kafka,
}

/// Reads and checks everything.
///
/// # Errors
/// All problems at once: unknown keys, impossible values, values that do not fit together.
pub fn load(source: &Source, needs: Needs) -> Result<Config, Problems> {
    let mut reader = Reader::new(needs);
    reader.take_file(source.file.as_deref());
    reader.take_environment(&source.environment);
    reader.add_what_follows();
    let config = Config::read(&mut reader);
    reader.check_together();
    if reader.problems.is_empty() {
        let mut config = config.expect("no problem, so a configuration");
        for organization in &mut config.genesys.organizations {
            organization.stands_in(source);
        }
        Ok(Config { credential_files: CredentialFiles::of(source), ..config })
    } else {
        Err(Problems(reader.problems))
    }
}

impl Reader {
    /// What keys are that were not given, where that depends on other keys.
    fn add_what_follows(&mut self) {
        let on_platform = self.known(&keys::genesys::dialect) == Some(Dialect::Platform);
        if on_platform {
            self.add_hosts();
            self.check_counterparts();
        }
        let minute: Duration = self.known(&keys::events::window).unwrap_or_default();
        let organizations =
            self.known::<Vec<Organization>>(&keys::genesys::organizations).unwrap_or_default();
        let any_on_platform =
            on_platform || organizations.iter().any(|other| other.dialect == Dialect::Platform);
        let settling = if any_on_platform { minute * 3 } else { minute / 6 };
        self.follows(&keys::rollback::settling, Value::Duration(settling));
    }

    /// Where Genesys Cloud is: as given, else by its region; tokens come from beside it.
    fn add_hosts(&mut self) {
        let given: Option<String> = self.known(&keys::genesys::base_url);
        let region: Option<String> = self.known(&keys::genesys::region).flatten();
        let named = region.as_deref().and_then(Region::named);
        if let Some(name) = region {
            self.check_region(name, named, given.as_deref());
        }
        let Some(base_url) = given.or_else(|| named.map(Region::api_url)) else { return };
        self.follows(&keys::genesys::login_url, Value::Text(region::login_url_beside(&base_url)));
        self.follows(&keys::genesys::base_url, Value::Text(base_url));
    }

    fn check_region(&mut self, name: String, named: Option<Region>, given: Option<&str>) {
        let allowed = match (given, given.and_then(Region::at)) {
            (None, _) if named.is_none() => {
                let known: Vec<_> = REGIONS.iter().map(|region| region.name).collect();
                format!("one of {}; or give genesys.base_url", known.join(", "))
            }
            (Some(_), Some(at)) if named != Some(at) => {
                format!(
                    "genesys.base_url is the API host of {}: remove one of the two, or let them agree",
                    at.name
                )
            }
            _ => return,
        };
        self.misfit(&keys::genesys::region, Some(name), allowed);
    }

    /// What only the seed dialect can do.
    fn check_counterparts(&mut self) {
        let groups: Option<Vec<String>> = self.known(&keys::lag::analytics_groups);
        if groups.is_some_and(|groups| !groups.is_empty()) {
            let allowed = "must be empty in the dialect platform, which has no analytics of consumer groups: lag is \
                           measured at the broker (lag.include, lag.clusters)";
            self.misfit(&keys::lag::analytics_groups, None, allowed);
        }
        if self.known(&keys::route::platform_publish) == Some(true) {
            let allowed = "must be no in the dialect platform, which publishes no routing configurations: changes of \
                           queues and members act there at once";
            self.misfit(&keys::route::platform_publish, None, allowed);
        }
    }

    /// What must fit another key.
    fn check_together(&mut self) {
        self.check_http();
        self.check_order(&keys::dial::goal, &keys::dial::cap);
        self.check_order(&keys::dial::min_rate, &keys::dial::max_rate);
        self.check_alerts();
        self.check_influx();
        self.check_organizations();
    }

    /// Where there are several, what looks like the name of one is one.
    fn check_organizations(&mut self) {
        let known = self.known::<Vec<Organization>>(&keys::genesys::organizations).unwrap_or_default();
        if known.is_empty() {
            return;
        }
        let own: Option<String> = self.known(&keys::genesys::organization_id).flatten();
        let mut ids: Vec<String> =
            known.iter().filter_map(|other| other.organization_id.clone()).chain(own).collect();
        ids.sort();
        if ids.windows(2).any(|pair| pair[0] == pair[1]) {
            let allowed = "two organisations have the same organization_id: events could not be told apart";
            self.misfit(&keys::genesys::organizations, None, allowed);
        }
        let names: Vec<&str> = known.iter().map(|other| other.name.as_str()).collect();
        let lists = [
            &keys::dial::campaigns,
            &keys::rollback::flows,
            &keys::rollback::polled_flows,
            &keys::route::queues,
        ];
        for list in lists {
            let ids: Vec<String> = self.known(list).unwrap_or_default();
            let unknown = ids.iter().filter_map(|id| Some((id, organization::split(id)?.0)));
            for (id, name) in unknown.filter(|(_, name)| !names.contains(name)) {
                let allowed = format!("{id} names the organisation {name}; there are {}", names.join(", "));
                self.misfit(list, None, allowed);
            }
        }
    }

    fn check_http(&mut self) {
        let api_keys: Option<Vec<ApiKey>> = self.known(&keys::http::api_keys);
        let listen: Option<SocketAddr> = self.known(&keys::http::listen);
        let is_open = api_keys.is_some_and(|keys| keys.is_empty());
        if let Some(listen) = listen.filter(|listen| is_open && !listen.ip().is_loopback()) {
            let allowed = "must be a loopback address while http.api_keys is empty";
            self.misfit(&keys::http::listen, Some(listen.to_string()), allowed);
        }
    }

    fn check_order(&mut self, lower: &Key, upper: &Key) {
        let (low, high): (Option<f64>, Option<f64>) = (self.known(lower), self.known(upper));
        if let (Some(low), Some(high)) = (low, high)
            && low > high
        {
            let allowed = format!("must not be above {}, which is {high}", upper.name);
            self.misfit(lower, Some(low.to_string()), allowed);
        }
    }

    fn check_alerts(&mut self) {
        if self.known(&keys::alerts::private_receivers) == Some(true) {
            return;
        }
        let webhooks: Vec<Webhook> = self.known(&keys::alerts::webhooks).unwrap_or_default();
        for webhook in webhooks.iter().filter(|it| !it.url.expose_secret().starts_with("https:")) {
            let allowed = format!(
                "the url of receiver {} must be https; plain http needs alerts.private_receivers = \"allow\"",
                webhook.name
            );
            self.misfit(&keys::alerts::webhooks, None, allowed);
        }
    }

    /// All of it, or nothing.
    fn check_influx(&mut self) {
        let all = [&keys::influx::url, &keys::influx::org, &keys::influx::bucket, &keys::influx::token];
        let (given, missing): (Vec<&Key>, Vec<&Key>) = all.into_iter().partition(|key| self.is_given(key));
        for key in missing.into_iter().filter(|_| !given.is_empty()) {
            self.missing(key);
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
