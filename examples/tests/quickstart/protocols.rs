//! Every protocol over several publishers.

use std::path::Path;

use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};
use halo_edp_sdk::{progress::Unobserved, sketch};
use halo_sketch::liquid_legions::{Params, clear_union};
use serde_json::{Value, json};

use crate::support::{assert_near, line, measured, msnbc, quickstart, verify, write};

/// Noise that is small beside the audiences below.
const NOISE: [&str; 4] = ["--epsilon", "4", "--delta", "1e-6"];

/// Three publishers, one of whom reached nobody; some people are seen seven times.
fn publishers(events: &Path) {
    write(events, "one", "vid", (10..3_000).chain(10..1_500).chain(10..700).collect::<Vec<i64>>());
    write(events, "two", "vid", (2_000..4_000).chain((0..800).flat_map(|vid| [vid; 4])).collect::<Vec<i64>>());
    write(events, "silent", "vid", Vec::<i64>::new());
}

/// Measures with a protocol, and reproduces the result from what is stored.
fn run(protocol: &str, arguments: &[&str]) -> (Value, String) {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    publishers(events.path());
    let state = out.path().join("state");
    let all = ["--protocol", protocol, "--state-dir", state.to_str().unwrap(), "--max-frequency", "5"];
    let all: Vec<&str> = all.into_iter().chain(arguments.iter().copied()).collect();
    let (found, printed) = measured(events.path(), out.path(), &all);
    assert_eq!(found["protocol"], protocol);
    assert!(!found["planner"].as_array().unwrap().is_empty());
    let again = verify(&state);
    assert!(again.status.success(), "{again:?}");
    let reproduced = String::from_utf8(again.stdout).unwrap();
    assert_eq!(line(&reproduced, "reach"), line(&printed, "reach"));
    (found, printed)
}

/// Vectors without noise are exact, and the population is told to be public.
fn assert_exact_vectors(protocol: &str, arguments: &[&str]) {
    let arguments: Vec<&str> = arguments.iter().copied().chain(["--no-noise"]).collect();
    let (found, printed) = run(protocol, &arguments);
    let (result, truth) = (&found["result"], &found["truth"]);
    assert_eq!((&result["reach"], &truth["reach"]), (&json!(4_000), &json!(4_000)));
    assert_eq!(result["reach_std_error"], 0.0);
    if found["measurement_type"] == "reach-and-frequency" {
        assert_eq!(result["histogram"], truth["histogram"]);
        for (bin, share) in truth["frequency"].as_object().unwrap() {
            let measured = result["frequency"][bin].as_f64().unwrap_or(0.0);
            assert!((measured - share.as_f64().unwrap()).abs() < 1e-12, "{bin}: {measured} and {share}");
        }
    }
    assert_eq!((&found["population"], &result["vector_size"]), (&json!("0..3999"), &json!(4_000)));
    assert!(printed.contains("0..3999") && printed.contains("public"), "{printed}");
    assert!(found["privacy_spent"].is_null());
    let uploads = found["uploads"].as_array().unwrap();
    // A trustee's ciphertext is a little longer than the vector in it.
    let sizes: Vec<u64> = uploads.iter().map(|upload| upload["bytes"].as_u64().unwrap()).collect();
    assert!(sizes.len() == 3 && sizes.iter().all(|size| *size >= 4_000), "{sizes:?}");
}

fn assert_near_vectors(protocol: &str, arguments: &[&str]) {
    let arguments: Vec<&str> = arguments.iter().chain(&NOISE).copied().collect();
    let (found, _) = run(protocol, &arguments);
    assert_near(&found);
    assert!(found["result"]["histogram"].is_null(), "noise hides the exact counts");
}

#[test]
fn hmss_is_exact_without_noise() {
    assert_exact_vectors("hmss", &[]);
    assert_exact_vectors("hmss", &["--measurement", "reach"]);
}

