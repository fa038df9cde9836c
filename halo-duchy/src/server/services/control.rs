//! `wfa.measurement.system.v1alpha.ComputationControl`: what the other Duchies deliver.

use std::sync::Arc;

use futures::StreamExt;
use halo_core::pb::system;
use halo_core::pb::system::advance_computation_request::{Header, Payload, header};
use halo_core::pb::system::computation_control_server;
use halo_core::resource::{ComputationName, ComputationStageName, DuchyId, DuchyName};
use tonic::{Request, Response, Status, Streaming};

use super::{Checked, announced_body, check_records, count, give_up, is_over};
use crate::protocol::Description;
use crate::protocol::llv2::{check_message, message_record_bytes};
use crate::server::duchy::Duchy;
use crate::server::failpoint::{self, Moment};
use crate::server::parties::Caller;
use crate::server::receive::{Announcement, blob_status, discard, receive, store_status};
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
        if self.is_new(&slot, &body).await? {
            self.take_in(&header, &slot, description, &body, stream).await?;
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
    ) -> Result<(), Status> {
        let Duchy { store, blobs, turns, settings, clock, work, .. } = self.0.as_ref();
        let stage = Stage::waiting_for(slot.description)
            .ok_or_else(|| Status::invalid_argument("header.liquid_legions_v2.description: it has no stage"))?;
        let record_bytes = record_bytes(&self.0, slot, description).await?;
        let announced = Announcement {
            transfer: TransferKey {
                target: slot.to_string(),
                computation: slot.computation.clone(),
                sha256: body.sha256,
            },
            body: *body,
            offset: count("offset", header.offset)?,
            record_bytes: record_bytes as u64,
            limit: settings.maximum_body,
            stage,
        };
        let chunks = stream.map(|message| match message?.payload {
            Some(Payload::BodyChunk(chunk)) => Ok(chunk.partial_data),
            _ => Err(Status::invalid_argument("a message after the first one has no chunk of the body")),
        });
        let turn = turns.take(&announced.transfer.target).await;
        receive(store.as_ref(), blobs, &announced, &turn, Box::pin(chunks)).await?;
        let stored = blobs.body(&slot.computation, body, record_bytes);
        let sender = slot.sender.clone();
        let checked = check_records(&self.0, stored, move |body| check_message(body, record_bytes, &sender)).await?;
        let forget = async || -> Result<(), Status> {
            discard(store.as_ref(), blobs, &announced.transfer).await?;
            blobs.remove(&slot.computation, body).await.map_err(|error| blob_status(&error))
        };
        if let Checked::Bad(reason) = checked {
            forget().await?;
            // It is what its sender announced, byte for byte, so nobody else has spoiled it.
            let message = format!("{stage}: duchy {}: {reason}", slot.sender);
            let culprits = vec![DuchyName::new(slot.sender.clone()).to_string()];
            give_up(&self.0, &slot.computation, stage, &Refusal { message, culprits }).await?;
            return Err(Status::invalid_argument(format!("{reason}; the computation is given up")));
        }
        failpoint::pass(Moment::BeforeCommit, stage, || hex::encode(body.sha256));
        if let Err(error) = store.bind_input(slot, body, clock.now()).await {
            forget().await?;
            return Err(store_status(&error));
        }
        failpoint::pass(Moment::AfterCommit, stage, String::new);
        blobs.discard(&announced.transfer).await.map_err(|error| blob_status(&error))?;
        tracing::info!(%slot, records = body.records, "holds an input");
        work.notify_one();
        Ok(())
    }
}
