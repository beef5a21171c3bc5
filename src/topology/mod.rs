//! How the rooms are put together.

pub mod instance;
