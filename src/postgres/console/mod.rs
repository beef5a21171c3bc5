//! What the console shows, as it stands in the ledger: every query is bounded in what it reads
//! and in what it answers, for pages that many people leave open.

mod alerts;
mod campaigns;
mod decisions;
mod platform;
mod rollbacks;
mod routes;
mod sessions;

pub use alerts::{AlertLine, Delivery};
pub use campaigns::Trend;
pub use decisions::{Activity, DecisionLine};
pub use platform::BudgetLine;
pub use rollbacks::RollbackLine;
pub use routes::ShareLine;
pub use sessions::{SESSIONS_LIMIT, Session};
