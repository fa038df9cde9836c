//! The measurement in one Duchy's trusted process, at the server.
//!
//! The Duchy publishes a hybrid encryption key with evidence of the process that keeps it. A publisher that accepts the
//! evidence encrypts its vector under a key of its own, and that key to the Duchy's. Everything stays encrypted until all
//! publishers have uploaded and the computation has begun; the vectors are opened within the engine's step and nowhere else.
//!
//! The only attestation here is a simulated one, which proves nothing, so that the protocol is refused unless the
//! configuration says `allow_simulated_attestation`.

use std::collections::BTreeMap;
use std::sync::Arc;

use halo_core::measurement::{MeasurementType, ProtocolKind, TrusteeConfig, TrusteeNoise};
use halo_core::pb::api::fulfill_requisition_request::Header;
use halo_core::pb::api::fulfill_requisition_request::header::trus_tee::DataFormat;
use halo_core::pb::api::fulfill_requisition_request::header::{Protocol as UploadProtocol, TrusTee};
use halo_core::pb::api::measurement::Result as MeasurementResult;
use halo_core::pb::api::measurement::result::{Frequency, Reach, frequency, reach};
use halo_core::pb::api::protocol_config::NoiseMechanism as WireMechanism;
use halo_core::pb::api::{DeterministicCountDistinct, DeterministicDistribution, encryption_key};
use halo_core::pb::system::advance_computation_request::header;
use halo_core::pb::system::computation_participant::requisition_params;
use halo_core::pb::system::computation_stage;
use halo_core::resource::{DuchyId, DuchyName};
use halo_crypto::attestation::{
    Attestation, AttestationVerifier, AttestedKeyService, SimulatedAttestation, SimulatedVerifier, Statement,
};
use halo_crypto::consent::x509::Certificate;
use halo_crypto::envelope::{self, DataKey, HybridKey};
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    Protocol, Seated, Shape, Side, SignedKey, Sitting, Unseated, Uploaded, check_floor, check_result_noise,
    encryption_key as hybrid, vector,
};
use crate::protocol::trustee::{self, Budget, Noise, Outcome, Parameters, Requisition, Thresholds, Trust, Variant};
use crate::protocol::{Body, Description, ProtocolError, Slot};
use crate::server::duchy::Settings;
use crate::server::parties::{Consent, Parties};
use crate::server::secrets::{ComputationKey, ComputationSecrets, KeyKind};
use crate::server::stage::{Role, Stage};
use crate::server::terms::{Refusal, Terms};

/// What lies between confirmation and end.
pub(super) const STAGES: &[Stage] = &[Stage::WaitToCompute, Stage::ComputationPhase];
/// The longest wrapped key.
const MAX_WRAPPED_BYTES: usize = 8 << 10;
/// Vectors of cells that the engine holds at most at a time.
const VECTORS: u64 = 2;

#[derive(Debug)]
pub(super) struct Trustee(pub(super) TrusteeConfig);

impl Trustee {
    fn cells(&self, terms: &Terms) -> u64 {
        vector::cells(self.0.population.size(), terms.spec.vid_sampling_interval)
    }

    fn parameters(&self, terms: &Terms) -> Result<Parameters, Refusal> {
        let (reach, frequency) = match &terms.spec.kind {
            MeasurementType::Reach { reach } => (*reach, None),
            MeasurementType::ReachAndFrequency { maximum_frequency, .. } if !maximum_frequency.counts_frequency() => {
                return Err(vector::too_low(self.kind()));
            }
            MeasurementType::ReachAndFrequency { reach, frequency, .. } => (*reach, Some(*frequency)),
            _ => return Err(Refusal::kingdom("measurement_spec: asks neither for reach nor for frequency")),
        };
        let thresholds = self.0.thresholds;
        // The consumer pays for what it reads; the number of impressions is compared only, at the price of the reach.
        let impressions = thresholds.filter(|thresholds| thresholds.min_impressions > 0).map(|_| reach);
        let budget = Budget { reach, frequency, impressions };
        Ok(Parameters {
            variant: Variant::Native,
            cells: self.cells(terms),
            maximum_frequency: terms.spec.kind.maximum_frequency(),
            sampling_width: terms.spec.vid_sampling_interval.width(),
            requisitions: terms.requisition_names().map(|name| name.to_string()).collect(),
            thresholds: thresholds.map(|thresholds| {
                Thresholds::new(u64::from(thresholds.min_users), u64::from(thresholds.min_impressions))
            }),
            noise: match self.0.noise {
                TrusteeNoise::None => Noise::None,
                TrusteeNoise::DiscreteGaussian => Noise::DiscreteGaussian(budget),
                TrusteeNoise::Deterministic => Noise::Sticky(budget),
            },
        })
    }

