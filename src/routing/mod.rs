//! The weighted decision service: which group gets a conversation (`docs/routing.md`).
//!
//! A [service](Service) has one [worker] per configuration. A worker gathers the conversations
//! that wait, applies the [rule] once for each to the counter that all instances share, and
//! writes counter and answers in one transaction; then it answers. So the sequence has no
//! holes and every prefix of it keeps the rule's bound, whoever crashes when, and an answer
//! marked `exact` is recorded before it is given.
//!
//! What is promised when:
//! - `exact`: recorded before it was given; the next one asked, anywhere, gets the same.
//! - `cached`, `fallback`: given within the patience without the counters, written to the
//!   instance's [journal], and recorded with the same destination with the next block. Until
//!   then another instance that is asked about the same conversation may answer differently;
//!   the one recorded first stands and is counted, once. What was recorded is [followed] by
//!   every instance, so that it is not contradicted while the counters cannot be asked.

pub mod again;
mod block;
mod breaker;
mod context;
mod followed;
mod group_counters;
mod journal;
mod publication;
pub mod recorder;
pub mod rule;
mod service;
mod view;
pub mod weights;
mod worker;

pub use context::{Settings, Unchanging, View};
pub use publication::{PublishError, Publisher, WeightsRefused, check_weights};
pub use service::{ROLE, Service, check};
pub use view::Topics;
