//! The configuration file of a Duchy.

use std::fs;
use std::path::{Path, PathBuf};

use halo_core::resource::DuchyId;
use serde::Deserialize;
use thiserror::Error;

/// Every key of the configuration file, as `--help` shows them.
pub const KEYS: &str = r#"The configuration is a TOML file. Relative paths start at its directory; certificates and keys are PEM files.

id = "worker1"                          this Duchy: 1 to 63 of a-z, 0-9 and -, the first a letter
listen = "127.0.0.1:8444"               address and port to serve on
state_dir = "state"                     directory of the database duchy.sqlite, the bodies (blobs, spool) and the files of
                                        the step that is being computed (work); one process at a time
key_encryption_key_file = "kek.hex"     keys of 64 hexadecimal digits, one a line: secrets at rest are sealed under the first
                                        and opened with any; without it the environment variable HALO_DUCHY_KEK holds them.
                                        To rotate, put a new key in the first line and restart: all is sealed anew at once
memory_budget_mib = 512                 memory of the whole process for bodies up to 8 GiB, 192 to 65536; default 512; more
                                        than 384 is not used
retention_days = 90                     how long a computation that is over is remembered, 1 to 3650; default 90
maximum_body_mib = 65536                the largest upload or delivery that is accepted; default 65536
allow_simulated_attestation = false     whether to compute as a trustee with an attestation that proves nothing: never where
                                        real data are processed; default false
noise_key_file = "noise.hex"            64 hexadecimal digits: the secret from which a trustee's deterministic noise follows,
                                        the same for as long as noise is to repeat; needed for nothing else
lease_seconds = 60                      how long a worker may be silent before another takes its computation over, 3 to
                                        86400; default 60

[noise_floor]                           the least noise with which this Duchy takes part; these are the defaults
allow_no_noise = false                  whether to take part in measurements without any noise
allow_reference_calibration = false     whether to take part with the reference's calibration, which proves less
maximum_internal_epsilon = 10.0         the largest epsilon of a noise inside the protocol
maximum_internal_delta = 0.001          the largest delta of it
maximum_result_epsilon = 10.0           the largest epsilon that a consumer may ask for, of reach and of frequency each
maximum_result_delta = 0.001            the largest delta of it
maximum_honest_contributors = 1         how many Duchies' noise may be relied on together

[tls]                                   with what this Duchy shows itself, as server and as client
certificate = "tls.pem"                 certificate chain, its own certificate first
private_key = "tls.key"                 PKCS#8 key of it

[consent]                               with what this Duchy signs keys and results
certificate = "consent.pem"             X.509 certificate
private_key = "consent.key"             PKCS#8 key of it, P-256
name = "duchies/worker1/certificates/AAAAAAAAAAE"    its resource name at the Kingdom

[kingdom]
endpoint = "https://localhost:8443"     https://host:port
root_certificate = "kingdom/root.pem"   root of the certificate that it shows

[[peers]]                               one table for each other Duchy
id = "worker2"
endpoint = "https://localhost:8445"
root_certificate = "worker2/root.pem"   root of the certificates with which it connects and signs

[[data_providers]]                      one table for each publisher whose uploads are accepted
id = "AAAAAAAAAAI"                      11 base64url characters, as in dataProviders/{id}
root_certificate = "news/root.pem"

[[measurement_consumers]]               one table for each consumer whose measurements are computed
id = "AAAAAAAAAAQ"                      11 base64url characters, as in measurementConsumers/{id}
root_certificate = "brand/root.pem"

The log goes to the standard error stream; RUST_LOG sets what is logged (default: info)."#;

/// What is wrong with a configuration file.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{path} cannot be read: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The file is not the TOML that is expected.
    #[error("{path} is not a Duchy's configuration: {source}")]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A value cannot be used.
    #[error("{path}: {key} {problem}")]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong, and what would be right.
        problem: String,
    },
}

