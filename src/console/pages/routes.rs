//! Routing configurations: what each group got, against what it was due.

use maud::{Markup, html};

use super::chart::bar;
use super::parts::{ROUTE_ANSWERS, address, named};
use super::words::{number, percent};
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::model::decision::Loop;
use crate::model::name::{Kind, Names};
use crate::model::settings::{ROUTE, RouteWeights};
use crate::postgres::console::ShareLine;

const MOST: i64 = 200;

pub(super) async fn view(shared: &Shared) -> Result<(String, Markup), Problem> {
    let routes = shared.database.route_shares(MOST).await?;
    let weights = shared.database.settings(ROUTE, 1_000).await?;
    let newest = shared.database.newest_decisions(Loop::Route.name(), 1).await?.pop();
    let groups = routes.iter().flat_map(|route| &route.definition.rules).map(|rule| &*rule.destination.id);
    let names = shared.database.names_of(groups).await;
    let main = html! {
        h1 { "Routes" }
        p.soft { (about(newest.as_ref().map(|line| &*line.mode))) }
        @if routes.is_empty() {
            p.empty { "No routing configuration is in force. " code { "PUT /v1/routes/…" } " keeps a draft, " code { "POST …/publish" } " puts it in force." }
        }
        @for route in &routes {
            @let set = weights.iter().find(|setting| setting.scope.strip_prefix(ROUTE) == Some(&*route.configuration_id));
            @let set = set.and_then(|setting| serde_json::from_value::<RouteWeights>(setting.value.clone()).ok());
            (configuration(route, set.as_ref(), &names))
        }
    };
    Ok(("Routes".to_owned(), main))
}

/// What these answers do, and what `mode`, that of the newest one, means for them.
fn about(mode: Option<&str>) -> String {
    let publishing = match mode {
        Some("live") => {
            " Its mode is live: a configuration that is published here is in force for these answers, and is \
             published on the platform too where route.platform_publish says so."
        }
        Some(_) => {
            " Its mode is shadow: a configuration that is published here is in force for these answers, and \
             nothing is published on the platform."
        }
        None => " It has not been asked yet.",
    };
    format!("Here {ROUTE_ANSWERS}.{publishing}")
}

fn configuration(route: &ShareLine, set: Option<&RouteWeights>, names: &Names) -> Markup {
    let title = format!("route-{}", route.configuration_id);
    let weight = |rule: &crate::model::routing::RouteRule| {
        set.and_then(|set| set.weights.get(&rule.destination.id)).copied().unwrap_or(rule.weight)
    };
    let sum: f64 = route.definition.rules.iter().map(weight).sum();
    html! {
        section aria-labelledby=(title) {
            h2 #(title) { (route.definition.name) " (" (route.configuration_id) ")" }
            p {
                (route.decisions) " decisions, revision " (route.revision) ". "
                @if set.is_some() { span.badge.warn { "weights changed at run time" } " " }
                a href=(address("/ledger", &[("loop", "route"), ("key", &route.configuration_id)])) { "Its decisions" }
            }
            div.scroll tabindex="0" role="region" aria-labelledby=(title) {
                table {
                    caption { "The bar is the share since the configuration's counters began, the dashed line the target by the weights now in force. Behind is what a group is due and has not got, in interactions." }
                    thead { tr {
                        th scope="col" { "Group" } th.number scope="col" { "Decisions" } th.number scope="col" { "Share" } th.number scope="col" { "Target" }
                        th scope="col" { "Share against target" } th.number scope="col" { "Behind" }
                    } }
                    tbody {
                        @for rule in &route.definition.rules {
                            @let (deficit, decisions) = route.groups.get(&rule.destination.id).copied().unwrap_or_default();
                            @let got = if route.decisions > 0 { decisions as f64 / route.decisions as f64 } else { 0.0 };
                            @let target = if sum > 0.0 { weight(rule) / sum } else { 0.0 };
                            tr {
                                th scope="row" { (named(names.of(Kind::Flow, &rule.destination.id), &rule.destination.id)) @if rule.drain { " " span.badge.warn { "draining" } } }
                                td.number { (decisions) }
                                td.number { (percent(got)) }
                                td.number { (percent(target)) }
                                td { (bar(got, &[target], 1.0, "")) }
                                td.number { (number(deficit)) }
                            }
                        }
                    }
                }
            }
        }
    }
}
