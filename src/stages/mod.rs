//! From topics to topics: the decisions' own mathematics. Stages never know each other.

pub mod dialing;
pub mod lag;
pub mod rollback;
pub mod windowing;
