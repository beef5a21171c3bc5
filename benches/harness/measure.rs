//! What a process has used, and percentiles.

use std::time::{Duration, Instant};

/// Above the rows of parts.
pub(crate) const HEAD: [&str; 2] = ["| | a second | CPU µs each | peak MB |", "|---|---|---|---|"];

/// Time and CPU at one moment.
pub(crate) struct Usage {
    at: Instant,
    cpu_seconds: f64,
}

impl Usage {
    pub(crate) fn now() -> Self {
        Self::of("self")
    }

    /// Of a process: its id, or `self`.
    pub(crate) fn of(process: &str) -> Self {
        Self { at: Instant::now(), cpu_seconds: cpu_seconds(process) }
    }

    /// Prints a row below [`HEAD`] for `records` handled since.
    pub(crate) fn report(&self, what: &str, records: usize) {
        println!("{}", self.row("self", what, records));
    }

    /// That row, for the process that this is [of](Self::of).
    pub(crate) fn row(&self, process: &str, what: &str, records: usize) -> String {
        let records = records as f64;
        format!(
            "| {what} | {:.0} | {:.2} | {:.0} |",
            records / self.at.elapsed().as_secs_f64(),
            (cpu_seconds(process) - self.cpu_seconds) * 1e6 / records,
            peak_megabytes(process)
        )
    }
}

/// User and system time of all threads of a process (its id, or `self`); `/proc` counts it in
/// hundredths on Linux.
pub(crate) fn cpu_seconds(process: &str) -> f64 {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("Linux");
    // The name in parentheses may hold blanks: fields are counted from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')').expect("a name").1.split_whitespace().collect();
    let ticks = |field: usize| fields[field].parse::<f64>().expect("a number");
    (ticks(11) + ticks(12)) / 100.0
}

pub(crate) fn peak_megabytes(process: &str) -> f64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmHWM:")).expect("a peak");
    line.split_whitespace().nth(1).and_then(|text| text.parse::<f64>().ok()).expect("kB") / 1_024.0
}

pub(crate) fn threads(process: &str) -> usize {
    std::fs::read_dir(format!("/proc/{process}/task")).expect("Linux").count()
}

/// The value below which `share` of the sorted values lie.
pub(crate) fn percentile(sorted: &[Duration], share: f64) -> Duration {
    let index = ((sorted.len() as f64 * share).ceil() as usize).clamp(1, sorted.len()) - 1;
    sorted[index]
}
