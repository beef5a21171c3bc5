//! From outside to topics: facts about the contact centre.

pub mod analytics_poller;
pub mod campaign_poller;
pub mod events;
mod facts;
pub mod lag_poller;
mod ownership;
mod schedule;
