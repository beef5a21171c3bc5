//! The simulated Genesys Cloud over real sockets: what the actuator's tests rely on.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

mod budget;
mod campaigns;
mod consumer_groups;
mod decisions;
mod details;
mod events;
mod faults;
mod flows;
mod platform;
mod receiver;
mod routing;
mod tenant;
mod tokens;
mod world;
