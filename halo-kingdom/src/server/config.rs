//! The Kingdom's configuration file.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use halo_core::{
    measurement::{LiquidLegionsNoise, Llv2Config},
    privacy::{NoiseCalibration, NoiseMechanism, PrivacyParams},
    resource::{
        CertificateName, CertificateParent, DataProviderName, DuchyId, DuchyName, ExternalId, MeasurementConsumerName,
    },
};
use serde::Deserialize;

use super::Error;
use crate::planner::Llv2Settings;

/// What every key means; shown by `--help`.
pub const KEYS: &str = r#"The configuration is a TOML file. Relative paths start at its directory; certificates and keys are PEM files.

listen = "127.0.0.1:8443"               address and port to serve on
state_dir = "state"                     directory of the database kingdom.sqlite; a file lock keeps it to one process
measurement_deadline_seconds = 604800   a measurement that has not ended by then is cancelled, unless it brings its own
                                        deadline; default 604800, seven days
maximum_deadline_seconds = 2592000      the longest time that a measurement may take, whatever deadline it brings;
                                        default 2592000, thirty days

[tls]                                   with what the Kingdom shows itself
certificate = "tls.pem"                 certificate chain, its own certificate first
private_key = "tls.key"                 private key of it

[llv2]                                  how measurements are planned for Liquid Legions v2
aggregator = "aggregator"               id of the Duchy that hands in results
minimum_duchies = 3                     fewer Duchies than this are refused at start; default 2
decay_rate = 12.0                       shape of the sketches: above 1, at most 36; default 12
max_size = 100000                       number of registers of a sketch; default 100000
sampling_indicator_size = 10000000      number of different register keys; default 10000000
noise_mechanism = "discrete_gaussian"   or "geometric", or "none": no noise anywhere, which publishers and Duchies must
                                        allow themselves too; default discrete_gaussian
noise_calibration = "exact"             or "reference"; default exact
honest_contributors = 1                 so many Duchies' noise alone must be enough; default 1
data_provider_noise = { epsilon = 1.0, delta = 1e-9 }        hides the size of a publisher's sketch
blinded_histogram_noise = { epsilon = 1.0, delta = 1e-9 }    hides how many publishers share a register
noise_for_publisher_noise = { epsilon = 1.0, delta = 1e-9 }  hides the publishers' own noise
                                        the three noises are required unless noise_mechanism is "none"

[[duchies]]                             one table for each Duchy
id = "worker1"                          1 to 63 of a-z, 0-9 and -, the first a letter
root_certificate = "worker1/root.pem"   root of the certificates with which it connects and signs
consent_certificate = { id = "AAAAAAAAAAE", file = "worker1/consent.pem" }
                                        with what it signs; the id, 11 base64url characters, is the one of
                                        duchies/{duchy}/certificates/{id}

[[data_providers]]                      one table for each publisher
id = "AAAAAAAAAAI"                      11 base64url characters, as in dataProviders/{id}
display_name = "news"                   a name for people; default: the id
root_certificate = "news/root.pem"
consent_certificate = { id = "AAAAAAAAAAM", file = "news/consent.pem" }
encryption_public_key = "news/key.bin"  serialized SignedMessage of its EncryptionPublicKey, which the consent
                                        certificate verifies

[[measurement_consumers]]               one table for each consumer, with the same keys as a publisher's

At each start, parties that are new or whose entry has changed are stored; removed ones cannot connect any more, and
no new measurement can name them. Certificates and keys that a party has changed through the API are kept until its
entry names another root, certificate or key.
The log goes to the standard error stream; RUST_LOG sets what is logged (default: info)."#;

/// A Kingdom's configuration. Paths are absolute or relative to the working directory.
#[derive(Clone, Debug)]
pub struct Config {
    /// Address and port to serve on.
    pub listen: String,
    /// Directory of the database.
    pub state_dir: PathBuf,
    /// How long a measurement may take that brings no deadline.
    pub measurement_deadline: Duration,
    /// The longest time that a measurement may take, whatever deadline it brings.
    pub maximum_deadline: Duration,
    /// PEM file of the Kingdom's certificate chain.
    pub tls_certificate: PathBuf,
    /// PEM file of its private key.
    pub tls_private_key: PathBuf,
    /// How measurements are planned.
    pub llv2: Llv2Settings,
    /// Everybody who may connect.
    pub parties: Vec<PartyConfig>,
}

