//! Gauges whose series come and go: the recorder keeps a series for good, and a name that
//! is gone would be told with its last value for ever.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Kind, Metric};

/// By metric, label values in the order of the metric's labels.
type Series = BTreeMap<&'static str, BTreeMap<Vec<String>, f64>>;

static SERIES: Mutex<Series> = Mutex::new(Series::new());

fn series() -> MutexGuard<'static, Series> {
    SERIES.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Metric {
    /// Shows a gauge until it is [hidden](Self::hide). `None` hides it. The values stand in
    /// the order of `labels`.
    pub fn show(&self, values: &[&str], number: Option<f64>) {
        assert_eq!((self.kind, self.labels.len()), (Kind::Gauge, values.len()), "{}", self.name);
        let Some(number) = number else { return self.hide(values) };
        let values = values.iter().map(|value| (*value).to_owned()).collect();
        series().entry(self.name).or_default().insert(values, number);
    }

    /// Takes a series off the page.
    pub fn hide(&self, values: &[&str]) {
        let values: Vec<String> = values.iter().map(|value| (*value).to_owned()).collect();
        if let Some(held) = series().get_mut(self.name) {
            held.remove(&values);
        }
    }
}

/// Appends what is shown to a page, as Prometheus reads it.
pub fn render(page: &mut String) {
    for (name, held) in series().iter().filter(|(_, held)| !held.is_empty()) {
        let Some(metric) = super::ALL.iter().find(|metric| metric.name == *name) else { continue };
        let _ = writeln!(page, "# HELP {name} {}\n# TYPE {name} gauge", metric.help);
        for (values, number) in held {
            let labels: Vec<String> = metric
                .labels
                .iter()
                .zip(values)
                .map(|(label, value)| format!("{label}=\"{}\"", escaped(value)))
                .collect();
            let _ = writeln!(page, "{name}{{{}}} {number}", labels.join(","));
        }
        page.push('\n');
    }
}

fn escaped(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::metrics::LAG_GROUP_REPLICAS;

    #[test]
    fn a_series_is_on_the_page_until_it_is_hidden() {
        let page = || {
            let mut page = String::new();
            render(&mut page);
            page
        };
        LAG_GROUP_REPLICAS.show(&["shown \"x\"\n\\"], Some(3.0));
        LAG_GROUP_REPLICAS.show(&["shown y"], Some(0.5));
        let text = page();
        let line = "trunkline_lag_group_replicas{group=\"shown \\\"x\\\"\\n\\\\\"} 3\n";
        assert!(
            text.contains(line) && text.contains("# TYPE trunkline_lag_group_replicas gauge\n"),
            "{text}"
        );
        LAG_GROUP_REPLICAS.hide(&["shown \"x\"\n\\"]);
        LAG_GROUP_REPLICAS.show(&["shown y"], None);
        assert!(!page().contains("shown"), "{}", page());
    }
}
