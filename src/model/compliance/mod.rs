//! Abandonment as an auditor counts it: never one number, but figures with their numerators,
//! denominators and windows (`docs/compliance.md`). Pure: calls and counters in, figures out.

mod call;
mod campaigns;
pub mod definitions;
mod details;
mod figures;
mod sources;
mod warning;
mod windows;

pub use call::{AnsweredBy, Call, Disposition, MessageHeard, Rules};
pub use campaigns::{CampaignTerms, Campaigns};
pub use figures::{Denominator, Estimates, Figure, FigureKind, Statement, Terms, figures};
pub use sources::{Counters, Tally};
pub use warning::{ComplianceWarning, WarningRule};
pub use windows::{Calendar, CalendarError, Window, WindowKind};
