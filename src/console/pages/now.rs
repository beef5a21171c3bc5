//! The first page: what is being done to the centre, by which loop, why, and what is held.

use std::time::Duration;

use maud::{Markup, html};

use super::parts::{ROUTE_ANSWERS, age, end, mode, named, to_decision, to_named};
use super::shell::Shell;
use super::{canaries, words};
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::model::decision::Loop;
use crate::model::delivery::share_in_percent;
use crate::model::name::{Kind, Names};
use crate::model::pause::PauseInForce;
use crate::postgres::canaries::Canary;
use crate::postgres::console::{Activity, DecisionLine, ShareLine};

/// Keys of one loop that are looked through for what is held.
const KEYS: i64 = 200;
/// Of these so many are shown.
const HELD_SHOWN: usize = 8;
const NEWEST: i64 = 12;

/// What is known of one loop.
struct Standing {
    of: Loop,
    newest: Option<DecisionLine>,
    activity: Activity,
    /// The newest decision about each key that leaves it as it is.
    held: Vec<DecisionLine>,
}

/// What a loop is for, in a few words.
fn purpose(of: Loop) -> (&'static str, &'static str) {
    match of {
        Loop::Dial => ("sets the dial rate of campaigns", "/campaigns"),
        Loop::Rollback => ("takes bad flow versions back", "/flows"),
        Loop::Lag => ("watches consumer groups", "/lag"),
        Loop::Route => ("shares conversations out to groups", "/routes"),
        Loop::Delivery => ("tries flows out by exact shares", "/canaries"),
    }
}

async fn standing(shared: &Shared, of: Loop) -> Result<Standing, Problem> {
    let database = &shared.database;
    let newest = database.newest_decisions(of.name(), 1).await?.pop();
    let is_route = of == Loop::Route;
    let activity = if is_route { Activity::default() } else { database.activity(of.name()).await? };
    let mut held = Vec::new();
    if matches!(of, Loop::Dial | Loop::Rollback) {
        held = database.newest_by_key(of.name(), KEYS).await?;
        held.retain(|line| line.action == "hold" || line.status.as_deref() == Some("shadowed"));
    }
    Ok(Standing { of, newest, activity, held })
}

pub(super) async fn view(shared: &Shared, shell: &Shell) -> Result<(String, Markup), Problem> {
    let mut loops = Vec::new();
    for of in Loop::ALL {
        loops.push(standing(shared, of).await?);
    }
    let shares = shared.database.route_shares(100).await?;
    let mut newest = Vec::new();
    for of in [Loop::Dial, Loop::Rollback, Loop::Lag, Loop::Delivery] {
        newest.extend(shared.database.newest_decisions(of.name(), NEWEST).await?);
    }
    newest.sort_by_key(|decision| std::cmp::Reverse((decision.decided_at, decision.decision_id)));
    newest.truncate(NEWEST as usize);
    let mut canaries = shared.database.canaries().await?;
    canaries.retain(|canary| !canary.state.is_over());
    let names = canaries::names(shared, &canaries).await;
    let pauses = shell.pauses();
    let (reasons, mut impairments) = (shared.health.reasons(), shared.health.impairments());
    // Pauses have a place of their own.
    impairments.retain(|(part, _)| !part.starts_with("pause."));
    let main = html! {
        h1 { "What is being done now" }
        p.lead { (summary(&loops, reasons.is_empty() && impairments.is_empty())) }
        (parts(&reasons, &impairments))
        ul.cards {
            @for standing in &loops {
                li { (card(shell, standing, pauses.stopping(standing.of), (&shares, &canaries, &names))) }
            }
        }
        h2 { "Newest decisions" }
        (super::ledger::table(&newest, "The newest decisions of all loops but routing"))
    };
    Ok(("Now".to_owned(), main))
}

/// The first sentence of the page.
fn summary(loops: &[Standing], all_well: bool) -> String {
    let live: Vec<&str> = loops
        .iter()
        .filter(|standing| standing.of != Loop::Route)
        .filter(|standing| standing.newest.as_ref().is_some_and(|line| line.mode == "live"))
        .map(|standing| standing.of.name())
        .collect();
    let acting = match live[..] {
        [] => "No loop changes anything outside: none has decided in live mode.".to_owned(),
        [one] => format!("The loop {one} may change the centre; the others only watch."),
        _ => format!("The loops {} may change the centre.", live.join(", ")),
    };
    let asked = loops.iter().any(|standing| standing.of == Loop::Route && standing.newest.is_some());
    let answering = if asked { format!(" In any case {ROUTE_ANSWERS}.") } else { String::new() };
    let well = if all_well {
        "All parts of this instance work."
    } else {
        "Not all parts of this instance work, see below."
    };
    format!("{acting}{answering} {well} To stop any of it: the red button at the top.")
}

