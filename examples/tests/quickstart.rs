//! The main job as a user runs it: the program, its files, its words.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::Arc,
};

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};
use halo_edp_sdk::{progress::Unobserved, sketch};
use halo_sketch::{
    estimate,
    liquid_legions::{Params, clear_union},
};
use parquet::arrow::ArrowWriter;
use serde_json::Value;

fn write(directory: &Path, name: &str, column: &str, vids: Vec<i64>) {
    let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, false)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vids))]).unwrap();
    let file = File::create(directory.join(format!("{name}.parquet"))).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn quickstart(events: &Path, out: &Path, arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quickstart"))
        .arg("--events")
        .arg(events)
        .args(["--registers", "5000"])
        .arg("--json")
        .arg(out.join("out.json"))
        .arg("--report")
        .arg(out.join("report.html"))
        .args(arguments)
        .output()
        .unwrap()
}

fn figures(out: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(out.join("out.json")).unwrap()).unwrap()
}

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
    write(events.path(), "silent", "vid", Vec::new());
    let output = quickstart(events.path(), out.path(), &["--no-noise"]);
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
    let report = std::fs::read_to_string(out.path().join("report.html")).unwrap();
    assert!(report.contains("<svg") && report.contains("not differentially private") && report.ends_with("</html>\n"));
    assert!(!report.contains("http://") && !report.contains("https://"), "the report needs nothing from elsewhere");
}

#[test]
fn with_noise_the_result_is_near_and_the_raw_counts_stay_hidden() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "one", "vid", (0..900).collect());
    write(events.path(), "two", "vid", (500..1_500).collect());
    let arguments = ["--epsilon", "4", "--delta", "1e-6", "--max-frequency", "3", "--duchies", "2"];
    let output = quickstart(events.path(), out.path(), &arguments);
    assert!(output.status.success(), "{output:?}");
    let found = figures(out.path());
    let (reach, error) =
        (found["result"]["reach"].as_f64().unwrap(), found["result"]["reach_std_error"].as_f64().unwrap());
    assert!((reach - 1_500.0).abs() < 6.0 * error, "{reach} ± {error}");
    assert!(found["result"]["usable_histogram"].is_null() && found["result"]["usable_registers"].is_null());
    assert_eq!(found["privacy_spent"], serde_json::json!({"epsilon": 8.0, "delta": 2e-6}));
}

#[test]
fn nobody_reached_is_no_data() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "a", "vid", Vec::new());
    write(events.path(), "b", "vid", Vec::new());
    let output = quickstart(events.path(), out.path(), &["--no-noise"]);
    assert!(output.status.success(), "{output:?}");
    assert!(String::from_utf8(output.stdout).unwrap().contains("no data"));
    let found = figures(out.path());
    assert_eq!((&found["result"]["reach"], &found["result"]["registers_in"]), (&Value::from(0), &Value::from(0)));
    assert!(found["result"]["frequency"].is_null());
}

#[test]
fn bad_input_is_named_and_nothing_is_measured() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    let refused = |arguments: &[&str], words: &[&str]| {
        let output = quickstart(events.path(), out.path(), arguments);
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(words.iter().all(|word| message.contains(word)), "{message}");
        assert!(!message.contains("panicked"), "{message}");
        assert!(!out.path().join("out.json").exists());
    };
    refused(&[], &["no file that ends in .parquet"]);
    write(events.path(), "news", "user", vec![1]);
    refused(&[], &["news", "no column `vid`", "user"]);
    write(events.path(), "news", "vid", vec![1, -2]);
    refused(&[], &["news", "row 2", "-2"]);
    refused(&["--publishers", "sports"], &["no publisher sports", "news"]);
    refused(&["--decay-rate", "99"], &["decay rate"]);
    refused(&["--duchies", "1"], &["--duchies"]);
    write(events.path(), "news", "vid", vec![1, 2]);
    refused(&["--epsilon", "1e-12"], &["kingdom", "epsilon"]);
}

#[test]
fn real_publishers_without_noise() {
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/data/msnbc");
    if !data.exists() {
        println!("SKIPPED: ../shared/data/msnbc is missing");
        return;
    }
    let out = tempfile::tempdir().unwrap();
    let output = quickstart(&data, out.path(), &["--publishers", "bbs,travel,opinion", "--no-noise"]);
    assert!(output.status.success(), "{output:?}");
    let files: Vec<_> = ["bbs", "travel", "opinion"].iter().map(|name| data.join(format!("{name}.parquet"))).collect();
    assert_exact(&files, 5_000, &figures(out.path()));
}
