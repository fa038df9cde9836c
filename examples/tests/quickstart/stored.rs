//! Results that are stored, verified again, and altered.

use std::{fs, path::Path};

use halo_examples::{
    cluster::Layout,
    consumer::{Consumer, Delivered},
};

use crate::support::{line, quickstart, verify, write};

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
    write(events.path(), "two", "vid", (200..400).collect::<Vec<i64>>());
    let state = out.path().join("state");
    let arguments = [
        "--protocol",
        "llv2",
        "--duchies",
        "2",
        "--epsilon",
        "4",
        "--delta",
        "1e-5",
        "--max-frequency",
        "2",
        "--state-dir",
    ];
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
