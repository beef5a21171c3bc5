//! People exchange an API key for a session.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::{DOCTYPE, Markup, html};

use super::parts::address;
use super::{assets, forms, page, with_status};
use crate::console::Shared;
use crate::console::access::Caller;
use crate::console::problem::Problem;

/// To the form, and from there back to what was asked for.
pub(in crate::console) fn to_login(uri: &Uri) -> Response {
    let next = uri.path_and_query().map_or("/", |path| path.as_str());
    redirect(&address("/login", &[("next", next)]))
}

pub(super) fn redirect(to: &str) -> Response {
    let to = HeaderValue::from_str(to).unwrap_or(HeaderValue::from_static("/"));
    (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response()
}

pub(super) async fn show(uri: Uri) -> Response {
    let next = form_urlencoded::parse(uri.query().unwrap_or_default().as_bytes())
        .find(|(name, _)| name == "next")
        .map(|(_, next)| next.into_owned());
    page(form(&forms::own_path(next.as_deref()), None))
}

pub(super) async fn enter(
    State(shared): State<Shared>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    let fields = forms::fields(&headers, &body)?;
    let next = forms::own_path(fields.get("next").map(String::as_str));
    let key = fields.get("key").map(|key| key.trim()).unwrap_or_default();
    match shared.sessions.open(&shared.database, &shared.guard, key).await? {
        Some(cookie) => {
            let mut response = redirect(&next);
            response.headers_mut().insert(header::SET_COOKIE, cookie.for_request(&headers));
            Ok(response)
        }
        None => {
            let told =
                "This is no key that may look at the console: one with the role read or operate is needed.";
            Ok(with_status(StatusCode::UNPROCESSABLE_ENTITY, form(&next, Some(told))))
        }
    }
}

pub(super) async fn leave(
    State(shared): State<Shared>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Problem> {
    forms::own_fields(&caller, &headers, &body)?;
    shared.sessions.close(&shared.database, &caller).await?;
    let mut response = redirect("/login");
    response.headers_mut().insert(header::SET_COOKIE, crate::console::session::GONE);
    Ok(response)
}

fn form(next: &str, told: Option<&str>) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                title { "Log in · trunkline" }
                link rel="stylesheet" href=(assets::address("console.css"));
                link rel="icon" type="image/svg+xml" href=(assets::address("icon.svg"));
            }
            body {
                main.card.login {
                    h1 { "trunkline" }
                    p { "Log in with an API key. The session lasts twelve hours and stays in this browser." }
                    @if let Some(told) = told { p.notice.lost role="alert" { (told) } }
                    form method="post" action="/login" {
                        input type="hidden" name="next" value=(next);
                        label for="key" { "API key" }
                        input #key type="password" name="key" required autocomplete="current-password" maxlength="1024";
                        p { button type="submit" { "Log in" } }
                    }
                    p.small { "Logged in already? " a href=(next) { "Go on" } "." }
                }
            }
        }
    }
}
