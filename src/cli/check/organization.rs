//! What a real organisation has set that concerns the loops: read and told, never changed.

use super::{Finding, scope};
use crate::clock;
use crate::config::{Config, Dialect};
use crate::genesys::{
    CallError, CallErrorKind, CallsMade, Campaign, CampaignRule, Changed, Client, DetailsQuery,
    OutboundSettings,
};
use crate::model::Timestamp;
use crate::model::allowance::{Counted, Standing, Terms};
use crate::topology::settings;

/// A conversation that nobody has: whether details may be read shows all the same.
const NO_CONVERSATION: &str = "00000000-0000-4000-8000-000000000000";
/// The platform's allowance of calls for each named user of its smallest edition and month.
const CALLS_PER_USER: u64 = 75_000;

/// Everything, loop by loop; nothing in the seed dialect, which does not tell.
pub(super) async fn findings(client: &Client, config: &Config) -> Vec<Finding> {
    if config.genesys.dialect == Dialect::Seed {
        return Vec::new();
    }
    let (dial, flows, enrichment, allowances) = tokio::join!(
        dial(client, config),
        rollback(client, config),
        enrichment(client, config),
        allowances(client, config)
    );
    let mut findings = vec![Finding::note(
        "dialect platform",
        "the platform has no analytics of consumer groups and publishes no routing configurations: lag is \
         measured at the broker alone, and routes take effect in trunkline alone",
    )];
    for found in [dial, flows, enrichment, allowances] {
        findings.extend(found);
    }
    findings
}

/// A call that some loop makes, and the permission without which it cannot.
fn needs<T>(what: &str, permission: &str, result: &Result<T, CallError>) -> Finding {
    match result {
        Ok(_) => Finding::good(what),
        Err(error) if error.kind == CallErrorKind::Forbidden => Finding::bad(
            what,
            format!("{error}; give a role of the OAuth client the permission {permission}"),
        ),
        Err(error) => Finding::bad(what, error),
    }
}

async fn dial(client: &Client, config: &Config) -> Vec<Finding> {
    if config.dial.mode.is_none() || config.dial.campaigns.is_empty() {
        return Vec::new();
    }
    let settings = client.outbound_settings(&scope()).await;
    let mut findings = vec![needs("dial: outbound settings", "outbound:settings:view", &settings)];
    let settings = settings.ok().flatten();
    findings.extend(settings.as_ref().map(abandon_rate));
    client.expect_campaigns(config.dial.campaigns.iter().map(String::as_str));
    let rules = client.campaign_rules(&scope()).await;
    findings.push(needs("dial: campaign rules", "outbound:campaignRule:view", &rules));
    let rules = rules.unwrap_or_default();
    for id in &config.dial.campaigns {
        let statistics = client.campaign_statistics(id, &scope()).await;
        let permissions = "outbound:campaign:view, analytics:conversationAggregate:view and \
            analytics:queueObservation:view";
        findings.push(needs(&format!("dial: statistics of campaign {id}"), permissions, &statistics));
        findings.extend(rules_on(id, &rules));
        if let (Ok(campaign), Some(settings)) = (client.campaign(id, &scope()).await, &settings) {
            findings.extend(own_target(&campaign, settings));
            findings.extend(low_rate_alert(&campaign, settings));
        }
    }
    findings
}

/// What the platform's own abandon rate means, beside the one of the rules.
fn abandon_rate(settings: &OutboundSettings) -> Finding {
    let seconds = settings.abandon_seconds.map_or("an unknown time".to_owned(), |it| format!("{it} s"));
    let what = "dial: the platform's own abandon rate";
    match settings.abandon_denominator.as_deref() {
        Some("ALL_CALLS") => Finding::note(
            what,
            format!(
                "is divided by ALL_CALLS, busy and not answered ones too: with a connect rate of 0.15 its 3 % are \
                 20 % of the live answers. The rules of most regulators count live answers alone: trunkline does, \
                 and brakes long before the dashboard shows 3 %. A call counts as abandoned after {seconds}"
            ),
        ),
        Some(other) => Finding::note(
            what,
            format!(
                "is divided by {other}, comparable with trunkline's; a call counts as abandoned after {seconds}"
            ),
        ),
        None => Finding::note(
            what,
            format!("does not say what it is divided by; calls are abandoned after {seconds}"),
        ),
    }
}

