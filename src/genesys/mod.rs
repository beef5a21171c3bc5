//! The one client for Genesys Cloud: every call of every instance goes through
//! it, under one budget (`docs/platform.md`).
//!
//! The interface is in the terms of the loops, one file per family of calls; how a call looks on
//! the wire is the matter of the dialect (`seed`, `platform`), which they do not know.
//!
//! Where one deployment serves several organisations each has a client of its own, and the first one's
//! passes on what is about the others' objects (`dispatch`).
//!
//! A call makes one attempt at its effect and says precisely what is known about
//! it afterwards; whether to try again is the caller's decision. Only a rejected
//! token is dealt with inside: it is renewed once and the call is made once more,
//! which is safe because a rejected call changed nothing.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

mod auth;
mod breaker;
mod breakers;
mod budget;
mod campaigns;
mod client;
mod credentials;
mod details;
mod dialect;
mod dispatch;
mod endpoints;
mod error;
mod event_lag;
mod flows;
mod organization;
mod pace;
mod path;
mod platform;
mod priority;
mod queues;
mod reply;
mod retry_after;
mod routing;
mod seed;
mod together;
mod transport;
mod turns;
mod url;
mod waiting;
mod writers;

pub use budget::{
    BucketShape, InProcessPermits, Limits, PROBE_LIFE, PROBE_NAP, Permit, PermitStore, StoreError, Take,
    untold_wait,
};
pub use campaigns::{Campaign, CampaignStatistics, Definition};
pub use client::{Client, Reply, Scope};
pub use credentials::{Credentials, OauthClient, Reread};
pub use details::DetailsQuery;
pub use dialect::{CampaignChange, Dialect, Pacing, PlatformSettings};
pub use dispatch::Identity;
pub use error::{CallError, CallErrorKind, ClientError};
pub use event_lag::{EventLagAnswer, EventLagQuery, EventLagRow};
pub use flows::{ErrorMeasure, Flow, Measured, Operation, PlatformVersion};
pub use organization::{CallsMade, CampaignRule, OutboundSettings};
pub use pace::Pace;
pub use priority::Priority;
pub use queues::Available;
pub use retry_after::retry_after;
pub use writers::Changed;

/// A boxed future, for traits behind `dyn`.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// Whom to call as whom, and how patiently.
#[derive(Clone, Debug)]
pub struct Settings {
    pub organization: Identity,
    pub dialect: Dialect,
    /// Where the API is: `https://api.mypurecloud.com`, without a trailing slash.
    pub base_url: String,
    /// Where tokens are given out; `None` asks the API's own host.
    pub login_url: Option<String>,
    /// The OAuth client. All instances that share it share one budget.
    pub credentials: Credentials,
    /// Calls in any `budget_window`, over all instances. At least 1.
    pub requests_per_minute: u32,
    /// What "a minute" is for the budget: 60 s, less where time runs faster.
    pub budget_window: Duration,
    /// How far apart polls come.
    pub pace: Pace,
    /// Time to open a connection, TLS included.
    pub connect_timeout: Duration,
    /// Time between two reads of a reply.
    pub read_timeout: Duration,
    /// Time from sending a request to the end of its reply.
    pub total_timeout: Duration,
    /// Largest reply in bytes, after decompression.
    pub body_limit: usize,
    /// Failures in a row that make a resource pause; as many different resources that fail
    /// in a row make their endpoint group pause.
    pub breaker_failures: u32,
    /// How long a resource or a group pauses before it is probed.
    pub breaker_pause: Duration,
    /// Longest wait that a `Retry-After` can ask for; more is taken for nonsense and cut.
    pub retry_after_limit: Duration,
    /// How long before its end a token is renewed; a shorter life is renewed at half of it.
    pub token_margin: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            organization: Identity::default(),
            dialect: Dialect::default(),
            base_url: String::new(),
            login_url: None,
            credentials: Credentials::default(),
            requests_per_minute: 300,
            budget_window: Duration::from_secs(60),
            pace: Pace::default(),
            connect_timeout: Duration::from_secs(5),
            read_timeout: Duration::from_secs(10),
            total_timeout: Duration::from_secs(20),
            body_limit: 8 * 1024 * 1024,
            breaker_failures: 3,
            breaker_pause: Duration::from_secs(60),
            retry_after_limit: Duration::from_secs(600),
            token_margin: Duration::from_secs(300),
        }
    }
}
