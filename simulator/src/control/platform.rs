//! How Genesys Cloud's own interface behaves where nobody outside knows it.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::routing::{get, post, put};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{Answer, bad, done, parse, patched};
use crate::operations::Lock;
use crate::platform::{self, CampaignRule, Manners};
use crate::server::Shared;
use crate::time::Timestamp;

pub(super) fn router() -> Router<Arc<Shared>> {
    Router::new()
        .route("/platform", get(show).put(set))
        .route("/platform/restate", post(restate))
        .route("/campaign-rules", get(list_rules).put(set_rules))
        .route("/campaign-rules/{id}/fire", post(fire_rule))
        .route("/usage", get(show_usage).post(add_usage))
        .route("/flows/{id}/lock", put(set_lock))
        .route("/flows/{id}/deleted", put(set_deleted))
}

async fn show(State(shared): State<Arc<Shared>>) -> Answer {
    done(json!(shared.with(|organization, _| organization.platform.manners)))
}

async fn set(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let manners = shared.with(|organization, _| {
        let manners: Manners = patched(&organization.platform.manners, &body)?;
        manners.check()?;
        organization.platform.manners = manners;
        Ok(manners)
    });
    done(json!(manners?))
}

async fn restate(State(shared): State<Arc<Shared>>) -> Answer {
    let until = shared.with(|organization, moment| {
        organization.platform.restate(moment.wall);
        moment.wall
    });
    done(json!({ "restatedUntil": until }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LockBody {
    user_id: Option<String>,
    client_id: Option<String>,
    name: Option<String>,
}

async fn set_lock(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let asked: Option<LockBody> = parse(&body)?;
    let lock = match asked {
        None => None,
        Some(LockBody { user_id: Some(id), client_id: None, name }) => {
            Some(Lock { is_client: false, id, name })
        }
        Some(LockBody { user_id: None, client_id: Some(id), name }) => {
            Some(Lock { is_client: true, id, name })
        }
        Some(_) => return Err(bad("either userId or clientId must be given, or null instead of all".into())),
    };
    let locked = lock.is_some();
    shared.with(|organization, _| organization.flows.get_mut(&id).map(|flow| flow.lock = lock))?;
    done(json!({ "id": id, "locked": locked }))
}

async fn set_deleted(State(shared): State<Arc<Shared>>, Path(id): Path<String>, body: Bytes) -> Answer {
    let deleted: bool = parse(&body)?;
    shared.with(|organization, _| organization.flows.get_mut(&id).map(|flow| flow.deleted = deleted))?;
    done(json!({ "id": id, "deleted": deleted }))
}

fn shown_rules(rules: &[CampaignRule]) -> Value {
    let shown = |rule: &CampaignRule| {
        let mut shown = json!(rule);
        shown["id"] = json!(rule.id());
        shown
    };
    json!({ "items": rules.iter().map(shown).collect::<Vec<_>>() })
}

async fn list_rules(State(shared): State<Arc<Shared>>) -> Answer {
    done(shared.with(|organization, _| shown_rules(&organization.platform.campaign_rules)))
}

async fn set_rules(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let rules: Vec<CampaignRule> = parse(&body)?;
    if rules.len() > platform::MAX_RULES {
        return Err(bad(format!("an organisation may have {} campaign rules", platform::MAX_RULES)));
    }
    let shown = shared.with(|organization, _| {
        organization.platform.campaign_rules = rules;
        shown_rules(&organization.platform.campaign_rules)
    });
    done(shown)
}

async fn fire_rule(State(shared): State<Arc<Shared>>, Path(id): Path<String>) -> Answer {
    let changes = shared.with(|organization, moment| platform::fire(organization, &id, moment))?;
    done(json!({ "items": changes }))
}

async fn show_usage(State(shared): State<Arc<Shared>>) -> Answer {
    let (month, requests, attempts) = shared.with(|organization, moment| {
        let month = platform::month_of(moment.wall);
        let soon = moment.wall.plus(Duration::from_secs(1));
        let attempts = organization.calls.iter().map(|(_, calls)| calls.between(month, soon).attempted);
        (month, organization.platform.usage.since(month), attempts.sum::<u64>())
    });
    done(json!({ "since": month, "requests": requests, "callAttempts": attempts }))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct UsageBody {
    client_id: String,
    requests: u64,
    at: Option<Timestamp>,
}

async fn add_usage(State(shared): State<Arc<Shared>>, body: Bytes) -> Answer {
    let UsageBody { client_id, requests, at } = parse(&body)?;
    shared.with(|organization, moment| {
        organization.platform.usage.add_before(&client_id, requests, at.unwrap_or(moment.wall));
    });
    show_usage(State(shared)).await
}
