//! `wfa.measurement.api.v2alpha.Measurements`.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use halo_core::{
    clock::Timestamp,
    measurement::{MeasurementState, ParticipantState, PublicMeasurementState, RequisitionState},
    pb::api::{self, measurements_server},
    resource::{
        CertificateName, CertificateParent, ComputationName, DataProviderName, MeasurementConsumerName,
        MeasurementName, RequisitionName,
    },
    wire::{self as core_wire, type_name},
};
use prost::Message;
use tonic::{Request, Response, Status};

use super::{answer, computations, name, only_consumer, readable};
use crate::{
    lifecycle::{Event, Note},
    planner::{Publisher, check_publishers},
    record::{Measurement, Participant, Requisition, Signed, Typed},
    server::{
        consent::{check_public_key, usable_certificate},
        kingdom::Kingdom,
        limits::{
            MAX_MEASUREMENT_SPEC, MAX_PUBLIC_KEY, MAX_REQUISITION_SPEC, MAX_TYPE_URL, bounded, check_answer, check_fit,
            framed_len,
        },
        page::{CHUNK, Page},
        refusal::Refusal,
        store::{Cursor, MeasurementQuery, NewMeasurement, States, StoreError},
        wire,
    },
};

/// Most measurements of one batch.
const MAX_BATCH: usize = 50;
/// Longest id of a request.
const MAX_REQUEST_ID: usize = 36;
/// Longest label that a consumer gives a measurement.
const MAX_REFERENCE_ID: usize = 256;

#[derive(Debug)]
pub(crate) struct Measurements(pub(crate) Arc<Kingdom>);

#[tonic::async_trait]
impl measurements_server::Measurements for Measurements {
    async fn get_measurement(
        &self,
        request: Request<api::GetMeasurementRequest>,
    ) -> Result<Response<api::Measurement>, Status> {
        answer(self.get(&request).await)
    }

    async fn create_measurement(
        &self,
        request: Request<api::CreateMeasurementRequest>,
    ) -> Result<Response<api::Measurement>, Status> {
        answer(self.create(&request).await)
    }

    async fn list_measurements(
        &self,
        request: Request<api::ListMeasurementsRequest>,
    ) -> Result<Response<api::ListMeasurementsResponse>, Status> {
        answer(self.list(&request).await)
    }

    async fn cancel_measurement(
        &self,
        request: Request<api::CancelMeasurementRequest>,
    ) -> Result<Response<api::Measurement>, Status> {
        answer(self.cancel(&request).await)
    }

    async fn batch_create_measurements(
        &self,
        request: Request<api::BatchCreateMeasurementsRequest>,
    ) -> Result<Response<api::BatchCreateMeasurementsResponse>, Status> {
        answer(self.batch_create(&request).await)
    }

    async fn batch_get_measurements(
        &self,
        request: Request<api::BatchGetMeasurementsRequest>,
    ) -> Result<Response<api::BatchGetMeasurementsResponse>, Status> {
        answer(self.batch_get(&request).await)
    }
}

/// A measurement that may be created.
struct Checked {
    measurement: Measurement,
    /// The certificates that it relies on.
    needs: Vec<CertificateName>,
    /// First lines of its timeline.
    timeline: Vec<Note>,
}

/// The caller's own measurement.
pub(crate) async fn own_measurement(
    kingdom: &Kingdom,
    caller: &CertificateParent,
    text: &str,
    permission: &'static str,
) -> Result<Measurement, Refusal> {
    let measurement: MeasurementName = name("name", text)?;
    only_consumer(caller, &measurement.parent(), permission, text)?;
    kingdom
        .store
        .measurement(&measurement)
        .await?
        .ok_or_else(|| Refusal::NotFound { reason: "MEASUREMENT_NOT_FOUND", resource: measurement.to_string() })
}

impl Measurements {
    async fn get(&self, request: &Request<api::GetMeasurementRequest>) -> Result<api::Measurement, Refusal> {
        let caller = self.0.caller(request)?;
        let measurement = own_measurement(&self.0, &caller, &request.get_ref().name, "measurements.get").await?;
        Ok(wire::measurement(&measurement)?)
    }

