//! The engine: runs stages on Kafka exactly once. Knows no stage.
//!
//! A [worker](run_stage) polls, lets the [task] check, decode and step, writes outputs,
//! state and positions into one [transaction](crate::kafka::transaction), and commits. State is in memory and in
//! a compacted changelog, from which it is restored on assignment. Two stages with the topic between
//! them may be [chained](run_chained) in one worker. The same task runs in memory under the driver.

pub mod dead_letter;
pub mod decided;
pub mod driver;
mod task;
pub mod watermark;

mod batch;
mod chain;
mod compacted;
mod counts;
mod decode;
mod fault;
mod held;
mod input;
mod limits;
mod onward;
mod outbox;
mod quiet;
pub(crate) mod refused;
mod report;
mod restore;
mod seat;
mod stage;
mod state;
mod timers;
mod worker;
mod writer;

pub use counts::RecordCounts;
pub use fault::Fault;
pub use restore::RestoreError;
pub use stage::{StageHandle, StageSettings, run_chained, run_stage};
pub use state::{StateError, Table};
