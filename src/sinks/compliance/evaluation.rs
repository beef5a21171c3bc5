//! Makes figures of what is recorded, window by window.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::json;
use tokio_util::sync::CancellationToken;

use super::again::Again;
use super::{ROLE, Settings};
use crate::clock;
use crate::genesys::Client;
use crate::health::Part;
use crate::metrics;
use crate::model::Timestamp;
use crate::model::compliance::{
    Calendar, CampaignTerms, ComplianceWarning, FigureKind, Statement, Window, WindowKind, figures,
};
use crate::postgres::compliance::{FigureRow, PRUNED_AT_ONCE, Standing};
use crate::postgres::outbox::Message;
use crate::postgres::{Database, Error};
use crate::topics;

/// Windows are stated no further back than this for a campaign that is counted for the first time.
const BACKWARDS: Duration = Duration::from_secs(40 * 86_400);
/// Every so many looks the long windows are counted as well.
const LONG_EVERY: u64 = 15;
/// And records whose retention is over are looked for.
const PRUNE_EVERY: u64 = 60;
/// Campaigns read at once.
const PAGE: u32 = 500;

pub(super) struct Evaluator {
    settings: Settings,
    database: Database,
    again: Option<Again>,
    /// Several instances would do the same work several times over; it would do no harm.
    is_ours: Arc<AtomicBool>,
    part: Part,
}

impl Evaluator {
    pub(super) fn new(
        settings: &Settings,
        database: Database,
        client: Option<Client>,
        is_ours: Arc<AtomicBool>,
        part: Part,
    ) -> Self {
        let again = client.map(|client| Again::new(database.clone(), client, settings.rules));
        Self { settings: settings.clone(), database, again, is_ours, part }
    }

    /// Looks at all campaigns, over and over, while that falls to this instance.
    pub(super) async fn run(self, shutdown: &CancellationToken) {
        let mut look = 0;
        while !shutdown.is_cancelled() {
            let looked = tokio::select! {
                looked = self.look_if_ours(look, shutdown) => looked,
                () = shutdown.cancelled() => return,
            };
            match looked {
                Ok(looked) => {
                    self.part.ready();
                    look += u64::from(looked);
                }
                Err(error) => {
                    tracing::warn!(%error, "figures of campaigns are late");
                    self.part.impaired(format!("figures of campaigns are late: {error}"));
                }
            }
            tokio::select! {
                () = tokio::time::sleep(self.settings.interval) => {}
                () = shutdown.cancelled() => {}
            }
        }
    }

    async fn look_if_ours(&self, look: u64, shutdown: &CancellationToken) -> Result<bool, Error> {
        let is_ours = self.is_ours.load(Ordering::Relaxed);
        if is_ours {
            self.look(look, shutdown).await?;
        }
        Ok(is_ours)
    }

    async fn look(&self, look: u64, shutdown: &CancellationToken) -> Result<(), Error> {
        self.database.take_up_campaigns(&self.settings.watched, BACKWARDS).await?;
        let mut after = String::new();
        loop {
            let standings = self.database.compliance_standings(&after, PAGE).await?;
            let Some(last) = standings.last() else { break };
            after.clone_from(&last.campaign_id);
            for standing in &standings {
                let terms = self.settings.campaigns.of(&standing.campaign_id);
                match terms.calendar(standing.began_at) {
                    Ok(calendar) => {
                        let campaign = Campaign { evaluator: self, standing, terms, calendar };
                        campaign.evaluate(look, clock::now(), shutdown).await?;
                    }
                    // The configuration is checked when it is read.
                    Err(error) => tracing::error!(campaign_id = standing.campaign_id, %error, "not counted"),
                }
            }
        }
        if look.is_multiple_of(PRUNE_EVERY) { self.prune().await } else { Ok(()) }
    }
}

impl Evaluator {
    async fn prune(&self) -> Result<(), Error> {
        loop {
            let Settings { retention, decisions_end, .. } = self.settings;
            let gone = self.database.prune_campaign_records(retention, decisions_end).await?;
            metrics::COMPLIANCE_CALLS.counter(&["pruned"]).increment(gone);
            if gone < PRUNED_AT_ONCE as u64 {
                return Ok(());
            }
        }
    }
}

/// One campaign under evaluation.
struct Campaign<'e> {
    evaluator: &'e Evaluator,
    standing: &'e Standing,
    terms: &'e CampaignTerms,
    calendar: Calendar,
}

