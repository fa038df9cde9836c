//! The configuration file of a publisher.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use halo_core::{
    measurement::{Population, ProtocolKind},
    privacy::PrivacyParams,
    resource::{DataProviderName, DuchyId, ExternalId, MeasurementConsumerName},
    transport::Roots,
};
use halo_crypto::{
    attestation::{AttestationVerifier, SimulatedVerifier},
    consent::x509::TrustRoots,
};
use serde::{Deserialize, Deserializer, de::Error as _};

use super::ClientError;
use crate::requisition::Trust;

/// A publisher's configuration: a TOML file. Paths are relative to the file's directory; certificates and keys are PEM.
///
/// ```
/// # let directory = tempfile::tempdir()?;
/// # let file = directory.path().join("publisher.toml");
/// let text = r#"
/// data_provider = "dataProviders/AAAAAAAAAAE"
/// events = "news.parquet"
/// spool_dir = "spool"
/// encryption_private_keyset = "encryption.keyset"
/// tls = { certificate = "tls.pem", private_key = "tls.key" }
/// kingdom = { endpoint = "https://kingdom.example:8443", root_certificate = "kingdom_root.pem" }
///
/// ## From here to the tables everything has a default.
/// consent = { certificate = "consent.pem", private_key = "consent.key" }
/// protocols = ["llv2", "rollv2", "hmss", "direct"]
/// population = "0..999999"
/// maximum_result_epsilon = 2.0
/// seconds_per_impression = 15
///
/// [[duchies]]
/// id = "aggregator"
/// endpoint = "https://aggregator.example:8443"
/// root_certificate = "aggregator_root.pem"
/// [[duchies]]
/// id = "worker1"
/// endpoint = "https://worker1.example:8443"
/// root_certificate = "worker1_root.pem"
/// [[duchies]]
/// id = "worker2"
/// endpoint = "https://worker2.example:8443"
/// root_certificate = "worker2_root.pem"
///
/// [[measurement_consumers]]
/// id = "AAAAAAAAAAI"
/// root_certificate = "consumer_root.pem"
/// "#;
/// # std::fs::write(&file, text)?;
/// # let config = halo_edp_sdk::client::Config::from_file(&file)?;
/// # assert_eq!((config.minimum_duchies, config.allow_no_noise, config.maximum_population), (3, false, 100_000_000));
/// # assert_eq!(config.population.map(|population| population.size()), Some(1_000_000));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This publisher's resource name: `dataProviders/{data_provider}`.
    pub data_provider: DataProviderName,
    /// Parquet file of impressions, one row each, with an integer column `vid`. Every requisition is answered from it.
    pub events: PathBuf,
    /// Directory of encrypted bodies that are not yet submitted; created when it is not there.
    pub spool_dir: PathBuf,
    /// The protocols that are answered, of `llv2`, `rollv2`, `hmss`, `hmss-native`, `trustee` and `direct`. Default: all
    /// for which the rest of the configuration is enough: what has to be signed needs `consent`, and the trustee an
    /// attestation that is accepted.
    #[serde(default, deserialize_with = "protocols")]
    pub protocols: Option<BTreeSet<ProtocolKind>>,
    /// How many Duchies must take part where several compute together, at least 2: with fewer a requisition is declined.
    /// Default: 3.
    #[serde(default = "default_minimum_duchies")]
    pub minimum_duchies: usize,
    /// Whether to answer measurements without any noise. Default: false, they are declined.
    #[serde(default)]
    pub allow_no_noise: bool,
    /// Whether to accept a trustee whose attestation is simulated: it proves nothing, and its operator can read every
    /// vector. Never where real data are processed. Default: false.
    #[serde(default)]
    pub allow_simulated_attestation: bool,
    /// Whether to accept noise that follows from the data and a secret of the trustee. Default: false.
    #[serde(default)]
    pub allow_deterministic_noise: bool,
    /// The largest ε that the noise of a published number may cost, greater than 0: a measurement that asks for less noise
    /// is declined, whatever its protocol. Default: 10.
    #[serde(default = "default_maximum_result_epsilon")]
    pub maximum_result_epsilon: f64,
    /// The largest δ of the same noise, from 0 to 1. Default: 0.001.
    #[serde(default = "default_maximum_result_delta")]
    pub maximum_result_delta: f64,
    /// The population, `FIRST..LAST`: VIDs that are public. Measurements over another one are declined, and its size is told
    /// to whom asks for it. Default: vectors are over what the Kingdom says, and no size is told.
    #[serde(default, deserialize_with = "population")]
    pub population: Option<Population>,
    /// The largest population that is numbered, for 24 bytes of memory a person. Default: 100000000.
    #[serde(default = "default_maximum_population")]
    pub maximum_population: u64,
    /// How many seconds an impression counts for where durations are asked for and the events have no column `seconds`.
    /// Default: such requisitions stay open.
    #[serde(default)]
    pub seconds_per_impression: Option<u32>,
    /// The largest ε that the noise which hides the size of this publisher's sketch may cost, greater than 0: a
    /// measurement that asks for less noise is declined. Default: 1.
    #[serde(default = "default_maximum_epsilon")]
    pub maximum_epsilon: f64,
    /// The largest δ of the same noise, from 0 to 1. Default: 0.00001.
    #[serde(default = "default_maximum_delta")]
    pub maximum_delta: f64,
    /// An upload on which nothing moves for so many seconds, or up to twice as long, is broken off and goes on with
    /// another attempt; from 1. Default: 60.
    #[serde(default = "default_upload_patience_seconds")]
    pub upload_patience_seconds: u64,
    /// The certificate with which this publisher connects.
    pub tls: TlsConfig,
    /// Cleartext serialized `tink.Keyset` that requisition specs are encrypted to. Its public half, signed with this
    /// publisher's consent key, is what the Kingdom hands out.
    pub encryption_private_keyset: PathBuf,
    /// The consent certificate that the Kingdom hands out for this publisher, and its key: seeds of shares and direct
    /// results are signed with it. Default: none, and the protocols that need it are not answered.
    #[serde(default)]
    pub consent: Option<ConsentConfig>,
    /// Where the Kingdom is.
    pub kingdom: EndpointConfig,
    /// The Duchies that this publisher trusts. A requisition with any other Duchy is refused.
    pub duchies: Vec<DuchyConfig>,
    /// The consumers that this publisher answers.
    pub measurement_consumers: Vec<ConsumerConfig>,
}

