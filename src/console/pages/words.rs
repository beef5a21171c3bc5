//! How things are said to people.

use serde_json::Value;

use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::model::name::{Kind, Names};
use crate::postgres::console::DecisionLine;

use super::parts::called;

/// `3 s ago`, `5 min ago`.
pub(super) fn ago(millis: i64) -> String {
    let seconds = (millis.max(0) as f64 / 1_000.0).round() as i64;
    match seconds {
        0..90 => format!("{seconds} s ago"),
        90..5_400 => format!("{} min ago", (seconds + 30) / 60),
        5_400..129_600 => format!("{} h ago", (seconds + 1_800) / 3_600),
        _ => format!("{} days ago", (seconds + 43_200) / 86_400),
    }
}

/// A span of time.
pub(super) fn span(seconds: f64) -> String {
    match seconds {
        seconds if !seconds.is_finite() => "–".to_owned(),
        seconds if seconds < 10.0 => format!("{seconds:.1} s"),
        seconds if seconds < 90.0 => format!("{seconds:.0} s"),
        seconds if seconds < 5_400.0 => format!("{:.0} min", seconds / 60.0),
        seconds => format!("{:.1} h", seconds / 3_600.0),
    }
}

/// The time of day, to the second.
pub(super) fn clock(at: Timestamp) -> String {
    let text = at.to_string();
    text.split_once('T').map_or(text.clone(), |(_, time)| time.chars().take(8).collect())
}

pub(super) fn percent(share: f64) -> String {
    if share.is_finite() { format!("{:.1} %", share * 100.0) } else { "–".to_owned() }
}

/// Whole numbers whole, others with two decimals.
pub(super) fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    if value.fract() == 0.0 && value.abs() < 1e12 { format!("{value:.0}") } else { format!("{value:.2}") }
}

/// A rate, in lines per idle agent.
pub(super) fn rate(value: f64) -> String {
    if value.is_finite() { format!("{value:.2}") } else { "–".to_owned() }
}

pub(super) fn rate_of(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), rate)
}

pub(super) fn number_of(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), number)
}

pub(super) fn percent_of(value: &Value) -> String {
    value.as_f64().map_or_else(|| "–".to_owned(), percent)
}

/// A code as words.
pub(super) fn spaced(code: &str) -> String {
    code.replace('_', " ")
}

/// Why, for a reason's code; the code itself as words where none is known.
pub(super) fn why(reason: &str) -> String {
    let (code, rest) = reason.split_once(':').map_or((reason, ""), |(code, rest)| (code, rest.trim()));
    let said = match code {
        "towards_target" => "that brings answers closer to the target",
        "answer_rate_above_target" => "more calls are answered than aimed at",
        "answer_rate_below_target" => "fewer calls are answered than aimed at",
        "at_least_rate" => "that is the least the campaign allows",
        "at_greatest_rate" => "that is the most the campaign allows",
        "nobody_answers" => "nobody answers at the moment",
        "within_budget" => "that many answers find an agent",
        "abandonment_over_cap" => "more answers found no agent than the cap allows",
        "rising_slowly" => "it may only rise a little at a time",
        "counts_unknown" => "the platform does not tell what the rate does",
        "lag_error" => "the statistics' way here is behind",
        "other_writer" => "somebody else has set the rate",
        "attempts_used_up" => "the campaign has made all the call attempts it may make in this month",
        "no_data" => "no call was placed, so there is nothing to judge by",
        "nothing_known" => "nothing is known about it yet",
        "statistics_late" => "its statistics say nothing new",
        "statistics_stale" | "statistics_still_stale" => "its statistics have been old for too long",
        "change_below_hundredth" => "the right rate differs by less than a hundredth",
        "limits_contradict" => "its least rate is over its greatest",
        "already_decided" => "that was decided already",
        "already_at_rate" => "it was at that rate already",
        "within_threshold" => "errors are within what is allowed",
        "over_threshold" => "errors are over the threshold",
        "over_threshold_as_before" => "errors are over the threshold, as they were in the version before",
        "worse_than_before" => "it fails more than the version before",
        "inconclusive" => "there were too few interactions to tell",
        "breaches_in_a_row" => "errors have not been over the threshold for long enough",
        "awaiting_recovery" => "something was done already, and its effect is awaited",
        "maintenance_window" | "suppressed_by_maintenance_window" => "a maintenance window is open",
        "not_armed" => "the version has been in force for too long to take it back",
        "cooldown" => "something was done about it not long ago",
        "shadow_mode" => "the loop is in shadow mode",
        "confirmed" => "the platform confirmed it",
        "confirmed_by_reading_back" => "reading the platform back showed it in force",
        "called_already" => "people were told already",
        "still_over_threshold" => "it is still over the threshold",
        "no_need" => "there is no need",
        "warning_only" => "it is a warning only",
        "share" => "it was this group's turn by its share",
        "nobody_available" => "nobody was available in any group",
        "ok" => "it is well",
        "baseline_known" => "it is known how the flow in force does alone",
        "baseline_missing" => "it is not known yet how the flow in force does alone",
        "step_proven" => "it was no worse at the step before",
        "proven" => "it was no worse at any step",
        "candidate_worse" => "it fails more than the flow in force",
        "ordered" => "people have ordered it",
        "minutes_missing" => "this step has not lasted long enough",
        "interactions_missing" => "it has had too few interactions at this step",
        "certainty_missing" => "it is not certain enough that it is no worse",
        "no_minutes" => "no minutes of both flows come",
        "share_not_in_force" => "routing does not have the share of this step yet",
        "in_force_for_the_next_decision" => "it is in force for the next conversation",
        _ => return if rest.is_empty() { spaced(code) } else { format!("{}: {rest}", spaced(code)) },
    };
    if rest.is_empty() { said.to_owned() } else { format!("{said} ({rest})") }
}

