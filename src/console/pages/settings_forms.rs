//! What the forms of the settings page do.

use std::time::Duration;

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use serde_json::Value;

use super::dial_form::{self, Entered};
use super::forms::{field, own_fields};
use super::login::redirect;
use super::parts::address;
use super::shell::Shell;
use super::{page, settings, with_status};
use crate::console::Shared;
use crate::console::access::Caller;
use crate::console::problem::{Kind, Problem};

const PAGE: &str = "/settings";

type Sent = (State<Shared>, Extension<Caller>, HeaderMap, Bytes);

/// Says what is wrong by field, else what would change, and once that is confirmed does it.
pub(super) async fn dial(
    (State(shared), Extension(caller), headers, body): Sent,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    let confirmed = fields.get("confirmed").is_some_and(|said| said == "yes");
    let seen = fields.get("before").cloned();
    let (entered, value) = Entered::read(fields);
    let scope = entered.scope();
    let Some(value) = value else {
        let shell = Shell::of(&shared, caller, PAGE, &Uri::from_static(PAGE)).await;
        let (title, main) = settings::view(&shared, &shell, &entered).await?;
        return Ok(with_status(StatusCode::UNPROCESSABLE_ENTITY, shell.around(&title, &main)));
    };
    if !confirmed {
        let before = shared.database.setting(&scope).await?.map_or(Value::Null, |setting| setting.value);
        let shell = Shell::of(&shared, caller, PAGE, &Uri::from_static(PAGE)).await;
        let played = shared.dry_run(&scope, &value).await;
        let main = dial_form::confirmation(&shell, &entered, (&before, &value), &played);
        return Ok(page(shell.around("Settings", &main)));
    }
    crate::model::settings::check(&scope, &value).map_err(refused)?;
    shared.admit(&scope, &value, &caller.name).await?;
    let change = |_, in_force: Option<&crate::model::settings::Setting<'static>>| {
        let before = in_force.map_or(Value::Null, |setting| setting.value.clone());
        let is_seen =
            seen.is_some_and(|seen| serde_json::from_str::<Value>(&seen).is_ok_and(|it| it == before));
        if is_seen { Ok(value) } else { Err("somebody else has changed it meanwhile".to_owned()) }
    };
    shared.database.change_setting(&scope, &caller.name, change).await?;
    Ok(redirect(&address(PAGE, &[("id", entered.campaign.as_deref().unwrap_or_default())])))
}

pub(super) async fn undo(
    (State(shared), Extension(caller), headers, body): Sent,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    let scope = field(&fields, "scope");
    if !settings::can_be_undone(scope) {
        return Err(refused("only changes of dial and route are undone here".to_owned()));
    }
    let revision = field(&fields, "revision").parse();
    let revision = revision.map_err(|_| refused("the revision is no number".to_owned()))?;
    let before = shared.database.setting_before(scope, revision).await?;
    shared.admit(scope, &before, &caller.name).await?;
    shared.database.undo_setting(scope, revision, &caller.name).await?;
    Ok(redirect(PAGE))
}

pub(super) async fn open_window(
    (State(shared), Extension(caller), headers, body): Sent,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    let minutes = field(&fields, "minutes").parse::<u32>();
    let minutes =
        minutes.map_err(|_| refused("how long it stays open is no number of minutes".to_owned()))?;
    let reason = Some(field(&fields, "reason")).filter(|reason| !reason.is_empty());
    let reason = reason.ok_or_else(|| refused("a reason is needed".to_owned()))?;
    let flow = Some(field(&fields, "flow")).filter(|flow| !flow.is_empty());
    let length = Duration::from_secs(u64::from(minutes) * 60);
    shared.database.open_maintenance(flow, length, Some(reason), &caller.name).await?;
    Ok(redirect(PAGE))
}

pub(super) async fn close_window(
    (State(shared), Extension(caller), headers, body): Sent,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    // Somebody else may have been faster: then it is as it should be.
    shared.database.close_maintenance(field(&fields, "id"), &caller.name).await?;
    Ok(redirect(PAGE))
}

fn refused(why: String) -> Problem {
    Problem::new(Kind::BadBody, why, "go back to the settings and repeat it")
}
