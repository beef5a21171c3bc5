//! What calls of campaigns count as, and the figures made of them.

mod calls;
mod evidence;
mod figures;

pub use calls::{CallRevision, RecordedCall};
pub use evidence::{FIGURES_LISTED, KeptFigure};
pub use figures::{FigureRow, PRUNED_AT_ONCE, Standing};

use crate::model::Timestamp;

/// SQL for a time bound as milliseconds.
fn time(parameter: usize) -> String {
    format!("to_timestamp(${parameter}::bigint::float8 / 1000)")
}

/// A time read as milliseconds.
fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}
