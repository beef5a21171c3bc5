//! How the rooms are put together.

mod allowances;
mod canary_tables;
mod count_table;
mod credentials;
pub mod dial_stages;
mod dial_tables;
mod instance;
mod intake;
mod names;
mod noted_numbers;
mod pauses;
mod platforms;
pub mod redecide;
mod roles;
mod routed;
pub mod settings;
mod settings_table;
mod shared_budget;
mod side_tables;
mod start;
mod starters;

pub(crate) use allowances::calls as calls_covered;
pub use instance::Instance;
pub use names::keep as keep_names;
pub use pauses::follow as follow_pauses;
pub use roles::roles;
pub use routed::Routed;
pub use shared_budget::SharedBudget;
pub use start::{Running, start};
