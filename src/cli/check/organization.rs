//! What a real organisation has set that concerns the loops: read and told, never changed.

use super::{Finding, scope};
use crate::clock;
use crate::config::Config;
use crate::genesys::{
    self, CallError, CallErrorKind, CallsMade, Campaign, CampaignRule, Changed, Client, DetailsQuery,
    OutboundSettings,
};
use crate::model::Timestamp;
use crate::model::allowance::{Counted, Standing, Terms};
use crate::model::organization::split;
use crate::topology::{calls_covered, settings};

/// A conversation that nobody has: whether details may be read shows all the same.
const NO_CONVERSATION: &str = "00000000-0000-4000-8000-000000000000";
/// The platform's allowance of calls for each named user of its smallest edition and month.
const CALLS_PER_USER: u64 = 75_000;

/// Everything, loop by loop; nothing in the seed dialect, which does not tell.
pub(super) async fn findings(
    client: &Client,
    own: &Client,
    platform: &genesys::Settings,
    config: &Config,
) -> Vec<Finding> {
    if matches!(platform.dialect, genesys::Dialect::Seed) {
        return Vec::new();
    }
    let of = One { client, own, platform, config };
    let (dial, flows, enrichment, allowances) =
        tokio::join!(of.dial(), of.rollback(), of.enrichment(), of.allowances());
    let mut findings = vec![Finding::note(
        of.about("dialect platform"),
        "the platform has no analytics of consumer groups and publishes no routing configurations: lag is \
         measured at the broker alone, and routes take effect in trunkline alone",
    )];
    for found in [dial, flows, enrichment, allowances] {
        findings.extend(found);
    }
    findings
}

/// One organisation, and what is asked about it.
struct One<'c> {
    /// Knows all organisations.
    client: &'c Client,
    /// This one's own.
    own: &'c Client,
    platform: &'c genesys::Settings,
    config: &'c Config,
}

/// Paths of calls with the permission without which the platform answers 403. What begins with the path of
/// another stands before it.
const PERMISSIONS: &[(&str, &str)] = &[
    ("/api/v2/outbound/settings", "outbound:settings:view"),
    ("/api/v2/outbound/campaignrules", "outbound:campaignRule:view"),
    ("/api/v2/outbound/campaigns", "outbound:campaign:view"),
    ("/api/v2/analytics/conversations/aggregates", "analytics:conversationAggregate:view"),
    ("/api/v2/analytics/conversations/details", "analytics:conversationDetail:view"),
    ("/api/v2/analytics/queues/observations", "analytics:queueObservation:view"),
    ("/api/v2/analytics/flows/aggregates", "analytics:flowAggregate:view"),
    ("/api/v2/flows", "architect:flow:view"),
    ("/api/v2/audits", "audits:audit:view"),
    ("/api/v2/usage", "usage:organization:view or oauth:client:view"),
];

/// What to do about a call of the platform dialect that is forbidden, where that is known.
pub(super) fn remedy(error: &CallError) -> Option<String> {
    let forbidden = error.kind == CallErrorKind::Forbidden;
    // The reason begins with the request: method and path.
    let (_, path) = error.reason.split_once(' ').filter(|_| forbidden)?;
    let (_, permission) = PERMISSIONS.iter().find(|(of, _)| path.starts_with(of))?;
    Some(format!("give a role of the OAuth client the permission {permission}"))
}

/// A call that some loop makes.
fn needs<T>(what: &str, result: &Result<T, CallError>) -> Finding {
    match result {
        Ok(_) => Finding::good(what),
        Err(error) => match remedy(error) {
            Some(remedy) => Finding::bad(what, format!("{error}; {remedy}")),
            None => Finding::bad(what, error),
        },
    }
}

