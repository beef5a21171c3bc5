//! Architect flows: versions, activation, measures.

use serde::Deserialize;
use serde_json::{Value, json};

use super::super::flows::{Measured, PlatformVersion};
use super::super::path::PathSegment;
use crate::model::Timestamp;
use crate::model::outcome::SentRequest;

/// Versions read of one flow at most; more is taken for nonsense.
const VERSIONS_LIMIT: usize = 10_000;
/// Errors are counted as such, interactions as minutes of their duration.
const ERRORS: &str = "conversation.errors.total";
const DURATION: &str = "conversation.duration.total";
const DURATION_PER_INTERACTION: f64 = 60.0;

pub(crate) fn versions_path(flow_id: &str) -> String {
    format!("/api/v2/architect/flows/{}/versions", PathSegment(flow_id))
}

fn activation_path(flow_id: &str, version: &str) -> String {
    format!("/api/v2/architect/deployments/{}/versions/{}", PathSegment(flow_id), PathSegment(version))
}

/// Makes `version` the active one. The same request twice leaves the same state.
pub(crate) fn activation_request(flow_id: &str, version: &str, description: &str) -> SentRequest {
    SentRequest {
        method: "PATCH".to_owned(),
        path: activation_path(flow_id, version),
        if_match: None,
        body: json!({ "version": { "id": version, "description": description }, "status": "active" }),
    }
}

/// Whether this puts some version of this flow in force.
pub(crate) fn is_activation_request(flow_id: &str, request: &SentRequest) -> bool {
    let version = requested_version(request);
    request.method == "PATCH"
        && version.is_some_and(|version| request.path == activation_path(flow_id, version))
}

/// The version such a request asks for.
fn requested_version(request: &SentRequest) -> Option<&str> {
    let is_activation = request.body.get("status").and_then(Value::as_str) == Some("active");
    request.body.pointer("/version/id")?.as_str().filter(|_| is_activation)
}

/// A read with a body, as the seed has it.
pub(crate) fn measures_request(flow_id: &str, from: Timestamp, until: Timestamp) -> SentRequest {
    SentRequest {
        method: "GET".to_owned(),
        path: "/api/v2/analytics/measures/conversations".to_owned(),
        if_match: None,
        body: json!({
            "interval": { "start": from.as_millis(), "end": until.as_millis() },
            "metric": ERRORS,
            "entity": { "type": "flow", "id": flow_id },
        }),
    }
}

/// Reads a list of versions. The envelope is not stated: a list, or one under `entities`
/// or `versions`. One that cannot be read is left out unless it is the active one: which
/// version is in force must be known. The error says what makes no sense.
pub(crate) fn read_versions(body: &[u8]) -> Result<Vec<PlatformVersion>, String> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Envelope {
        List(Vec<Value>),
        Entities { entities: Vec<Value> },
        Versions { versions: Vec<Value> },
    }
    let envelope: Envelope = serde_json::from_slice(body)
        .map_err(|_| "it is no list of versions, nor has one under entities or versions".to_owned())?;
    let (Envelope::List(told)
    | Envelope::Entities { entities: told }
    | Envelope::Versions { versions: told }) = envelope;
    if told.len() > VERSIONS_LIMIT {
        return Err(format!("it has {} versions; {VERSIONS_LIMIT} are possible", told.len()));
    }
    let mut versions = Vec::with_capacity(told.len());
    for (index, version) in told.iter().enumerate() {
        match read_version(version) {
            Some(version) => versions.push(version),
            None if status_of(version) == "active" => {
                return Err(format!("the active version, the list's number {index}, has no id"));
            }
            None => tracing::warn!(index, "a version of a flow has no id: left out"),
        }
    }
    if versions.is_empty() && !told.is_empty() {
        return Err("no version has an id".to_owned());
    }
    Ok(versions)
}

fn read_version(told: &Value) -> Option<PlatformVersion> {
    let given = |name: &str| told.get(name).filter(|value| !value.is_null());
    let id = match given("id").or_else(|| given("version"))? {
        Value::String(id) if !id.is_empty() && id.len() <= 512 && !id.contains('\0') => id.clone(),
        Value::Number(id) => id.to_string(),
        _ => return None,
    };
    let times = ["datePublished", "publishedAt"].into_iter().filter_map(given);
    let published_at = times.filter_map(Value::as_str).find_map(|time| time.parse().ok());
    Some(PlatformVersion { id, status: status_of(told), published_at, replaced_at: None })
}

