//! A picture of the demo as lines that fit a terminal: no line is longer than it is wide, and
//! there are no more of them than it is high.

use crate::postgres::{Recent, Totals};
use simulator::Overview;

use super::screen::{clock, what};

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Size {
    pub columns: usize,
    pub rows: usize,
}

/// Everything that is shown besides what the ledger and the platform say.
pub(super) struct Around<'a> {
    /// How the demo's own consumer group is.
    pub readers: &'a str,
    /// How each canary is.
    pub canaries: &'a [String],
    /// Where to look further.
    pub hints: &'a [String],
}

/// The lines, top to bottom.
pub(super) fn lines(
    size: Size,
    overview: &Overview,
    totals: &Totals,
    recent: &[Recent],
    around: &Around<'_>,
) -> Vec<String> {
    let mut lines = vec![
        format!(
            "simulated time {}   {}",
            clock(overview.simulated_seconds),
            counted("decisions", &totals.decisions)
        ),
        format!(
            "{}   conversations {}, enriched {}, dead letters {}",
            counted("outcomes", &totals.outcomes),
            totals.conversations,
            totals.enriched,
            totals.dead_letters
        ),
    ];
    // Ids begin with the time of the decision.
    let newest = recent.iter().map(|decision| decision.decision_id).max();
    let newest = newest.map(|id| format!("newest decision {id}"));
    let below = 2 + around.canaries.len() + usize::from(newest.is_some()) + around.hints.len();
    // The cursor stands on a line of its own below the picture.
    let room = size.rows.saturating_sub(1 + lines.len() + below);
    let campaigns = campaigns(overview);
    let decisions = decisions(overview, recent);
    // Some decisions are always shown; campaigns get what they need of the rest.
    let for_campaigns = campaigns.len().min(room.saturating_sub(4.min(decisions.len())));
    lines.extend(columns(size.columns, &campaigns[..for_campaigns], 0, &[1, 2, 3, 4, 5, 6, 7]));
    let for_decisions = decisions.len().min(room - for_campaigns);
    lines.extend(columns(size.columns, &decisions[..for_decisions], 3, &[]));
    lines.push(String::new());
    lines.push(around.readers.to_owned());
    lines.extend(around.canaries.iter().cloned());
    lines.extend(newest);
    lines.extend(around.hints.iter().cloned());
    lines.iter().map(|line| cut(line, size.columns)).take(size.rows.saturating_sub(1)).collect()
}

fn counted(name: &str, counts: &[(String, i64)]) -> String {
    let counts: Vec<_> = counts.iter().map(|(of, count)| format!("{of} {count}")).collect();
    format!("{name} {}", counts.join(", "))
}

/// With a heading.
fn campaigns(overview: &Overview) -> Vec<Vec<String>> {
    let heading = ["campaign", "rate", "limits", "answered", "idle", "busy", "ring", "abandoned"];
    let rows = overview.campaigns.iter().map(|campaign| {
        let now = &campaign.snapshot;
        vec![
            campaign.name.clone(),
            format!("{:.2}", now.dial_rate),
            format!("{:.2}–{:.2}", campaign.min_dial_rate, campaign.max_dial_rate),
            format!("{:.1} %", now.answer_rate * 100.0),
            now.agents.idle.to_string(),
            (now.agents.talking + now.agents.wrapping_up).to_string(),
            now.ringing.to_string(),
            format!("{:.2} %", campaign.abandonment * 100.0),
        ]
    });
    std::iter::once(heading.map(str::to_owned).to_vec()).chain(rows).collect()
}

/// With a heading.
fn decisions(overview: &Overview, recent: &[Recent]) -> Vec<Vec<String>> {
    let heading = ["loop", "of", "decided", "why", "outcome"];
    let rows = recent.iter().map(|decision| {
        vec![
            decision.of.clone(),
            name_of(overview, &decision.key).to_owned(),
            what(decision),
            decision.reason.clone(),
            match (&decision.status, decision.of.as_str()) {
                (Some(status), _) => status.clone(),
                // People are told, nothing is changed: there will be none.
                (None, "lag") => "–".to_owned(),
                (None, _) => "…".to_owned(),
            },
        ]
    });
    std::iter::once(heading.map(str::to_owned).to_vec()).chain(rows).collect()
}

