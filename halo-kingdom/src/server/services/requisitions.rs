//! `wfa.measurement.api.v2alpha.Requisitions`: the publishers' side.

use std::sync::Arc;

use halo_core::{
    measurement::RequisitionState,
    pb::api::{self, requisition::refusal::Justification, requisitions_server},
    resource::{CertificateParent, DataProviderName, MeasurementName, MeasurementRequisitionName, RequisitionName},
    wire::{self as core_wire, type_name},
};
use tonic::{Request, Response, Status};

use super::{answer, name, only_consumer, only_publisher, readable};
use crate::{
    lifecycle::Event,
    record::{Delivery, DirectResult, Fulfilment, Measurement, Refusal as RecordedRefusal, Requisition},
    server::{
        consent::usable_certificate,
        kingdom::Kingdom,
        limits::{MAX_TEXT, MAX_TYPE_URL, bounded, max_direct_result},
        page::{CHUNK, Page},
        refusal::Refusal,
        store::{Cursor, RequisitionQuery, States},
        wire,
    },
};

#[derive(Debug)]
pub(crate) struct Requisitions(pub(crate) Arc<Kingdom>);

#[tonic::async_trait]
impl requisitions_server::Requisitions for Requisitions {
    async fn list_requisitions(
        &self,
        request: Request<api::ListRequisitionsRequest>,
    ) -> Result<Response<api::ListRequisitionsResponse>, Status> {
        answer(self.list(&request).await)
    }

    async fn refuse_requisition(
        &self,
        request: Request<api::RefuseRequisitionRequest>,
    ) -> Result<Response<api::Requisition>, Status> {
        answer(self.refuse(&request).await)
    }

    async fn fulfill_direct_requisition(
        &self,
        request: Request<api::FulfillDirectRequisitionRequest>,
    ) -> Result<Response<api::FulfillDirectRequisitionResponse>, Status> {
        answer(self.fulfill_direct(&request).await)
    }

    async fn get_requisition(
        &self,
        request: Request<api::GetRequisitionRequest>,
    ) -> Result<Response<api::Requisition>, Status> {
        answer(self.get(&request).await)
    }
}

/// A requisition's record in its measurement.
pub(crate) fn part<'a>(measurement: &'a Measurement, name: &RequisitionName) -> Result<&'a Requisition, Refusal> {
    measurement.requisition(name).ok_or_else(|| crate::Error::NoSuchRequisition { requisition: name.clone() }.into())
}

fn not_found(name: impl ToString) -> Refusal {
    Refusal::NotFound { reason: "REQUISITION_NOT_FOUND", resource: name.to_string() }
}

impl Requisitions {
    /// The caller's own requisition, by either form of its name, once it has been delivered.
    async fn own(
        &self,
        caller: &CertificateParent,
        text: &str,
        permission: &'static str,
    ) -> Result<(RequisitionName, Measurement), Refusal> {
        if text.starts_with("measurementConsumers/") {
            let asked: MeasurementRequisitionName = name("name", text)?;
            let measurement = MeasurementName::new(asked.measurement_consumer, asked.measurement);
            only_consumer(caller, &measurement.parent(), permission, text)?;
            let measurement = self.0.store.measurement(&measurement).await?.ok_or_else(|| not_found(text))?;
            let found = measurement.requisitions.iter().find(|part| part.name.requisition == asked.requisition);
            let found = found.filter(|part| part.state != RequisitionState::PendingParams);
            let name = found.map(|part| part.name.clone()).ok_or_else(|| not_found(text))?;
            return Ok((name, measurement));
        }
        let name: RequisitionName = name("name", text)?;
        only_publisher(caller, &name.parent(), permission, text)?;
        let measurement = self.0.store.measurement_of(&name).await?.ok_or_else(|| not_found(text))?;
        if part(&measurement, &name)?.state == RequisitionState::PendingParams {
            return Err(not_found(text));
        }
        Ok((name, measurement))
    }

