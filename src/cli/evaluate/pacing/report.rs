//! What many days come to, and how sure that is.

use comfy_table::Table;
use serde::Serialize;

use super::day::{Answers, Day};
use super::worlds::{JUMP_SECONDS, World};

/// One policy on all days of one world.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Row {
    pub world: World,
    pub agents: u32,
    pub policy: String,
    pub days: usize,
    /// Share of the agents' time with a customer, 0–1, mean over days.
    pub utilisation: Estimate,
    /// Talk minutes per agent hour above one line per idle agent on the same days.
    pub predictive_gain: Estimate,
    /// Abandoned of all live answers, 0–1.
    pub abandonment: f64,
    /// The greatest of one day, 0–1.
    pub worst_day: f64,
    pub days_over_cap: usize,
    /// Share of hours over the cap, 0–1.
    pub hours_over_cap: f64,
    pub attempts_per_answer: f64,
    /// After the jump, in the world that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub after_jump: Option<AfterJump>,
    /// This policy less `adaptive`, day by day on the same seeds, where both were played.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub over_adaptive: Option<Paired>,
}

/// A mean and half the width of its 95 % confidence interval (Student's t over days).
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub(super) struct Estimate {
    pub mean: f64,
    pub margin: f64,
}

/// How a policy finds its new level.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct AfterJump {
    /// Minutes until the mean rate of two minutes comes within a tenth of its later level,
    /// median over days.
    pub settling_minutes: f64,
    /// Abandonment of the hour after the jump, 0–1: over all days, and of the worst.
    pub hour: f64,
    pub worst_hour: f64,
}

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Paired {
    pub utilisation: Estimate,
    pub abandonment: Estimate,
}

impl Estimate {
    pub(super) fn of(values: &[f64]) -> Self {
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count.max(1.0);
        if values.len() < 2 {
            return Self { mean, margin: f64::INFINITY };
        }
        let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / (count - 1.0);
        Self { mean, margin: student(values.len() - 1) * (variance / count).sqrt() }
    }
}

/// The 97.5 % quantile of Student's t, by the expansion of Cornish and Fisher (Abramowitz and
/// Stegun 26.7.5); within 1 % from 4 degrees of freedom on.
fn student(degrees: usize) -> f64 {
    let (z, n) = (1.959_964_f64, degrees as f64);
    let terms = [
        z,
        (z.powi(3) + z) / (4.0 * n),
        (5.0 * z.powi(5) + 16.0 * z.powi(3) + 3.0 * z) / (96.0 * n * n),
        (3.0 * z.powi(7) + 19.0 * z.powi(5) + 17.0 * z.powi(3) - 15.0 * z) / (384.0 * n.powi(3)),
    ];
    terms.iter().sum()
}

/// `days` of one policy; `progressive` and `adaptive` are the same seeds under those policies.
pub(super) fn row(
    (world, agents, policy): (World, u32, &str),
    days: &[Day],
    progressive: &[Day],
    adaptive: Option<&[Day]>,
    cap: f64,
) -> Row {
    let each = |of: &dyn Fn(&Day) -> f64| days.iter().map(of).collect::<Vec<f64>>();
    let less = |other: &[Day], of: &dyn Fn(&Day) -> f64| {
        Estimate::of(&days.iter().zip(other).map(|(one, two)| of(one) - of(two)).collect::<Vec<f64>>())
    };
    let gain = less(progressive, &|day| 60.0 * day.utilisation);
    let hours: Vec<Answers> = days.iter().flat_map(|day| day.hours.iter().copied()).collect();
    let over = |answers: &Answers| answers.abandoned as f64 > cap * answers.answered as f64;
    let all = total(days.iter().map(|day| day.answers));
    Row {
        world,
        agents,
        policy: policy.to_owned(),
        days: days.len(),
        utilisation: Estimate::of(&each(&|day| day.utilisation)),
        predictive_gain: gain,
        abandonment: all.abandonment(),
        worst_day: each(&|day| day.answers.abandonment()).into_iter().fold(0.0, f64::max),
        days_over_cap: days.iter().filter(|day| over(&day.answers)).count(),
        hours_over_cap: hours.iter().filter(|hour| over(hour)).count() as f64 / hours.len().max(1) as f64,
        attempts_per_answer: days.iter().map(|day| day.attempts).sum::<u64>() as f64
            / all.answered.max(1) as f64,
        after_jump: (world == World::Jump).then(|| after_jump(days)),
        over_adaptive: adaptive.map(|other| Paired {
            utilisation: less(other, &|day| day.utilisation),
            abandonment: less(other, &|day| day.answers.abandonment()),
        }),
    }
}

