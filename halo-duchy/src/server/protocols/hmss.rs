//! The honest-majority share shuffle at the server, as the reference has it and native.
//!
//! Each worker publishes a hybrid encryption key. A publisher uploads its share to one worker, with the seed of the other
//! share encrypted to the other worker; the first one keeps both and passes the seed on when everybody has confirmed. The
//! aggregator has no key, and nothing is uploaded to it.

mod cells;
mod seed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use halo_core::clock::Timestamp;
use halo_core::measurement::{HmssConfig, HmssVariant, MeasurementType, ProtocolKind};
use halo_core::pb::api::HonestMajorityShareShuffleMethodology;
use halo_core::pb::api::fulfill_requisition_request::{Header, header as upload};
use halo_core::pb::api::measurement::Result as MeasurementResult;
use halo_core::pb::api::measurement::result::{Frequency, Reach, frequency, reach};
use halo_core::pb::system;
use halo_core::pb::system::advance_computation_request::header;
use halo_core::pb::system::computation_participant::requisition_params;
use halo_core::pb::system::computation_stage;
use halo_core::resource::{DuchyId, RequisitionName};
use halo_crypto::consent::x509::Certificate;
use halo_crypto::share::{self, Modulus};
use prost::Message;

use self::cells::Encoding;
use super::{
    Prepare, Protocol, Seated, Shape, Side, SignedKey, Sitting, Unseated, Uploaded, check_floor, encryption_key,
    vector, wire_mechanism,
};
use crate::protocol::hmss::{self, NoiseParameters, Outcome, Parameters, Requisition, Roles, Variant};
use crate::protocol::{Body, Description, Origin, ProtocolError, Received, Slot};
use crate::server::duchy::Settings;
use crate::server::parties::{Consent, Parties};
use crate::server::secrets::{ComputationKey, ComputationSecrets, KeyKind};
use crate::server::stage::{Role, Stage};
use crate::server::terms::{Refusal, Terms};

/// Vectors of cells that a worker holds at most at a time.
const VECTORS: u64 = 3;
/// Bytes of an encoded cell at most: a tag and a varint.
const ENCODED_CELL: u64 = 3;
/// Bytes of tags and lengths of packed lists at most.
const ENCODED_BESIDE: u64 = 1024;

/// What lies between confirmation and end.
pub(super) const fn stages(role: Role) -> &'static [Stage] {
    match role {
        Role::Worker => &[Stage::WaitToStart, Stage::SetupPhase, Stage::WaitShufflePhaseInputs, Stage::ShufflePhase],
        Role::Aggregator => &[Stage::WaitAggregationPhaseInputs, Stage::AggregationPhase],
    }
}

#[derive(Debug)]
pub(super) struct Hmss(pub(super) HmssConfig);

impl Hmss {
    fn is_aggregator(&self, duchy: &DuchyId) -> bool {
        *duchy == self.0.aggregator
    }

    fn cells(&self, terms: &Terms) -> u64 {
        vector::cells(self.0.population.size(), terms.spec.vid_sampling_interval)
    }

    fn encoding(&self) -> Encoding {
        match self.0.variant {
            HmssVariant::Compatible { .. } => Encoding::Varints,
            HmssVariant::Native => Encoding::Bytes,
        }
    }

    fn modulus(&self, terms: &Terms) -> Result<Modulus, ProtocolError> {
        let modulus = match self.0.variant {
            HmssVariant::Compatible { ring_modulus } => ring_modulus,
            HmssVariant::Native if terms.spec.kind.maximum_frequency().counts_frequency() => 256,
            HmssVariant::Native => 251,
        };
        Modulus::new(modulus).map_err(|error| ProtocolError::Parameters(error.to_string()))
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
        Ok(Parameters {
            variant: match self.0.variant {
                HmssVariant::Compatible { ring_modulus } => Variant::Compatible { modulus: ring_modulus },
                HmssVariant::Native => Variant::Native,
            },
            cells: self.cells(terms),
            maximum_frequency: terms.spec.kind.maximum_frequency(),
            sampling_width: terms.spec.vid_sampling_interval.width(),
            requisitions: terms.requisition_names().map(|name| name.to_string()).collect(),
            noise: self.0.noise.map(|noise| NoiseParameters {
                mechanism: noise.mechanism,
                calibration: noise.calibration,
                honest_contributors: noise.honest_contributors,
                reach,
                frequency,
            }),
        })
    }

