//! `trunkline simulate`.