fn total(answers: impl Iterator<Item = Answers>) -> Answers {
    answers.fold(Answers::default(), |sum, one| Answers {
        answered: sum.answered + one.answered,
        abandoned: sum.abandoned + one.abandoned,
    })
}

fn after_jump(days: &[Day]) -> AfterJump {
    let jump = (JUMP_SECONDS / 60) as usize;
    let mut settling: Vec<f64> = days.iter().map(|day| settling_minutes(day, jump)).collect();
    settling.sort_by(f64::total_cmp);
    let hours: Vec<Answers> = days.iter().map(|day| day.hours[jump / 60]).collect();
    AfterJump {
        settling_minutes: settling[settling.len() / 2],
        hour: total(hours.iter().copied()).abandonment(),
        worst_hour: hours.iter().map(|hour| hour.abandonment()).fold(0.0, f64::max),
    }
}

/// The later level is the mean from one hour after the jump on.
fn settling_minutes(day: &Day, jump: usize) -> f64 {
    let rates: Vec<f64> = day.minutes.iter().map(|minute| minute.dial_rate).collect();
    let later = &rates[jump + 60..];
    let level = later.iter().sum::<f64>() / later.len() as f64;
    let settled =
        rates[jump..].windows(2).position(|two| ((two[0] + two[1]) / 2.0 - level).abs() <= 0.1 * level);
    settled.unwrap_or(rates.len() - jump) as f64
}

pub(super) fn table(rows: &[Row]) -> Table {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::ASCII_MARKDOWN);
    table.set_header([
        "world",
        "agents",
        "policy",
        "utilisation",
        "gain min/h",
        "abandoned",
        "worst day",
        "days over",
        "hours over",
        "attempts/answer",
        "settling min",
        "hour after, worst",
        "over adaptive: utilisation, abandoned",
    ]);
    let percent = |share: f64| format!("{:.2} %", 100.0 * share);
    let dash = || "–".to_owned();
    for row in rows {
        table.add_row([
            row.world.name().to_owned(),
            row.agents.to_string(),
            row.policy.clone(),
            format!("{:.3} ±{:.3}", row.utilisation.mean, row.utilisation.margin),
            format!("{:+.1} ±{:.1}", row.predictive_gain.mean, row.predictive_gain.margin),
            percent(row.abandonment),
            percent(row.worst_day),
            format!("{} of {}", row.days_over_cap, row.days),
            percent(row.hours_over_cap),
            format!("{:.2}", row.attempts_per_answer),
            row.after_jump.map_or_else(dash, |after| format!("{:.0}", after.settling_minutes)),
            row.after_jump
                .map_or_else(dash, |after| format!("{}, {}", percent(after.hour), percent(after.worst_hour))),
            row.over_adaptive.map_or_else(dash, |paired| {
                format!(
                    "{:+.3} ±{:.3}, {:+.2} ±{:.2} points",
                    paired.utilisation.mean,
                    paired.utilisation.margin,
                    100.0 * paired.abandonment.mean,
                    100.0 * paired.abandonment.margin
                )
            }),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_those_of_the_tables() {
        for (degrees, wanted) in [(5, 2.571), (11, 2.201), (35, 2.030), (200, 1.972)] {
            assert!((student(degrees) - wanted).abs() < 0.01, "{degrees}: {}", student(degrees));
        }
    }

    #[test]
    fn an_estimate_of_one_day_says_nothing_of_its_margin() {
        assert_eq!(Estimate::of(&[0.5]), Estimate { mean: 0.5, margin: f64::INFINITY });
        let sure = Estimate::of(&[0.5, 0.5, 0.5]);
        assert_eq!((sure.mean, sure.margin), (0.5, 0.0));
    }
}