impl Campaign<'_> {
    async fn evaluate(&self, look: u64, now: Timestamp, shutdown: &CancellationToken) -> Result<(), Error> {
        let Settings { settle, restate_after, .. } = &self.evaluator.settings;
        self.state(Statement::Known, self.standing.known_upto, now.minus(*settle)).await?;
        if let Some(again) = &self.evaluator.again {
            let upto = again.look_up(self.standing, now.minus(*restate_after), shutdown).await?;
            self.state(Statement::Restated, self.standing.restated_upto, upto).await?;
        }
        self.show(now, look.is_multiple_of(LONG_EVERY)).await
    }

    /// States the windows that ended after `after` and by `upto`.
    async fn state(&self, statement: Statement, after: Timestamp, upto: Timestamp) -> Result<(), Error> {
        let (windows, reached) = self.calendar.closed(after, upto);
        if reached <= after {
            return Ok(());
        }
        let mut rows = Vec::new();
        for window in windows {
            rows.extend(self.rows(window).await?);
        }
        let stated = self.evaluator.database.state_figures(self.standing, statement, reached, &rows).await?;
        if stated {
            metrics::COMPLIANCE_FIGURES.counter(&[statement.name()]).increment(rows.len() as u64);
        }
        Ok(())
    }

    /// Shows the windows that are open or wait to be settled, and warns.
    async fn show(&self, now: Timestamp, long_ones: bool) -> Result<(), Error> {
        let is_long = |kind: WindowKind| matches!(kind, WindowKind::Period30d | WindowKind::Life);
        let is_shown = |kind: &WindowKind| long_ones || !is_long(*kind);
        let kinds: Vec<WindowKind> = WindowKind::ALL.into_iter().filter(is_shown).collect();
        let mut windows: Vec<Window> = kinds.iter().map(|kind| self.calendar.open(*kind, now)).collect();
        let settled = self.standing.known_upto.max(now.minus(self.evaluator.settings.settle));
        let (unsettled, _) = self.calendar.closed(settled, now);
        let has_more = |kind: WindowKind| matches!(kind, WindowKind::Hour | WindowKind::Day);
        windows.extend(unsettled.into_iter().filter(|window| has_more(window.kind)));
        let (mut rows, mut warnings) = (Vec::new(), Vec::new());
        for window in windows {
            let of_window = self.rows(window).await?;
            warnings.extend(of_window.iter().filter_map(|row| self.warning(row, now)));
            rows.extend(of_window);
        }
        self.put(&kinds, &rows, &warnings).await
    }

    async fn put(
        &self,
        kinds: &[WindowKind],
        rows: &[FigureRow],
        warnings: &[ComplianceWarning],
    ) -> Result<(), Error> {
        let told: Vec<(String, Vec<u8>)> = warnings
            .iter()
            .map(|warning| {
                let value = serde_json::to_vec(warning).expect("own values are JSON");
                (warning.identity(), value)
            })
            .collect();
        ROLE.assert_sends(&topics::COMPLIANCE_WARNINGS);
        let key = self.standing.campaign_id.as_bytes();
        let messages: Vec<Message<'_>> = told
            .iter()
            .map(|(identity, value)| {
                Message::new(topics::COMPLIANCE_WARNINGS.name, key, value).once(identity)
            })
            .collect();
        let database = &self.evaluator.database;
        let warned = database.put_open_figures(&self.standing.campaign_id, kinds, rows, &messages).await?;
        if warned > 0 {
            tracing::warn!(campaign_id = self.standing.campaign_id, "abandonment nears its cap");
            metrics::COMPLIANCE_WARNINGS.counter(&[]).increment(warned);
        }
        Ok(())
    }

    /// The figures of a window; none of one in which nothing happened.
    async fn rows(&self, window: Window) -> Result<Vec<FigureRow>, Error> {
        let (database, id) = (&self.evaluator.database, &self.standing.campaign_id);
        let tally = database.tally_calls(id, window.start, window.end).await?;
        let counters = database.campaign_counters(id, window.start, window.end).await?;
        if tally.calls() == 0 && !counters.counted_anything() {
            return Ok(Vec::new());
        }
        let figures = figures(&tally, &counters, &self.terms.terms);
        let live = figures.iter().find(|figure| figure.kind == FigureKind::LiveAnswer);
        let whole = |count: Option<f64>| count.map(|count| count as u64);
        let answered = whole(live.and_then(|figure| figure.denominator));
        let abandoned = whole(live.and_then(|figure| figure.numerator));
        let terms = json!({ "terms": self.terms.terms, "rules": self.evaluator.settings.rules });
        Ok(figures
            .into_iter()
            .map(|figure| FigureRow {
                window,
                figure,
                answered,
                abandoned,
                cap: self.terms.terms.cap,
                time_zone: self.terms.time_zone.clone(),
                counts: json!({ "calls": tally, "counters": counters }),
                terms: terms.clone(),
            })
            .collect())
    }

    fn warning(&self, row: &FigureRow, now: Timestamp) -> Option<ComplianceWarning> {
        let rule = &self.evaluator.settings.warning;
        if row.window.end < now || !rule.applies(row.window.kind, &row.figure, row.cap) {
            return None;
        }
        ComplianceWarning::new(&self.standing.campaign_id, &row.window, now, &row.figure, row.cap)
    }
}
