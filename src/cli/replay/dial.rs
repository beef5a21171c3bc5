//! Dial rates under a change, by the model of each campaign.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use super::source::Source;
use crate::cli::dial_model::{Came, Dials, Observed};
use crate::cli::explain::printable;
use crate::model::decision::Loop;
use crate::model::settings::DialSettings;
use crate::replay::Range;
use crate::stages::dialing::rules::Rules;
use crate::topics::DialDecision;

/// Campaigns that are modelled at most.
const MOST_CAMPAIGNS: usize = 1_000;
/// Plays of each, with other chance.
const PLAYS: u32 = 4;

/// What each campaign's decisions in the range record, and the rules of its last one.
pub(in crate::cli) async fn observed(
    source: &mut Source,
    range: Range,
    campaign: Option<&str>,
) -> anyhow::Result<BTreeMap<String, (Observed, Rules)>> {
    let (numbers, settings) = (source.numbers(), source.settings().await?);
    let mut campaigns: BTreeMap<String, (Observed, Rules)> = BTreeMap::new();
    let each = source.each(Loop::Dial, range, campaign, |recorded| {
        let decision: DialDecision<'_, Vec<String>> = serde_json::from_str(recorded.decision.get())?;
        let is_known = campaigns.contains_key(&*decision.key);
        if !range.has(decision.decided_at) || (!is_known && campaigns.len() == MOST_CAMPAIGNS) {
            return Ok(());
        }
        let set = settings.dial(&decision.key, decision.settings_revision).settings;
        let under = numbers.iter().find(|numbers| {
            let rules = numbers.dial.with(&set);
            rules.named(rules.policy, numbers.dial_tick()) == decision.policy
        });
        let Some(under) = under.or(numbers.first()) else { return Ok(()) };
        let rules = under.dial.with(&set);
        let (observed, newest) =
            campaigns.entry(decision.key.to_string()).or_insert_with(|| (Observed::default(), rules));
        observed.add(&decision, rules.pacing.time_scale);
        *newest = rules;
        Ok(())
    });
    each.await?;
    Ok(campaigns)
}

/// One campaign in the model.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Modelled {
    campaign_id: String,
    /// By the polls.
    recorded: Came,
    /// The model with the rates that were dialled: how far it is off.
    model_as_dialled: Came,
    /// The model under the rules of then, and under the change.
    model_under_rules: Came,
    model_under_change: Came,
}

/// What a change would have come to. Campaigns of which too little was observed are left out.
pub(super) async fn modelled(
    source: &mut Source,
    range: Range,
    campaign: Option<&str>,
    change: &DialSettings,
) -> anyhow::Result<Vec<Modelled>> {
    let mut modelled = Vec::new();
    for (campaign_id, (observed, rules)) in observed(source, range, campaign).await? {
        let Some(fitted) = observed.fit() else { continue };
        modelled.push(Modelled {
            campaign_id,
            recorded: observed.came(),
            model_as_dialled: fitted.play(Dials::AsRecorded, PLAYS),
            model_under_rules: fitted.play(Dials::By(&rules), PLAYS),
            model_under_change: fitted.play(Dials::By(&rules.with(change)), PLAYS),
        });
    }
    Ok(modelled)
}

pub(super) fn text(campaigns: &[Modelled]) -> String {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN);
    table.set_header(["campaign", "", "utilisation", "abandonment", "attempts"]);
    for campaign in campaigns {
        let rows = [
            ("as recorded", &campaign.recorded),
            ("model, rates as dialled", &campaign.model_as_dialled),
            ("model, rules of then", &campaign.model_under_rules),
            ("model, under the change", &campaign.model_under_change),
        ];
        for (name, came) in rows {
            table.add_row([
                printable(&campaign.campaign_id),
                name.to_owned(),
                format!("{:.1} %", came.utilisation * 100.0),
                format!("{:.2} %", came.abandonment * 100.0),
                format!("{:.0}", came.attempts),
            ]);
        }
    }
    for column in table.column_iter_mut().skip(2) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut text = String::new();
    let note = "model-based: the simulator's dialer fitted to each campaign; its first two rows tell how far it is off";
    let _ = writeln!(text, "{note}\n{table}");
    text
}
