//! What a Duchy tells of its own part: `ComputationParticipants`, `Requisitions` and `ComputationLogEntries` of
//! `wfa.measurement.system.v1alpha`.

use std::{collections::BTreeSet, sync::Arc};

use halo_core::{
    pb::system::{
        self, computation_log_entries_server, computation_log_entry::error_details, computation_participants_server,
        requisitions_server,
    },
    resource::{
        CertificateParent, ComputationLogEntryName, ComputationName, ComputationParticipantName,
        ComputationRequisitionName, DuchyId, DuchyName,
    },
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{
    answer,
    computations::{shared_computation, verifies_publishers},
    fulfillment_context, hash, name, params, readable,
};
use crate::{
    Error,
    lifecycle::{Event, Note},
    record::{Delivery, Fulfilment, Measurement, Participant, ParticipantFailure, Upload},
    server::{
        consent::usable_certificate,
        kingdom::Kingdom,
        limits::{MAX_ERRORS, MAX_REPORTS, MAX_STAGE_NAME, MAX_TEXT, REPORTS_AFTER_END},
        refusal::Refusal,
        store::{StoreError, TimelineEntry},
        wire,
    },
};

/// So many characters of a name that is refused are repeated to the caller.
const MAX_SHOWN: usize = 100;

#[derive(Debug)]
pub(crate) struct Participants(pub(crate) Arc<Kingdom>);

#[tonic::async_trait]
impl computation_participants_server::ComputationParticipants for Participants {
    async fn get_computation_participant(
        &self,
        request: Request<system::GetComputationParticipantRequest>,
    ) -> Result<Response<system::ComputationParticipant>, Status> {
        answer(self.get(&request).await)
    }

    async fn set_participant_requisition_params(
        &self,
        request: Request<system::SetParticipantRequisitionParamsRequest>,
    ) -> Result<Response<system::ComputationParticipant>, Status> {
        answer(self.set_params(&request).await)
    }

    async fn fail_computation_participant(
        &self,
        request: Request<system::FailComputationParticipantRequest>,
    ) -> Result<Response<system::ComputationParticipant>, Status> {
        answer(self.fail(&request).await)
    }

    async fn confirm_computation_participant(
        &self,
        request: Request<system::ConfirmComputationParticipantRequest>,
    ) -> Result<Response<system::ComputationParticipant>, Status> {
        answer(self.confirm(&request).await)
    }
}

/// The caller, and the computation in which the name says that it takes part.
async fn own_part<T>(
    kingdom: &Kingdom,
    request: &Request<T>,
    text: &str,
    permission: &'static str,
) -> Result<(DuchyId, Measurement), Refusal> {
    let duchy = kingdom.calling_duchy(request, permission, text)?;
    let name: ComputationParticipantName = name("name", text)?;
    if name.participant != duchy {
        return Err(Refusal::denied(permission, text));
    }
    let measurement = shared_computation(kingdom, &duchy, &name.parent(), permission).await?;
    Ok((duchy, measurement))
}

fn part<'a>(measurement: &'a Measurement, duchy: &DuchyId) -> Result<&'a Participant, Refusal> {
    measurement.participant(duchy).ok_or_else(|| Error::NotParticipant { duchy: duchy.clone() }.into())
}

/// Everybody who can have caused that a measurement fails.
fn possible_culprits(measurement: &Measurement) -> BTreeSet<String> {
    let duchies = measurement.participants.iter().map(|part| DuchyName::new(part.duchy.clone()).to_string());
    let publishers = measurement.requisitions.iter().map(|part| part.name.parent().to_string());
    duchies.chain(publishers).chain(["kingdom".to_owned()]).collect()
}

/// Refuses an etag that is not that of the part as it is.
fn check_etag(etag: &str, measurement: &Measurement, duchy: &DuchyId) -> Result<(), Refusal> {
    if etag.is_empty() || wire::participant_etag(part(measurement, duchy)?) == etag {
        return Ok(());
    }
    let resource = ComputationParticipantName::new(measurement.computation.computation, duchy.clone()).to_string();
    Err(Refusal::Etag { reason: "COMPUTATION_PARTICIPANT_ETAG_MISMATCH", resource })
}

impl Participants {
    async fn view(
        &self,
        measurement: &Measurement,
        duchy: &DuchyId,
    ) -> Result<system::ComputationParticipant, Refusal> {
        let participant = part(measurement, duchy)?;
        let certificate = match &participant.parameters {
            Some(parameters) => self.0.store.certificate(&parameters.certificate).await?,
            None => None,
        };
        let der = certificate.map(|record| record.der).unwrap_or_default();
        Ok(wire::participant(measurement, participant, der))
    }

    async fn get(
        &self,
        request: &Request<system::GetComputationParticipantRequest>,
    ) -> Result<system::ComputationParticipant, Refusal> {
        let text = &request.get_ref().name;
        let (duchy, measurement) = own_part(&self.0, request, text, "computationParticipants.get").await?;
        self.view(&measurement, &duchy).await
    }

