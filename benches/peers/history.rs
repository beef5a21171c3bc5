//! What people ask the audit when it has years in it: pages, lists and single decisions, over HTTP, and `explain`.

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::harness::{self, new_topics, number};
use crate::program::Program;
use crate::{database, http, log_of, migrate, psql, trunkline_command};

const MONTHS: usize = 24;
/// Decisions filled in with one statement.
const STEP: usize = 500_000;
const TIMES: usize = 20;
const ADDRESS: &str = "127.0.0.1:28919";
const READY_WITHIN: Duration = Duration::from_secs(60);

pub(crate) fn history() {
    let kafka = new_topics("history");
    migrate(&kafka);
    let decisions = number("TRUNKLINE_BENCH_DECISIONS", 10_000_000);
    fill(decisions);
    let mut command = trunkline_command(&kafka, &["run", "--stages", "audit,console"]);
    command.env("TRUNKLINE_HTTP__LISTEN", ADDRESS);
    let mut program = Program::start(command, &log_of("history"));
    while http::get(ADDRESS, "/readyz") != Some(200) {
        program.assert_runs();
        assert!(program.started().elapsed() < READY_WITHIN, "it is not ready");
        std::thread::sleep(Duration::from_millis(50));
    }
    let [newest, oldest] = ["DESC", "ASC"].map(|order| {
        psql(&format!("SELECT decision_id FROM audit.decisions ORDER BY decided_at {order} LIMIT 1"))
    });
    let mut lines = vec![
        format!("{decisions} decisions and outcomes in {MONTHS} months, each asked for {TIMES} times:"),
        String::new(),
        "| | median ms | longest ms |".to_owned(),
        "|---|---|---|".to_owned(),
    ];
    let pages = [
        "/",
        "/campaigns",
        "/campaigns?id=campaign-0007",
        "/flows",
        "/lag",
        "/ledger",
        "/ledger?loop=rollback",
        "/ledger?key=campaign-0007",
        "/v1/decisions",
        "/v1/decisions?loop=dial",
        "/v1/decisions?key=nobody",
    ];
    let single =
        [format!("/decisions/{oldest}"), format!("/decisions/{newest}"), format!("/v1/decisions/{oldest}")];
    for path in pages.into_iter().chain(single.iter().map(String::as_str)) {
        let what = path.replace(&oldest, "OLDEST").replace(&newest, "NEWEST");
        lines.push(timed(&format!("`GET {what}`"), || {
            assert_eq!(http::get(ADDRESS, path), Some(200), "{path}");
        }));
    }
    program.end();
    lines.push(timed("`trunkline explain OLDEST`, the whole command", || {
        let mut command = trunkline_command(&kafka, &["explain", &oldest]);
        let ended = command.output().expect("it runs");
        assert!(ended.status.success(), "{}", String::from_utf8_lossy(&ended.stderr));
    }));
    harness::tell("history", &lines);
}

fn fill(decisions: usize) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/peers/history.sql");
    for from in (1..=decisions).step_by(STEP) {
        let values = [
            ("months", MONTHS),
            ("decisions", decisions),
            ("from", from),
            ("upto", decisions.min(from + STEP - 1)),
        ];
        let mut command = Command::new("psql");
        command.args([&*database(), "-Xq", "-v", "ON_ERROR_STOP=1", "-f"]).arg(&script);
        for (name, value) in values {
            command.args(["-v", &format!("{name}={value}")]);
        }
        let run = command.output().expect("psql runs");
        assert!(run.status.success(), "{}", String::from_utf8_lossy(&run.stderr));
    }
    psql("VACUUM ANALYZE");
}

fn timed(what: &str, ask: impl Fn()) -> String {
    // Once before it is counted: pages of the database are read from the disk, statements are prepared.
    ask();
    let mut took: Vec<f64> = (0..TIMES)
        .map(|_| {
            let began = Instant::now();
            ask();
            began.elapsed().as_secs_f64() * 1e3
        })
        .collect();
    took.sort_by(f64::total_cmp);
    format!("| {what} | {:.1} | {:.1} |", took[TIMES / 2], took[TIMES - 1])
}
