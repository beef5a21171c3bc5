//! What the demo shows: a picture that is drawn anew on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::Write;
use std::time::Duration;

use comfy_table::{CellAlignment, Table, presets};

use crate::model::decision::Loop;
use crate::postgres::{Recent, Tally};
use crate::simulator::Overview;

/// How much of the demo is shown how often.
pub struct Screen {
    terminal: bool,
    /// Lines of the picture that stands on the terminal now.
    drawn: usize,
}

impl Screen {
    pub fn new(terminal: bool) -> Self {
        Self { terminal, drawn: 0 }
    }

    pub fn pause(&self) -> Duration {
        Duration::from_secs(if self.terminal { 1 } else { 5 })
    }

    /// How many of which loop's newest decisions are shown. Routing's are too many to look at.
    pub fn recent_decisions(&self) -> [(Loop, i64); 3] {
        if self.terminal {
            [(Loop::Rollback, 3), (Loop::Lag, 2), (Loop::Dial, 6)]
        } else {
            [(Loop::Rollback, 1), (Loop::Lag, 1), (Loop::Dial, 1)]
        }
    }

    /// `readers` is how the demo's own consumer group is, in a line.
    pub fn show(
        &mut self,
        overview: &Overview,
        tally: &Tally,
        recent: &[Recent],
        readers: &str,
    ) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if !self.terminal {
            writeln!(out, "{}\n  {readers}", line(overview, tally, recent))?;
            return out.flush();
        }
        let picture = format!("{}\n{readers}\n", picture(overview, tally, recent));
        if self.drawn > 0 {
            // Back to the first line of the picture, and clear to the end.
            write!(out, "\x1b[{}A\x1b[J", self.drawn)?;
        }
        self.drawn = picture.lines().count();
        write!(out, "{picture}")?;
        out.flush()
    }
}

fn clock(simulated_seconds: u64) -> String {
    let (hours, minutes) = (simulated_seconds / 3_600, simulated_seconds / 60 % 60);
    format!("{hours}:{minutes:02}:{:02}", simulated_seconds % 60)
}

fn counts(tally: &Tally) -> String {
    let mut text = String::from("decisions");
    for (of, count) in &tally.decisions {
        let _ = write!(text, "  {of} {count}");
    }
    text.push_str("   outcomes");
    for (status, count) in &tally.outcomes {
        let _ = write!(text, "  {status} {count}");
    }
    let _ = write!(
        text,
        "   conversations {}  enriched {}  dead letters {}",
        tally.conversations, tally.enriched, tally.dead_letters
    );
    text
}

fn line(overview: &Overview, tally: &Tally, recent: &[Recent]) -> String {
    let rates: Vec<_> =
        overview.campaigns.iter().map(|campaign| format!("{:.2}", campaign.snapshot.dial_rate)).collect();
    let mut text = format!(
        "{}  {}  abandonment {:.2} %  dial rates {}",
        clock(overview.simulated_seconds),
        counts(tally),
        abandonment(overview) * 100.0,
        rates.join(" ")
    );
    for decision in recent {
        let _ = write!(text, "  last {} {}", decision.of, decision.decision_id);
    }
    text
}

fn picture(overview: &Overview, tally: &Tally, recent: &[Recent]) -> String {
    let mut campaigns = Table::new();
    campaigns.load_style(presets::NOTHING);
    campaigns.set_header([
        "campaign",
        "dial rate",
        "limits",
        "answered",
        "idle",
        "busy",
        "ringing",
        "abandoned",
    ]);
    for campaign in &overview.campaigns {
        let now = &campaign.snapshot;
        campaigns.add_row([
            campaign.name.clone(),
            format!("{:.2}", now.dial_rate),
            format!("{:.2}–{:.2}", campaign.min_dial_rate, campaign.max_dial_rate),
            format!("{:.1} %", now.answer_rate * 100.0),
            now.agents.idle.to_string(),
            (now.agents.talking + now.agents.wrapping_up).to_string(),
            now.ringing.to_string(),
            format!("{:.2} %", campaign.abandonment * 100.0),
        ]);
    }
    for column in campaigns.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let mut decisions = Table::new();
    decisions.load_style(presets::NOTHING);
    decisions.set_header(["decision", "loop", "of", "what", "why", "outcome"]);
    for decision in recent {
        let name = overview.campaigns.iter().find(|campaign| campaign.id == decision.key);
        decisions.add_row([
            decision.decision_id.to_string(),
            decision.of.clone(),
            name.map_or_else(|| decision.key.clone(), |campaign| campaign.name.clone()),
            what(decision),
            decision.reason.clone(),
            decision.status.clone().unwrap_or_else(|| "…".to_owned()),
        ]);
    }
    format!(
        "\nsimulated time {}   {}\n\n{campaigns}\n\n{decisions}\n",
        clock(overview.simulated_seconds),
        counts(tally)
    )
}

/// What a decision asked for, in a few words.
fn what(decision: &Recent) -> String {
    let rate = |name: &str| decision.parameters[name].as_f64();
    match (rate("previousDialRate"), rate("dialRate")) {
        (Some(from), Some(to)) => format!("{from:.2} → {to:.2}"),
        _ => decision.action.replace('_', " "),
    }
}

/// Abandoned ÷ live answers settled, over all campaigns.
fn abandonment(overview: &Overview) -> f64 {
    let (abandoned, delivered) =
        overview.campaigns.iter().fold((0, 0), |(abandoned, delivered), campaign| {
            (abandoned + campaign.snapshot.calls.abandoned, delivered + campaign.snapshot.calls.delivered)
        });
    if abandoned + delivered == 0 { 0.0 } else { abandoned as f64 / (abandoned + delivered) as f64 }
}

/// What is said at the end.
pub fn summary(facts: u64, tally: &Tally, overview: &Overview) -> String {
    let mut text = format!(
        "\nSummary after {} of simulated time\n  facts read   {facts} of campaigns\n",
        clock(overview.simulated_seconds)
    );
    for (of, count) in &tally.decisions {
        let _ = writeln!(text, "  decisions    {count} of loop {of}");
    }
    for (status, count) in &tally.outcomes {
        let _ = writeln!(text, "  {status:<12} {count}");
    }
    let _ = writeln!(
        text,
        "  conflicts    {} (another writer came between; decided again on the new limits)",
        tally.conflicts
    );
    let _ = writeln!(text, "  abandonment  {:.2} % of live answers", abandonment(overview) * 100.0);
    let _ = writeln!(
        text,
        "  conversations {} told of by events, {} enriched; dead letters {}",
        tally.conversations, tally.enriched, tally.dead_letters
    );
    let _ = writeln!(text, "  gaps         {} (keys whose sequence has a hole)", tally.gaps);
    text
}
