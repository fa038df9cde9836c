//! `wfa.measurement.system.v1alpha.ComputationControl`: what the other Duchies deliver.

use std::sync::Arc;

use futures::StreamExt;
use halo_core::pb::system;
use halo_core::pb::system::advance_computation_request::{Header, Payload, header};
use halo_core::pb::system::computation_control_server;
use halo_core::resource::{ComputationName, ComputationStageName, DuchyId, DuchyName};
use tonic::{Request, Response, Status, Streaming};

use super::{Settled, announced_body, count, give_up, is_over, settle};
use crate::protocol::llv2::{check_message, message_record_bytes};
use crate::protocol::{Body, Description};
use crate::server::duchy::Duchy;
use crate::server::failpoint::{self, Moment};
use crate::server::parties::Caller;
use crate::server::receive::{Announcement, Turn, receive, store_status};
use crate::server::stage::Stage;
use crate::server::store::{BodyId, SlotKey, SlotStatus, TransferKey};
use crate::server::terms::{Refusal, Terms};

#[derive(Debug)]
pub(crate) struct Control(pub(crate) Arc<Duchy>);

#[tonic::async_trait]
impl computation_control_server::ComputationControl for Control {
    async fn advance_computation(
        &self,
        request: Request<Streaming<system::AdvanceComputationRequest>>,
    ) -> Result<Response<system::AdvanceComputationResponse>, Status> {
        let sender = self.sender(&request)?;
        let mut stream = request.into_inner();
        let Some(Payload::Header(header)) = stream.message().await?.and_then(|message| message.payload) else {
            return Err(Status::invalid_argument("the first message of the stream has no header"));
        };
        let name: ComputationName =
            header.name.parse().map_err(|error| Status::invalid_argument(format!("header.name: {error}")))?;
        let description = description(&header)?;
        let slot =
            SlotKey { computation: name.computation.to_string(), description: i32::from(description.number()), sender };
        let body = announced_body(header.body_length, header.record_count, &header.body_sha256)?;
        let turn = self.0.turns.take(&slot.to_string()).await?;
        if self.is_new(&slot, &body).await? {
            self.take_in(&header, &slot, description, &body, stream, turn).await?;
        }
        Ok(Response::new(system::AdvanceComputationResponse { received_length: body.length.cast_signed() }))
    }

    async fn get_computation_stage(
        &self,
        request: Request<system::GetComputationStageRequest>,
    ) -> Result<Response<system::ComputationStage>, Status> {
        let sender = self.sender(&request)?;
        let text = &request.get_ref().name;
        let name: ComputationStageName =
            text.parse().map_err(|error| Status::invalid_argument(format!("name: {error}")))?;
        if name.duchy != self.0.parties.me {
            return Err(Status::not_found(format!("{name} is none of duchy {}", self.0.parties.me)));
        }
        let computation = name.computation.to_string();
        let record = self.0.store.load(&computation).await.map_err(|error| store_status(&error))?;
        let record = record.ok_or_else(|| unknown(&computation))?;
        if !Terms::read(&record.received).is_ok_and(|terms| terms.duchies.contains(&sender)) {
            return Err(unknown(&computation));
        }
        Ok(Response::new(system::ComputationStage {
            name: name.to_string(),
            etag: String::new(),
            stage: Some(system::computation_stage::Stage::LiquidLegionsV2Stage(system::LiquidLegionsV2Stage {
                stage: record.stage.number(),
            })),
        }))
    }
}

fn unknown(computation: &str) -> Status {
    Status::not_found(format!("there is no computation {computation} of the caller"))
}

fn description(header: &Header) -> Result<Description, Status> {
    let Some(header::Protocol::LiquidLegionsV2(llv2)) = &header.protocol else {
        return Err(Status::invalid_argument("header.protocol: it is not liquid_legions_v2"));
    };
    u8::try_from(llv2.description).ok().and_then(Description::from_number).ok_or_else(|| {
        Status::invalid_argument(format!("header.liquid_legions_v2.description: {} is none", llv2.description))
    })
}

