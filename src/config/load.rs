//! From file and environment to a checked [`Config`].

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::Duration;

use secrecy::ExposeSecret;

use super::keys;
use super::kind::Value;
use super::reader::Reader;
use super::{
    Alerts, Compliance, Config, Dial, Dialect, Enrichment, Events, Genesys, Http, Influx, Ingest, Instance,
    Kafka, Lag, Postgres, Problems, Rollback, Route, Webhook,
};
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
    let config = reader.build();
    if reader.problems.is_empty() {
        Ok(config.expect("no problem, so a configuration"))
    } else {
        Err(Problems(reader.problems))
    }
}

impl Reader {
    fn build(&mut self) -> Option<Config> {
        let instance = Instance::read(self);
        let kafka = Kafka::read(self);
        let postgres = Postgres::read(self);
        let http = Http::read(self).inspect(|http| self.check_http(http));
        let ingest = Ingest::read(self);
        let genesys = Genesys::read(self);
        let dial = Dial::read(self).inspect(|dial| self.check_dial(dial));
        let events = Events::read(self);
        let enrichment = Enrichment::read(self);
        let lag = Lag::read(self);
        let rollback = Rollback::read(self);
        let alerts = Alerts::read(self).inspect(|alerts| self.check_alerts(alerts));
        let route = Route::read(self);
        let compliance = Compliance::read(self);
        let influx = self.has_section("influx").then(|| Influx::read(self));
        Some(Config {
            instance: instance?,
            kafka: kafka?,
            kafka_properties: std::mem::take(&mut self.properties),
            postgres: postgres?,
            http: http?,
            ingest: ingest?,
            genesys: genesys?,
            dial: dial?,
            events: events?,
            enrichment: enrichment?,
            lag: lag?,
            rollback: rollback?,
            route: route?,
            influx: match influx {
                Some(influx) => Some(influx?),
                None => None,
            },
            alerts: alerts?,
            compliance: compliance?,
        })
    }

    /// What keys are that were not given, where that depends on other keys.
    fn add_what_follows(&mut self) {
        let on_platform = self.known(&keys::genesys::dialect) == Some(Dialect::Platform);
        if on_platform {
            self.add_hosts();
            self.check_counterparts();
        }
        let minute: Duration = self.known(&keys::events::window).unwrap_or_default();
        let settling = if on_platform { minute * 3 } else { minute / 6 };
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

    fn check_http(&mut self, http: &Http) {
        if http.api_keys.is_empty() && !http.listen.ip().is_loopback() {
            let allowed = "must be a loopback address while http.api_keys is empty";
            self.misfit(&keys::http::listen, Some(http.listen.to_string()), allowed);
        }
    }

    fn check_dial(&mut self, dial: &Dial) {
        if dial.goal > dial.cap {
            let allowed = format!("must be at most dial.cap, {}", dial.cap);
            self.misfit(&keys::dial::goal, Some(dial.goal.to_string()), allowed);
        }
        if dial.min_rate > dial.max_rate {
            let allowed = format!("must not be above dial.max_rate, which is {}", dial.max_rate);
            self.misfit(&keys::dial::min_rate, Some(dial.min_rate.to_string()), allowed);
        }
    }

    fn check_alerts(&mut self, alerts: &Alerts) {
        let is_plain = |webhook: &&Webhook| !webhook.url.expose_secret().starts_with("https:");
        for webhook in alerts.webhooks.iter().filter(|_| !alerts.private_receivers).filter(is_plain) {
            let allowed = format!(
                "the url of receiver {} must be https; plain http needs alerts.private_receivers = \"allow\"",
                webhook.name
            );
            self.misfit(&keys::alerts::webhooks, None, allowed);
        }
    }
}

#[cfg(test)]
#[path = "load_tests.rs"]
mod tests;