    async fn batch_get(
        &self,
        request: &Request<api::BatchGetMeasurementsRequest>,
    ) -> Result<api::BatchGetMeasurementsResponse, Refusal> {
        const PERMISSION: &str = "measurements.get";
        let caller = self.0.caller(request)?;
        let message = request.get_ref();
        let parent: MeasurementConsumerName = name("parent", &message.parent)?;
        only_consumer(&caller, &parent, PERMISSION, &message.parent)?;
        batch_size("names", message.names.len())?;
        let mut answer = api::BatchGetMeasurementsResponse::default();
        let mut size = 0;
        for text in &message.names {
            let measurement = wire::measurement(&own_measurement(&self.0, &caller, text, PERMISSION).await?)?;
            size += framed_len(&measurement);
            check_answer("names", size)?;
            answer.measurements.push(measurement);
        }
        Ok(answer)
    }

    async fn cancel(&self, request: &Request<api::CancelMeasurementRequest>) -> Result<api::Measurement, Refusal> {
        let caller = self.0.caller(request)?;
        let measurement = own_measurement(&self.0, &caller, &request.get_ref().name, "measurements.cancel").await?;
        if measurement.state == MeasurementState::Cancelled {
            return Err(crate::Error::MeasurementState {
                measurement: measurement.name,
                state: measurement.state,
                action: "cancelling",
            }
            .into());
        }
        let cancelled = self.0.act(&measurement.computation, &Event::Cancelled, &[], |_| Ok(())).await?;
        Ok(wire::measurement(&cancelled)?)
    }

