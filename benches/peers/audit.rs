//! Decisions on their topic, into Postgres: the audit sink beside `COPY` of the same rows by psql.

use std::time::{Duration, Instant};

use trunkline::topics;

use crate::harness;
use crate::harness::new_topics;
use crate::jobs::{Job, committed_records};
use crate::program::Program;
use crate::{log_of, migrate, psql, records, trunkline, trunkline_command};

const PATIENCE: Duration = Duration::from_secs(600);

pub(crate) fn audit() {
    let kafka = new_topics("audit");
    Job::Dial.fill(&kafka, records());
    trunkline(Job::Dial, &kafka, records(), 1);
    let decisions = committed_records(&kafka, &kafka.topic(&topics::DIAL_DECISIONS));
    migrate(&kafka);
    let count = || psql("SELECT count(*) FROM audit.decision_log").parse::<usize>().expect("a number");
    let before = count();
    let mut program =
        Program::start(trunkline_command(&kafka, &["run", "--stages", "audit"]), &log_of("audit"));
    let mut first = None;
    let rate = loop {
        let rows = count() - before;
        if rows > 0 && first.is_none() {
            first = Some((Instant::now(), rows));
        }
        if let (true, Some((at, already))) = (rows >= decisions, first) {
            break (rows - already) as f64 / at.elapsed().as_secs_f64();
        }
        program.assert_runs();
        assert!(program.started().elapsed() < PATIENCE, "{rows} of {decisions} rows");
        std::thread::sleep(Duration::from_millis(100));
    };
    let used = program.used();
    program.end();
    let copied = copied_per_second();
    let lines = [
        "| rows of decisions into Postgres | rows/s | CPU µs each | peak MB |".to_owned(),
        "|---|---|---|---|".to_owned(),
        format!(
            "| audit sink, with every index and its position | {rate:.0} | {:.1} | {:.0} |",
            used.cpu_seconds * 1e6 / decisions as f64,
            used.peak_megabytes
        ),
        format!("| `COPY` by psql, the same table and indexes | {copied:.0} | | |"),
        format!("| of it | {:.2} × | | |", rate / copied),
    ];
    harness::tell("audit", &lines);
}

/// Copies the same rows out and into a table of the same form.
fn copied_per_second() -> f64 {
    let file = log_of("audit-rows").with_extension("copy");
    let file = file.to_str().expect("a path that is text");
    psql("DROP TABLE IF EXISTS copied");
    psql("CREATE TABLE copied (LIKE audit.decision_log INCLUDING ALL)");
    psql(&format!("\\copy (SELECT * FROM audit.decision_log) TO '{file}'"));
    let started = Instant::now();
    psql(&format!("\\copy copied FROM '{file}'"));
    let took = started.elapsed();
    let rows: f64 = psql("SELECT count(*) FROM copied").parse().expect("a number");
    psql("DROP TABLE copied");
    std::fs::remove_file(file).expect("the file was written");
    rows / took.as_secs_f64()
}
