//! The measurement consumer: asks for a measurement, follows it, verifies and decrypts its result.
//!
//! The consumer trusts the certificate authorities that it holds itself. What the Kingdom hands out (publishers' keys,
//! the aggregator's certificate, the result) counts only with the right signature.

use std::{collections::BTreeMap, fmt, fs, path::Path, time::Duration};

use halo_core::{
    clock::{Clock, SystemClock},
    measurement::MeasurementType,
    pb::{
        api::{
            self, GetDataProviderRequest, certificate::RevocationState, data_providers_client::DataProvidersClient,
            measurements_client::MeasurementsClient, requisition_spec::RequisitionType,
        },
        halo::{ListTimelineEntriesRequest, TimelineEntry, WatchMeasurementRequest, watch_client::WatchClient},
    },
    privacy::{PrivacyParams, VidSamplingInterval},
    resource::{CertificateName, CertificateParent, DuchyId, ExternalId},
    session,
    transport::{Client, Identity, Roots},
    wire::{self, type_name},
};
use halo_crypto::{
    consent::{
        tink::{PrivateKeyset, PublicKeyset},
        x509::{Certificate, ECDSA_WITH_SHA256, SigningKey, TrustRoots},
    },
    secret::Secret,
};
use prost::Message;
use rand_core::CryptoRng;
use tonic::{Streaming, transport::Channel};

use crate::{
    cluster::{Layout, layout::Party},
    error::{Context, Error, Result},
};

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// What is counted, with the noise that it pays for.
    pub kind: MeasurementType,
    /// Whom it is counted among.
    pub interval: VidSamplingInterval,
    /// Ids of the publishers that are asked; all that the consumer knows when empty.
    pub publishers: Vec<String>,
}

/// Who vouches for a result.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Signer {
    /// The Duchy that hands in the result of a computation.
    Duchy(DuchyId),
    /// The publisher with this id, for what it counted itself.
    Publisher(String),
}

impl fmt::Display for Signer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duchy(id) => id.fmt(f),
            Self::Publisher(id) => write!(f, "dataProviders/{id}"),
        }
    }
}

/// A result as the Kingdom delivers it, to be opened by [`Consumer::open_delivered`].
#[derive(Clone, Copy, Debug)]
pub struct Delivered<'a> {
    /// The encrypted, signed result.
    pub ciphertext: &'a [u8],
    /// Resource name of the certificate that signed it.
    pub certificate: &'a str,
    /// That certificate in DER.
    pub certificate_der: &'a [u8],
    /// The serialized `ProtocolConfig` under which it was computed: only its aggregator signs, or every publisher for
    /// itself where no Duchy computes.
    pub protocol_config: &'a [u8],
    /// When it was delivered, in Unix seconds by the Kingdom's clock: certificates must have been valid then.
    pub time_unix_s: i64,
}

/// How long a measurement may take before the Kingdom cancels it and says who owed what.
const DEADLINE: Duration = Duration::from_secs(6 * 3600);

/// A consumer with its own keys and the authorities that it trusts.
#[derive(Debug)]
pub struct Consumer {
    name: String,
    certificate_name: String,
    certificate: Certificate,
    key: SigningKey,
    keyset: PrivateKeyset,
    identity: Identity,
    kingdom: (String, Roots),
    publishers: BTreeMap<String, TrustRoots>,
    duchies: BTreeMap<DuchyId, TrustRoots>,
}

/// Signs a message: the signature is over the very bytes that travel.
pub fn sign(key: &SigningKey, name: &str, bytes: Vec<u8>) -> api::SignedMessage {
    api::SignedMessage {
        signature: key.sign(&bytes),
        signature_algorithm_oid: ECDSA_WITH_SHA256.to_owned(),
        message: Some(wire::pack(name, bytes)),
        ..Default::default()
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).context(|| format!("cannot read {}", path.display()))
}