    /// A seed that a worker passes on is no good: its sender is to blame, because it has taken it in.
    fn check_relayed(&self, terms: &Terms, slot: &Slot, body: &Body) -> Result<(), ProtocolError> {
        let origin = Origin::Duchy(slot.from.clone());
        let refuse = |reason: String| ProtocolError::BadRecord { origin: origin.clone(), record: 0, reason };
        let parameters = self.parameters(terms).map_err(|refusal| ProtocolError::Parameters(refusal.message))?;
        let received = Received { slot: slot.clone(), body: Arc::clone(body) };
        let relayed = hmss::relayed_seeds(&parameters, &received).map_err(|error| match error {
            ProtocolError::BadBody { reason, .. } => refuse(reason),
            other => other,
        })?;
        let due = terms.requisition_names().filter(|name| terms.fulfilling(name).is_some_and(|at| *at == slot.from));
        let due: BTreeSet<String> = due.map(|name| name.to_string()).collect();
        if !relayed.keys().eq(&due) {
            let reason = "it does not pass on the seeds of exactly those requisitions that it took in".to_owned();
            return Err(refuse(reason));
        }
        relayed.values().try_for_each(|relayed| seed::read(relayed).map(drop)).map_err(refuse)
    }
}

impl Protocol for Hmss {
    fn kind(&self) -> ProtocolKind {
        match self.0.variant {
            HmssVariant::Compatible { .. } => ProtocolKind::Hmss,
            HmssVariant::Native => ProtocolKind::HmssNative,
        }
    }

    fn duchies(&self) -> Option<Vec<DuchyId>> {
        let HmssConfig { first_worker, second_worker, aggregator, .. } = &self.0;
        Some(vec![first_worker.clone(), second_worker.clone(), aggregator.clone()])
    }

    fn check(&self, terms: &Terms, parties: &Parties, settings: &Settings) -> Result<(), Refusal> {
        let noise = self.0.noise.map(|noise| (noise.calibration, noise.honest_contributors));
        check_floor(noise, &terms.spec, &settings.noise_floor)?;
        let HmssConfig { first_worker, second_worker, aggregator, .. } = &self.0;
        if first_worker == second_worker || first_worker == aggregator || second_worker == aggregator {
            return Err(Refusal::kingdom("protocol_config: the two workers and the aggregator must be three Duchies"));
        }
        let noise = self.parameters(terms)?.noise_cells().map_err(|error| Refusal::new(error.to_string()))?;
        if self.is_aggregator(&parties.me) {
            return Ok(());
        }
        vector::check_memory(self.cells(terms), noise, VECTORS, settings)?;
        // Seeds of all publishers are opened here or at the other worker.
        for name in terms.requisition_names() {
            if !parties.publisher_roots.contains_key(&name.parent()) {
                let publisher = name.parent();
                return Err(Refusal::new(format!(
                    "{} does not know {publisher}; add it to data_providers",
                    parties.me
                )));
            }
        }
        Ok(())
    }

    fn key_kind(&self, duchy: &DuchyId) -> KeyKind {
        if self.is_aggregator(duchy) { KeyKind::None } else { KeyKind::Hpke }
    }

    fn public_key(&self, terms: &Terms, _consent: &Consent, _me: &DuchyId, secrets: &ComputationSecrets) -> Vec<u8> {
        encryption_key::public_key(&terms.session, secrets)
    }