    async fn get(&self, request: &Request<api::GetRequisitionRequest>) -> Result<api::Requisition, Refusal> {
        let caller = self.0.caller(request)?;
        let (name, measurement) = self.own(&caller, &request.get_ref().name, "requisitions.get").await?;
        Ok(wire::requisition(&measurement, part(&measurement, &name)?)?)
    }

    async fn refuse(&self, request: &Request<api::RefuseRequisitionRequest>) -> Result<api::Requisition, Refusal> {
        const PERMISSION: &str = "requisitions.refuse";
        let caller = self.0.caller(request)?;
        let message = request.get_ref();
        let name: RequisitionName = name("name", &message.name)?;
        only_publisher(&caller, &name.parent(), PERMISSION, &message.name)?;
        let (_, measurement) = self.own(&caller, &message.name, PERMISSION).await?;
        let refusal = message.refusal.as_ref().ok_or(Refusal::Required("refusal"))?;
        if Justification::try_from(refusal.justification).is_err()
            || refusal.justification() == Justification::Unspecified
        {
            return Err(Refusal::invalid("refusal.justification", "it is none of the known reasons"));
        }
        readable("refusal.message", &refusal.message, MAX_TEXT)?;
        let event = Event::Refused {
            requisition: name.clone(),
            refusal: RecordedRefusal { justification: refusal.justification, message: refusal.message.clone() },
        };
        let guard = |measurement: &Measurement| check_etag(&message.etag, measurement, &name);
        let measurement = self.0.act(&measurement.computation, &event, &[], guard).await?;
        Ok(wire::requisition(&measurement, part(&measurement, &name)?)?)
    }

    /// Takes a publisher's own result, which only the consumer can read.
    async fn fulfill_direct(
        &self,
        request: &Request<api::FulfillDirectRequisitionRequest>,
    ) -> Result<api::FulfillDirectRequisitionResponse, Refusal> {
        const PERMISSION: &str = "requisitions.fulfill";
        let caller = self.0.caller(request)?;
        let message = request.get_ref();
        let name: RequisitionName = name("name", &message.name)?;
        only_publisher(&caller, &name.parent(), PERMISSION, &message.name)?;
        let (_, measurement) = self.own(&caller, &message.name, PERMISSION).await?;
        if message.nonce == 0 {
            return Err(Refusal::Required("nonce"));
        }
        let ciphertext = result_ciphertext(message)?;
        let spec = core_wire::parse_measurement_spec(&measurement.spec.message.bytes)?;
        bounded("encrypted_result", ciphertext.len(), max_direct_result(spec.kind.kind()))?;
        let owner = CertificateParent::from(name.parent());
        // Once a requisition is answered, the answer depends on what is stored alone.
        let (certificate, needs) = if part(&measurement, &name)?.state == RequisitionState::Unfulfilled {
            let store = self.0.store.as_ref();
            let usable = usable_certificate(store, "certificate", &message.certificate, &owner, self.0.now()).await?;
            (usable.0.clone(), vec![usable.0])
        } else {
            (super::name("certificate", &message.certificate)?, Vec::new())
        };
        let delivery = Delivery::Result(DirectResult { certificate, ciphertext: ciphertext.to_vec() });
        let context = super::fulfillment_context(
            message.fulfillment_context.as_ref().map(|context| (&context.build_label, &context.warnings)),
        );
        let fulfilment = Fulfilment { nonce: message.nonce, delivery, context };
        let event = Event::Fulfilled { requisition: name.clone(), fulfilment };
        let guard = |measurement: &Measurement| check_etag(&message.etag, measurement, &name);
        let measurement = self.0.act(&measurement.computation, &event, &needs, guard).await?;
        Ok(api::FulfillDirectRequisitionResponse { state: wire::requisition_state(part(&measurement, &name)?.state) })
    }

