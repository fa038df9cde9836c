//! `wfa.measurement.system.v1alpha.ComputationControl`: what the other Duchies deliver.

use std::sync::Arc;

use futures::StreamExt;
use halo_core::pb::system;
use halo_core::pb::system::advance_computation_request::{Header, Payload};
use halo_core::pb::system::computation_control_server;
use halo_core::resource::{ComputationName, ComputationStageName, DuchyId, DuchyName};
use tonic::{Request, Response, Status, Streaming};

use super::{Settled, announced_body, count, description, give_up, is_over, settle};
use crate::protocol::{Body, Description, Slot};
use crate::server::duchy::Duchy;
use crate::server::failpoint::{self, Moment};
use crate::server::parties::Caller;
use crate::server::receive::{Announcement, Shape, Turn, receive, store_status};
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
        let terms = self.terms(&name).await?;
        let slot = Slot { description: described(&terms, &header, &sender)?, from: sender };
        let key = SlotKey {
            computation: name.computation.to_string(),
            description: i32::from(slot.description.number()),
            sender: slot.from.clone(),
        };
        let body = announced_body(header.body_length, header.record_count, &header.body_sha256)?;
        let turn = self.0.turns.take(&key.to_string()).await?;
        if self.is_new(&key, &body).await? {
            self.take_in(&terms, &header, (&key, slot), &body, stream, turn).await?;
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
        let terms = Terms::read(&record.received).ok().filter(|terms| terms.duchies.contains(&sender));
        let terms = terms.ok_or_else(|| unknown(&computation))?;
        let number = terms.protocol.stage_number(record.stage, &self.0.parties.me);
        Ok(Response::new(system::ComputationStage {
            name: name.to_string(),
            etag: String::new(),
            stage: terms.protocol.wire_stage(number),
        }))
    }
}

fn unknown(computation: &str) -> Status {
    Status::not_found(format!("there is no computation {computation} of the caller"))
}

/// Which message of a computation's protocol a header announces.
fn described(terms: &Terms, header: &Header, sender: &DuchyId) -> Result<Description, Status> {
    let number = header.protocol.as_ref().and_then(|header| terms.protocol.header_number(header));
    let number = number.ok_or_else(|| {
        let kind = terms.protocol.kind();
        Status::invalid_argument(format!("header.protocol: it is not that of the computation, which is {kind}"))
    })?;
    description(terms, number, sender).ok_or_else(|| {
        Status::invalid_argument(format!("header.protocol.description: {number} is none that {sender} sends"))
    })
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

    /// What a computation is about. The Kingdom may be about to tell of it, so the sender is not told to give up.
    async fn terms(&self, name: &ComputationName) -> Result<Arc<Terms>, Status> {
        let computation = name.computation.to_string();
        let known = self.0.store.load(&computation).await.map_err(|error| store_status(&error))?;
        let known = known.ok_or_else(|| Status::unavailable(format!("{name} is not awaited here yet; try again")))?;
        let over = |_| Status::unavailable(format!("computation {computation} is over here"));
        Terms::read(&known.received).map(Arc::new).map_err(over)
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
        terms: &Arc<Terms>,
        header: &Header,
        (key, slot): (&SlotKey, Slot),
        body: &BodyId,
        stream: Streaming<system::AdvanceComputationRequest>,
        turn: Turn,
    ) -> Result<(), Status> {
        let duchy = &self.0;
        let stage = Stage::waiting_for(slot.description);
        let announced = Announcement {
            transfer: TransferKey {
                target: key.to_string(),
                computation: key.computation.clone(),
                sha256: body.sha256,
            },
            body: *body,
            offset: count("offset", header.offset)?,
            shape: Shape::Records(terms.protocol.message_record_bytes(terms, &slot, &duchy.parties.me) as u64),
            limit: terms.protocol.message_limit(&slot).unwrap_or(duchy.settings.maximum_body),
            stage,
        };
        let chunks = stream.map(|message| match message?.payload {
            Some(Payload::BodyChunk(chunk)) => Ok(chunk.partial_data),
            _ => Err(Status::invalid_argument("a message after the first one has no chunk of the body")),
        });
        receive(duchy.store.as_ref(), &duchy.blobs, &announced, &turn, Box::pin(chunks)).await?;
        let sender = slot.from.clone();
        let (terms, me) = (Arc::clone(terms), duchy.parties.me.clone());
        let check = move |stored: &Body| terms.protocol.check_message(&terms, &slot, &me, stored);
        let (to, body) = (key.clone(), *body);
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
                let message = format!("{stage}: a record from duchy {sender} is not acceptable");
                let culprits = vec![DuchyName::new(sender).to_string()];
                give_up(duchy, &key.computation, stage, &Refusal { message, culprits }).await?;
                Err(Status::invalid_argument(format!("{reason}; the computation is given up")))
            }
        }
    }
}
