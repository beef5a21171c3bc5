//! Changes dial rates on the platform, each at most once, by the protocol of
//! [`actuation`](super::actuation).
//!
//! Campaigns are changed beside each other, and a newer decision takes the place of an older one.
//! Where a change names the state it is for (an entity tag, a version) the platform takes it for
//! no other; where it names none, whether it was applied goes by the rate that is in force.

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::actuation::{
    Actuation, Attempt, Change, Declaration, End, Exclusivity, Found, OTHER_WRITER, Point, Read, Refused,
};
use crate::genesys::{CallError, Campaign, Changed, Client, Priority, Reply, Scope};
use crate::metrics;
use crate::model::campaign::{CampaignWindow, DialAnswer, DialParameters};
use crate::model::decision::Action;
use crate::model::dial_rate::{Limits, hundredths};
use crate::model::outcome::{Effect, Outcome, OutcomeStatus, SentRequest};
use crate::role::{self, Kind, Role};
use crate::topics::{self, DialDecision};

pub use super::actuation::{ActuationError, Ledger, LedgerError, Settings};

pub static ROLE: Role = Role {
    name: "actuator",
    kind: Kind::Sink,
    description: "carries decisions out on the platform, each at most once",
    reads: &[&topics::DIAL_DECISIONS],
    writes: &[&topics::OUTCOMES],
    sets_aside: &[&topics::DEAD_LETTERS],
    keeps: &[],
    outside: &[role::PLATFORM, role::POSTGRES],
};

/// How long a change that names the state it is for, and of which nothing is heard, holds the
/// next decision about its campaign up. Not for as long as it could take: once a newer change
/// has had its effect it will have none.
const IN_FLIGHT_TIME: Duration = Duration::from_secs(10);

/// How dial decisions are carried out, where changes are `conditional` on the state they name
/// or else are waited for as long as they could take.
pub fn settings(conditional: bool) -> Settings {
    let waited_for = Settings::default();
    if conditional { Settings { in_flight_time: IN_FLIGHT_TIME, ..waited_for } } else { waited_for }
}

/// What waiting adds to the urgency of a change: where the budget is short a newer decision takes
/// the place of each one that waits, and big changes would always come first.
const HUNDREDTHS_PER_SECOND_WAITED: f64 = 10.0;

/// What the rule says about a campaign as it is now.
#[derive(Clone, Debug, PartialEq)]
pub enum Redecision {
    /// Lines per idle agent.
    Set(f64),
    /// Nothing is to be changed, and why.
    Hold(String),
}

/// Decides again: the decision with all its recorded inputs, and the campaign as it was
/// just read. Must depend on nothing else.
pub type Redecide = Arc<dyn Fn(&DialDecision<'_, Vec<String>>, &Campaign) -> Redecision + Send + Sync>;

/// Where dial rates are in force.
pub trait Platform: Send + Sync + 'static {
    /// The campaign as it is now.
    fn campaign(&self, id: &str, scope: &Scope) -> impl Future<Output = Result<Campaign, CallError>> + Send;

    /// The request that gives the campaign, as it was read, this rate.
    fn prepare(&self, campaign: &Campaign, rate: f64) -> SentRequest;

    /// Sends it; one attempt at its effect.
    fn send(
        &self,
        request: &SentRequest,
        id: &str,
        scope: &Scope,
    ) -> impl Future<Output = Result<Reply, CallError>> + Send;

    /// Who but us has changed the campaign last, where the platform tells.
    fn other_writer(&self, id: &str, scope: &Scope) -> impl Future<Output = Option<String>> + Send;
}

impl Platform for Client {
    async fn campaign(&self, id: &str, scope: &Scope) -> Result<Campaign, CallError> {
        Client::campaign(self, id, scope).await
    }

    fn prepare(&self, campaign: &Campaign, rate: f64) -> SentRequest {
        self.prepare_dial_rate(campaign, rate)
    }

    async fn send(&self, request: &SentRequest, id: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.send_dial_rate(request, id, scope).await
    }

    async fn other_writer(&self, id: &str, scope: &Scope) -> Option<String> {
        self.last_writer(Changed::Campaign, id, scope).await
    }
}

/// A campaign's dial rate.
pub struct DialChange<P> {
    platform: P,
    redecide: Redecide,
    /// Campaigns with a decision that is not carried out yet, and since when there is one.
    waiting: Mutex<BTreeMap<String, Instant>>,
}

impl<P: Platform> DialChange<P> {
    /// `redecide` is the rule, to be asked again when the campaign was just read.
    pub fn new(platform: P, redecide: Redecide) -> Self {
        Self { platform, redecide, waiting: Mutex::default() }
    }

    fn waiting(&self) -> MutexGuard<'_, BTreeMap<String, Instant>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long the campaign has been waiting for a change to be carried out.
    fn waited(&self, key: &str) -> Duration {
        self.waiting().entry(key.to_owned()).or_insert_with(Instant::now).elapsed()
    }
}

/// Carries out dial decisions.
pub type Actuator<P, L> = Actuation<DialChange<P>, L>;

impl<P: Platform> Change for DialChange<P> {
    type Inputs<'a> = CampaignWindow<'a>;
    type Parameters = DialAnswer;
    type Plan = DialParameters;
    type Seen = Campaign;

