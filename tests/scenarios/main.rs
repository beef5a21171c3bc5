//! The scenario tier: stages in the in-memory driver, with crashes at every point.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

#[path = "../support/mod.rs"]
mod support;

mod campaign_counting;
mod clocks;
mod delivery_loop;
mod dial_allowance;
mod dial_loop;
mod dial_pacing;
mod driver;
mod flow_minutes;
mod flow_repeats;
mod rollback_loop;
