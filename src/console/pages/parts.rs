//! Small pieces that views are made of.

use std::time::Duration;

use maud::{Markup, html};

use super::words;
use crate::clock;
use crate::model::Timestamp;
use crate::model::decision::{DecisionId, Loop};
use crate::postgres::console::DecisionLine;

/// How long ago, kept up to date by the page's script.
pub(super) fn age(at: Timestamp) -> Markup {
    let now = clock::now();
    html! {
        time.age datetime=(at) title=(at) { (words::ago(now.millis_since(at))) }
    }
}

/// Around what changes something: switched off while the connection is lost.
pub(super) fn fieldset(inner: &Markup) -> Markup {
    html! { fieldset data-change { (inner) } }
}

/// What the mode of routing does not change.
pub(super) const ROUTE_ANSWERS: &str =
    "whoever asks routing is answered in every mode, and the conversation goes where the answer says";

/// How old a figure may get: two ticks of what it comes from.
pub(super) fn is_stale(at: Timestamp, tick: Duration) -> bool {
    !tick.is_zero() && clock::now().millis_since(at) > 2 * as_millis(tick)
}

pub(super) fn as_millis(tick: Duration) -> i64 {
    i64::try_from(tick.as_millis()).unwrap_or(i64::MAX / 2)
}

/// A figure with its name and its age; grey once it is older than two ticks.
pub(super) fn figure(name: &str, value: &str, at: Timestamp, tick: Duration) -> Markup {
    html! {
        div.stale[is_stale(at, tick)] data-at=(at) data-tick=(as_millis(tick)) {
            dt { (name) }
            dd { span.value { (value) } " " (age(at)) }
        }
    }
}

/// How a decision ended, as a word with a colour.
pub(super) fn status(status: Option<&str>) -> Markup {
    let (class, word) = match status {
        Some(word @ ("applied" | "recovered")) => ("badge good", word),
        Some(word @ ("failed" | "conflicted" | "not_recovered")) => ("badge bad", word),
        Some(word @ ("expired" | "superseded" | "shadowed")) => ("badge warn", word),
        Some(word) => ("badge", word),
        None => ("badge", "open"),
    };
    html! { span class=(class) { (words::spaced(word)) } }
}

/// The same for a decision. Not all are carried out by somebody.
pub(super) fn end(line: &DecisionLine) -> Markup {
    match (line.status.as_deref(), line.r#loop.as_str()) {
        (None, "route") => html! { span.badge { "answered" } },
        (None, "lag") => html! { span.badge { "told" } },
        (found, _) => status(found),
    }
}

/// `live` stands out: it acts. So does routing in every mode, by being asked.
pub(super) fn mode(of: &str, mode: &str) -> Markup {
    if of == Loop::Route.name() {
        return html! { span.badge.good title=(format!("in {mode} mode; {ROUTE_ANSWERS}")) { "answers" } };
    }
    html! { span.badge.good[mode == "live"] { (mode) } }
}

/// A link to a decision's page.
pub(super) fn to_decision(id: DecisionId, text: &str) -> Markup {
    html! { a href=(format!("/decisions/{id}")) { (text) } }
}

/// An id, cut where nothing but its beginning tells it apart.
pub(super) fn short(id: &str) -> String {
    const MOST: usize = 40;
    let is_uuid = id.len() == 36 && uuid::Uuid::try_parse(id).is_ok();
    if is_uuid {
        return format!("{}…", &id[..8]);
    }
    if id.chars().count() > MOST { id.chars().take(MOST - 1).chain(['…']).collect() } else { id.to_owned() }
}

/// The id of what a decision is about, in full for those who point at it.
pub(super) fn key(id: &str) -> Markup {
    html! { span.id title=(id) { (short(id)) } }
}

/// What people call it, or its id where nobody knows.
pub(super) fn called(name: Option<&str>, id: &str) -> String {
    name.map_or_else(|| short(id), str::to_owned)
}

/// The name with the id small beside it, or the id alone; the id in full for those who point at it.
pub(super) fn named(name: Option<&str>, id: &str) -> Markup {
    html! {
        @match name {
            Some(name) => span title=(id) { (name) " " span.id.small.soft { (short(id)) } },
            None => (key(id)),
        }
    }
}

/// The same, leading to its page at `path`.
pub(super) fn to_named(path: &str, name: Option<&str>, id: &str) -> Markup {
    html! {
        a href=(address(path, &[("id", id)])) title=(id) { (called(name, id)) }
        @if name.is_some() { " " span.id.small.soft { (short(id)) } }
    }
}

/// An address with a query of these names and values.
pub(super) fn address(path: &str, query: &[(&str, &str)]) -> String {
    let mut text = form_urlencoded::Serializer::new(String::new());
    for (name, value) in query.iter().filter(|(_, value)| !value.is_empty()) {
        text.append_pair(name, value);
    }
    let query = text.finish();
    if query.is_empty() { path.to_owned() } else { format!("{path}?{query}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_put_into_an_address_stays_one_part_of_it() {
        let address = address("/flows", &[("id", "a/b?c=<d>&é"), ("cursor", "")]);
        assert_eq!(address, "/flows?id=a%2Fb%3Fc%3D%3Cd%3E%26%C3%A9");
        assert_eq!(short("6e1a0c3d-2b1f-4c0e-8d6e-6a3b0c1d2e3f"), "6e1a0c3d…");
        assert_eq!(short("demo-readers"), "demo-readers");
    }

    #[test]
    fn routing_is_never_said_to_be_in_shadow() {
        let shown = |of: Loop| mode(of.name(), "shadow").into_string();
        assert!(shown(Loop::Route).contains(">answers<"), "it answers in every mode");
        assert!(shown(Loop::Dial).contains(">shadow<"));
    }

    #[test]
    fn a_name_stands_first_and_its_id_beside_it() {
        let id = "6e1a0c3d-2b1f-4c0e-8d6e-6a3b0c1d2e3f";
        let drawn = to_named("/flows", Some("<i>Menu</i>"), id).into_string();
        assert!(drawn.contains(">&lt;i&gt;Menu&lt;/i&gt;</a>") && drawn.contains(">6e1a0c3d…<"), "{drawn}");
        assert_eq!(named(None, id).into_string(), key(id).into_string());
    }

    #[test]
    fn figures_older_than_two_ticks_are_grey() {
        let tick = Duration::from_secs(30);
        let now = clock::now();
        assert!(!is_stale(now.minus(Duration::from_secs(55)), tick));
        assert!(is_stale(now.minus(Duration::from_secs(65)), tick));
        assert!(!is_stale(Timestamp::from_millis(0), Duration::ZERO), "without a tick nothing is due");
        let drawn = figure("Rate", "<b>2.0</b>", now.minus(Duration::from_secs(65)), tick).into_string();
        assert!(drawn.contains("stale") && drawn.contains("&lt;b&gt;"), "{drawn}");
    }
}