    fn publish(&self, _terms: &Terms, _me: &DuchyId, key: SignedKey) -> Result<requisition_params::Protocol, Refusal> {
        Ok(requisition_params::Protocol::HonestMajorityShareShuffle(requisition_params::HonestMajorityShareShuffle {
            tink_public_key: key.key,
            tink_public_key_signature: key.signature,
            tink_public_key_signature_algorithm_oid: key.oid,
        }))
    }

    fn published(&self, params: &requisition_params::Protocol) -> Option<SignedKey> {
        match params {
            requisition_params::Protocol::HonestMajorityShareShuffle(params) => Some(SignedKey {
                key: params.tink_public_key.clone(),
                signature: params.tink_public_key_signature.clone(),
                oid: params.tink_public_key_signature_algorithm_oid.clone(),
            }),
            _ => None,
        }
    }

    fn check_key(&self, terms: &Terms, duchy: &DuchyId, _certificate: &Certificate, key: &[u8]) -> Result<(), String> {
        if self.is_aggregator(duchy) {
            return if key.is_empty() { Ok(()) } else { Err("it gave a key, but an aggregator has none".to_owned()) };
        }
        encryption_key::check(&terms.session, key)
    }

    fn encrypts_to(&self, fulfilling: &DuchyId, duchy: &DuchyId) -> bool {
        duchy != fulfilling && !self.is_aggregator(duchy)
    }

    fn upload_shape(&self) -> Shape {
        match self.encoding() {
            Encoding::Bytes => Shape::Records(1),
            Encoding::Varints => Shape::Encoded { record: ENCODED_CELL, beside: ENCODED_BESIDE },
        }
    }

    fn read_upload(&self, terms: &Terms, header: &Header) -> Result<Vec<u8>, String> {
        let Some(upload::Protocol::HonestMajorityShareShuffle(shuffle)) = &header.protocol else {
            return Err(format!(
                "header.protocol: it is another protocol than the measurement's, which is {}",
                self.kind()
            ));
        };
        let due = self.cells(terms).cast_signed();
        for (field, found) in [
            ("record_count", header.record_count),
            ("honest_majority_share_shuffle.register_count", shuffle.register_count),
        ] {
            if found != due {
                return Err(format!("header.{field}: the share has {found} cells where {due} are due"));
            }
        }
        let path = "header.honest_majority_share_shuffle";
        let seed = shuffle.secret_seed.as_ref().map_or(0, |seed| seed.ciphertext.len());
        if !(1..=seed::MAX_BYTES).contains(&seed) {
            return Err(format!("{path}.secret_seed: it has {seed} bytes; 1 to {} are possible", seed::MAX_BYTES));
        }
        let name: RequisitionName = header.name.parse().map_err(|error| format!("header.name: {error}"))?;
        seed::check_certificate_name(&shuffle.data_provider_certificate, &name.parent())
            .map_err(|reason| format!("{path}.{reason}"))?;
        Ok(shuffle.encode_to_vec())
    }

    fn check_upload(&self, terms: &Terms, requisition: &str, body: &Body) -> Result<(), ProtocolError> {
        let refuse = |reason| ProtocolError::BadShare { requisition: requisition.to_owned(), reason };
        let (due, modulus) = (self.cells(terms), self.modulus(terms)?);
        let mut found = 0;
        cells::for_each(body, self.encoding(), refuse, |chunk| {
            share::check(modulus, chunk).map_err(|error| refuse(format!("from cell {found} on: {error}")))?;
            found += chunk.len() as u64;
            Ok(())
        })?;
        if found == due { Ok(()) } else { Err(refuse(format!("it has {found} cells where {due} are due"))) }
    }

    fn check_fulfilled(
        &self,
        terms: &Terms,
        parties: &Parties,
        name: &RequisitionName,
        requisition: &system::Requisition,
        now: Timestamp,
    ) -> Result<(), String> {
        let (found, due) = (requisition.record_count, self.cells(terms).cast_signed());
        if found != due {
            return Err(format!("its share has {found} cells where {due} are due"));
        }
        seed::check_certificate_name(&requisition.data_provider_certificate, &name.parent())?;
        let certificate = Certificate::from_der(&requisition.data_provider_certificate_der)
            .map_err(|error| format!("data_provider_certificate: {error}"))?;
        if self.is_aggregator(&parties.me) {
            return Ok(());
        }
        let roots = parties.publisher_roots.get(&name.parent());
        let roots = roots.ok_or_else(|| format!("{} is not known; add it to data_providers", name.parent()))?;
        roots.verify(&certificate, now.unix_seconds()).map_err(|error| format!("data_provider_certificate: {error}"))
    }

