//! The broker tier: the runtime on a real Kafka.

mod support;

#[path = "broker/subscription.rs"]
mod subscription;
