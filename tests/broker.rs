//! The broker tier: the runtime on a real Kafka.

mod support;

#[path = "broker/crashes.rs"]
mod crashes;
#[path = "broker/dead_letters.rs"]
mod dead_letters;
#[path = "broker/exactly_once.rs"]
mod exactly_once;
#[path = "broker/flow_minutes.rs"]
mod flow_minutes;
#[path = "broker/global_table.rs"]
mod global_table;
#[path = "broker/lag.rs"]
mod lag;
#[path = "broker/misfortunes.rs"]
mod misfortunes;
#[path = "broker/outbox.rs"]
mod outbox;
#[path = "broker/subscription.rs"]
mod subscription;
#[path = "broker/topics.rs"]
mod topics;
#[path = "broker/transactions.rs"]
mod transactions;