    async fn list(
        &self,
        request: &Request<api::ListMeasurementsRequest>,
    ) -> Result<api::ListMeasurementsResponse, Refusal> {
        let caller = self.0.caller(request)?;
        let message = request.get_ref();
        let consumer: MeasurementConsumerName = name("parent", &message.parent)?;
        only_consumer(&caller, &consumer, "measurements.list", &message.parent)?;
        let size = (message.page_size, 50, 1000);
        let page = Page::new(&message.parent, message.filter.as_ref(), size, &message.page_token)?;
        let filter = message.filter.clone().unwrap_or_default();
        let time = |field: &'static str, time: &Option<prost_types::Timestamp>| -> Result<Option<Timestamp>, Refusal> {
            Ok(time.as_ref().map(|time| core_wire::timestamp(field, time)).transpose()?)
        };
        let mut query = MeasurementQuery {
            consumer,
            states: wanted_states(&filter.states)?,
            updated_after: time("filter.updated_after", &filter.updated_after)?,
            updated_before: time("filter.updated_before", &filter.updated_before)?,
            created_after: time("filter.created_after", &filter.created_after)?,
            created_before: time("filter.created_before", &filter.created_before)?,
            after: page.after,
            limit: CHUNK,
        };
        let mut filling = page.empty();
        'page: loop {
            let found = self.0.store.list_measurements(&query).await?;
            if found.is_empty() {
                break;
            }
            for measurement in found {
                let cursor = Cursor { time: measurement.update_time, id: measurement.name.measurement };
                query.after = Some(cursor);
                if !filling.add(wire::measurement(&measurement)?, cursor) {
                    break 'page;
                }
            }
        }
        let (measurements, next_page_token) = filling.finish();
        Ok(api::ListMeasurementsResponse { measurements, next_page_token })
    }

    async fn create(&self, request: &Request<api::CreateMeasurementRequest>) -> Result<api::Measurement, Refusal> {
        let caller = self.0.caller(request)?;
        let message = request.get_ref();
        let parent: MeasurementConsumerName = name("parent", &message.parent)?;
        only_consumer(&caller, &parent, "measurements.create", &message.parent)?;
        let mut created = self.create_all(&parent, std::slice::from_ref(message)).await?;
        created.pop().ok_or(Refusal::Required("measurement"))
    }

    async fn batch_create(
        &self,
        request: &Request<api::BatchCreateMeasurementsRequest>,
    ) -> Result<api::BatchCreateMeasurementsResponse, Refusal> {
        let caller = self.0.caller(request)?;
        let message = request.get_ref();
        let parent: MeasurementConsumerName = name("parent", &message.parent)?;
        only_consumer(&caller, &parent, "measurements.create", &message.parent)?;
        batch_size("requests", message.requests.len())?;
        if let Some(other) = message.requests.iter().find(|one| !one.parent.is_empty() && one.parent != message.parent)
        {
            return Err(Refusal::invalid(
                "requests.parent",
                format!("{:?} is not the parent of the batch", other.parent),
            ));
        }
        let mut ids = BTreeSet::new();
        if message.requests.iter().any(|one| !one.request_id.is_empty() && !ids.insert(&one.request_id)) {
            return Err(Refusal::invalid("requests.request_id", "one is there twice"));
        }
        Ok(api::BatchCreateMeasurementsResponse { measurements: self.create_all(&parent, &message.requests).await? })
    }

    /// Creates what was not created before, all of it or nothing, and answers in the order of the requests.
    async fn create_all(
        &self,
        consumer: &MeasurementConsumerName,
        requests: &[api::CreateMeasurementRequest],
    ) -> Result<Vec<api::Measurement>, Refusal> {
        let mut again = false;
        loop {
            let (mut all, mut new, mut needs) = (Vec::new(), Vec::new(), Vec::new());
            for request in requests {
                if request.request_id.len() > MAX_REQUEST_ID || !request.request_id.is_ascii() {
                    return Err(Refusal::invalid(
                        "request_id",
                        format!("it has more than {MAX_REQUEST_ID} ASCII characters"),
                    ));
                }
                // A repetition is recognised before anything else: certificates may have changed since.
                let known = match request.request_id.as_str() {
                    "" => None,
                    request_id => self.0.store.measurement_by_request(consumer, request_id).await?,
                };
                if let Some(known) = known {
                    all.push(known);
                    continue;
                }
                let asked = request.measurement.as_ref().ok_or(Refusal::Required("measurement"))?;
                let mut checked = self.check(consumer, asked).await?;
                needs.append(&mut checked.needs);
                new.push(NewMeasurement {
                    measurement: checked.measurement.clone(),
                    request_id: (!request.request_id.is_empty()).then(|| request.request_id.clone()),
                    timeline: checked.timeline,
                });
                all.push(checked.measurement);
            }
            let answer = all.iter().map(wire::measurement).collect::<Result<Vec<_>, _>>()?;
            check_answer("requests", answer.iter().map(framed_len).sum())?;
            let lines: Vec<(String, Note)> = new
                .iter()
                .flat_map(|one| one.timeline.iter().map(|note| (one.measurement.name.to_string(), note.clone())))
                .collect();
            match if new.is_empty() { Ok(()) } else { self.0.create(new, needs).await } {
                // Somebody else sent the same request at the same moment.
                Err(StoreError::AlreadyExists(_)) if !again => again = true,
                Err(error) => return Err(error.into()),
                Ok(()) => {
                    for (measurement, note) in lines {
                        tracing::info!(measurement, actor = note.actor, "{}", note.message);
                    }
                    return Ok(answer);
                }
            }
        }
    }

    /// Checks everything that can be checked without reading what is encrypted, and plans the measurement.
    async fn check(&self, consumer: &MeasurementConsumerName, asked: &api::Measurement) -> Result<Checked, Refusal> {
        let kingdom = &self.0;
        let now = kingdom.now();
        let owner = CertificateParent::from(consumer.clone());
        let (consumer_certificate, certificate) = usable_certificate(
            kingdom.store.as_ref(),
            "measurement_consumer_certificate",
            &asked.measurement_consumer_certificate,
            &owner,
            now,
        )
        .await?;
        readable("measurement_reference_id", &asked.measurement_reference_id, MAX_REFERENCE_ID)?;

        let bytes =
            core_wire::signed_bytes("measurement_spec", asked.measurement_spec.as_ref(), type_name::MEASUREMENT_SPEC)?;
        let signed = asked.measurement_spec.as_ref().ok_or(Refusal::Required("measurement_spec"))?;
        bounded("measurement_spec.message", bytes.len(), MAX_MEASUREMENT_SPEC)?;
        let type_url = signed.message.as_ref().map_or(0, |message| message.type_url.len());
        bounded("measurement_spec.message.type_url", type_url, MAX_TYPE_URL)?;
        certificate
            .verify_signature(bytes, &signed.signature_algorithm_oid, &signed.signature)
            .map_err(|error| Refusal::invalid("measurement_spec.signature", error))?;
        let spec = core_wire::parse_measurement_spec(bytes)?;
        check_public_key("measurement_spec.measurement_public_key", &spec.measurement_public_key)?;
        check_publishers(asked.data_providers.len())?;

        let mut needs = vec![consumer_certificate.clone()];
        let mut requisitions: Vec<Requisition> = Vec::with_capacity(asked.data_providers.len());
        let mut publishers = Vec::with_capacity(asked.data_providers.len());
        let mut seen = BTreeSet::new();
        for entry in &asked.data_providers {
            let (requisition, publisher) = self.check_publisher(entry, now).await?;
            publishers.push(publisher);
            if !seen.insert(requisition.name.data_provider) {
                return Err(Refusal::invalid("data_providers", format!("{} is there twice", entry.key)));
            }
            needs.push(requisition.certificate.clone());
            requisitions.push(requisition);
        }
        check_nonce_hashes(&spec.nonce_hashes, &requisitions)?;
        let plan = kingdom.planner.plan(&spec, &publishers)?;
        // Publishers that compute by themselves need no keys of Duchies.
        let state = if plan.participants.is_empty() {
            requisitions.iter_mut().for_each(|requisition| requisition.state = RequisitionState::Unfulfilled);
            MeasurementState::PendingRequisitionFulfillment
        } else {
            MeasurementState::PendingRequisitionParams
        };

        let deadline = match &asked.deadline {
            Some(deadline) => core_wire::timestamp("deadline", deadline)?,
            None => now + kingdom.default_deadline,
        };
        if deadline <= now {
            return Err(Refusal::invalid("deadline", format!("{deadline} is not in the future; it is {now} here")));
        }
        let latest = now + kingdom.maximum_deadline;
        if deadline > latest {
            return Err(Refusal::invalid("deadline", format!("{deadline} is too late; the latest is {latest} now")));
        }
        let participants = plan.participants.iter().map(|duchy| Participant {
            duchy: duchy.clone(),
            state: ParticipantState::Created,
            update_time: now,
            parameters: None,
            failure: None,
        });
        let message = signed.message.as_ref().map(wire::typed).ok_or(Refusal::Required("measurement_spec.message"))?;
        let measurement = Measurement {
            name: MeasurementName::new(consumer.measurement_consumer, kingdom.new_id()),
            computation: ComputationName::new(kingdom.new_id()),
            reference_id: asked.measurement_reference_id.clone(),
            consumer_certificate,
            spec: Signed {
                message,
                signature: signed.signature.clone(),
                algorithm_oid: signed.signature_algorithm_oid.clone(),
            },
            protocol_config: core_wire::protocol_config(&plan.config).encode_to_vec(),
            protocol: plan.config.protocol.clone(),
            state,
            create_time: now,
            update_time: now,
            deadline,
            requisitions,
            participants: participants.collect(),
            failure: None,
            result: None,
            revision: 0,
        };
        check_fit(&measurement, spec.kind.kind(), &computations::view(kingdom, &measurement).await?)?;
        let timeline = vec![
            Note::new(consumer, "created the measurement"),
            Note::new("kingdom", format!("planned {}", plan.explanation())),
        ];
        Ok(Checked { measurement, needs, timeline })
    }

    /// Checks one publisher's entry and makes its requisition. Also tells what the publisher can do.
    async fn check_publisher(
        &self,
        entry: &api::measurement::DataProviderEntry,
        now: Timestamp,
    ) -> Result<(Requisition, Publisher), Refusal> {
        let kingdom = &self.0;
        let publisher: DataProviderName = name("data_providers.key", &entry.key)?;
        let value = entry.value.as_ref().ok_or(Refusal::Required("data_providers.value"))?;
        let owner = CertificateParent::from(publisher.clone());
        let party = kingdom.party(&owner).await?.ok_or_else(|| Refusal::Precondition {
            reason: "DATA_PROVIDER_NOT_FOUND",
            resource: entry.key.clone(),
            detail: format!("data_providers.key: {} does not exist", entry.key),
        })?;
        let field = "data_providers.value.data_provider_certificate";
        let (certificate, _) =
            usable_certificate(kingdom.store.as_ref(), field, &value.data_provider_certificate, &owner, now).await?;
        if certificate != party.certificate {
            let detail = format!("{owner} uses {} now; get the publisher again", party.certificate);
            return Err(Refusal::certificate(&certificate, detail));
        }

        let field = "data_providers.value.data_provider_public_key";
        let given = value.data_provider_public_key.as_ref();
        let given_key = core_wire::unpack(field, given, type_name::ENCRYPTION_PUBLIC_KEY)?;
        bounded(field, given_key.len(), MAX_PUBLIC_KEY)?;
        bounded(field, given.map_or(0, |key| key.type_url.len()), MAX_TYPE_URL)?;
        let stored = party.public_key.as_deref().map(api::SignedMessage::decode).transpose();
        let stored = stored.map_err(|error| StoreError::Corrupt { what: "public_key", detail: error.to_string() })?;
        let current = stored.and_then(|signed| signed.message).map(|message| message.value);
        if current.as_deref() != Some(given_key) {
            return Err(Refusal::Precondition {
                reason: "INVALID_FIELD_VALUE",
                resource: entry.key.clone(),
                detail: format!("{field}: it is not the present key of {owner}; get the publisher again"),
            });
        }

        let field = "data_providers.value.encrypted_requisition_spec";
        let encrypted = value.encrypted_requisition_spec.as_ref().ok_or(Refusal::Required(field))?;
        let expected = core_wire::pack(type_name::SIGNED_MESSAGE, Vec::new()).type_url;
        if encrypted.type_url != expected {
            return Err(Refusal::invalid(
                field,
                format!("its type_url is {:?} instead of {expected}", encrypted.type_url),
            ));
        }
        if encrypted.ciphertext.is_empty() {
            return Err(Refusal::invalid(field, "it has no ciphertext"));
        }
        bounded(field, encrypted.ciphertext.len(), MAX_REQUISITION_SPEC)?;
        let requisition = Requisition {
            name: RequisitionName::new(publisher.data_provider, kingdom.new_id()),
            certificate,
            public_key: given
                .map(wire::typed)
                .ok_or(Refusal::Required("data_providers.value.data_provider_public_key"))?,
            encrypted_spec: Typed { type_url: encrypted.type_url.clone(), bytes: encrypted.ciphertext.clone() },
            nonce_hash: super::hash("data_providers.value.nonce_hash", &value.nonce_hash)?,
            state: RequisitionState::PendingParams,
            update_time: now,
            fulfilment: None,
            refusal: None,
        };
        Ok((requisition, Publisher { name: publisher, capabilities: party.capabilities }))
    }
}