    async fn set_params(
        &self,
        request: &Request<system::SetParticipantRequisitionParamsRequest>,
    ) -> Result<system::ComputationParticipant, Refusal> {
        let asked = request.get_ref();
        let (duchy, measurement) =
            own_part(&self.0, request, &asked.name, "computationParticipants.setRequisitionParams").await?;
        let params = asked.requisition_params.as_ref().ok_or(Refusal::Required("requisition_params"))?;
        let given = params::read(&measurement.protocol, params)?;
        let owner = CertificateParent::from(DuchyName::new(duchy.clone()));
        let field = "requisition_params.duchy_certificate";
        let (certificate_name, certificate) =
            usable_certificate(self.0.store.as_ref(), field, &params.duchy_certificate, &owner, self.0.now()).await?;
        if !params.duchy_certificate_der.is_empty() && params.duchy_certificate_der != certificate.der() {
            return Err(Refusal::invalid(
                "requisition_params.duchy_certificate_der",
                format!("it is not {certificate_name}"),
            ));
        }
        let parameters = given.with_certificate(certificate_name.clone());
        if let Err(detail) = params::check(&measurement, &duchy, &certificate, &parameters) {
            self.blame(&measurement, &duchy, &detail).await?;
            return Err(Error::Key { duchy, detail }.into());
        }
        let event = Event::ParametersSet { duchy: duchy.clone(), parameters };
        let guard = |measurement: &Measurement| check_etag(&asked.etag, measurement, &duchy);
        let measurement = self.0.act(&measurement.computation, &event, &[certificate_name], guard).await?;
        self.view(&measurement, &duchy).await
    }

