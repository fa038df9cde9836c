//! Between the Kingdom's records and the messages of its services.

use halo_core::{
    clock::Timestamp,
    measurement::{ParticipantState, RequisitionState},
    pb::{
        api::{
            self,
            measurement::{DataProviderEntry, ResultOutput, data_provider_entry::Value as DataProviderValue},
            requisition::{DuchyEntry, duchy_entry},
        },
        system::{
            self,
            computation_participant::{RequisitionParams, requisition_params},
        },
    },
    resource::{ComputationParticipantName, ComputationRequisitionName, DuchyName},
    session,
    wire::{self, type_name},
};
use prost::Message;
use prost_types::Any;
use sha2::{Digest, Sha256};

use super::store::{StoreError, TimelineEntry};
use crate::record::{Measurement, Participant, Requisition, Signed, Typed};

fn stored_config(measurement: &Measurement) -> Result<api::ProtocolConfig, StoreError> {
    api::ProtocolConfig::decode(measurement.protocol_config.as_slice())
        .map_err(|error| StoreError::Corrupt { what: "protocol_config", detail: error.to_string() })
}

/// Takes an `Any` apart.
pub(crate) fn typed(any: &Any) -> Typed {
    Typed { type_url: any.type_url.clone(), bytes: any.value.clone() }
}

fn any(typed: &Typed) -> Any {
    Any { type_url: typed.type_url.clone(), value: typed.bytes.clone() }
}

fn signed(signed: &Signed) -> api::SignedMessage {
    api::SignedMessage {
        message: Some(any(&signed.message)),
        signature: signed.signature.clone(),
        signature_algorithm_oid: signed.algorithm_oid.clone(),
        ..Default::default()
    }
}

fn encrypted(typed: &Typed) -> api::EncryptedMessage {
    api::EncryptedMessage { ciphertext: typed.bytes.clone(), type_url: typed.type_url.clone() }
}

/// A weak tag that changes whenever the resource does, even where the clock stands still.
fn etag(update_time: Timestamp, state: i32) -> String {
    let hash = Sha256::new().chain_update(update_time.unix_nanos().to_be_bytes()).chain_update(state.to_be_bytes());
    format!("W/\"{}\"", hex::encode(hash.finalize()))
}

/// The etag of a requisition.
pub(crate) fn requisition_etag(requisition: &Requisition) -> String {
    etag(requisition.update_time, requisition.state.number())
}

/// The etag of a participant.
pub(crate) fn participant_etag(participant: &Participant) -> String {
    etag(participant.update_time, participant.state.number())
}

/// The measurement as its consumer sees it.
pub(crate) fn measurement(measurement: &Measurement) -> Result<api::Measurement, StoreError> {
    let data_providers = measurement.requisitions.iter().map(|requisition| DataProviderEntry {
        key: requisition.name.parent().to_string(),
        value: Some(DataProviderValue {
            data_provider_certificate: requisition.certificate.to_string(),
            data_provider_public_key: Some(any(&requisition.public_key)),
            encrypted_requisition_spec: Some(encrypted(&requisition.encrypted_spec)),
            nonce_hash: requisition.nonce_hash.to_vec(),
        }),
    });
    let results = measurement.result.iter().map(|result| ResultOutput {
        encrypted_result: Some(api::EncryptedMessage {
            ciphertext: result.ciphertext.clone(),
            type_url: wire::pack(type_name::SIGNED_MESSAGE, Vec::new()).type_url,
        }),
        certificate: result.certificate.to_string(),
    });
    Ok(api::Measurement {
        name: measurement.name.to_string(),
        measurement_consumer_certificate: measurement.consumer_certificate.to_string(),
        measurement_spec: Some(signed(&measurement.spec)),
        data_providers: data_providers.collect(),
        protocol_config: Some(stored_config(measurement)?),
        state: measurement.state.public().number(),
        results: results.collect(),
        measurement_reference_id: measurement.reference_id.clone(),
        failure: measurement.failure.as_ref().map(|failure| api::measurement::Failure {
            reason: failure.reason.code(),
            message: failure.message.clone(),
            culprits: failure.culprits.clone(),
        }),
        create_time: Some(measurement.create_time.into()),
        update_time: Some(measurement.update_time.into()),
        deadline: Some(measurement.deadline.into()),
    })
}

/// The number of a requisition's state on the wire; 0 until it is delivered.
pub(crate) const fn requisition_state(state: RequisitionState) -> i32 {
    match state {
        RequisitionState::PendingParams => 0,
        RequisitionState::Unfulfilled => 1,
        RequisitionState::Fulfilled => 2,
        RequisitionState::Refused => 3,
        RequisitionState::Withdrawn => 4,
    }
}

