//! The engine: runs stages on Kafka exactly once, and carries topics to and from
//! everything else. Knows no stage.

pub mod kafka;
pub mod subscription;
