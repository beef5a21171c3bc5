//! The interface as an OpenAPI 3.1 document, made from the route table.

use std::sync::LazyLock;

use axum::Json;
use schemars::SchemaGenerator;
use schemars::generate::{Contract, SchemaSettings};
use serde_json::{Map, Value, json};

use super::access::{Access, Role};
use super::problem::Document as ProblemDocument;
use super::routes::{Content, Parameter, Place, ROUTES, Route};

static DOCUMENT: LazyLock<Value> = LazyLock::new(document);

pub(super) async fn show() -> Json<&'static Value> {
    Json(&DOCUMENT)
}

/// The whole document.
pub fn document() -> Value {
    // What is sent to us may leave out what has a default; what we answer has all of it.
    let (mut answers, mut bodies) = (generator(Contract::Serialize), generator(Contract::Deserialize));
    let problem = answers.subschema_for::<ProblemDocument>().to_value();
    let mut paths = Map::new();
    for route in ROUTES.iter() {
        let operation = operation(route, &mut answers, &mut bodies, &problem);
        let path = paths.entry(route.path).or_insert_with(|| json!({}));
        path[route.method.name()] = operation;
    }
    let mut paths = Value::Object(paths);
    let schemas = merged(answers.take_definitions(true), bodies.take_definitions(true), &mut paths);
    let roles = Role::ALL.map(Role::name).join(", ");
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "trunkline",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": schemas,
            "securitySchemes": {
                "apiKey": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": format!(
                        "An API key with one of the roles {roles}. Where none are configured, none is needed \
                         and only this machine is served."
                    ),
                },
            },
        },
    })
}

fn generator(contract: Contract) -> SchemaGenerator {
    SchemaSettings::draft2020_12()
        .with(|settings| {
            settings.definitions_path = match contract {
                Contract::Deserialize => REQUESTS.trim_start_matches('#').into(),
                _ => "/components/schemas".into(),
            };
            settings.meta_schema = None;
            settings.contract = contract;
        })
        .into_generator()
}

/// Where the schemas of bodies lie until it is clear how they are called.
const REQUESTS: &str = "#/components/requests";

/// Schemas of answers and of bodies under one roof. A type that is sent in another form than it
/// is answered in is called `…Request` there.
fn merged(answers: Map<String, Value>, bodies: Map<String, Value>, paths: &mut Value) -> Map<String, Value> {
    let is_another = |name: &str, body: &Value| {
        let mut alike = body.clone();
        lead_references(&mut alike, &|name| name.to_owned());
        answers.get(name).is_some_and(|answer| *answer != alike)
    };
    let others: Vec<String> =
        bodies.iter().filter(|(name, body)| is_another(name, body)).map(|(name, _)| name.clone()).collect();
    let called = |name: &str| match others.iter().any(|other| other == name) {
        true => format!("{name}Request"),
        false => name.to_owned(),
    };
    lead_references(paths, &called);
    let mut schemas = answers.clone();
    for (name, mut body) in bodies {
        lead_references(&mut body, &called);
        schemas.insert(called(&name), body);
    }
    schemas
}

/// References to schemas of bodies lead to where they lie, by the names they are `called`.
fn lead_references(value: &mut Value, called: &impl Fn(&str) -> String) {
    match value {
        Value::Object(fields) => {
            for (field, value) in fields.iter_mut() {
                let name = (field == "$ref").then(|| value.as_str()?.strip_prefix(REQUESTS)).flatten();
                match name {
                    Some(name) => {
                        let name = called(name.trim_start_matches('/'));
                        *value = format!("#/components/schemas/{name}").into();
                    }
                    None => lead_references(value, called),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| lead_references(item, called)),
        _ => {}
    }
}

fn operation(
    route: &Route,
    generator: &mut SchemaGenerator,
    bodies: &mut SchemaGenerator,
    problem: &Value,
) -> Value {
    let problem_content = json!({"application/problem+json": {"schema": problem}});
    let mut responses = Map::new();
    for answer in route.answers {
        let content = match answer.content {
            Content::Json(schema) => json!({"application/json": {"schema": schema(generator)}}),
            Content::Text(media_type) => json!({media_type: {"schema": {"type": "string"}}}),
            Content::Problem => problem_content.clone(),
        };
        let response = json!({"description": answer.description, "content": content});
        responses.insert(answer.status.to_string(), response);
    }
    let default = json!({"description": "A problem, with its remedy", "content": problem_content});
    responses.insert("default".to_owned(), default);

    let mut operation = json!({
        "summary": route.summary,
        "operationId": operation_id(route),
        "responses": responses,
        "security": [],
    });
    if let Access::Needs(role) = route.access {
        operation["security"] = json!([{"apiKey": []}]);
        operation["description"] = format!("Needs an API key with the role `{}`.", role.name()).into();
    }
    if let Some(body) = &route.body {
        let schema = (body.schema)(bodies).to_value();
        let content: Map<String, Value> =
            body.media_types.iter().map(|name| ((*name).to_owned(), json!({"schema": schema}))).collect();
        operation["requestBody"] =
            json!({"description": body.description, "required": true, "content": content});
    }
    if !route.parameters.is_empty() {
        operation["parameters"] = route.parameters.iter().map(|p| parameter(p, generator)).collect();
    }
    operation
}

fn parameter(parameter: &Parameter, generator: &mut SchemaGenerator) -> Value {
    let place = match parameter.place {
        Place::Path => "path",
        Place::Query => "query",
    };
    json!({
        "name": parameter.name,
        "in": place,
        "required": parameter.place == Place::Path,
        "description": parameter.description,
        "schema": (parameter.schema)(generator),
    })
}

/// `get_v1_decisions_id`: unique because method and path are.
fn operation_id(route: &Route) -> String {
    let words = route.path.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty());
    std::iter::once(route.method.name()).chain(words).collect::<Vec<_>>().join("_")
}