/// What does not work.
fn parts(reasons: &[(String, String)], impairments: &[(String, String)]) -> Markup {
    html! {
        @if !reasons.is_empty() || !impairments.is_empty() {
            section aria-labelledby="parts" {
                h2 #parts { "What does not work in this instance" }
                ul {
                    @for (part, reason) in reasons {
                        li { span.badge.bad { "not ready" } " " strong { (part) } ": " (reason) }
                    }
                    @for (part, reason) in impairments {
                        li { span.badge.warn { "impaired" } " " strong { (part) } ": " (reason) }
                    }
                }
            }
        }
    }
}

fn card(
    shell: &Shell,
    standing: &Standing,
    pause: Option<&PauseInForce>,
    (shares, canaries, names): (&[ShareLine], &[Canary], &Names),
) -> Markup {
    let (purpose, path) = purpose(standing.of);
    // Only the dial loop decides at every tick; the others when something changes.
    let tick = if standing.of == Loop::Dial { shell.tick_of(Loop::Dial) } else { Duration::ZERO };
    let newest = standing.newest.as_ref();
    html! {
        article.card.paused[pause.is_some()] aria-labelledby=(format!("loop-{}", standing.of.name())) {
            div.top {
                h3 #(format!("loop-{}", standing.of.name())) { a href=(path) { (standing.of.name()) } }
                @match newest { Some(line) => (mode(&line.r#loop, &line.mode)), None => span.badge { "nothing decided" } }
                @if let Some(pause) = pause { span.badge.warn { "paused by " (pause.who) } }
            }
            p.soft.small { (purpose) }
            @if let Some(line) = newest {
                @let stale = super::parts::is_stale(line.decided_at, tick);
                div.stale[stale] data-at=(line.decided_at) data-tick=(super::parts::as_millis(tick)) {
                    p { span.value { (words::decided(line)) } "." }
                    p.small {
                        (end(line)) " " (to_decision(line.decision_id, "why")) " " (age(line.decided_at))
                    }
                }
            } @else {
                p.soft { "Nothing is recorded of this loop yet." }
            }
            @if standing.of == Loop::Route {
                @for share in shares.iter().take(3) {
                    p.small { (named(Some(&*share.definition.name), &share.configuration_id)) ": " (share.decisions) " decisions so far" }
                }
            } @else {
                (activity(&standing.activity))
            }
            @if standing.of == Loop::Delivery { (under_way(canaries, names)) }
            (held(&standing.held))
        }
    }
}

/// Flows that are tried out now.
fn under_way(canaries: &[Canary], names: &Names) -> Markup {
    html! {
        @for canary in canaries.iter().take(HELD_SHOWN) {
            p.small {
                (to_named("/canaries", None, &canary.id)) " " (canaries::state(canary.state)) " "
                (named(names.of(Kind::Flow, &canary.candidate_id), &canary.candidate_id)) " has " (share_in_percent(canary.share)) ": " (canaries::why(canary))
            }
        }
    }
}

fn activity(activity: &Activity) -> Markup {
    html! {
        @if activity.decisions > 0 {
            p.small {
                "Last 10 min: " (activity.decisions) @if activity.decisions == 1 { " decision" } @else { " decisions" }
                @if activity.held > 0 { ", " (activity.held) " to leave things as they are" }
                "; "
                @for (index, (status, count)) in activity.statuses.iter().enumerate() {
                    @if index > 0 { ", " }
                    (words::spaced(status)) " " (count)
                }
            }
        }
    }
}

/// What is held and why.
fn held(held: &[DecisionLine]) -> Markup {
    html! {
        @if !held.is_empty() {
            details #(format!("held-{}", held[0].r#loop)) {
                summary { (held.len()) " left as " @if held.len() == 1 { "it is" } @else { "they are" } }
                ul {
                    @for line in held.iter().take(HELD_SHOWN) {
                        li.small {
                            (named(line.name(), &line.key)) ": " (why_held(line)) " " (to_decision(line.decision_id, "why")) " "
                            (age(line.decided_at))
                        }
                    }
                    @if held.len() > HELD_SHOWN { li.small { "and " (held.len() - HELD_SHOWN) " more" } }
                }
            }
        }
    }
}

fn why_held(line: &DecisionLine) -> String {
    match (line.status.as_deref(), &line.outcome_reason) {
        (Some("shadowed"), Some(reason)) if line.action != "hold" => words::why(reason),
        _ => words::why(&line.reason),
    }
}
