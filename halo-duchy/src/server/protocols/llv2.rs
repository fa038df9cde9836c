//! Liquid Legions v2 at the server.

use std::collections::BTreeMap;

use halo_core::measurement::{Llv2Config, MeasurementType, ProtocolKind};
use halo_core::pb::api::LiquidLegionsV2Methodology;
use halo_core::pb::api::fulfill_requisition_request::Header;
use halo_core::pb::api::measurement::Result as MeasurementResult;
use halo_core::pb::api::measurement::result::{Frequency, frequency, reach};
use halo_core::pb::system;
use halo_core::pb::system::advance_computation_request::header;
use halo_core::pb::system::computation_participant::requisition_params;
use halo_core::pb::system::computation_stage;
use halo_core::resource::DuchyId;
use halo_crypto::consent::x509::Certificate;

use super::{Protocol, Seated, Shape, Side, SignedKey, Sitting, Unseated, liquid_legions, wire_mechanism};
use crate::protocol::llv2::{self, Outcome, Parameters, REGISTER_BYTES};
use crate::protocol::{Body, Description, ProtocolError, Slot};
use crate::server::duchy::Settings;
use crate::server::parties::{Consent, Parties};
use crate::server::secrets::{ComputationSecrets, KeyKind};
use crate::server::stage::Stage;
use crate::server::terms::{Refusal, Terms};

/// What lies between confirmation and end, of both roles.
pub(super) const STAGES: &[Stage] = &[
    Stage::WaitToStart,
    Stage::WaitSetupPhaseInputs,
    Stage::SetupPhase,
    Stage::WaitExecutionPhaseOneInputs,
    Stage::ExecutionPhaseOne,
    Stage::WaitExecutionPhaseTwoInputs,
    Stage::ExecutionPhaseTwo,
    Stage::WaitExecutionPhaseThreeInputs,
    Stage::ExecutionPhaseThree,
];

#[derive(Debug)]
pub(super) struct Llv2(pub(super) Llv2Config);

impl Llv2 {
    fn parameters(&self, terms: &Terms) -> Result<Parameters, Refusal> {
        let Llv2Config { decay_rate, max_size, sampling_indicator_size, noise, .. } = &self.0;
        liquid_legions::parameters(terms, (*decay_rate, *max_size, *sampling_indicator_size), noise.as_ref())
    }
}

