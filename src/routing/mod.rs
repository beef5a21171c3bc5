//! The weighted decision service.

pub mod rule;
pub mod weights;
