//! The parties' configuration files, as the servers and the SDK document them.

use std::path::PathBuf;

use serde::Serialize;

#[derive(Serialize)]
pub(super) struct KingdomConfiguration {
    pub(super) listen: String,
    pub(super) state_dir: PathBuf,
    pub(super) tls: Tls,
    pub(super) llv2: Llv2,
    pub(super) duchies: Vec<KingdomEntity>,
    pub(super) data_providers: Vec<KingdomEntity>,
    pub(super) measurement_consumers: Vec<KingdomEntity>,
}

#[derive(Serialize)]
pub(super) struct Llv2 {
    pub(super) aggregator: String,
    pub(super) minimum_duchies: usize,
    pub(super) decay_rate: f64,
    pub(super) max_size: u64,
    pub(super) sampling_indicator_size: u64,
    pub(super) noise_mechanism: &'static str,
    pub(super) noise_calibration: &'static str,
    pub(super) honest_contributors: u32,
    pub(super) data_provider_noise: Privacy,
    pub(super) blinded_histogram_noise: Privacy,
    pub(super) noise_for_publisher_noise: Privacy,
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
}

#[derive(Serialize)]
pub(super) struct DuchyConfiguration {
    pub(super) id: String,
    pub(super) listen: String,
    pub(super) state_dir: PathBuf,
    pub(super) key_encryption_key_file: PathBuf,
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
    pub(super) encryption_private_keyset: &'static str,
    pub(super) tls: Tls,
    pub(super) kingdom: Endpoint,
    pub(super) duchies: Vec<Peer>,
    pub(super) measurement_consumers: Vec<Peer>,
}
