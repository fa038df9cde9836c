//! The report of a run: one HTML file with everything in it, no script and no address of another host.

use std::fmt::Write as _;

use crate::outcome::{Outcome, Stage};

/// Width of every drawing, in its own units.
const WIDTH: f64 = 860.0;

/// The report as HTML.
#[must_use]
pub fn html(outcome: &Outcome) -> String {
    let mut page = String::new();
    page.push_str(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n<title>Halo quickstart</title>\n<style>\n\
         body{font:15px/1.5 system-ui,sans-serif;color:#1c2733;max-width:900px;margin:2rem auto;padding:0 1rem}\n\
         h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}table{border-collapse:collapse}\n\
         td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #dde3ea}td:first-child,th:first-child{text-align:left}\n\
         .result{fill:#2563a8}.truth{fill:#e0a030}.interval{stroke:#10304f;stroke-width:2}.grid{stroke:#dde3ea}\n\
         .warning{background:#fff1d6;border-left:4px solid #e0a030;padding:.5rem 1rem}\n\
         svg{width:100%;height:auto}text{font-size:12px;fill:#1c2733}.note{color:#5b6b7b}\n</style></head><body>\n",
    );
    let result = &outcome.result;
    let _ = writeln!(page, "<h1>Reach of {} publishers: {}</h1>", outcome.publishers.len(), group(result.reach));
    if outcome.noise_off {
        page.push_str(
            "<p class=\"warning\">Every noise was switched off for this run. The result is not differentially private.</p>\n",
        );
    }
    let (low, high) = outcome.reach_interval();
    let _ = writeln!(
        page,
        "<p>95 % confidence interval {} to {}; standard error {:.0}. {}</p>",
        group(low),
        group(high),
        result.reach_std_error,
        escape(&outcome.privacy_statement())
    );
    let _ = writeln!(
        page,
        "<p>Exact answer, computed in the clear for comparison only: <b>{}</b> (error {:+.2} %).</p>",
        group(outcome.truth.reach),
        outcome.reach_error_percent()
    );
    page.push_str("<h2>Reach</h2>\n");
    reach_drawing(&mut page, outcome);
    page.push_str("<h2>Frequency</h2>\n");
    frequency_drawing(&mut page, outcome);
    page.push_str("<h2>Timeline of the computation</h2>\n");
    timeline_drawing(&mut page, &outcome.stages);
    page.push_str(
        "<h2>Publishers</h2>\n<table><tr><th>publisher</th><th>impressions</th><th>reach in the clear</th></tr>\n",
    );
    for publisher in &outcome.publishers {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&publisher.name),
            group(publisher.impressions),
            group(publisher.clear_reach)
        );
    }
    page.push_str(
        "</table>\n<h2>Processes</h2>\n<table><tr><th>process</th><th>CPU, s</th><th>peak memory, MB</th></tr>\n",
    );
    for party in &outcome.parties {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{:.2}</td><td>{:.1}</td></tr>",
            escape(&party.name),
            party.cpu_s,
            party.peak_rss_bytes as f64 / 1e6
        );
    }
    let timings = &outcome.timings;
    let _ = write!(
        page,
        "</table>\n<p class=\"note\">Sketching {:.2} s and encrypting {:.2} s (slowest publisher), computation {:.2} s, \
         everything {:.2} s. Measurement {}.</p>\n</body></html>\n",
        timings.sketch_s,
        timings.encrypt_s,
        timings.computation_s,
        timings.total_s,
        escape(&outcome.measurement)
    );
    page
}

/// Result with its interval, and the exact answer, on one scale.
fn reach_drawing(page: &mut String, outcome: &Outcome) {
    let (low, high) = outcome.reach_interval();
    let top = high.max(outcome.truth.reach).max(1) as f64 * 1.05;
    let scale = |value: u64| 110.0 + value as f64 / top * (WIDTH - 130.0);
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} 90\" role=\"img\" aria-label=\"reach\">");
    for (line, (label, class, value)) in
        [("result", "result", outcome.result.reach), ("in the clear", "truth", outcome.truth.reach)]
            .into_iter()
            .enumerate()
    {
        let y = 10.0 + 40.0 * line as f64;
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{:.0}\">{label}</text><rect class=\"{class}\" x=\"110\" y=\"{y:.0}\" width=\"{:.1}\" height=\"26\"/>",
            y + 18.0,
            scale(value) - 110.0
        );
    }
    let _ = writeln!(
        page,
        "<line class=\"interval\" x1=\"{0:.1}\" x2=\"{1:.1}\" y1=\"23\" y2=\"23\"/><line class=\"interval\" x1=\"{0:.1}\" \
         x2=\"{0:.1}\" y1=\"17\" y2=\"29\"/><line class=\"interval\" x1=\"{1:.1}\" x2=\"{1:.1}\" y1=\"17\" y2=\"29\"/></svg>",
        scale(low),
        scale(high)
    );
}