/// One Duchy's configuration: a TOML file. Paths are relative to the file's directory; certificates and keys are PEM.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// This Duchy's id, such as `worker1`.
    #[serde(deserialize_with = "duchy_id")]
    pub id: DuchyId,
    /// Address and port to listen on, such as `127.0.0.1:8444`.
    pub listen: String,
    /// Directory of the database, the blobs, partial bodies and working files. One process at a time.
    pub state_dir: PathBuf,
    /// File with keys of 64 hexadecimal digits, one a line: secrets at rest are sealed under the first, and opened with any.
    /// Without it the environment variable `HALO_DUCHY_KEK` holds them.
    pub key_encryption_key_file: Option<PathBuf>,
    /// The least noise with which this Duchy takes part.
    #[serde(default)]
    pub noise_floor: NoiseFloor,
    /// How long a computation that is over is remembered, in days, 1 to 3650. Default: 90.
    #[serde(default = "default_retention_days")]
    pub retention_days: u64,
    /// Memory of the whole process, in MiB, 192 to 65536, for bodies up to 8 GiB (buckets of shuffles and joins grow
    /// beyond, to a 512th of the body). Less than 384 makes chunks smaller; more is not used. Default: 512.
    #[serde(default = "default_memory_budget_mib")]
    pub memory_budget_mib: u64,
    /// The largest body that is accepted, in MiB. Default: 65536.
    #[serde(default = "default_maximum_body_mib")]
    pub maximum_body_mib: u64,
    /// Whether to compute as a trustee with an attestation that proves nothing: never where real data are processed.
    /// Default: false.
    #[serde(default)]
    pub allow_simulated_attestation: bool,
    /// File with 64 hexadecimal digits: the secret from which a trustee's deterministic noise follows, the same for as long
    /// as noise is to repeat. Needed for nothing else.
    pub noise_key_file: Option<PathBuf>,
    /// How long a worker may be silent before another one takes its computation over, in seconds. Default: 60.
    #[serde(default = "default_lease_seconds")]
    pub lease_seconds: u64,
    /// The certificate with which this Duchy serves and calls.
    pub tls: TlsConfig,
    /// The certificate with which this Duchy signs keys and results.
    pub consent: ConsentConfig,
    /// Where the Kingdom is.
    pub kingdom: EndpointConfig,
    /// The other Duchies.
    #[serde(default)]
    pub peers: Vec<PeerConfig>,
    /// The publishers whose uploads are accepted.
    #[serde(default)]
    pub data_providers: Vec<PartyConfig>,
    /// The consumers whose measurements are computed.
    #[serde(default)]
    pub measurement_consumers: Vec<PartyConfig>,
}

/// The least noise with which a Duchy takes part. The Kingdom chooses the noise inside the protocol, and no consumer
/// signs it; the consumer chooses and signs the noise of the result.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct NoiseFloor {
    /// Whether to take part in measurements without any noise. Default: false.
    pub allow_no_noise: bool,
    /// Whether to take part with the reference's calibration. Default: false.
    pub allow_reference_calibration: bool,
    /// The largest ε of a noise inside the protocol. Default: 10.
    pub maximum_internal_epsilon: f64,
    /// The largest δ of a noise inside the protocol. Default: 0.001.
    pub maximum_internal_delta: f64,
    /// The largest ε that a consumer may ask for where there is noise, of reach and of frequency each. Default: 10.
    pub maximum_result_epsilon: f64,
    /// The largest δ that a consumer may ask for where there is noise, of reach and of frequency each. Default: 0.001.
    pub maximum_result_delta: f64,
    /// How many Duchies' noise may be relied on together. Default: 1, whoever is the only honest one suffices.
    pub maximum_honest_contributors: u32,
}

impl Default for NoiseFloor {
    fn default() -> Self {
        Self {
            allow_no_noise: false,
            allow_reference_calibration: false,
            maximum_internal_epsilon: 10.0,
            maximum_internal_delta: 1e-3,
            maximum_result_epsilon: 10.0,
            maximum_result_delta: 1e-3,
            maximum_honest_contributors: 1,
        }
    }
}

/// A certificate chain and its key.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Certificate chain, the own certificate first.
    pub certificate: PathBuf,
    /// PKCS#8 key of the first certificate.
    pub private_key: PathBuf,
}

/// The certificate for consent signaling.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConsentConfig {
    /// X.509 certificate.
    pub certificate: PathBuf,
    /// PKCS#8 key, P-256.
    pub private_key: PathBuf,
    /// Resource name at the Kingdom: `duchies/{duchy}/certificates/{certificate}`.
    pub name: String,
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

/// Another Duchy.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PeerConfig {
    /// Its id.
    #[serde(deserialize_with = "duchy_id")]
    pub id: DuchyId,
    /// `https://host:port`.
    pub endpoint: String,
    /// Root certificate of its authority, for TLS and for consent signaling.
    pub root_certificate: PathBuf,
}

/// A publisher or a consumer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PartyConfig {
    /// Its external id: 11 base64url characters.
    pub id: String,
    /// Root certificate of its authority, for TLS and for consent signaling.
    pub root_certificate: PathBuf,
}

const fn default_retention_days() -> u64 {
    90
}

const fn default_memory_budget_mib() -> u64 {
    512
}

const fn default_maximum_body_mib() -> u64 {
    65_536
}

const fn default_lease_seconds() -> u64 {
    60
}

fn duchy_id<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<DuchyId, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