impl Consumer {
    /// Reads the consumer's files and the roots of the other parties.
    ///
    /// # Errors
    /// When a file is missing or is not what it should be; the error names it.
    pub fn open(layout: &Layout) -> Result<Self> {
        let file = |name: &str| layout.file(&layout.consumer, name);
        let what = |name: &str| file(name).display().to_string();
        let trust = |party: &Party| {
            let path = layout.file(party, "root.pem");
            TrustRoots::from_pem(&read(&path)?).context(|| path.display().to_string())
        };
        let key = Secret::new(read(&file("consent.key"))?);
        let key = std::str::from_utf8(key.expose())
            .context(|| what("consent.key"))
            .and_then(|text| SigningKey::from_pkcs8_pem(text).context(|| what("consent.key")))?;
        let keyset = Secret::new(read(&file("encryption.keyset"))?);
        let tls_key = Secret::new(read(&file("tls.key"))?);
        let publishers = layout.publishers.iter().map(|party| Ok((party.id.clone(), trust(party)?)));
        let duchies = layout.duchies.iter().map(|party| {
            let id = DuchyId::new(party.id.as_str()).context(|| "the layout".into())?;
            Ok((id, trust(party)?))
        });
        let name = format!("measurementConsumers/{}", layout.consumer.id);
        Ok(Self {
            certificate_name: format!("{name}/certificates/{}", layout.consumer.certificate),
            name,
            certificate: Certificate::from_pem(&read(&file("consent.pem"))?).context(|| what("consent.pem"))?,
            key,
            keyset: PrivateKeyset::from_bytes(keyset.expose()).context(|| what("encryption.keyset"))?,
            identity: Identity::from_pem(&read(&file("tls.pem"))?, tls_key.expose()).context(|| what("tls.pem"))?,
            kingdom: (
                format!("https://{}", layout.kingdom.address),
                Roots::from_pem_files(&[layout.file(&layout.kingdom, "root.pem")]).context(|| "root.pem".into())?,
            ),
            publishers: publishers.collect::<Result<_>>()?,
            duchies: duchies.collect::<Result<_>>()?,
        })
    }

    /// Connects to the Kingdom.
    ///
    /// # Errors
    /// When it cannot be reached, or refuses the consumer's certificate.
    pub async fn connect(&self) -> Result<Channel> {
        let (endpoint, roots) = &self.kingdom;
        let client = Client::new(endpoint, roots, &self.identity).context(|| "cannot call the Kingdom".into())?;
        client.connect().await.context(|| "cannot reach the Kingdom".into())
    }

