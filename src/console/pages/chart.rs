//! Charts made here as SVG: no script draws them, and behind each is its table.
//!
//! The drawing is stretched to its place, so it holds no words; those are HTML around it.

use maud::{Markup, html};

use super::words;
use crate::model::Timestamp;

/// How numbers are said.
#[derive(Clone, Copy, Debug)]
pub(super) enum Unit {
    /// A fraction, said in percent.
    Share,
    Number,
}

impl Unit {
    pub(super) fn said(self, value: f64) -> String {
        match self {
            Unit::Share => words::percent(value),
            Unit::Number => words::number(value),
        }
    }
}

/// One line; its points in the order of their times.
pub(super) struct Series<'a> {
    pub name: &'a str,
    pub points: Vec<(Timestamp, f64)>,
}

/// A line that is not to be crossed.
pub(super) struct Limit<'a> {
    pub name: &'a str,
    pub value: f64,
}

/// Something that happened.
pub(super) struct Event {
    pub at: Timestamp,
    pub what: String,
}

/// A chart over time.
pub(super) struct Chart<'a> {
    /// Unique on its page.
    pub id: &'a str,
    pub title: &'a str,
    pub unit: Unit,
    pub series: Vec<Series<'a>>,
    pub limits: Vec<Limit<'a>>,
    pub events: Vec<Event>,
}

/// Where the drawing lies: units of its own, stretched later.
const WIDTH: f64 = 1_000.0;
const HEIGHT: f64 = 100.0;
/// Rows of the table behind a chart.
const MOST_ROWS: usize = 200;

/// The span of values and times that is drawn.
struct Frame {
    from: i64,
    until: i64,
    top: f64,
}

impl Frame {
    fn of(chart: &Chart<'_>) -> Option<Self> {
        let times = chart.series.iter().flat_map(|series| series.points.iter().map(|(at, _)| at.as_millis()));
        let (from, until) = (times.clone().min()?, times.max()?);
        let values = chart.series.iter().flat_map(|series| series.points.iter().map(|(_, value)| *value));
        let limits = chart.limits.iter().map(|limit| limit.value);
        let top = values.chain(limits).filter(|value| value.is_finite()).fold(0.0, f64::max);
        Some(Self { from, until: until.max(from + 1), top: if top > 0.0 { top * 1.08 } else { 1.0 } })
    }

    fn x(&self, at: Timestamp) -> f64 {
        let part = (at.as_millis() - self.from) as f64 / (self.until - self.from) as f64;
        part.clamp(0.0, 1.0) * WIDTH
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - (value / self.top).clamp(0.0, 1.0) * HEIGHT
    }

    fn path(&self, points: &[(Timestamp, f64)]) -> String {
        let usable = points.iter().filter(|(_, value)| value.is_finite());
        usable
            .map(|(at, value)| format!("{:.1},{:.2}", self.x(*at), self.y(*value)))
            .collect::<Vec<_>>()
            .join(" ")
    }
}

impl Chart<'_> {
    pub(super) fn drawn(&self) -> Markup {
        let Some(frame) = Frame::of(self) else {
            return html! { p.empty { (self.title) ": nothing recorded in this time." } };
        };
        let title = format!("{}-title", self.id);
        html! {
            figure {
                figcaption #(title) { (self.title) (self.legend()) }
                div.plot {
                    div.ends aria-hidden="true" {
                        span { (self.unit.said(frame.top)) }
                        span { (self.unit.said(0.0)) }
                    }
                    svg.lines viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) preserveAspectRatio="none" role="img"
                        aria-label=(self.said()) {
                        @for (index, limit) in self.limits.iter().enumerate() {
                            line.limit.other[index > 0] x1="0" x2=(WIDTH) y1=(frame.y(limit.value)) y2=(frame.y(limit.value)) {}
                        }
                        @for event in &self.events {
                            line.event x1=(frame.x(event.at)) x2=(frame.x(event.at)) y1="0" y2=(HEIGHT) {}
                        }
                        @for (index, series) in self.series.iter().enumerate() {
                            polyline class=(format!("s{}", index.min(1))) points=(frame.path(&series.points)) {}
                        }
                    }
                    div.times aria-hidden="true" {
                        span { (words::clock(Timestamp::from_millis(frame.from))) }
                        span { (words::clock(Timestamp::from_millis(frame.until))) }
                    }
                }
                (self.table())
            }
        }
    }

    fn legend(&self) -> Markup {
        html! {
            @for (index, series) in self.series.iter().enumerate() {
                span.legend { span class=(format!("mark m{}", index.min(1))) {} b { (series.name) } }
            }
            @for (index, limit) in self.limits.iter().enumerate() {
                span.legend { span.mark.ml.other[index > 0] {} b { (limit.name) " " (self.unit.said(limit.value)) } }
            }
            @if !self.events.is_empty() { span.legend { span.mark.me {} b { "what happened, see the table" } } }
        }
    }

    /// What the drawing shows, for those who do not see it.
    fn said(&self) -> String {
        let series = self.series.iter().filter_map(|series| {
            let last = series.points.last()?.1;
            let least = series.points.iter().map(|(_, value)| *value).fold(f64::INFINITY, f64::min);
            let most = series.points.iter().map(|(_, value)| *value).fold(f64::NEG_INFINITY, f64::max);
            let said = |value| self.unit.said(value);
            Some(format!("{}: now {}, between {} and {}", series.name, said(last), said(least), said(most)))
        });
        let limits =
            self.limits.iter().map(|limit| format!("{} {}", limit.name, self.unit.said(limit.value)));
        format!("{}. {}", self.title, series.chain(limits).collect::<Vec<_>>().join("; "))
    }

    fn table(&self) -> Markup {
        // By time, newest first; one row for all series at that time.
        let mut times: Vec<Timestamp> =
            self.series.iter().flat_map(|series| series.points.iter().map(|(at, _)| *at)).collect();
        times.sort_unstable_by(|one, other| other.cmp(one));
        times.dedup();
        times.truncate(MOST_ROWS);
        let cell = |series: &Series<'_>, at: Timestamp| {
            let found = series.points.iter().find(|(time, _)| *time == at);
            found.map_or_else(|| "–".to_owned(), |(_, value)| self.unit.said(*value))
        };
        html! {
            details #(format!("{}-table", self.id)) {
                summary { "As a table" }
                div.scroll tabindex="0" role="region" aria-label=(format!("{}: table", self.title)) {
                    table {
                        caption { (self.title) }
                        thead { tr {
                            th scope="col" { "Time" }
                            @for series in &self.series { th.number scope="col" { (series.name) } }
                        } }
                        tbody {
                            @for event in &self.events {
                                tr { th scope="row" { (words::clock(event.at)) } td colspan=(self.series.len()) { (event.what) } }
                            }
                            @for at in times {
                                tr {
                                    th scope="row" { (words::clock(at)) }
                                    @for series in &self.series { td.number { (cell(series, at)) } }
                                }
                            }
                        }
                    }
                }
            }
        }
    }
}

