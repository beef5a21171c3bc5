//! Contact-centre control loops for Genesys Cloud on Kafka.
//!
//! The rooms follow the dataflow and know only what stands left of them:
//! `model → topics → pipeline → stages | runtime`, `model → kafka | genesys | postgres`, then
//! `sources, sinks, routing, console → topology → cli`. `tests/rules/architecture.rs` checks it.

pub mod backoff;
pub mod cli;
pub mod clock;
pub mod config;
pub mod console;
pub mod genesys;
pub mod health;
pub mod kafka;
pub mod metrics;
pub mod model;
pub mod pipeline;
pub mod postgres;
pub mod replay;
pub mod role;
pub mod routing;
pub mod runtime;
pub mod sinks;
pub mod sources;
pub mod stages;
pub mod telemetry;
pub mod topics;
pub mod topology;