/// What was decided, in a sentence without its end.
pub(super) fn decided(line: &DecisionLine) -> String {
    let (of, parameters) = (called(line.name(), &line.key), &line.parameters);
    let rate = |name: &str| parameters[name].as_f64().map(|rate| format!("{rate:.2}"));
    match (line.r#loop.as_str(), line.action.as_str()) {
        (name, "set_dial_rate") if name == Loop::Dial.name() => {
            let (from, to) = (rate("previousDialRate"), rate("dialRate"));
            let lowers = parameters["dialRate"].as_f64() < parameters["previousDialRate"].as_f64();
            format!(
                "{} the dial rate of campaign {of} from {} to {} lines per idle agent",
                if lowers { "Lower" } else { "Raise" },
                from.as_deref().unwrap_or("?"),
                to.as_deref().unwrap_or("?")
            )
        }
        (name, "hold") if name == Loop::Dial.name() => match rate("dialRate") {
            Some(at) => format!("Leave campaign {of} at {at} lines per idle agent"),
            None => format!("Leave campaign {of} as it is"),
        },
        (name, action) if name == Loop::Rollback.name() => {
            let version = parameters["flowVersion"].as_str().unwrap_or_default();
            let seen = format!(
                "{} errors, {} allowed",
                percent_of(&parameters["errorRate"]),
                percent_of(&parameters["threshold"])
            );
            match action {
                "rollback" => {
                    let to = parameters["candidates"][0]["flowVersion"].as_str();
                    let to = to.map(|to| format!(" to version {to}")).unwrap_or_default();
                    format!("Take flow {of} back from version {version}{to}: {seen}")
                }
                "alert" => format!("Tell people about flow {of}, version {version}: {seen}"),
                _ => format!("Leave flow {of} at version {version}"),
            }
        }
        (name, action) if name == Loop::Lag.name() => {
            let status = parameters["status"].as_str().unwrap_or("unknown");
            let what = match (action, parameters["replicas"].as_u64()) {
                ("scale_out", Some(replicas)) => format!("ask for {replicas} consumers"),
                ("hold", _) => "do nothing".to_owned(),
                (action, _) => spaced(action),
            };
            format!("Consumer group {of} is {}: {what}", spaced(status))
        }
        (name, _) if name == Loop::Route.name() => {
            let to = parameters["destinationId"].as_str().unwrap_or("?");
            let to = called(line.names.of(Kind::Flow, to), to);
            format!("Send the conversation to {to} by configuration {of}")
        }
        (name, action) if name == Loop::Delivery.name() => canary(&of, action, parameters, &line.names),
        (name, action) => format!("{}: {} for {of}", spaced(name), spaced(action)),
    }
}

/// What was decided about the canary of a routing configuration.
fn canary(of: &str, action: &str, parameters: &Value, names: &Names) -> String {
    let flow = |name: &str| {
        let id = parameters[name].as_str().unwrap_or("?");
        called(names.of(Kind::Flow, id), id)
    };
    let (candidate, control) = (flow("candidateId"), flow("controlId"));
    let share = percent_of(&parameters["share"]);
    match action {
        "set_share" => format!("Give flow {candidate} {share} of {of} beside flow {control}"),
        "abort" => format!("Take flow {candidate} away from {of}: flow {control} gets everything"),
        "promote" => format!("Publish flow {control} as flow {candidate} has proven it"),
        _ => format!("Leave flow {candidate} at {share} of {of}"),
    }
}

/// The whole sentence a person would say: what, why, and what came of it.
pub(super) fn sentence(line: &DecisionLine) -> String {
    format!("{}, because {}. {}", decided(line), why(&line.reason), ended(line))
}

