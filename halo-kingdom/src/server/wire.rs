//! Between the Kingdom's records and the messages of its services.

use halo_core::{
    clock::Timestamp,
    measurement::{MeasurementState, ParticipantState, Protocol, RequisitionState},
    pb::{
        api::{
            self, data_provider,
            measurement::{DataProviderEntry, ResultOutput, data_provider_entry::Value as DataProviderValue},
            requisition::{DuchyEntry, duchy_entry},
        },
        system::{
            self,
            computation_participant::{RequisitionParams, requisition_params},
        },
    },
    resource::{CertificateName, ComputationParticipantName, ComputationRequisitionName, DuchyName},
    session,
    wire::{self, type_name},
};
use prost::Message;
use prost_types::Any;
use sha2::{Digest, Sha256};

use super::store::{StoreError, TimelineEntry};
use crate::{
    planner::Capabilities,
    record::{Fulfilment, Measurement, Parameters, Participant, Requisition, Signed, Typed},
};

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
    let output = |ciphertext: &[u8], certificate: &CertificateName| ResultOutput {
        encrypted_result: Some(api::EncryptedMessage {
            ciphertext: ciphertext.to_vec(),
            type_url: wire::pack(type_name::SIGNED_MESSAGE, Vec::new()).type_url,
        }),
        certificate: certificate.to_string(),
    };
    let computed = measurement.result.iter().map(|result| output(&result.ciphertext, &result.certificate));
    // A consumer that got some publishers' results of a measurement that fails would not be told so by the others.
    let succeeded = measurement.state == MeasurementState::Succeeded;
    let own = measurement.requisitions.iter().filter(|_| succeeded).filter_map(|requisition| {
        let result = requisition.fulfilment.as_ref().and_then(Fulfilment::result)?;
        Some(output(&result.ciphertext, &result.certificate))
    });
    Ok(api::Measurement {
        name: measurement.name.to_string(),
        measurement_consumer_certificate: measurement.consumer_certificate.to_string(),
        measurement_spec: Some(signed(&measurement.spec)),
        data_providers: data_providers.collect(),
        protocol_config: Some(stored_config(measurement)?),
        state: measurement.state.public().number(),
        results: computed.chain(own).collect(),
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

/// What a publisher needs of a Duchy; nothing of one that it has nothing to do with.
fn duchy_protocol(
    measurement: &Measurement,
    requisition: &Requisition,
    participant: &Participant,
    parameters: &Parameters,
) -> Option<duchy_entry::value::Protocol> {
    use duchy_entry::value::Protocol as Entry;
    let key = |name: &str| api::SignedMessage {
        message: Some(wire::pack(name, parameters.public_key.clone())),
        signature: parameters.signature.clone(),
        signature_algorithm_oid: parameters.algorithm_oid.clone(),
        ..Default::default()
    };
    let liquid_legions =
        || duchy_entry::LiquidLegionsV2 { el_gamal_public_key: Some(key(type_name::EL_GAMAL_PUBLIC_KEY)) };
    match &measurement.protocol {
        Protocol::Llv2(_) => Some(Entry::LiquidLegionsV2(liquid_legions())),
        Protocol::Rollv2(_) => Some(Entry::ReachOnlyLiquidLegionsV2(liquid_legions())),
        Protocol::Hmss(hmss) if participant.duchy == hmss.aggregator => None,
        Protocol::Hmss(_) => {
            // The seed of the share is for the worker that does not get the share.
            let takes_upload = measurement.fulfilling_duchy(&requisition.name).as_ref() == Some(&participant.duchy);
            let public_key = (!takes_upload).then(|| key(type_name::ENCRYPTION_PUBLIC_KEY));
            Some(Entry::HonestMajorityShareShuffle(duchy_entry::HonestMajorityShareShuffle { public_key }))
        }
        Protocol::Trustee(_) => Some(Entry::TrusTee(duchy_entry::TrusTee {
            public_key: Some(key(type_name::ENCRYPTION_PUBLIC_KEY)),
            attestation: parameters.attestation.clone(),
        })),
        Protocol::Direct(_) => None,
    }
}

/// The requisition as its publisher and its consumer see it.
pub(crate) fn requisition(
    measurement: &Measurement,
    requisition: &Requisition,
) -> Result<api::Requisition, StoreError> {
    let duchies = measurement.participants.iter().filter_map(|participant| {
        let parameters = participant.parameters.as_ref()?;
        let protocol = duchy_protocol(measurement, requisition, participant, parameters)?;
        Some(DuchyEntry {
            key: DuchyName::new(participant.duchy.clone()).to_string(),
            value: Some(duchy_entry::Value {
                duchy_certificate: parameters.certificate.to_string(),
                protocol: Some(protocol),
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

/// The requisition as the Duchies see it; `certificate_der` is the publisher's certificate where Duchies verify what it
/// signs.
pub(crate) fn computation_requisition(
    measurement: &Measurement,
    requisition: &Requisition,
    certificate_der: Vec<u8>,
) -> system::Requisition {
    let computation = measurement.computation.computation;
    let name = ComputationRequisitionName::new(computation, requisition.name.requisition);
    let fulfilment = requisition.fulfilment.as_ref();
    let upload = fulfilment.and_then(Fulfilment::upload);
    let context = fulfilment.and_then(|fulfilment| fulfilment.context.as_ref());
    system::Requisition {
        name: name.to_string(),
        requisition_spec_hash: session::requisition_spec_hash(&requisition.encrypted_spec.bytes).to_vec(),
        nonce_hash: requisition.nonce_hash.to_vec(),
        state: requisition_state(requisition.state),
        fulfilling_computation_participant: upload.map_or_else(String::new, |upload| {
            ComputationParticipantName::new(computation, upload.duchy.clone()).to_string()
        }),
        nonce: fulfilment.map_or(0, |fulfilment| fulfilment.nonce),
        fulfillment_context: context.map(|context| system::requisition::FulfillmentContext {
            build_label: context.build_label.clone(),
            warnings: context.warnings.clone(),
        }),
        data_provider: requisition.name.parent().to_string(),
        key_list_hash: upload.map_or_else(Vec::new, |upload| upload.key_list_hash.to_vec()),
        body_sha256: upload.map_or_else(Vec::new, |upload| upload.body_sha256.to_vec()),
        record_count: upload.map_or(0, |upload| upload.record_count.cast_signed()),
        data_provider_certificate: requisition.certificate.to_string(),
        data_provider_certificate_der: certificate_der,
    }
}

/// A Duchy's part; `certificate_der` is the certificate of its key, if it has given one.
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
            protocol: params_protocol(&measurement.protocol, parameters),
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

/// What a Duchy has given for a computation, in the message of the protocol.
fn params_protocol(protocol: &Protocol, parameters: &Parameters) -> Option<requisition_params::Protocol> {
    use requisition_params::Protocol as Params;
    let liquid_legions = || requisition_params::LiquidLegionsV2 {
        el_gamal_public_key: parameters.public_key.clone(),
        el_gamal_public_key_signature: parameters.signature.clone(),
        el_gamal_public_key_signature_algorithm_oid: parameters.algorithm_oid.clone(),
    };
    match protocol {
        Protocol::Llv2(_) => Some(Params::LiquidLegionsV2(liquid_legions())),
        Protocol::Rollv2(_) => Some(Params::ReachOnlyLiquidLegionsV2(liquid_legions())),
        Protocol::Hmss(_) => Some(Params::HonestMajorityShareShuffle(requisition_params::HonestMajorityShareShuffle {
            tink_public_key: parameters.public_key.clone(),
            tink_public_key_signature: parameters.signature.clone(),
            tink_public_key_signature_algorithm_oid: parameters.algorithm_oid.clone(),
        })),
        Protocol::Trustee(_) => Some(Params::TrusTee(requisition_params::TrusTee {
            tink_public_key: parameters.public_key.clone(),
            tink_public_key_signature: parameters.signature.clone(),
            tink_public_key_signature_algorithm_oid: parameters.algorithm_oid.clone(),
            attestation: parameters.attestation.clone(),
        })),
        Protocol::Direct(_) => None,
    }
}

/// The computation as the Duchies see it; `participants` and `requisitions` are already made.
pub(crate) fn computation(
    measurement: &Measurement,
    participants: Vec<system::ComputationParticipant>,
    requisitions: Vec<system::Requisition>,
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
        requisitions,
        mpc_protocol_config: wire::mpc_protocol_config(&config),
        serialized_protocol_config: measurement.protocol_config.clone(),
        measurement_spec_signature: measurement.spec.signature.clone(),
        measurement_spec_signature_algorithm_oid: measurement.spec.algorithm_oid.clone(),
        measurement_consumer_certificate_der: consumer_certificate_der,
        measurement_consumer: measurement.name.parent().to_string(),
        deadline: Some(measurement.deadline.into()),
        aggregator: measurement.protocol.aggregator().map_or_else(String::new, ToString::to_string),
    })
}

/// What a publisher says of its software.
pub(crate) const fn capabilities(message: &data_provider::Capabilities) -> Capabilities {
    Capabilities {
        hmss: message.honest_majority_share_shuffle_supported,
        hmss_native: message.honest_majority_share_shuffle_native_supported,
        trustee: message.trus_tee_supported,
        no_noise: message.noise_mechanism_none_supported,
        deterministic_noise: message.noise_mechanism_deterministic_truncated_laplace_supported,
    }
}

/// The message of [`capabilities`].
pub(crate) const fn capabilities_message(capabilities: Capabilities) -> data_provider::Capabilities {
    data_provider::Capabilities {
        honest_majority_share_shuffle_supported: capabilities.hmss,
        honest_majority_share_shuffle_native_supported: capabilities.hmss_native,
        trus_tee_supported: capabilities.trustee,
        noise_mechanism_none_supported: capabilities.no_noise,
        noise_mechanism_deterministic_truncated_laplace_supported: capabilities.deterministic_noise,
    }
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