    /// Creates a measurement.
    ///
    /// # Errors
    /// When a publisher's key does not verify, or the Kingdom refuses.
    pub async fn create(&self, channel: Channel, ask: &Ask, rng: &mut impl CryptoRng) -> Result<api::Measurement> {
        let public_key = api::EncryptionPublicKey {
            format: api::encryption_public_key::Format::TinkKeyset.into(),
            data: self.keyset.public().to_bytes(),
            ..Default::default()
        };
        let public_key = wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, public_key.encode_to_vec());
        let mut data_providers = Vec::new();
        for (id, roots) in self.asked(&ask.publishers)? {
            let spec = api::RequisitionSpec {
                measurement_public_key: Some(public_key.clone()),
                nonce: rng.next_u64().max(1),
                requisition_type: Some(match ask.kind {
                    MeasurementType::Population => RequisitionType::Population(Default::default()),
                    _ => RequisitionType::Events(Default::default()),
                }),
                ..Default::default()
            };
            let publisher = format!("dataProviders/{id}");
            let entry = self.ask_publisher(&channel, &publisher, roots, &spec, rng).await;
            data_providers.push(entry.context(|| format!("publisher {publisher}"))?);
        }
        let nonce_hashes = data_providers.iter().filter_map(|entry| entry.value.as_ref());
        let spec = api::MeasurementSpec {
            measurement_public_key: Some(public_key),
            nonce_hashes: nonce_hashes.map(|value| value.nonce_hash.clone()).collect(),
            vid_sampling_interval: Some(api::measurement_spec::VidSamplingInterval {
                start: ask.interval.start(),
                width: ask.interval.width(),
            }),
            measurement_type: Some(measurement_type(&ask.kind)?),
            ..Default::default()
        };
        let request = api::CreateMeasurementRequest {
            parent: self.name.clone(),
            measurement: Some(api::Measurement {
                measurement_consumer_certificate: self.certificate_name.clone(),
                measurement_spec: Some(sign(&self.key, type_name::MEASUREMENT_SPEC, spec.encode_to_vec())),
                data_providers,
                measurement_reference_id: "quickstart".to_owned(),
                deadline: Some((SystemClock.now() + DEADLINE).into()),
                ..Default::default()
            }),
            request_id: ExternalId::random(rng).to_string(),
        };
        let created = MeasurementsClient::new(channel).create_measurement(request).await;
        Ok(created.context(|| "the Kingdom refused the measurement".into())?.into_inner())
    }

    /// The publishers with these ids, or all of them.
    fn asked(&self, ids: &[String]) -> Result<Vec<(&String, &TrustRoots)>> {
        if ids.is_empty() {
            return Ok(self.publishers.iter().collect());
        }
        let find = |id: &String| {
            let found = self.publishers.get_key_value(id);
            found.ok_or_else(|| Error::new(format!("dataProviders/{id} is not trusted")))
        };
        ids.iter().map(find).collect()
    }

    /// One publisher's part: its own copy of what is asked for, which nobody else can read.
    async fn ask_publisher(
        &self,
        channel: &Channel,
        publisher: &str,
        roots: &TrustRoots,
        spec: &api::RequisitionSpec,
        rng: &mut impl CryptoRng,
    ) -> Result<api::measurement::DataProviderEntry> {
        let request = GetDataProviderRequest { name: publisher.to_owned() };
        let found = DataProvidersClient::new(channel.clone()).get_data_provider(request).await;
        let found = found.context(|| "the Kingdom does not show it".into())?.into_inner();
        let certificate = verified_certificate(roots, &found.certificate_der, SystemClock.now().unix_seconds())?;
        let key = verified(&certificate, found.public_key.as_ref(), type_name::ENCRYPTION_PUBLIC_KEY)?;
        let keyset = api::EncryptionPublicKey::decode(key).context(|| "its encryption key".into())?;
        let keyset = PublicKeyset::from_bytes(&keyset.data).context(|| "its encryption key".into())?;
        let signed = sign(&self.key, type_name::REQUISITION_SPEC, spec.encode_to_vec()).encode_to_vec();
        Ok(api::measurement::DataProviderEntry {
            key: publisher.to_owned(),
            value: Some(api::measurement::data_provider_entry::Value {
                data_provider_certificate: found.certificate.clone(),
                data_provider_public_key: Some(wire::pack(type_name::ENCRYPTION_PUBLIC_KEY, key.to_vec())),
                encrypted_requisition_spec: Some(api::EncryptedMessage {
                    ciphertext: keyset.encrypt(&signed, b"", rng).context(|| "its encryption key".into())?,
                    type_url: wire::pack(type_name::SIGNED_MESSAGE, Vec::new()).type_url,
                }),
                nonce_hash: session::nonce_hash(spec.nonce).to_vec(),
            }),
        })
    }

    /// Follows a measurement: as it is now, then every change; the stream ends with the measurement.
    ///
    /// # Errors
    /// When the Kingdom refuses.
    pub async fn watch(
        &self,
        channel: Channel,
        name: &str,
    ) -> Result<Streaming<halo_core::pb::halo::WatchMeasurementResponse>> {
        let request = WatchMeasurementRequest { name: name.to_owned() };
        let stream = WatchClient::new(channel).watch_measurement(request).await;
        Ok(stream.context(|| "the measurement cannot be followed".into())?.into_inner())
    }

    /// Everything that happened to a measurement so far.
    ///
    /// # Errors
    /// When the Kingdom refuses.
    pub async fn timeline(&self, channel: Channel, name: &str) -> Result<Vec<TimelineEntry>> {
        let mut client = WatchClient::new(channel);
        let mut request = ListTimelineEntriesRequest { measurement: name.to_owned(), ..Default::default() };
        let mut entries = Vec::new();
        loop {
            let page = client.list_timeline_entries(request.clone()).await;
            let page = page.context(|| "there is no timeline".into())?.into_inner();
            entries.extend(page.entries);
            if page.next_page_token.is_empty() {
                return Ok(entries);
            }
            request.page_token = page.next_page_token;
        }
    }

    /// The certificate that signed a result, as the Kingdom shows it.
    ///
    /// # Errors
    /// When the Kingdom refuses, or the certificate is revoked or on hold.
    pub async fn certificate(&self, channel: Channel, name: &str) -> Result<Vec<u8>> {
        let request = api::GetCertificateRequest { name: name.to_owned() };
        let found = api::certificates_client::CertificatesClient::new(channel).get_certificate(request).await;
        let found = found.context(|| format!("the Kingdom does not show {name}"))?.into_inner();
        match found.revocation_state() {
            RevocationState::Unspecified => Ok(found.x509_der),
            state => {
                Err(Error::new(format!("{name} is not in force: {}; the result is not accepted", state.as_str_name())))
            }
        }
    }

    /// Verifies and decrypts a result that has just been delivered, signed by any party that this consumer trusts.
    /// [`Consumer::open_delivered`] also checks that the party is the one whose result it is.
    ///
    /// # Errors
    /// When the ciphertext is not for this consumer, the certificate is not of a known party's authority, or the
    /// signature is not the certificate's.
    pub fn open_result(
        &self,
        ciphertext: &[u8],
        certificate_name: &str,
        certificate_der: &[u8],
    ) -> Result<api::measurement::Result> {
        let signer = signer(certificate_name)?;
        self.open_signed(ciphertext, &signer, certificate_der, SystemClock.now().unix_seconds())
    }

    /// Verifies and decrypts a result: only this consumer can read it, and the measurement's aggregator signed it with a
    /// certificate that was valid when the result was delivered. Where no Duchy computes, a publisher signed it, and
    /// whose result it is the signer says.
    ///
    /// # Errors
    /// As [`Consumer::open_result`], and when another party than the aggregator signed.
    pub fn open_delivered(&self, delivered: &Delivered<'_>) -> Result<(Signer, api::measurement::Result)> {
        let config = wire::parse_protocol_config(delivered.protocol_config);
        let protocol = config.context(|| "the measurement's protocol configuration".into())?.protocol;
        let signer = signer(delivered.certificate)?;
        match (protocol.aggregator(), &signer) {
            (None, Signer::Publisher(_)) => {}
            (None, Signer::Duchy(_)) => {
                return Err(Error::new(format!(
                    "{signer} signed the result, but every publisher signs its own; it is not accepted"
                )));
            }
            (Some(aggregator), signer) if *signer == Signer::Duchy(aggregator.clone()) => {}
            (Some(aggregator), _) => {
                return Err(Error::new(format!(
                    "{signer} signed the result, but the measurement's aggregator is {aggregator}; it is not accepted"
                )));
            }
        }
        let result =
            self.open_signed(delivered.ciphertext, &signer, delivered.certificate_der, delivered.time_unix_s)?;
        Ok((signer, result))
    }

    fn open_signed(
        &self,
        ciphertext: &[u8],
        signer: &Signer,
        certificate_der: &[u8],
        time_unix_s: i64,
    ) -> Result<api::measurement::Result> {
        let roots = match signer {
            Signer::Duchy(id) => self.duchies.get(id),
            Signer::Publisher(id) => self.publishers.get(id),
        };
        let roots = roots.ok_or_else(|| Error::new(format!("{signer} is not trusted")))?;
        let certificate = verified_certificate(roots, certificate_der, time_unix_s)?;
        let plaintext = self.keyset.decrypt(ciphertext, b"").context(|| "the result does not open".into())?;
        let signed =
            api::SignedMessage::decode(plaintext.expose().as_slice()).context(|| "the result is garbled".into())?;
        let bytes = verified(&certificate, Some(&signed), type_name::MEASUREMENT_RESULT)?;
        api::measurement::Result::decode(bytes).context(|| "the result is garbled".into())
    }

    /// Checks that a stored specification is the one that this consumer signed.
    ///
    /// # Errors
    /// When the signature is not this consumer's.
    pub fn check_spec(&self, spec: &[u8], algorithm_oid: &str, signature: &[u8]) -> Result<()> {
        let checked = self.certificate.verify_signature(spec, algorithm_oid, signature);
        checked.context(|| "the stored specification is not the one that this consumer signed".into())
    }
}

