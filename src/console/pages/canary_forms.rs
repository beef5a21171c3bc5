//! What is asked of a canary from its pages: to begin one, to take the candidate away, to publish it.

use axum::Extension;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::Response;
use maud::{Markup, html};

use super::canaries;
use super::forms::{Fields, field, own_fields};
use super::login::redirect;
use super::parts::{address, fieldset};
use super::shell::Shell;
use super::{page, with_status};
use crate::console::Shared;
use crate::console::access::Caller;
use crate::console::problem::{Kind, Problem};
use crate::model::delivery::{CanaryState, MAX_HOLD_MINUTES, Steps};
use crate::model::pause::REASON_LIMIT;
use crate::postgres::canaries::{Canary, NewCanary};
use crate::postgres::settings::SettingError;

const PAGE: &str = "/canaries";
/// Where the form that begins one is.
pub(super) const START: &str = "start";
/// Longest id of a flow, a configuration or a version, in bytes.
const MOST_ID: usize = 128;

/// A field of text: its name, what stands before it, what stands in it at first.
const TEXTS: [(&str, &str, &str); 6] = [
    ("flow", "Flow in force (its id)", ""),
    ("candidate", "Flow that is tried out (its id)", ""),
    ("route", "Routing configuration that the dispatcher asks (its id)", ""),
    ("steps", "Shares of the candidate, percent, rising to 100", "1,5,20,50,100"),
    ("hold", "Minutes that a step lasts at least", "15"),
    ("reason", "Why (everybody will see it)", ""),
];

/// What the form held, and why it was refused.
#[derive(Debug, Default)]
pub(super) struct Entered {
    fields: Fields,
    problem: Option<String>,
}

/// The form that begins one.
pub(super) fn start(shell: &Shell, entered: &Entered) -> Markup {
    let shown =
        |name: &str, first: &str| entered.fields.get(name).cloned().unwrap_or_else(|| first.to_owned());
    let form = html! {
        @for (name, label, first) in TEXTS {
            label for=(name) { (label) }
            input id=(name) name=(name) value=(shown(name, first)) required maxlength=(if name == "reason" { REASON_LIMIT } else { MOST_ID })
                autocomplete="off";
        }
        div.row { button type="submit" { "Show what it would do" } }
    };
    html! {
        @if let Some(problem) = &entered.problem { p.wrong role="alert" { (problem) "." } }
        form method="post" action="/canaries/start" { (shell.token()) (fieldset(&form)) }
    }
}

/// The last question before one begins.
fn confirmation(shell: &Shell, new: &NewCanary, fields: &Fields) -> Markup {
    let confirm = html! {
        @for (name, _, _) in TEXTS { input type="hidden" name=(name) value=(field(fields, name)); }
        div.row {
            button type="submit" name="confirmed" value="yes" { "Try it out" }
            a href=(PAGE) { "Leave it as it is" }
        }
    };
    html! {
        h1 { "Try flow " span.id { (new.candidate) } " out?" }
        p.lead {
            "Conversations of " span.id { (new.route) } " go to it beside flow " span.id { (new.flow) }
            ", by exact shares that rise while it is no worse. It is taken away at once when it is, and by hand at any time."
        }
        table {
            caption { "Steps" }
            thead { tr { th.number scope="col" { "Step" } th.number scope="col" { "Share" } th.number scope="col" { "Lasts at least" } } }
            tbody {
                @for (index, share) in new.steps.0.iter().enumerate() { tr {
                    th.number scope="row" { (index + 1) }
                    td.number { (crate::model::delivery::share_in_percent(*share)) }
                    td.number { (new.hold_minutes) " min" }
                } }
            }
        }
        form method="post" action="/canaries/start" { (shell.token()) (fieldset(&confirm)) }
    }
}

/// What can be asked of one as it stands, each behind a button of its own and a last question.
pub(super) fn changes(shell: &Shell, canary: &Canary) -> Markup {
    let can_abort = matches!(canary.state, CanaryState::Planned | CanaryState::Running | CanaryState::Done);
    html! {
        div.row {
            @if can_abort { (asked(shell, canary, &ABORT)) }
            @if canary.state == CanaryState::Done { (asked(shell, canary, &PROMOTE)) }
        }
    }
}

/// A question with a field.
struct Question {
    action: &'static str,
    name: &'static str,
    what: &'static str,
    follows: &'static str,
    field: &'static str,
    label: &'static str,
    is_needed: bool,
    /// Whether it takes something away.
    stops: bool,
}

const ABORT: Question = Question {
    action: "/canaries/abort",
    name: "abort",
    what: "Take the candidate away",
    follows: "It gets nothing from the very next decision on, on every instance; the flow in force gets everything. \
              Nothing is published.",
    field: "reason",
    label: "Why (everybody will see it)",
    is_needed: true,
    stops: true,
};

const PROMOTE: Question = Question {
    action: "/canaries/promote",
    name: "promote",
    what: "Publish it",
    follows: "The version of the flow in force that has the candidate's content is published. It can be taken back \
              like any other version.",
    field: "version",
    label: "Version (empty: the newest that was never in force)",
    is_needed: false,
    stops: false,
};