/// Which body a slot of a computation takes, by its records.
pub(super) async fn record_bytes(duchy: &Duchy, slot: &SlotKey, description: Description) -> Result<usize, Status> {
    let record = duchy.store.load(&slot.computation).await.map_err(|error| store_status(&error))?;
    let record = record.ok_or_else(|| unknown(&slot.computation))?;
    let terms = Terms::read(&record.received).map_err(|refusal| Status::internal(refusal.message))?;
    message_record_bytes(description, slot.sender == *terms.aggregator(), terms.spec.kind.maximum_frequency())
        .ok_or_else(|| Status::invalid_argument(format!("{description} is none of this protocol's messages")))
}

impl Control {
    fn sender<T>(&self, request: &Request<T>) -> Result<DuchyId, Status> {
        match self.0.parties.caller(request)? {
            Caller::Duchy(duchy) => Ok(duchy),
            Caller::DataProvider(name) => {
                Err(Status::permission_denied(format!("{name} is no Duchy; publishers call RequisitionFulfillment")))
            }
        }
    }

    /// Whether the body still has to arrive.
    async fn is_new(&self, slot: &SlotKey, body: &BodyId) -> Result<bool, Status> {
        match self.0.store.slot(slot).await.map_err(|error| store_status(&error))? {
            SlotStatus::Awaited if is_over(&self.0, &slot.computation).await? => {
                Err(Status::unavailable(format!("computation {} is over here", slot.computation)))
            }
            SlotStatus::Awaited => Ok(true),
            SlotStatus::Bound(bound) if bound == *body => Ok(false),
            SlotStatus::Bound(_) => Err(Status::failed_precondition(format!(
                "{slot} is bound to another body; the first complete one stays"
            ))),
            SlotStatus::OwedByAnother => Err(Status::permission_denied(format!("{slot}: another Duchy owes it"))),
            SlotStatus::NotAwaited => Err(Status::unavailable(format!("{slot} is not awaited here yet; try again"))),
        }
    }

    async fn take_in(
        &self,
        header: &Header,
        slot: &SlotKey,
        description: Description,
        body: &BodyId,
        stream: Streaming<system::AdvanceComputationRequest>,
        turn: Turn,
    ) -> Result<(), Status> {
        let duchy = &self.0;
        let stage = Stage::waiting_for(slot.description)
            .ok_or_else(|| Status::invalid_argument("header.liquid_legions_v2.description: it has no stage"))?;
        let record_bytes = record_bytes(duchy, slot, description).await?;
        let announced = Announcement {
            transfer: TransferKey {
                target: slot.to_string(),
                computation: slot.computation.clone(),
                sha256: body.sha256,
            },
            body: *body,
            offset: count("offset", header.offset)?,
            record_bytes: record_bytes as u64,
            limit: duchy.settings.maximum_body,
            stage,
        };
        let chunks = stream.map(|message| match message?.payload {
            Some(Payload::BodyChunk(chunk)) => Ok(chunk.partial_data),
            _ => Err(Status::invalid_argument("a message after the first one has no chunk of the body")),
        });
        receive(duchy.store.as_ref(), &duchy.blobs, &announced, &turn, Box::pin(chunks)).await?;
        let sender = slot.sender.clone();
        let check = move |stored: &Body| check_message(stored, record_bytes, &sender);
        let (to, body) = (slot.clone(), *body);
        let bind = async move |duchy: Arc<Duchy>| {
            failpoint::pass(Moment::BeforeCommit, stage, || hex::encode(body.sha256));
            let bound = duchy.store.bind_input(&to, &body, duchy.now()).await?;
            failpoint::pass(Moment::AfterCommit, stage, String::new);
            tracing::info!(slot = %to, records = body.records, "holds an input");
            duchy.work.notify_one();
            Ok(bound)
        };
        match settle(duchy, announced, turn, &duchy.delivery_checks, check, bind).await? {
            Settled::Bound => Ok(()),
            // It is what its sender announced, byte for byte, so nobody else has spoiled it.
            Settled::Bad(reason) => {
                // The consumer reads it too, and where in which body is not for the consumer.
                let message = format!("{stage}: a record from duchy {} is not acceptable", slot.sender);
                let culprits = vec![DuchyName::new(slot.sender.clone()).to_string()];
                give_up(duchy, &slot.computation, stage, &Refusal { message, culprits }).await?;
                Err(Status::invalid_argument(format!("{reason}; the computation is given up")))
            }
        }
    }
}
