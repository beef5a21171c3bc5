//! The form for how campaigns are dialled: what is entered, what of it cannot be, and what it would change.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::dry_run;
use super::forms::Fields;
use super::parts::fieldset;
use super::shell::Shell;
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::model::dry_run::DryRun;
use crate::model::object;
use crate::model::settings::{DIAL, DIAL_CAMPAIGN, DialPolicy, DialSettings};

/// Longest id of a campaign, in characters.
const MOST_ID: usize = 256;

/// A field with a number: its name in the settings, what stands before it, and what is possible.
const NUMBERS: [(&str, &str, &str); 5] = [
    ("goal", "Goal: share of answers that may be abandoned on average", "0.001 to 0.5, at most the cap"),
    ("cap", "Cap: share that must not be passed", "0.001 to 0.5"),
    ("handleSeconds", "Handle time before it was measured, seconds", "1 to 86400"),
    ("utcOffsetMinutes", "The campaign's local time minus UTC, minutes", "−840 to 840"),
    ("target", "Answer rate that proportional aims at", "0.01 to 1"),
];
const POLICIES: [(&str, &str); 3] =
    [("", "as configured"), ("pacing", "pacing"), ("proportional", "proportional")];
const SHADOWS: [(&str, &str); 4] =
    [("", "as configured"), ("none", "none"), ("pacing", "pacing"), ("proportional", "proportional")];

/// What a form holds.
#[derive(Debug, Default)]
pub(super) struct Entered {
    /// Absent: all campaigns.
    pub campaign: Option<String>,
    /// As they were typed; none where the form was not sent.
    fields: Option<Fields>,
    /// What cannot be, by field.
    pub problems: BTreeMap<&'static str, String>,
}

impl Entered {
    /// The form of a campaign, or of all, as it stands.
    pub(super) fn of(campaign: Option<String>) -> Self {
        Self { campaign, ..Self::default() }
    }

    pub(super) fn scope(&self) -> String {
        self.campaign.as_ref().map_or_else(|| DIAL.to_owned(), |id| format!("{DIAL_CAMPAIGN}{id}"))
    }

    /// Reads what was sent. The value where all of it can be: null where nothing is set.
    pub(super) fn read(fields: Fields) -> (Self, Option<Value>) {
        let text = |name: &str| fields.get(name).map(|text| text.trim()).filter(|text| !text.is_empty());
        let mut problems = BTreeMap::new();
        let campaign = text("campaign").map(str::to_owned);
        let is_id = |id: &String| id.chars().count() <= MOST_ID && !id.chars().any(char::is_control);
        if campaign.as_ref().is_some_and(|id| !is_id(id)) {
            problems.insert("campaign", format!("an id of at most {MOST_ID} characters"));
        }
        let mut object = serde_json::Map::new();
        for name in ["policy", "shadowPolicy"] {
            object.extend(text(name).map(|chosen| (name.to_owned(), Value::from(chosen))));
        }
        for (name, _, allowed) in NUMBERS {
            let Some(typed) = text(name) else { continue };
            let whole = typed.parse::<i64>().ok().map(Value::from);
            let broken = || {
                let number = typed.replace(',', ".").parse::<f64>().ok().filter(|it| it.is_finite());
                number.filter(|_| name != "utcOffsetMinutes").map(Value::from)
            };
            let number = whole.or_else(broken);
            match number {
                Some(number) => drop(object.insert(name.to_owned(), number)),
                None => drop(problems.insert(name, format!("a number, {allowed}"))),
            }
        }
        let value = if object.is_empty() { Value::Null } else { Value::Object(object) };
        match object::of::<DialSettings>(&value) {
            _ if value.is_null() => {}
            Ok(settings) => problems.extend(settings.problems()),
            Err(error) => drop(problems.insert("policy", error.to_string())),
        }
        let good = problems.is_empty().then_some(value);
        (Self { campaign, fields: Some(fields), problems }, good)
    }

    /// What stands in a field: as it was typed, else as it is in force.
    fn shown(&self, name: &str, in_force: &Value) -> String {
        match &self.fields {
            Some(fields) => fields.get(name).cloned().unwrap_or_default(),
            None => match &in_force[name] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                other => other.to_string(),
            },
        }
    }
}

