//! From outside to topics: facts about the contact centre.

pub mod analytics_poller;
pub mod campaign_poller;
pub mod events;
mod facts;
pub mod flow_poller;
pub mod lag_poller;
mod names;
mod ownership;
pub mod queue_poller;
mod readiness;
mod schedule;
mod watch;

pub use names::Names;
pub use ownership::PollerError;