/// What came of it.
pub(super) fn ended(line: &DecisionLine) -> String {
    let reason = line.outcome_reason.as_deref().map(why).unwrap_or_default();
    match line.status.as_deref() {
        None => match line.r#loop.as_str() {
            "route" => "It was carried out by being answered.".to_owned(),
            "lag" => "People and autoscalers are told; nothing else is changed.".to_owned(),
            _ => "What came of it is not recorded yet.".to_owned(),
        },
        Some("applied") => format!("It was done: {reason}."),
        Some("unchanged") if line.outcome_reason.as_ref() == Some(&line.reason) => {
            "Nothing had to be sent.".to_owned()
        }
        Some("unchanged") => format!("Nothing was sent: {reason}."),
        Some("shadowed") => format!("It was only recorded: {reason}."),
        Some("superseded") => "A newer decision took its place before it was sent.".to_owned(),
        Some("expired") => "It came too late and was not sent.".to_owned(),
        Some(status) => format!("It ended as {}: {reason}.", spaced(status)),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::decision::DecisionId;
    use crate::model::name::Named;
    use serde_json::json;

    fn line(of: &str, action: &str, reason: &str, parameters: Value) -> DecisionLine {
        let at = Timestamp::from_millis(1_767_323_045_678);
        DecisionLine {
            decision_id: DecisionId::derive(Loop::Dial, "c", 1, at),
            r#loop: of.to_owned(),
            key: "support".to_owned(),
            sequence: 1,
            mode: "live".to_owned(),
            action: action.to_owned(),
            reason: reason.to_owned(),
            parameters,
            inputs: Value::Null,
            decided_at: at,
            status: None,
            outcome_reason: None,
            names: Default::default(),
        }
    }

    #[test]
    fn a_decision_is_said_as_people_say_it() {
        let rates = json!({"previousDialRate": 2.0, "dialRate": 1.7});
        let mut lower = line("dial", "set_dial_rate", "at_least_rate", rates);
        lower.status = Some("applied".to_owned());
        lower.outcome_reason = Some("confirmed".to_owned());
        assert_eq!(
            sentence(&lower),
            "Lower the dial rate of campaign support from 2.00 to 1.70 lines per idle agent, because that is the \
             least the campaign allows. It was done: the platform confirmed it."
        );
        lower.status = Some("shadowed".to_owned());
        lower.outcome_reason = Some("paused by alice: storm".to_owned());
        assert!(sentence(&lower).ends_with("It was only recorded: paused by alice: storm."));
        let parameters = json!({"flowVersion": "12", "errorRate": 0.146, "threshold": 0.05,
            "candidates": [{"flowVersion": "11"}]});
        let back = line("rollback", "rollback", "worse_than_before", parameters);
        assert_eq!(
            decided(&back),
            "Take flow support back from version 12 to version 11: 14.6 % errors, 5.0 % allowed"
        );
        let held = line("dial", "hold", "no_data", json!({}));
        assert!(sentence(&held).starts_with("Leave campaign support as it is, because no call was placed"));
        let step = json!({"candidateId": "menu-2", "controlId": "menu", "share": 0.05});
        assert_eq!(
            sentence(&line("delivery", "set_share", "step_proven", step.clone())),
            "Give flow menu-2 5.0 % of support beside flow menu, because it was no worse at the step before. What came \
             of it is not recorded yet."
        );
        assert_eq!(
            decided(&line("delivery", "abort", "candidate_worse", step)),
            "Take flow menu-2 away from support: flow menu gets everything"
        );
        let named = [(Kind::Flow, "menu-2", "Main menu, new"), (Kind::Route, "support", "Support")];
        let named = named.into_iter().filter_map(|(kind, id, name)| Named::new(kind, id, name));
        let step = json!({"candidateId": "menu-2", "controlId": "menu", "share": 0.05});
        let step = line("delivery", "set_share", "step_proven", step);
        assert_eq!(
            decided(&DecisionLine { names: Arc::new(named.collect()), ..step }),
            "Give flow Main menu, new 5.0 % of Support beside flow menu"
        );
        let unheard = line("experiment", "next_step", "brand_new", json!([]));
        assert_eq!(decided(&unheard), "experiment: next step for support");
    }

    #[test]
    fn spans_and_numbers_are_short() {
        assert_eq!(
            (ago(-5), ago(89_400), ago(150_000)),
            ("0 s ago".into(), "89 s ago".into(), "3 min ago".into())
        );
        assert_eq!(
            (span(7.26), span(300.0), span(7_200.0)),
            ("7.3 s".into(), "5 min".into(), "2.0 h".into())
        );
        assert_eq!((number(3.0), number(1.234), number(f64::NAN)), ("3".into(), "1.23".into(), "–".into()));
        assert_eq!(clock(Timestamp::from_millis(1_767_323_045_678)), "03:04:05");
    }
}
