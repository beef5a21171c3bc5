//! The rooms know only what stands left of them: read from the imports.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// A room and the rooms it may know.
const ROOMS: &[(&str, &[&str])] = &[
    ("model", &[]),
    ("backoff", &[]),
    ("clock", &["model"]),
    ("health", &[]),
    ("metrics", &[]),
    ("telemetry", &[]),
    ("topics", &["model"]),
    ("role", &["topics"]),
    ("config", &["model", "kafka"]),
    ("pipeline", &["model", "topics", "role"]),
    ("stages", &["model", "topics", "role", "pipeline"]),
    ("kafka", &["model", "backoff", "topics", "role", "metrics", "health"]),
    ("runtime", &["model", "backoff", "clock", "topics", "pipeline", "kafka", "metrics", "health", "telemetry"]),
    ("genesys", &["model", "backoff", "clock", "metrics", "health"]),