/// The certificate with which a publisher connects, and its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, the own certificate first.
    pub certificate: PathBuf,
    /// PKCS#8 key of the first certificate.
    pub private_key: PathBuf,
}

/// The certificate with which a publisher signs, and its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentConfig {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its PKCS#8 key, on P-256.
    pub private_key: PathBuf,
}

/// A server and the root that its certificate comes from.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EndpointConfig {
    /// `https://host:port`.
    pub endpoint: String,
    /// Root certificate of its authority.
    pub root_certificate: PathBuf,
}

/// A trusted Duchy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DuchyConfig {
    /// Its id, such as `worker1`.
    pub id: DuchyId,
    /// `https://host:port` where it takes uploads.
    pub endpoint: String,
    /// Root certificate of its authority, for TLS and for consent signaling.
    pub root_certificate: PathBuf,
}

/// A trusted consumer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsumerConfig {
    /// Its external id: 11 base64url characters.
    pub id: ExternalId,
    /// Root certificate of its authority, for consent signaling.
    pub root_certificate: PathBuf,
}

const fn default_minimum_duchies() -> usize {
    3
}

const fn default_maximum_population() -> u64 {
    Trust::DEFAULT_MAXIMUM_POPULATION
}

/// Reads names of protocols.
fn protocols<'de, D: Deserializer<'de>>(from: D) -> Result<Option<BTreeSet<ProtocolKind>>, D::Error> {
    let names = Vec::<String>::deserialize(from)?;
    names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect::<Result<_, _>>().map(Some)
}

/// Reads `FIRST..LAST`.
fn population<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Population>, D::Error> {
    String::deserialize(from)?.parse().map(Some).map_err(D::Error::custom)
}

const fn default_upload_patience_seconds() -> u64 {
    60
}

const fn default_maximum_result_epsilon() -> f64 {
    10.0
}

const fn default_maximum_result_delta() -> f64 {
    1e-3
}

fn default_maximum_epsilon() -> f64 {
    Trust::default_maximum_noise().epsilon.get()
}

fn default_maximum_delta() -> f64 {
    Trust::default_maximum_noise().delta.get()
}

impl Config {
    /// Reads a file and makes its paths absolute or relative to the working directory.
    ///
    /// # Errors
    /// [`ClientError::Config`] if the file cannot be read, has an unknown key, lacks a key, or a value is out of range.
    pub fn from_file(path: &Path) -> Result<Self, ClientError> {
        let refuse = |problem: String| ClientError::Config { problem: format!("{}: {problem}", path.display()) };
        let text = fs::read_to_string(path).map_err(|error| refuse(format!("cannot be read: {error}")))?;
        let mut config: Self = toml::from_str(&text).map_err(|error| refuse(error.to_string()))?;
        config.resolve(path.parent().unwrap_or_else(|| Path::new("")));
        config.check().map_err(refuse)?;
        Ok(config)
    }

