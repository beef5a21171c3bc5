//! Who has changed what: the audit log, asked at once or by a query that takes a while.

use std::collections::VecDeque;
use std::time::Duration;

use axum::http::{Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

use super::interval::Interval;
use super::request::{Request, missing, not_one_of};
use super::{Endpoint, Outcome};
use crate::input::invalid;
use crate::journal::{Effect, Origin};
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};
use crate::scenario::id_of_name;
use crate::time::Timestamp;

const VIEW: &[&str] = &["audits:audit:view"];
/// Changes held; the oldest go.
const MAX_ENTRIES: usize = 100_000;
const MAX_QUERIES: usize = 1_000;
/// How far back the query that answers at once reaches.
const MAX_REALTIME_DAYS: i64 = 14;
const MAX_DAYS: i64 = 30;
const PROPERTIES: &[&str] =
    &["UserId", "TrusteeOrganizationId", "ClientId", "Action", "EntityType", "EntityId"];

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { method: Method::POST, path: "/api/v2/audits/query", permissions: VIEW, perform: submit },
    Endpoint {
        method: Method::POST,
        path: "/api/v2/audits/query/realtime",
        permissions: VIEW,
        perform: realtime,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/audits/query/{transactionId}",
        permissions: VIEW,
        perform: state,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/audits/query/{transactionId}/results",
        permissions: VIEW,
        perform: results,
    },
];

