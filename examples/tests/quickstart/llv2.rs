//! Liquid Legions v2, and what every run writes.

use std::{fs, path::PathBuf};

use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};
use halo_edp_sdk::{progress::Unobserved, sketch};
use halo_sketch::{
    estimate,
    liquid_legions::{Params, clear_union},
};
use serde_json::Value;

use crate::support::{figures, msnbc, quickstart, shape, write};

/// What the protocol must find, computed in the clear from the publishers' sketches.
fn assert_exact(files: &[PathBuf], size: u64, found: &Value) {
    let params = Params::new(12.0, size, 10_000_000).unwrap();
    let sketches: Vec<_> = files
        .iter()
        .map(|file| sketch::sketch_file(file, params, VidSamplingInterval::FULL, &mut Unobserved).unwrap().sketch)
        .collect();
    let union = clear_union(&sketches, MaximumFrequency::new(10).unwrap()).unwrap();
    let result = &found["result"];
    assert_eq!(result["registers_in"], union.registers_in);
    assert_eq!(result["active_registers"], union.active);
    assert_eq!(result["usable_registers"], union.usable);
    assert_eq!(result["usable_histogram"], serde_json::json!(union.histogram));
    let reach = estimate::reach(&params, union.active as f64, 1.0, 0.0).unwrap();
    assert_eq!(result["reach"], reach.value.round() as u64);
    let sum: f64 = result["frequency"].as_object().unwrap().values().map(|share| share.as_f64().unwrap()).sum();
    assert!((sum - 1.0).abs() < 1e-9);
}

#[test]
fn without_noise_the_result_is_that_of_the_joined_sketches() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "one", "vid", (0..600).chain(0..300).collect());
    write(events.path(), "two", "vid", (400..900).collect());
    write(events.path(), "silent", "vid", Vec::<i64>::new());
    let output = quickstart(events.path(), out.path(), &["--protocol", "llv2", "--no-noise"]);
    assert!(output.status.success(), "{output:?}");
    let found = figures(out.path());
    let files: Vec<_> =
        ["one", "silent", "two"].iter().map(|name| events.path().join(format!("{name}.parquet"))).collect();
    assert_exact(&files, 5_000, &found);
    assert_eq!(found["truth"]["reach"], 900);
    assert_eq!(found["protocol"], "llv2");
    assert_eq!(found["publishers"][1]["name"], "silent");
    assert!(found["privacy_spent"].is_null());
    let printed = String::from_utf8(output.stdout).unwrap();
    assert!(printed.contains("WARNING: every noise is switched off"), "{printed}");
    let report = fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(report.contains("<svg") && report.contains("not differentially private") && report.ends_with("</html>\n"));
    assert!(!report.contains("http://") && !report.contains("https://"), "the report needs nothing from elsewhere");

    let mut lines = Vec::new();
    shape("", &found, &mut lines);
    for expected in EVERY_KEY.iter().chain(&WITHOUT_NOISE) {
        assert!(lines.iter().any(|line| line == expected), "{expected} is missing: {lines:?}");
    }
    let parties: Vec<_> = found["parties"].as_array().unwrap().iter().map(|party| party["name"].as_str()).collect();
    let expected = ["kingdom", "worker1", "worker2", "aggregator", "one", "silent", "two"].map(Some);
    assert_eq!(parties, expected);
    assert!(
        found["parties"].as_array().unwrap().iter().all(|party| party["peak_rss_bytes"].as_u64().unwrap() > 1 << 20)
    );
}

/// What `--json` holds in every run in which somebody was reached.
const EVERY_KEY: [&str; 30] = [
    ".protocol: text",
    ".planner[]: text",
    ".measurement_type: text",
    ".measurements[]: text",
    ".noise_off: flag",
    ".publishers[].name: text",
    ".publishers[].impressions: count",
    ".publishers[].clear_reach: count",
    ".truth.reach: count",
    ".truth.frequency.N: number",
    ".truth.histogram[]: count",
    ".result.reach: count",
    ".result.reach_std_error: number",
    ".result.frequency.N: number",
    ".result.frequency_std_error.N: number",
    ".result.registers_in: count",
    ".result.active_registers: count",
    ".parties[].name: text",
    ".parties[].cpu_s: number",
    ".parties[].peak_rss_bytes: count",
    ".uploads[].records: count",
    ".uploads[].bytes: count",
    ".stages[].cpu_s: number",
    ".stages[].records_in: count",
    ".stages[].records_out: count",
    ".stages[].bytes_out: count",
    ".timings.sketch_s: number",
    ".timings.encrypt_s: number",
    ".timings.computation_s: number",
    ".timings.total_s: number",
];

