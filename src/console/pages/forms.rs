//! What pages send: forms of our own, told by what only our pages know.

use std::collections::BTreeMap;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::Response;

use super::login::redirect;
use crate::console::Shared;
use crate::console::access::Caller;
use crate::console::problem::{Kind, Problem};
use crate::model::pause::Extent;

/// Fields a form has at most.
const MOST_FIELDS: usize = 20;

/// A form's fields.
pub(super) type Fields = BTreeMap<String, String>;

/// A field as it was typed, without the blanks around it; nothing where it is missing.
pub(super) fn field<'f>(fields: &'f Fields, name: &str) -> &'f str {
    fields.get(name).map(|value| value.trim()).unwrap_or_default()
}

/// Reads a form.
///
/// # Errors
/// When the body is none.
pub(super) fn fields(headers: &HeaderMap, body: &Bytes) -> Result<Fields, Problem> {
    const FORM: &str = "application/x-www-form-urlencoded";
    let media_type =
        headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if media_type.split(';').next().map(str::trim) != Some(FORM) {
        let detail = format!("the body is {media_type:?}, not a form");
        return Err(Problem::new(Kind::UnsupportedMediaType, detail, "programs use the routes below /v1"));
    }
    Ok(form_urlencoded::parse(body)
        .take(MOST_FIELDS)
        .map(|(name, value)| (name.into_owned(), value.into_owned()))
        .collect())
}

/// The same for a form that changes something: only one that our own page made is taken.
///
/// # Errors
/// As [`fields`], and when the page's token is not this caller's.
pub(super) fn own_fields(caller: &Caller, headers: &HeaderMap, body: &Bytes) -> Result<Fields, Problem> {
    let fields = fields(headers, body)?;
    let token = fields.get("csrf").map(String::as_bytes).unwrap_or_default();
    if !caller.made(token) {
        let detail = "the form was not made for this session";
        return Err(Problem::new(Kind::Forbidden, detail, "load the page again and repeat what you did"));
    }
    Ok(fields)
}

/// A path here, whatever was given: nobody is led elsewhere.
pub(super) fn own_path(given: Option<&str>) -> String {
    let own = given.filter(|path| {
        let mut letters = path.bytes();
        letters.next() == Some(b'/')
            && !matches!(letters.next(), Some(b'/' | b'\\'))
            && path.bytes().all(|byte| byte.is_ascii_graphic())
    });
    own.unwrap_or("/").to_owned()
}

pub(super) async fn pause(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    let reason = fields.get("reason").map(String::as_str).unwrap_or_default();
    shared.database.pause(extent(&fields)?, reason, &caller.name).await?;
    Ok(back(&fields))
}

pub(super) async fn resume(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    // Somebody else may have been faster: then it is as it should be.
    shared.database.resume(extent(&fields)?, &caller.name).await?;
    Ok(back(&fields))
}

/// To the page that the form stands on.
fn back(fields: &Fields) -> Response {
    redirect(&own_path(fields.get("back").map(String::as_str)))
}

fn extent(fields: &Fields) -> Result<Extent, Problem> {
    let name = fields.get("loop").map(String::as_str).unwrap_or_default();
    name.parse().map_err(|allowed: String| Problem::new(Kind::BadBody, allowed, "choose one of them"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_led_elsewhere() {
        assert_eq!(own_path(Some("/ledger?loop=dial")), "/ledger?loop=dial");
        for elsewhere in ["//evil.example", "/\\evil.example", "https://evil.example", "", "a", "/a\nb", "/ü"]
        {
            assert_eq!(own_path(Some(elsewhere)), "/", "{elsewhere:?}");
        }
        assert_eq!(own_path(None), "/");
    }
}
