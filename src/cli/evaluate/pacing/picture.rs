//! A day as a picture (SVG): rate, answer rate and utilisation by the minute, abandonment by
//! the hour against the cap.

use std::fmt::Write as _;

use super::day::Day;

const WIDTH: f64 = 960.0;
const PANEL: f64 = 120.0;
const LEFT: f64 = 60.0;
const GAP: f64 = 40.0;

struct Panel<'a> {
    title: &'a str,
    top: f64,
    most: f64,
}

impl Panel<'_> {
    fn y(&self, value: f64) -> f64 {
        self.top + PANEL * (1.0 - (value / self.most).clamp(0.0, 1.0))
    }

    fn frame(&self, svg: &mut String) {
        let right = LEFT + WIDTH;
        let _ = write!(
            svg,
            "<text x=\"{LEFT}\" y=\"{:.0}\" class=\"title\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{:.0}\" width=\"{WIDTH}\" height=\"{PANEL}\" class=\"frame\"/>\
             <text x=\"{:.0}\" y=\"{:.0}\" class=\"axis\">{}</text><text x=\"{:.0}\" y=\"{:.0}\" class=\"axis\">0</text>",
            self.top - 6.0,
            self.title,
            self.top,
            LEFT - 6.0,
            self.top + 10.0,
            self.most,
            LEFT - 6.0,
            self.top + PANEL,
        );
        for hour in 0..=8 {
            let x = LEFT + WIDTH * f64::from(hour) / 8.0;
            let _ = write!(
                svg,
                "<line x1=\"{x:.1}\" y1=\"{:.0}\" x2=\"{x:.1}\" y2=\"{:.0}\" class=\"grid\"/>",
                self.top,
                self.top + PANEL
            );
        }
        let _ = write!(
            svg,
            "<text x=\"{right:.0}\" y=\"{:.0}\" class=\"axis\">8 h</text>",
            self.top + PANEL + 14.0
        );
    }

    fn line(&self, svg: &mut String, values: impl Iterator<Item = f64>, count: usize, class: &str) {
        let _ = write!(svg, "<polyline class=\"{class}\" points=\"");
        for (index, value) in values.enumerate() {
            let x = LEFT + WIDTH * (index as f64 + 0.5) / count.max(1) as f64;
            let _ = write!(svg, "{x:.1},{:.1} ", self.y(value));
        }
        svg.push_str("\"/>");
    }
}

/// The picture of `day`; `title` is put at its head. Complete and without a script.
pub(super) fn svg(title: &str, day: &Day, max_dial_rate: f64, cap: f64) -> String {
    let titles = [
        "Lines per idle agent",
        "Answer rate (the world's)",
        "Utilisation",
        "Abandoned of live answers, by the hour, %",
    ];
    let height = 50.0 + (PANEL + GAP) * titles.len() as f64;
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;");
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {:.0} {height:.0}\" role=\"img\" aria-label=\"{}\">\
         <style>text{{font:13px sans-serif;fill:#222}}.axis{{text-anchor:end;font-size:11px}}.frame{{fill:#fff;stroke:#999}}\
         .grid{{stroke:#eee}}.line{{fill:none;stroke:#1559a8;stroke-width:1.5}}.cap{{stroke:#b00020;stroke-dasharray:6 4}}\
         .bar{{fill:#1559a8}}.over{{fill:#b00020}}</style>\
         <rect width=\"100%\" height=\"100%\" fill=\"#fff\"/><text x=\"{LEFT}\" y=\"18\">{escaped}</text>",
        LEFT + WIDTH + 30.0,
        escaped.replace('"', "&quot;"),
    );
    let most = [max_dial_rate, 1.0, 1.0, 6.0];
    let panels: Vec<Panel<'_>> = titles
        .iter()
        .zip(most)
        .enumerate()
        .map(|(index, (title, most))| Panel { title, most, top: 50.0 + (PANEL + GAP) * index as f64 })
        .collect();
    panels.iter().for_each(|panel| panel.frame(&mut svg));
    let (minutes, count) = (&day.minutes, day.minutes.len());
    panels[0].line(&mut svg, minutes.iter().map(|minute| minute.dial_rate), count, "line");
    panels[1].line(&mut svg, minutes.iter().map(|minute| minute.answer_rate), count, "line");
    panels[2].line(&mut svg, minutes.iter().map(|minute| minute.utilisation), count, "line");
    let bars = &panels[3];
    let width = WIDTH / day.hours.len().max(1) as f64;
    for (index, hour) in day.hours.iter().enumerate() {
        let share = hour.abandonment();
        let class = if share > cap { "over" } else { "bar" };
        let (x, y) = (LEFT + width * (index as f64 + 0.2), bars.y(100.0 * share));
        let _ = write!(
            svg,
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\"><title>{} of {}</title></rect>",
            width * 0.6,
            bars.top + PANEL - y,
            hour.abandoned,
            hour.answered,
        );
    }
    let y = bars.y(100.0 * cap);
    let _ = write!(
        svg,
        "<line class=\"cap\" x1=\"{LEFT}\" y1=\"{y:.1}\" x2=\"{:.0}\" y2=\"{y:.1}\"/></svg>",
        LEFT + WIDTH
    );
    svg
}
