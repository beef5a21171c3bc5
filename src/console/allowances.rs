//! How this month's allowances stand, over HTTP.

use std::fmt;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::routing::on;
use schemars::JsonSchema;
use serde::Serialize;

use super::Shared;
use super::access::{Access, Role};
use super::problem::Problem;
use super::routes::{Answer, Content, Method, Route};
use crate::clock;
use crate::model::Timestamp;
use crate::model::allowance::{Allowances, Counted, Standing, Terms, poll_stretch};
use crate::model::name::Kind;
use crate::postgres::{Database, Error};

/// Campaigns told of.
const MOST_CAMPAIGNS: i64 = 1_000;

/// What is covered in a month.
#[derive(Clone, Debug, Default)]
pub struct Covered {
    /// One for each organisation.
    pub accounts: Vec<Account>,
    pub attempts: Allowances,
}

/// What is covered of an organisation's calls.
#[derive(Clone, Debug)]
pub struct Account {
    /// A further organisation's name.
    pub organization: Option<String>,
    pub calls: Terms,
    /// Whose calls are counted.
    pub client: OauthClientId,
}

/// Says the OAuth client's id as it is now.
#[derive(Clone)]
pub struct OauthClientId(pub Arc<dyn Fn() -> String + Send + Sync>);

impl fmt::Debug for OauthClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("OauthClientId").field(&(self.0)()).finish()
    }
}

/// This month, UTC.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Month {
    /// When it began.
    pub month: Timestamp,
    pub api_calls: ApiCalls,
    /// Where the deployment serves further organisations, by name.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub organizations: Vec<OfOrganization>,
    /// Of all campaigns.
    pub call_attempts: Standing,
    /// Those with most attempts first, 1000 of them.
    pub campaigns: Vec<CampaignAttempts>,
}

/// Calls of a further organisation.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct OfOrganization {
    pub organization: String,
    pub api_calls: ApiCalls,
}

/// Calls of the platform by the whole organisation.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct ApiCalls {
    #[serde(flatten)]
    pub standing: Standing,
    /// How many times as far apart as configured polls come at most, so that they last.
    pub poll_stretch: f64,
    /// Of when the platform's own count is in them; null where it was never told, and ours is all.
    pub reconciled_at: Option<Timestamp>,
    /// Calls of ours that the platform had counted then and we had not.
    pub drift: i64,
}

/// One campaign's attempts.
#[derive(Clone, Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct CampaignAttempts {
    pub campaign_id: String,
    /// What people call it, where that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    #[serde(flatten)]
    pub standing: Standing,
}

impl ApiCalls {
    async fn of(account: Option<&Account>, database: &Database, now: Timestamp) -> Result<Self, Error> {
        let terms = account.map(|account| account.calls).unwrap_or_default();
        let calls = match account {
            Some(account) => database.calls_of_month(&(account.client.0)()).await?,
            None => Default::default(),
        };
        let poll_stretch = poll_stretch(terms.per_month, calls.month_to_date, calls.demand(), now);
        Ok(Self {
            standing: Standing::new(terms, calls.counted(poll_stretch), now),
            poll_stretch,
            reconciled_at: calls.reconciled_at,
            drift: calls.drift,
        })
    }
}

impl Month {
    pub(super) async fn read(covered: &Covered, database: &Database) -> Result<Self, Error> {
        let now = clock::now();
        let first = covered.accounts.iter().find(|account| account.organization.is_none());
        let api_calls = ApiCalls::of(first, database, now).await?;
        let mut organizations = Vec::new();
        for account in &covered.accounts {
            if let Some(organization) = account.organization.clone() {
                let api_calls = ApiCalls::of(Some(account), database, now).await?;
                organizations.push(OfOrganization { organization, api_calls });
            }
        }
        let mut all = Counted::default();
        let mut campaigns = Vec::new();
        let attempts = database.attempts_of_month(MOST_CAMPAIGNS).await?;
        let names = database.names_of(attempts.iter().map(|campaign| &*campaign.campaign_id)).await;
        for campaign in attempts {
            let counted = campaign.counted();
            all.month_to_date += counted.month_to_date;
            all.per_second += counted.per_second;
            let standing = Standing::new(covered.attempts.of_campaign(&campaign.campaign_id), counted, now);
            let name = names.of(Kind::Campaign, &campaign.campaign_id).map(str::to_owned);
            campaigns.push(CampaignAttempts { campaign_id: campaign.campaign_id, name, standing });
        }
        Ok(Self {
            month: now.month(),
            api_calls,
            organizations,
            call_attempts: Standing::new(covered.attempts.all, all, now),
            campaigns,
        })
    }
}

pub(super) static ROUTES: &[Route] = &[Route {
    method: Method::Get,
    path: "/v1/allowances",
    summary: "How this month's allowances of calls and call attempts stand",
    access: Access::Needs(Role::Read),
    parameters: &[],
    body: None,
    answers: &[Answer {
        status: 200,
        description: "This month",
        content: Content::Json(|generator| generator.subschema_for::<Month>()),
    }],
    handler: |method| on(method, show),
}];

async fn show(State(shared): State<Shared>) -> Result<Json<Month>, Problem> {
    let _turn = shared.ledger_reads.acquire().await;
    Ok(Json(Month::read(&shared.covered, &shared.database).await?))
}
