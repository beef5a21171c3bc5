//! Alerting rules and dashboards name only metrics and labels that are declared.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use trunkline::metrics::{self, Kind, Metric};

/// Labels that Prometheus itself adds, and the bound of a histogram's bucket.
const SCRAPED: [&str; 3] = ["instance", "job", "le"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

/// Every expression with the file it stands in.
fn expressions() -> Vec<(String, String)> {
    let mut found = Vec::new();
    let rules = fs::read_to_string(folder().join("alerts.yml")).expect("alerting rules");
    let mut lines = rules.lines().peekable();
    while let Some(line) = lines.next() {
        let Some(text) = line.trim().strip_prefix("expr: ") else { continue };
        let mut text = text.to_owned();
        if text == ">-" {
            let below = std::iter::from_fn(|| lines.next_if(|line| line.starts_with("          ")));
            text = below.map(str::trim).collect::<Vec<_>>().join(" ");
        }
        found.push(("alerts.yml".to_owned(), text));
    }
    for entry in fs::read_dir(folder().join("grafana")).expect("dashboards") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().expect("a name").to_string_lossy().into_owned();
        let read = fs::read_to_string(&path).expect("UTF-8");
        let dashboard: serde_json::Value = serde_json::from_str(&read).expect("JSON");
        for panel in dashboard["panels"].as_array().expect("panels") {
            let targets = panel["targets"].as_array().into_iter().flatten();
            let texts = targets.map(|target| target["expr"].as_str().expect("an expression").to_owned());
            found.extend(texts.map(|text| (name.clone(), text)));
        }
    }
    found
}

/// Names in an expression outside of quotes, each with the letter after it.
fn names(expression: &str) -> Vec<(&str, char)> {
    let (mut found, mut rest) = (Vec::new(), expression);
    while let Some(start) =
        rest.find(|letter: char| letter.is_ascii_alphabetic() || letter == '"' || letter == '_')
    {
        rest = &rest[start..];
        if let Some(quoted) = rest.strip_prefix('"') {
            rest = quoted.split_once('"').map_or("", |(_, after)| after);
            continue;
        }
        let length = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
        let (name, after) = rest.split_at(length.unwrap_or(rest.len()));
        found.push((name, after.trim_start().chars().next().unwrap_or(' ')));
        rest = after;
    }
    found
}

/// The metric whose series have this name.
fn metric_of(series: &str) -> Option<&'static Metric> {
    let histogram = |metric: &Metric| {
        let suffixes = ["_bucket", "_sum", "_count"];
        suffixes.iter().any(|suffix| series.strip_suffix(suffix) == Some(metric.name))
    };
    metrics::ALL.iter().copied().find(|metric| match metric.kind {
        Kind::Histogram(_) => histogram(metric),
        _ => metric.name == series,
    })
}

/// Names in `by (…)`, and those before a comparison in braces.
fn labels(expression: &str) -> BTreeSet<&str> {
    let grouped = expression.split("by (").skip(1).filter_map(|after| after.split_once(')'));
    let mut labels: BTreeSet<&str> = grouped.flat_map(|(names, _)| names.split(", ")).collect();
    let selectors = expression.split('{').skip(1).filter_map(|after| after.split_once('}'));
    labels.extend(selectors.flat_map(|(inside, _)| names(inside)).map(|(name, _)| name));
    labels
}

#[test]
fn rules_and_dashboards_name_declared_metrics_and_their_labels() {
    let mut wrong = Vec::new();
    let mut shown = BTreeSet::new();
    for (file, expression) in expressions() {
        let mut known: BTreeSet<&str> = SCRAPED.into();
        for (name, _) in names(&expression).iter().filter(|(name, _)| name.starts_with("trunkline_")) {
            match metric_of(name) {
                Some(metric) => {
                    known.extend(metric.labels);
                    shown.insert(metric.name);
                }
                None => wrong.push(format!("{file}: {name} is not declared: {expression}")),
            }
        }
        let unknown = labels(&expression).into_iter().filter(|label| !known.contains(label));
        wrong.extend(
            unknown.map(|label| format!("{file}: no metric of it has a label {label}: {expression}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(shown.len() > 30, "only {} metrics are looked at", shown.len());
}

#[test]
fn what_is_not_declared_is_found() {
    assert!(metric_of("trunkline_genesys_calls_total").is_some());
    assert!(metric_of("trunkline_genesys_call_seconds_bucket").is_some());
    for wrong in ["trunkline_genesys_calls", "trunkline_genesys_call_seconds", "trunkline_stage_keys_bucket"]
    {
        assert!(metric_of(wrong).is_none(), "{wrong}");
    }
    let expression = r#"sum by (stage, le) (rate(trunkline_x_total{result!="no, (me)", stage=~"a|b"}[5m]))"#;
    assert_eq!(labels(expression), ["le", "result", "stage"].into());
    let named = names(r#"rate(trunkline_x_total{result="trunkline_y"}[5m])"#);
    assert_eq!(
        named.iter().map(|(name, _)| *name).collect::<Vec<_>>(),
        ["rate", "trunkline_x_total", "result", "m"]
    );
}
