//! `trunkline compliance show`.

use std::io::Write as _;
use std::process::ExitCode;

use comfy_table::{CellAlignment, Table, presets};
use jiff::ToSpan as _;
use serde::Serialize;

use super::super::explain::printable;
use super::{ConfigFile, Opened, open};
use crate::clock;
use crate::model::compliance::WindowKind;
use crate::postgres::compliance::KeptFigure;

#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// The campaign's id
    #[arg(long, value_name = "ID")]
    campaign: String,
    /// hour, day, rolling_24h, period_30d or life
    #[arg(long, value_name = "KIND", default_value = "day", value_parser = window_kind)]
    window: WindowKind,
    /// Local days to look back on
    #[arg(long, value_name = "N", default_value_t = 14, value_parser = clap::value_parser!(i64).range(1..=1827))]
    days: i64,
    /// For scripts
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    config: ConfigFile,
}

fn window_kind(text: &str) -> Result<WindowKind, String> {
    let names: Vec<&str> = WindowKind::ALL.iter().map(|kind| kind.name()).collect();
    WindowKind::of_name(text).ok_or_else(|| format!("must be one of {}", names.join(", ")))
}

impl Arguments {
    pub(super) async fn run(self) -> anyhow::Result<ExitCode> {
        let opened = open(&self.campaign, &self.config).await?;
        let today = opened.calendar.day_of(clock::now());
        // A period is filed under its first day.
        let reach = if self.window == WindowKind::Period30d { self.days.max(30) } else { self.days };
        let from = today.saturating_sub(reach.days());
        let figures =
            opened.database.kept_figures(&self.campaign, &[self.window.name()], from, today).await?;
        let month = Month::of(&opened, &self.campaign).await?;
        let mut out = std::io::stdout();
        if self.json {
            crate::cli::print_json(&serde_json::json!({ "items": figures, "month": month }))?;
        } else if figures.is_empty() {
            eprintln!("trunkline: no figure of these days is kept; is the role compliance running?");
        } else {
            writeln!(out, "{}\n{}", table(&figures), month.line())?;
        }
        Ok(ExitCode::SUCCESS)
    }
}

fn table(figures: &[KeptFigure]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header([
        "DAY",
        "FROM",
        "FIGURE",
        "STATEMENT",
        "CALLS",
        "OF",
        "RATE",
        "CAP",
        "OVER",
        "SOURCE OR REASON",
    ]);
    for figure in figures {
        let number =
            |number: Option<f64>| number.map_or_else(|| "-".to_owned(), |number| format!("{number:.6}"));
        let whole = |text: String| text.trim_end_matches('0').trim_end_matches('.').to_owned();
        let percent = |rate: f64| format!("{:.2} %", rate * 100.0);
        table.add_row([
            figure.day.to_string(),
            figure.window_start.to_string()[..16].to_owned(),
            figure.figure.clone(),
            figure.statement.clone(),
            whole(number(figure.numerator)),
            whole(number(figure.denominator)),
            figure.rate.map_or_else(|| "not known".to_owned(), percent),
            percent(figure.cap),
            match figure.over_cap {
                Some(true) => "OVER",
                Some(false) => "no",
                None => "-",
            }
            .to_owned(),
            printable(figure.not_known.as_deref().unwrap_or(&figure.source)),
        ]);
    }
    for column in 4..8 {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// What the campaign has dialled in the local month so far.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Month {
    from: crate::model::Timestamp,
    /// `None` where nothing counts them.
    attempts: Option<u64>,
    attempts_per_live_answer: Option<f64>,
    /// Of all campaigns together.
    attempts_of_all: Option<u64>,
    /// What licences cover.
    allowance: Option<u64>,
}

impl Month {
    async fn of(opened: &Opened, campaign_id: &str) -> anyhow::Result<Self> {
        let now = clock::now();
        let from = opened.calendar.day(opened.calendar.day_of(now).first_of_month()).start;
        let counters = opened.database.campaign_counters(campaign_id, from, now).await?;
        let answers = counters.answers.filter(|answers| *answers > 0);
        let per_answer = |attempts: u64| answers.map(|answers| attempts as f64 / answers as f64);
        Ok(Self {
            from,
            attempts: counters.attempts,
            attempts_per_live_answer: counters.attempts.and_then(per_answer),
            attempts_of_all: opened.database.attempts_of_all_campaigns(from, now).await?,
            allowance: opened.config.compliance.attempts_per_month,
        })
    }

    fn line(&self) -> String {
        let told =
            |count: Option<u64>| count.map_or_else(|| "not known".to_owned(), |count| count.to_string());
        let per_answer = self.attempts_per_live_answer;
        let per_answer = per_answer.map_or_else(|| "not known".to_owned(), |ratio| format!("{ratio:.2}"));
        let allowance =
            self.allowance.map(|allowance| format!(" of {allowance} covered")).unwrap_or_default();
        format!(
            "Attempts this month: {}, per live answer {per_answer}; of all campaigns {}{allowance}",
            told(self.attempts),
            told(self.attempts_of_all)
        )
    }
}
