//! What the demo shows: a picture that is drawn anew on a terminal, plain lines elsewhere.

use std::fmt::Write as _;
use std::io::{IsTerminal, Write};
use std::time::Duration;

use crate::model::decision::Loop;
use crate::postgres::{Recent, Totals};
use simulator::Overview;

use super::picture::{self, Around, Size};

/// How much of the demo is shown how often.
pub(super) struct Screen {
    terminal: bool,
    /// Where to look further; part of the picture.
    hints: Vec<String>,
    /// How canaries stood when that was last said in plain lines.
    canaries: Vec<String>,
    /// Lines of the picture that stands on the terminal now, and the terminal they were made for.
    drawn: Option<(usize, Size)>,
}

impl Screen {
    pub(super) fn new(hints: Vec<String>) -> Self {
        Self { terminal: std::io::stdout().is_terminal(), hints, canaries: Vec::new(), drawn: None }
    }

    pub(super) fn pause(&self) -> Duration {
        Duration::from_secs(if self.terminal { 1 } else { 5 })
    }

    /// How many of which loop's newest decisions are shown. Routing's are too many to look at.
    pub(super) fn recent_decisions(&self) -> [(Loop, i64); 4] {
        if self.terminal {
            [(Loop::Rollback, 2), (Loop::Delivery, 2), (Loop::Lag, 1), (Loop::Dial, 6)]
        } else {
            [(Loop::Rollback, 1), (Loop::Delivery, 1), (Loop::Lag, 1), (Loop::Dial, 1)]
        }
    }

    /// `readers` is how the demo's own consumer group is, in a line, `canaries` how each of these is.
    pub(super) fn show(
        &mut self,
        overview: &Overview,
        totals: &Totals,
        recent: &[Recent],
        readers: &str,
        canaries: &[String],
    ) -> std::io::Result<()> {
        let mut out = std::io::stdout().lock();
        if !self.terminal {
            writeln!(out, "{}\n  {readers}", line(overview, totals, recent))?;
            // Only what is new of them.
            for canary in canaries.iter().filter(|canary| !self.canaries.contains(canary)) {
                writeln!(out, "  {canary}")?;
            }
            self.canaries = canaries.to_vec();
            return out.flush();
        }
        let size = size();
        let around = Around { readers, canaries, hints: &self.hints };
        let lines = picture::lines(size, overview, totals, recent, &around);
        let mut text = match self.drawn {
            // Back to the first line of the picture.
            Some((drawn, before)) if before == size => format!("\x1b[{drawn}A\r"),
            // Lines of another width have been broken anew by the terminal: nobody knows where they are.
            Some(_) => "\x1b[H\x1b[2J".to_owned(),
            None => String::new(),
        };
        for line in &lines {
            // Each line is cleared behind its end; nothing flickers.
            let _ = write!(text, "{line}\x1b[K\r\n");
        }
        text.push_str("\x1b[J");
        self.drawn = Some((lines.len().max(1), size));
        out.write_all(text.as_bytes())?;
        out.flush()
    }
}

/// The terminal's size now; what everybody has where it does not tell.
fn size() -> Size {
    let told = rustix::termios::tcgetwinsize(std::io::stdout()).ok();
    let told = told.filter(|size| size.ws_col > 0 && size.ws_row > 0);
    told.map_or(Size { columns: 80, rows: 24 }, |size| Size {
        columns: size.ws_col.into(),
        rows: size.ws_row.into(),
    })
}

pub(super) fn clock(simulated_seconds: u64) -> String {
    let (hours, minutes) = (simulated_seconds / 3_600, simulated_seconds / 60 % 60);
    format!("{hours}:{minutes:02}:{:02}", simulated_seconds % 60)
}

fn counts(totals: &Totals) -> String {
    let mut text = String::from("decisions");
    for (of, count) in &totals.decisions {
        let _ = write!(text, "  {of} {count}");
    }
    text.push_str("   outcomes");
    for (status, count) in &totals.outcomes {
        let _ = write!(text, "  {status} {count}");
    }
    let _ = write!(
        text,
        "   conversations {}  enriched {}  dead letters {}",
        totals.conversations, totals.enriched, totals.dead_letters
    );
    text
}

fn line(overview: &Overview, totals: &Totals, recent: &[Recent]) -> String {
    let rates: Vec<_> =
        overview.campaigns.iter().map(|campaign| format!("{:.2}", campaign.snapshot.dial_rate)).collect();
    let mut text = format!(
        "{}  {}  abandonment {:.2} %  dial rates {}",
        clock(overview.simulated_seconds),
        counts(totals),
        abandonment(overview) * 100.0,
        rates.join(" ")
    );
    for decision in recent {
        let _ = write!(text, "  last {} {}", decision.of, decision.decision_id);
    }
    text
}

/// What a decision asked for, in a few words.
pub(super) fn what(decision: &Recent) -> String {
    let rate = |name: &str| decision.parameters[name].as_f64();
    match (rate("previousDialRate"), rate("dialRate")) {
        (Some(from), Some(to)) => format!("{from:.2} → {to:.2}"),
        _ if decision.of == Loop::Delivery.name() => match (decision.action.as_str(), rate("share")) {
            ("set_share", Some(share)) => format!("{:.0} % to the candidate", share * 100.0),
            _ => decision.action.replace('_', " "),
        },
        _ => match decision.parameters["flowVersion"].as_str() {
            Some(version) if !version.is_empty() => format!("{} {version}", decision.action),
            _ => decision.action.replace('_', " "),
        },
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
pub(super) fn summary(facts: u64, totals: &Totals, canaries: &[String], overview: &Overview) -> String {
    let mut text = format!(
        "\nSummary after {} of simulated time\n  facts read   {facts} of campaigns\n",
        clock(overview.simulated_seconds)
    );
    for (of, count) in &totals.decisions {
        let _ = writeln!(text, "  decisions    {count} of loop {of}");
    }
    for (status, count) in &totals.outcomes {
        let _ = writeln!(text, "  {status:<12} {count}");
    }
    let _ = writeln!(
        text,
        "  conflicts    {} (another writer came between; decided again on the new limits)",
        totals.conflicts
    );
    let _ = writeln!(text, "  abandonment  {:.2} % of live answers", abandonment(overview) * 100.0);
    let _ = writeln!(
        text,
        "  conversations {} told of by events, {} enriched; dead letters {}",
        totals.conversations, totals.enriched, totals.dead_letters
    );
    for canary in canaries {
        let _ = writeln!(text, "  {canary}");
    }
    let _ = writeln!(text, "  gaps         {} (keys whose sequence has a hole)", totals.gaps);
    text
}