/// What people call it, where the platform knows the id.
pub(super) fn name_of<'n>(overview: &'n Overview, id: &'n str) -> &'n str {
    let campaigns = overview.campaigns.iter().map(|it| (&it.id, &it.name));
    let flows = overview.flows.iter().map(|it| (&it.id, &it.name));
    let queues = overview.queues.iter().map(|it| (&it.id, &it.name));
    campaigns.chain(flows).chain(queues).find(|(known, _)| *known == id).map_or(id, |(_, name)| name)
}

/// Rows as columns two blanks apart, `right` ones to the right; where they are too wide, column
/// `gives` is narrower.
fn columns(width: usize, rows: &[Vec<String>], gives: usize, right: &[usize]) -> Vec<String> {
    let Some(first) = rows.first() else { return Vec::new() };
    let length = |text: &str| text.chars().count();
    let mut widths: Vec<usize> = (0..first.len())
        .map(|column| rows.iter().map(|row| length(&row[column])).max().unwrap_or(0))
        .collect();
    let all = widths.iter().sum::<usize>() + 2 * (widths.len() - 1);
    widths[gives] = widths[gives].saturating_sub(all.saturating_sub(width)).max(6);
    let mut lines: Vec<String> = Vec::with_capacity(rows.len() + 1);
    for row in rows {
        let cells = row.iter().zip(&widths).enumerate().map(|(column, (text, width))| {
            let text = cut(text, *width);
            let blanks = " ".repeat(width - length(&text));
            if right.contains(&column) { blanks + &text } else { text + &blanks }
        });
        lines.push(cells.collect::<Vec<_>>().join("  ").trim_end().to_owned());
    }
    lines
}

/// At most so many characters; what is left out is shown as `…`. Control characters from outside
/// never reach the terminal.
fn cut(text: &str, most: usize) -> String {
    let mut clean: Vec<char> =
        text.chars().map(|letter| if letter.is_control() { ' ' } else { letter }).collect();
    if clean.len() > most {
        clean.truncate(most.saturating_sub(1));
        clean.push('…');
    }
    clean.into_iter().take(most).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use simulator::Simulator;

    #[tokio::test]
    async fn the_picture_fits_whatever_the_terminal_and_names_what_it_shows() {
        let settings =
            simulator::Settings { listen: ([127, 0, 0, 1], 0).into(), ..simulator::Settings::default() };
        let simulation = Simulator::start(settings).await.unwrap();
        let overview = simulation.overview();
        simulation.shutdown().await;
        let flow = overview.flows.first().unwrap();
        let decision = |of: &str, key: &str| Recent {
            decision_id: uuid::Uuid::nil(),
            of: of.into(),
            key: key.into(),
            action: "rollback".into(),
            reason: "worse_than_the_version_before_it_by_far_and_for_long\n".into(),
            parameters: json!({"flowVersion": "5.0"}),
            status: None,
        };
        let recent: Vec<Recent> =
            (0..20).map(|_| decision("rollback", &flow.id)).chain([decision("lag", "group")]).collect();
        let totals = Totals { decisions: vec![("dial".into(), 123_456); 5], ..Totals::default() };
        let hints = ["HTTP http://127.0.0.1:12345".to_owned(), "x".repeat(300)];
        let canaries = ["canary".to_owned(), "y".repeat(300)];
        let around = Around { readers: &"readers ".repeat(30), canaries: &canaries, hints: &hints };
        for (columns, rows) in [(80, 24), (200, 60), (40, 10), (10, 3), (1, 1)] {
            let lines = lines(Size { columns, rows }, &overview, &totals, &recent, &around);
            assert!(lines.len() < rows.max(1), "{} lines on {rows}", lines.len());
            for line in &lines {
                assert!(line.chars().count() <= columns && !line.contains('\n'), "{columns}: {line:?}");
            }
        }
        let lines = lines(Size { columns: 80, rows: 24 }, &overview, &totals, &recent, &around).join("\n");
        assert!(lines.contains(&flow.name) && !lines.contains(&flow.id), "{lines}");
        assert!(lines.contains("rollback 5.0"), "{lines}");
        assert!(overview.campaigns.iter().all(|campaign| lines.contains(&campaign.name)), "{lines}");
    }
}
