//! Who is who: the parties of the configuration, by the certificate authority that speaks for each.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use halo_core::resource::{
    CertificateName, CertificateParent, DataProviderName, DuchyId, DuchyName, MeasurementConsumerName,
};
use halo_core::transport::{Client, Identity, Roots, caller_key_id, subject_key_id};
use halo_crypto::consent::x509::{Certificate, SigningKey, TrustRoots};
use tokio::sync::Mutex;
use tonic::transport::Channel;
use tonic::{Request, Status};

use super::config::{Config, ConsentConfig};
use super::error::Error;

/// A party that may call this Duchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Caller {
    /// A publisher.
    DataProvider(DataProviderName),
    /// Another Duchy.
    Duchy(DuchyId),
}

/// A connection that is made when it is needed and kept.
#[derive(Debug)]
pub(crate) struct Link {
    client: Client,
    channel: Mutex<Option<Channel>>,
}

impl Link {
    fn new(client: Client) -> Self {
        Self { client, channel: Mutex::new(None) }
    }

    /// Where it leads.
    pub(crate) fn endpoint(&self) -> &str {
        self.client.endpoint()
    }

    /// The connection; a new one makes sure that the other side accepts this Duchy's certificate.
    pub(crate) async fn channel(&self) -> Result<Channel, Status> {
        let mut kept = self.channel.lock().await;
        if let Some(channel) = kept.as_ref() {
            return Ok(channel.clone());
        }
        let channel = self.client.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        *kept = Some(channel.clone());
        Ok(channel)
    }

    /// Forgets a connection that did not work, so that the next one says why.
    pub(crate) async fn forget(&self) {
        *self.channel.lock().await = None;
    }
}

/// With what this Duchy signs keys and results.
#[derive(Debug)]
pub(crate) struct Consent {
    /// Resource name of the certificate at the Kingdom.
    pub(crate) name: CertificateName,
    /// The certificate.
    pub(crate) certificate: Certificate,
    /// Its key.
    pub(crate) key: SigningKey,
}

/// Everybody whom this Duchy knows.
#[derive(Debug)]
pub(crate) struct Parties {
    /// This Duchy.
    pub(crate) me: DuchyId,
    /// What it signs with.
    pub(crate) consent: Consent,
    /// Roots of the other Duchies' consent certificates.
    pub(crate) peer_roots: BTreeMap<DuchyId, TrustRoots>,
    /// Roots of the consumers' consent certificates.
    pub(crate) consumer_roots: BTreeMap<MeasurementConsumerName, TrustRoots>,
    /// Roots of the publishers' consent certificates.
    pub(crate) publisher_roots: BTreeMap<DataProviderName, TrustRoots>,
    /// The Kingdom.
    pub(crate) kingdom: Link,
    peers: BTreeMap<DuchyId, Link>,
    callers: BTreeMap<Vec<u8>, Caller>,
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|error| Error::Consent { file: file.to_owned(), reason: error.to_string() })
}

fn trust(file: &Path) -> Result<TrustRoots, Error> {
    TrustRoots::from_pem(&read(file)?)
        .map_err(|error| Error::Consent { file: file.to_owned(), reason: error.to_string() })
}

impl Consent {
    fn load(config: &ConsentConfig, me: &DuchyId) -> Result<Self, Error> {
        let refuse = |file: &Path, reason: String| Error::Consent { file: file.to_owned(), reason };
        let name: CertificateName =
            config.name.parse().map_err(|error: halo_core::Error| Error::Parties(format!("consent.name: {error}")))?;
        if name.parent != CertificateParent::Duchy(DuchyName::new(me.clone())) {
            return Err(Error::Parties(format!("consent.name: {name} is no certificate of {me}")));
        }
        let certificate = Certificate::from_pem(&read(&config.certificate)?)
            .map_err(|error| refuse(&config.certificate, error.to_string()))?;
        let pem = String::from_utf8(read(&config.private_key)?)
            .map_err(|_| refuse(&config.private_key, "it is no PEM file".to_owned()))?;
        let pem = halo_crypto::secret::Secret::new(pem);
        let key =
            SigningKey::from_pkcs8_pem(pem.expose()).map_err(|error| refuse(&config.private_key, error.to_string()))?;
        if !key.belongs_to(&certificate) {
            let reason = format!("it is not the key of {}", config.certificate.display());
            return Err(refuse(&config.private_key, reason));
        }
        Ok(Self { name, certificate, key })
    }
}