/// The abandon rate that the campaign itself is set to.
fn own_target(campaign: &Campaign, settings: &OutboundSettings) -> Option<Finding> {
    let definition = campaign.definition.as_ref()?;
    let percent = definition.whole.get("abandonRate")?.as_f64()?;
    let denominator = settings.abandon_denominator.as_deref().unwrap_or("whatever the platform counts");
    Some(Finding::note(
        format!("dial: campaign {}", campaign.id),
        format!(
            "its own abandonRate is {percent} % of {denominator}: the platform's dialler slows down by that figure, \
             trunkline by its own cap of the live answers, and whichever is lower binds"
        ),
    ))
}

fn rules_on(campaign: &str, rules: &[CampaignRule]) -> Vec<Finding> {
    let touching = rules.iter().filter_map(|rule| {
        let actions: Vec<&str> = rule.actions_on(campaign).collect();
        (!actions.is_empty()).then(|| {
            Finding::note(
                format!("dial: campaign {campaign}"),
                format!(
                    "the enabled campaign rule {:?} changes it as well ({}): where it changes the rate between two of \
                     trunkline's changes, that is respected for a tick and recorded as other_writer",
                    rule.name,
                    actions.join(", ")
                ),
            )
        })
    });
    touching.collect()
}

/// The platform warns of campaigns whose ceiling is below the organisation's, which is what a
/// brake does.
fn low_rate_alert(campaign: &Campaign, settings: &OutboundSettings) -> Option<Finding> {
    let reports = campaign.definition.as_ref().is_some_and(|definition| definition.reports_low_rate);
    let reaches = campaign.min_dial_rate < settings.max_calls_per_agent;
    (reports && reaches).then(|| {
        Finding::note(
            format!("dial: campaign {}", campaign.id),
            format!(
                "below {} calls per agent the platform raises its low-max-calls alert, which is what dialling slowly \
                 does; its diagnosticsSettings.reportLowMaxCallsPerAgentAlert = false switches that off",
                settings.max_calls_per_agent
            ),
        )
    })
}

async fn rollback(client: &Client, config: &Config) -> Vec<Finding> {
    if config.rollback.mode.is_none() {
        return Vec::new();
    }
    let watched = settings::flow_poller(config);
    let mut findings = Vec::new();
    for id in &watched.flows {
        // That it can be read at all is looked at for every dialect.
        if let Ok(flow) = client.flow(id, &scope()).await
            && let Some(who) = flow.locked_by
        {
            let problem =
                format!("it is locked by {who}: until it is unlocked no version can be put in force");
            findings.push(Finding::bad(format!("rollback: flow {id}"), problem));
        }
    }
    if let Some(id) = watched.polled.first() {
        let until = clock::now().minus(watched.settling);
        let measures = client.flow_measures(id, until.minus(watched.minute), until, &scope()).await;
        findings.push(needs("rollback: measures of flows", "analytics:flowAggregate:view", &measures));
    }
    if let Some(id) = watched.flows.first() {
        findings.push(audits(client, id).await);
    }
    findings
}

/// Without it, who changed something between two of our changes has no name.
async fn audits(client: &Client, flow: &str) -> Finding {
    match client.ask_last_writer(Changed::Flow, flow, &scope()).await {
        Ok(_) => Finding::good("who else writes: audits"),
        Err(error) => Finding::note(
            "who else writes: audits",
            format!(
                "cannot be read ({error}): other writers stay without a name; audits:audit:view shows it"
            ),
        ),
    }
}

async fn enrichment(client: &Client, config: &Config) -> Vec<Finding> {
    if !config.enrichment.mode.is_on() {
        return Vec::new();
    }
    let now: Timestamp = clock::now();
    let query = DetailsQuery { conversation_ids: &[NO_CONVERSATION], from: now, to: now };
    let details = client.conversation_details(&query, &scope()).await;
    vec![needs("enrichment: details of conversations", "analytics:conversationDetail:view", &details)]
}

