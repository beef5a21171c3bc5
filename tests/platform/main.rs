//! The platform tier: the Genesys Cloud client against the simulator, and what
//! instances share in a real Postgres.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

#[path = "../support/mod.rs"]
mod support;

mod actuator;
mod actuator_faults;
mod actuator_stand;
mod alerts;
mod allowances;
mod analytics_poller;
mod campaign_poller;
mod client;
mod dialects;
mod drift;
mod enrichment;
mod flow_poller;
mod outage;
mod own_actuation;
mod own_api;
mod own_api_families;
mod own_calls;
mod own_enrichment;
mod pause;
mod program;
mod rate_limit;
mod rollback;
mod rollback_stand;
mod routing;
mod secrets;
mod shared_budget;
mod tokens;
