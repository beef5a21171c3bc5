//! What facts cost on their way, counted instead of timed: records, bytes and allocations are the
//! same on every machine, however busy it is.
#![allow(clippy::unwrap_used)] // a test may

mod allocations;
mod events;
mod statistics;

use trunkline::runtime::driver::{Driver, Stored};
use trunkline::topics::Topic;

/// Records on a topic, and the bytes of their values.
fn records(driver: &Driver, topic: &Topic) -> (usize, usize) {
    let records = driver.records(topic);
    let bytes = |record: &Stored| record.value.as_ref().map_or(0, Vec::len);
    (records.len(), records.iter().map(bytes).sum())
}
