//! The database tier: migrations, roles and the ledger on a real Postgres.
#![allow(clippy::unwrap_used, clippy::disallowed_methods)] // a test may, wherever in it

#[path = "../support/mod.rs"]
mod support;

mod audit;
mod compliance;
mod dead_letters;
mod enrichment;
mod ledger;
mod lines;
mod migrations;
mod months;
mod names;
mod organizations;
mod outbox;
mod refusals;
mod replay;
mod routing;
mod settings;
mod trends;
