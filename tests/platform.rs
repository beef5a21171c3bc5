//! The platform tier: the Genesys Cloud client against the simulator, and what
//! instances share in a real Postgres.

mod support;

#[path = "platform/actuator.rs"]
mod actuator;
#[path = "platform/actuator_faults.rs"]
mod actuator_faults;
#[path = "platform/actuator_stand.rs"]
mod actuator_stand;
#[path = "platform/alerts.rs"]
mod alerts;
#[path = "platform/analytics_poller.rs"]
mod analytics_poller;
#[path = "platform/campaign_poller.rs"]
mod campaign_poller;
#[path = "platform/client.rs"]
mod client;
#[path = "platform/drift.rs"]
mod drift;
#[path = "platform/enrichment.rs"]
mod enrichment;
#[path = "platform/flow_poller.rs"]
mod flow_poller;
#[path = "platform/outage.rs"]
mod outage;
#[path = "platform/own_api.rs"]
mod own_api;
#[path = "platform/pause.rs"]
mod pause;
#[path = "platform/program.rs"]
mod program;
#[path = "platform/rate_limit.rs"]
mod rate_limit;
#[path = "platform/rollback.rs"]
mod rollback;
#[path = "platform/rollback_stand.rs"]
mod rollback_stand;
#[path = "platform/routing.rs"]
mod routing;
#[path = "platform/secrets.rs"]
mod secrets;
#[path = "platform/shared_budget.rs"]
mod shared_budget;
#[path = "platform/tokens.rs"]
mod tokens;