/// In lower case; empty where the platform does not say.
fn status_of(told: &Value) -> String {
    told.get("status").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase()
}

/// Reads measures, which do not tell versions apart. The error says which value is impossible.
pub(crate) fn read_measures(body: &[u8]) -> Result<Measured, String> {
    let read: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let values = read.pointer("/data/0/values").ok_or("data[0].values is missing")?;
    let number = |name: &str| {
        let value = values.get(name).and_then(Value::as_f64).ok_or_else(|| format!("{name} is missing"))?;
        (value >= 0.0).then_some(value).ok_or_else(|| format!("{name} is {value}; counts are 0 or more"))
    };
    let errors = number(ERRORS)?.round() as u64;
    let total = (number(DURATION)? / DURATION_PER_INTERACTION).round() as u64;
    // Short interactions take less than the minute each is taken for.
    Ok(Measured { version: String::new(), total: total.max(errors), errors })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_in_every_envelope() {
        let list = r#"[{"id":"11","status":"PUBLISHED","datePublished":"2026-01-02T03:04:05.678Z"},
                       {"version":12,"status":"active","other":1}]"#;
        let expected = read_versions(list.as_bytes()).unwrap();
        assert_eq!(expected[0].id, "11");
        assert!(expected[0].is_published() && expected[0].published_at.is_some());
        assert!(expected[1].is_active() && expected[1].id == "12");
        for envelope in ["entities", "versions"] {
            let body = format!("{{\"{envelope}\":{list},\"total\":2}}");
            assert_eq!(read_versions(body.as_bytes()).unwrap(), expected);
        }
        for nonsense in ["{}", "[{}]", "[1]", "[{\"id\":\"\"}]", "null", "[{\"id\":{}}]"] {
            assert!(read_versions(nonsense.as_bytes()).is_err(), "{nonsense}");
        }
    }

    #[test]
    fn one_odd_version_does_not_hide_the_others() {
        let read = |list: &str| {
            read_versions(list.as_bytes()).map(|versions| {
                versions
                    .into_iter()
                    .map(|version| (version.id, version.published_at.is_some()))
                    .collect::<Vec<_>>()
            })
        };
        let odd = r#"[{"id":"1","status":"active","datePublished":"2026-01-02T03:04:05Z","publishedAt":"2026-01-02T03:04:05Z"},
            {"id":"2","datePublished":"yesterday"},{"id":"3","datePublished":""},{"status":"published"},7,
            {"id":null,"version":4,"status":7}]"#;
        let expected = [("1", true), ("2", false), ("3", false), ("4", false)];
        assert_eq!(read(odd), Ok(expected.map(|(id, published)| (id.to_owned(), published)).to_vec()));
        assert!(read(r#"[{"id":"1"},{"status":"ACTIVE"}]"#).unwrap_err().contains("active"));
    }

    #[test]
    fn measures_are_counts() {
        let body = |errors: &str, duration: &str| {
            format!("{{\"data\":[{{\"values\":{{\"{ERRORS}\":{errors},\"{DURATION}\":{duration}}}}}]}}")
        };
        let measured = |total, errors| Ok(Measured { version: String::new(), total, errors });
        let read = |errors: &str, duration: &str| read_measures(body(errors, duration).as_bytes());
        assert_eq!(read("6", "6000"), measured(100, 6));
        assert_eq!(read("0", "0"), measured(0, 0));
        assert_eq!(read("2", "60"), measured(2, 2));
        assert!(read("-1", "60").is_err() && read("null", "60").is_err());
        assert!(read_measures(b"{\"data\":[]}").is_err());
    }

    #[test]
    fn an_activation_names_its_version_twice() {
        let request = activation_request("f/1", "10", "why");
        assert_eq!(request.path, "/api/v2/architect/deployments/f%2F1/versions/10");
        assert_eq!(requested_version(&request), Some("10"));
        assert_eq!(requested_version(&measures_request("f", Timestamp::MIN, Timestamp::MIN)), None);
    }
}
