//! Rules about the code and its documents: no broker, no database, milliseconds.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

mod architecture;
mod ceilings;
mod dashboards;
mod documents;
mod named;
mod pacing;
#[path = "../support/recording.rs"]
mod recording;
mod replay;