    fn message_number(&self, description: Description, from: &DuchyId) -> Option<i32> {
        use system::honest_majority_share_shuffle::Description as Wire;
        let wire = match description {
            Description::ShuffleInput if *from == self.0.first_worker => Wire::ShufflePhaseInputOne,
            Description::ShuffleInput if *from == self.0.second_worker => Wire::ShufflePhaseInputTwo,
            Description::AggregationInput => Wire::AggregationPhaseInput,
            _ => return None,
        };
        Some(wire.into())
    }

    fn message_header(&self, description: i32) -> Option<header::Protocol> {
        Some(header::Protocol::HonestMajorityShareShuffle(system::HonestMajorityShareShuffle { description }))
    }

    fn header_number(&self, header: &header::Protocol) -> Option<i32> {
        match header {
            header::Protocol::HonestMajorityShareShuffle(shuffle) => Some(shuffle.description),
            _ => None,
        }
    }

    fn message_record_bytes(&self, _terms: &Terms, _slot: &Slot, _me: &DuchyId) -> usize {
        1
    }

    fn message_limit(&self, slot: &Slot) -> Option<u64> {
        (slot.description == Description::ShuffleInput).then_some(hmss::MAX_SHUFFLE_INPUT)
    }

    fn check_message(&self, terms: &Terms, slot: &Slot, _me: &DuchyId, body: &Body) -> Result<(), ProtocolError> {
        if slot.description == Description::ShuffleInput {
            return self.check_relayed(terms, slot, body);
        }
        let modulus = self.modulus(terms)?;
        let origin = Origin::Duchy(slot.from.clone());
        let refuse = |record, reason| ProtocolError::BadRecord { origin: origin.clone(), record, reason };
        let mut first = 0;
        cells::for_each(
            body,
            Encoding::Bytes,
            |reason| refuse(0, reason),
            |chunk| {
                share::check(modulus, chunk).map_err(|error| refuse(first, error.to_string()))?;
                first += chunk.len() as u64;
                Ok(())
            },
        )
    }

    fn stage_number(&self, stage: Stage, me: &DuchyId) -> i32 {
        use system::honest_majority_share_shuffle_stage::Stage as Wire;
        let wire = match stage {
            Stage::InitializationPhase => Wire::Initialized,
            Stage::WaitRequisitionsAndKeySet | Stage::ConfirmationPhase | Stage::WaitToStart => Wire::WaitToStart,
            Stage::SetupPhase => Wire::SetupPhase,
            // Each worker waits for the other one's.
            Stage::WaitShufflePhaseInputs if *me == self.0.first_worker => Wire::WaitOnShuffleInputPhaseTwo,
            Stage::WaitShufflePhaseInputs => Wire::WaitOnShuffleInputPhaseOne,
            Stage::ShufflePhase => Wire::ShufflePhase,
            Stage::WaitAggregationPhaseInputs => Wire::WaitOnAggregationInput,
            Stage::AggregationPhase => Wire::AggregationPhase,
            Stage::Complete => Wire::Complete,
            _ => Wire::Unspecified,
        };
        wire.into()
    }

    fn wire_stage(&self, stage: i32) -> Option<computation_stage::Stage> {
        Some(computation_stage::Stage::HonestMajorityShareShuffleStage(system::HonestMajorityShareShuffleStage {
            stage,
        }))
    }