    fn mechanism(&self) -> WireMechanism {
        match self.0.noise {
            TrusteeNoise::None => WireMechanism::None,
            TrusteeNoise::DiscreteGaussian => WireMechanism::DiscreteGaussian,
            TrusteeNoise::Deterministic => WireMechanism::DeterministicTruncatedLaplace,
        }
    }

    fn ciphertext_bytes(&self, terms: &Terms) -> Result<u64, String> {
        envelope::ciphertext_bytes(self.cells(terms)).ok_or_else(|| "the population is too large".to_owned())
    }
}

/// What a process says of itself before data are encrypted to its key: which Duchy's it is, in which session, and that the
/// key is its own.
fn statement(terms: &Terms, duchy: &DuchyId, key: &[u8]) -> Statement {
    Statement {
        trustee: duchy.to_string(),
        computation: hex::encode(terms.session),
        binding: Sha256::digest(key).into(),
    }
}

/// The name of this Duchy's key in envelopes.
fn uri(duchy: &DuchyId) -> String {
    DuchyName::new(duchy.clone()).to_string()
}

impl Protocol for Trustee {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Trustee
    }

    fn duchies(&self) -> Option<Vec<DuchyId>> {
        Some(vec![self.0.duchy.clone()])
    }

    fn after_confirmation(&self, _role: Role) -> Option<Stage> {
        Some(Stage::WaitToCompute)
    }

    fn check(&self, terms: &Terms, parties: &Parties, settings: &Settings) -> Result<(), Refusal> {
        if SimulatedAttestation.is_simulated() && !settings.allow_simulated_attestation {
            return Err(Refusal::new(format!(
                "{} has no hardware enclave, only a simulated attestation, which proves nothing and is not allowed here \
                 (allow_simulated_attestation)",
                parties.me
            )));
        }
        match self.0.noise {
            TrusteeNoise::None => check_floor(None, &terms.spec, &settings.noise_floor)?,
            TrusteeNoise::DiscreteGaussian => check_result_noise(&terms.spec, &settings.noise_floor)?,
            TrusteeNoise::Deterministic if settings.noise_key.is_some() => {
                check_result_noise(&terms.spec, &settings.noise_floor)?;
            }
            TrusteeNoise::Deterministic => {
                return Err(Refusal::new(format!(
                    "deterministic noise needs a secret of {}, and there is none (noise_key_file)",
                    parties.me
                )));
            }
        }
        self.parameters(terms)?.check().map_err(|error| Refusal::new(error.to_string()))?;
        vector::check_memory(self.cells(terms), 0, VECTORS, settings)
    }

    fn key_kind(&self, _duchy: &DuchyId) -> KeyKind {
        KeyKind::Hpke
    }

    fn public_key(&self, terms: &Terms, _consent: &Consent, _me: &DuchyId, secrets: &ComputationSecrets) -> Vec<u8> {
        hybrid::public_key(&terms.session, secrets)
    }

    fn publish(&self, terms: &Terms, me: &DuchyId, key: SignedKey) -> Result<requisition_params::Protocol, Refusal> {
        let evidence = SimulatedAttestation.evidence(&statement(terms, me, &key.key));
        let evidence = evidence.map_err(|reason| Refusal::new(format!("{me}: no attestation: {reason}")))?;
        Ok(requisition_params::Protocol::TrusTee(requisition_params::TrusTee {
            tink_public_key: key.key,
            tink_public_key_signature: key.signature,
            tink_public_key_signature_algorithm_oid: key.oid,
            attestation: evidence.to_bytes(),
        }))
    }

    fn published(&self, params: &requisition_params::Protocol) -> Option<SignedKey> {
        match params {
            requisition_params::Protocol::TrusTee(params) => Some(SignedKey {
                key: params.tink_public_key.clone(),
                signature: params.tink_public_key_signature.clone(),
                oid: params.tink_public_key_signature_algorithm_oid.clone(),
            }),
            _ => None,
        }
    }

    fn check_key(&self, terms: &Terms, _duchy: &DuchyId, _certificate: &Certificate, key: &[u8]) -> Result<(), String> {
        hybrid::check(&terms.session, key)
    }

    fn upload_shape(&self) -> Shape {
        Shape::Records(1)
    }

    fn read_upload(&self, terms: &Terms, header: &Header) -> Result<Vec<u8>, String> {
        let Some(UploadProtocol::TrusTee(trustee)) = &header.protocol else {
            return Err("header.protocol: it is another protocol than the measurement's, which is trustee".to_owned());
        };
        let due = self.ciphertext_bytes(terms)?;
        if u64::try_from(header.body_length) != Ok(due) {
            return Err(format!(
                "header.body_length: {} bytes where {due} are due for {} cells",
                header.body_length,
                self.cells(terms)
            ));
        }
        if trustee.data_format() != DataFormat::EncryptedFrequencyVector {
            return Err("header.trus_tee.data_format: only ENCRYPTED_FREQUENCY_VECTOR is taken here".to_owned());
        }
        let path = "header.trus_tee.envelope_encryption";
        let envelope = trustee.envelope_encryption.as_ref().ok_or_else(|| format!("{path}: is missing"))?;
        let due = uri(&self.0.duchy);
        if envelope.kms_kek_uri != due {
            return Err(format!("{path}.kms_kek_uri: only keys that are encrypted to {due} are opened here"));
        }
        let wrapped = envelope.encrypted_dek.as_ref().ok_or_else(|| format!("{path}.encrypted_dek: is missing"))?;
        if wrapped.format() != encryption_key::Format::TinkEncryptedKeyset || wrapped.data.len() > MAX_WRAPPED_BYTES {
            return Err(format!(
                "{path}.encrypted_dek: it is no TINK_ENCRYPTED_KEYSET of at most {MAX_WRAPPED_BYTES} bytes"
            ));
        }
        DataKey::check_wrapped(&wrapped.data).map_err(|error| format!("{path}.encrypted_dek: {error}"))?;
        Ok(trustee.encode_to_vec())
    }

    fn check_upload(&self, _terms: &Terms, _requisition: &str, _body: &Body) -> Result<(), ProtocolError> {
        // Length and digest have been checked, and nothing else can be told of a ciphertext.
        Ok(())
    }

    fn message_number(&self, _description: Description, _from: &DuchyId) -> Option<i32> {
        None
    }

    fn message_header(&self, _number: i32) -> Option<header::Protocol> {
        None
    }

    fn header_number(&self, _header: &header::Protocol) -> Option<i32> {
        None
    }

    fn message_record_bytes(&self, _terms: &Terms, _slot: &Slot, _me: &DuchyId) -> usize {
        1
    }

    fn check_message(&self, _terms: &Terms, slot: &Slot, _me: &DuchyId, _body: &Body) -> Result<(), ProtocolError> {
        Err(ProtocolError::UnexpectedMessage { received: slot.clone(), awaited: "nothing".to_owned() })
    }

    fn stage_number(&self, stage: Stage, _me: &DuchyId) -> i32 {
        // INITIALIZED, WAIT_TO_START, COMPUTING, COMPLETE (protocols 4.1).
        match stage {
            Stage::InitializationPhase => 1,
            Stage::ComputationPhase => 3,
            Stage::Complete => 4,
            _ => 2,
        }
    }

    fn wire_stage(&self, _number: i32) -> Option<computation_stage::Stage> {
        None
    }

    fn side(&self, sitting: Sitting<'_>) -> Result<Box<dyn Side>, Unseated> {
        let Sitting { duchy, terms, secrets, uploads, .. } = sitting;
        let parameters = self.parameters(terms)?;
        let ComputationSecrets { key, seed } = secrets;
        let ComputationKey::Hpke(keyset) = key else { return Err(Unseated::WrongKey) };
        let me = duchy.parties.me.clone();
        let allow_simulated = duchy.settings.allow_simulated_attestation;
        let verifier: Arc<dyn AttestationVerifier> = Arc::new(SimulatedVerifier { allow_simulated });
        let trust = Trust {
            attestation: Arc::new(SimulatedAttestation),
            keys: Arc::new(AttestedKeyService::new(verifier, vec![Arc::new(HybridKey::private(uri(&me), keyset))])),
            allow_simulated,
            noise_key: duchy.settings.noise_key.clone(),
        };
        let computation = terms.name.computation.to_string();
        let engine = trustee::Duchy::new(parameters.clone(), computation, me, seed, trust)?;
        let requisitions = uploads.iter().map(requisition).collect::<Result<Vec<_>, _>>()?;
        let mechanism = self.mechanism();
        Ok(Box::new(Seated {
            engine,
            prepare: Box::new(move |_| Ok(requisitions.clone())),
            conclude: Box::new(move |outcome| result(mechanism, &parameters, outcome)),
        }))
    }
}

