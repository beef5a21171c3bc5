//! From topics to the outside.

pub mod actuator;
pub mod analytics;
pub mod audit;
pub mod drift;
pub mod outbox;
pub mod rollback;