/// The stored state of a number on the wire.
pub(crate) const fn stored_requisition_state(number: i32) -> Option<RequisitionState> {
    match number {
        1 => Some(RequisitionState::Unfulfilled),
        2 => Some(RequisitionState::Fulfilled),
        3 => Some(RequisitionState::Refused),
        4 => Some(RequisitionState::Withdrawn),
        _ => None,
    }
}

/// The requisition as its publisher and its consumer see it.
pub(crate) fn requisition(
    measurement: &Measurement,
    requisition: &Requisition,
) -> Result<api::Requisition, StoreError> {
    let duchies = measurement.participants.iter().filter_map(|participant| {
        let parameters = participant.parameters.as_ref()?;
        let key = api::SignedMessage {
            message: Some(wire::pack(type_name::EL_GAMAL_PUBLIC_KEY, parameters.public_key.clone())),
            signature: parameters.signature.clone(),
            signature_algorithm_oid: parameters.algorithm_oid.clone(),
            ..Default::default()
        };
        Some(DuchyEntry {
            key: DuchyName::new(participant.duchy.clone()).to_string(),
            value: Some(duchy_entry::Value {
                duchy_certificate: parameters.certificate.to_string(),
                protocol: Some(duchy_entry::value::Protocol::LiquidLegionsV2(duchy_entry::LiquidLegionsV2 {
                    el_gamal_public_key: Some(key),
                })),
            }),
        })
    });
    let fulfilment = requisition.fulfilment.as_ref();
    let context = fulfilment.and_then(|fulfilment| fulfilment.context.as_ref());
    Ok(api::Requisition {
        name: requisition.name.to_string(),
        measurement: measurement.name.to_string(),
        measurement_consumer_certificate: measurement.consumer_certificate.to_string(),
        measurement_spec: Some(signed(&measurement.spec)),
        protocol_config: Some(stored_config(measurement)?),
        data_provider_certificate: requisition.certificate.to_string(),
        data_provider_public_key: Some(any(&requisition.public_key)),
        encrypted_requisition_spec: Some(encrypted(&requisition.encrypted_spec)),
        duchies: duchies.collect(),
        state: requisition_state(requisition.state),
        nonce: fulfilment.map_or(0, |fulfilment| fulfilment.nonce),
        refusal: requisition.refusal.as_ref().map(|refusal| api::requisition::Refusal {
            justification: refusal.justification,
            message: refusal.message.clone(),
        }),
        fulfillment_context: context.map(|context| api::requisition::FulfillmentContext {
            build_label: context.build_label.clone(),
            warnings: context.warnings.clone(),
        }),
        measurement_state: measurement.state.public().number(),
        update_time: Some(requisition.update_time.into()),
        etag: requisition_etag(requisition),
        serialized_protocol_config: measurement.protocol_config.clone(),
        deadline: Some(measurement.deadline.into()),
        ..Default::default()
    })
}

/// The requisition as the Duchies see it.
pub(crate) fn computation_requisition(measurement: &Measurement, requisition: &Requisition) -> system::Requisition {
    let computation = measurement.computation.computation;
    let name = ComputationRequisitionName::new(computation, requisition.name.requisition);
    let fulfilment = requisition.fulfilment.as_ref();
    let context = fulfilment.and_then(|fulfilment| fulfilment.context.as_ref());
    system::Requisition {
        name: name.to_string(),
        requisition_spec_hash: session::requisition_spec_hash(&requisition.encrypted_spec.bytes).to_vec(),
        nonce_hash: requisition.nonce_hash.to_vec(),
        state: requisition_state(requisition.state),
        fulfilling_computation_participant: fulfilment.map_or_else(String::new, |fulfilment| {
            ComputationParticipantName::new(computation, fulfilment.duchy.clone()).to_string()
        }),
        nonce: fulfilment.map_or(0, |fulfilment| fulfilment.nonce),
        fulfillment_context: context.map(|context| system::requisition::FulfillmentContext {
            build_label: context.build_label.clone(),
            warnings: context.warnings.clone(),
        }),
        data_provider: requisition.name.parent().to_string(),
        key_list_hash: fulfilment.map_or_else(Vec::new, |fulfilment| fulfilment.key_list_hash.to_vec()),
        body_sha256: fulfilment.map_or_else(Vec::new, |fulfilment| fulfilment.body_sha256.to_vec()),
        record_count: fulfilment.map_or(0, |fulfilment| fulfilment.record_count.cast_signed()),
        data_provider_certificate: requisition.certificate.to_string(),
        data_provider_certificate_der: Vec::new(),
    }
}

