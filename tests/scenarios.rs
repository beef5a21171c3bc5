//! The scenario tier: stages in the in-memory driver, with crashes at every point.

mod support;

#[path = "scenarios/clocks.rs"]
mod clocks;

#[path = "scenarios/dial_loop.rs"]
mod dial_loop;

#[path = "scenarios/dial_pacing.rs"]
mod dial_pacing;

#[path = "scenarios/driver.rs"]
mod driver;

#[path = "scenarios/flow_minutes.rs"]
mod flow_minutes;

#[path = "scenarios/rollback_loop.rs"]
mod rollback_loop;
