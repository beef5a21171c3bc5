//! Values and units: what travels on the topics and what the rules compute with.
//!
//! Nothing here does I/O or looks at a clock. Rates are fractions, times are
//! milliseconds since the Unix epoch, and wire names are camelCase.

pub mod alert;
pub mod allowance;
mod borrow;
pub mod call_counts;
pub mod campaign;
pub mod chain;
pub mod compliance;
pub mod conversation;
pub mod decision;
pub mod delivery;
pub mod dial_rate;
pub mod dry_run;
pub mod enriched;
pub mod excerpt;
pub mod flow;
pub mod ingest;
pub mod json;
pub mod lag;
pub mod name;
pub mod object;
pub mod organization;
pub mod outcome;
pub mod pause;
pub mod region;
pub mod rollback;
pub mod routing;
pub mod settings;
mod time;

pub use time::Timestamp;