/// The hashes that the consumer signed must be those of the publishers, each once: at the end they prove that every
/// publisher took part.
fn check_nonce_hashes(signed: &[[u8; 32]], requisitions: &[Requisition]) -> Result<(), Refusal> {
    const FIELD: &str = "measurement_spec.nonce_hashes";
    if signed.len() != requisitions.len() {
        let detail = format!("there are {} for {} publishers", signed.len(), requisitions.len());
        return Err(Refusal::invalid(FIELD, detail));
    }
    let mut owners: BTreeMap<[u8; 32], &Requisition> = BTreeMap::new();
    for requisition in requisitions {
        if let Some(other) = owners.insert(requisition.nonce_hash, requisition) {
            let detail = format!("{} and {} have the same", other.name.parent(), requisition.name.parent());
            return Err(Refusal::invalid("data_providers.value.nonce_hash", detail));
        }
    }
    let mut left: BTreeSet<&[u8; 32]> = signed.iter().collect();
    if left.len() != signed.len() {
        return Err(Refusal::invalid(FIELD, "one is there twice"));
    }
    for (hash, requisition) in &owners {
        if !left.remove(hash) {
            return Err(Refusal::invalid(FIELD, format!("that of {} is not among them", requisition.name.parent())));
        }
    }
    Ok(())
}

fn batch_size(field: &'static str, size: usize) -> Result<(), Refusal> {
    match size {
        0 => Err(Refusal::Required(field)),
        1..=MAX_BATCH => Ok(()),
        _ => Err(Refusal::invalid(field, format!("there are {size}; a batch has at most {MAX_BATCH}"))),
    }
}

/// The stored states that appear as one of the public states; all of them if none is named.
fn wanted_states(public: &[i32]) -> Result<States, Refusal> {
    let mut wanted = BTreeSet::new();
    for number in public {
        let state = PublicMeasurementState::from_number(*number)
            .ok_or_else(|| Refusal::invalid("filter.states", format!("{number} is the number of no state")))?;
        wanted.insert(state);
    }
    let states: Vec<MeasurementState> = MeasurementState::ALL
        .iter()
        .copied()
        .filter(|state| wanted.is_empty() || wanted.contains(&state.public()))
        .collect();
    Ok(States::of_measurements(&states))
}
