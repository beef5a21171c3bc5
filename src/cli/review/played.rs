//! A dry run: the last hour as it would have been under a change.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Deserialize as _;
use serde_json::Value;
use tokio::time::Instant;

use super::{Inner, is_of_dial, unread};
use crate::cli::replay::Ledger;
use crate::clock;
use crate::console::ReviewError;
use crate::model::decision::Loop;
use crate::model::dry_run::{Changed, DryRun};
use crate::model::settings::{DIAL_CAMPAIGN, ROUTE, RouteWeights};
use crate::replay::{Change, Range, Replay, Report, Settings};
use crate::routing::weights::with_weights;

/// How far back it goes.
const HOUR: Duration = Duration::from_secs(3_600);
/// Decisions it looks at, at most; those before the hour that tell what was remembered among them.
const MOST_DECISIONS: u32 = 50_000;
/// Differences that are listed.
const LISTED: usize = 20;

/// Whoever reads has read as much as there may be.
#[derive(Debug, thiserror::Error)]
#[error("enough was read")]
struct Enough;

/// What it is decided about, and under what.
struct Asked<'a> {
    of: Loop,
    key: Option<&'a str>,
    change: Change,
}

/// Stops looking at the time `enough`.
pub(super) async fn dry_run(
    inner: &Inner,
    scope: &str,
    value: Value,
    enough: Instant,
) -> Result<DryRun, ReviewError> {
    let ledger = Ledger::new(inner.database.clone(), inner.own.clone()).await.map_err(unread)?;
    let settings = ledger.settings().await.map_err(unread)?;
    let Asked { of, key, change } = asked(inner, scope, value, &settings).await?;
    let now = clock::now();
    let range = Range { from: now.minus(HOUR), to: now };
    let replay = Replay::new(of, range, ledger.numbers.clone(), change, settings);
    let mut replay = replay.map_err(|error| unread(error.into()))?;
    let mut left = MOST_DECISIONS;
    let each = ledger.each(of, range, key, |recorded| {
        left = left.checked_sub(1).filter(|_| Instant::now() < enough).ok_or(Enough)?;
        Ok(replay.take(recorded)?)
    });
    let complete = match each.await {
        Ok(()) => true,
        Err(error) if error.is::<Enough>() => false,
        Err(error) => return Err(unread(error)),
    };
    Ok(told(replay.report(), complete))
}

async fn asked<'a>(
    inner: &Inner,
    scope: &'a str,
    value: Value,
    settings: &Settings,
) -> Result<Asked<'a>, ReviewError> {
    if is_of_dial(scope) {
        let settings = Some(settings.clone().changed(scope, value));
        let change = Change { settings, ..Change::default() };
        return Ok(Asked { of: Loop::Dial, key: scope.strip_prefix(DIAL_CAMPAIGN), change });
    }
    let Some(id) = scope.strip_prefix(ROUTE) else {
        return Err(ReviewError::NotPlayed {
            why: format!("{scope} changes no rule that decisions are taken by"),
            remedy: "dry runs are of dial, dial/<campaignId> and route/<configurationId>".to_owned(),
        });
    };
    let weights = match RouteWeights::deserialize(&value) {
        Ok(RouteWeights { weights }) => weights,
        Err(_) => BTreeMap::new(),
    };
    let in_force = inner.database.route(id).await?.in_force;
    let rules = in_force.map(|(_, known)| with_weights(&known, &weights).rules).unwrap_or_default();
    let numbers = rules.into_iter().map(|rule| (rule.destination.id, rule.weight.to_string())).collect();
    let change = Change { numbers, ..Change::default() };
    Ok(Asked { of: Loop::Route, key: Some(id), change })
}

fn told(report: Report, complete: bool) -> DryRun {
    let items = report.items.into_iter().take(LISTED).map(|item| Changed {
        decision_id: item.decision_id,
        key: item.key,
        decided_at: item.decided_at,
        recorded: item.recorded,
        replayed: item.replayed,
    });
    DryRun {
        r#loop: report.r#loop.name().to_owned(),
        from: report.from,
        to: report.to,
        decisions: report.decisions,
        identical: report.identical,
        different: report.different,
        not_taken: report.not_taken.values().sum(),
        complete,
        actions: report.actions,
        items: items.collect(),
    }
}
