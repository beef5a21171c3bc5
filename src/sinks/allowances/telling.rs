//! Shows how the month stands as metrics, and tells people before an allowance is used up.

use serde_json::json;

use super::{Settings, Told};
use crate::clock;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::alert::{Alert, details};
use crate::model::allowance::{Counted, Standing, Warning, poll_stretch};
use crate::model::decision::{DecisionId, Loop};
use crate::model::organization::qualified;
use crate::postgres::Database;
use crate::postgres::alerts::Raised;

/// Four fifths of an allowance are used.
pub(super) const NEARLY_USED: &str = "ALLOWANCE_NEARLY_USED";
/// Nothing is left of an allowance.
pub(super) const USED_UP: &str = "ALLOWANCE_USED_UP";
/// Campaigns looked at.
const MOST_CAMPAIGNS: i64 = 10_000;

const API_CALLS: &str = "api_calls";
const CALL_ATTEMPTS: &str = "call_attempts";

/// What an allowance is of.
#[derive(Clone, Copy)]
enum Of<'a> {
    /// Of an organisation; the first has no name.
    Calls(Option<&'a str>),
    /// Of all campaigns together.
    Attempts,
    Campaign(&'a str),
}

pub(super) async fn tell(settings: &Settings, database: &Database) {
    let now = clock::now();
    let mut alerts = Vec::new();
    for account in &settings.accounts {
        match database.calls_of_month(&account.credentials.account()).await {
            Ok(calls) => {
                let terms = account.calls;
                let stretch = poll_stretch(terms.per_month, calls.month_to_date, calls.demand(), now);
                let standing = Standing::new(terms, calls.counted(stretch), now);
                let of = account.organization.as_deref();
                show(&qualified(of, API_CALLS), &standing);
                alerts.extend(warning(Of::Calls(of), &standing, now));
            }
            Err(error) => tracing::debug!(%error, "how this month's calls stand is not known"),
        }
    }
    match database.attempts_of_month(MOST_CAMPAIGNS).await {
        Ok(campaigns) => {
            let mut all = Counted::default();
            for campaign in &campaigns {
                let counted = campaign.counted();
                all = Counted {
                    month_to_date: all.month_to_date + counted.month_to_date,
                    per_second: all.per_second + counted.per_second,
                };
                let terms = settings.attempts.of_campaign(&campaign.campaign_id);
                let standing = Standing::new(terms, counted, now);
                alerts.extend(warning(Of::Campaign(&campaign.campaign_id), &standing, now));
            }
            let standing = Standing::new(settings.attempts.all, all, now);
            show(CALL_ATTEMPTS, &standing);
            alerts.extend(warning(Of::Attempts, &standing, now));
        }
        Err(error) => tracing::debug!(%error, "how this month's call attempts stand is not known"),
    }
    raise(settings, database, alerts).await;
}

fn show(of: &str, standing: &Standing) {
    let show = |gauge: &metrics::Metric, value: Option<f64>| {
        if let Some(value) = value {
            gauge.gauge(&[of]).set(value);
        }
    };
    show(&metrics::ALLOWANCE_USED, Some(standing.month_to_date as f64));
    show(&metrics::ALLOWANCE_FORECAST, Some(standing.forecast as f64));
    show(&metrics::ALLOWANCE, standing.allowance.map(|allowance| allowance as f64));
    show(&metrics::ALLOWANCE_COST, standing.forecast_cost);
}

/// What people are told, once in a month each.
fn warning(of: Of<'_>, standing: &Standing, now: Timestamp) -> Option<Alert> {
    let incident_type = match standing.warning()? {
        Warning::NearlyUsed => NEARLY_USED,
        Warning::UsedUp => USED_UP,
    };
    let (what, key) = match of {
        Of::Calls(organization) => (API_CALLS, qualified(organization, API_CALLS)),
        Of::Attempts => (CALL_ATTEMPTS, CALL_ATTEMPTS.into()),
        Of::Campaign(id) => (CALL_ATTEMPTS, id.into()),
    };
    let campaign = match of {
        Of::Campaign(id) => json!(id),
        Of::Calls(_) | Of::Attempts => json!(null),
    };
    // No decision has led to it: its id stands for the allowance and the month.
    let identity = format!("{what}/{key}");
    let details = details([
        ("allowance_of", json!(what)),
        ("campaign_id", campaign),
        ("month", json!(now.month())),
        ("month_to_date", json!(standing.month_to_date)),
        ("allowance", json!(standing.allowance)),
        ("forecast", json!(standing.forecast)),
        ("forecast_cost", json!(standing.forecast_cost)),
    ]);
    Some(Alert {
        incident_type,
        decision_id: DecisionId::derive(Loop::Dial, &identity, 0, now.month()),
        r#loop: Loop::Dial,
        key: key.into_owned(),
        occurred_at: now,
        once_per: None,
        details,
    })
}

/// Queues alerts; what was raised before is left as it is, whichever instance did.
async fn raise(settings: &Settings, database: &Database, alerts: Vec<Alert>) {
    if alerts.is_empty() {
        return;
    }
    let raised = |alert: Alert| {
        let wants = |told: &&Told| {
            told.incident_types.is_empty()
                || told.incident_types.iter().any(|wanted| wanted == alert.incident_type)
        };
        let told = settings.receivers.iter().filter(wants);
        let receivers = told.map(|receiver| receiver.name.clone()).collect();
        // No record has raised it.
        let topic = String::new();
        Raised { alert, receivers, topic, topic_id: None, partition: -1, offset: -1, traceparent: None }
    };
    let raised: Vec<Raised> = alerts.into_iter().map(raised).collect();
    match database.raise(super::ROLE.name, &[], &raised).await {
        Ok(0) => {}
        Ok(new) => tracing::warn!(alerts = new, "allowances of this month are nearly or wholly used up"),
        Err(error) => tracing::warn!(?error, "nobody is told yet that allowances are nearly used up"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::allowance::Terms;

    fn alert(of: Of<'_>, used: u64, at: &str) -> Option<Alert> {
        let at: Timestamp = at.parse().unwrap();
        let terms = Terms { per_month: Some(1_000), price: Some(0.005) };
        let counted = Counted { month_to_date: used, per_second: 0.0 };
        warning(of, &Standing::new(terms, counted, at), at)
    }

    #[test]
    fn people_are_told_once_a_month_of_each_allowance() {
        const EARLY: &str = "2026-06-10T00:00:00.000Z";
        assert_eq!(alert(Of::Calls(None), 799, EARLY), None);
        let near = alert(Of::Calls(None), 800, EARLY).unwrap();
        assert_eq!((near.incident_type, near.details["allowance"].clone()), (NEARLY_USED, json!(1_000)));
        let id = |of, used, at| alert(of, used, at).unwrap().id();
        assert_eq!(id(Of::Calls(None), 999, "2026-06-20T00:00:00.000Z"), near.id(), "once a month");
        for other in [
            id(Of::Calls(None), 1_000, EARLY),
            id(Of::Calls(None), 800, "2026-07-01T00:00:00.000Z"),
            id(Of::Calls(Some("emea")), 800, EARLY),
            id(Of::Attempts, 800, EARLY),
            id(Of::Campaign("c"), 800, EARLY),
        ] {
            assert_ne!(other, near.id());
        }
        assert_eq!(alert(Of::Campaign("c"), 2_000, EARLY).unwrap().details["campaign_id"], json!("c"));
    }
}