/// One organisation.
#[derive(Clone, Debug)]
pub struct PartyConfig {
    /// Resource name.
    pub name: CertificateParent,
    /// A name for people.
    pub display_name: String,
    /// PEM file of the root of its certificates.
    pub root_certificate: PathBuf,
    /// Resource name of its consent certificate.
    pub consent_certificate: CertificateName,
    /// PEM file of its consent certificate.
    pub consent_certificate_file: PathBuf,
    /// File of the serialized `SignedMessage` of its `EncryptionPublicKey`; Duchies have none.
    pub encryption_public_key: Option<PathBuf>,
}

impl Config {
    /// Reads a TOML file; [`KEYS`] tells what is in it.
    ///
    /// # Errors
    /// [`Error::Read`] or [`Error::Configuration`].
    pub fn load(file: &Path) -> Result<Self, Error> {
        let text = fs::read_to_string(file).map_err(|source| Error::Read { file: file.to_owned(), source })?;
        let directory = file.parent().unwrap_or(Path::new(""));
        Self::parse(&text, directory).map_err(|detail| Error::Configuration { file: file.to_owned(), detail })
    }

    fn parse(text: &str, directory: &Path) -> Result<Self, String> {
        let raw: File = toml::from_str(text).map_err(|error| error.to_string())?;
        let llv2 = raw.llv2.settings()?;
        let mut parties = Vec::new();
        for duchy in raw.duchies {
            let id: DuchyId = duchy.id.parse().map_err(|error| format!("duchies: id: {error}"))?;
            let name = CertificateParent::from(DuchyName::new(id));
            if duchy.encryption_public_key.is_some() {
                return Err(format!("{name}: encryption_public_key: a Duchy has none"));
            }
            parties.push(duchy.resolve(name, directory)?);
        }
        for publisher in raw.data_providers {
            let id: ExternalId = publisher.id.parse().map_err(|error| format!("data_providers: id: {error}"))?;
            let name = CertificateParent::from(DataProviderName::new(id));
            parties.push(publisher.with_key(&name)?.resolve(name, directory)?);
        }
        for consumer in raw.measurement_consumers {
            let id: ExternalId = consumer.id.parse().map_err(|error| format!("measurement_consumers: id: {error}"))?;
            let name = CertificateParent::from(MeasurementConsumerName::new(id));
            parties.push(consumer.with_key(&name)?.resolve(name, directory)?);
        }
        let mut names: Vec<&CertificateParent> = parties.iter().map(|party| &party.name).collect();
        names.sort_unstable();
        if let Some(twice) = names.windows(2).find(|pair| pair[0] == pair[1]) {
            return Err(format!("{} is there twice", twice[0]));
        }
        if raw.measurement_deadline_seconds == 0 {
            return Err("measurement_deadline_seconds: it is 0; no measurement could ever end".into());
        }
        if raw.maximum_deadline_seconds < raw.measurement_deadline_seconds {
            return Err(format!(
                "maximum_deadline_seconds: it is {}, less than measurement_deadline_seconds, which is {}",
                raw.maximum_deadline_seconds, raw.measurement_deadline_seconds
            ));
        }
        Ok(Self {
            listen: raw.listen,
            state_dir: directory.join(raw.state_dir),
            measurement_deadline: Duration::from_secs(raw.measurement_deadline_seconds),
            maximum_deadline: Duration::from_secs(raw.maximum_deadline_seconds),
            tls_certificate: directory.join(raw.tls.certificate),
            tls_private_key: directory.join(raw.tls.private_key),
            llv2,
            parties,
        })
    }

