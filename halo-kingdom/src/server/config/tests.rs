//! The configuration file.

use halo_core::measurement::{HmssVariant, ProtocolKind, TrusteeNoise};
use halo_core::privacy::NoiseMechanism;

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
    let llv2 = config.protocols.llv2.as_ref().unwrap();
    assert_eq!((llv2.minimum_duchies, llv2.protocol.max_size), (2, 100_000));
    assert_eq!(
        config.protocols.direct.noise,
        [Some(NoiseMechanism::DiscreteGaussian), Some(NoiseMechanism::Geometric)]
    );
    assert_eq!(config.parties[1].capabilities, None);
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
    assert!(Config::parse(&text, Path::new("")).unwrap().protocols.llv2.unwrap().protocol.noise.is_none());
}

/// Every other section, as the documentation has it.
const SECTIONS: &str = r#"
    [rollv2]
    aggregator = "aggregator"
    data_provider_noise = { epsilon = 1.0, delta = 1e-9 }
    blinded_histogram_noise = { epsilon = 1.0, delta = 1e-9 }
    noise_for_publisher_noise = { epsilon = 1.0, delta = 1e-9 }
    [hmss]
    first_worker = "worker1"
    second_worker = "worker2"
    aggregator = "aggregator"
    noise_mechanism = "geometric"
    [hmss_native]
    first_worker = "worker2"
    second_worker = "worker1"
    aggregator = "aggregator"
    noise_mechanism = "none"
    [trustee]
    duchy = "aggregator"
    noise_mechanism = "deterministic"
    thresholds = { min_users = 10, min_impressions = 100 }
    [direct]
    noise_mechanisms = ["geometric", "none"]
    [population]
    first = 1
    last = 1000000
"#;

/// The example with the other sections, and with a text replaced.
fn with_sections(from: &str, to: &str) -> Result<Config, String> {
    let all = EXAMPLE.replace("[[duchies]]", &format!("{SECTIONS}\n[[duchies]]"));
    assert!(from.is_empty() || all.contains(from), "{from}");
    let text = if from.is_empty() { all } else { all.replacen(from, to, 1) };
    Config::parse(&text, Path::new(""))
}

#[test]
fn every_protocol_has_its_section() {
    let protocols = with_sections("", "").unwrap().protocols;
    assert_eq!(protocols.rollv2.as_ref().unwrap().protocol.max_size, 100_000);
    let hmss = protocols.hmss.as_ref().unwrap();
    assert_eq!(hmss.variant, HmssVariant::Compatible { ring_modulus: 127 });
    assert_eq!(hmss.noise.unwrap().mechanism, NoiseMechanism::Geometric);
    assert_eq!((hmss.first_worker.as_str(), hmss.population.size()), ("worker1", 1_000_000));
    let native = protocols.hmss_native.as_ref().unwrap();
    assert_eq!((native.variant, native.noise), (HmssVariant::Native, None));
    let trustee = protocols.trustee.as_ref().unwrap();
    assert_eq!(trustee.noise, TrusteeNoise::Deterministic);
    assert_eq!((trustee.thresholds.unwrap().min_users, trustee.thresholds.unwrap().min_impressions), (10, 100));
    assert_eq!(protocols.direct.noise, [Some(NoiseMechanism::Geometric), None]);
    let without: Vec<ProtocolKind> = protocols.without_noise().collect();
    assert_eq!(without, [ProtocolKind::HmssNative, ProtocolKind::Direct]);
}

#[test]
fn what_is_wrong_with_a_protocol_is_named() {
    for (from, to, named) in [
        ("[population]", "[populations]", "populations"),
        ("first = 1\n", "first = 2000000\n", "population: "),
        ("first = 1\n    last = 1000000", "", "first"),
        ("[population]\n    first = 1\n    last = 1000000", "", "population: it is required for [hmss]"),
        ("first_worker = \"worker1\"", "first_worker = \"Worker\"", "hmss.first_worker"),
        ("noise_mechanism = \"none\"", "ring_modulus = 127", "hmss_native.ring_modulus"),
        ("[rollv2]", "[rollv2]\nsampling_indicator_size = 5", "rollv2.sampling_indicator_size"),
        ("noise_mechanism = \"deterministic\"", "noise_mechanism = \"geometric\"", "geometric"),
        ("min_users = 10", "min_users = 3000000000", "trustee.thresholds.min_users"),
        ("min_users = 10, ", "", "min_users"),
        ("noise_mechanisms", "noise_mechanism", "noise_mechanism"),
        ("encryption_public_key", "capabilities = [\"hmss\", \"magic\"]\nencryption_public_key", "magic"),
        ("id = \"aggregator\"", "id = \"aggregator\"\ncapabilities = [\"hmss\"]", "duchies/aggregator: capabilities"),
    ] {
        let error = with_sections(from, to).unwrap_err();
        assert!(error.contains(named), "{named}: {error}");
    }
    let text: String =
        EXAMPLE.lines().filter(|line| !line.contains("_noise")).map(|line| format!("{line}\n")).collect();
    let text = text.replace("[llv2]", "").replace("aggregator = \"aggregator\"", "");
    let error = Config::parse(&text, Path::new("")).unwrap_err();
    assert!(error.contains("no protocol is configured"), "{error}");
}

#[test]
fn a_publisher_says_what_it_can_do() {
    let can = "capabilities = [\"hmss-native\", \"no-noise\"]\nencryption_public_key";
    let config = with_sections("encryption_public_key", can).unwrap();
    let said = config.parties[1].capabilities.unwrap();
    assert_eq!(said, Capabilities { hmss_native: true, no_noise: true, ..Capabilities::default() });
}

#[test]
fn every_key_is_explained() {
    for line in EXAMPLE.lines().chain(SECTIONS.lines()) {
        let key = line.trim().split(' ').next().unwrap_or_default();
        assert!(KEYS.contains(key), "{key}");
    }
}
