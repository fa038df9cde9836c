//! What lies where below the state directory, and the configuration file of every party.
//!
//! Each organisation's directory holds its own secrets; the others refer to its `root.pem` only.

mod configuration;

use std::{
    fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use halo_core::{
    measurement::{Population, ProtocolKind},
    resource::ExternalId,
};
use halo_crypto::secret::Secret;
use rand_core::CryptoRng;
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use configuration::{
    CertificateFile, Consent, Direct, DuchyConfiguration, Endpoint, Hmss, JointNoise, KeyPair, KingdomConfiguration,
    KingdomEntity, Llv2, NoiseFloor, Peer, Privacy, PublisherConfiguration, Range, Rollv2, SketchNoise, Tls, Trustee,
};

use crate::{
    error::{Context, Error, Result},
    pki::Organisation,
};

/// Size of the space of register keys: two people in one register have equal keys once in so many.
pub const SAMPLING_INDICATOR_SIZE: u64 = 10_000_000;

/// Id of the Duchy that hands in results.
const AGGREGATOR: &str = "aggregator";

/// Modulus of the shares of the reference's share shuffle: the largest prime that a byte holds.
pub const HMSS_RING_MODULUS: u32 = 251;

/// Noise of the measurement and inside the protocol.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct NoiseSettings {
    /// ε of reach, and again of frequency; also of the noises inside the protocol, each.
    pub epsilon: f64,
    /// δ of reach, and again of frequency; also of the noises inside the protocol, each.
    pub delta: f64,
    /// Switches every noise off.
    pub off: bool,
}

/// What is to be set up.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Plan {
    /// Number of Duchies, at least 2; the last one is the aggregator, and the trustee.
    pub duchies: usize,
    /// Publishers' names and their files of impressions.
    pub publishers: Vec<(String, PathBuf)>,
    /// The protocols that the Kingdom may choose from. A share shuffle needs three Duchies and a population, a trustee a
    /// population. Direct measurements are always possible.
    #[serde(with = "as_text")]
    pub protocols: Vec<ProtocolKind>,
    /// The people that there are, where it is known.
    #[serde(skip)]
    pub population: Option<Population>,
    /// Liquid Legions decay rate.
    pub decay_rate: f64,
    /// Liquid Legions size, in registers.
    pub registers: u64,
    /// Noise.
    pub noise: NoiseSettings,
}

/// One party's place: its directory, certificate resource and, for servers, its address.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Party {
    /// Directory below the state directory.
    pub directory: PathBuf,
    /// Resource id; the name for a Duchy, 11 characters for publishers and the consumer, empty for the Kingdom.
    pub id: String,
    /// Id of its consent certificate; empty for the Kingdom.
    pub certificate: String,
    /// `127.0.0.1:port` of a server, empty otherwise.
    pub address: String,
}

/// Every party's place. Written to `layout.json` in the state directory.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Layout {
    /// The state directory.
    #[serde(skip)]
    pub root: PathBuf,
    /// What was set up.
    pub plan: Plan,
    /// The Kingdom.
    pub kingdom: Party,
    /// The Duchies, workers first.
    pub duchies: Vec<Party>,
    /// The publishers, in the order of the plan.
    pub publishers: Vec<Party>,
    /// The measurement consumer.
    pub consumer: Party,
}

/// Name of the file that describes a state directory.
const FILE: &str = "layout.json";

