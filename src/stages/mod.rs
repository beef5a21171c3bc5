//! From topics to topics: the decisions' own mathematics. Stages never know each other.

pub mod campaign_counting;
pub mod canary_minutes;
pub mod delivery;
pub mod dialing;
pub mod flow_counting;
pub mod flow_measuring;
pub mod flow_summing;
pub mod lag;
pub mod rollback;
pub mod windowing;
