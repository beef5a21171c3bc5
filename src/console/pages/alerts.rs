//! What people were told, and whether it reached them.

use maud::{Markup, html};

use super::parts::{age, named, to_decision};
use super::words::spaced;
use crate::console::Shared;
use crate::console::problem::Problem;
use crate::postgres::console::{AlertLine, Delivery};

const MOST: i64 = 200;

pub(super) async fn view(shared: &Shared) -> Result<(String, Markup), Problem> {
    let alerts = shared.database.newest_alerts(None, MOST).await?;
    let main = html! {
        h1 { "Alerts" }
        (table(&alerts))
    };
    Ok(("Alerts".to_owned(), main))
}

pub(super) fn table(alerts: &[AlertLine]) -> Markup {
    html! {
        @if alerts.is_empty() {
            p.empty { "Nobody had to be told of anything." }
        } @else {
            div.scroll tabindex="0" role="region" aria-label="Alerts" {
                table {
                    caption { "Newest first. Each leads to the decision it is about." }
                    thead { tr {
                        th scope="col" { "When" } th scope="col" { "Incident" } th scope="col" { "About" } th scope="col" { "Decision" }
                        th scope="col" { "Told" } th scope="col" { "Details" }
                    } }
                    tbody {
                        @for alert in alerts {
                            tr {
                                td { (age(alert.occurred_at)) }
                                th scope="row" { (alert.incident_type) }
                                td { (alert.r#loop) " " (named(alert.name.as_deref(), &alert.key)) }
                                td { (to_decision(alert.decision_id, "why")) }
                                td {
                                    @if alert.deliveries.is_empty() { span.soft { "no receiver" } }
                                    @for delivery in &alert.deliveries { div { (told(delivery)) } }
                                }
                                td { details { summary { "Body" } code { (alert.body) } } }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn told(delivery: &Delivery) -> Markup {
    let class = match delivery.status.as_str() {
        "delivered" => "badge good",
        "given_up" => "badge bad",
        _ => "badge warn",
    };
    html! {
        (delivery.receiver) " " span class=(class) { (spaced(&delivery.status)) }
        @if delivery.status != "delivered" {
            @if let Some(error) = &delivery.error { " " span.small.soft { (error) } }
        }
    }
}