impl Layout {
    /// Makes certificate authorities, keys, directories and configuration files for every party of `plan`.
    ///
    /// # Errors
    /// When the directory already holds a system, or something cannot be written.
    pub fn create(root: &Path, plan: Plan, rng: &mut impl CryptoRng) -> Result<Self> {
        if root.join(FILE).exists() {
            return Err(Error::new(format!(
                "{} already holds a finished or interrupted run; give another --state-dir",
                root.display()
            )));
        }
        fs::create_dir_all(root).context(|| format!("cannot create {}", root.display()))?;
        let root = fs::canonicalize(root).context(|| format!("cannot find {}", root.display()))?;
        let mut ports = free_ports(1 + plan.duchies)?.into_iter().map(|port| format!("127.0.0.1:{port}"));
        let mut next_address = || ports.next().unwrap_or_default();

        let layout = Self {
            kingdom: Party {
                directory: "kingdom".into(),
                id: String::new(),
                certificate: String::new(),
                address: next_address(),
            },
            duchies: (1..=plan.duchies)
                .map(|number| {
                    let id = if number == plan.duchies { AGGREGATOR.into() } else { format!("worker{number}") };
                    Party {
                        directory: Path::new("duchies").join(&id),
                        id,
                        certificate: ExternalId::random(rng).to_string(),
                        address: next_address(),
                    }
                })
                .collect(),
            publishers: plan
                .publishers
                .iter()
                .map(|(name, _)| Party {
                    directory: Path::new("publishers").join(name),
                    id: ExternalId::random(rng).to_string(),
                    certificate: ExternalId::random(rng).to_string(),
                    address: String::new(),
                })
                .collect(),
            consumer: Party {
                directory: "consumer".into(),
                id: ExternalId::random(rng).to_string(),
                certificate: ExternalId::random(rng).to_string(),
                address: String::new(),
            },
            plan,
            root,
        };
        layout.make_organisations(rng)?;
        layout.make_storage_keys(rng)?;
        layout.write()?;
        Ok(layout)
    }

    /// Gives every server another free port and writes all files that name it. Nothing may run meanwhile.
    ///
    /// # Errors
    /// When there are no free ports, or a file cannot be written.
    pub fn move_ports(&mut self) -> Result<()> {
        let ports = free_ports(1 + self.duchies.len())?;
        for (party, port) in std::iter::once(&mut self.kingdom).chain(&mut self.duchies).zip(ports) {
            party.address = format!("127.0.0.1:{port}");
        }
        self.write()
    }

    /// Writes every configuration file, and the description of the state directory.
    fn write(&self) -> Result<()> {
        self.write_configurations()?;
        let text = serde_json::to_string_pretty(self).context(|| "cannot describe the layout".into())?;
        write(&self.root.join(FILE), &text)
    }

    /// Reads the description of a state directory that [`Layout::create`] made.
    ///
    /// # Errors
    /// When there is none, or it cannot be read.
    pub fn open(root: &Path) -> Result<Self> {
        let path = root.join(FILE);
        let text =
            fs::read_to_string(&path).context(|| format!("{} is no state directory of quickstart", root.display()))?;
        let mut layout: Self =
            serde_json::from_str(&text).context(|| format!("{} cannot be understood", path.display()))?;
        layout.root = fs::canonicalize(root).context(|| format!("cannot find {}", root.display()))?;
        Ok(layout)
    }

    /// A file in a party's directory.
    #[must_use]
    pub fn file(&self, party: &Party, name: &str) -> PathBuf {
        self.root.join(&party.directory).join(name)
    }

    /// The configuration file of a server or publisher.
    #[must_use]
    pub fn configuration(&self, party: &Party) -> PathBuf {
        self.file(party, "config.toml")
    }

    fn make_organisations(&self, rng: &mut impl CryptoRng) -> Result<()> {
        for party in std::iter::once(&self.kingdom).chain(&self.duchies) {
            Organisation::create_server(&self.root.join(&party.directory), &display_name(party))?;
        }
        for party in self.publishers.iter().chain(std::iter::once(&self.consumer)) {
            Organisation::create_with_encryption(&self.root.join(&party.directory), &display_name(party), rng)?;
        }
        Ok(())
    }

    /// The keys under which Duchies seal what they store.
    fn make_storage_keys(&self, rng: &mut impl CryptoRng) -> Result<()> {
        for duchy in &self.duchies {
            let mut key = [0; 32];
            rng.fill_bytes(&mut key);
            let text = Secret::new(hex::encode(key));
            key.zeroize();
            write_secret(&self.file(duchy, "kek.hex"), text.expose())?;
        }
        Ok(())
    }