    fn side(&self, sitting: Sitting<'_>) -> Result<Box<dyn Side>, Unseated> {
        let Sitting { duchy, terms, secrets, uploads, .. } = sitting;
        let parameters = self.parameters(terms)?;
        let me = duchy.parties.me.clone();
        let roles = Roles {
            first_worker: self.0.first_worker.clone(),
            second_worker: self.0.second_worker.clone(),
            aggregator: self.0.aggregator.clone(),
        };
        let ComputationSecrets { key, seed } = secrets;
        if !self.is_aggregator(&me) && !matches!(key, ComputationKey::Hpke(_)) {
            return Err(Unseated::WrongKey);
        }
        let signed = Arc::clone(terms);
        let open_seed = move |name: &str, relayed: &[u8]| {
            let ComputationKey::Hpke(keyset) = &key else { return Err("there is no key to open it".to_owned()) };
            let requisition = signed.requisition(name).ok_or_else(|| "it is none of the computation's".to_owned())?;
            seed::open(keyset, name, requisition, relayed)
        };
        let computation = terms.name.computation.to_string();
        let engine = hmss::Duchy::new(parameters.clone(), computation, roles, me, seed, Arc::new(open_seed))?;
        let config = self.0.clone();
        Ok(Box::new(Seated {
            engine,
            prepare: prepare(uploads, self.encoding()),
            conclude: Box::new(move |outcome| result(&config, &parameters, outcome)),
        }))
    }
}

/// A byte a cell, whatever was uploaded.
fn prepare(uploads: Vec<Uploaded>, encoding: Encoding) -> Prepare<Requisition> {
    Box::new(move |workspace| {
        let requisition = |upload: &Uploaded| {
            let share = match encoding {
                Encoding::Bytes => Arc::clone(&upload.body),
                Encoding::Varints => {
                    let refuse = |reason| ProtocolError::BadBody { origin: Origin::Own, reason };
                    let mut decoded = workspace.create(1)?;
                    cells::for_each(&upload.body, encoding, refuse, |chunk| Ok(decoded.write(chunk)?))?;
                    decoded.finish()?
                }
            };
            Ok(Requisition { id: upload.requisition.clone(), share, encrypted_seed: upload.attachment.clone() })
        };
        uploads.iter().map(requisition).collect()
    })
}

/// Estimates, their standard errors and the noise in them. What no noise hides stays out where there is noise.
fn result(config: &HmssConfig, parameters: &Parameters, outcome: &Outcome) -> Result<MeasurementResult, ProtocolError> {
    let estimate = outcome.estimate(parameters)?;
    let mechanism = wire_mechanism(config.noise.map(|noise| noise.mechanism));
    let size = outcome.cells.cast_signed();
    let methodology = HonestMajorityShareShuffleMethodology { frequency_vector_size: size };
    let reach = Reach {
        value: estimate.reach.round() as i64,
        noise_mechanism: mechanism.into(),
        methodology: Some(reach::Methodology::HonestMajorityShareShuffle(methodology)),
        standard_error: estimate.reach_standard_error,
        noise_standard_deviation: outcome.reach_noise_sd,
        registers_in: 0,
        active_registers: 0,
        frequency_vector_size: size,
        suppressed: false,
    };
    let bins = |shares: &[f64]| -> BTreeMap<i64, f64> { (1..).zip(shares.iter().copied()).collect() };
    let frequency = outcome.histogram.as_ref().map(|histogram| {
        let found = estimate.frequency.as_ref();
        Frequency {
            relative_frequency_distribution: found.map(|found| bins(&found.shares)).unwrap_or_default(),
            noise_mechanism: mechanism.into(),
            methodology: Some(frequency::Methodology::HonestMajorityShareShuffle(methodology)),
            standard_errors: found.map(|found| bins(&found.standard_errors)).unwrap_or_default(),
            noise_standard_deviation: outcome.frequency_noise_sd,
            usable_registers: 0,
            usable_histogram: Vec::new(),
            histogram: if config.noise.is_none() { histogram.clone() } else { Vec::new() },
        }
    });
    Ok(MeasurementResult { reach: Some(reach), frequency, ..Default::default() })
}