impl Config {
    /// Reads a file and makes its paths absolute or relative to the working directory.
    ///
    /// # Errors
    /// If the file cannot be read, has an unknown key, lacks a key, or a value is out of range; the error names it.
    pub fn from_file(path: &Path) -> Result<Self, ConfigError> {
        let text = fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let mut config: Self = toml::from_str(&text)
            .map_err(|source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) })?;
        config.resolve(path.parent().unwrap_or_else(|| Path::new("")));
        config.check(path)?;
        Ok(config)
    }

    fn resolve(&mut self, base: &Path) {
        let paths = [
            &mut self.state_dir,
            &mut self.tls.certificate,
            &mut self.tls.private_key,
            &mut self.consent.certificate,
            &mut self.consent.private_key,
            &mut self.kingdom.root_certificate,
        ];
        let peers = self.peers.iter_mut().map(|peer| &mut peer.root_certificate);
        let parties = self.data_providers.iter_mut().chain(&mut self.measurement_consumers);
        let roots = parties.map(|party| &mut party.root_certificate);
        let keys = self.key_encryption_key_file.iter_mut().chain(&mut self.noise_key_file);
        for path in paths.into_iter().chain(keys).chain(peers).chain(roots) {
            *path = base.join(&*path);
        }
    }

    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let refuse = |key, problem: String| Err(ConfigError::Value { path: path.to_owned(), key, problem });
        if !(192..=65_536).contains(&self.memory_budget_mib) {
            return refuse("memory_budget_mib", format!("must be 192 to 65536, but is {}", self.memory_budget_mib));
        }
        if !(1..=3650).contains(&self.retention_days) {
            return refuse("retention_days", format!("must be 1 to 3650, but is {}", self.retention_days));
        }
        let floor = &self.noise_floor;
        for (epsilon, delta) in [
            (floor.maximum_internal_epsilon, floor.maximum_internal_delta),
            (floor.maximum_result_epsilon, floor.maximum_result_delta),
        ] {
            if !(epsilon > 0.0 && epsilon.is_finite() && delta > 0.0 && delta <= 1.0) {
                return refuse(
                    "noise_floor",
                    format!("has the maxima ({epsilon}, {delta}); ε must be above 0, δ in (0, 1]"),
                );
            }
        }
        if !(1..=1 << 30).contains(&self.maximum_body_mib) {
            return refuse("maximum_body_mib", format!("must be 1 to 2^30, but is {}", self.maximum_body_mib));
        }
        if !(3..=86_400).contains(&self.lease_seconds) {
            return refuse("lease_seconds", format!("must be 3 to 86400, but is {}", self.lease_seconds));
        }
        let mut ids: Vec<&DuchyId> = self.peers.iter().map(|peer| &peer.id).chain([&self.id]).collect();
        ids.sort();
        if let Some(pair) = ids.windows(2).find(|pair| pair[0] == pair[1]) {
            return refuse("peers", format!("name {} twice; the Duchy itself is not its own peer", pair[0]));
        }
        if !self.consent.name.starts_with(&format!("duchies/{}/certificates/", self.id)) {
            return refuse(
                "consent.name",
                format!("must be duchies/{}/certificates/{{id}}, but is {}", self.id, self.consent.name),
            );
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"
        id = "worker1"
        listen = "127.0.0.1:0"
        state_dir = "state"
        tls = { certificate = "tls.pem", private_key = "tls.key" }
        consent = { certificate = "c.pem", private_key = "c.key", name = "duchies/worker1/certificates/AAAAAAAAAAE" }
        kingdom = { endpoint = "https://localhost:1", root_certificate = "kingdom.pem" }
        [[peers]]
        id = "aggregator"
        endpoint = "https://localhost:2"
        root_certificate = "/elsewhere/a.pem"
    "#;

    fn read(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("duchy.toml");
        fs::write(&file, text).unwrap();
        Config::from_file(&file).inspect(|config| assert!(config.state_dir.starts_with(directory.path())))
    }

    #[test]
    fn defaults_and_relative_paths() {
        let config = read(TEXT).unwrap();
        assert_eq!(config.noise_floor, NoiseFloor::default());
        assert_eq!(config.memory_budget_mib, 512);
        assert_eq!(config.peers[0].root_certificate, Path::new("/elsewhere/a.pem"));
    }

    #[test]
    fn the_help_explains_every_key() {
        let config = toml::from_str::<Config>(
            &KEYS[KEYS.find("id =").unwrap()..KEYS.find("The log").unwrap()]
                .lines()
                // The explanations begin two spaces after the values.
                .map(|line| line.split("  ").next().unwrap())
                .collect::<Vec<_>>()
                .join("\n"),
        );
        let config = config.unwrap();
        assert_eq!((config.memory_budget_mib, config.maximum_body_mib, config.lease_seconds), (512, 65_536, 60));
    }

    #[test]
    fn mistakes_are_named() {
        for (text, expected) in [
            (TEXT.replace("listen", "lisen"), "lisen"),
            (TEXT.replace("id = \"aggregator\"", "id = \"worker1\""), "worker1 twice"),
            (TEXT.replace("duchies/worker1/", "duchies/worker2/"), "consent.name"),
            (TEXT.replace("id = \"worker1\"", "id = \"Worker\""), "Duchy id"),
            (format!("memory_budget_mib = 1\n{TEXT}"), "memory_budget_mib"),
        ] {
            let error = read(&text).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
    }
}