fn requisition(upload: &Uploaded) -> Result<Requisition, ProtocolError> {
    let refuse = |reason: String| ProtocolError::BadVector { requisition: upload.requisition.clone(), reason };
    let header = TrusTee::decode(upload.attachment.as_slice()).map_err(|error| refuse(error.to_string()))?;
    let envelope = header.envelope_encryption.unwrap_or_default();
    Ok(Requisition {
        id: upload.requisition.clone(),
        vector: Arc::clone(&upload.body),
        wrapped_key: envelope.encrypted_dek.unwrap_or_default().data,
        kek: envelope.kms_kek_uri,
    })
}

/// Estimates, their standard errors and the noise in them. What no noise and no threshold hides stays out where there is
/// one.
fn result(
    mechanism: WireMechanism,
    parameters: &Parameters,
    outcome: &Outcome,
) -> Result<MeasurementResult, ProtocolError> {
    let estimate = outcome.estimate(parameters)?;
    let reach = Reach {
        value: estimate.reach.round() as i64,
        noise_mechanism: mechanism.into(),
        methodology: Some(reach::Methodology::DeterministicCountDistinct(DeterministicCountDistinct {})),
        standard_error: estimate.reach_standard_error,
        noise_standard_deviation: outcome.reach_noise_sd,
        registers_in: 0,
        active_registers: 0,
        frequency_vector_size: outcome.cells.cast_signed(),
        suppressed: outcome.suppressed,
    };
    let bins = |shares: &[f64]| -> BTreeMap<i64, f64> { (1..).zip(shares.iter().copied()).collect() };
    let open = parameters.noise == Noise::None && parameters.thresholds.is_none();
    let frequency = outcome.histogram.as_ref().map(|histogram| {
        let found = estimate.frequency.as_ref();
        Frequency {
            relative_frequency_distribution: found.map(|found| bins(&found.shares)).unwrap_or_default(),
            noise_mechanism: mechanism.into(),
            methodology: Some(frequency::Methodology::DeterministicDistribution(DeterministicDistribution {})),
            standard_errors: found.map(|found| bins(&found.standard_errors)).unwrap_or_default(),
            noise_standard_deviation: outcome.frequency_noise_sd,
            usable_registers: 0,
            usable_histogram: Vec::new(),
            histogram: if open { histogram.clone() } else { Vec::new() },
        }
    });
    Ok(MeasurementResult { reach: Some(reach), frequency, ..Default::default() })
}
