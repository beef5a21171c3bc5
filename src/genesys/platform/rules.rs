//! The platform's own automation of campaigns.

use serde::Deserialize;

use super::super::organization::CampaignRule;

const PAGE_SIZE: usize = 100;
/// Pages that are followed at most.
pub(super) const PAGE_LIMIT: usize = 20;

/// `page` counts from 1.
pub(super) fn path(page: usize) -> String {
    format!("/api/v2/outbound/campaignrules?pageSize={PAGE_SIZE}&pageNumber={page}")
}

/// Reads the page with number `page`: rules that are enabled, and whether another page comes.
pub(super) fn read(page: usize, body: &[u8]) -> Result<(Vec<CampaignRule>, bool), String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Page {
        entities: Vec<Rule>,
        page_count: Option<usize>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Rule {
        #[serde(default)]
        name: String,
        #[serde(default)]
        enabled: bool,
        #[serde(default)]
        campaign_rule_entities: Entities,
        #[serde(default)]
        campaign_rule_actions: Vec<Action>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Action {
        #[serde(default)]
        action_type: String,
        #[serde(default)]
        campaign_rule_action_entities: Entities,
    }
    #[derive(Default, Deserialize)]
    #[serde(rename_all = "camelCase", default)]
    struct Entities {
        campaigns: Vec<Entity>,
        use_triggering_entity: bool,
    }
    #[derive(Deserialize)]
    struct Entity {
        id: String,
    }
    let wire: Page = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let goes_on = !wire.entities.is_empty() && wire.page_count.is_some_and(|pages| page < pages);
    let rules = wire.entities.into_iter().filter(|rule| rule.enabled).map(|rule| {
        let ids = |entities: &Entities| -> Vec<String> {
            entities.campaigns.iter().map(|entity| entity.id.clone()).collect()
        };
        let triggering = ids(&rule.campaign_rule_entities);
        let actions = rule.campaign_rule_actions.iter().map(|action| {
            let entities = &action.campaign_rule_action_entities;
            let mut campaigns = ids(entities);
            if entities.use_triggering_entity {
                campaigns.extend(triggering.iter().cloned());
            }
            (action.action_type.clone(), campaigns)
        });
        CampaignRule { actions: actions.collect(), name: rule.name }
    });
    Ok((rules.collect(), goes_on))
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str = r#"{"entities":[
        {"id":"1","name":"Slow down","enabled":true,
         "campaignRuleEntities":{"campaigns":[{"id":"a"},{"id":"b"}],"sequences":[]},
         "campaignRuleConditions":[{"conditionType":"timeOfDay"}],
         "campaignRuleActions":[
            {"actionType":"setCampaignMaxCallsPerAgent","parameters":{"maxCallsPerAgent":"1"},
             "campaignRuleActionEntities":{"campaigns":[{"id":"c"}],"useTriggeringEntity":true}},
            {"actionType":"turnOffCampaign","campaignRuleActionEntities":{"campaigns":[{"id":"a"}]}}]},
        {"id":"2","name":"Off","enabled":false,"campaignRuleActions":[]}],"pageCount":2}"#;

    #[test]
    fn enabled_rules_name_what_they_act_on() {
        let (rules, goes_on) = read(1, RULES.as_bytes()).unwrap();
        assert!(goes_on && !read(2, RULES.as_bytes()).unwrap().1);
        assert_eq!(rules.len(), 1);
        let actions_on = |campaign: &'static str| rules[0].actions_on(campaign).collect::<Vec<_>>();
        assert_eq!(actions_on("a"), ["setCampaignMaxCallsPerAgent", "turnOffCampaign"]);
        assert_eq!(
            (actions_on("b"), actions_on("c")),
            (vec!["setCampaignMaxCallsPerAgent"], vec!["setCampaignMaxCallsPerAgent"])
        );
        assert!(actions_on("d").is_empty());
        assert!(read(1, b"{}").is_err());
    }
}
