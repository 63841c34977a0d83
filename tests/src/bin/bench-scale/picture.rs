//! The numbers as a picture: a panel for each question, pods from left to right.

use std::fmt::Write;

use crate::run::Point;

/// Size of a panel.
const PANEL: (f64, f64) = (300.0, 190.0);
/// Of a panel, what is left for axes and title: left, top, right, bottom.
const MARGIN: (f64, f64, f64, f64) = (52.0, 34.0, 16.0, 34.0);
/// Panels side by side.
const COLUMNS: usize = 3;

/// What is read of a point.
type Value = fn(&Point) -> f64;

/// A question, and the lines that answer it.
struct Panel {
    title: &'static str,
    unit: &'static str,
    lines: Vec<(&'static str, Value)>,
}

/// Draws all panels.
pub fn draw(points: &[Point]) -> String {
    let panels = panels();
    let rows = panels.len().div_ceil(COLUMNS);
    let (width, height) = (PANEL.0 * COLUMNS as f64, PANEL.1 * rows as f64);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"10\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"#fff\"/>\n"
    );
    for (number, panel) in panels.iter().enumerate() {
        let (x, y) = ((number % COLUMNS) as f64 * PANEL.0, (number / COLUMNS) as f64 * PANEL.1);
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">\n{}</g>", panel.draw(points));
    }
    svg.push_str("</svg>\n");
    svg
}

fn panels() -> Vec<Panel> {
    vec![
        Panel {
            title: "Memory",
            unit: "MiB",
            lines: vec![
                ("all pods report", |it| it.reporting_mib),
                ("not the leader", |it| it.standby_mib),
                ("routes alone", |it| it.routes_mib),
            ],
        },
        Panel {
            title: "Processors, all pods report every 30 s",
            unit: "cores",
            lines: vec![("leader", |it| it.cores)],
        },
        Panel {
            title: "Admission review while they report",
            unit: "ms",
            lines: vec![("p99", |it| it.review_p99_millis), ("median", |it| it.review_p50_millis)],
        },
        Panel {
            title: "Start",
            unit: "s",
            lines: vec![
                ("every route looked at", |it| it.reconciled_seconds),
                ("ready", |it| it.ready_seconds),
            ],
        },
        Panel {
            title: "Until another replica leads",
            unit: "s",
            lines: vec![
                ("after a crash", |it| it.taken_over_seconds),
                ("after SIGTERM", |it| it.handed_over_seconds),
            ],
        },
        Panel {
            title: "To and from the API server",
            unit: "MiB a minute",
            lines: vec![("leader", |it| it.api_mib_minute)],
        },
    ]
}

impl Panel {
    fn draw(&self, points: &[Point]) -> String {
        let (left, top, right, bottom) = MARGIN;
        let (width, height) = (PANEL.0 - left - right, PANEL.1 - top - bottom);
        let values =
            || self.lines.iter().flat_map(|(_, of)| points.iter().map(of)).filter(|it| it.is_finite());
        let highest = round_up(values().fold(0.0, f64::max));
        let most = points.iter().map(|it| it.pods).max().unwrap_or(1) as f64;
        let place = |point: &Point, value: f64| {
            (left + width * point.pods as f64 / most, top + height * (1.0 - value / highest))
        };
        let mut svg = format!(
            "<text x=\"{left}\" y=\"16\" font-weight=\"bold\">{} ({})</text>\n",
            self.title, self.unit
        );
        for step in 0..=4 {
            let value = highest * f64::from(step) / 4.0;
            let y = top + height * (1.0 - f64::from(step) / 4.0);
            let _ = writeln!(svg, "<path d=\"M{left} {y:.1}h{width}\" stroke=\"#ddd\"/>");
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                left - 6.0,
                y + 3.0,
                short(value)
            );
        }
        for point in points {
            let x = place(point, 0.0).0;
            let _ = writeln!(
                svg,
                "<text x=\"{x:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{} pods</text>",
                top + height + 14.0,
                short_count(point.pods)
            );
        }
        for (number, (name, of)) in self.lines.iter().enumerate() {
            let colour = ["#1f6feb", "#d1242f", "#57606a"][number % 3];
            let drawn: Vec<_> =
                points.iter().filter(|it| of(it).is_finite()).map(|it| place(it, of(it))).collect();
            let line: Vec<_> = drawn.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
            let _ = writeln!(
                svg,
                "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
                line.join(" ")
            );
            for (x, y) in drawn {
                let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
            }
            let _ = writeln!(
                svg,
                "<text x=\"{}\" y=\"{}\" fill=\"{colour}\">{name}</text>",
                left + 8.0,
                top + 12.0 + 13.0 * number as f64
            );
        }
        svg
    }
}

/// The next number of the form 1, 2, 4 or 8 times a power of ten, so that quarters of it are short.
fn round_up(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 8.0, 10.0].into_iter().map(|it| it * power).find(|it| *it >= value).unwrap_or(value)
}

fn short(value: f64) -> String {
    if value >= 10.0 || value.fract() == 0.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn short_count(count: usize) -> String {
    if count >= 1000 { format!("{} 000", count / 1000) } else { count.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_line_has_each_point_inside_its_panel() {
        let point = |pods, mib| Point { pods, reporting_mib: mib, ..Point::default() };
        let svg = draw(&[point(5000, 30.0), point(50_000, 120.0)]);
        assert_eq!(svg.matches("<polyline").count(), panels().iter().map(|it| it.lines.len()).sum::<usize>());
        assert!(svg.contains("5 000 pods") && svg.contains("50 000 pods"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn an_axis_ends_at_a_round_number() {
        assert_eq!([0.0, 0.13, 3.0, 8.5, 120.0].map(round_up), [1.0, 0.2, 4.0, 10.0, 200.0]);
    }
}
