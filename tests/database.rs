//! The database tier: migrations, roles and the ledger on a real Postgres.

mod support;

#[path = "database/audit.rs"]
mod audit;
#[path = "database/dead_letters.rs"]
mod dead_letters;
#[path = "database/enrichment.rs"]
mod enrichment;
#[path = "database/ledger.rs"]
mod ledger;
#[path = "database/migrations.rs"]
mod migrations;
#[path = "database/outbox.rs"]
mod outbox;
#[path = "database/refusals.rs"]
mod refusals;
#[path = "database/routing/mod.rs"]
mod routing;
#[path = "database/settings.rs"]
mod settings;
