//! The report of a run: one HTML file with everything in it, no script and no address of another host.

use std::{collections::BTreeMap, fmt::Write as _};

use halo_core::measurement::MeasurementKind;

use crate::kind;
use crate::outcome::{Figures, Found, Outcome, ReachFigures, Stage, Z95};

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
         h1{font-size:1.5rem}h2{font-size:1.1rem;margin-top:2rem}h3{font-size:1rem}table{border-collapse:collapse}\n\
         td,th{padding:.25rem .8rem;text-align:right;border-bottom:1px solid #dde3ea}td:first-child,th:first-child{text-align:left}\n\
         .result{fill:#2563a8}.truth{fill:#e0a030}.interval{stroke:#10304f;stroke-width:2}.grid{stroke:#dde3ea}\n\
         .warning{background:#fff1d6;border-left:4px solid #e0a030;padding:.5rem 1rem}\n\
         svg{width:100%;height:auto}text{font-size:12px;fill:#1c2733}.note{color:#5b6b7b}\n</style></head><body>\n",
    );
    let title = match outcome.measurement_type {
        MeasurementKind::Impression => "Impressions",
        MeasurementKind::Duration => "Seconds watched",
        MeasurementKind::Population => "Population",
        MeasurementKind::Reach | MeasurementKind::ReachAndFrequency => "Reach",
    };
    match &outcome.joint {
        Some(found) => {
            let (publishers, value) = (outcome.publishers.len(), group(found.result.value()));
            let _ = writeln!(page, "<h1>{title} of {publishers} publishers: {value}</h1>");
        }
        None => {
            let _ = writeln!(page, "<h1>{title} of {} publishers, each by itself</h1>", outcome.results.len());
        }
    }
    if outcome.noise_off {
        page.push_str(
            "<p class=\"warning\">Every noise was switched off for this run. The result is not differentially private.</p>\n",
        );
    }
    let _ = writeln!(page, "<p>Protocol: <b>{}</b>. {}</p>", outcome.protocol, escape(&outcome.privacy_statement()));
    if let Some(population) = &outcome.population {
        let _ = writeln!(page, "<p>The vectors are over the VIDs {}; this range is public.</p>", escape(population));
    }
    for (publisher, found) in outcome.found() {
        found_section(&mut page, outcome, publisher, found);
    }
    if !outcome.planner.is_empty() {
        page.push_str("<h2>Why this protocol</h2>\n<ul>\n");
        for reason in &outcome.planner {
            let _ = writeln!(page, "<li>{}</li>", escape(reason));
        }
        page.push_str("</ul>\n");
    }
    page.push_str("<h2>Timeline of the computation</h2>\n");
    timeline_drawing(&mut page, &outcome.stages);
    stage_table(&mut page, &outcome.stages);
    page.push_str(
        "<h2>Publishers</h2>\n<table><tr><th>publisher</th><th>impressions</th><th>reach in the clear</th>\
         <th>records sent</th><th>bytes sent</th></tr>\n",
    );
    for (publisher, upload) in outcome.publishers.iter().zip(&outcome.uploads) {
        let _ = writeln!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{}</td><td>{}</td></tr>",
            escape(&publisher.name),
            group(publisher.impressions),
            group(publisher.clear_reach),
            group(upload.records),
            group(upload.bytes)
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
        "</table>\n<p class=\"note\">Reading {:.2} s and encrypting {:.2} s (slowest publisher), computation {:.2} s, \
         everything {:.2} s. {}.</p>\n</body></html>\n",
        timings.sketch_s,
        timings.encrypt_s,
        timings.computation_s,
        timings.total_s,
        escape(&outcome.measurements.join(", "))
    );
    page
}

/// One result: in words, and drawn.
fn found_section(page: &mut String, outcome: &Outcome, publisher: Option<&str>, found: &Found) {
    let whose = publisher.map(|publisher| format!("{}: ", escape(publisher))).unwrap_or_default();
    let _ = writeln!(page, "<h2>{whose}{} {}</h2>", group(found.result.value()), kind::unit(outcome.measurement_type));
    let (low, high) = found.result.interval();
    let _ = writeln!(
        page,
        "<p>95 % confidence interval {} to {}; standard error {:.0}. Exact answer, computed in the clear for comparison \
         only: <b>{}</b> (error {:+.2} %).</p>",
        group(low),
        group(high),
        found.result.standard_error(),
        group(found.truth.value()),
        found.error_percent()
    );
    value_drawing(page, found);
    if let Figures::Reach(figures) = &found.result
        && outcome.maximum_frequency > 1
    {
        page.push_str("<h3>Frequency</h3>\n");
        frequency_drawing(page, outcome.maximum_frequency, figures, &found.truth.frequency());
    }
}

/// Result with its interval, and the exact answer, on one scale.
fn value_drawing(page: &mut String, found: &Found) {
    let (low, high) = found.result.interval();
    let top = high.max(found.truth.value()).max(1) as f64 * 1.05;
    let scale = |value: u64| 110.0 + value as f64 / top * (WIDTH - 130.0);
    let _ = writeln!(page, "<svg viewBox=\"0 0 {WIDTH} 90\" role=\"img\" aria-label=\"result\">");
    for (line, (label, class, value)) in
        [("result", "result", found.result.value()), ("in the clear", "truth", found.truth.value())]
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
fn frequency_drawing(page: &mut String, maximum: u32, figures: &ReachFigures, exact: &BTreeMap<u64, f64>) {
    let Some(shares) = &figures.frequency else {
        page.push_str("<p>Nobody was reached.</p>\n");
        return;
    };
    let bins = maximum as usize;
    let share = |frequency: usize| shares.get(&(frequency as u64)).copied().unwrap_or(0.0);
    let truth = |frequency: usize| exact.get(&(frequency as u64)).copied().unwrap_or(0.0);
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
        if let Some(error) = figures.frequency_std_error.as_ref().and_then(|all| all.get(&(frequency as u64))) {
            let middle = x + bar / 2.0;
            let _ = writeln!(
                page,
                "<line class=\"interval\" x1=\"{middle:.1}\" x2=\"{middle:.1}\" y1=\"{:.1}\" y2=\"{:.1}\"/>",
                y((share(frequency) + Z95 * error).min(top)),
                y((share(frequency) - Z95 * error).max(0.0))
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

/// What went through each stage, and what it cost.
fn stage_table(page: &mut String, stages: &[Stage]) {
    page.push_str(
        "<table><tr><th>party and stage</th><th>records in</th><th>records out</th><th>bytes out</th><th>CPU, s</th></tr>\n",
    );
    for stage in stages {
        let _ = writeln!(
            page,
            "<tr><td>{} {}</td><td>{}</td><td>{}</td><td>{}</td><td>{:.3}</td></tr>",
            escape(&stage.party),
            escape(&stage.name),
            group(stage.records_in),
            group(stage.records_out),
            group(stage.bytes_out),
            stage.cpu_s
        );
    }
    page.push_str("</table>\n");
}

/// A number with its thousands apart.
pub(crate) fn group(value: impl Into<u64>) -> String {
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