/// A Duchy's part; `certificate_der` is the certificate of its key share, if it has given one.
pub(crate) fn participant(
    measurement: &Measurement,
    participant: &Participant,
    certificate_der: Vec<u8>,
) -> system::ComputationParticipant {
    let name = ComputationParticipantName::new(measurement.computation.computation, participant.duchy.clone());
    system::ComputationParticipant {
        name: name.to_string(),
        state: match participant.state {
            ParticipantState::Created => 1,
            ParticipantState::RequisitionParamsSet => 2,
            ParticipantState::Ready => 3,
            ParticipantState::Failed => 4,
        },
        update_time: Some(participant.update_time.into()),
        requisition_params: participant.parameters.as_ref().map(|parameters| RequisitionParams {
            duchy_certificate: parameters.certificate.to_string(),
            duchy_certificate_der: certificate_der,
            protocol: Some(requisition_params::Protocol::LiquidLegionsV2(requisition_params::LiquidLegionsV2 {
                el_gamal_public_key: parameters.public_key.clone(),
                el_gamal_public_key_signature: parameters.signature.clone(),
                el_gamal_public_key_signature_algorithm_oid: parameters.algorithm_oid.clone(),
            })),
        }),
        failure: participant.failure.as_ref().map(|failure| system::computation_participant::Failure {
            participant_child_reference_id: String::new(),
            error_message: failure.message.clone(),
            error_time: Some(participant.update_time.into()),
            stage_attempt: None,
            culprits: failure.culprits.clone(),
        }),
        etag: participant_etag(participant),
    }
}

/// The computation as the Duchies see it; `participants` are already made.
pub(crate) fn computation(
    measurement: &Measurement,
    participants: Vec<system::ComputationParticipant>,
    consumer_certificate_der: Vec<u8>,
) -> Result<system::Computation, StoreError> {
    let config = wire::parse_protocol_config(&measurement.protocol_config)
        .map_err(|error| StoreError::Corrupt { what: "protocol_config", detail: error.to_string() })?;
    let result = measurement.result.as_ref();
    Ok(system::Computation {
        name: measurement.computation.to_string(),
        public_api_version: "v2alpha".into(),
        measurement_spec: measurement.spec.message.bytes.clone(),
        state: measurement.state.number(),
        aggregator_certificate: result.map_or_else(String::new, |result| result.certificate.to_string()),
        encrypted_result: result.map_or_else(Vec::new, |result| result.ciphertext.clone()),
        computation_participants: participants,
        requisitions: measurement
            .requisitions
            .iter()
            .map(|requisition| computation_requisition(measurement, requisition))
            .collect(),
        mpc_protocol_config: wire::mpc_protocol_config(&config),
        serialized_protocol_config: measurement.protocol_config.clone(),
        measurement_spec_signature: measurement.spec.signature.clone(),
        measurement_spec_signature_algorithm_oid: measurement.spec.algorithm_oid.clone(),
        measurement_consumer_certificate_der: consumer_certificate_der,
        measurement_consumer: measurement.name.parent().to_string(),
        deadline: Some(measurement.deadline.into()),
        aggregator: measurement.aggregator.to_string(),
    })
}

/// What a consumer may know of a Duchy's report: which stage, when, and what time it took.
///
/// Numbers of records and bytes follow from the publishers' sketches, and so may memory: a consumer that knew them would
/// learn what the noise of the result is there to hide. They stay in the Kingdom's database, for its operator.
fn public_attempt(attempt: system::StageAttempt) -> system::StageAttempt {
    system::StageAttempt {
        stage: attempt.stage,
        stage_name: attempt.stage_name,
        stage_start_time: attempt.stage_start_time,
        attempt_number: attempt.attempt_number,
        cpu_seconds: attempt.cpu_seconds,
        wall_seconds: attempt.wall_seconds,
        ..Default::default()
    }
}

/// A line of the timeline, as the consumer sees it.
pub(crate) fn timeline_entry(entry: &TimelineEntry) -> Result<halo_core::pb::halo::TimelineEntry, StoreError> {
    let stage_attempt = entry.stage_attempt.as_deref().map(system::StageAttempt::decode).transpose();
    Ok(halo_core::pb::halo::TimelineEntry {
        time: Some(entry.time.into()),
        actor: entry.note.actor.clone(),
        message: entry.note.message.clone(),
        stage_attempt: stage_attempt
            .map_err(|error| StoreError::Corrupt { what: "stage_attempt", detail: error.to_string() })?
            .map(public_attempt),
        transient_error: entry.transient,
    })
}
