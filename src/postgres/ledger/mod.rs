//! The ledger: decisions and outcomes with their place in Kafka, written once and
//! read by people.

mod months;
mod numbers;
mod read;
mod series;
mod write;

pub use months::Dropped;
pub(super) use read::ids_of;
pub use read::{Cursor, CursorError, Filter, LedgerEntry, OutcomeEntry, VerificationEntry};
pub use series::Place;
pub use write::{
    Advance, Batch, Logged, LoggedDecision, LoggedOutcome, RecordError, Refusal, Stored, Written,
};
pub(super) use write::{Insert, advance};
