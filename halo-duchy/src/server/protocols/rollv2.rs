//! Reach-only Liquid Legions v2 at the server.

use halo_core::measurement::{ProtocolKind, Rollv2Config};
use halo_core::pb::api::ReachOnlyLiquidLegionsV2Methodology;
use halo_core::pb::api::fulfill_requisition_request::Header;
use halo_core::pb::api::measurement::Result as MeasurementResult;
use halo_core::pb::api::measurement::result::reach;
use halo_core::pb::system;
use halo_core::pb::system::advance_computation_request::header;
use halo_core::pb::system::computation_participant::requisition_params;
use halo_core::pb::system::computation_stage;
use halo_core::resource::DuchyId;
use halo_crypto::consent::x509::Certificate;

use super::{Protocol, Seated, Shape, Side, SignedKey, Sitting, Unseated, liquid_legions};
use crate::protocol::llv2::Parameters;
use crate::protocol::rollv2::{self, REGISTER_BYTES};
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
    Stage::WaitExecutionPhaseInputs,
    Stage::ExecutionPhase,
];

#[derive(Debug)]
pub(super) struct Rollv2(pub(super) Rollv2Config);

impl Rollv2 {
    fn parameters(&self, terms: &Terms) -> Result<Parameters, Refusal> {
        let Rollv2Config { decay_rate, max_size, noise, .. } = &self.0;
        liquid_legions::parameters(terms, (*decay_rate, *max_size, 1), noise.as_ref())
    }
}

impl Protocol for Rollv2 {
    fn kind(&self) -> ProtocolKind {
        ProtocolKind::Rollv2
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
        Ok(requisition_params::Protocol::ReachOnlyLiquidLegionsV2(liquid_legions::publish(key)))
    }

    fn published(&self, params: &requisition_params::Protocol) -> Option<SignedKey> {
        match params {
            requisition_params::Protocol::ReachOnlyLiquidLegionsV2(rollv2) => Some(liquid_legions::published(rollv2)),
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
            Some(_) => {
                Err("header.protocol: it is another protocol than the measurement's, which is rollv2".to_owned())
            }
        }
    }

    fn check_upload(&self, _terms: &Terms, _requisition: &str, body: &Body) -> Result<(), ProtocolError> {
        rollv2::check_requisition(body)
    }

    fn message_number(&self, description: Description, _from: &DuchyId) -> Option<i32> {
        use system::reach_only_liquid_legions_v2::Description as Wire;
        match description {
            Description::SetupPhaseInput => Some(Wire::SetupPhaseInput.into()),
            Description::ReachOnlyExecutionInput => Some(Wire::ExecutionPhaseInput.into()),
            _ => None,
        }
    }

    fn message_header(&self, description: i32) -> Option<header::Protocol> {
        Some(header::Protocol::ReachOnlyLiquidLegionsV2(system::ReachOnlyLiquidLegionsV2 { description }))
    }

    fn header_number(&self, header: &header::Protocol) -> Option<i32> {
        match header {
            header::Protocol::ReachOnlyLiquidLegionsV2(rollv2) => Some(rollv2.description),
            _ => None,
        }
    }

    fn message_record_bytes(&self, _terms: &Terms, _slot: &Slot, _me: &DuchyId) -> usize {
        REGISTER_BYTES
    }

    fn check_message(&self, _terms: &Terms, slot: &Slot, _me: &DuchyId, body: &Body) -> Result<(), ProtocolError> {
        rollv2::check_message(body, &slot.from)
    }

    fn stage_number(&self, stage: Stage, _me: &DuchyId) -> i32 {
        use system::reach_only_liquid_legions_v2_stage::Stage as Wire;
        let wire = match stage {
            Stage::InitializationPhase => Wire::InitializationPhase,
            Stage::WaitRequisitionsAndKeySet => Wire::WaitRequisitionsAndKeySet,
            Stage::ConfirmationPhase => Wire::ConfirmationPhase,
            Stage::WaitToStart => Wire::WaitToStart,
            Stage::WaitSetupPhaseInputs => Wire::WaitSetupPhaseInputs,
            Stage::SetupPhase => Wire::SetupPhase,
            Stage::WaitExecutionPhaseInputs => Wire::WaitExecutionPhaseInputs,
            Stage::ExecutionPhase => Wire::ExecutionPhase,
            Stage::Complete => Wire::Complete,
            _ => Wire::Unspecified,
        };
        wire.into()
    }

    fn wire_stage(&self, stage: i32) -> Option<computation_stage::Stage> {
        Some(computation_stage::Stage::ReachOnlyLiquidLegionsStage(system::ReachOnlyLiquidLegionsV2Stage { stage }))
    }

    fn side(&self, sitting: Sitting<'_>) -> Result<Box<dyn Side>, Unseated> {
        let Sitting { duchy, terms, keys, secrets, uploads } = sitting;
        let parameters = self.parameters(terms)?;
        let ring = liquid_legions::ring(terms, &keys)?;
        let (share, seed) = liquid_legions::secret(secrets)?;
        let computation = terms.name.computation.to_string();
        let me = duchy.parties.me.clone();
        let engine = rollv2::Duchy::new(parameters.clone(), computation, ring, me, share, seed)?;
        let bodies: Vec<Body> = uploads.into_iter().map(|upload| upload.body).collect();
        let noise = self.0.noise;
        Ok(Box::new(Seated {
            engine: engine.with_chunk_records(duchy.settings.chunk_records),
            prepare: Box::new(move |_| Ok(bodies.clone())),
            conclude: Box::new(move |outcome| {
                let methodology = reach::Methodology::ReachOnlyLiquidLegionsV2(ReachOnlyLiquidLegionsV2Methodology {});
                let estimate = outcome.estimate(&parameters)?;
                let reach = liquid_legions::reach(outcome, &estimate, noise.as_ref(), methodology);
                Ok(MeasurementResult { reach: Some(reach), ..Default::default() })
            }),
        }))
    }
}