    async fn list(
        &self,
        request: &Request<api::ListRequisitionsRequest>,
    ) -> Result<api::ListRequisitionsResponse, Refusal> {
        const PERMISSION: &str = "requisitions.list";
        let caller = self.0.caller(request)?;
        let message = request.get_ref();
        let size = (message.page_size, 10, 500);
        let page = Page::new(&message.parent, message.filter.as_ref(), size, &message.page_token)?;
        let filter = message.filter.clone().unwrap_or_default();
        let states = wanted_states(&filter.states)?;
        let cursor = |part: &Requisition| Cursor { time: part.update_time, id: part.name.requisition };
        let mut filling = page.empty();
        if message.parent.starts_with("measurementConsumers/") {
            let parent: MeasurementName = name("parent", &message.parent)?;
            only_consumer(&caller, &parent.parent(), PERMISSION, &message.parent)?;
            let measurement =
                self.0.store.measurement(&parent).await?.ok_or_else(|| Refusal::NotFound {
                    reason: "MEASUREMENT_NOT_FOUND",
                    resource: parent.to_string(),
                })?;
            let behind = |part: &&Requisition| {
                page.after.is_none_or(|after| (part.update_time, part.name.requisition) > (after.time, after.id))
            };
            let wanted = |part: &&Requisition| States::of_requisitions(&[part.state]).bits() & states.bits() != 0;
            let mut parts: Vec<&Requisition> = measurement.requisitions.iter().filter(wanted).filter(behind).collect();
            parts.sort_by_key(|part| (part.update_time, part.name.requisition));
            for part in parts {
                if !filling.add(wire::requisition(&measurement, part)?, cursor(part)) {
                    break;
                }
            }
        } else {
            let data_provider: DataProviderName = name("parent", &message.parent)?;
            only_publisher(&caller, &data_provider, PERMISSION, &message.parent)?;
            let mut query = RequisitionQuery { data_provider, states, after: page.after, limit: CHUNK };
            'page: loop {
                let found = self.0.store.list_requisitions(&query).await?;
                if found.is_empty() {
                    break;
                }
                for (name, measurement) in found {
                    let part = part(&measurement, &name)?;
                    query.after = Some(cursor(part));
                    if !filling.add(wire::requisition(&measurement, part)?, cursor(part)) {
                        break 'page;
                    }
                }
            }
        }
        let (requisitions, next_page_token) = filling.finish();
        Ok(api::ListRequisitionsResponse { requisitions, next_page_token })
    }
}

/// Refuses an etag that is not that of the requisition as it is.
fn check_etag(etag: &str, measurement: &Measurement, name: &RequisitionName) -> Result<(), Refusal> {
    if etag.is_empty() || wire::requisition_etag(part(measurement, name)?) == etag {
        return Ok(());
    }
    Err(Refusal::Etag { reason: "REQUISITION_ETAG_MISMATCH", resource: name.to_string() })
}

/// The ciphertext of a signed result, also from clients that know the older field only.
fn result_ciphertext(message: &api::FulfillDirectRequisitionRequest) -> Result<&[u8], Refusal> {
    const FIELD: &str = "encrypted_result";
    let ciphertext = match &message.encrypted_result {
        Some(encrypted) => {
            let expected = core_wire::pack(type_name::SIGNED_MESSAGE, Vec::new()).type_url;
            if encrypted.type_url != expected {
                let shown: String = encrypted.type_url.chars().take(MAX_TYPE_URL).collect();
                return Err(Refusal::invalid(FIELD, format!("its type_url is {shown:?} instead of {expected}")));
            }
            &encrypted.ciphertext
        }
        #[expect(deprecated, reason = "older clients send nothing else")]
        None => &message.encrypted_result_ciphertext,
    };
    if ciphertext.is_empty() { Err(Refusal::Required(FIELD)) } else { Ok(ciphertext) }
}

/// The stored states of a filter; without one, all that have been delivered.
fn wanted_states(numbers: &[i32]) -> Result<States, Refusal> {
    let states = if numbers.is_empty() {
        RequisitionState::ALL.iter().copied().filter(|state| *state != RequisitionState::PendingParams).collect()
    } else {
        let state = |number: &i32| {
            wire::stored_requisition_state(*number)
                .ok_or_else(|| Refusal::invalid("filter.states", format!("{number} is the number of no state")))
        };
        numbers.iter().map(state).collect::<Result<Vec<_>, _>>()?
    };
    Ok(States::of_requisitions(&states))
}
