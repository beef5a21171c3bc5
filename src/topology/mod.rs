//! How the rooms are put together.

mod instance;
mod roles;
mod shared_budget;

pub use instance::Instance;
pub use roles::{Kind, Role, roles};
pub use shared_budget::SharedBudget;
