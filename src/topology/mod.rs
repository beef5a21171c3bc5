//! How the rooms are put together.

mod instance;
mod intake;
mod redecide;
mod roles;
pub mod settings;
mod shared_budget;
mod side_tables;
mod start;

pub use instance::Instance;
pub use roles::{Kind, Role, roles};
pub use shared_budget::SharedBudget;
pub use start::{Running, start};
