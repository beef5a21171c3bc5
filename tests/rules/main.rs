//! Rules about the code and its documents: no broker, no database, milliseconds.

mod architecture;
mod ceilings;
mod documents;
mod pacing;
