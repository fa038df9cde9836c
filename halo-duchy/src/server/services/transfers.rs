//! `halo.v1.Transfers`: how much of a body has arrived, for senders that go on after an interruption.

use std::sync::Arc;

use halo_core::pb::halo::{GetTransferRequest, Transfer, transfers_server};
use halo_core::resource::ComputationName;
use tonic::{Request, Response, Status};

use super::fulfillment::own_requisition;
use super::{description, digest, terms};
use crate::protocol::Description;
use crate::server::duchy::Duchy;
use crate::server::parties::Caller;
use crate::server::receive::store_status;
use crate::server::store::{BodyId, SlotKey, SlotStatus, TransferKey};

#[derive(Debug)]
pub(crate) struct Transfers(pub(crate) Arc<Duchy>);

#[tonic::async_trait]
impl transfers_server::Transfers for Transfers {
    async fn get_transfer(&self, request: Request<GetTransferRequest>) -> Result<Response<Transfer>, Status> {
        let caller = self.0.parties.caller(&request)?;
        let asked = request.into_inner();
        let sha256 = digest("body_sha256", &asked.body_sha256)?;
        let (bound, target, computation) = match caller {
            Caller::DataProvider(_) => {
                let requisition = own_requisition(&self.0, &caller, &asked.name).await?;
                (requisition.upload.map(|upload| upload.body), requisition.name, requisition.computation)
            }
            Caller::Duchy(sender) => {
                let name: ComputationName =
                    asked.name.parse().map_err(|error| Status::invalid_argument(format!("name: {error}")))?;
                let computation = name.computation.to_string();
                // A number that means nothing stands for a body of which nothing has arrived.
                let terms = terms(&self.0, &computation).await?;
                let description = terms.and_then(|terms| description(&terms, asked.description, &sender));
                let description = description.map_or(0, Description::number).into();
                let slot = SlotKey { computation: computation.clone(), description, sender };
                let bound = match self.0.store.slot(&slot).await.map_err(|error| store_status(&error))? {
                    SlotStatus::Bound(body) => Some(body),
                    SlotStatus::Awaited | SlotStatus::OwedByAnother | SlotStatus::NotAwaited => None,
                };
                (bound, slot.to_string(), computation)
            }
        };
        if let Some(BodyId { length, .. }) = bound.filter(|body| body.sha256 == sha256) {
            return Ok(Response::new(Transfer { received_length: length.cast_signed(), complete: true }));
        }
        let transfer = TransferKey { target, computation, sha256 };
        let stored = self.0.store.transferred(&transfer).await.map_err(|error| store_status(&error))?;
        Ok(Response::new(Transfer { received_length: stored.cast_signed(), complete: false }))
    }
}
