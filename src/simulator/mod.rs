//! A simulated Genesys Cloud organisation: a seeded contact centre behind the API, with
//! true entity tags, tokens and request budgets, faults that can be switched on, and a
//! log of every request for checkers.
//!
//! ```text
//! scenario ─▶ world ─▶ dialer ─▶ floor (agents), contacts (answers)      pure, seconds
//! listeners ─▶ exchange ─▶ budget, faults, tokens ─▶ seed (dialect) ─▶ definition, world
//!           └▶ control (/simulator/…)                               └▶ journal
//! ```
//! Beside the platform's paths the API listener serves, without a token:
//!
//! | route | does |
//! |---|---|
//! | `GET\|PUT\|POST\|DELETE /simulator/faults` | the [fault rules](FaultRule): see, replace, add, clear |
//! | `GET /simulator/requests?since=&limit=` | the log, oldest first |
//! | `GET /simulator/campaigns` | the world as it is |
//! | `POST /simulator/campaigns/{id}/change` | another writer: merges the body, past all client rules |
//! | `DELETE /simulator/campaigns/{id}` | deletes a campaign |
//! | `PUT /simulator/rival` `{"everySeconds":n}` | the second writer, in simulated seconds; null stops it |
//! | `POST /simulator/clock/advance?seconds=n` | moves the world by hand, at speed 0 |
//! | `POST /simulator/tokens/expire` | revokes every token |

mod budget;
mod chance;
mod contacts;
mod control;
mod definition;
mod dialer;
mod exchange;
mod faults;
mod floor;
mod journal;
mod organization;
mod reply;
mod scenario;
mod seed;
mod server;
mod settings;
mod tokens;
mod transport;
mod world;

pub use dialer::{CallCounts, Snapshot};
pub use faults::{Fault, FaultRule, Match, RetryAfter};
pub use floor::AgentCounts;
pub use organization::{CampaignOverview, Overview};
pub use scenario::{Answering, CampaignScenario, Scenario, ScenarioError};
pub use server::{Running, Simulator, StartError};
pub use settings::{DEMO_CLIENT_ID, DEMO_CLIENT_SECRET, Settings, StaleReply, WriteReply};
pub use tokens::{Client, SCOPE_READ, SCOPE_WRITE};
pub use world::World;
