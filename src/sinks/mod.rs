//! From topics to the outside.

pub mod actuator;
pub mod alerts;
pub mod analytics;
pub mod audit;
pub mod drift;
pub mod lag_status;
pub mod outbox;
pub mod rollback;
