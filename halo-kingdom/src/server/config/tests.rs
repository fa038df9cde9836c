//! The configuration file.

use super::*;

const EXAMPLE: &str = r#"
    listen = "127.0.0.1:0"
    state_dir = "state"
    [tls]
    certificate = "tls.pem"
    private_key = "tls.key"
    [llv2]
    aggregator = "aggregator"
    data_provider_noise = { epsilon = 1.0, delta = 1e-9 }
    blinded_histogram_noise = { epsilon = 1.0, delta = 1e-9 }
    noise_for_publisher_noise = { epsilon = 1.0, delta = 1e-9 }
    [[duchies]]
    id = "aggregator"
    root_certificate = "a/root.pem"
    consent_certificate = { id = "AAAAAAAAAAE", file = "/a/consent.pem" }
    [[data_providers]]
    id = "AAAAAAAAAAI"
    root_certificate = "b/root.pem"
    consent_certificate = { id = "AAAAAAAAAAE", file = "b/consent.pem" }
    encryption_public_key = "b/key.bin"
"#;

#[test]
fn defaults_and_paths() {
    let config = Config::parse(EXAMPLE, Path::new("/etc/halo")).unwrap();
    assert_eq!(config.state_dir, Path::new("/etc/halo/state"));
    assert_eq!(config.parties[0].consent_certificate_file, Path::new("/a/consent.pem"));
    assert_eq!(config.parties[1].display_name, "AAAAAAAAAAI");
    assert_eq!(config.measurement_deadline.as_secs(), 604_800);
    assert_eq!(config.maximum_deadline.as_secs(), 2_592_000);
    assert_eq!((config.llv2.minimum_duchies, config.llv2.protocol.max_size), (2, 100_000));
    assert_eq!(config.duchies().count(), 1);
}

#[test]
fn what_is_wrong_is_named() {
    for (from, to, named) in [
        ("listen", "listens", "listens"),
        ("encryption_public_key", "# ", "encryption_public_key"),
        (r#"id = "AAAAAAAAAAI""#, r#"id = "news""#, "data_providers: id"),
        (r#"id = "aggregator""#, r#"id = "Aggregator""#, "duchies: id"),
        ("blinded_histogram_noise", "# ", "llv2.blinded_histogram_noise"),
        ("delta = 1e-9", "delta = 2.0", "delta"),
        (r#"aggregator = "aggregator""#, "aggregator = \"aggregator\"\nnoise_mechanism = \"loud\"", "loud"),
        (
            r#"state_dir = "state""#,
            "state_dir = \"s\"\nmeasurement_deadline_seconds = 0",
            "measurement_deadline_seconds",
        ),
        (r#"state_dir = "state""#, "state_dir = \"s\"\nmaximum_deadline_seconds = 604799", "maximum_deadline_seconds"),
    ] {
        let text = EXAMPLE.replacen(from, to, 1);
        let error = Config::parse(&text, Path::new("")).unwrap_err();
        assert!(error.contains(named), "{named}: {error}");
    }
}

#[test]
fn without_noise_no_noise_is_needed() {
    let text: String =
        EXAMPLE.lines().filter(|line| !line.contains("_noise")).map(|line| format!("{line}\n")).collect();
    let text = text.replace("[llv2]", "[llv2]\nnoise_mechanism = \"none\"");
    assert!(Config::parse(&text, Path::new("")).unwrap().llv2.protocol.noise.is_none());
}

#[test]
fn every_key_is_explained() {
    for line in EXAMPLE.lines() {
        let key = line.trim().split(' ').next().unwrap_or_default();
        assert!(KEYS.contains(key), "{key}");
    }
}