    fn write_configurations(&self) -> Result<()> {
        self.write_configuration(&self.kingdom, &self.kingdom_configuration())?;
        for duchy in &self.duchies {
            self.write_configuration(duchy, &self.duchy_configuration(duchy))?;
        }
        for (publisher, (_, events)) in self.publishers.iter().zip(&self.plan.publishers) {
            self.write_configuration(publisher, &self.publisher_configuration(publisher, events)?)?;
        }
        Ok(())
    }

    fn write_configuration(&self, party: &Party, configuration: &impl Serialize) -> Result<()> {
        let text = toml::to_string_pretty(configuration)
            .context(|| format!("cannot write the configuration of {}", display_name(party)))?;
        write(&self.configuration(party), &text)
    }

    fn root_certificate(&self, party: &Party) -> PathBuf {
        self.file(party, "root.pem")
    }

    fn entity(&self, party: &Party, name: &str) -> KingdomEntity {
        KingdomEntity {
            id: party.id.clone(),
            display_name: Some(name.to_owned()),
            root_certificate: self.root_certificate(party),
            consent_certificate: CertificateFile {
                id: party.certificate.clone(),
                file: self.file(party, "consent.pem"),
            },
            encryption_public_key: Some(self.file(party, "encryption_public_key.bin")),
            capabilities: None,
        }
    }

    fn kingdom_configuration(&self) -> KingdomConfiguration {
        let plan = &self.plan;
        let internal = Privacy { epsilon: plan.noise.epsilon, delta: plan.noise.delta };
        let mechanism = if plan.noise.off { "none" } else { "discrete_gaussian" };
        let joint = JointNoise { noise_mechanism: mechanism, noise_calibration: "exact", honest_contributors: 1 };
        let noise = SketchNoise {
            joint,
            data_provider_noise: internal,
            blinded_histogram_noise: internal,
            noise_for_publisher_noise: internal,
        };
        let share_shuffle = |ring_modulus| Hmss {
            first_worker: self.duchies[0].id.clone(),
            second_worker: self.duchies[1].id.clone(),
            aggregator: AGGREGATOR.into(),
            ring_modulus,
            noise: joint,
        };
        let offered = |protocol| plan.protocols.contains(&protocol).then_some(());
        KingdomConfiguration {
            listen: self.kingdom.address.clone(),
            state_dir: "state".into(),
            tls: Tls::default(),
            population: plan.population.map(|population| Range { first: population.first(), last: population.last() }),
            llv2: offered(ProtocolKind::Llv2).map(|()| Llv2 {
                aggregator: AGGREGATOR.into(),
                minimum_duchies: plan.duchies,
                decay_rate: plan.decay_rate,
                max_size: plan.registers,
                sampling_indicator_size: SAMPLING_INDICATOR_SIZE,
                noise,
            }),
            rollv2: offered(ProtocolKind::Rollv2).map(|()| Rollv2 {
                aggregator: AGGREGATOR.into(),
                minimum_duchies: plan.duchies,
                decay_rate: plan.decay_rate,
                max_size: plan.registers,
                noise,
            }),
            hmss: offered(ProtocolKind::Hmss).map(|()| share_shuffle(Some(HMSS_RING_MODULUS))),
            hmss_native: offered(ProtocolKind::HmssNative).map(|()| share_shuffle(None)),
            trustee: offered(ProtocolKind::Trustee)
                .map(|()| Trustee { duchy: AGGREGATOR.into(), noise_mechanism: mechanism }),
            direct: Direct { noise_mechanisms: vec![mechanism] },
            duchies: self
                .duchies
                .iter()
                .map(|duchy| KingdomEntity {
                    display_name: None,
                    encryption_public_key: None,
                    ..self.entity(duchy, &duchy.id)
                })
                .collect(),
            data_providers: self
                .publishers
                .iter()
                .zip(&plan.publishers)
                .map(|(publisher, (name, _))| KingdomEntity {
                    capabilities: Some(self.capabilities()),
                    ..self.entity(publisher, name)
                })
                .collect(),
            measurement_consumers: vec![self.entity(&self.consumer, "consumer")],
        }
    }

