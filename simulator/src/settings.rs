//! How a simulated organisation is set up.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::http::StatusCode;

use crate::dialect::Dialect;
use crate::events::EventSettings;
use crate::faults::RetryAfter;
use crate::platform;
use crate::scenario::Scenario;
use crate::scopes;
use crate::tokens::Client;

/// The client every simulated organisation has unless told otherwise.
pub const DEMO_CLIENT_ID: &str = "5d1f0c3a-7e42-4b86-9c55-2b7a6c1e9d04";
/// Its secret: no secret at all, it opens nothing but the simulator.
pub const DEMO_CLIENT_SECRET: &str = "simulated-organisation";

/// What a write with a stale entity tag is answered with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StaleReply {
    #[default]
    PreconditionFailed412,
    Conflict409,
}

/// What an accepted write is answered with; the body is empty either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum WriteReply {
    #[default]
    NoContent204,
    Ok200,
}

impl StaleReply {
    pub fn status(self) -> StatusCode {
        match self {
            Self::PreconditionFailed412 => StatusCode::PRECONDITION_FAILED,
            Self::Conflict409 => StatusCode::CONFLICT,
        }
    }
}

impl WriteReply {
    pub fn status(self) -> StatusCode {
        match self {
            Self::NoContent204 => StatusCode::NO_CONTENT,
            Self::Ok200 => StatusCode::OK,
        }
    }
}

/// A simulated organisation and its listeners.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Where the API listens; port 0 takes a free one. Default 127.0.0.1:8480.
    pub listen: SocketAddr,
    /// Where the login host listens, which has the token endpoint only. The API
    /// listener has it too. Default none.
    pub login_listen: Option<SocketAddr>,
    /// Which form of the platform's interface is spoken. Default the seed's.
    pub dialect: Dialect,
    /// Simulated seconds per real second, 0–100 000; fractions are allowed. With 0 the
    /// world only moves by `POST /simulator/clock/advance`. A machine too slow for the
    /// speed falls behind rather than freezing. Default 1.
    pub speed: f64,
    /// Everything random in the world and in the faults comes from it. Default 1.
    pub seed: u64,
    /// Campaigns, agents and contacts. Default: nine campaigns of different kinds.
    pub scenario: Scenario,
    /// OAuth clients, 1 to 1 000. Default: the demo client with all scopes.
    pub clients: Vec<Client>,
    /// How long a token lives, in real time. Default 24 h.
    pub token_lifetime: Duration,
    /// Requests each client may make per window. Default 300.
    pub requests_per_window: u32,
    /// Length of the budget's window in real time, above 0. Default 60 s.
    pub budget_window: Duration,
    /// How a reply over the budget spells `Retry-After`. Default whole seconds.
    pub budget_retry_after: RetryAfter,
    /// Default 412.
    pub stale_reply: StaleReply,
    /// Default 204.
    pub write_reply: WriteReply,
    /// Whether statistics carry `attempts`, `answers` and `abandoned` beside the four
    /// members of the seed documents. Default true.
    pub counters_in_stats: bool,
    /// A second writer changes a campaign every so many simulated seconds. Default none.
    pub rival_every_seconds: Option<u64>,
    /// The event stream. Default: to nobody.
    pub events: EventSettings,
    /// Entries the request log holds before it forgets the oldest. Default 1 000 000.
    pub journal_entries: usize,
    /// Bytes the request log holds, roughly. Default 256 MiB.
    pub journal_bytes: usize,
    /// Connections at once over both listeners; more wait to be accepted. At least 4. Default 1 024.
    pub max_connections: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 8_480)),
            login_listen: None,
            dialect: Dialect::default(),
            speed: 1.0,
            seed: 1,
            scenario: Scenario::default(),
            clients: vec![Client {
                id: DEMO_CLIENT_ID.into(),
                secret: DEMO_CLIENT_SECRET.into(),
                scopes: scopes::ALL
                    .iter()
                    .copied()
                    .chain(platform::permissions())
                    .map(str::to_owned)
                    .collect(),
            }],
            token_lifetime: Duration::from_secs(86_400),
            requests_per_window: 300,
            budget_window: Duration::from_secs(60),
            budget_retry_after: RetryAfter::Int,
            stale_reply: StaleReply::default(),
            write_reply: WriteReply::default(),
            counters_in_stats: true,
            rival_every_seconds: None,
            events: EventSettings::default(),
            journal_entries: 1_000_000,
            journal_bytes: 256 << 20,
            max_connections: 1_024,
        }
    }
}

impl Settings {
    /// All that is impossible about the settings but the scenario, one sentence each.
    pub fn problems(&self) -> Vec<String> {
        let checks = [
            ((0.0..=100_000.0).contains(&self.speed), format!("speed {} must be 0 to 100000", self.speed)),
            (
                (1..=1_000).contains(&self.clients.len()),
                format!("1 to 1000 clients are needed, not {}", self.clients.len()),
            ),
            (!self.budget_window.is_zero(), "budget_window must be above 0".into()),
            (self.rival_every_seconds != Some(0), "rival_every_seconds must be above 0, or none".into()),
            (self.journal_entries > 0, "journal_entries must be above 0".into()),
            (
                (4..=100_000).contains(&self.max_connections),
                format!("max_connections {} must be 4 to 100000", self.max_connections),
            ),
        ];
        let events = self.events.problems().into_iter().map(|problem| format!("events: {problem}"));
        let problems = checks.into_iter().filter(|(allowed, _)| !allowed).map(|(_, problem)| problem);
        problems.chain(events).collect()
    }
}