/// The form.
pub(super) async fn view(shared: &Shared, shell: &Shell, entered: &Entered) -> Result<Markup, Problem> {
    let in_force = shared.database.setting(&entered.scope()).await?.map_or(Value::Null, |it| it.value);
    let campaign = entered.campaign.as_deref().unwrap_or_default();
    let form = html! {
        input type="hidden" name="campaign" value=(campaign);
        (chosen(entered, &in_force, "policy", "Rule", &POLICIES))
        (chosen(entered, &in_force, "shadowPolicy", "Rule beside it, which changes nothing", &SHADOWS))
        @for (name, label, allowed) in NUMBERS {
            label for=(name) { (label) " " span.soft { "(" (allowed) ")" } }
            input id=(name) name=(name) value=(entered.shown(name, &in_force)) inputmode="decimal" maxlength="24"
                autocomplete="off" aria-invalid=[entered.problems.contains_key(name).then_some("true")]
                aria-describedby=[entered.problems.contains_key(name).then(|| format!("{name}-problem"))];
            (problem(entered, name))
        }
        div.row { button type="submit" { "Show what it would change" } }
    };
    Ok(html! {
        p.soft { "What is empty is as it is for all campaigns, or as the configuration says." }
        form.row method="get" action="/settings" {
            label for="campaign" { "Campaign (its id; empty: all)" }
            input #campaign name="id" value=(campaign) maxlength=(MOST_ID) autocomplete="off";
            button type="submit" { "Choose" }
        }
        (problem(entered, "campaign"))
        @if shell.caller.may_operate() {
            h3 { @if campaign.is_empty() { "All campaigns" } @else { "Campaign " span.id { (campaign) } } }
            form method="post" action="/settings/dial" { (shell.token()) (fieldset(&form)) }
        } @else {
            p { code { (in_force) } }
        }
    })
}

fn chosen(
    entered: &Entered,
    in_force: &Value,
    name: &'static str,
    label: &str,
    options: &[(&str, &str)],
) -> Markup {
    let shown = entered.shown(name, in_force);
    html! {
        label for=(name) { (label) }
        select id=(name) name=(name) {
            @for (value, word) in options { option value=(value) selected[*value == shown] { (word) } }
        }
        (problem(entered, name))
    }
}

fn problem(entered: &Entered, name: &str) -> Markup {
    html! {
        @if let Some(problem) = entered.problems.get(name) {
            p.wrong id=(format!("{name}-problem")) role="alert" { (problem) }
        }
    }
}

/// The last question: each field that would change, before and after, and what came of playing it.
pub(super) fn confirmation(
    shell: &Shell,
    entered: &Entered,
    (before, after): (&Value, &Value),
    played: &Result<DryRun, Problem>,
) -> Markup {
    let names = ["policy", "shadowPolicy"].into_iter().chain(NUMBERS.iter().map(|(name, ..)| *name));
    let word = |value: &Value| match value {
        Value::Null => "as configured".to_owned(),
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let changed: Vec<_> = names.filter(|name| before[*name] != after[*name]).collect();
    let proportional = after["policy"] == DialPolicy::Proportional.name();
    let confirm = html! {
        @for (name, value) in entered.fields.iter().flatten().filter(|(name, _)| *name != "csrf" && *name != "back") {
            input type="hidden" name=(name) value=(value);
        }
        input type="hidden" name="before" value=(before);
        div.row {
            button type="submit" name="confirmed" value="yes" { "Set it" }
            a href=(super::parts::address("/settings", &[("id", entered.campaign.as_deref().unwrap_or_default())])) { "Leave it as it is" }
        }
    };
    html! {
        h1 { "Change how " @match &entered.campaign { Some(id) => { "campaign " span.id { (id) } " is" } None => { "all campaigns are" } } " dialled?" }
        @if changed.is_empty() {
            p.lead { "Nothing would change." }
            p { a href="/settings" { "Back to the settings" } }
        } @else {
            p.lead { "In force on every instance within two seconds; each decision records the revision. It can be undone." }
            @if proportional {
                p { "proportional has no fixed point: it walks to a campaign's greatest rate while the answer rate is below the target." }
            }
            table {
                caption { "What would change" }
                thead { tr { th scope="col" { "Setting" } th scope="col" { "Now" } th scope="col" { "Then" } } }
                tbody { @for name in changed { tr {
                    th scope="row" { (name) } td { (word(&before[name])) } td { (word(&after[name])) }
                } } }
            }
            (dry_run::view(played))
            form method="post" action="/settings/dial" { (shell.token()) (fieldset(&confirm)) }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(fields: &[(&str, &str)]) -> (Entered, Option<Value>) {
        Entered::read(fields.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect())
    }

    #[test]
    fn each_field_says_what_is_wrong_with_it() {
        let (entered, value) = read(&[
            ("goal", "0,04"),
            ("cap", "0.03"),
            ("target", "two"),
            ("utcOffsetMinutes", "900"),
            ("policy", "pacing"),
        ]);
        assert_eq!(value, None);
        assert_eq!(
            entered.problems.keys().copied().collect::<Vec<_>>(),
            ["goal", "target", "utcOffsetMinutes"]
        );
        assert!(entered.problems["goal"].contains("over cap 0.03"), "{:?}", entered.problems);
        assert_eq!(entered.shown("target", &json!({"target": 0.3})), "two", "what was typed stays");
        let (_, value) = read(&[("policy", "adaptive")]);
        assert_eq!(value, None);
        let (entered, value) = read(&[("campaign", "c"), ("goal", ""), ("handleSeconds", "180")]);
        assert_eq!((entered.scope().as_str(), value), ("dial/c", Some(json!({"handleSeconds": 180}))));
        let (entered, value) = read(&[("campaign", " "), ("policy", "")]);
        assert_eq!(
            (entered.scope().as_str(), value),
            ("dial", Some(Value::Null)),
            "nothing set is withdrawn"
        );
    }
}
