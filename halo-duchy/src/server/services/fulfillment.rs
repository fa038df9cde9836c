//! `wfa.measurement.api.v2alpha.RequisitionFulfillment`: uploads of publishers.

use std::sync::Arc;

use futures::StreamExt;
use halo_core::pb::api::fulfill_requisition_request::{Header, Payload};
use halo_core::pb::api::requisition::State;
use halo_core::pb::api::requisition_fulfillment_server;
use halo_core::pb::{api, system};
use halo_core::resource::RequisitionName;
use halo_core::session;
use tonic::{Request, Response, Status, Streaming};

use super::{Settled, announced_body, count, digest, give_up, is_over, settle, terms};
use crate::protocol::Body;
use crate::server::duchy::Duchy;
use crate::server::herald::announce;
use crate::server::parties::Caller;
use crate::server::receive::{Announcement, Turn, receive, store_status};
use crate::server::stage::Stage;
use crate::server::store::{Requisition, TransferKey, Upload};
use crate::server::terms::{Refusal, Terms, publisher};

/// Bytes of a publisher's remarks that are passed on.
const MAX_CONTEXT_BYTES: usize = 4096;

#[derive(Debug)]
pub(crate) struct Fulfillment(pub(crate) Arc<Duchy>);

#[tonic::async_trait]
impl requisition_fulfillment_server::RequisitionFulfillment for Fulfillment {
    async fn fulfill_requisition(
        &self,
        request: Request<Streaming<api::FulfillRequisitionRequest>>,
    ) -> Result<Response<api::FulfillRequisitionResponse>, Status> {
        let caller = self.0.parties.caller(&request)?;
        let mut stream = request.into_inner();
        let Some(Payload::Header(header)) = stream.message().await?.and_then(|message| message.payload) else {
            return Err(Status::invalid_argument("the first message of the stream has no header"));
        };
        let requisition = own_requisition(&self.0, &caller, &header.name).await?;
        let terms = terms(&self.0, &requisition.computation).await?;
        let terms = terms.ok_or_else(|| Status::failed_precondition("the measurement is refused here"))?;
        let upload = self.upload(&terms, &header, &requisition)?;
        let turn = self.0.turns.take(&requisition.name).await?;
        // Again: the stream before this one may have brought it to its end meanwhile.
        let requisition = own_requisition(&self.0, &caller, &header.name).await?;
        if self.is_new(&requisition, &upload)? {
            self.take_in(&terms, &header, &requisition, &upload, stream, turn).await?;
        }
        let state = self.tell_kingdom(header, &requisition, &upload).await?;
        Ok(Response::new(api::FulfillRequisitionResponse {
            state: state.into(),
            received_length: upload.body.length.cast_signed(),
        }))
    }
}

/// The requisition of a caller, if this Duchy takes its data.
pub(super) async fn own_requisition(duchy: &Duchy, caller: &Caller, text: &str) -> Result<Requisition, Status> {
    let name: RequisitionName = text.parse().map_err(|error| Status::invalid_argument(format!("name: {error}")))?;
    if *caller != Caller::DataProvider(name.parent()) {
        return Err(Status::permission_denied(format!("{name} is none of the caller's requisitions")));
    }
    let found = duchy.store.requisition(text).await.map_err(|error| store_status(&error))?;
    let requisition =
        found.ok_or_else(|| Status::not_found(format!("duchy {} does not know {name}", duchy.parties.me)))?;
    if !requisition.here {
        return Err(Status::failed_precondition(format!(
            "{name} is to be fulfilled at another Duchy than {}; all parties derive which one from its name",
            duchy.parties.me
        )));
    }
    Ok(requisition)
}

/// Whether two uploads are of the same body, by the same publisher's consent and under the same keys.
fn same(one: &Upload, other: &Upload) -> bool {
    (one.nonce, one.key_list_hash, one.body) == (other.nonce, other.key_list_hash, other.body)
}

impl Fulfillment {
    /// What the header says, checked against what the consumer asked for.
    fn upload(&self, terms: &Terms, header: &Header, requisition: &Requisition) -> Result<Upload, Status> {
        if header.requisition_fingerprint != requisition.fingerprint {
            return Err(Status::invalid_argument(
                "header.requisition_fingerprint: publisher and Duchy were shown different specifications",
            ));
        }
        if session::nonce_hash(header.nonce) != requisition.nonce_hash {
            return Err(Status::invalid_argument("header.nonce: it is not the one that the consumer gave"));
        }
        Ok(Upload {
            nonce: header.nonce,
            key_list_hash: digest("key_list_hash", &header.key_list_hash)?,
            attachment: terms.protocol.read_upload(terms, header).map_err(Status::invalid_argument)?,
            body: announced_body(header.body_length, header.record_count, &header.body_sha256)?,
        })
    }

