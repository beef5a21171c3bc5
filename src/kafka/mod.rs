//! The one room that talks to the brokers: subscriptions, transactional producers, whole-topic
//! tables, administration, consumer groups and log heads. Knows topics, not what they carry.

pub mod admin;
pub mod global_consumer;
pub mod global_table;
pub mod groups;
pub mod log_heads;
pub mod memberships;
pub mod producer;
pub mod properties;
pub mod series;
pub mod settings;
pub mod subscription;
pub mod tail;
pub mod topic_ids;
pub mod transaction;

pub(crate) mod assignment;
pub(crate) mod log_ends;
pub(crate) mod native;
pub(crate) mod reader;
mod refusal;
mod topic_reader;
mod whole_topic;

// What its interface is made of; nobody else names the client library.
pub use rdkafka::ClientConfig;
pub(crate) use rdkafka::config::FromClientConfigAndContext;
pub(crate) use rdkafka::consumer::{BaseConsumer, Consumer};
pub use rdkafka::error::KafkaError;
pub(crate) use rdkafka::message::{BorrowedHeaders, BorrowedMessage, Header, OwnedHeaders};
pub(crate) use rdkafka::topic_partition_list::TopicPartitionListElem;
pub(crate) use rdkafka::types::RDKafkaErrorCode;
pub(crate) use rdkafka::{Message, Offset, TopicPartitionList};