    fn resolve(&mut self, base: &Path) {
        let paths = [
            &mut self.events,
            &mut self.spool_dir,
            &mut self.tls.certificate,
            &mut self.tls.private_key,
            &mut self.encryption_private_keyset,
            &mut self.kingdom.root_certificate,
        ];
        let duchies = self.duchies.iter_mut().map(|duchy| &mut duchy.root_certificate);
        let consumers = self.measurement_consumers.iter_mut().map(|consumer| &mut consumer.root_certificate);
        let consent = self.consent.iter_mut().flat_map(|consent| [&mut consent.certificate, &mut consent.private_key]);
        for path in paths.into_iter().chain(duchies).chain(consumers).chain(consent) {
            *path = base.join(&*path);
        }
    }

    /// What a file's values must fulfil beyond their types.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.minimum_duchies < 2 {
            return Err(format!("minimum_duchies must be at least 2, but is {}", self.minimum_duchies));
        }
        self.maximum_noise()?;
        self.maximum_result()?;
        if self.maximum_population == 0 {
            return Err("maximum_population must be at least 1, but is 0".to_owned());
        }
        for protocol in self.protocols.iter().flatten() {
            if signs(*protocol) && self.consent.is_none() {
                return Err(format!("protocols name {protocol}, whose answers are signed, but there is no consent"));
            }
        }
        if self.upload_patience_seconds == 0 {
            return Err("upload_patience_seconds must be at least 1, but is 0".to_owned());
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.duchies.iter().find(|duchy| !seen.insert(&duchy.id)) {
            return Err(format!("duchies name {} twice", twice.id));
        }
        if self.duchies.len() < self.minimum_duchies {
            let (listed, minimum) = (self.duchies.len(), self.minimum_duchies);
            return Err(format!("duchies are {listed}, fewer than minimum_duchies = {minimum}"));
        }
        let mut seen = BTreeSet::new();
        if let Some(twice) = self.measurement_consumers.iter().find(|consumer| !seen.insert(consumer.id)) {
            return Err(format!("measurement_consumers name {} twice", twice.id));
        }
        Ok(())
    }

    fn maximum_noise(&self) -> Result<PrivacyParams, String> {
        PrivacyParams::new(self.maximum_epsilon, self.maximum_delta)
            .map_err(|error| format!("maximum_epsilon or maximum_delta: {error}"))
    }

    fn maximum_result(&self) -> Result<PrivacyParams, String> {
        PrivacyParams::new(self.maximum_result_epsilon, self.maximum_result_delta)
            .map_err(|error| format!("maximum_result_epsilon or maximum_result_delta: {error}"))
    }

    /// The protocols that are answered.
    pub(super) fn answered_protocols(&self) -> BTreeSet<ProtocolKind> {
        let possible = |protocol: &ProtocolKind| {
            (self.consent.is_some() || !signs(*protocol))
                && (self.allow_simulated_attestation || *protocol != ProtocolKind::Trustee)
        };
        self.protocols.clone().unwrap_or_else(|| ProtocolKind::ALL.into_iter().filter(possible).collect())
    }

    /// Reads the roots of everybody who is trusted. `attestation` decides about trustees; without it, simulated
    /// attestations are accepted or not as the configuration says, and no others are known.
    pub(super) fn trust(&self, attestation: Option<Arc<dyn AttestationVerifier>>) -> Result<Trust, ClientError> {
        let mut consumers = BTreeMap::new();
        for consumer in &self.measurement_consumers {
            consumers.insert(MeasurementConsumerName::new(consumer.id), trust_roots(&consumer.root_certificate)?);
        }
        let mut duchies = BTreeMap::new();
        for duchy in &self.duchies {
            duchies.insert(duchy.id.clone(), trust_roots(&duchy.root_certificate)?);
        }
        Ok(Trust {
            consumers,
            duchies,
            protocols: self.answered_protocols(),
            minimum_duchies: self.minimum_duchies,
            allow_no_noise: self.allow_no_noise,
            allow_deterministic_noise: self.allow_deterministic_noise,
            maximum_noise: self.maximum_noise().map_err(|problem| ClientError::Config { problem })?,
            attestation: attestation
                .unwrap_or_else(|| Arc::new(SimulatedVerifier { allow_simulated: self.allow_simulated_attestation })),
            maximum_result: Some(self.maximum_result().map_err(|problem| ClientError::Config { problem })?),
            population: self.population,
            maximum_population: self.maximum_population,
        })
    }
}

/// Whether answers of this protocol are signed.
const fn signs(protocol: ProtocolKind) -> bool {
    matches!(protocol, ProtocolKind::Hmss | ProtocolKind::HmssNative | ProtocolKind::Direct)
}