async fn allowances(client: &Client, config: &Config) -> Vec<Finding> {
    let what = "allowance: API calls of this month";
    vec![match client.calls_this_month(&scope()).await {
        Ok(Some(made)) => Finding::note(what, calls_left(made, config.genesys.calls(), clock::now())),
        Ok(None) => Finding::good(what),
        Err(error) => Finding::note(
            what,
            format!("cannot be read ({error}); usage:organization:view or oauth:client:view shows it"),
        ),
    }]
}

/// What is left of the month's calls, were they to go on as in the month so far.
fn calls_left(made: CallsMade, terms: Terms, at: Timestamp) -> String {
    let month_to_date = made.own.saturating_add(made.others);
    let elapsed_seconds = (at.millis_since(at.month()) as f64 / 1_000.0).max(3_600.0);
    let counted = Counted { month_to_date, per_second: month_to_date as f64 / elapsed_seconds };
    let standing = Standing::new(terms, counted, at);
    let so_far = format!(
        "{month_to_date} calls by all clients of the organisation so far, {} of them ours; about {} by the month's end",
        made.own, standing.forecast
    );
    match standing.allowance.zip(standing.left) {
        Some((allowance, left)) => {
            format!("{so_far}; {left} of {allowance} are left (genesys.calls_per_month)")
        }
        None => format!(
            "{so_far}; {CALLS_PER_USER} and more are included for each named user and month, by edition, and those \
             beyond are billed: say how many in genesys.calls_per_month"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::genesys::Definition;

    fn text(finding: &Finding) -> &str {
        finding.note.as_deref().or(finding.problem.as_deref()).unwrap_or_default()
    }

    fn outbound(denominator: &str) -> OutboundSettings {
        OutboundSettings {
            max_calls_per_agent: 15.0,
            abandon_seconds: Some(2.0),
            abandon_denominator: Some(denominator.to_owned()),
        }
    }

    #[test]
    fn a_rate_over_all_calls_is_explained() {
        assert!(text(&abandon_rate(&outbound("ALL_CALLS"))).contains("20 % of the live answers"));
        let comparable = abandon_rate(&outbound("CALLS_THAT_REACHED_QUEUE"));
        assert!(text(&comparable).contains("comparable") && comparable.problem.is_none());
    }

    #[test]
    fn what_is_left_of_the_months_calls_is_told() {
        let at = "2026-06-16T00:00:00.000Z".parse().unwrap();
        let made = CallsMade { own: 600, others: 400 };
        let left = |per_month| calls_left(made, Terms { per_month, price: None }, at);
        assert!(
            left(Some(1_500))
                .contains("1000 calls by all clients of the organisation so far, 600 of them ours")
        );
        assert!(left(Some(1_500)).contains("about 2000 by the month's end; 500 of 1500 are left"));
        assert!(left(None).contains("genesys.calls_per_month"));
    }

    #[test]
    fn a_campaigns_own_target_is_told_with_what_it_is_a_share_of() {
        let definition = Definition {
            queue_id: None,
            status: None,
            reports_low_rate: true,
            whole: serde_json::json!({ "abandonRate": 3.0 }),
        };
        let campaign = Campaign {
            id: "c".to_owned(),
            name: None,
            dial_rate: 1.0,
            min_dial_rate: 1.0,
            max_dial_rate: 5.0,
            revision: "1".to_owned(),
            definition: Some(definition.into()),
        };
        let told = own_target(&campaign, &outbound("ALL_CALLS")).unwrap();
        assert!(text(&told).contains("3 % of ALL_CALLS") && told.problem.is_none());
    }

    #[test]
    fn a_rule_is_told_only_of_the_campaigns_it_changes() {
        let rule = CampaignRule {
            name: "Slow down".to_owned(),
            actions: vec![("setCampaignMaxCallsPerAgent".to_owned(), vec!["a".to_owned()])],
        };
        let found = rules_on("a", std::slice::from_ref(&rule));
        assert!(text(&found[0]).contains("\"Slow down\" changes it as well (setCampaignMaxCallsPerAgent)"));
        assert!(rules_on("b", &[rule]).is_empty());
    }
}