impl Protocol for Llv2 {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Llv2
    }

    fn check(&self, terms: &Terms, _parties: &Parties, settings: &Settings) -> Result<(), Refusal> {
        liquid_legions::check_noise(self.0.noise.as_ref(), &terms.spec, &settings.noise_floor)?;
        self.parameters(terms)?.check(terms.duchies.len()).map_err(|error| Refusal::new(error.to_string()))
    }

    fn key_kind(&self, _duchy: &DuchyId) -> KeyKind {
        KeyKind::ElGamal
    }

    fn public_key(&self, terms: &Terms, consent: &Consent, me: &DuchyId, secrets: &ComputationSecrets) -> Vec<u8> {
        liquid_legions::public_key(terms, consent, me, secrets)
    }

    fn publish(&self, _terms: &Terms, _me: &DuchyId, key: SignedKey) -> Result<requisition_params::Protocol, Refusal> {
        Ok(requisition_params::Protocol::LiquidLegionsV2(liquid_legions::publish(key)))
    }

    fn published(&self, params: &requisition_params::Protocol) -> Option<SignedKey> {
        match params {
            requisition_params::Protocol::LiquidLegionsV2(llv2) => Some(liquid_legions::published(llv2)),
            _ => None,
        }
    }

    fn check_key(&self, terms: &Terms, duchy: &DuchyId, certificate: &Certificate, key: &[u8]) -> Result<(), String> {
        liquid_legions::verified(terms, duchy, certificate, key).map(drop)
    }

    fn upload_shape(&self) -> Shape {
        Shape::Records(REGISTER_BYTES as u64)
    }

    fn read_upload(&self, _terms: &Terms, header: &Header) -> Result<Vec<u8>, String> {
        match &header.protocol {
            None => Ok(Vec::new()),
            Some(_) => Err("header.protocol: it is another protocol than the measurement's, which is llv2".to_owned()),
        }
    }

    fn check_upload(&self, _terms: &Terms, _requisition: &str, body: &Body) -> Result<(), ProtocolError> {
        llv2::check_requisition(body)
    }

    fn message_number(&self, description: Description, _from: &DuchyId) -> Option<i32> {
        use system::liquid_legions_v2::Description as Wire;
        let wire = match description {
            Description::SetupPhaseInput => Wire::SetupPhaseInput,
            Description::ExecutionPhaseOneInput => Wire::ExecutionPhaseOneInput,
            Description::ExecutionPhaseTwoInput => Wire::ExecutionPhaseTwoInput,
            Description::ExecutionPhaseThreeInput => Wire::ExecutionPhaseThreeInput,
            _ => return None,
        };
        Some(wire.into())
    }

    fn message_header(&self, description: i32) -> Option<header::Protocol> {
        Some(header::Protocol::LiquidLegionsV2(system::LiquidLegionsV2 { description }))
    }

    fn header_number(&self, header: &header::Protocol) -> Option<i32> {
        match header {
            header::Protocol::LiquidLegionsV2(llv2) => Some(llv2.description),
            _ => None,
        }
    }

    fn message_record_bytes(&self, terms: &Terms, slot: &Slot, me: &DuchyId) -> usize {
        let to_aggregator = *me == terms.aggregator;
        llv2::message_record_bytes(slot.description, to_aggregator, terms.spec.kind.maximum_frequency())
            .unwrap_or(REGISTER_BYTES)
    }

    fn check_message(&self, terms: &Terms, slot: &Slot, me: &DuchyId, body: &Body) -> Result<(), ProtocolError> {
        llv2::check_message(body, self.message_record_bytes(terms, slot, me), &slot.from)
    }

    fn stage_number(&self, stage: Stage, _me: &DuchyId) -> i32 {
        stage.number()
    }

    fn wire_stage(&self, stage: i32) -> Option<computation_stage::Stage> {
        Some(computation_stage::Stage::LiquidLegionsV2Stage(system::LiquidLegionsV2Stage { stage }))
    }

    fn side(&self, sitting: Sitting<'_>) -> Result<Box<dyn Side>, Unseated> {
        let Sitting { duchy, terms, keys, secrets, uploads } = sitting;
        let parameters = self.parameters(terms)?;
        let ring = liquid_legions::ring(terms, &keys)?;
        let (share, seed) = liquid_legions::secret(secrets)?;
        let computation = terms.name.computation.to_string();
        let me = duchy.parties.me.clone();
        let engine = llv2::Duchy::new(parameters.clone(), computation, ring, me, share, seed)?;
        let bodies: Vec<Body> = uploads.into_iter().map(|upload| upload.body).collect();
        let (config, kind) = (self.0.clone(), terms.spec.kind);
        Ok(Box::new(Seated {
            engine: engine.with_chunk_records(duchy.settings.chunk_records),
            prepare: Box::new(move |_| Ok(bodies.clone())),
            conclude: Box::new(move |outcome| result(&config, &kind, &parameters, outcome)),
        }))
    }
}

/// Estimates, their standard errors and the noise in them. What no noise hides stays out where there is noise.
fn result(
    config: &Llv2Config,
    kind: &MeasurementType,
    parameters: &Parameters,
    outcome: &Outcome,
) -> Result<MeasurementResult, ProtocolError> {
    let estimate = outcome.estimate(parameters)?;
    let noise = config.noise.as_ref();
    let methodology = reach::Methodology::LiquidLegionsV2(LiquidLegionsV2Methodology {});
    let reach = liquid_legions::reach(outcome, &estimate, noise, methodology);
    let bins = |shares: &[f64]| -> BTreeMap<i64, f64> { (1..).zip(shares.iter().copied()).collect() };
    let counts = matches!(kind, MeasurementType::ReachAndFrequency { .. });
    let frequency = counts.then(|| {
        let (shares, errors) = estimate
            .frequency
            .as_ref()
            .map(|found| (bins(&found.shares), bins(&found.standard_errors)))
            .unwrap_or_default();
        let usable = outcome.usable_histogram.as_ref().filter(|_| noise.is_none());
        Frequency {
            relative_frequency_distribution: shares,
            noise_mechanism: wire_mechanism(noise.map(|noise| noise.mechanism)).into(),
            methodology: Some(frequency::Methodology::LiquidLegionsV2(LiquidLegionsV2Methodology {})),
            standard_errors: errors,
            noise_standard_deviation: outcome.frequency_noise_sd,
            usable_registers: usable.map_or(0, |bins| bins.iter().sum()),
            usable_histogram: usable.cloned().unwrap_or_default(),
            histogram: Vec::new(),
        }
    });
    Ok(MeasurementResult { reach: Some(reach), frequency, ..Default::default() })
}
