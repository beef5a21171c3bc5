//! The one room that talks to the brokers: subscriptions, transactional producers, whole-topic
//! tables, administration, consumer groups and log heads. Knows topics, not what they carry.

pub mod admin;
pub mod global_table;
pub mod groups;
pub mod log_heads;
pub mod series;
pub mod settings;
pub mod subscription;
pub mod tail;
pub mod topic_ids;
pub mod transaction;

pub(crate) mod assignment;
pub(crate) mod native;
pub(crate) mod reader;
pub(crate) mod retry;
mod topic_reader;
