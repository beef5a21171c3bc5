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
use crate::model::pause::{PauseInForce, Pauses};
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
    /// Newest first.
    newest: Vec<DecisionLine>,
    activity: Activity,
    /// The newest decision about each key that leaves it as it is.
    held: Vec<DecisionLine>,
}

/// What a loop is for, in a few words.
fn purpose(of: Loop) -> (&'static str, &'static str) {
    match of {
        Loop::Dial => ("sets how many lines a campaign dials for each idle agent", "/campaigns"),
        Loop::Rollback => ("puts the version before back in force when a flow fails", "/flows"),
        Loop::Lag => ("watches whether consumers of topics keep up, and tells people", "/lag"),
        Loop::Route => ("answers which group gets a conversation, by exact shares", "/routes"),
        Loop::Delivery => ("tries a new flow out on a small, rising share of conversations", "/canaries"),
    }
}

async fn standing(shared: &Shared, of: Loop) -> Result<Standing, Problem> {
    let database = &shared.database;
    let newest = database.newest_decisions(of.name(), NEWEST).await?;
    let is_route = of == Loop::Route;
    let activity = if is_route { Activity::default() } else { database.activity(of.name()).await? };
    let mut held = Vec::new();
    if matches!(of, Loop::Dial | Loop::Rollback) {
        held = database.held_by_key(of.name(), KEYS).await?;
    }
    Ok(Standing { of, newest, activity, held })
}

/// All loops, asked of together: each waits for the database several times.
async fn loops(shared: &Shared) -> Result<[Standing; Loop::ALL.len()], Problem> {
    let [first, second, third, fourth, fifth] = Loop::ALL.map(|of| standing(shared, of));
    Ok(tokio::try_join!(first, second, third, fourth, fifth)?.into())
}

/// The newest decisions of all loops but routing, newest first.
fn newest(loops: &[Standing]) -> Vec<DecisionLine> {
    let others = loops.iter().filter(|standing| standing.of != Loop::Route);
    let mut newest: Vec<DecisionLine> = others.flat_map(|standing| standing.newest.iter().cloned()).collect();
    newest.sort_by_key(|decision| std::cmp::Reverse((decision.decided_at, decision.decision_id)));
    newest.truncate(NEWEST as usize);
    newest
}

pub(super) async fn view(shared: &Shared, shell: &Shell) -> Result<(String, Markup), Problem> {
    let loops = loops(shared).await?;
    let shares = shared.database.route_shares(100).await?;
    let newest = newest(&loops);
    let mut canaries = shared.database.canaries().await?;
    canaries.retain(|canary| !canary.state.is_over());
    let names = canaries::names(shared, &canaries).await;
    let pauses = shell.pauses();
    let (reasons, mut impairments) = (shared.health.reasons(), shared.health.impairments());
    // Pauses have a place of their own.
    impairments.retain(|(part, _)| !part.starts_with("pause."));
    let main = html! {
        h1 { "What is being done now" }
        p.lead {
            "trunkline steers this contact centre by itself, with the loops below. To stop one of them or all: the red "
            "button at the top."
        }
        (summary(&loops, &pauses, reasons.is_empty() && impairments.is_empty()))
        (words_explained())
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

/// Who acts here, and how it is.
fn summary(loops: &[Standing], pauses: &Pauses, all_well: bool) -> Markup {
    let (paused, going): (Vec<_>, Vec<_>) =
        loops.iter().partition(|standing| pauses.stopping(standing.of).is_some());
    let names = |some: &[&Standing], mode: &str| -> Option<String> {
        let so = some.iter().filter(|standing| standing.newest.first().is_some_and(|line| line.mode == mode));
        let names: Vec<&str> = so.filter(|it| it.of != Loop::Route).map(|it| it.of.name()).collect();
        (!names.is_empty()).then(|| names.join(", "))
    };
    let stopped: Vec<&str> = paused.iter().map(|standing| standing.of.name()).collect();
    let is_asked = loops.iter().any(|standing| standing.of == Loop::Route && !standing.newest.is_empty());
    html! {
        ul {
            @match names(&going, "live") {
                Some(live) => li { strong { "Live" } ", so what they decide is carried out: " (live) },
                None => li { "No loop is live and goes on, so none changes anything" },
            }
            @if let Some(shadow) = names(&going, "shadow") {
                li { strong { "In shadow" } ", so what they decide is only recorded: " (shadow) }
            }
            @if !stopped.is_empty() { li { strong { "Paused" } ", so what they decide is only recorded: " (stopped.join(", ")) } }
            @if is_asked { li { strong { "Answering" } ": " (ROUTE_ANSWERS) } }
            li { @if all_well { "All parts of this instance work" } @else { "Not all parts of this instance work, see below" } }
        }
    }
}

/// Words of this page that people ask about.
const WORDS: &[(&str, &str)] = &[
    ("loop", "watches one thing, decides about it again and again by a rule, and records each decision"),
    ("live", "what the loop decides is carried out"),
    ("shadow", "the loop decides and records, and changes nothing"),
    ("paused", "somebody has stopped the loop: it decides and records, and changes nothing"),
    ("applied", "it was done, and the platform confirmed it"),
    ("unchanged", "nothing had to be changed"),
    ("shadowed", "it was only recorded: the loop is in shadow, or paused"),
    ("superseded", "a newer decision took its place before it was sent"),
    ("expired", "it came too late and was not sent"),
    ("conflicted", "somebody else kept changing the same thing, and it was given up"),
    ("failed", "the platform refused it, or it could not be carried out"),
    ("open", "what came of it is not recorded yet"),
];

fn words_explained() -> Markup {
    html! {
        details #words {
            summary { "What the words mean" }
            dl.words { @for (word, meaning) in WORDS { dt { (word) } dd { (meaning) } } }
        }
    }
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
    let newest = standing.newest.first();
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
                    p { span.value { (words::decided(line)) } ", because " (words::why(&line.reason)) "." }
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
                (activity(standing.of, &standing.activity))
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

fn activity(of: Loop, activity: &Activity) -> Markup {
    // Of lag nothing else comes than that it is told.
    let said = |status: &str| {
        if of == Loop::Lag && status == "open" { "told".to_owned() } else { words::spaced(status) }
    };
    html! {
        @if activity.decisions > 0 {
            p.small {
                "Last 10 min: " (activity.decisions) @if activity.decisions == 1 { " decision" } @else { " decisions" }
                @if activity.held > 0 { ", " (activity.held) " to leave things as they are" }
                "; "
                @for (index, (status, count)) in activity.statuses.iter().enumerate() {
                    @if index > 0 { ", " }
                    (said(status)) " " (count)
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
