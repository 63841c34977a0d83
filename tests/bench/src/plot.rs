//! Plots for the documentation: bars side by side, as SVG that is legible on a light and on a dark page.

use std::fmt::Write;

use crate::table::Measurement;

/// One question and the numbers that answer it.
pub struct Plot {
    /// Name of the file, without its extension.
    pub name: &'static str,
    /// What is asked.
    pub title: &'static str,
    /// The metric that answers it.
    pub metric: &'static str,
    /// In what it is counted.
    pub unit: &'static str,
    /// Whether a work belongs to it.
    pub of: fn(&str) -> bool,
}

/// Every plot.
pub const ALL: [Plot; 5] = [
    Plot {
        name: "delivered",
        title: "10 KiB: delivered a second",
        metric: "delivered",
        unit: "messages/s",
        of: |work| work.starts_with("10 KiB") && !work.contains("ms") && !work.contains("hand-over"),
    },
    Plot {
        name: "large",
        title: "Large messages: delivered a second",
        metric: "delivered",
        unit: "messages/s",
        of: |work| (work.starts_with("100 KiB") || work.starts_with("10 MiB")) && !work.contains("hand-over"),
    },
    Plot {
        name: "far",
        title: "A slow or distant upstream, 10 KiB from 10 sessions: delivered a second",
        metric: "delivered",
        unit: "messages/s",
        of: |work| work.contains("ms"),
    },
    Plot {
        name: "cpu",
        title: "CPU time for 1000 messages",
        metric: "cpu",
        unit: "s",
        of: |work| !work.contains("ms") && !work.contains("x1 ") && !work.contains("x50"),
    },
    Plot {
        name: "hand-over",
        title: "Handed over to a gateway: accepted a second",
        metric: "accepted",
        unit: "messages/s",
        of: |work| work.contains("hand-over"),
    },
];

/// Who is shown, and in which colour.
const PROGRAMS: [(&str, &str); 2] = [("sidecar", "#2f6fde"), ("postfix", "#c9782f")];

/// Width of the picture, pixels, and of its names.
const WIDTH: usize = 720;
const LABEL: usize = 250;

/// Room to the left of the longest names.
const MARGIN: usize = 60;

/// Height of a bar, and of the space behind those of a work.
const BAR: usize = 14;
const GAP: usize = 12;

impl Plot {
    /// The picture; nothing where nothing was measured.
    pub fn draw(&self, measurements: &[Measurement]) -> Option<String> {
        let mut works: Vec<&str> = Vec::new();
        for measured in measurements.iter().filter(|it| it.metric == self.metric && (self.of)(&it.work)) {
            if PROGRAMS.iter().any(|(program, _)| *program == measured.program)
                && !works.contains(&measured.work.as_str())
            {
                works.push(&measured.work);
            }
        }
        let value = |work: &str, program: &str| {
            let found = measurements
                .iter()
                .find(|it| it.work == work && it.program == program && it.metric == self.metric);
            found.map(|it| it.value)
        };
        let most = works
            .iter()
            .flat_map(|work| PROGRAMS.map(|(program, _)| value(work, program)))
            .flatten()
            .fold(0.0, f64::max);
        if works.is_empty() || most <= 0.0 {
            return None;
        }
        let mut body = String::new();
        let mut y = 56;
        for work in &works {
            let _ = writeln!(
                body,
                r#"<text x="{}" y="{}" text-anchor="end">{}</text>"#,
                LABEL - 10,
                y + BAR + 2,
                escaped(work)
            );
            for (program, colour) in PROGRAMS {
                let Some(value) = value(work, program) else { continue };
                let long = (value / most * (WIDTH - LABEL - 90) as f64).max(1.0);
                let _ = writeln!(
                    body,
                    r#"<rect x="{LABEL}" y="{y}" width="{long:.1}" height="{BAR}" fill="{colour}"/>"#
                );
                let _ = writeln!(
                    body,
                    r#"<text x="{:.1}" y="{}">{}</text>"#,
                    LABEL as f64 + long + 6.0,
                    y + BAR - 3,
                    shown(value)
                );
                y += BAR + 1;
            }
            y += GAP;
        }
        let mut legend = String::new();
        for (at, (program, colour)) in PROGRAMS.into_iter().enumerate() {
            let x = LABEL + at * 110;
            let _ = writeln!(
                legend,
                r#"<rect x="{x}" y="34" width="10" height="10" fill="{colour}"/><text x="{}" y="43">{program}</text>"#,
                x + 15
            );
        }
        Some(format!(
            r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="-{MARGIN} 0 {width} {y}" width="{width}" height="{y}" font-family="sans-serif" font-size="12" fill="#808080" role="img">
<title>{title} ({unit})</title>
<text x="10" y="20" font-size="14" font-weight="bold">{title} ({unit})</text>
{legend}{body}</svg>
"##,
            title = escaped(self.title),
            unit = self.unit,
            width = WIDTH + MARGIN,
        ))
    }
}

/// Three digits that count.
fn shown(value: f64) -> String {
    match value {
        100.0.. => format!("{value:.0}"),
        10.0.. => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_work_of_a_question_has_a_bar_for_each_program_as_long_as_its_number() {
        let measured = |work: &str, program, metric, value| Measurement {
            work: work.into(),
            program,
            metric,
            value,
            unit: "messages/s",
        };
        let measurements = [
            measured("10 KiB x10 Queue", "sidecar", "delivered", 4000.0),
            measured("10 KiB x10 Queue", "postfix", "delivered", 400.0),
            measured("10 KiB x10 Queue", "sidecar", "accepted", 9999.0),
            measured("10 KiB x10 Queue +50ms", "sidecar", "delivered", 190.0),
        ];
        let svg = ALL[0].draw(&measurements).unwrap();
        assert_eq!(svg.matches("<rect").count(), 2 + 2, "{svg}");
        assert!(svg.contains(">4000<") && svg.contains(">400<") && !svg.contains("9999"), "{svg}");
        assert_eq!(ALL[2].draw(&measurements).unwrap().matches("<rect").count(), 2 + 1);
        assert!(ALL[4].draw(&measurements).is_none());
    }
}
