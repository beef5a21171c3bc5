//! From topics to the outside.

pub mod audit;
