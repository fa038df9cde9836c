//! In every protocol every Duchy is killed with SIGKILL at every named point of its stages, and started again each time:
//! the measurement finishes, and what was about to be stored before a kill is what is stored after it.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use halo_core::{
    clock::{Clock, Stopwatch, SystemClock},
    measurement::{MeasurementType, Population, ProtocolKind},
    pb::api::measurement::{Result as MeasurementResult, State},
    privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval},
};
use halo_duchy::server::{failpoint::failpoint_names, stage::Role as Part};
use halo_edp_sdk::{progress::Unobserved, sketch};
use halo_examples::{
    cluster::{Cluster, Layout, NoiseSettings, Plan},
    consumer::{Ask, Consumer},
    population,
    quickstart::Role,
    truth::{Limits, Truth},
};
use halo_sketch::liquid_legions::{Params, clear_union};
use rand_chacha::ChaCha20Rng;
use rand_core::SeedableRng;

/// Longer than any machine needs.
const PATIENCE: Duration = Duration::from_secs(600);
const REGISTERS: u64 = 300;

/// Arms every point of a Duchy, and tells how many stages there are.
fn arm(directory: &Path, protocol: ProtocolKind, part: Part) -> usize {
    fs::create_dir_all(directory).unwrap();
    let names = failpoint_names(protocol, part);
    assert!(!names.is_empty(), "{protocol} has no points");
    for name in &names {
        fs::write(directory.join(format!("{name}.armed")), "").unwrap();
    }
    names.len() / 3
}

fn part(id: &str) -> Part {
    if id == "aggregator" { Part::Aggregator } else { Part::Worker }
}

/// Points in the middle of an upload, and of what workers send at first: a Duchy that took no upload does not pass the one,
/// and without noise it has nothing to send either.
const OF_UPLOADS: [&str; 2] = ["mid-delivery.WAIT_REQUISITIONS_AND_KEY_SET", "mid-delivery.WAIT_SETUP_PHASE_INPUTS"];

/// Names of files with an ending, without it.
fn points(directory: &Path, ending: &str) -> Vec<String> {
    let names = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter_map(|name| name.strip_suffix(ending).map(str::to_owned)).collect()
}

/// Ids of the processes that killed themselves. One may have passed two points at the same time.
fn killed(directory: &Path) -> BTreeSet<String> {
    let fired = points(directory, ".fired").into_iter();
    fired.map(|point| fs::read_to_string(directory.join(format!("{point}.process"))).unwrap()).collect()
}

/// Points that have not been passed yet, apart from those that depend on where the uploads go.
fn left(directory: &Path) -> Vec<String> {
    points(directory, ".armed").into_iter().filter(|name| !OF_UPLOADS.contains(&name.as_str())).collect()
}

/// Starts again whoever is gone.
fn revive(cluster: &mut Cluster, kills: &mut usize) {
    for name in cluster.reap() {
        let (role, party) = cluster.find(&name).map(|(role, party)| (role, party.clone())).unwrap();
        assert_eq!(role, Role::Duchy, "{name} ended by itself: {}", cluster.log_tail(&name));
        *kills += 1;
        cluster.start(role, &party).unwrap();
    }
}

