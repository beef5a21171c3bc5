//! What no route can be asked with: looked at once, for all of them, by what they declare.

use std::collections::HashMap;
use std::sync::LazyLock;

use axum::extract::rejection::RawPathParamsRejection;
use axum::extract::{FromRequestParts, RawPathParams};
use axum::http::request::Parts;
use schemars::SchemaGenerator;

use super::problem::{ParameterError, Problem};
use super::routes::{Answer, Content, Place, ROUTES};

/// Longest value, in characters, where a parameter declares none.
const MAX_LENGTH: usize = 512;

/// What a route that reads a query answers where it makes no sense.
pub(super) const NOT_ALLOWED: Answer = Answer {
    status: 400,
    description: "Parameters that are not allowed, all of them",
    content: Content::Problem,
};

/// Greatest lengths of the parameters in paths, by the path and their name.
static LENGTHS: LazyLock<HashMap<(&str, &str), usize>> = LazyLock::new(|| {
    let mut generator = SchemaGenerator::default();
    let parameters = ROUTES.iter().flat_map(|route| route.parameters.iter().map(|known| (route.path, known)));
    let in_path = parameters.filter(|(_, parameter)| parameter.place == Place::Path);
    let length = |(path, parameter): (&'static str, &super::routes::Parameter)| {
        let schema = (parameter.schema)(&mut generator);
        let declared = schema.get("maxLength").and_then(serde_json::Value::as_u64);
        let most = declared.and_then(|length| usize::try_from(length).ok()).unwrap_or(MAX_LENGTH);
        ((path, parameter.name), most)
    };
    in_path.map(length).collect()
});

/// Looks at what a request says in its path. Of their queries routes tell all that is wrong
/// themselves.
///
/// # Errors
/// Everything that Postgres could not keep (U+0000), that is no text, or is too long.
pub(super) async fn check(path: &str, parts: &mut Parts) -> Result<(), Problem> {
    let mut errors = Vec::new();
    match RawPathParams::from_request_parts(parts, &()).await {
        Ok(given) => {
            for (name, value) in &given {
                let most = LENGTHS.get(&(path, name)).copied().unwrap_or(MAX_LENGTH);
                if value.contains('\0') || value.chars().count() > most {
                    errors.push(wrong(
                        name,
                        Some(value),
                        format!("text of 1 to {most} characters without U+0000"),
                    ));
                }
            }
        }
        Err(RawPathParamsRejection::InvalidUtf8InPathParam(_)) => {
            errors.push(wrong("path", None, "text in UTF-8, percent-encoded".to_owned()));
        }
        // Nothing varies in this path.
        Err(_) => {}
    }
    if errors.is_empty() { Ok(()) } else { Err(Problem::bad_parameters(errors)) }
}

fn wrong(name: &str, value: Option<&str>, allowed: String) -> ParameterError {
    /// Of what was given so much is said again, in characters.
    const SHOWN: usize = 200;
    let value = value.map(|value| value.chars().take(SHOWN).collect());
    ParameterError { parameter: name.to_owned(), value, allowed }
}
