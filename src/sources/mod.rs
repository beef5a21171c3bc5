//! From outside to topics: facts about the contact centre.

pub mod campaign_poller;
mod facts;
mod schedule;