/// Measures while every Duchy that computes dies at every point, and gives the result with the publishers' files.
async fn measure(root: &Path, protocol: ProtocolKind, off: bool) -> (MeasurementResult, Vec<(String, PathBuf)>) {
    let mut rng = ChaCha20Rng::from_seed([u8::from(off); 32]);
    let seconds = SystemClock.now().unix_nanos().unsigned_abs();
    rng.set_stream(seconds);
    let events = root.join("events");
    fs::create_dir_all(&events).unwrap();
    let names = population::write(&events, 7).unwrap();
    let publishers: Vec<_> = names.iter().map(|name| (name.clone(), events.join(format!("{name}.parquet")))).collect();
    let noise = NoiseSettings { epsilon: 8.0, delta: 1e-4, off };
    let plan = Plan {
        duchies: 3,
        publishers: publishers.clone(),
        protocols: vec![protocol],
        population: Some(Population::new(1, 152_000).unwrap()),
        decay_rate: 12.0,
        registers: REGISTERS,
        noise,
    };
    let layout = Layout::create(&root.join("state"), plan, &mut rng).unwrap();
    // A trustee computes alone.
    let computing =
        layout.duchies.iter().filter(|duchy| protocol != ProtocolKind::Trustee || part(&duchy.id) == Part::Aggregator);
    let directories: Vec<(PathBuf, usize)> = computing
        .map(|duchy| {
            let directory = layout.file(duchy, "failpoints");
            let stages = arm(&directory, protocol, part(&duchy.id));
            (directory, stages)
        })
        .collect();
    let consumer = Consumer::open(&layout).unwrap();
    let (mut cluster, _events) = Cluster::new(env!("CARGO_BIN_EXE_quickstart").into(), layout);
    cluster.environment("HALO_FAILPOINTS", "failpoints");
    cluster.start_all().unwrap();
    let waited = Stopwatch::start();
    let channel = loop {
        if let Ok(channel) = consumer.connect().await {
            break channel;
        }
        assert!(waited.elapsed() < PATIENCE);
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    let privacy = PrivacyParams::new(noise.epsilon, noise.delta).unwrap();
    let kind = match protocol {
        ProtocolKind::Rollv2 => MeasurementType::Reach { reach: privacy },
        _ => MeasurementType::ReachAndFrequency { reach: privacy, frequency: privacy, maximum_frequency: frequency() },
    };
    let ask = Ask { kind, interval: VidSamplingInterval::FULL, publishers: Vec::new() };
    let created = consumer.create(channel.clone(), &ask, &mut rng).await.unwrap();
    let mut changes = consumer.watch(channel.clone(), &created.name).await.unwrap();
    let (mut kills, mut done) = (0, None);
    while done.is_none() || directories.iter().any(|(directory, _)| !left(directory).is_empty()) {
        revive(&mut cluster, &mut kills);
        tokio::select! {
            change = changes.message(), if done.is_none() => {
                let measurement = change.unwrap().unwrap().measurement.unwrap();
                let state = measurement.state();
                assert!(!matches!(state, State::Failed | State::Cancelled), "{:?}", measurement.failure);
                if state == State::Succeeded {
                    done = Some(measurement);
                }
            }
            () = tokio::time::sleep(Duration::from_millis(20)) => {}
        }
        let open: Vec<_> = directories.iter().map(|(directory, _)| left(directory)).collect();
        assert!(waited.elapsed() < PATIENCE, "not passed in time: {open:?}");
    }
    // Uploads go to at least one of the Duchies; to the aggregator alone when no worker has anything to send.
    let fired = |point: &str| directories.iter().filter(|(one, _)| one.join(format!("{point}.fired")).exists()).count();
    let waits = directories.iter().any(|(one, _)| one.join(format!("{}.armed", OF_UPLOADS[1])).exists());
    assert!(fired(OF_UPLOADS[0]) >= 1, "no Duchy was killed in the middle of an upload");
    assert!(!waits || (off && fired(OF_UPLOADS[0]) == 1), "the aggregator was not killed in the middle of a body");
    let expected: usize = directories.iter().map(|(directory, _)| killed(directory).len()).sum();
    // The last one has written that it dies, and may not be dead yet.
    while kills < expected {
        revive(&mut cluster, &mut kills);
        assert!(waited.elapsed() < PATIENCE, "{kills} of {expected} kills");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(kills, expected);
    for (directory, stages) in &directories {
        compare(directory, *stages);
    }
    let output = done.unwrap().results.remove(0);
    let der = consumer.certificate(channel, &output.certificate).await.unwrap();
    let result = consumer.open_result(&output.encrypted_result.unwrap().ciphertext, &output.certificate, &der).unwrap();
    cluster.stop_all().await.unwrap();
    (result, publishers)
}

/// The digests that were recorded before each kill are those of the attempt that went through.
fn compare(directory: &Path, stages: usize) {
    let mut compared = 0;
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let Some(point) = name.strip_suffix(".fired").filter(|name| name.starts_with("before-commit.")) else {
            continue;
        };
        let before = fs::read_to_string(&path).unwrap();
        if before.is_empty() {
            continue;
        }
        let after = fs::read_to_string(directory.join(format!("{point}.passed"))).unwrap();
        // The aggregator passes one of the points for each worker's body.
        assert!(after.contains(&before), "{point} of {}: {before:?} is not in {after:?}", directory.display());
        compared += 1;
    }
    // All but the two that wait for the Kingdom, and the last one.
    assert!(compared + 3 >= stages, "only {compared} points of {} reported digests", directory.display());
}

/// F.
fn frequency() -> MaximumFrequency {
    MaximumFrequency::new(3).unwrap()
}

/// Without noise a sketch is the join of the publishers' sketches.
async fn exact_sketch(protocol: ProtocolKind) {
    let directory = tempfile::tempdir().unwrap();
    let (result, publishers) = measure(directory.path(), protocol, true).await;
    let params = Params::new(12.0, REGISTERS, 10_000_000).unwrap();
    let sketches: Vec<_> = publishers
        .iter()
        .map(|(_, file)| sketch::sketch_file(file, params, VidSamplingInterval::FULL, &mut Unobserved).unwrap().sketch)
        .collect();
    let union = clear_union(&sketches, frequency()).unwrap();
    let reach = result.reach.unwrap();
    assert_eq!(reach.registers_in.unsigned_abs(), union.registers_in);
    assert_eq!(reach.active_registers.unsigned_abs(), union.active);
    if let Some(frequency) = result.frequency {
        let histogram: Vec<u64> = frequency.usable_histogram.iter().map(|count| count.unsigned_abs()).collect();
        assert_eq!(histogram, union.histogram);
    }
}

/// Without noise vectors count everybody.
async fn exact_vectors(protocol: ProtocolKind) {
    let directory = tempfile::tempdir().unwrap();
    let (result, publishers) = measure(directory.path(), protocol, true).await;
    let truth =
        Truth::count(&publishers, Limits { classes: frequency().get(), impressions: 1, seconds: None }).unwrap();
    assert_eq!(result.reach.unwrap().value.unsigned_abs(), truth.reached.reach);
    let histogram: Vec<u64> = result.frequency.unwrap().histogram.iter().map(|count| count.unsigned_abs()).collect();
    assert_eq!(histogram, truth.reached.histogram);
}

/// With noise, what is stored again is the same: the noise is not drawn anew.
async fn noised(protocol: ProtocolKind) {
    let directory = tempfile::tempdir().unwrap();
    let (result, _) = measure(directory.path(), protocol, false).await;
    assert!(result.reach.unwrap().value > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn llv2_without_noise_is_exact_whoever_is_killed() {
    exact_sketch(ProtocolKind::Llv2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn llv2_with_noise_makes_the_same_bytes_at_every_attempt() {
    noised(ProtocolKind::Llv2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollv2_without_noise_is_exact_whoever_is_killed() {
    exact_sketch(ProtocolKind::Rollv2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn rollv2_with_noise_makes_the_same_bytes_at_every_attempt() {
    noised(ProtocolKind::Rollv2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hmss_without_noise_is_exact_whoever_is_killed() {
    exact_vectors(ProtocolKind::Hmss).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hmss_with_noise_makes_the_same_bytes_at_every_attempt() {
    noised(ProtocolKind::Hmss).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hmss_native_without_noise_is_exact_whoever_is_killed() {
    exact_vectors(ProtocolKind::HmssNative).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hmss_native_with_noise_makes_the_same_bytes_at_every_attempt() {
    noised(ProtocolKind::HmssNative).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trustee_without_noise_is_exact_whenever_it_is_killed() {
    exact_vectors(ProtocolKind::Trustee).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_trustee_with_noise_makes_the_same_bytes_at_every_attempt() {
    noised(ProtocolKind::Trustee).await;
}