    /// The publisher encrypted under the keys that this Duchy was shown too. If not, the Kingdom has shown one of them
    /// other keys, or the publisher has used its own: nobody goes on.
    async fn check_keys(&self, requisition: &Requisition, upload: &Upload) -> Result<(), Status> {
        // Read again: the Kingdom may have told of keys meanwhile.
        let terms = terms(&self.0, &requisition.computation).await?;
        let hash = terms.and_then(|terms| terms.upload_key_list_hash(&self.0.parties.me));
        let Some(hash) = hash else {
            return Err(Status::unavailable("this Duchy has not been told of all keys yet; try again"));
        };
        if hash == upload.key_list_hash {
            return Ok(());
        }
        let refusal = Refusal {
            message: format!("{}: encrypted under other keys than those that this Duchy was shown", requisition.name),
            culprits: vec!["kingdom".to_owned(), publisher(&requisition.name)],
        };
        give_up(&self.0, &requisition.computation, Stage::WaitRequisitionsAndKeySet, &refusal).await?;
        Err(Status::failed_precondition(format!(
            "header.key_list_hash: {}; the computation is given up",
            refusal.message
        )))
    }

    /// Whether the body still has to arrive; another one than the one that is bound is refused.
    fn is_new(&self, requisition: &Requisition, upload: &Upload) -> Result<bool, Status> {
        match &requisition.upload {
            None => Ok(true),
            // The seed of a share, say, is encrypted anew with each attempt; the first one stays.
            Some(bound) if same(bound, upload) => Ok(false),
            Some(_) => Err(Status::failed_precondition(format!(
                "{} is fulfilled with another body; the first complete one stays",
                requisition.name
            ))),
        }
    }

    async fn take_in(
        &self,
        terms: &Arc<Terms>,
        header: &Header,
        requisition: &Requisition,
        upload: &Upload,
        stream: Streaming<api::FulfillRequisitionRequest>,
        turn: Turn,
    ) -> Result<(), Status> {
        const STAGE: Stage = Stage::WaitRequisitionsAndKeySet;
        let duchy = &self.0;
        if is_over(duchy, &requisition.computation).await? {
            return Err(Status::failed_precondition(format!("the measurement of {} is over", requisition.name)));
        }
        self.check_keys(requisition, upload).await?;
        let transfer = TransferKey {
            target: requisition.name.clone(),
            computation: requisition.computation.clone(),
            sha256: upload.body.sha256,
        };
        let announced = Announcement {
            body: upload.body,
            offset: count("offset", header.offset)?,
            shape: terms.protocol.upload_shape(),
            limit: duchy.settings.maximum_body,
            stage: STAGE,
            transfer,
        };
        let chunks = stream.map(|message| match message?.payload {
            Some(Payload::BodyChunk(chunk)) => Ok(chunk.data),
            _ => Err(Status::invalid_argument("a message after the first one has no chunk of the body")),
        });
        receive(duchy.store.as_ref(), &duchy.blobs, &announced, &turn, Box::pin(chunks)).await?;
        let (name, upload) = (requisition.name.clone(), upload.clone());
        let bind = async move |duchy: Arc<Duchy>| {
            let bound = duchy.store.bind_upload(&name, &upload, duchy.now()).await?;
            tracing::info!(requisition = name, records = upload.body.records, "holds an upload");
            Ok(bound)
        };
        let (terms, checked) = (Arc::clone(terms), requisition.name.clone());
        let check = move |stored: &Body| terms.protocol.check_upload(&terms, &checked, stored);
        match settle(duchy, announced, turn, &duchy.upload_checks, check, bind).await? {
            Settled::Bound => Ok(()),
            Settled::Bad(reason) => Err(Status::invalid_argument(format!("{reason}; nothing of the body is kept"))),
        }
    }

    /// The Kingdom learns of it before the publisher is told that it is done.
    async fn tell_kingdom(&self, header: Header, requisition: &Requisition, upload: &Upload) -> Result<State, Status> {
        if requisition.announced {
            return Ok(State::Fulfilled);
        }
        let context = header.fulfillment_context.map(|context| system::requisition::FulfillmentContext {
            build_label: context.build_label,
            warnings: context.warnings,
        });
        let context = context.filter(|context| {
            context.build_label.len() + context.warnings.iter().map(String::len).sum::<usize>() <= MAX_CONTEXT_BYTES
        });
        let channel = self.0.parties.kingdom.channel().await?;
        match announce(&self.0, channel, requisition, upload, context).await {
            Ok(()) => Ok(State::Fulfilled),
            Err(status) => {
                tracing::warn!(
                    requisition = requisition.name,
                    reason = status.message(),
                    "the body is kept, but the Kingdom could not be told"
                );
                Err(Status::new(status.code(), format!("the body is kept; the Kingdom: {}", status.message())))
            }
        }
    }
}
