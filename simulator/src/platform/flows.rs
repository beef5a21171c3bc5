//! Architect flows: their versions, and publishing one, which takes a while.

use axum::http::{Method, StatusCode};
use serde_json::{Value, json};

use super::request::{Request, reference};
use super::{Endpoint, Outcome};
use crate::flows::{Endpoint as Failing, Flow, Version};
use crate::operations::Operation;
use crate::organization::Organization;
use crate::reply::{Refusal, Reply};
use crate::scenario::{VersionStatus, id_of_name};

/// All flows of the simulated world are of this type.
pub(super) const FLOW_TYPE: &str = "INBOUNDCALL";
const VIEW: &[&str] = &["architect:flow:view"];
const PAGE_SIZE_MAX: usize = 100;

pub(super) const ENDPOINTS: &[Endpoint] = &[
    Endpoint { method: Method::GET, path: "/api/v2/flows/{flowId}", permissions: VIEW, perform: document },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/flows/{flowId}/versions",
        permissions: VIEW,
        perform: versions,
    },
    Endpoint {
        method: Method::GET,
        path: "/api/v2/flows/{flowId}/versions/{versionId}",
        permissions: VIEW,
        perform: version,
    },
    Endpoint {
        method: Method::POST,
        path: "/api/v2/flows/actions/publish",
        permissions: &["architect:flow:publish", "architect:flow:unlock"],
        perform: publish,
    },
    Endpoint {
        method: Method::POST,
        path: "/api/v2/flows/actions/unlock",
        permissions: &["architect:flow:unlock"],
        perform: unlock,
    },
];

fn document(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    organization.flows.check_well(Failing::Versions)?;
    let flow = organization.flows.get(request.id())?;
    Ok((Reply::json(StatusCode::OK, &shown(flow)), None))
}

fn shown(flow: &Flow) -> Value {
    let mut newest: Vec<&Version> = listed(flow).collect();
    newest.sort_by_key(|version| version.date_created);
    let newest = newest.last().map(|version| shown_version(flow, version));
    let mut body = json!({
        "id": flow.id,
        "name": flow.habits.name,
        "division": { "id": id_of_name("division", "simulated"), "name": "Home" },
        "type": FLOW_TYPE,
        "active": !flow.deleted,
        "system": false,
        "deleted": flow.deleted,
        "publishedVersion": shown_version(flow, flow.active()),
        "selfUri": format!("/api/v2/flows/{}", flow.id),
    });
    if let Some(newest) = newest {
        body["checkedInVersion"] = newest.clone();
        body["savedVersion"] = newest;
    }
    if let Some(lock) = &flow.lock {
        let (member, path) = if lock.is_client {
            ("lockedClient", "/api/v2/oauth/clients")
        } else {
            ("lockedUser", "/api/v2/users")
        };
        body[member] = reference(&lock.id, lock.name.as_deref(), path);
    }
    if let Some(operation) = &flow.operation {
        body["currentOperation"] = shown_operation(operation);
    }
    body
}

pub(super) fn shown_operation(operation: &Operation) -> Value {
    let mut body = json!({
        "id": operation.id,
        "complete": operation.outcome.is_some(),
        "client": { "id": operation.client },
        "actionName": "PUBLISH",
        "actionStatus": match operation.outcome {
            None => "STARTED",
            Some(true) => "SUCCESS",
            Some(false) => "FAILURE",
        },
    });
    if operation.outcome == Some(false) {
        body["errorCode"] = json!("flow.publish.failed");
        body["errorMessage"] = json!("publish failed");
        body["errorDetails"] = json!([{ "errorCode": "missing.dependency", "fieldName": "queue" }]);
        body["errorMessageParams"] = json!({});
    }
    body
}

/// Deleted versions are not listed.
fn listed(flow: &Flow) -> impl Iterator<Item = &Version> {
    flow.versions().iter().filter(|version| version.status != VersionStatus::Deleted)
}

/// An archived version was never published as far as this interface tells, and a saved one was not.
fn shown_version(flow: &Flow, version: &Version) -> Value {
    let is_published = !matches!(version.status, VersionStatus::Archived | VersionStatus::Saved);
    let uri = format!("/api/v2/flows/{}/versions/{}", flow.id, version.id);
    let created = version.date_created.as_millis();
    let mut body = json!({
        "id": version.id,
        "name": version.id,
        "commitVersion": version.id,
        "configurationVersion": version.id,
        "type": if is_published { "PUBLISH" } else { "CHECKIN" },
        "secure": false,
        "createdByClient": { "id": id_of_name("client", "publisher") },
        "configurationUri": format!("{uri}/configuration"),
        "dateCreated": created,
        "dateCheckedIn": created,
        "dateSaved": created,
        "selfUri": uri,
    });
    if is_published {
        if let Some(published) = version.date_published {
            body["datePublished"] = json!(published);
        }
        if let Some(ended) = version.date_published_end {
            body["datePublishedEnd"] = json!(ended);
        }
    }
    body
}

/// Newest first.
fn versions(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    organization.flows.check_well(Failing::Versions)?;
    let flow = organization.flows.get(request.id())?;
    let page = request.page(25, PAGE_SIZE_MAX)?;
    let mut newest: Vec<&Version> = listed(flow).collect();
    newest.reverse();
    Ok((
        request.listing(page, newest.into_iter().map(|version| shown_version(flow, version)).collect()),
        None,
    ))
}

fn version(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    organization.flows.check_well(Failing::Versions)?;
    let flow = organization.flows.get(request.id())?;
    let wanted = request.ids.get(1).copied().unwrap_or_default();
    let version =
        listed(flow).find(|version| &*version.id == wanted).ok_or_else(|| flow.unknown_version(wanted))?;
    Ok((Reply::json(StatusCode::OK, &shown_version(flow, version)), None))
}

/// Begins to put a version in force, the newest where none is named. What comes of it is told by the flow's `currentOperation`.
fn publish(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    organization.flows.check_well(Failing::Deployments)?;
    let flow_id = request.required_query("flow")?;
    let newest = || {
        listed(organization.flows.get(&flow_id)?)
            .last()
            .map_or(Err(gone(&flow_id)), |it| Ok(it.id.to_string()))
    };
    let version = request.query("version").filter(|version| !version.is_empty()).map_or_else(newest, Ok)?;
    let operation = organization.begin_publish(&flow_id, &version, request.client, request.moment)?;
    Ok((Reply::json(StatusCode::OK, &shown_operation(&operation)), None))
}

/// Takes somebody else's lock away, as an Architect administrator can.
fn unlock(organization: &mut Organization, request: &Request<'_>) -> Outcome {
    let flow = organization.flows.get_mut(&request.required_query("flow")?)?;
    if flow.deleted {
        return Err(gone(&flow.id));
    }
    flow.lock = None;
    Ok((Reply::json(StatusCode::OK, &shown(flow)), None))
}

pub(crate) fn gone(id: &str) -> Refusal {
    Refusal::new(StatusCode::GONE, "flow.deleted", format!("Flow {id} is deleted")).about(id)
}
