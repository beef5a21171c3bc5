//! Architect flows: what is in force, what was before, and publishing.
//!
//! Publishing an older version is the rollback. It is asynchronous: the reply names an
//! operation, and the flow itself tells when its version is in force.

use serde::Deserialize;
use serde_json::Value;

use super::super::flows::{Flow, Operation, PlatformVersion};
use super::super::path::PathSegment;
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

/// Versions on one page.
const PAGE_SIZE: usize = 100;
/// Pages of versions that are followed at most.
pub(crate) const PAGE_LIMIT: usize = 100;
/// Longest text of a foreign message that is passed on, in characters.
const MESSAGE_LIMIT: usize = 300;

pub(crate) fn flow_path(id: &str) -> String {
    format!("/api/v2/flows/{}", PathSegment(id))
}

/// `page` counts from 1.
pub(crate) fn versions_path(id: &str, page: usize) -> String {
    format!("{}/versions?pageSize={PAGE_SIZE}&pageNumber={page}", flow_path(id))
}

/// Puts `version` in force. It has no body, and the same twice leaves the same state.
pub(crate) fn publish_request(flow_id: &str, version: &str) -> SentRequest {
    let (flow, version) = (PathSegment(flow_id), PathSegment(version));
    SentRequest {
        method: "POST".to_owned(),
        path: format!("/api/v2/flows/actions/publish?flow={flow}&version={version}"),
        if_match: None,
        body: Value::Null,
    }
}

/// Whether this publishes some version of this flow and does nothing else.
pub(crate) fn is_publish_request(flow_id: &str, request: &SentRequest) -> bool {
    let begin = format!("/api/v2/flows/actions/publish?flow={}&version=", PathSegment(flow_id));
    let version = request.path.strip_prefix(&begin);
    request.method == "POST"
        && request.body.is_null()
        && version.is_some_and(|version| !version.is_empty() && !version.contains('&'))
}

