//! The console: pages made here, without a script to be read by, one file per view.
//!
//! What comes from outside is text and stays text: maud escapes all of it, and the policy in the
//! head of every answer lets nothing run or load that this program does not serve itself.

mod alerts;
mod assets;
mod campaigns;
mod canaries;
mod canary_forms;
mod chart;
mod decision;
mod dial_form;
mod dry_run;
mod flows;
mod forms;
mod lag;
mod ledger;
mod login;
mod now;
mod parts;
mod platform;
mod routes;
mod settings;
mod settings_forms;
mod shell;
mod table;
mod words;

pub(super) use assets::asset;
pub(super) use login::to_login;
pub(super) use table::PAGES;

use axum::http::{HeaderValue, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use maud::{Markup, html};

use super::Shared;
use super::access::Caller;
use super::problem::Problem;
use shell::Shell;

/// Nothing runs, loads or frames that is not ours.
pub(super) const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'",
);

fn page(markup: Markup) -> Response {
    with_status(StatusCode::OK, markup)
}

fn with_status(status: StatusCode, markup: Markup) -> Response {
    (status, [(header::CONTENT_TYPE, "text/html; charset=utf-8")], markup.into_string()).into_response()
}

/// A problem for people: the same words that programs get, in the shell of all pages.
pub(super) async fn told(shared: &Shared, caller: Caller, uri: &Uri, problem: &Problem) -> Response {
    let shell = Shell::of(shared, caller, "", uri).await;
    let (title, detail, remedy) = problem.words();
    let main = html! {
        h1 { (title) }
        p.lead { (detail) "." }
        p { "What helps: " (remedy) "." }
        p { a href="/" { "What is being done now" } }
    };
    with_status(problem.status(), shell.around(title, &main))
}
