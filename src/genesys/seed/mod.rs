//! The seed dialect: its paths, requests and replies.

pub(super) mod campaigns;
pub(super) mod details;
pub(super) mod event_lag;
pub(super) mod flows;
pub(super) mod queues;
pub(super) mod routing;
