//! What goes wrong around a measurement.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    time::Duration,
};

use halo_core::{
    measurement::{MeasurementType, ProtocolKind},
    privacy::{PrivacyParams, VidSamplingInterval},
};
use halo_examples::{
    cluster::{Cluster, Layout, NoiseSettings, Plan},
    consumer::{Ask, Consumer},
    quickstart::Role,
};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

use crate::support::{command, figures, quickstart, verify, write};

#[test]
fn a_killed_duchy_stalls_the_run_until_it_is_started_again() {
    let events = tempfile::tempdir().unwrap();
    let out = tempfile::tempdir().unwrap();
    write(events.path(), "one", "vid", (0..300).collect::<Vec<i64>>());
    // Publishers may be called like servers, and directories as they please.
    write(events.path(), "worker1", "vid", (200..500).collect::<Vec<i64>>());
    let state = out.path().join("it's my state");
    let mut run = command(events.path(), out.path())
        .args(["--protocol", "llv2", "--registers", "500", "--no-noise", "--max-frequency", "2", "--state-dir"])
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
    let noise = NoiseSettings { epsilon: 1.0, delta: 1e-6, off: true };
    let publishers = ["one", "two"].map(|name| {
        write(directory.path(), name, "vid", vec![1]);
        (name.to_owned(), directory.path().join(format!("{name}.parquet")))
    });
    let plan = Plan {
        duchies: 2,
        publishers: publishers.to_vec(),
        protocols: vec![ProtocolKind::Llv2],
        population: None,
        decay_rate: 12.0,
        registers: 500,
        noise,
    };
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
    let kind = MeasurementType::Reach { reach: privacy };
    let ask = Ask { kind, interval: VidSamplingInterval::FULL, publishers: Vec::new() };
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
