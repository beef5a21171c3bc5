//! What is changed at run time: maintenance windows, how campaigns are dialled, who changed what, and the way back.

use maud::{Markup, html};
use serde_json::Value;

use super::dial_form::{self, Entered};
use super::parts::{age, fieldset};
use super::shell::Shell;
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::model::pause::REASON_LIMIT;
use crate::model::settings::{DIAL, DIAL_CAMPAIGN, MAINTENANCE, MaintenanceWindow, ROUTE, Setting};

/// Changes shown.
const MOST: u32 = 50;
/// Lengths of maintenance windows to choose from, in minutes.
const LENGTHS: [(u32, &str); 5] =
    [(15, "15 minutes"), (60, "an hour"), (240, "4 hours"), (1_440, "a day"), (10_080, "a week")];

/// The page; `entered` is what a form held that was sent and not carried out.
pub(super) async fn view(
    shared: &Shared,
    shell: &Shell,
    entered: &Entered,
) -> Result<(String, Markup), Problem> {
    let windows = shared.database.open_maintenance_windows().await?;
    let history = shared.database.settings_history(None, MOST).await?;
    let dial = dial_form::view(shared, shell, entered).await?;
    let main = html! {
        h1 { "Settings" }
        h2 { "Maintenance" }
        (maintenance(shell, &windows))
        h2 #dial { "How campaigns are dialled" }
        (dial)
        h2 { "Changes" }
        (changes(shell, &history))
    };
    Ok(("Settings".to_owned(), main))
}

fn maintenance(shell: &Shell, windows: &[Setting<'_>]) -> Markup {
    let form = html! {
        label for="flow" { "Flow (its id; empty: all flows)" }
        input #flow name="flow" maxlength="128" autocomplete="off";
        label for="minutes" { "For" }
        select #minutes name="minutes" {
            @for (minutes, name) in LENGTHS { option value=(minutes) selected[minutes == 60] { (name) } }
        }
        label for="why" { "Why" }
        input #why name="reason" required maxlength=(REASON_LIMIT) autocomplete="off";
        div.row { button type="submit" { "Open a window now" } }
    };
    html! {
        p.soft { "No flow is rolled back while a window about it is open. Its errors are counted and told as always." }
        @if windows.is_empty() { p.empty { "No window is open." } } @else {
            ul { @for setting in windows { (window(shell, setting)) } }
        }
        @if shell.caller.may_operate() {
            form method="post" action="/settings/maintenance" { (shell.token()) (fieldset(&form)) }
        }
    }
}

fn window(shell: &Shell, setting: &Setting<'_>) -> Markup {
    let read = serde_json::from_value::<MaintenanceWindow>(setting.value.clone());
    let Ok(window) = read else { return html! {} };
    let id = setting.scope.strip_prefix(MAINTENANCE).unwrap_or_default();
    html! {
        li {
            @match &window.flow_id {
                Some(flow) => { "flow " span.id { (flow) } }
                None => { "all flows" }
            }
            " until " time datetime=(window.until) { (window.until) }
            @if let Some(reason) = &window.reason { ": " (reason) }
            span.soft { " by " (setting.who) ", " (age(setting.when)) }
            @if shell.caller.may_operate() {
                form method="post" action="/settings/maintenance/close" {
                    (shell.token())
                    input type="hidden" name="id" value=(id);
                    (fieldset(&html! { button type="submit" { "Close it" } }))
                }
            }
        }
    }
}

/// Whether people take a change of it back here; windows and pauses have ways of their own.
pub(super) fn can_be_undone(scope: &str) -> bool {
    scope == DIAL || scope.starts_with(DIAL_CAMPAIGN) || scope.starts_with(ROUTE)
}

fn changes(shell: &Shell, history: &[Setting<'_>]) -> Markup {
    if history.is_empty() {
        return html! { p.empty { "Nothing was changed yet: everything is as the configuration says." } };
    }
    html! {
        div.scroll tabindex="0" role="region" aria-label="Changes" {
            table {
                caption { "Newest first. Every decision records the revision it was made under." }
                thead { tr {
                    th scope="col" { "Revision" } th scope="col" { "When" } th scope="col" { "Who" }
                    th scope="col" { "What" } th scope="col" { "Value" } th scope="col" { "Back" }
                } }
                tbody {
                    @for (index, change) in history.iter().enumerate() {
                        @let is_newest = history[..index].iter().all(|later| later.scope != change.scope);
                        tr {
                            th scope="row" { (change.revision) }
                            td { (age(change.when)) }
                            td { (change.who) }
                            td { code { (change.scope) } }
                            td { @match &change.value { Value::Null => { "withdrawn" } value => { code { (value) } } } }
                            td { @if is_newest && shell.caller.may_operate() && can_be_undone(&change.scope) { (undo(shell, change)) } }
                        }
                    }
                }
            }
        }
    }
}

fn undo(shell: &Shell, change: &Setting<'_>) -> Markup {
    html! {
        form method="post" action="/settings/undo" {
            (shell.token())
            input type="hidden" name="scope" value=(change.scope);
            input type="hidden" name="revision" value=(change.revision);
            (fieldset(&html! { button type="submit" aria-label=(format!("Undo revision {}", change.revision)) { "Undo" } }))
        }
    }
}