#[test]
fn hmss_with_noise_is_as_near_as_it_says() {
    assert_near_vectors("hmss", &[]);
    assert_near_vectors("hmss", &["--measurement", "reach"]);
}

#[test]
fn hmss_native_is_exact_without_noise() {
    assert_exact_vectors("hmss-native", &[]);
    assert_exact_vectors("hmss-native", &["--measurement", "reach"]);
}

#[test]
fn hmss_native_with_noise_is_as_near_as_it_says() {
    assert_near_vectors("hmss-native", &[]);
    assert_near_vectors("hmss-native", &["--measurement", "reach"]);
}

#[test]
fn a_trustee_is_exact_without_noise() {
    assert_exact_vectors("trustee", &[]);
    assert_exact_vectors("trustee", &["--measurement", "reach"]);
}

#[test]
fn a_trustee_with_noise_is_as_near_as_it_says() {
    assert_near_vectors("trustee", &[]);
    assert_near_vectors("trustee", &["--measurement", "reach"]);
}

#[test]
fn rollv2_counts_every_active_register() {
    let events = tempfile::tempdir().unwrap();
    publishers(events.path());
    let params = Params::new(12.0, 5_000, 10_000_000).unwrap();
    let sketches: Vec<_> = ["one", "silent", "two"]
        .map(|name| events.path().join(format!("{name}.parquet")))
        .iter()
        .map(|file| sketch::sketch_file(file, params, VidSamplingInterval::FULL, &mut Unobserved).unwrap().sketch)
        .collect();
    let union = clear_union(&sketches, MaximumFrequency::REACH_ONLY).unwrap();
    let (found, _) = run("rollv2", &["--measurement", "reach", "--no-noise"]);
    assert_eq!(found["result"]["active_registers"], union.active);
    assert_near(&found);
}

#[test]
fn rollv2_with_noise_is_as_near_as_it_says() {
    let arguments: Vec<&str> = ["--measurement", "reach", "--duchies", "4"].iter().chain(&NOISE).copied().collect();
    let (found, _) = run("rollv2", &arguments);
    assert_near(&found);
}

#[test]
fn llv2_measures_reach_alone() {
    let arguments: Vec<&str> = ["--measurement", "reach"].iter().chain(&NOISE).copied().collect();
    let (found, _) = run("llv2", &arguments);
    assert_near(&found);
    assert!(found["result"]["frequency"].is_null());
}

/// The planner takes the cheapest protocol that everybody can: with three Duchies the native share shuffle, with another
/// number a sketch.
#[test]
fn the_planner_says_why_it_takes_a_protocol() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    publishers(events.path());
    for (arguments, protocol) in [
        (["--duchies", "3", "--measurement", "reach-and-frequency"], "hmss-native"),
        (["--duchies", "2", "--measurement", "reach"], "rollv2"),
    ] {
        let arguments: Vec<&str> = arguments.into_iter().chain(NOISE).collect();
        let (found, printed) = measured(events.path(), out.path(), &arguments);
        assert_eq!(found["protocol"], protocol);
        let reasons = found["planner"].to_string();
        for named in ["llv2", "rollv2", "hmss", "hmss-native", "trustee", "direct"] {
            assert!(reasons.contains(named), "{named}: {reasons}");
        }
        assert!(printed.contains("trustee is not offered"), "{printed}");
        assert_near(&found);
    }
}

/// A part of the people that goes round the end of the circle: the result is an estimate for all of them.
#[test]
fn vectors_of_sampled_people_estimate_all() {
    let arguments = ["--sampling-start", "0.75", "--sampling-width", "0.5", "--population", "0..7999", "--no-noise"];
    let (found, _) = run("hmss-native", &arguments);
    assert_near(&found);
    assert_eq!(found["result"]["vector_size"], 4_000);
}

/// A population that is larger than the audience: unreached people have cells, too.
#[test]
fn the_population_can_be_given() {
    let (found, _) = run("hmss", &["--population", "0..9999", "--no-noise"]);
    assert_eq!((&found["result"]["reach"], &found["result"]["vector_size"]), (&json!(4_000), &json!(10_000)));
}