    /// Writes into the timeline that a Duchy's key was refused, as long as there is room for it.
    async fn blame(&self, measurement: &Measurement, duchy: &DuchyId, detail: &str) -> Result<(), Refusal> {
        let note = Note::new("kingdom", format!("refused the key of duchies/{duchy}: {detail}"));
        tracing::warn!(measurement = %measurement.name, culprit = %duchy, detail, "a key was refused");
        let entry = TimelineEntry { time: self.0.now(), note, stage_attempt: None, transient: true };
        match self.0.store.append_timeline(&measurement.computation, &entry, MAX_ERRORS).await {
            Ok(()) | Err(StoreError::Full { .. }) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    async fn confirm(
        &self,
        request: &Request<system::ConfirmComputationParticipantRequest>,
    ) -> Result<system::ComputationParticipant, Refusal> {
        let asked = request.get_ref();
        let (duchy, measurement) = own_part(&self.0, request, &asked.name, "computationParticipants.confirm").await?;
        let key_list_hash = hash("key_list_hash", &asked.key_list_hash)?;
        let event = Event::Confirmed { duchy: duchy.clone(), key_list_hash };
        let guard = |measurement: &Measurement| check_etag(&asked.etag, measurement, &duchy);
        let measurement = self.0.act(&measurement.computation, &event, &[], guard).await?;
        self.view(&measurement, &duchy).await
    }

    async fn fail(
        &self,
        request: &Request<system::FailComputationParticipantRequest>,
    ) -> Result<system::ComputationParticipant, Refusal> {
        let asked = request.get_ref();
        let (duchy, measurement) = own_part(&self.0, request, &asked.name, "computationParticipants.fail").await?;
        let failure = asked.failure.as_ref().ok_or(Refusal::Required("failure"))?;
        readable("failure.error_message", &failure.error_message, MAX_TEXT)?;
        let possible = possible_culprits(&measurement);
        if let Some(culprit) = failure.culprits.iter().find(|culprit| !possible.contains(*culprit)) {
            let shown: String = culprit.chars().take(MAX_SHOWN).collect();
            let detail = format!("{shown:?} is neither a Duchy nor a publisher of this measurement nor kingdom");
            return Err(Refusal::invalid("failure.culprits", detail));
        }
        let mut named = BTreeSet::new();
        let culprits = failure.culprits.iter().filter(|culprit| named.insert(*culprit)).cloned().collect();
        let message = match failure.stage_attempt.as_ref().map(|stage| stage.stage_name.as_str()) {
            None | Some("") => failure.error_message.clone(),
            Some(stage) => {
                readable("failure.stage_attempt.stage_name", stage, MAX_STAGE_NAME)?;
                format!("at {stage}: {}", failure.error_message)
            }
        };
        let failure = ParticipantFailure { message, culprits };
        let event = Event::ParticipantFailed { duchy: duchy.clone(), failure };
        let guard = |measurement: &Measurement| check_etag(&asked.etag, measurement, &duchy);
        let measurement = self.0.act(&measurement.computation, &event, &[], guard).await?;
        self.view(&measurement, &duchy).await
    }
}

#[derive(Debug)]
pub(crate) struct Requisitions(pub(crate) Arc<Kingdom>);

impl Requisitions {
    async fn fulfill(
        &self,
        request: &Request<system::FulfillRequisitionRequest>,
    ) -> Result<system::Requisition, Refusal> {
        const PERMISSION: &str = "requisitions.fulfill";
        let asked = request.get_ref();
        let duchy = self.0.calling_duchy(request, PERMISSION, &asked.name)?;
        let name: ComputationRequisitionName = name("name", &asked.name)?;
        let measurement = shared_computation(&self.0, &duchy, &name.parent(), PERMISSION).await?;
        let found = measurement.requisitions.iter().find(|part| part.name.requisition == name.requisition);
        let requisition = found
            .map(|part| part.name.clone())
            .ok_or_else(|| Refusal::NotFound { reason: "REQUISITION_NOT_FOUND", resource: asked.name.clone() })?;
        if asked.nonce == 0 {
            return Err(Refusal::Required("nonce"));
        }
        let context = fulfillment_context(
            asked.fulfillment_context.as_ref().map(|context| (&context.build_label, &context.warnings)),
        );
        let upload = Upload {
            duchy,
            key_list_hash: hash("key_list_hash", &asked.key_list_hash)?,
            body_sha256: hash("body_sha256", &asked.body_sha256)?,
            record_count: u64::try_from(asked.record_count)
                .map_err(|_| Refusal::invalid("record_count", "it is negative"))?,
        };
        let fulfilment = Fulfilment { nonce: asked.nonce, delivery: Delivery::Upload(upload), context };
        let guard = |measurement: &Measurement| match (asked.etag.as_str(), measurement.requisition(&requisition)) {
            ("", _) => Ok(()),
            (etag, Some(part)) if wire::requisition_etag(part) == etag => Ok(()),
            _ => Err(Refusal::Etag { reason: "REQUISITION_ETAG_MISMATCH", resource: asked.name.clone() }),
        };
        let event = Event::Fulfilled { requisition: requisition.clone(), fulfilment };
        let measurement = self.0.act(&measurement.computation, &event, &[], guard).await?;
        let part = measurement.requisition(&requisition);
        let part = part.ok_or_else(|| Error::NoSuchRequisition { requisition: requisition.clone() })?;
        let certificate =
            if verifies_publishers(&measurement) { self.0.store.certificate(&part.certificate).await? } else { None };
        let der = certificate.map(|record| record.der).unwrap_or_default();
        Ok(wire::computation_requisition(&measurement, part, der))
    }
}

#[tonic::async_trait]
impl requisitions_server::Requisitions for Requisitions {
    async fn fulfill_requisition(
        &self,
        request: Request<system::FulfillRequisitionRequest>,
    ) -> Result<Response<system::Requisition>, Status> {
        answer(self.fulfill(&request).await)
    }
}

#[derive(Debug)]
pub(crate) struct LogEntries(pub(crate) Arc<Kingdom>);

impl LogEntries {
    async fn create(
        &self,
        request: &Request<system::CreateComputationLogEntryRequest>,
    ) -> Result<system::ComputationLogEntry, Refusal> {
        let asked = request.get_ref();
        let (duchy, measurement) = own_part(&self.0, request, &asked.parent, "computationLogEntries.create").await?;
        let entry = asked.computation_log_entry.as_ref().ok_or(Refusal::Required("computation_log_entry"))?;
        readable("computation_log_entry.log_message", &entry.log_message, MAX_TEXT)?;
        let transient = match entry.error_details.as_ref().map(|details| details.r#type()) {
            None => false,
            Some(error_details::Type::Transient) => true,
            Some(error_details::Type::Permanent | error_details::Type::Unspecified) => {
                let detail = "only errors that are being retried are logged; others fail the participant";
                return Err(Refusal::invalid("computation_log_entry.error_details.type", detail));
            }
        };
        if let Some(stage) = &entry.stage_attempt {
            readable("computation_log_entry.stage_attempt.stage_name", &stage.stage_name, MAX_STAGE_NAME)?;
        }
        let now = self.0.now();
        // Who finishes the last stage ends the measurement with it, and reports both a moment later.
        let late = transient || now >= measurement.update_time + REPORTS_AFTER_END;
        if measurement.state.is_terminal() && late {
            let (measurement, state) = (measurement.name, measurement.state);
            return Err(Error::MeasurementState { measurement, state, action: "reporting" }.into());
        }
        let line = TimelineEntry {
            time: now,
            note: Note::new(DuchyName::new(duchy.clone()), entry.log_message.clone()),
            stage_attempt: entry.stage_attempt.as_ref().map(Message::encode_to_vec),
            transient,
        };
        let computation: &ComputationName = &measurement.computation;
        let most = if transient { MAX_ERRORS } else { MAX_REPORTS };
        self.0.store.append_timeline(computation, &line, most).await?;
        let name = ComputationLogEntryName::new(computation.computation, duchy, self.0.new_id());
        Ok(system::ComputationLogEntry { name: name.to_string(), ..entry.clone() })
    }
}

#[tonic::async_trait]
impl computation_log_entries_server::ComputationLogEntries for LogEntries {
    async fn create_computation_log_entry(
        &self,
        request: Request<system::CreateComputationLogEntryRequest>,
    ) -> Result<Response<system::ComputationLogEntry>, Status> {
        answer(self.create(&request).await)
    }
}
