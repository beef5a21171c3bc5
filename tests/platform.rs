//! The platform tier: the Genesys Cloud client against the simulator, and what
//! instances share in a real Postgres.

mod support;

#[path = "platform/shared_budget.rs"]
mod shared_budget;