#[test]
fn nobody_reached_is_no_data_in_every_protocol() {
    for protocol in ["rollv2", "hmss", "hmss-native", "trustee"] {
        let events = tempfile::tempdir().unwrap();
        let out = tempfile::tempdir().unwrap();
        write(events.path(), "a", "vid", Vec::<i64>::new());
        write(events.path(), "b", "vid", Vec::<i64>::new());
        let measurement = if protocol == "rollv2" { "reach" } else { "reach-and-frequency" };
        let arguments = ["--protocol", protocol, "--measurement", measurement, "--no-noise"];
        let (found, printed) = measured(events.path(), out.path(), &arguments);
        assert_eq!(found["result"]["reach"], 0);
        assert!(measurement == "reach" || printed.contains("no data"), "{printed}");
        assert!(!found.to_string().contains("NaN"));
    }
}

#[test]
fn impossible_combinations_are_refused_before_any_work() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    publishers(events.path());
    let state = out.path().join("state");
    for (arguments, words) in [
        (&["--protocol", "rollv2"][..], &["rollv2", "--measurement reach"][..]),
        (&["--protocol", "hmss", "--duchies", "4"], &["hmss", "--duchies is 4"]),
        (&["--protocol", "hmss-native", "--max-frequency", "85"], &["255", "256", "--max-frequency"]),
        (&["--protocol", "llv2", "--measurement", "impression"], &["llv2", "impression", "--protocol direct"]),
        (&["--protocol", "trustee", "--measurement", "duration"], &["trustee", "duration", "--protocol direct"]),
        (&["--protocol", "llv2", "--sampling-start", "0.9", "--sampling-width", "0.2"], &["llv2", "circle"]),
        (&["--protocol", "llv2", "--publishers", "one"], &["llv2", "one publisher", "--protocol direct"]),
        (&["--protocol", "hmss", "--population", "1..5000"], &["row 2001 of ", "two.parquet", "--population 1..5000"]),
        (&["--protocol", "hmss", "--population", "5..1"], &["5..1"]),
        (&["--protocol", "llv3"], &["llv3", "hmss-native"]),
        (&["--measurement", "frequency"], &["frequency", "reach-and-frequency"]),
        (&["--measurement", "duration"], &["one", "`seconds`"]),
    ] {
        let all: Vec<&str> = arguments.iter().copied().chain(["--state-dir", state.to_str().unwrap()]).collect();
        let output = quickstart(events.path(), out.path(), &all);
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success() && !message.contains("panicked"), "{message}");
        assert!(words.iter().all(|word| message.contains(word)), "{arguments:?}: {message}");
        assert!(!out.path().join("out.json").exists() && !state.join("layout.json").exists());
    }
}

/// Exactly the users of six categories of a real web log (science 7.4), by frequency; with noise as near as it says.
#[test]
fn six_real_publishers_are_counted_exactly() {
    let Some(data) = msnbc() else { return };
    let out = tempfile::tempdir().unwrap();
    let six = ["--publishers", "news,tech,local,weather,business,sports", "--protocol"];
    for protocol in ["hmss", "hmss-native", "trustee"] {
        let with = |arguments: &[&'static str]| -> Vec<&str> {
            six.into_iter().chain([protocol]).chain(arguments.iter().copied()).collect()
        };
        let (found, _) = measured(&data, out.path(), &with(&["--no-noise"]));
        assert_eq!(found["result"]["reach"], 585_389);
        let histogram = [245_821, 103_485, 60_280, 39_614, 30_301, 23_105, 16_288, 12_752, 9_661, 44_082];
        assert_eq!(found["result"]["histogram"], json!(histogram));
        let (found, _) = measured(&data, out.path(), &with(&["--epsilon", "1", "--delta", "1e-9"]));
        assert_near(&found);
    }
}
