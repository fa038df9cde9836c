//! The Kingdom's configuration file.

mod keys;
mod protocols;

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use halo_core::resource::{
    CertificateName, CertificateParent, DataProviderName, DuchyId, DuchyName, ExternalId, MeasurementConsumerName,
};
use serde::Deserialize;

use super::Error;
use crate::planner::{Capabilities, Settings};

pub use keys::KEYS;

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
    pub protocols: Settings,
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
    /// What its software can do, where the file says so; only of publishers.
    pub capabilities: Option<Capabilities>,
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
        let sections = protocols::Sections {
            llv2: raw.llv2,
            rollv2: raw.rollv2,
            hmss: raw.hmss,
            hmss_native: raw.hmss_native,
            trustee: raw.trustee,
            direct: raw.direct,
            population: raw.population,
        };
        let protocols = sections.settings()?;
        let mut parties = Vec::new();
        for duchy in raw.duchies {
            let id: DuchyId = duchy.id.parse().map_err(|error| format!("duchies: id: {error}"))?;
            let name = CertificateParent::from(DuchyName::new(id));
            if duchy.encryption_public_key.is_some() {
                return Err(format!("{name}: encryption_public_key: a Duchy has none"));
            }
            duchy.without_capabilities(&name)?;
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
            consumer.without_capabilities(&name)?;
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
            protocols,
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
    llv2: Option<protocols::LiquidLegions>,
    rollv2: Option<protocols::LiquidLegions>,
    hmss: Option<protocols::ShareShuffle>,
    hmss_native: Option<protocols::ShareShuffle>,
    trustee: Option<protocols::Trustee>,
    direct: Option<protocols::Direct>,
    population: Option<protocols::VidRange>,
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
struct Entity {
    id: String,
    display_name: Option<String>,
    root_certificate: PathBuf,
    consent_certificate: ConsentCertificate,
    encryption_public_key: Option<PathBuf>,
    capabilities: Option<Vec<Capability>>,
}

#[derive(Deserialize, Clone, Copy, PartialEq)]
#[serde(rename_all = "kebab-case")]
enum Capability {
    Hmss,
    HmssNative,
    Trustee,
    NoNoise,
    DeterministicNoise,
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

impl Entity {
    fn with_key(self, name: &CertificateParent) -> Result<Self, String> {
        if self.encryption_public_key.is_some() {
            return Ok(self);
        }
        Err(format!("{name}: encryption_public_key: it is required"))
    }

    fn without_capabilities(&self, name: &CertificateParent) -> Result<(), String> {
        if self.capabilities.is_none() {
            return Ok(());
        }
        Err(format!("{name}: capabilities: only publishers have some"))
    }

    fn resolve(self, name: CertificateParent, directory: &Path) -> Result<PartyConfig, String> {
        Ok(PartyConfig {
            display_name: self.display_name.unwrap_or(self.id),
            root_certificate: directory.join(self.root_certificate),
            consent_certificate: CertificateName::new(name.clone(), self.consent_certificate.id),
            consent_certificate_file: directory.join(self.consent_certificate.file),
            encryption_public_key: self.encryption_public_key.map(|file| directory.join(file)),
            capabilities: self.capabilities.map(|can| Capabilities {
                hmss: can.contains(&Capability::Hmss),
                hmss_native: can.contains(&Capability::HmssNative),
                trustee: can.contains(&Capability::Trustee),
                no_noise: can.contains(&Capability::NoNoise),
                deterministic_noise: can.contains(&Capability::DeterministicNoise),
            }),
            name,
        })
    }
}

#[cfg(test)]
mod tests;
