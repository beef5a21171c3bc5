//! The fault tier: whole processes, real parts, real kills. `make faults` runs the long
//! form, `make test` a short one.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

#[path = "../support/mod.rs"]
mod support;

mod absence;
mod canary;
mod closed_loop;
mod compliance;
#[cfg(feature = "failpoints")]
mod crash_points;
mod deployment;
mod dial_settings;
mod enrichment;
mod events;
mod kills;
mod maintenance;
mod organizations;
mod promotion;
mod redrive;
mod restarts;
mod rollback;
#[cfg(feature = "failpoints")]
mod rollback_crash_points;
mod rollback_failures;
mod rollback_scene;
mod routing;
mod routing_scene;
mod routing_slow;
mod short_budget;
mod traces;
mod zombies;

/// How often a fault is repeated: `long` under `make faults`.
fn rounds(short: usize, long: usize) -> usize {
    if std::env::var("TRUNKLINE_FAULTS").is_ok_and(|form| form == "long") { long } else { short }
}