/// What a flow says of itself.
#[derive(Debug, PartialEq)]
pub(crate) struct Told {
    pub name: Option<String>,
    /// The version in force; none where it was never published or is switched off.
    pub published: Option<String>,
    pub locked_by: Option<String>,
    pub operation: Option<Operation>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireOperation {
    id: Option<String>,
    #[serde(default)]
    complete: bool,
    action_name: Option<String>,
    action_status: Option<String>,
    error_code: Option<String>,
    error_message: Option<String>,
    #[serde(default)]
    error_details: Vec<WireDetail>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct WireDetail {
    error_code: Option<String>,
    field_name: Option<String>,
}

/// A person or an OAuth client.
#[derive(Deserialize)]
pub(crate) struct WireActor {
    id: Option<String>,
    name: Option<String>,
}

impl WireActor {
    pub(crate) fn is(&self, one: impl FnOnce(&str) -> bool) -> bool {
        self.id.as_deref().is_some_and(one)
    }
}

/// Reads a flow. A lock of an OAuth client that `is_ours` is none. The error says what
/// makes no sense.
pub(crate) fn read_flow(id: &str, is_ours: impl Fn(&str) -> bool, body: &[u8]) -> Result<Told, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        id: Option<String>,
        name: Option<String>,
        #[serde(default)]
        deleted: bool,
        published_version: Option<WireActor>,
        locked_user: Option<WireActor>,
        locked_client: Option<WireActor>,
        current_operation: Option<WireOperation>,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    if let Some(other) = wire.id.filter(|told| told != id) {
        return Err(format!("it is about flow {:?}", bounded(&other, 64)));
    }
    let client = wire.locked_client.filter(|client| !client.is(&is_ours));
    let user = wire.locked_user.map(|user| actor("user", user));
    Ok(Told {
        name: wire.name,
        published: wire.published_version.and_then(|version| version.id).filter(|_| !wire.deleted),
        locked_by: user.or_else(|| client.map(|client| actor("OAuth client", client))),
        operation: wire.current_operation.and_then(operation),
    })
}

/// Reads the reply to a publish: the operation that it began.
pub(crate) fn read_operation(body: &[u8]) -> Option<String> {
    serde_json::from_slice::<WireOperation>(body).ok()?.id
}

/// Name and id, for people.
pub(crate) fn actor(kind: &str, actor: WireActor) -> String {
    let id = bounded(actor.id.as_deref().unwrap_or("of unknown id"), 64);
    match actor.name.filter(|name| !name.is_empty()) {
        Some(name) => format!("{} ({kind} {id})", bounded(&name, 100)),
        None => format!("{kind} {id}"),
    }
}

fn operation(wire: WireOperation) -> Option<Operation> {
    let failed = wire.complete && wire.action_status.as_deref() == Some("FAILURE");
    let failure = failed.then(|| {
        let mut text = wire.error_code.unwrap_or_else(|| "no code".to_owned());
        if let Some(message) = wire.error_message {
            text = format!("{text}: {message}");
        }
        for detail in wire.error_details {
            let of = detail.field_name.map(|field| format!(" of {field}")).unwrap_or_default();
            text = format!("{text}; {}{of}", detail.error_code.as_deref().unwrap_or("no code"));
        }
        bounded(&text, MESSAGE_LIMIT)
    });
    Some(Operation {
        id: wire.id?,
        complete: wire.complete,
        action: wire.action_name.unwrap_or_default(),
        failure,
    })
}

/// Foreign text in a message stays short and on its line.
fn bounded(text: &str, most: usize) -> String {
    text.chars().filter(|letter| !letter.is_control()).take(most).collect()
}

/// One page of versions.
#[derive(Debug, PartialEq)]
pub(crate) struct Page {
    pub versions: Vec<PlatformVersion>,
    /// There is another one after it.
    pub goes_on: bool,
}

/// Reads the page with number `page`. The error says what makes no sense.
pub(crate) fn read_versions(page: usize, body: &[u8]) -> Result<Page, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Wire {
        entities: Vec<WireVersion>,
        page_count: Option<usize>,
        total: Option<usize>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct WireVersion {
        id: Option<String>,
        r#type: Option<String>,
        date_published: Option<String>,
        date_published_end: Option<String>,
    }
    let wire: Wire = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let told = wire.entities.len();
    let time = |text: Option<String>| -> Option<Timestamp> { text.and_then(|text| text.parse().ok()) };
    let mut versions = Vec::with_capacity(told);
    for version in wire.entities {
        let Some(id) = version.id.filter(|id| !id.is_empty() && id.len() <= 64 && !id.contains('\0')) else {
            tracing::warn!("a version of a flow has no usable id: left out");
            continue;
        };
        let published_at = time(version.date_published);
        // One that was never published is no target.
        let status = match published_at {
            Some(_) => PUBLISHED.to_owned(),
            None => version.r#type.as_deref().unwrap_or_default().to_ascii_lowercase(),
        };
        let status = if published_at.is_none() && status == "publish" { String::new() } else { status };
        let replaced_at = time(version.date_published_end);
        versions.push(PlatformVersion { id, status, published_at, replaced_at });
    }
    let by_count = wire.page_count.map(|pages| page < pages);
    let by_total = wire.total.map(|total| page * PAGE_SIZE < total);
    let goes_on = told > 0 && by_count.or(by_total).unwrap_or(false);
    Ok(Page { versions, goes_on })
}

const ACTIVE: &str = "active";
const PUBLISHED: &str = "published";

/// The flow as it is now. What is in force is as the flow itself says, whatever its list of
/// versions says. In the order of their publication, the one in force last.
///
/// # Errors
/// When the version in force is not among its versions.
pub(crate) fn flow(told: Told, mut versions: Vec<PlatformVersion>) -> Result<Flow, String> {
    if let Some(in_force) = &told.published {
        let version = versions.iter_mut().find(|version| version.id == *in_force);
        let version = version.ok_or_else(|| {
            format!("version {:?} is in force and not among its versions", bounded(in_force, 64))
        })?;
        version.status = ACTIVE.to_owned();
        version.replaced_at = None;
    }
    versions.sort_by_key(|version| (version.is_active(), version.published_at));
    Ok(Flow { name: told.name, versions, locked_by: told.locked_by, operation: told.operation })
}

#[cfg(test)]
mod tests {
    use super::*;

    const FLOW: &str = "c3a8e9b4-5f7d-4a26-8f10-9e2b4d6a7c03";
    const OPERATION: &str = "9a8b7c6d-5e4f-4321-8fed-cba987654306";
    const VERSIONS: &[u8] = include_bytes!("fixtures/flow_versions.json");

    fn told(body: &[u8]) -> Told {
        read_flow(FLOW, |client| client == "our-client", body).unwrap()
    }