/// Reads the roots of one party for consent signaling.
fn trust_roots(path: &Path) -> Result<TrustRoots, ClientError> {
    let roots = Roots::from_pem_files(&[path])?;
    TrustRoots::from_der(roots.certificates().map(<[u8]>::to_vec).collect())
        .map_err(|error| ClientError::Credentials { path: path.to_owned(), problem: error.to_string() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        data_provider = "dataProviders/AAAAAAAAAAE"
        events = "news.parquet"
        spool_dir = "spool"
        minimum_duchies = 2
        tls = { certificate = "tls.pem", private_key = "tls.key" }
        kingdom = { endpoint = "https://localhost:1", root_certificate = "kingdom.pem" }
        encryption_private_keyset = "encryption.keyset"
        [[duchies]]
        id = "worker1"
        endpoint = "https://localhost:2"
        root_certificate = "/elsewhere/w.pem"
        [[duchies]]
        id = "aggregator"
        endpoint = "https://localhost:3"
        root_certificate = "a.pem"
        [[measurement_consumers]]
        id = "AAAAAAAAAAI"
        root_certificate = "c.pem"
    "#;

    fn read(text: &str) -> Result<Config, ClientError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("publisher.toml");
        fs::write(&file, text).unwrap();
        Config::from_file(&file).inspect(|config| assert!(config.spool_dir.starts_with(directory.path())))
    }

    #[test]
    fn defaults_and_relative_paths() {
        let config = read(TEXT).unwrap();
        assert!(!config.allow_no_noise);
        assert_eq!((config.maximum_epsilon, config.maximum_delta), (1.0, 1e-5));
        assert_eq!(config.duchies[0].root_certificate, Path::new("/elsewhere/w.pem"));
        assert!(config.duchies[1].root_certificate.ends_with("a.pem"));
    }

    /// The text with one more line before its tables.
    fn with(line: &str) -> String {
        format!("{line}\n{TEXT}")
    }

    #[test]
    fn protocols_follow_from_what_can_be_signed_and_is_allowed() {
        use ProtocolKind::{Direct, Hmss, HmssNative, Llv2, Rollv2, Trustee};
        let consent = "consent = { certificate = \"consent.pem\", private_key = \"/elsewhere/consent.key\" }";
        let answered = |text: &str| read(text).unwrap().answered_protocols();
        assert_eq!(answered(TEXT), [Llv2, Rollv2].into());
        assert_eq!(answered(&with(consent)), [Llv2, Rollv2, Hmss, HmssNative, Direct].into());
        assert_eq!(answered(&with("allow_simulated_attestation = true")), [Llv2, Rollv2, Trustee].into());
        assert_eq!(answered(&with(&format!("{consent}\nprotocols = [\"direct\"]"))), [Direct].into());
        let config = read(&with(&format!("{consent}\nmaximum_result_epsilon = 2.0"))).unwrap();
        let consent = config.consent.as_ref().unwrap();
        assert!(consent.certificate.is_absolute() && consent.private_key == Path::new("/elsewhere/consent.key"));
        let most = config.maximum_result().unwrap();
        assert_eq!((most.epsilon.get(), most.delta.get()), (2.0, 1e-3));
        assert_eq!(read(TEXT).unwrap().maximum_result(), Ok(PrivacyParams::new(10.0, 1e-3).unwrap()));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (TEXT.replace("events", "event"), "event"),
            (TEXT.replace("minimum_duchies = 2", "minimum_duchies = 1"), "at least 2"),
            (TEXT.replace("minimum_duchies = 2", ""), "fewer than minimum_duchies = 3"),
            (
                TEXT.replace("minimum_duchies = 2", "minimum_duchies = 2\nmaximum_epsilon = 0.0"),
                "epsilon must be a finite",
            ),
            (
                TEXT.replace("minimum_duchies = 2", "minimum_duchies = 2\nmaximum_delta = 1.5"),
                "delta must be at least 0",
            ),
            (with("protocols = [\"llv3\"]"), "hmss-native"),
            (with("protocols = [\"llv2\", \"hmss\"]"), "protocols name hmss, whose answers are signed"),
            (with("population = \"9..3\""), "FIRST..LAST"),
            (with("maximum_population = 0"), "maximum_population must be at least 1"),
            (with("maximum_result_epsilon = -1.0"), "maximum_result_epsilon or maximum_result_delta: epsilon"),
            (with("maximum_result_delta = 2.0"), "maximum_result_epsilon or maximum_result_delta: delta"),
            (with("consent = { certificate = \"consent.pem\" }"), "private_key"),
            (TEXT.replace("\"aggregator\"", "\"worker1\""), "worker1 twice"),
            (TEXT.replace("\"worker1\"", "\"Worker\""), "Duchy id"),
            (TEXT.replace("dataProviders/", "publishers/"), "dataProviders"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains("publisher.toml"), "{error}");
        }
        assert!(Config::from_file(Path::new("/nowhere/p.toml")).unwrap_err().to_string().contains("/nowhere/p.toml"));
    }
}
