//! What stands around every view: where to go, who is looking, what is stopped, and how to stop.

use std::time::Duration;

use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::parts::{age, fieldset};
use crate::clock;
use crate::console::access::Caller;
use crate::console::{Shared, Ticks};
use crate::model::Timestamp;
use crate::model::decision::Loop;
use crate::model::pause::{Extent, Pauses, REASON_LIMIT};

/// The views, as the head lists them.
pub(super) const VIEWS: &[(&str, &str)] = &[
    ("/", "Now"),
    ("/campaigns", "Campaigns"),
    ("/flows", "Flows"),
    ("/lag", "Lag"),
    ("/routes", "Routes"),
    ("/canaries", "Canaries"),
    ("/platform", "Platform"),
    ("/alerts", "Alerts"),
    ("/ledger", "Ledger"),
    ("/settings", "Settings"),
];

/// What all pages of one request share.
pub(super) struct Shell {
    /// Path of the view in [`VIEWS`] that the page belongs to.
    here: &'static str,
    /// Path and query of this page: where a form leads back to.
    back: String,
    pub at: Timestamp,
    pub caller: Caller,
    pauses: Option<Pauses>,
    /// The ledger's, before anything of the page was read: what comes after it is news.
    version: String,
    ticks: Ticks,
}

impl Shell {
    /// Asks which loops are paused; where nobody answers the page says that it is not known.
    pub(super) async fn of(
        shared: &Shared,
        caller: Caller,
        here: &'static str,
        back: &axum::http::Uri,
    ) -> Self {
        let version = shared.database.ledger_version().await.unwrap_or_default();
        let pauses = match shared.database.pauses().await {
            Ok(pauses) => Some(pauses),
            Err(error) => {
                tracing::warn!(%error, "a page cannot tell which loops are paused");
                None
            }
        };
        let back = back.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        Self { here, back, at: clock::now(), caller, pauses, version, ticks: shared.ticks }
    }

    /// How often a loop looks: two of these, and a figure is old.
    pub(super) fn tick_of(&self, of: Loop) -> Duration {
        match of {
            Loop::Dial => self.ticks.dial,
            Loop::Lag => self.ticks.lag,
            Loop::Rollback | Loop::Route | Loop::Delivery => Duration::ZERO,
        }
    }

    pub(super) fn pauses(&self) -> Pauses {
        self.pauses.clone().unwrap_or_default()
    }

    /// The whole page.
    pub(super) fn around(&self, title: &str, main: &Markup) -> Markup {
        html! {
            (DOCTYPE)
            html lang="en" {
                head {
                    meta charset="utf-8";
                    meta name="viewport" content="width=device-width, initial-scale=1";
                    title { (title) " · trunkline" }
                    link rel="stylesheet" href=(assets::address("console.css"));
                    link rel="icon" type="image/svg+xml" href=(assets::address("icon.svg"));
                    script src=(assets::address("console.js")) defer {}
                }
                body data-stream="/v1/stream" data-version=(self.version) {
                    a.skip href="#live" { "To the content" }
                    (self.head())
                    div #state role="status" { (self.state()) }
                    p.notice.lost #lost role="alert" hidden {
                        "Connection lost: what you see may be old, and nothing can be changed from here until it is back."
                    }
                    main #live { (main) }
                    footer {
                        "trunkline " (env!("CARGO_PKG_VERSION")) " · figures as of " (age(self.at))
                        " · times are UTC"
                    }
                }
            }
        }
    }

    fn head(&self) -> Markup {
        html! {
            header.head {
                a.brand href="/" { "trunkline" }
                @if self.caller.may_operate() {
                    button.stop popovertarget="stop" { "Stop a loop" }
                    (self.stop())
                }
                nav aria-label="Views" {
                    ul {
                        @for (path, name) in VIEWS {
                            li { a href=(path) aria-current=[(*path == self.here).then_some("page")] { (name) } }
                        }
                    }
                }
                div.who {
                    span title="Changes made here are recorded under this name" { "as " (self.caller.name) }
                    @if self.caller.session().is_some() {
                        form method="post" action="/logout" {
                            (self.token())
                            button.plain { "Log out" }
                        }
                    }
                }
            }
        }
    }

    /// The form behind the button.
    fn stop(&self) -> Markup {
        let form = html! {
            label for="stop-loop" { "What" }
            select #stop-loop name="loop" {
                @for extent in Extent::every() {
                    option value=(extent) { @if extent == Extent::All { "All loops" } @else { (extent) } }
                }
            }
            label for="stop-reason" { "Why (everybody will see it)" }
            input #stop-reason name="reason" required maxlength=(REASON_LIMIT) autocomplete="off";
            div.row {
                button.stop type="submit" { "Stop it now" }
                button type="button" popovertarget="stop" popovertargetaction="hide" { "Cancel" }
            }
        };
        html! {
            div.asked #stop popover role="dialog" aria-labelledby="stop-title" {
                h2 #stop-title { "Stop a loop" }
                p.small {
                    "It goes on deciding and recording and changes nothing outside, on every instance, within two "
                    "seconds. Routing keeps answering by the weights in force."
                }
                form method="post" action="/pause" {
                    (self.token())
                    (fieldset(&form))
                }
            }
        }
    }

    /// What is stopped, with a way back.
    fn state(&self) -> Markup {
        let Some(pauses) = &self.pauses else {
            return html! {
                p.notice.lost { "The database does not answer: which loops are paused is not known here." }
            };
        };
        html! {
            @for (extent, pause) in pauses.iter() {
                div.notice {
                    strong { @if extent == Extent::All { "All loops are paused" } @else { (extent) " is paused" } }
                    span { (pause.reason) }
                    span.soft { "by " (pause.who) ", " (age(pause.since)) }
                    @if self.caller.may_operate() {
                        form method="post" action="/resume" {
                            (self.token())
                            input type="hidden" name="loop" value=(extent);
                            (fieldset(&html! { button type="submit" { "Let " (extent) " go on" } }))
                        }
                    }
                }
            }
        }
    }

    /// What a form must carry to be ours.
    pub(super) fn token(&self) -> Markup {
        html! {
            input type="hidden" name="csrf" value=(self.caller.csrf());
            input type="hidden" name="back" value=(self.back);
        }
    }
}