    #[test]
    fn a_publish_is_over_when_the_flow_says_so() {
        let running = told(include_bytes!("fixtures/flow_publishing.json"));
        assert_eq!(running.published.as_deref(), Some("12.0"));
        assert_eq!(running.name.as_deref(), Some("Main menu"));
        let operation = running.operation.unwrap();
        assert_eq!((&*operation.id, operation.complete, &*operation.action), (OPERATION, false, "PUBLISH"));
        let begun = read_operation(include_bytes!("fixtures/operation.json"));
        assert_eq!(begun.as_deref(), Some(OPERATION));

        let done = told(include_bytes!("fixtures/flow_published.json"));
        assert_eq!(done.published.as_deref(), Some("11.0"));
        assert_eq!(
            done.operation.map(|operation| (operation.complete, operation.failure)),
            Some((true, None))
        );

        let failed = told(include_bytes!("fixtures/flow_publish_failed.json")).operation.unwrap();
        let failure = failed.failure.unwrap();
        assert_eq!(failure, "flow.publish.failed: publish failed; missing.dependency of queue");
    }

    #[test]
    fn a_lock_says_whose_it_is_unless_it_is_our_own() {
        let locked = told(include_bytes!("fixtures/flow_locked.json"));
        let who = "A Person (user 5f0e1d2c-3b4a-4958-8776-655443322107)";
        assert_eq!(locked.locked_by.as_deref(), Some(who));
        let client = |id: &str| format!(r#"{{"id":"{FLOW}","lockedClient":{{"id":"{id}"}}}}"#);
        assert_eq!(told(client("other").as_bytes()).locked_by.as_deref(), Some("OAuth client other"));
        assert_eq!(told(client("our-client").as_bytes()).locked_by, None);
        assert!(read_flow("another", |_| false, client("x").as_bytes()).is_err());
    }

    #[test]
    fn what_is_in_force_is_as_the_flow_says() {
        let page = read_versions(1, VERSIONS).unwrap();
        assert!(!page.goes_on);
        let published = |id: &str| Told {
            name: Some("Main menu".to_owned()),
            published: Some(id.to_owned()),
            locked_by: None,
            operation: None,
        };
        let read = flow(published("12.0"), page.versions.clone()).unwrap();
        assert_eq!(read.name.as_deref(), Some("Main menu"));
        let listed: Vec<_> =
            read.versions.iter().map(|it| (&*it.id, &*it.status, it.replaced_at.is_some())).collect();
        assert_eq!(listed, [("11.0", "published", true), ("12.0", "active", false)]);
        let back = flow(published("11.0"), page.versions.clone()).unwrap();
        assert!(back.versions[1].id == "11.0" && back.versions[1].is_active());
        assert!(back.versions[0].is_published(), "it can be gone back to, or not: others decide");
        assert!(flow(published("13.0"), page.versions.clone()).is_err());
        let none = flow(Told { published: None, ..published("") }, page.versions).unwrap();
        assert!(none.versions.iter().all(|version| !version.is_active()));
    }

    #[test]
    fn a_version_that_was_never_published_is_no_target() {
        let body = r#"{"entities":[{"id":"13.0","type":"CHECKIN"},{"id":"14.0","type":"PUBLISH"},{"id":""},
            {"id":"9.0","type":"PUBLISH","datePublished":"2026-01-01T10:00:00.000Z"}],"total":3}"#;
        let versions = read_versions(1, body.as_bytes()).unwrap().versions;
        let fit: Vec<_> = versions.iter().map(|it| (&*it.id, it.is_published(), it.is_active())).collect();
        assert_eq!(fit, [("13.0", false, false), ("14.0", false, false), ("9.0", true, false)]);
    }

    #[test]
    fn pages_go_on_until_the_last() {
        let page = |page: usize, tail: &str| {
            read_versions(page, format!(r#"{{"entities":[{{"id":"1.0"}}]{tail}}}"#).as_bytes())
                .unwrap()
                .goes_on
        };
        assert!(page(1, r#","pageCount":2"#) && !page(2, r#","pageCount":2"#));
        assert!(page(1, r#","total":101"#) && !page(1, r#","total":100"#));
        assert!(!page(1, ""));
        assert!(
            !read_versions(1, br#"{"entities":[],"pageCount":9}"#).unwrap().goes_on,
            "nothing more comes"
        );
        assert!(read_versions(1, b"{}").is_err());
    }

    #[test]
    fn a_publish_names_flow_and_version_and_has_no_body() {
        let request = publish_request("f 1", "11.0");
        assert_eq!(request.path, "/api/v2/flows/actions/publish?flow=f%201&version=11.0");
        assert!(request.body.is_null() && is_publish_request("f 1", &request));
        assert!(!is_publish_request("f 2", &request));
        assert!(!is_publish_request("f 1", &publish_request("f 1", "")));
        let more = SentRequest { path: format!("{}&x=1", request.path), ..request };
        assert!(!is_publish_request("f 1", &more));
    }
}