fn asked(shell: &Shell, canary: &Canary, question: &Question) -> Markup {
    let Question { action, name, what, follows, field, label, is_needed, stops } = question;
    let (dialog, title, input) = (format!("ask-{name}"), format!("{name}-title"), format!("{name}-{field}"));
    let form = html! {
        label for=(input) { (label) }
        input id=(input) name=(field) required[*is_needed] maxlength=(REASON_LIMIT) autocomplete="off";
        div.row {
            button.stop[*stops] type="submit" { (what) " now" }
            button type="button" popovertarget=(dialog) popovertargetaction="hide" { "Cancel" }
        }
    };
    html! {
        button.stop[*stops] popovertarget=(dialog) { (what) " …" }
        div.asked #(dialog) popover role="dialog" aria-labelledby=(title) {
            h2 #(title) { (what) "?" }
            p.small { (follows) }
            form method="post" action=(action) {
                (shell.token())
                input type="hidden" name="id" value=(canary.id);
                (fieldset(&form))
            }
        }
    }
}

type Sent = (State<Shared>, Extension<Caller>, HeaderMap, Bytes);

/// Says why it cannot begin, else what it would do, and once that is confirmed does it.
pub(super) async fn begin(
    (State(shared), Extension(caller), headers, body): Sent,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    let is_confirmed = field(&fields, "confirmed") == "yes";
    let who = caller.name.clone();
    let shell = Shell::of(&shared, caller, PAGE, &Uri::from_static(PAGE)).await;
    let problem = match new_canary(&fields) {
        Err(problem) => problem,
        Ok(new) if !is_confirmed => {
            return Ok(page(shell.around("Canaries", &confirmation(&shell, &new, &fields))));
        }
        Ok(new) => match shared.database.start_canary(&new, &who).await {
            Ok(canary) => return Ok(redirect(&address(PAGE, &[("id", &canary.id)]))),
            Err(SettingError::Refused(problem)) => problem,
            Err(SettingError::Database(error)) => return Err(error.into()),
        },
    };
    let entered = Entered { fields, problem: Some(problem) };
    let (title, main) = canaries::all(&shared, &shell, &entered).await?;
    Ok(with_status(StatusCode::UNPROCESSABLE_ENTITY, shell.around(&title, &main)))
}

/// What a form asks for.
///
/// # Errors
/// What of it cannot be, in a sentence without its end.
fn new_canary(fields: &Fields) -> Result<NewCanary, String> {
    let hold = field(fields, "hold").parse::<u32>();
    let new = NewCanary {
        flow: field(fields, "flow").to_owned(),
        candidate: field(fields, "candidate").to_owned(),
        route: field(fields, "route").to_owned(),
        steps: field(fields, "steps").parse::<Steps>()?,
        hold_minutes: hold.map_err(|_| format!("a step lasts 1 to {MAX_HOLD_MINUTES} minutes"))?,
        reason: Some(field(fields, "reason").to_owned()).filter(|reason| !reason.is_empty()),
    };
    new.check().map(|()| new)
}

pub(super) async fn abort(
    (State(shared), Extension(caller), headers, body): Sent,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    let aborted = shared.database.abort_canary(field(&fields, "id"), field(&fields, "reason"), &caller.name);
    led_back(aborted.await)
}

pub(super) async fn promote(
    (State(shared), Extension(caller), headers, body): Sent,
) -> Result<Response, Problem> {
    let fields = own_fields(&caller, &headers, &body)?;
    let version = Some(field(&fields, "version")).filter(|version| !version.is_empty());
    led_back(shared.database.promote_canary(field(&fields, "id"), version, &caller.name).await)
}

fn led_back(done: Result<Canary, SettingError>) -> Result<Response, Problem> {
    match done {
        Ok(canary) => Ok(redirect(&address(PAGE, &[("id", &canary.id)]))),
        Err(SettingError::Database(error)) => Err(error.into()),
        Err(SettingError::Refused(reason)) => {
            Err(Problem::new(Kind::Conflict, reason, "look at the canary as it stands now"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(changed: (&str, &str)) -> Fields {
        let given = [
            ("flow", "menu"),
            ("candidate", "menu-next"),
            ("route", "c"),
            ("steps", "5, 50,100"),
            ("hold", "15"),
        ];
        let mut fields: Fields =
            given.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        fields.insert(changed.0.to_owned(), changed.1.to_owned());
        fields
    }

    #[test]
    fn a_form_is_a_canary_or_says_what_is_wrong() {
        let new = new_canary(&fields(("reason", "a new menu"))).unwrap();
        assert_eq!(
            (new.steps.0, new.hold_minutes, new.reason.as_deref()),
            (vec![0.05, 0.5, 1.0], 15, Some("a new menu"))
        );
        for (field, value, told) in [
            ("steps", "50,5", "steps are"),
            ("hold", "a while", "a step lasts"),
            ("hold", "0", "a step lasts"),
            ("candidate", "menu", "the candidate is the flow itself"),
            ("route", "", "route must be"),
        ] {
            let problem = new_canary(&fields((field, value))).unwrap_err();
            assert!(problem.contains(told), "{field} {value}: {problem}");
        }
    }
}