/// Shares by frequency, the result beside the exact answer, with 95 % intervals.
fn frequency_drawing(page: &mut String, outcome: &Outcome) {
    let Some(shares) = &outcome.result.frequency else {
        page.push_str("<p>No frequency was measured, or nobody was reached.</p>\n");
        return;
    };
    let bins = outcome.maximum_frequency as usize;
    let share = |frequency: usize| shares.get(&(frequency as u64)).copied().unwrap_or(0.0);
    let truth = |frequency: usize| outcome.truth.frequency.get(&(frequency as u64)).copied().unwrap_or(0.0);
    let top = (1..=bins).map(|frequency| share(frequency).max(truth(frequency))).fold(0.01, f64::max) * 1.15;
    let step = (WIDTH - 60.0) / bins as f64;
    let height = 240.0;
    let y = |value: f64| 10.0 + height * (1.0 - value / top);
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} 290\" role=\"img\" aria-label=\"frequency histogram\">");
    for line in 0..=4 {
        let value = top * f64::from(line) / 4.0;
        let _ = writeln!(
            page,
            "<line class=\"grid\" x1=\"50\" x2=\"{WIDTH}\" y1=\"{0:.1}\" y2=\"{0:.1}\"/><text x=\"0\" y=\"{1:.1}\">{2:.1} %</text>",
            y(value),
            y(value) + 4.0,
            value * 100.0
        );
    }
    for frequency in 1..=bins {
        let x = 55.0 + step * (frequency - 1) as f64;
        let bar = step * 0.38;
        for (offset, class, value) in [(0.0, "result", share(frequency)), (bar, "truth", truth(frequency))] {
            let _ = writeln!(
                page,
                "<rect class=\"{class}\" x=\"{:.1}\" y=\"{:.1}\" width=\"{bar:.1}\" height=\"{:.1}\"><title>{frequency}: {:.3} %</title></rect>",
                x + offset,
                y(value),
                10.0 + height - y(value),
                value * 100.0
            );
        }
        if let Some(error) = outcome.result.frequency_std_error.as_ref().and_then(|all| all.get(&(frequency as u64))) {
            let middle = x + bar / 2.0;
            let _ = writeln!(
                page,
                "<line class=\"interval\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y((share(frequency) + 1.96 * error).min(top)),
                y((share(frequency) - 1.96 * error).max(0.0))
            );
        }
        let label = if frequency == bins { format!("{frequency}+") } else { frequency.to_string() };
        let _ = writeln!(page, "<text x=\"{:.1}\" y=\"268\">{label}</text>", x + bar - 4.0);
    }
    page.push_str(
        "<text x=\"55\" y=\"288\">impressions a person; blue: result with 95 % interval, yellow: in the clear</text></svg>\n",
    );
}

/// One bar a stage and party, on the wall clock.
fn timeline_drawing(page: &mut String, stages: &[Stage]) {
    let Some(end) = stages.iter().map(|stage| stage.end_s).reduce(f64::max) else {
        page.push_str("<p>Nothing was computed.</p>\n");
        return;
    };
    let end = end.max(0.001);
    let height = 22.0 * stages.len() as f64 + 20.0;
    let scale = |seconds: f64| 300.0 + seconds / end * (WIDTH - 310.0);
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} {height:.0}\" role=\"img\" aria-label=\"timeline\">");
    for (line, stage) in stages.iter().enumerate() {
        let y = 22.0 * line as f64;
        let _ = writeln!(
            page,
            "<text x=\"0\" y=\"{:.0}\">{} {}</text><rect class=\"result\" x=\"{:.1}\" y=\"{:.0}\" width=\"{:.1}\" height=\"14\"><title>{:.2} s to {:.2} s, CPU {:.2} s</title></rect>",
            y + 14.0,
            escape(&stage.party),
            escape(&stage.name),
            scale(stage.start_s),
            y + 3.0,
            (scale(stage.end_s) - scale(stage.start_s)).max(1.5),
            stage.start_s,
            stage.end_s,
            stage.cpu_s
        );
    }
    let _ = writeln!(
        page,
        "<text x=\"300\" y=\"{:.0}\">0 s</text><text x=\"{:.0}\" y=\"{0:.0}\">{end:.1} s</text></svg>",
        height - 4.0,
        WIDTH - 50.0
    );
}

/// A number with its thousands apart.
fn group(value: impl Into<u64>) -> String {
    let digits = value.into().to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position) % 3 == 0 {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Text that HTML shows as it is.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
