//! The main job as a user runs it: the program, its files, its words.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    fs::{self, File},
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
    sync::Arc,
    time::Duration,
};

use arrow_array::{Int64Array, RecordBatch};
use arrow_schema::{DataType, Field, Schema};
use halo_core::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
use halo_edp_sdk::{progress::Unobserved, sketch};
use halo_examples::{
    cluster::{Cluster, Layout, NoiseSettings, Plan},
    consumer::{Ask, Consumer, Delivered},
    quickstart::Role,
};
use halo_sketch::{
    estimate,
    liquid_legions::{Params, clear_union},
};
use parquet::arrow::ArrowWriter;
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;
use serde_json::Value;

fn write<V>(directory: &Path, name: &str, column: &str, vids: Vec<V>)
where
    Int64Array: From<Vec<V>>,
{
    let schema = Arc::new(Schema::new(vec![Field::new(column, DataType::Int64, true)]));
    let batch = RecordBatch::try_new(Arc::clone(&schema), vec![Arc::new(Int64Array::from(vids))]).unwrap();
    let file = File::create(directory.join(format!("{name}.parquet"))).unwrap();
    let mut writer = ArrowWriter::try_new(file, schema, None).unwrap();
    writer.write(&batch).unwrap();
    writer.close().unwrap();
}

fn command(events: &Path, out: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_quickstart"));
    command.arg("--events").arg(events);
    command.arg("--json").arg(out.join("out.json")).arg("--report").arg(out.join("report.html"));
    command
}

fn quickstart(events: &Path, out: &Path, arguments: &[&str]) -> Output {
    let mut command = command(events, out);
    if !arguments.iter().any(|argument| argument.starts_with("--registers")) {
        command.args(["--registers", "5000"]);
    }
    command.args(arguments).output().unwrap()
}

fn verify(state: &Path) -> Output {
    Command::new(env!("CARGO_BIN_EXE_quickstart")).arg("verify").arg("--state-dir").arg(state).output().unwrap()
}

/// The first printed line that begins so.
fn line<'a>(printed: &'a str, beginning: &str) -> &'a str {
    printed.lines().find(|line| line.starts_with(beginning)).unwrap_or_else(|| panic!("{printed}"))
}

/// Keys of an object with what kind of value each has, one `path: kind` a line. Entries of arrays look like the first,
/// and keys that are numbers count as one.
fn shape(path: &str, value: &Value, lines: &mut Vec<String>) {
    let kind = match value {
        Value::Object(members) => {
            for (key, member) in members {
                let key = if key.parse::<u64>().is_ok() { "N" } else { key };
                shape(&format!("{path}.{key}"), member, lines);
            }
            return;
        }
        Value::Array(members) => return shape(&format!("{path}[]"), members.first().unwrap_or(&Value::Null), lines),
        Value::String(_) => "text",
        Value::Number(number) if number.is_u64() => "count",
        Value::Number(_) => "number",
        Value::Bool(_) => "flag",
        Value::Null => "nothing",
    };
    lines.push(format!("{path}: {kind}"));
}

fn figures(out: &Path) -> Value {
    serde_json::from_slice(&fs::read(out.join("out.json")).unwrap()).unwrap()
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
    write(events.path(), "silent", "vid", Vec::<i64>::new());
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
const EVERY_KEY: [&str; 19] = [
    ".protocol: text",
    ".publishers[].name: text",
    ".publishers[].impressions: count",
    ".publishers[].clear_reach: count",
    ".truth.reach: count",
    ".truth.frequency.N: number",
    ".result.reach: count",
    ".result.reach_std_error: number",
    ".result.frequency.N: number",
    ".result.frequency_std_error.N: number",
    ".result.registers_in: count",
    ".result.active_registers: count",
    ".parties[].name: text",
    ".parties[].cpu_s: number",
    ".parties[].peak_rss_bytes: count",
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
    let arguments = ["--epsilon", "4", "--delta", "1e-6", "--max-frequency", "3", "--duchies", "2"];
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

/// Alters one byte of what the Kingdom of a finished run stored. The database has no checksums of its own.
fn alter(state: &Path, stored: &[u8]) {
    let file = state.join("kingdom/state/kingdom.sqlite");
    let mut bytes = fs::read(&file).unwrap();
    // Long values lie in pieces on several pages.
    let piece = &stored[..48];
    let found: Vec<_> = bytes.windows(piece.len()).enumerate().filter(|(_, window)| *window == piece).collect();
    let places: Vec<_> = found.iter().map(|(place, _)| *place).collect();
    assert!(!places.is_empty(), "{} does not hold it", file.display());
    for place in places {
        bytes[place + 40] ^= 1;
    }
    fs::write(&file, bytes).unwrap();
}

fn stored(state: &Path) -> halo_kingdom::server::StoredResult {
    let directory = state.join("kingdom/state");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let measurements = halo_kingdom::server::stored_measurements(&directory).await.unwrap();
        halo_kingdom::server::stored_result(&directory, &measurements[0].name).await.unwrap()
    })
}

