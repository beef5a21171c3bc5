//! The broker tier: the runtime on a real Kafka.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

#[path = "../support/mod.rs"]
mod support;

mod chained;
mod crashes;
mod dead_letters;
mod exactly_once;
mod flow_minutes;
mod global_table;
mod lag;
mod misfortunes;
mod outbox;
mod refusals;
mod secured;
mod subscription;
mod topics;
mod transactions;
