//! The engine: runs stages on Kafka exactly once, and carries topics to and from
//! everything else. Knows no stage.
//!
//! A [worker](run_stage) polls, lets the [task] check, decode and step, writes outputs,
//! state and positions into one [transaction], and commits. State is in memory and in
//! a compacted changelog, from which it is restored on assignment. The same task runs
//! in memory under the driver.

pub mod admin;
pub mod clock;
pub mod dead_letter;
pub mod decided;
pub mod driver;
pub mod global_table;
pub mod groups;
pub mod heads;
pub mod kafka;
pub mod series;
pub mod subscription;
pub mod tail;
pub mod task;
pub mod topic_ids;
pub mod transaction;
pub mod watermark;

mod assignment;
mod native;
mod outbox;
mod reader;
mod restore;
mod stage;
mod state;
mod timers;
mod topic_reader;
mod worker;

pub use restore::RestoreError;
pub use stage::{StageHandle, StageSettings, run_stage};
pub use state::{StateError, Table};
pub use worker::Fault;