#[test]
fn a_stored_result_verifies_until_it_is_altered() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "one", "vid", (0..300).collect::<Vec<i64>>());
    let state = out.path().join("state");
    let arguments = ["--duchies", "2", "--epsilon", "4", "--delta", "1e-5", "--max-frequency", "2", "--state-dir"];
    let arguments: Vec<&str> = arguments.into_iter().chain([state.to_str().unwrap()]).collect();
    let output = quickstart(events.path(), out.path(), &arguments);
    assert!(output.status.success(), "{output:?}");
    let printed = String::from_utf8(output.stdout).unwrap();
    let again = verify(&state);
    assert!(again.status.success(), "{again:?}");
    let reproduced = String::from_utf8(again.stdout).unwrap();
    assert_eq!(line(&reproduced, "reach"), line(&printed, "reach"));
    assert!(reproduced.contains("the aggregator's signature holds"), "{reproduced}");

    // The same directory takes no second run, and what is in it stays.
    let second = quickstart(events.path(), out.path(), &arguments);
    assert_eq!(second.status.code(), Some(1));
    let message = String::from_utf8(second.stderr).unwrap();
    assert!(message.contains("already holds") && message.contains("--state-dir"), "{message}");
    assert!(verify(&state).status.success());

    let consumer = Consumer::open(&Layout::open(&state).unwrap()).unwrap();
    let stored = stored(&state);
    let delivered = Delivered {
        ciphertext: &stored.encrypted_result,
        certificate: &stored.certificate.to_string(),
        certificate_der: &stored.certificate_der,
        protocol_config: &stored.protocol_config,
        time_unix_s: stored.update_time.unix_seconds(),
    };
    assert!(consumer.open_delivered(&delivered).is_ok());
    // Certificates count at the time of delivery: long after it they may have expired, but not before it.
    let year = 365 * 86_400;
    for time_unix_s in [delivered.time_unix_s + year, delivered.time_unix_s - year] {
        assert!(consumer.open_delivered(&Delivered { time_unix_s, ..delivered }).is_err());
    }
    let worker = stored.certificate.to_string().replace("aggregator", "worker1");
    let error = consumer.open_delivered(&Delivered { certificate: &worker, ..delivered }).unwrap_err().to_string();
    assert!(error.contains("worker1 signed") && error.contains("aggregator is aggregator"), "{error}");

    for (bytes, words) in [
        (&stored.encrypted_result, "does not open"),
        (&stored.certificate_der, "certificate"),
        (&stored.measurement_spec, "not the one that this consumer signed"),
    ] {
        alter(&state, bytes);
        let output = verify(&state);
        let message = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(words) && !message.contains("panicked"), "{message}");
        // Altered twice it is what it was.
        let mut altered = bytes.clone();
        altered[40] ^= 1;
        alter(&state, &altered);
    }
    assert!(verify(&state).status.success());
}

