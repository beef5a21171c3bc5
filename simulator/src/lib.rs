//! A simulated Genesys Cloud organisation: a seeded contact centre behind the API, with
//! true entity tags, tokens and request budgets, faults that can be switched on, and a
//! log of every request for checkers.
//!
//! ```text
//! scenario ─▶ world ─▶ dialer ─▶ floor (agents), contacts (answers)      pure, seconds
//!         └▶ flows, traffic (interactions) ─▶ chronicle ─▶ conversations, events (posted)
//! listeners ─▶ exchange ─▶ budget, faults, tokens ─▶ dialect: seed, platform ─▶ definition, world
//!           └▶ control (/simulator/…)                               └▶ journal
//! ```
//! Beside the platform's paths the API listener serves, without a token, the routes of
//! `control.rs`: `/simulator/…`.

mod budget;
mod call_history;
mod chance;
mod chronicle;
mod consumer_groups;
mod contacts;
mod control;
mod conversations;
mod decisions;
mod definition;
mod details;
mod dialect;
mod dialer;
mod events;
mod exchange;
mod faults;
mod floor;
mod flows;
mod input;
mod journal;
mod measures;
mod operations;
mod organization;
mod platform;
mod publishes;
mod queues;
mod reply;
mod scenario;
mod scopes;
mod seed;
mod series;
mod server;
mod settings;
mod time;
mod tokens;
mod traffic;
mod transport;
mod world;

pub use dialect::Dialect;
pub use dialer::{CallCounts, Dialer, Snapshot};
pub use events::EventSettings;
pub use faults::{Fault, FaultRule, Match, RetryAfter};
pub use floor::AgentCounts;
pub use organization::{CampaignOverview, FlowOverview, Overview};
pub use queues::QueueOverview;
pub use scenario::{
    Answering, CampaignScenario, ConsumerGroupScenario, EventTypeScenario, FlowScenario, QueueScenario,
    Scenario, ScenarioError, VersionScenario, VersionStatus,
};
pub use scopes::{SCOPE_READ, SCOPE_WRITE};
pub use server::{Running, Simulator, StartError};
pub use settings::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Settings, StaleReply, WriteReply};
pub use tokens::Client;
pub use world::World;