/// One change.
#[derive(Clone, Debug)]
struct Change {
    id: Uuid,
    at: Timestamp,
    /// OAuth client, where one did it.
    client: Option<String>,
    /// Id and name of the person, where one did it.
    user: Option<(String, String)>,
    service: &'static str,
    action: &'static str,
    entity_type: &'static str,
    entity_id: String,
    /// Property, before and after.
    property: Option<(&'static str, String, String)>,
}

/// All changes, and queries about them.
#[derive(Debug, Default)]
pub(crate) struct AuditLog {
    changes: VecDeque<Change>,
    queries: VecDeque<OpenQuery>,
}

#[derive(Debug)]
struct OpenQuery {
    id: Uuid,
    asked: Asked,
    submitted_at: Timestamp,
    /// By the machine's clock, since the simulator started.
    running_from: Duration,
    done_at: Duration,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Asked {
    interval: Option<String>,
    service_name: Option<String>,
    #[serde(default)]
    filters: Option<Vec<PropertyFilter>>,
    page_size: Option<usize>,
    page_number: Option<usize>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct PropertyFilter {
    property: Option<String>,
    value: Option<String>,
}

impl AuditLog {
    /// Writes down what somebody has changed: a client, or a person at `/simulator/…`, or else the
    /// platform itself.
    pub(crate) fn record(
        &mut self,
        (origin, client): (Origin, Option<&str>),
        effect: &Effect,
        at: Timestamp,
    ) {
        let by_person = matches!(origin, Origin::Control | Origin::Rival);
        let user = by_person.then(|| (id_of_name("user", "administrator"), "An Administrator".to_owned()));
        let change = |service, action, entity_type, entity_id: &str, property| Change {
            id: Uuid::now_v7(),
            at,
            client: client.map(str::to_owned),
            user: user.clone(),
            service,
            action,
            entity_type,
            entity_id: entity_id.to_owned(),
            property,
        };
        let change = match effect {
            Effect::Campaign(it) => {
                let (action, rates) = match it.new_rate {
                    None => ("Delete", None),
                    Some(new) => ("Update", (new != it.old_rate).then_some((it.old_rate, new))),
                };
                let property =
                    rates.map(|(old, new)| ("maxCallsPerAgentDecimal", old.to_string(), new.to_string()));
                change("Outbound", action, "Campaign", &it.campaign_id, property)
            }
            Effect::Version(it) => {
                let property = Some(("publishedVersion", it.from_version.clone(), it.to_version.clone()));
                change("Architect", "Publish", "Flow", &it.flow_id, property)
            }
            Effect::Routing(_) => return,
        };
        self.changes.push_back(change);
        if self.changes.len() > MAX_ENTRIES {
            self.changes.pop_front();
        }
    }

    fn find(&self, asked: &Asked, interval: Interval) -> Vec<&Change> {
        let found = self.changes.iter().filter(|change| {
            (interval.start..interval.end).contains(&change.at)
                && asked.service_name.as_deref() == Some(change.service)
                && asked.filters.iter().flatten().all(|filter| filter.admits(change))
        });
        found.collect()
    }
}

impl PropertyFilter {
    fn admits(&self, change: &Change) -> bool {
        let held = match self.property.as_deref().unwrap_or_default() {
            "UserId" => change.user.as_ref().map(|user| user.0.as_str()),
            "ClientId" => change.client.as_deref(),
            "Action" => Some(change.action),
            "EntityType" => Some(change.entity_type),
            "EntityId" => Some(change.entity_id.as_str()),
            _ => None,
        };
        held.is_some() && held == self.value.as_deref()
    }
}

impl Asked {
    fn checked(&self, max_days: i64) -> Result<Interval, Refusal> {
        let interval = Interval::read(self.interval.as_deref().ok_or_else(|| missing("interval"))?)?;
        interval.check_days(max_days)?;
        self.service_name.as_deref().filter(|name| !name.is_empty()).ok_or_else(|| missing("serviceName"))?;
        for filter in self.filters.iter().flatten() {
            let property = filter.property.as_deref().ok_or_else(|| missing("filters.property"))?;
            if !PROPERTIES.contains(&property) {
                return Err(not_one_of("filters.property", property, &PROPERTIES.join(", ")));
            }
            filter.value.as_ref().ok_or_else(|| missing("filters.value"))?;
        }
        Ok(interval)
    }
}

fn shown(change: &Change) -> Value {
    let mut body = json!({
        "id": change.id,
        "serviceName": change.service,
        "level": if change.client.is_some() || change.user.is_some() { "USER" } else { "SYSTEM" },
        "eventDate": change.at,
        "action": change.action,
        "entity": { "id": change.entity_id },
        "entityType": change.entity_type,
        "status": "SUCCESS",
    });
    if let Some((id, name)) = &change.user {
        body["user"] = json!({ "id": id, "name": name });
    }
    if let Some(client) = &change.client {
        body["client"] = json!({ "id": client });
    }
    if let Some((property, old, new)) = &change.property {
        body["propertyChanges"] = json!([{ "property": property, "oldValues": [old], "newValues": [new] }]);
    }
    body
}

/// Newest first, within two weeks.
fn realtime(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let asked: Asked = request.body()?;
    let interval = asked.checked(MAX_REALTIME_DAYS)?;
    let (size, number) = (asked.page_size.unwrap_or(25), asked.page_number.unwrap_or(1));
    if !(1..=500).contains(&size) || number == 0 {
        return Err(invalid("pageSize must be 1 to 500, pageNumber at least 1"));
    }
    let mut found = organization.platform.audit_log.find(&asked, interval);
    found.reverse();
    let total = found.len();
    let page: Vec<Value> = found.into_iter().skip((number - 1) * size).take(size).map(shown).collect();
    let body = json!({
        "entities": page,
        "pageSize": size,
        "pageNumber": number,
        "total": total,
        "pageCount": total.div_ceil(size),
    });
    Ok((Reply::json(StatusCode::OK, &body), None))
}

fn submit(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let asked: Asked = request.body()?;
    asked.checked(MAX_DAYS)?;
    let (moment, takes) = (request.moment, Duration::from_millis(organization.platform.manners.queries_ms));
    let query = OpenQuery {
        id: Uuid::now_v7(),
        asked,
        submitted_at: moment.wall,
        running_from: moment.elapsed + takes / 4,
        done_at: moment.elapsed + takes,
    };
    let body = query.shown(moment.elapsed);
    let queries = &mut organization.platform.audit_log.queries;
    queries.push_back(query);
    if queries.len() > MAX_QUERIES {
        queries.pop_front();
    }
    Ok((Reply::json(StatusCode::ACCEPTED, &body), None))
}

impl OpenQuery {
    fn state(&self, elapsed: Duration) -> &'static str {
        match elapsed {
            now if now >= self.done_at => "Succeeded",
            now if now >= self.running_from => "Running",
            _ => "Queued",
        }
    }

    fn shown(&self, elapsed: Duration) -> Value {
        json!({
            "id": self.id,
            "state": self.state(elapsed),
            "startDate": self.submitted_at,
            "interval": self.asked.interval,
            "serviceName": self.asked.service_name,
            "filters": self.asked.filters.clone().unwrap_or_default(),
        })
    }
}

fn open<'a>(organization: &'a Organization, id: &str) -> Result<&'a OpenQuery, Refusal> {
    let found = organization.platform.audit_log.queries.iter().find(|query| query.id.to_string() == id);
    found.ok_or_else(|| {
        Refusal::new(StatusCode::NOT_FOUND, "not.found", format!("Unable to find a query with id {id}"))
            .about(id)
    })
}

fn state(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let query = open(organization, request.id())?;
    Ok((Reply::json(StatusCode::OK, &query.shown(request.moment.elapsed)), None))
}

fn results(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let page = request.page(25, 500)?;
    let query = open(organization, request.id())?;
    let state = query.state(request.moment.elapsed);
    if state != "Succeeded" {
        let message = format!("the query is {state}: there are results once it has Succeeded");
        return Err(Refusal::new(StatusCode::BAD_REQUEST, "bad.request", message));
    }
    let begin = request.query_as("cursor", 0_usize)?;
    let found = organization.platform.audit_log.find(&query.asked, query.asked.checked(MAX_DAYS)?);
    let entities: Vec<Value> = found.iter().skip(begin).take(page.size).map(|change| shown(change)).collect();
    let mut body = json!({ "id": query.id, "pageSize": page.size, "entities": entities });
    if begin + page.size < found.len() {
        body["cursor"] = json!((begin + page.size).to_string());
    }
    Ok((Reply::json(StatusCode::OK, &body), None))
}
