//! The seed dialect: its paths, requests and replies.

pub mod campaigns;
pub mod details;
pub mod event_lag;
pub mod flows;
pub mod queues;
pub mod routing;
