//! What facts cost on their way, counted instead of timed: records, bytes and allocations are the
//! same on every machine, however busy it is.
#![allow(clippy::unwrap_used)] // a test may

mod allocations;
mod events;
mod statistics;