#[test]
fn a_killed_duchy_stalls_the_run_until_it_is_started_again() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "one", "vid", (0..300).collect::<Vec<i64>>());
    // Publishers may be called like servers, and directories as they please.
    write(events.path(), "worker1", "vid", (200..500).collect::<Vec<i64>>());
    let state = out.path().join("it's my state");
    let mut run = command(events.path(), out.path())
        .args(["--registers", "500", "--no-noise", "--max-frequency", "2", "--state-dir"])
        .arg(&state)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(run.stdout.take().unwrap()).lines().map(Result::unwrap);
    let mut until = |words: &str| lines.by_ref().find(|line| line.contains(words)).unwrap_or_else(|| panic!("{words}"));
    until("consumer: created");
    let pid = fs::read_to_string(state.join("duchies/worker1/pid")).unwrap();
    let killed = Command::new("kill").args(["-KILL", &pid]).status().unwrap();
    assert!(killed.success());
    let said = until("duchies/worker1 ended (signal: 9");
    let again = said.split_once("start it again with: ").unwrap().1.to_owned();
    std::thread::sleep(Duration::from_secs(5));
    assert_eq!(run.try_wait().unwrap(), None, "it waits for the Duchy");
    assert!(!out.path().join("out.json").exists());

    let mut duchy = Command::new("sh").args(["-c", &again]).stderr(Stdio::null()).spawn().unwrap();
    assert!(until("reach ").contains("confidence interval"));
    assert!(lines.any(|line| line.contains("to verify:")));
    assert!(run.wait().unwrap().success());
    assert!(duchy.wait().unwrap().success(), "it was stopped with the others");
    let found = figures(out.path());
    assert_eq!(found["truth"]["reach"], 500);
    let names: Vec<_> =
        found["parties"].as_array().unwrap().iter().map(|party| party["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["kingdom", "worker1", "worker2", "aggregator", "one", "worker1"]);
    assert!(verify(&state).status.success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_that_is_taken_is_given_up_for_another() {
    let directory = tempfile::tempdir().unwrap();
    write(directory.path(), "one", "vid", vec![1]);
    let noise = NoiseSettings { epsilon: 1.0, delta: 1e-6, off: true };
    let publishers = vec![("one".to_owned(), directory.path().join("one.parquet"))];
    let plan = Plan { duchies: 2, publishers, decay_rate: 12.0, registers: 500, noise };
    let layout = Layout::create(&directory.path().join("state"), plan, &mut ChaCha20Rng::from_seed([1; 32])).unwrap();
    let _taken = std::net::TcpListener::bind(&layout.kingdom.address).unwrap();
    let (mut cluster, _events) = Cluster::new(env!("CARGO_BIN_EXE_quickstart").into(), layout);
    let start = |cluster: &mut Cluster| {
        let kingdom = cluster.layout().kingdom.clone();
        cluster.start(Role::Kingdom, &kingdom).unwrap();
    };
    start(&mut cluster);
    while cluster.reap() != ["kingdom"] {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(cluster.port_taken("kingdom"), "{}", cluster.log_tail("kingdom"));
    cluster.move_ports().unwrap();
    start(&mut cluster);
    let consumer = Consumer::open(cluster.layout()).unwrap();
    let channel = loop {
        if let Ok(channel) = consumer.connect().await {
            break channel;
        }
        assert!(cluster.reap().is_empty(), "{}", cluster.log_tail("kingdom"));
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    // A measurement whose Duchies never come is given up some day.
    let privacy = PrivacyParams::new(1.0, 1e-6).unwrap();
    let ask = Ask { maximum_frequency: MaximumFrequency::new(3).unwrap(), privacy };
    let created = consumer.create(channel, &ask, &mut ChaCha20Rng::from_seed([2; 32])).await.unwrap();
    let time = |time: Option<prost_types::Timestamp>| time.unwrap().seconds;
    let seconds = time(created.deadline) - time(created.create_time);
    assert!((3_600..86_400).contains(&seconds), "{seconds} s");
    cluster.stop_all().await.unwrap();
}

#[test]
fn a_publisher_that_cannot_answer_ends_the_run() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "one", "vid", vec![1, 2, 3]);
    let state = out.path().join("state");
    let mut run = command(events.path(), out.path());
    run.args(["--registers", "500", "--no-noise", "--duchies", "2", "--state-dir"]).arg(&state);
    let run = run.stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    // The exact answer is known by now, and the Kingdom does not answer yet.
    while !state.join("kingdom/pid").exists() {
        std::thread::sleep(Duration::from_millis(5));
    }
    fs::remove_file(events.path().join("one.parquet")).unwrap();
    let output = run.wait_with_output().unwrap();
    let message = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("publishers/one cannot answer") && message.contains("one.parquet"), "{message}");
}

#[test]
fn nobody_reached_with_noise_is_a_result_near_nothing() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "a", "vid", Vec::<i64>::new());
    write(events.path(), "b", "vid", Vec::<i64>::new());
    let arguments = ["--epsilon", "4", "--delta", "1e-5", "--max-frequency", "2", "--duchies", "2"];
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
    write(events.path(), "news", "vid", vec![Some(1), None]);
    refused(&[], &["news", "row 2", "null"]);
    for (option, values) in [
        ("--decay-rate", ["99", "0", "-1", "NaN"]),
        ("--registers", ["0", "4294967297", "9999999999999", "18446744073709551615"]),
    ] {
        for value in values {
            refused(&[&format!("{option}={value}")], &["--decay-rate and --registers cannot be used"]);
        }
    }
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
