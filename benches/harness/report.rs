//! Writes what was measured into `docs/benchmarks.md`, each part between marks of its own.

use std::fmt::Write as _;
use std::path::Path;

const PAGE: &str = "docs/benchmarks.md";

/// Replaces the page's part `name`, where `TRUNKLINE_BENCH_WRITE` is set.
pub(crate) fn write(name: &str, lines: &[String]) {
    if std::env::var_os("TRUNKLINE_BENCH_WRITE").is_none() {
        return;
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(PAGE);
    let page = std::fs::read_to_string(&path).expect(PAGE);
    let (begin, end) =
        (format!("<!-- {name}: written by `make bench` -->"), format!("<!-- end of {name} -->"));
    let (before, rest) = page.split_once(&begin).unwrap_or_else(|| panic!("{PAGE} has no part {name}"));
    let (_, after) = rest.split_once(&end).unwrap_or_else(|| panic!("{PAGE}: {name} does not end"));
    let mut text = format!("{before}{begin}\n\n");
    for line in lines {
        writeln!(text, "{line}").expect("a string takes it");
    }
    write!(text, "\nMeasured on {}.\n\n{end}{after}", machine()).expect("a string takes it");
    std::fs::write(&path, text).expect(PAGE);
}

/// The machine it was made on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name));
        line.and_then(|line| line.split_once(':'))
            .map_or("?".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let processor = field(&read("/proc/cpuinfo"), "model name");
    let memory = field(&read("/proc/meminfo"), "MemTotal");
    let gigabytes =
        memory.split_whitespace().next().and_then(|kb| kb.parse::<f64>().ok()).unwrap_or(0.0) / 1e6;
    let threads = std::thread::available_parallelism().map_or(0, usize::from);
    format!(
        "{processor}, {threads} hardware threads, {gigabytes:.0} GB, Linux {}, load {} before the last round, {}",
        read("/proc/sys/kernel/osrelease").trim(),
        read("/proc/loadavg").split_whitespace().next().unwrap_or("?"),
        &super::now().to_string()[..10]
    )
}
