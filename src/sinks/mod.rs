//! From topics to the outside.

pub mod actuation;
pub mod actuator;
pub mod alerts;
pub mod analytics;
pub mod audit;
mod committed;
pub mod drift;
pub mod lag_status;
pub mod outbox;
mod positioned;
pub mod rollback;
mod transacted;