    const DECLARATION: Declaration = Declaration {
        role: &ROLE,
        action: Action::SetDialRate,
        foreign_action: "not_a_dial_action",
        missing: "campaign_not_found",
        lease: "actuator/dial",
        exclusivity: Exclusivity::Key,
        reply_confirms: true,
        conflicting: Refused::Ends(OutcomeStatus::Conflicted),
        not_found: Refused::Ends(OutcomeStatus::Failed),
        outcomes: &metrics::ACTUATOR_OUTCOMES,
        attempts: &metrics::ACTUATOR_ATTEMPTS,
        read_backs: &metrics::ACTUATOR_READ_BACKS,
        in_flight: Some(&metrics::ACTUATOR_IN_FLIGHT),
    };

    async fn read(&self, key: &str, scope: &Scope) -> Result<Campaign, CallError> {
        self.platform.campaign(key, scope).await
    }

    /// The limits just read always win.
    fn plan(
        &self,
        decision: &Read<'_, Self>,
        campaign: &Campaign,
        _: &[DialParameters],
    ) -> Result<DialParameters, End> {
        let limits = Limits { min: campaign.min_dial_rate, max: campaign.max_dial_rate };
        let Some((min, max)) = limits.hundredths() else {
            let reason = format!(
                "limits_contradict: the least rate {} is over the greatest {}",
                campaign.min_dial_rate, campaign.max_dial_rate
            );
            return Err(End(OutcomeStatus::Failed, reason));
        };
        let wanted = match (self.redecide)(decision, campaign) {
            Redecision::Set(rate) => rate,
            Redecision::Hold(reason) => return Err(End(OutcomeStatus::Unchanged, reason)),
        };
        let dial_rate = hundredths(wanted).clamp(min, max) / 100.0;
        if !dial_rate.is_finite() {
            return Err(End(OutcomeStatus::Failed, format!("not_a_rate: {wanted}")));
        }
        if same_rate(dial_rate, campaign.dial_rate) {
            return Err(End(OutcomeStatus::Unchanged, "already_at_rate".to_owned()));
        }
        Ok(DialParameters { previous_dial_rate: campaign.dial_rate, dial_rate })
    }

    /// Where a change by somebody else between two of ours is given way to, it is told whose.
    async fn review(
        &self,
        decision: &Read<'_, Self>,
        _: &Campaign,
        planned: Result<DialParameters, End>,
        scope: &Scope,
    ) -> Result<DialParameters, End> {
        match planned {
            Err(End(status, reason)) if reason.starts_with(OTHER_WRITER) => {
                let who = self.platform.other_writer(&decision.key, scope).await;
                let who = who.map(|who| format!("; by {who}")).unwrap_or_default();
                Err(End(status, format!("{reason}{who}")))
            }
            planned => planned,
        }
    }

    fn request(&self, _: &Read<'_, Self>, campaign: &Campaign, plan: &DialParameters) -> SentRequest {
        self.platform.prepare(campaign, plan.dial_rate)
    }

    async fn send(&self, request: &SentRequest, key: &str, scope: &Scope) -> Result<Reply, CallError> {
        self.platform.send(request, key, scope).await
    }

    fn is_conditional(&self, request: &SentRequest) -> bool {
        Client::revision_named_by(request).is_some()
    }

    /// The revision it names has moved and the rate is ours, then it was applied. One that names
    /// none goes by the rate alone: revisions move by others' changes of other things too.
    fn compare(&self, attempt: &Attempt<DialParameters>, campaign: &Campaign) -> Found {
        let plan = &attempt.plan;
        let revision = Client::revision_named_by(&attempt.request);
        if revision.as_ref() == Some(&campaign.revision) {
            return Found::Former;
        }
        if same_rate(campaign.dial_rate, plan.dial_rate) {
            return Found::Ours;
        }
        if revision.is_none() && same_rate(campaign.dial_rate, plan.previous_dial_rate) {
            return Found::Former;
        }
        Found::Other(format!(
            "another writer set the rate to {:.2} before {:.2} was confirmed",
            campaign.dial_rate, attempt.plan.dial_rate
        ))
    }

    /// By the size of the change, and by how long the campaign has waited: the smallest change
    /// comes before any new one within two and a half minutes.
    fn priority(&self, decision: &Read<'_, Self>, plan: Option<&DialParameters>) -> Priority {
        let waited = self.waited(&decision.key).as_secs_f64() * HUNDREDTHS_PER_SECOND_WAITED;
        let change = plan.copied().unwrap_or_else(|| decision.parameters.change());
        let size = (change.dial_rate - change.previous_dial_rate).abs() * 100.0;
        Priority::DialChange { size_hundredths: (size + waited).round().min(f64::from(u32::MAX)) as u32 }
    }

    /// One that was not carried out leaves its campaign waiting.
    fn settled(&self, outcome: &Outcome) {
        if !matches!(outcome.status, OutcomeStatus::Superseded | OutcomeStatus::Expired) {
            self.waiting().remove(&outcome.key);
        }
    }

    fn effect(plan: DialParameters) -> Effect {
        Effect::DialRate(plan)
    }

    fn reached(point: Point) {
        match point {
            Point::Claimed => fail::fail_point!("actuator-after-claim", |_| std::process::abort()),
            Point::Called => fail::fail_point!("actuator-after-call", |_| std::process::abort()),
            Point::Settled => fail::fail_point!("actuator-after-settlement", |_| std::process::abort()),
            Point::Publishing => fail::fail_point!("actuator-before-publish", |_| std::process::abort()),
        }
    }
}

/// Equal in hundredths.
fn same_rate(one: f64, other: f64) -> bool {
    (one - other).abs() < 0.005
}