/// What it holds besides where no noise hides it.
const WITHOUT_NOISE: [&str; 2] = [".result.usable_registers: count", ".result.usable_histogram[]: count"];

#[test]
fn with_noise_the_result_is_near_and_the_raw_counts_stay_hidden() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "one", "vid", (0..900).collect());
    write(events.path(), "two", "vid", (500..1_500).collect());
    let arguments =
        ["--protocol", "llv2", "--epsilon", "4", "--delta", "1e-6", "--max-frequency", "3", "--duchies", "2"];
    let output = quickstart(events.path(), out.path(), &arguments);
    assert!(output.status.success(), "{output:?}");
    let found = figures(out.path());
    let (reach, error) =
        (found["result"]["reach"].as_f64().unwrap(), found["result"]["reach_std_error"].as_f64().unwrap());
    assert!((reach - 1_500.0).abs() < 6.0 * error, "{reach} ± {error}");
    assert!(found["result"]["usable_histogram"].is_null() && found["result"]["usable_registers"].is_null());
    assert_eq!(found["privacy_spent"], serde_json::json!({"epsilon": 8.0, "delta": 2e-6}));
    let mut lines = Vec::new();
    shape("", &found, &mut lines);
    for expected in EVERY_KEY {
        assert!(lines.iter().any(|line| line == expected), "{expected} is missing: {lines:?}");
    }
}

#[test]
fn nobody_reached_with_noise_is_a_result_near_nothing() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "a", "vid", Vec::<i64>::new());
    write(events.path(), "b", "vid", Vec::<i64>::new());
    let arguments =
        ["--protocol", "llv2", "--epsilon", "4", "--delta", "1e-5", "--max-frequency", "2", "--duchies", "2"];
    let output = quickstart(events.path(), out.path(), &arguments);
    assert!(output.status.success(), "{output:?}");
    let found = figures(out.path());
    assert_eq!((&found["truth"]["reach"], &found["truth"]["frequency"]), (&Value::from(0), &serde_json::json!({})));
    let reach = |key: &str| found["result"][key].as_f64().unwrap();
    assert!(reach("reach") <= 6.0 * reach("reach_std_error"), "{}", found["result"]);
    let shares = found["result"]["frequency"].as_object().into_iter().flatten();
    for (bin, share) in shares {
        assert!((0.0..=1.0).contains(&share.as_f64().unwrap()), "{bin}: {share}");
    }
    assert!(!fs::read_to_string(out.path().join("report.html")).unwrap().contains("NaN"));
}

#[test]
fn nobody_reached_is_no_data() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "a", "vid", Vec::<i64>::new());
    write(events.path(), "b", "vid", Vec::<i64>::new());
    let output = quickstart(events.path(), out.path(), &["--protocol", "llv2", "--no-noise"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("no data"));
    let found = figures(out.path());
    assert_eq!((&found["result"]["reach"], &found["result"]["registers_in"]), (&Value::from(0), &Value::from(0)));
    assert!(found["result"]["frequency"].is_null());
}

#[test]
fn real_publishers_without_noise() {
    let Some(data) = msnbc() else { return };
    let out = tempfile::tempdir().unwrap();
    let output =
        quickstart(&data, out.path(), &["--publishers", "bbs,travel,opinion", "--protocol", "llv2", "--no-noise"]);
    assert!(output.status.success(), "{output:?}");
    let files: Vec<_> = ["bbs", "travel", "opinion"].iter().map(|name| data.join(format!("{name}.parquet"))).collect();
    assert_exact(&files, 5_000, &figures(out.path()));
}
