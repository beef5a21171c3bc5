//! Rules about the code and its documents: no broker, no database, milliseconds.

#[path = "rules/architecture.rs"]
mod architecture;
#[path = "rules/documents.rs"]
mod documents;
#[path = "rules/pacing.rs"]
mod pacing;
