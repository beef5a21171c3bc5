//! Whether the last day keeps the caps of the campaigns under a change of how they are dialled. Of all that can
//! be set at run time only that has a cap: flows are rolled back and groups are judged by numbers of the
//! configuration, and weights of routing distribute what comes.

use std::time::Duration;

use serde_json::Value;
use tokio::time::Instant;

use super::{Inner, too_long, unread};
use crate::cli::dial_model::{Dials, Observed};
use crate::cli::explain::printable;
use crate::cli::replay::Ledger;
use crate::clock;
use crate::console::ReviewError;
use crate::model::decision::Loop;
use crate::model::settings::{DIAL, DIAL_CAMPAIGN};
use crate::replay::{Range, Settings};
use crate::stages::dialing::rules::Rules;
use crate::topics::DialDecision;

const DAY: Duration = Duration::from_secs(86_400);
/// Plays of each campaign, with other chance.
const PLAYS: u32 = 4;
/// Scopes and campaigns that are read at once.
const MOST_SCOPES: u32 = 100_000;
const PAGE: u32 = 1_000;

/// Whether the change may be made; looks at no further campaign after `end`.
pub(super) async fn judge(inner: &Inner, scope: &str, value: Value, end: Instant) -> Result<(), ReviewError> {
    let before = Settings::of(inner.database.settings(DIAL, MOST_SCOPES).await?);
    let after = before.clone().changed(scope, value);
    let ledger = Ledger::new(inner.database.clone(), inner.own.clone()).await.map_err(unread)?;
    let now = clock::now();
    let day = Range { from: now.minus(DAY), to: now };
    let both = Both { inner, ledger: &ledger, before: &before, after: &after, day };
    if let Some(campaign) = scope.strip_prefix(DIAL_CAMPAIGN) {
        return both.judge(campaign).await;
    }
    let mut campaigns: Vec<String> = inner.watched.clone();
    let mut last: Option<String> = None;
    loop {
        let page = inner.database.keys_decided(Loop::Dial, [day.from, day.to], last.as_deref(), PAGE).await?;
        last = page.last().cloned();
        let is_last = page.len() < PAGE as usize;
        campaigns.extend(page.into_iter().filter(|campaign| !inner.watched.contains(campaign)));
        for campaign in campaigns.drain(..) {
            if Instant::now() > end {
                return Err(too_long());
            }
            both.judge(&campaign).await?;
        }
        if is_last {
            return Ok(());
        }
    }
}

/// What is held against each other.
struct Both<'a> {
    inner: &'a Inner,
    ledger: &'a Ledger,
    before: &'a Settings,
    after: &'a Settings,
    day: Range,
}

impl Both<'_> {
    async fn judge(&self, campaign: &str) -> Result<(), ReviewError> {
        let [now, then] = [self.before, self.after].map(|settings| {
            // What is decided beside the rule changes nothing.
            Rules { shadow: None, ..self.inner.own.dial.with(&settings.newest(campaign)) }
        });
        if now == then {
            return Ok(());
        }
        let (observed, decisions) = self.observed(campaign).await?;
        let Some(fitted) = observed.fit().filter(|_| observed.attempts() > 0) else {
            return self.without_model(campaign, &observed, decisions);
        };
        let abandoned = |rules: &Rules| fitted.play(Dials::By(rules), PLAYS).abandonment;
        let (cap, under) = (self.cap(campaign, [&now, &then]), abandoned(&then));
        if under <= cap.0 {
            return Ok(());
        }
        // What makes it no worse must not be kept from those who are mending it.
        let today = abandoned(&now);
        if under <= today { Ok(()) } else { Err(breaks(campaign, cap, [today, under])) }
    }

    /// There is nothing to judge where the record is whole and nobody was called; else it is not known.
    fn without_model(&self, campaign: &str, observed: &Observed, decisions: u64) -> Result<(), ReviewError> {
        let is_watched = self.inner.watched.iter().any(|watched| watched == campaign);
        let (from, windows) = (self.day.from, observed.windows());
        let why = match decisions {
            0 if !is_watched => return Ok(()),
            0 => format!(
                "campaign {} is watched, and no decision about it is on record since {from}",
                printable(campaign)
            ),
            _ if windows > 0 && observed.attempts() == 0 => return Ok(()),
            _ => format!(
                "too little is on record of campaign {}: {windows} polls with the counts of its calls in {decisions} \
                 decisions since {from}, and a model takes {}",
                printable(campaign),
                Observed::needed()
            ),
        };
        Err(unknown(why))
    }

    /// What is on record of the day, and how many decisions.
    async fn observed(&self, campaign: &str) -> Result<(Observed, u64), ReviewError> {
        let (mut observed, mut decisions) = (Observed::default(), 0);
        let time_scale = self.inner.own.dial.pacing.time_scale;
        let each = self.ledger.each(Loop::Dial, self.day, Some(campaign), |recorded| {
            let decision: DialDecision<'_, Vec<String>> = serde_json::from_str(recorded.decision.get())?;
            if self.day.has(decision.decided_at) {
                decisions += 1;
                observed.add(&decision, time_scale);
            }
            Ok(())
        });
        each.await.map_err(unread)?;
        Ok((observed, decisions))
    }

    /// The least of those that hold, and which it is. A change does not raise the cap that it is judged by.
    fn cap(&self, campaign: &str, [now, then]: [&Rules; 2]) -> (f64, &'static str) {
        let compliance = self.inner.compliance.as_ref().map(|terms| terms.of(campaign).terms.cap);
        let dial = [(now.pacing.cap, "dial, in force"), (then.pacing.cap, "dial, under the change")];
        let all = dial.into_iter().chain(compliance.map(|cap| (cap, "compliance")));
        all.min_by(|(one, _), (other, _)| one.total_cmp(other)).expect("there are two at least")
    }
}

fn breaks(campaign: &str, (cap, of): (f64, &str), [today, under]: [f64; 2]) -> ReviewError {
    let percent = |share: f64| format!("{} %", (share * 10_000.0).round() / 100.0);
    ReviewError::BreaksCap {
        why: format!(
            "campaign {}: the last day under the change abandons {} of its live answers, {} under what is in force, and \
             its cap is {} ({of}); both by the model of the campaign",
            printable(campaign),
            percent(under),
            percent(today),
            percent(cap)
        ),
        remedy: format!(
            "lower the goal, or see what keeps the cap: trunkline recommend dial --campaign {}; nothing was changed",
            printable(campaign)
        ),
    }
}

fn unknown(why: String) -> ReviewError {
    ReviewError::Unknown {
        why: format!("{why}; what the change would come to is not known, and it was not made"),
        remedy: "see with `trunkline check` that the record is kept, or wait until the campaign has been dialled for \
                 ten minutes; settings.require_replay = \"no\" lets changes through as they are"
            .to_owned(),
    }
}