    /// What every publisher here can do. Publishers say it themselves when they begin, which may be after the first
    /// measurement was planned.
    fn capabilities(&self) -> Vec<&'static str> {
        let vectors = self.plan.protocols.iter().filter(|protocol| protocol.uses_vectors());
        vectors.map(|protocol| protocol.name()).chain(self.plan.noise.off.then_some("no-noise")).collect()
    }

    /// No machine that this runs on attests anything: with a trustee, everybody accepts a simulated attestation.
    fn has_trustee(&self) -> bool {
        self.plan.protocols.contains(&ProtocolKind::Trustee)
    }

    fn endpoint(&self, party: &Party) -> Endpoint {
        Endpoint { endpoint: format!("https://{}", party.address), root_certificate: self.root_certificate(party) }
    }

    fn peer(&self, party: &Party) -> Peer {
        let endpoint = if party.address.is_empty() { None } else { Some(format!("https://{}", party.address)) };
        Peer { id: party.id.clone(), endpoint, root_certificate: self.root_certificate(party) }
    }

    fn duchy_configuration(&self, duchy: &Party) -> DuchyConfiguration {
        DuchyConfiguration {
            id: duchy.id.clone(),
            listen: duchy.address.clone(),
            state_dir: "state".into(),
            key_encryption_key_file: "kek.hex".into(),
            allow_simulated_attestation: self.has_trustee(),
            noise_floor: NoiseFloor {
                allow_no_noise: self.plan.noise.off,
                maximum_internal_epsilon: self.plan.noise.epsilon,
                maximum_internal_delta: self.plan.noise.delta,
                maximum_result_epsilon: self.plan.noise.epsilon,
                maximum_result_delta: self.plan.noise.delta,
            },
            tls: Tls::default(),
            consent: Consent {
                certificate: "consent.pem",
                private_key: "consent.key",
                name: format!("duchies/{}/certificates/{}", duchy.id, duchy.certificate),
            },
            kingdom: self.endpoint(&self.kingdom),
            peers: self.duchies.iter().filter(|peer| peer.id != duchy.id).map(|peer| self.peer(peer)).collect(),
            data_providers: self.publishers.iter().map(|publisher| self.peer(publisher)).collect(),
            measurement_consumers: vec![self.peer(&self.consumer)],
        }
    }

    fn publisher_configuration(&self, publisher: &Party, events: &Path) -> Result<PublisherConfiguration> {
        Ok(PublisherConfiguration {
            data_provider: format!("dataProviders/{}", publisher.id),
            events: fs::canonicalize(events).context(|| format!("cannot find {}", events.display()))?,
            spool_dir: "spool".into(),
            minimum_duchies: self.plan.duchies,
            allow_no_noise: self.plan.noise.off,
            maximum_epsilon: self.plan.noise.epsilon,
            maximum_delta: self.plan.noise.delta,
            maximum_result_epsilon: self.plan.noise.epsilon,
            maximum_result_delta: self.plan.noise.delta,
            allow_simulated_attestation: self.has_trustee(),
            protocols: self.plan.protocols.clone(),
            population: self.plan.population,
            tls: Tls::default(),
            encryption_private_keyset: "encryption.keyset",
            consent: KeyPair { certificate: "consent.pem", private_key: "consent.key" },
            kingdom: self.endpoint(&self.kingdom),
            duchies: self.duchies.iter().map(|duchy| self.peer(duchy)).collect(),
            measurement_consumers: vec![self.peer(&self.consumer)],
        })
    }
}