fn measurement_type(kind: &MeasurementType) -> Result<api::measurement_spec::MeasurementType> {
    use api::measurement_spec::{Duration, Impression, MeasurementType as Wire, Population, Reach, ReachAndFrequency};
    let params = |params: &PrivacyParams| {
        Some(api::DifferentialPrivacyParams { epsilon: params.epsilon.get(), delta: params.delta.get() })
    };
    Ok(match kind {
        MeasurementType::Reach { reach } => Wire::Reach(Reach { privacy_params: params(reach) }),
        MeasurementType::ReachAndFrequency { reach, frequency, maximum_frequency } => {
            Wire::ReachAndFrequency(ReachAndFrequency {
                reach_privacy_params: params(reach),
                frequency_privacy_params: params(frequency),
                maximum_frequency: maximum_frequency.get().cast_signed(),
            })
        }
        MeasurementType::Impression { impression, maximum_frequency_per_user } => Wire::Impression(Impression {
            privacy_params: params(impression),
            maximum_frequency_per_user: maximum_frequency_per_user.cast_signed(),
        }),
        MeasurementType::Duration { duration, maximum_seconds_per_user } => {
            let seconds = i64::try_from(*maximum_seconds_per_user);
            Wire::Duration(Duration {
                privacy_params: params(duration),
                maximum_watch_duration_per_user: Some(prost_types::Duration {
                    seconds: seconds.context(|| "the longest time that counts".into())?,
                    nanos: 0,
                }),
                ..Default::default()
            })
        }
        MeasurementType::Population => Wire::Population(Population {}),
    })
}

