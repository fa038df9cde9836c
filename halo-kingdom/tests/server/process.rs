//! Connections, the process itself, and its command line.

use halo_core::{
    pb::{api, halo::WatchMeasurementRequest},
    transport::TransportError,
};
use std::process::{Command, Stdio};
use tonic::Code;

use crate::world::{CONSUMER, PUBLISHERS, World, assert_refused};

#[tokio::test]
async fn strangers_are_refused_and_what_is_not_served_says_so() {
    let world = World::new();
    let running = world.start().await;
    let stranger = World::new();
    let outcome = world.dial(&running.endpoint, &stranger.consumer().identity()).await;
    assert!(matches!(outcome, Err(TransportError::CertificateRefused { .. })), "{outcome:?}");
    let (pem, key) = world.consumer().issue(|params| {
        params.not_before = rcgen::date_time_ymd(2020, 1, 1);
        params.not_after = rcgen::date_time_ymd(2021, 1, 1);
    });
    let expired = halo_core::transport::Identity::from_pem(pem.as_bytes(), key.as_bytes()).unwrap();
    let outcome = world.dial(&running.endpoint, &expired).await;
    let refusal = outcome.unwrap_err();
    assert!(refusal.to_string().contains("refused this client certificate"), "{refusal}");

    let publisher = world.connect(&running.endpoint, PUBLISHERS[0]).await;
    let request = api::ReplaceDataAvailabilityIntervalRequest::default();
    let outcome = publisher.data_providers().replace_data_availability_interval(request).await;
    let status = assert_refused(outcome, Code::Unimplemented, "UNKNOWN_ERROR");
    assert!(status.message().contains("ReplaceDataAvailabilityInterval"));
    running.stop().await;
}

#[tokio::test]
async fn a_state_directory_belongs_to_one_process() {
    let world = World::new();
    let running = world.start().await;
    let consumer = world.connect(&running.endpoint, CONSUMER).await;
    let refused = world.start().await.end().await.unwrap_err();
    assert!(refused.to_string().contains("in use by another process"), "{refused}");
    drop(consumer);
    running.stop().await;
    world.start().await.stop().await;
}

/// The process itself: killed and started again, everything is there; asked to stop, it ends cleanly.
#[tokio::test]
async fn a_killed_process_has_forgotten_nothing() {
    let world = World::new();
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let config = world.configuration(&format!("127.0.0.1:{port}"));
    let endpoint = format!("https://127.0.0.1:{port}");
    let start = || {
        let mut command = Command::new(env!("CARGO_BIN_EXE_halo-kingdom"));
        command.arg("serve").arg("--config").arg(&config).stderr(Stdio::null()).spawn().unwrap()
    };
    let mut process = start();
    let consumer = world.connect(&endpoint, CONSUMER).await;
    let request = world.request(&world.spec());
    let created = consumer.measurements().create_measurement(request).await.unwrap().into_inner();
    process.kill().unwrap();
    process.wait().unwrap();

    let mut process = start();
    let consumer = world.connect(&endpoint, CONSUMER).await;
    assert_eq!(consumer.get(&created.name).await, created);
    // With an open stream, too.
    let request = WatchMeasurementRequest { name: created.name.clone() };
    let mut progress = consumer.watch().watch_measurement(request).await.unwrap().into_inner();
    progress.message().await.unwrap();
    let asked = Command::new("kill").arg("-TERM").arg(process.id().to_string()).status().unwrap();
    assert!(asked.success());
    let ended = tokio::task::spawn_blocking(move || process.wait().unwrap()).await.unwrap();
    assert!(ended.success(), "{ended}");
    let goodbye = progress.message().await;
    assert_eq!(goodbye.unwrap_err().code(), Code::Unavailable);
}

#[test]
fn the_help_explains_every_key_and_a_bad_configuration_is_named() {
    let help = Command::new(env!("CARGO_BIN_EXE_halo-kingdom")).args(["serve", "--help"]).output().unwrap();
    let text = String::from_utf8(help.stdout).unwrap();
    for key in [
        "measurement_deadline_seconds",
        "maximum_deadline_seconds",
        "consent_certificate",
        "noise_for_publisher_noise",
        "encryption_public_key",
        "ring_modulus",
        "min_impressions",
        "[population]",
    ] {
        assert!(text.contains(key), "{key}");
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("kingdom.toml");
    std::fs::write(&file, "listen = 5").unwrap();
    let outcome =
        Command::new(env!("CARGO_BIN_EXE_halo-kingdom")).arg("serve").arg("--config").arg(&file).output().unwrap();
    assert!(!outcome.status.success());
    let told = String::from_utf8(outcome.stderr).unwrap();
    assert!(told.contains("kingdom.toml") && told.contains("listen"), "{told}");
}