impl One<'_> {
    /// The name of a further organisation.
    fn name(&self) -> Option<&str> {
        self.platform.organization.name.as_deref()
    }

    /// What a finding is about, with the organisation's name where it has one.
    fn about(&self, what: &str) -> String {
        match self.name() {
            Some(name) => format!("{name}, {what}"),
            None => what.to_owned(),
        }
    }

    /// Those of a list that are this organisation's.
    fn owned<'i>(&self, ids: &'i [String]) -> Vec<&'i str> {
        let is_own = |id: &&str| self.config.genesys.organization_of(id) == self.name();
        ids.iter().map(String::as_str).filter(is_own).collect()
    }

    async fn dial(&self) -> Vec<Finding> {
        let campaigns = self.owned(&self.config.dial.campaigns);
        if self.config.dial.mode.is_none() || campaigns.is_empty() {
            return Vec::new();
        }
        let settings = self.own.outbound_settings(&scope()).await;
        let what = self.about("dial: outbound settings");
        let mut findings = vec![needs(&what, &settings)];
        let settings = settings.ok().flatten();
        let rate = self.about("dial: the platform's own abandon rate");
        findings.extend(settings.as_ref().map(|settings| abandon_rate(&rate, settings)));
        self.client.expect_campaigns(campaigns.iter().copied());
        let rules = self.own.campaign_rules(&scope()).await;
        findings.push(needs(&self.about("dial: campaign rules"), &rules));
        let rules = rules.unwrap_or_default();
        for id in campaigns {
            let statistics = self.client.campaign_statistics(id, &scope()).await;
            findings.push(needs(&format!("dial: statistics of campaign {id}"), &statistics));
            findings.extend(rules_on(id, self.own_id(id), &rules));
            if let (Ok(campaign), Some(settings)) = (self.client.campaign(id, &scope()).await, &settings) {
                findings.extend(own_target(&campaign, settings));
                findings.extend(low_rate_alert(&campaign, settings));
            }
        }
        findings
    }

    /// What the organisation itself calls an object.
    fn own_id<'i>(&self, id: &'i str) -> &'i str {
        self.name().and_then(|_| split(id)).map_or(id, |(_, own)| own)
    }

    async fn rollback(&self) -> Vec<Finding> {
        if self.config.rollback.mode.is_none() {
            return Vec::new();
        }
        let watched = settings::flow_poller(self.config);
        let mut findings = Vec::new();
        for id in self.owned(&watched.flows) {
            // That it can be read at all is looked at for every dialect.
            if let Ok(flow) = self.client.flow(id, &scope()).await
                && let Some(who) = flow.locked_by
            {
                let problem = format!(
                    "it is locked by {who}: until that is given up no version can be put in force; have it closed in Architect, or unlocked by an administrator"
                );
                findings.push(Finding::bad(format!("rollback: flow {id}"), problem));
            }
        }
        if let Some(id) = self.owned(&watched.polled).first() {
            let until = clock::now().minus(watched.settling);
            let measures = self.client.flow_measures(id, until.minus(watched.minute), until, &scope()).await;
            let what = self.about("rollback: measures of flows");
            findings.push(needs(&what, &measures));
        }
        if let Some(id) = self.owned(&watched.flows).first() {
            findings.push(self.audits(id).await);
        }
        findings
    }

    /// Without it, who changed something between two of our changes has no name.
    async fn audits(&self, flow: &str) -> Finding {
        let what = self.about("who else writes: audits");
        match self.client.ask_last_writer(Changed::Flow, flow, &scope()).await {
            Ok(_) => Finding::good(what),
            Err(error) => Finding::note(
                what,
                format!(
                    "cannot be read ({error}): other writers stay without a name; audits:audit:view shows it"
                ),
            ),
        }
    }

    async fn enrichment(&self) -> Vec<Finding> {
        if !self.config.enrichment.mode.is_on() {
            return Vec::new();
        }
        let now: Timestamp = clock::now();
        let query = DetailsQuery { conversation_ids: &[NO_CONVERSATION], from: now, to: now };
        let details = self.own.conversation_details(&query, &scope()).await;
        let what = self.about("enrichment: details of conversations");
        vec![needs(&what, &details)]
    }

    async fn allowances(&self) -> Vec<Finding> {
        let what = self.about("allowance: API calls of this month");
        vec![match self.own.calls_this_month(&scope()).await {
            Ok(Some(made)) => {
                let terms = calls_covered(self.config, self.platform);
                Finding::note(what, calls_left(made, terms, clock::now()))
            }
            Ok(None) => Finding::good(what),
            Err(error) => Finding::note(
                what,
                format!("cannot be read ({error}); usage:organization:view or oauth:client:view shows it"),
            ),
        }]
    }
}

/// What the platform's own abandon rate means, beside the one of the rules.
fn abandon_rate(what: &str, settings: &OutboundSettings) -> Finding {
    let seconds = settings.abandon_seconds.map_or("an unknown time".to_owned(), |it| format!("{it} s"));
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

fn rules_on(campaign: &str, own_id: &str, rules: &[CampaignRule]) -> Vec<Finding> {
    let touching = rules.iter().filter_map(|rule| {
        let actions: Vec<&str> = rule.actions_on(own_id).collect();
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
    use crate::model::outcome::ReceivedResponse;

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
        assert!(text(&abandon_rate("rate", &outbound("ALL_CALLS"))).contains("20 % of the live answers"));
        let comparable = abandon_rate("rate", &outbound("CALLS_THAT_REACHED_QUEUE"));
        assert!(text(&comparable).contains("comparable") && comparable.problem.is_none());
    }

    #[test]
    fn a_forbidden_call_names_the_permission_it_lacks() {
        let told = |kind, path: &str| {
            let reason = format!("GET {path}: HTTP 403: no");
            let response =
                ReceivedResponse { status: Some(403), body: None, error: None, correlation_id: None };
            remedy(&CallError { kind, reason, response: response.into() })
        };
        let statistics = told(CallErrorKind::Forbidden, "/api/v2/outbound/campaigns/c/stats").unwrap();
        assert!(statistics.ends_with("the permission outbound:campaign:view"), "{statistics}");
        let rules = told(CallErrorKind::Forbidden, "/api/v2/outbound/campaignrules?pageSize=100").unwrap();
        assert!(rules.ends_with("outbound:campaignRule:view"), "{rules}");
        assert_eq!(told(CallErrorKind::NotFound, "/api/v2/flows/f"), None);
        assert_eq!(told(CallErrorKind::Forbidden, "/api/v2/campaigns/c"), None, "the seed dialect's");
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
        let found = rules_on("emea:a", "a", std::slice::from_ref(&rule));
        assert!(text(&found[0]).contains("\"Slow down\" changes it as well (setCampaignMaxCallsPerAgent)"));
        assert!(rules_on("b", "b", &[rule]).is_empty());
    }
}
