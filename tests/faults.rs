//! The fault tier: whole processes, real parts, real kills. `make faults` runs the long
//! form, `make test` a short one.

mod support;

#[path = "faults/absence.rs"]
mod absence;
#[cfg(feature = "failpoints")]
#[path = "faults/crash_points.rs"]
mod crash_points;
#[path = "faults/deployment.rs"]
mod deployment;
#[path = "faults/enrichment.rs"]
mod enrichment;
#[path = "faults/events.rs"]
mod events;
#[path = "faults/kills.rs"]
mod kills;
#[path = "faults/maintenance.rs"]
mod maintenance;
#[path = "faults/redrive.rs"]
mod redrive;
#[path = "faults/restarts.rs"]
mod restarts;
#[path = "faults/rollback.rs"]
mod rollback;
#[cfg(feature = "failpoints")]
#[path = "faults/rollback_crash_points.rs"]
mod rollback_crash_points;
#[path = "faults/rollback_failures.rs"]
mod rollback_failures;
#[path = "faults/rollback_scene.rs"]
mod rollback_scene;
#[path = "faults/routing.rs"]
mod routing;
#[path = "faults/routing_slow.rs"]
mod routing_slow;
#[path = "faults/zombies.rs"]
mod zombies;

/// How often a fault is repeated: `long` under `make faults`.
fn rounds(short: usize, long: usize) -> usize {
    if std::env::var("TRUNKLINE_FAULTS").is_ok_and(|form| form == "long") { long } else { short }
}
