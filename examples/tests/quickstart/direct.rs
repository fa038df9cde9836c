//! What every publisher counts by itself.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{assert_near, measured, verify, write_columns};

const NOISE: [&str; 4] = ["--epsilon", "4", "--delta", "1e-6"];

/// Two publishers: a person of the first is seen once or three times, for ten seconds each.
fn publishers(events: &Path) {
    let first: Vec<i64> = (1..=2_000).chain(1..=500).chain(1..=500).collect();
    let second: Vec<i64> = (1_500..=4_500).collect();
    for (name, vids) in [("first", first), ("second", second)] {
        let seconds = vec![10; vids.len()];
        write_columns(events, name, &[("vid", vids), ("seconds", seconds)]);
    }
}

/// Measures, reproduces every result from what is stored, and returns each publisher's figures.
fn run(arguments: &[&str]) -> Vec<Value> {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    publishers(events.path());
    let state = out.path().join("state");
    let all: Vec<&str> = arguments.iter().copied().chain(["--state-dir", state.to_str().unwrap()]).collect();
    let (found, printed) = measured(events.path(), out.path(), &all);
    assert_eq!(found["protocol"], "direct");
    assert!(found["result"].is_null() && found["truth"].is_null(), "nobody knows about all publishers together");
    let again = verify(&state);
    assert!(again.status.success(), "{again:?}");
    let reproduced = String::from_utf8(again.stdout).unwrap();
    let values = |text: &str| -> Vec<String> {
        text.lines().filter(|line| line.contains("confidence interval")).map(str::to_owned).collect()
    };
    assert_eq!(values(&reproduced), values(&printed));
    assert_eq!(values(&printed).len(), 2);
    let report = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(report.contains("first: ") && report.contains("second: ") && !report.contains("NaN"));
    let results = found["results"].as_array().unwrap().clone();
    let names: Vec<_> = results.iter().map(|result| result["publisher"].as_str().unwrap()).collect();
    assert_eq!(names, ["first", "second"]);
    // A measurement of each publisher for people who were reached, one of both for everything else.
    let measurements = found["measurements"].as_array().unwrap().len();
    let reach = found["measurement_type"].as_str().unwrap().starts_with("reach");
    assert_eq!(measurements, if reach { 2 } else { 1 });
    results
}

fn exact(arguments: &[&str]) -> Vec<Value> {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--no-noise"]).collect();
    run(&arguments)
}

fn near(arguments: &[&str]) {
    let arguments: Vec<&str> = arguments.iter().copied().chain(NOISE).collect();
    run(&arguments).iter().for_each(assert_near);
}

#[test]
fn every_publisher_counts_its_own_people() {
    let found = exact(&["--protocol", "direct", "--max-frequency", "3"]);
    assert_eq!(found[0]["result"]["reach"], 2_000);
    assert_eq!(found[0]["result"]["frequency"]["3"], 0.25);
    assert_eq!(found[0]["truth"]["histogram"], json!([1_500, 0, 500]));
    assert_eq!(found[1]["result"]["reach"], 3_001);
    assert_eq!(found[1]["result"]["frequency"]["1"], 1.0);
    let found = exact(&["--protocol", "direct", "--measurement", "reach"]);
    assert_eq!((&found[0]["result"]["reach"], &found[1]["result"]["reach"]), (&json!(2_000), &json!(3_001)));
}

#[test]
fn own_people_with_noise_are_as_near_as_it_says() {
    near(&["--protocol", "direct", "--max-frequency", "3"]);
    near(&["--protocol", "direct", "--measurement", "reach", "--sampling-width", "0.5"]);
}

#[test]
fn impressions_are_counted() {
    let values = |found: &[Value]| [0, 1].map(|one| found[one]["result"]["value"].as_u64().unwrap());
    assert_eq!(values(&exact(&["--measurement", "impression"])), [3_000, 3_001]);
    assert_eq!(values(&exact(&["--measurement", "impression", "--max-frequency", "2"])), [2_500, 3_001]);
    near(&["--measurement", "impression", "--max-frequency", "2"]);
}

#[test]
fn seconds_are_added_up() {
    let values = |found: &[Value]| [0, 1].map(|one| found[one]["result"]["value"].as_u64().unwrap());
    assert_eq!(values(&exact(&["--measurement", "duration"])), [30_000, 30_010]);
    assert_eq!(values(&exact(&["--measurement", "duration", "--max-seconds", "15"])), [22_500, 30_010]);
    near(&["--measurement", "duration", "--max-seconds", "30"]);
}

#[test]
fn the_population_is_told() {
    for found in exact(&["--measurement", "population"]) {
        assert_eq!((&found["result"]["value"], &found["truth"]["value"]), (&json!(4_500), &json!(4_500)));
    }
    let found = exact(&["--measurement", "population", "--population", "1..10000"]);
    assert_eq!(found[1]["result"]["value"], 10_000);
}
