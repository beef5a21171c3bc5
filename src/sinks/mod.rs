//! From topics to the outside, by three contracts. What differs is where it stands how far a role
//! has come, and with it what a crash can do:
//!
//! | contract | driver and trait | where the position is | roles |
//! |---|---|---|---|
//! | `positioned` | `run`, `Keeper`, for most `Writer` | in Postgres, in the rows' own transaction: each record once | audit, alerts, enrichment, compliance, lag-status, canary-shares, allowances |
//! | `committed` | `run`, `Carrier` | the group's offsets, committed afterwards: at least once | drift |
//! | `transacted` | `run`, `Worker` | the group's offsets, in one Kafka transaction with what came of the records: once | actuator, rollback-actuator, promotion-actuator (all by `actuation`) |
//!
//! Each driver joins its group by `kafka::memberships`: what ends a membership is said on the
//! role's readiness and tried again, and the other roles go on.

pub mod actuation;
pub mod actuator;
pub mod alerts;
pub mod allowances;
pub mod analytics;
pub mod audit;
pub mod canary_shares;
mod committed;
pub mod compliance;
pub mod drift;
pub mod lag_status;
pub mod outbox;
mod positioned;
pub mod promotion;
pub mod rollback;
mod transacted;
