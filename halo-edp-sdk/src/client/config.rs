//! The configuration file of a publisher.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
};

use halo_core::{
    privacy::PrivacyParams,
    resource::{DataProviderName, DuchyId, ExternalId, MeasurementConsumerName},
    transport::Roots,
};
use halo_crypto::consent::x509::TrustRoots;
use serde::Deserialize;

use super::ClientError;
use crate::requisition::Trust;

/// A publisher's configuration: a TOML file. Paths are relative to the file's directory; certificates and keys are PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This publisher's resource name: `dataProviders/{data_provider}`.
    pub data_provider: DataProviderName,
    /// Parquet file of impressions, one row each, with an integer column `vid`. Every requisition is answered from it.
    pub events: PathBuf,
    /// Directory of encrypted bodies that are not yet submitted; created when it is not there.
    pub spool_dir: PathBuf,
    /// How many Duchies must share the key, at least 2: with fewer a requisition is declined. Default: 3.
    #[serde(default = "default_minimum_duchies")]
    pub minimum_duchies: usize,
    /// Whether to answer measurements without any noise. Default: false, they are declined.
    #[serde(default)]
    pub allow_no_noise: bool,
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
    /// publisher's consent key, is what the Kingdom hands out; the consent key itself is not needed to answer.
    pub encryption_private_keyset: PathBuf,
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

const fn default_upload_patience_seconds() -> u64 {
    60
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
        for path in paths.into_iter().chain(duchies).chain(consumers) {
            *path = base.join(&*path);
        }
    }

    /// What a file's values must fulfil beyond their types.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.minimum_duchies < 2 {
            return Err(format!("minimum_duchies must be at least 2, but is {}", self.minimum_duchies));
        }
        self.maximum_noise()?;
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

    /// Reads the roots of everybody who is trusted.
    pub(super) fn trust(&self) -> Result<Trust, ClientError> {
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
            minimum_duchies: self.minimum_duchies,
            allow_no_noise: self.allow_no_noise,
            maximum_noise: self.maximum_noise().map_err(|problem| ClientError::Config { problem })?,
        })
    }
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
