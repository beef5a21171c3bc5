//! How the rooms are put together.

pub mod instance;
mod roles;
pub mod shared_budget;

pub use roles::{ACTUATOR, AUDIT, CAMPAIGN_POLLER, CONSOLE, DRIFT, Kind, Role, roles};