/// Protocols by their names.
mod as_text {
    use halo_core::measurement::ProtocolKind;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    pub(super) fn serialize<S: Serializer>(protocols: &[ProtocolKind], serializer: S) -> Result<S::Ok, S::Error> {
        let names: Vec<&str> = protocols.iter().map(|protocol| protocol.name()).collect();
        names.serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<ProtocolKind>, D::Error> {
        let names = Vec::<String>::deserialize(deserializer)?;
        names.iter().map(|name| name.parse().map_err(D::Error::custom)).collect()
    }
}

/// A name that no other party has: its directory below the state directory.
#[must_use]
pub fn party_name(party: &Party) -> String {
    party.directory.to_string_lossy().into_owned()
}

/// What a party is called in figures: the last part of its directory. A publisher may be called like a server.
#[must_use]
pub fn display_name(party: &Party) -> String {
    party.directory.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Ports that are free now. They are held together while they are looked for, so that they differ.
fn free_ports(count: usize) -> Result<Vec<u16>> {
    let listeners: Vec<TcpListener> = (0..count)
        .map(|_| TcpListener::bind("127.0.0.1:0"))
        .collect::<std::io::Result<_>>()
        .context(|| "cannot find free ports on 127.0.0.1".into())?;
    listeners
        .iter()
        .map(|listener| listener.local_addr().map(|address| address.port()))
        .collect::<std::io::Result<_>>()
        .context(|| "cannot find free ports on 127.0.0.1".into())
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).context(|| format!("cannot write {}", path.display()))
}

/// Writes a file that only its owner can read.
fn write_secret(path: &Path, text: &str) -> Result<()> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .context(|| format!("cannot write {}", path.display()))
}

#[cfg(test)]
mod tests {
    use rand_chacha::ChaCha20Rng;
    use rand_core::SeedableRng;

    use super::*;

    #[test]
    fn ports_move_in_every_file_and_keys_stay() {
        let directory = tempfile::tempdir().unwrap();
        let events = directory.path().join("kingdom.parquet");
        fs::write(&events, "").unwrap();
        let noise = NoiseSettings { epsilon: 1.0, delta: 1e-9, off: false };
        let publishers = vec![("kingdom".to_owned(), events)];
        let protocols = ProtocolKind::ALL.to_vec();
        let population = Some(Population::new(1, 100).unwrap());
        let plan = Plan { duchies: 3, publishers, protocols, population, decay_rate: 12.0, registers: 1_000, noise };
        let root = directory.path().join("state");
        let mut layout = Layout::create(&root, plan.clone(), &mut ChaCha20Rng::from_seed([1; 32])).unwrap();
        assert_ne!(party_name(&layout.publishers[0]), party_name(&layout.kingdom));
        let key = fs::read(layout.file(&layout.duchies[0], "kek.hex")).unwrap();
        let before: Vec<String> =
            std::iter::once(&layout.kingdom).chain(&layout.duchies).map(|party| party.address.clone()).collect();
        // Held, so that they are not chosen again.
        let held: Vec<_> = before.iter().map(|address| TcpListener::bind(address).unwrap()).collect();
        layout.move_ports().unwrap();
        drop(held);
        assert_eq!(fs::read(layout.file(&layout.duchies[0], "kek.hex")).unwrap(), key);
        let parties = std::iter::once(&layout.kingdom).chain(&layout.duchies).chain(&layout.publishers);
        for file in parties.map(|party| layout.configuration(party)).chain([root.join(FILE)]) {
            let text = fs::read_to_string(&file).unwrap();
            assert!(before.iter().all(|address| !text.contains(address)), "{}", file.display());
        }
        assert_eq!(Layout::open(&root).unwrap().kingdom.address, layout.kingdom.address);
        let again = Layout::create(&root, plan, &mut ChaCha20Rng::from_seed([1; 32])).unwrap_err().to_string();
        assert!(again.contains("already holds"), "{again}");
    }
}