/// A line without words, to stand beside a number that says the last of it.
pub(super) fn spark(points: &[(Timestamp, f64)]) -> Markup {
    let series = vec![Series { name: "", points: points.to_vec() }];
    let chart =
        Chart { id: "", title: "", unit: Unit::Number, series, limits: Vec::new(), events: Vec::new() };
    html! {
        @if let Some(frame) = Frame::of(&chart) {
            svg.spark viewBox=(format!("0 -4 {WIDTH} {}", HEIGHT + 8.0)) preserveAspectRatio="none" aria-hidden="true" {
                polyline.s0 points=(frame.path(points)) {}
            }
        }
    }
}

/// One bar of a list: a value, thresholds drawn across it, all against `top`.
pub(super) fn bar(value: f64, limits: &[f64], top: f64, class: &str) -> Markup {
    let part = |value: f64| {
        let part = if top > 0.0 && value.is_finite() { (value / top).clamp(0.0, 1.0) } else { 0.0 };
        format!("{:.2}", part * WIDTH)
    };
    html! {
        svg.bar viewBox=(format!("0 0 {WIDTH} 20")) preserveAspectRatio="none" aria-hidden="true" {
            rect.track x="0" y="6" width=(WIDTH) height="8" {}
            rect class=(format!("fill {class}")) x="0" y="4" width=(part(value)) height="12" {}
            @for limit in limits {
                line.limit x1=(part(*limit)) x2=(part(*limit)) y1="0" y2="20" {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_millis(1_767_323_045_000 + second * 1_000)
    }

    #[test]
    fn what_is_drawn_is_said_and_tabled_as_well() {
        let chart = Chart {
            id: "rate",
            title: "Error rate of <flow>",
            unit: Unit::Share,
            series: vec![Series {
                name: "errors",
                points: vec![(at(0), 0.02), (at(60), 0.1), (at(120), f64::NAN)],
            }],
            limits: vec![Limit { name: "allowed", value: 0.05 }],
            events: vec![Event { at: at(60), what: "taken back to 11".to_owned() }],
        };
        let drawn = chart.drawn().into_string();
        assert!(drawn.contains("role=\"img\"") && drawn.contains("Error rate of &lt;flow&gt;"), "{drawn}");
        assert!(
            drawn.contains("allowed 5.0 %") && drawn.contains("<td class=\"number\">10.0 %</td>"),
            "{drawn}"
        );
        assert!(drawn.contains("taken back to 11"), "{drawn}");
        assert!(!drawn.contains("style=") && !drawn.contains("NaN,"), "{drawn}");
        let none = Chart { series: Vec::new(), ..chart };
        assert!(none.drawn().into_string().contains("nothing recorded"));
    }

    #[test]
    fn bars_stay_within_their_place() {
        let drawn = bar(30.0, &[5.0], 10.0, "").into_string();
        assert!(drawn.contains("width=\"1000.00\"") && drawn.contains("x1=\"500.00\""), "{drawn}");
        assert!(bar(f64::NAN, &[], 0.0, "").into_string().contains("width=\"0.00\""));
    }
}
