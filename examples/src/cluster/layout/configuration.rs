//! The parties' configuration files, as the servers and the SDK document them.

use std::path::PathBuf;

use halo_core::measurement::{Population, ProtocolKind};
use serde::{Serialize, Serializer};

#[derive(Serialize)]
pub(super) struct KingdomConfiguration {
    pub(super) listen: String,
    pub(super) state_dir: PathBuf,
    pub(super) tls: Tls,
    pub(super) population: Option<Range>,
    pub(super) llv2: Option<Llv2>,
    pub(super) rollv2: Option<Rollv2>,
    pub(super) hmss: Option<Hmss>,
    pub(super) hmss_native: Option<Hmss>,
    pub(super) trustee: Option<Trustee>,
    pub(super) direct: Direct,
    pub(super) duchies: Vec<KingdomEntity>,
    pub(super) data_providers: Vec<KingdomEntity>,
    pub(super) measurement_consumers: Vec<KingdomEntity>,
}

/// VIDs, both among them.
#[derive(Clone, Copy, Serialize)]
pub(super) struct Range {
    pub(super) first: u64,
    pub(super) last: u64,
}

#[derive(Serialize)]
pub(super) struct Llv2 {
    pub(super) aggregator: String,
    pub(super) minimum_duchies: usize,
    pub(super) decay_rate: f64,
    pub(super) max_size: u64,
    pub(super) sampling_indicator_size: u64,
    #[serde(flatten)]
    pub(super) noise: SketchNoise,
}

#[derive(Serialize)]
pub(super) struct Rollv2 {
    pub(super) aggregator: String,
    pub(super) minimum_duchies: usize,
    pub(super) decay_rate: f64,
    pub(super) max_size: u64,
    #[serde(flatten)]
    pub(super) noise: SketchNoise,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct SketchNoise {
    #[serde(flatten)]
    pub(super) joint: JointNoise,
    pub(super) data_provider_noise: Privacy,
    pub(super) blinded_histogram_noise: Privacy,
    pub(super) noise_for_publisher_noise: Privacy,
}

/// Noise to which several Duchies contribute.
#[derive(Clone, Copy, Serialize)]
pub(super) struct JointNoise {
    pub(super) noise_mechanism: &'static str,
    pub(super) noise_calibration: &'static str,
    pub(super) honest_contributors: u32,
}

#[derive(Serialize)]
pub(super) struct Hmss {
    pub(super) first_worker: String,
    pub(super) second_worker: String,
    pub(super) aggregator: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ring_modulus: Option<u32>,
    #[serde(flatten)]
    pub(super) noise: JointNoise,
}

#[derive(Serialize)]
pub(super) struct Trustee {
    pub(super) duchy: String,
    pub(super) noise_mechanism: &'static str,
}

#[derive(Serialize)]
pub(super) struct Direct {
    pub(super) noise_mechanisms: Vec<&'static str>,
}

#[derive(Clone, Copy, Serialize)]
pub(super) struct Privacy {
    pub(super) epsilon: f64,
    pub(super) delta: f64,
}

#[derive(Serialize)]
pub(super) struct KingdomEntity {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) display_name: Option<String>,
    pub(super) root_certificate: PathBuf,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) encryption_public_key: Option<PathBuf>,
    pub(super) consent_certificate: CertificateFile,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) capabilities: Option<Vec<&'static str>>,
}

#[derive(Serialize)]
pub(super) struct CertificateFile {
    pub(super) id: String,
    pub(super) file: PathBuf,
}

#[derive(Serialize)]
pub(super) struct Tls {
    pub(super) certificate: &'static str,
    pub(super) private_key: &'static str,
}

impl Default for Tls {
    fn default() -> Self {
        Self { certificate: "tls.pem", private_key: "tls.key" }
    }
}

#[derive(Serialize)]
pub(super) struct Consent {
    pub(super) certificate: &'static str,
    pub(super) private_key: &'static str,
    pub(super) name: String,
}

/// A publisher's, which the Kingdom names.
#[derive(Serialize)]
pub(super) struct KeyPair {
    pub(super) certificate: &'static str,
    pub(super) private_key: &'static str,
}

#[derive(Serialize)]
pub(super) struct Endpoint {
    pub(super) endpoint: String,
    pub(super) root_certificate: PathBuf,
}

#[derive(Serialize)]
pub(super) struct Peer {
    pub(super) id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) endpoint: Option<String>,
    pub(super) root_certificate: PathBuf,
}

#[derive(Serialize)]
pub(super) struct NoiseFloor {
    pub(super) allow_no_noise: bool,
    pub(super) maximum_internal_epsilon: f64,
    pub(super) maximum_internal_delta: f64,
    pub(super) maximum_result_epsilon: f64,
    pub(super) maximum_result_delta: f64,
}

#[derive(Serialize)]
pub(super) struct DuchyConfiguration {
    pub(super) id: String,
    pub(super) listen: String,
    pub(super) state_dir: PathBuf,
    pub(super) key_encryption_key_file: PathBuf,
    pub(super) allow_simulated_attestation: bool,
    pub(super) noise_floor: NoiseFloor,
    pub(super) tls: Tls,
    pub(super) consent: Consent,
    pub(super) kingdom: Endpoint,
    pub(super) peers: Vec<Peer>,
    pub(super) data_providers: Vec<Peer>,
    pub(super) measurement_consumers: Vec<Peer>,
}

#[derive(Serialize)]
pub(super) struct PublisherConfiguration {
    pub(super) data_provider: String,
    pub(super) events: PathBuf,
    pub(super) spool_dir: PathBuf,
    pub(super) minimum_duchies: usize,
    pub(super) allow_no_noise: bool,
    pub(super) maximum_epsilon: f64,
    pub(super) maximum_delta: f64,
    pub(super) maximum_result_epsilon: f64,
    pub(super) maximum_result_delta: f64,
    pub(super) allow_simulated_attestation: bool,
    #[serde(serialize_with = "names")]
    pub(super) protocols: Vec<ProtocolKind>,
    #[serde(serialize_with = "shown")]
    pub(super) population: Option<Population>,
    pub(super) encryption_private_keyset: &'static str,
    pub(super) consent: KeyPair,
    pub(super) tls: Tls,
    pub(super) kingdom: Endpoint,
    pub(super) duchies: Vec<Peer>,
    pub(super) measurement_consumers: Vec<Peer>,
}

fn names<S: Serializer>(protocols: &[ProtocolKind], serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_seq(protocols.iter().map(|protocol| protocol.name()))
}

fn shown<S: Serializer>(population: &Option<Population>, serializer: S) -> Result<S::Ok, S::Error> {
    population.map(|population| population.to_string()).serialize(serializer)
}