/// The Duchy or the publisher whose certificate this is.
fn signer(certificate: &str) -> Result<Signer> {
    let name: CertificateName = certificate.parse().context(|| "the result's certificate".into())?;
    match name.parent {
        CertificateParent::Duchy(duchy) => Ok(Signer::Duchy(duchy.duchy)),
        CertificateParent::DataProvider(publisher) => Ok(Signer::Publisher(publisher.data_provider.to_string())),
        CertificateParent::MeasurementConsumer(_) | CertificateParent::ModelProvider(_) => {
            let whose = "neither a Duchy's nor a publisher's certificate";
            Err(Error::new(format!("{certificate} is {whose}; the result is not accepted")))
        }
    }
}

/// A certificate that one of the roots issued and that is valid at this time, in Unix seconds.
fn verified_certificate(roots: &TrustRoots, der: &[u8], time_unix_s: i64) -> Result<Certificate> {
    let certificate = Certificate::from_der(der).context(|| "its certificate".into())?;
    roots.verify(&certificate, time_unix_s).context(|| "its certificate".into())?;
    Ok(certificate)
}

fn verified<'a>(
    certificate: &Certificate,
    signed: Option<&'a api::SignedMessage>,
    type_name: &str,
) -> Result<&'a [u8]> {
    let bytes = wire::signed_bytes("signed", signed, type_name).context(|| "it is not what it should be".into())?;
    let signed = signed.ok_or_else(|| Error::new("it is not signed"))?;
    certificate
        .verify_signature(bytes, &signed.signature_algorithm_oid, &signed.signature)
        .context(|| "the signature does not hold".into())?;
    Ok(bytes)
}