/// Remembers that certificates of a root speak for a party.
fn enroll(callers: &mut BTreeMap<Vec<u8>, Caller>, roots: &Roots, caller: &Caller) -> Result<(), Error> {
    for root in roots.certificates() {
        let id = subject_key_id(root)
            .ok_or_else(|| Error::Parties(format!("the root of {caller:?} has no subject key identifier")))?;
        if let Some(other) = callers.insert(id, caller.clone()).filter(|other| other != caller) {
            return Err(Error::Parties(format!("{other:?} and {caller:?} have one root; each party needs its own")));
        }
    }
    Ok(())
}

impl Parties {
    /// Reads every certificate and key that the configuration names. Also gives what the server shows of itself, and
    /// the roots of those who may call.
    pub(crate) fn load(config: &Config) -> Result<(Self, Identity, Roots), Error> {
        let identity = Identity::from_pem_files(&config.tls.certificate, &config.tls.private_key)?;
        let link = |endpoint: &str, root: &Path| -> Result<Link, Error> {
            Ok(Link::new(Client::new(endpoint, &Roots::from_pem_files(&[root])?, &identity)?))
        };
        let mut callers = BTreeMap::new();
        let mut files: Vec<&Path> = Vec::new();
        let (mut peers, mut peer_roots) = (BTreeMap::new(), BTreeMap::new());
        for peer in &config.peers {
            let file = &peer.root_certificate;
            enroll(&mut callers, &Roots::from_pem_files(&[file])?, &Caller::Duchy(peer.id.clone()))?;
            peers.insert(peer.id.clone(), link(&peer.endpoint, file)?);
            peer_roots.insert(peer.id.clone(), trust(file)?);
            files.push(file);
        }
        let mut publisher_roots = BTreeMap::new();
        for publisher in &config.data_providers {
            let id = publisher.id.parse().map_err(|error| Error::Parties(format!("data_providers: id: {error}")))?;
            let file = &publisher.root_certificate;
            let name = DataProviderName::new(id);
            publisher_roots.insert(name.clone(), trust(file)?);
            let caller = Caller::DataProvider(name);
            enroll(&mut callers, &Roots::from_pem_files(&[file])?, &caller)?;
            files.push(file);
        }
        let mut consumer_roots = BTreeMap::new();
        for consumer in &config.measurement_consumers {
            let id =
                consumer.id.parse().map_err(|error| Error::Parties(format!("measurement_consumers: id: {error}")))?;
            consumer_roots.insert(MeasurementConsumerName::new(id), trust(&consumer.root_certificate)?);
        }
        let roots = Roots::from_pem_files(&files)?;
        let parties = Self {
            me: config.id.clone(),
            consent: Consent::load(&config.consent, &config.id)?,
            peer_roots,
            consumer_roots,
            publisher_roots,
            kingdom: link(&config.kingdom.endpoint, &config.kingdom.root_certificate)?,
            peers,
            callers,
        };
        Ok((parties, identity, roots))
    }

    /// Who sent a request.
    pub(crate) fn caller<T>(&self, request: &Request<T>) -> Result<Caller, Status> {
        caller_key_id(request)
            .and_then(|id| self.callers.get(&id).cloned())
            .ok_or_else(|| Status::unauthenticated("the client certificate belongs to no party of this Duchy"))
    }

    /// The connection to another Duchy.
    pub(crate) fn peer(&self, duchy: &DuchyId) -> Option<&Link> {
        self.peers.get(duchy)
    }
}