    /// Ids of the configured Duchies.
    pub fn duchies(&self) -> impl Iterator<Item = DuchyId> {
        self.parties.iter().filter_map(|party| match &party.name {
            CertificateParent::Duchy(name) => Some(name.duchy.clone()),
            _ => None,
        })
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    listen: String,
    state_dir: PathBuf,
    #[serde(default = "seven_days")]
    measurement_deadline_seconds: u64,
    #[serde(default = "thirty_days")]
    maximum_deadline_seconds: u64,
    tls: Tls,
    llv2: Llv2,
    #[serde(default)]
    duchies: Vec<Entity>,
    #[serde(default)]
    data_providers: Vec<Entity>,
    #[serde(default)]
    measurement_consumers: Vec<Entity>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Tls {
    certificate: PathBuf,
    private_key: PathBuf,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Llv2 {
    aggregator: String,
    #[serde(default = "two")]
    minimum_duchies: usize,
    #[serde(default = "twelve")]
    decay_rate: f64,
    #[serde(default = "hundred_thousand")]
    max_size: u64,
    #[serde(default = "ten_million")]
    sampling_indicator_size: u64,
    #[serde(default)]
    noise_mechanism: Mechanism,
    #[serde(default)]
    noise_calibration: Calibration,
    #[serde(default = "one")]
    honest_contributors: u32,
    data_provider_noise: Option<Privacy>,
    blinded_histogram_noise: Option<Privacy>,
    noise_for_publisher_noise: Option<Privacy>,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Mechanism {
    #[default]
    DiscreteGaussian,
    Geometric,
    None,
}

#[derive(Deserialize, Default)]
#[serde(rename_all = "snake_case")]
enum Calibration {
    #[default]
    Exact,
    Reference,
}

#[derive(Deserialize, Clone, Copy)]
#[serde(deny_unknown_fields)]
struct Privacy {
    epsilon: f64,
    delta: f64,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entity {
    id: String,
    display_name: Option<String>,
    root_certificate: PathBuf,
    consent_certificate: ConsentCertificate,
    encryption_public_key: Option<PathBuf>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ConsentCertificate {
    id: ExternalId,
    file: PathBuf,
}

const fn seven_days() -> u64 {
    7 * 24 * 60 * 60
}

const fn thirty_days() -> u64 {
    30 * 24 * 60 * 60
}

const fn two() -> usize {
    2
}

const fn one() -> u32 {
    1
}

const fn twelve() -> f64 {
    12.0
}

const fn hundred_thousand() -> u64 {
    100_000
}

const fn ten_million() -> u64 {
    10_000_000
}

impl Llv2 {
    fn settings(&self) -> Result<Llv2Settings, String> {
        let mechanism = match self.noise_mechanism {
            Mechanism::DiscreteGaussian => Some(NoiseMechanism::DiscreteGaussian),
            Mechanism::Geometric => Some(NoiseMechanism::Geometric),
            Mechanism::None => None,
        };
        let noise = match mechanism {
            Some(mechanism) => Some(LiquidLegionsNoise {
                mechanism,
                calibration: match self.noise_calibration {
                    Calibration::Exact => NoiseCalibration::Exact,
                    Calibration::Reference => NoiseCalibration::Reference,
                },
                honest_contributors: self.honest_contributors,
                data_provider: privacy("data_provider_noise", self.data_provider_noise)?,
                blinded_histogram: privacy("blinded_histogram_noise", self.blinded_histogram_noise)?,
                for_publisher_noise: privacy("noise_for_publisher_noise", self.noise_for_publisher_noise)?,
            }),
            None => None,
        };
        let protocol = Llv2Config {
            aggregator: self.aggregator.parse().map_err(|error| format!("llv2.aggregator: {error}"))?,
            decay_rate: self.decay_rate,
            max_size: self.max_size,
            sampling_indicator_size: self.sampling_indicator_size,
            noise,
        };
        Ok(Llv2Settings { protocol, minimum_duchies: self.minimum_duchies })
    }
}

fn privacy(key: &str, given: Option<Privacy>) -> Result<PrivacyParams, String> {
    let given = given.ok_or_else(|| format!("llv2.{key}: it is required unless noise_mechanism is \"none\""))?;
    let params = PrivacyParams::new(given.epsilon, given.delta).and_then(PrivacyParams::for_protocol_noise);
    params.map_err(|error| format!("llv2.{key}: {error}"))
}

impl Entity {
    fn with_key(self, name: &CertificateParent) -> Result<Self, String> {
        if self.encryption_public_key.is_some() {
            return Ok(self);
        }
        Err(format!("{name}: encryption_public_key: it is required"))
    }

    fn resolve(self, name: CertificateParent, directory: &Path) -> Result<PartyConfig, String> {
        Ok(PartyConfig {
            display_name: self.display_name.unwrap_or(self.id),
            root_certificate: directory.join(self.root_certificate),
            consent_certificate: CertificateName::new(name.clone(), self.consent_certificate.id),
            consent_certificate_file: directory.join(self.consent_certificate.file),
            encryption_public_key: self.encryption_public_key.map(|file| directory.join(file)),
            name,
        })
    }
}

#[cfg(test)]
mod tests {
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
            (
                r#"state_dir = "state""#,
                "state_dir = \"s\"\nmaximum_deadline_seconds = 604799",
                "maximum_deadline_seconds",
            ),
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
}
