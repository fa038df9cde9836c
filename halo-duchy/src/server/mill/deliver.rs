//! Sends what a transaction has decided to send.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use halo_core::pb::halo::GetTransferRequest;
use halo_core::pb::halo::transfers_client::TransfersClient;
use halo_core::pb::system::advance_computation_request::{BodyChunk, Header, Payload};
use halo_core::pb::system::computation_control_client::ComputationControlClient;
use halo_core::pb::system::computation_log_entries_client::ComputationLogEntriesClient;
use halo_core::pb::system::computation_participants_client::ComputationParticipantsClient;
use halo_core::pb::system::computations_client::ComputationsClient;
use halo_core::pb::system::{self, AdvanceComputationRequest};
use halo_core::resource::DuchyId;
use prost::Message;
use tonic::transport::Channel;
use tonic::{Code, Status};

use super::Trouble;
use crate::protocol::Description;
use crate::server::blobs::Blobs;
use crate::server::duchy::{CHUNK_BYTES, Duchy, client, unary};
use crate::server::failpoint::{self, Moment};
use crate::server::stage::Stage;
use crate::server::store::{BodyId, OutboxRow, Outgoing, Record};
use crate::server::terms::{Refusal, Terms};

/// How long a receiver may neither take a byte nor answer; when it has all, a second more for each MiB that it checks.
const PATIENCE: Duration = Duration::from_secs(120);
/// How much of a body is read from the blob store at once.
const BLOCK_BYTES: u64 = 1 << 20;

/// Sends one message; it has arrived for good when this succeeds.
pub(super) async fn deliver(duchy: &Duchy, record: &Record, row: &OutboxRow) -> Result<(), Trouble> {
    match &row.message {
        Outgoing::Body { to, description, body } => {
            let outcome = deliver_body(duchy, record, row.stage, to, *description, body).await;
            let Err(status) = outcome else { return Ok(()) };
            if let Some(link) = duchy.parties.peer(to) {
                link.forget().await;
            }
            let message = format!("duchy {to}: {:?}: {}", status.code(), status.message());
            // That the receiver refuses says nothing about who is wrong: if the body is bad, the receiver says so to
            // the Kingdom itself. Its operator may mend a limit or a certificate meanwhile.
            Err(match status.code() {
                Code::FailedPrecondition => {
                    tracing::error!(message, "a body is refused for good");
                    Trouble::Permanent(Refusal::new(format!(
                        "duchy {to} has another body of this Duchy for the same step; was state_dir replaced?"
                    )))
                }
                _ => Trouble::Transient(message),
            })
        }
        other => tell_kingdom(duchy, other).await,
    }
}

async fn tell_kingdom(duchy: &Duchy, message: &Outgoing) -> Result<(), Trouble> {
    let Err(status) = call_kingdom(duchy, message).await else { return Ok(()) };
    let text = format!("the Kingdom: {:?}: {}", status.code(), status.message());
    let refused = matches!(
        status.code(),
        Code::InvalidArgument | Code::FailedPrecondition | Code::PermissionDenied | Code::NotFound
    );
    match message {
        // The measurement is over, most likely; that this Duchy has something to say changes nothing.
        Outgoing::LogEntry(_) | Outgoing::Failure(_) if refused => {
            tracing::warn!(reason = text, "not delivered");
            Ok(())
        }
        _ if status.code() == Code::InvalidArgument => Err(Trouble::Permanent(Refusal::new(text))),
        _ => {
            if !refused {
                duchy.parties.kingdom.forget().await;
            }
            Err(Trouble::Transient(text))
        }
    }
}

async fn call_kingdom(duchy: &Duchy, message: &Outgoing) -> Result<(), Status> {
    fn read<T: Message + Default>(bytes: &[u8]) -> Result<T, Status> {
        T::decode(bytes).map_err(|error| Status::internal(format!("the stored message does not decode: {error}")))
    }
    let channel = duchy.parties.kingdom.channel().await?;
    match message {
        Outgoing::Parameters(bytes) => {
            let mut client = client!(ComputationParticipantsClient, channel);
            unary(
                client
                    .set_participant_requisition_params(read::<system::SetParticipantRequisitionParamsRequest>(bytes)?),
            )
            .await
            .map(drop)
        }
        Outgoing::Confirmation(bytes) => {
            let mut client = client!(ComputationParticipantsClient, channel);
            unary(client.confirm_computation_participant(read::<system::ConfirmComputationParticipantRequest>(bytes)?))
                .await
                .map(drop)
        }
        Outgoing::Failure(bytes) => {
            let mut client = client!(ComputationParticipantsClient, channel);
            unary(client.fail_computation_participant(read::<system::FailComputationParticipantRequest>(bytes)?))
                .await
                .map(drop)
        }
        Outgoing::Result(bytes) => {
            let mut client = client!(ComputationsClient, channel);
            unary(client.set_computation_result(read::<system::SetComputationResultRequest>(bytes)?)).await.map(drop)
        }
        Outgoing::LogEntry(bytes) => {
            let mut client = client!(ComputationLogEntriesClient, channel);
            unary(client.create_computation_log_entry(read::<system::CreateComputationLogEntryRequest>(bytes)?))
                .await
                .map(drop)
        }
        Outgoing::Body { .. } => Err(Status::internal("a body is not for the Kingdom")),
    }
}

/// Sends what the receiver does not have yet.
async fn deliver_body(
    duchy: &Duchy,
    record: &Record,
    stage: Stage,
    to: &DuchyId,
    description: i32,
    body: &BodyId,
) -> Result<(), Status> {
    let link = duchy.parties.peer(to).ok_or_else(|| Status::unavailable("it is not among the configured peers"))?;
    let terms = Terms::read(&record.received).map_err(|refusal| Status::internal(refusal.message))?;
    let name = terms.name.to_string();
    let number = u8::try_from(description).ok().and_then(Description::from_number);
    let number = number.and_then(|number| terms.protocol.message_number(number, &duchy.parties.me));
    let number = number.ok_or_else(|| Status::internal(format!("output {description} is unknown")))?;
    let channel: Channel = link.channel().await?;
    let query = GetTransferRequest { name: name.clone(), description: number, body_sha256: body.sha256.to_vec() };
    let transfer = unary(client!(TransfersClient, channel.clone()).get_transfer(query)).await?;
    if transfer.complete {
        return Ok(());
    }
    let offset = u64::try_from(transfer.received_length).ok().filter(|offset| *offset <= body.length);
    let offset = offset.ok_or_else(|| Status::unavailable("it says it has more than the whole body"))?;
    let header = Header {
        name,
        protocol: terms.protocol.message_header(number),
        body_length: body.length.cast_signed(),
        record_count: body.records.cast_signed(),
        body_sha256: body.sha256.to_vec(),
        offset: offset.cast_signed(),
    };
    let first = AdvanceComputationRequest { payload: Some(Payload::Header(header)) };
    let small = body.length - offset <= CHUNK_BYTES as u64;
    let due = body.length - offset;
    let taken = Arc::new(AtomicU64::new(0));
    let counter = Arc::clone(&taken);
    let chunks = chunks(duchy.blobs.clone(), record.id.clone(), *body, offset).enumerate().map(move |(sent, data)| {
        counter.fetch_add(data.len() as u64, Ordering::Relaxed);
        if small || sent > 0 {
            failpoint::pass(Moment::MidDelivery, stage, String::new);
        }
        AdvanceComputationRequest { payload: Some(Payload::BodyChunk(BodyChunk { partial_data: data })) }
    });
    let mut control = client!(ComputationControlClient, channel);
    let mut call = std::pin::pin!(control.advance_computation(stream::iter([first]).chain(chunks)));
    loop {
        let before = taken.load(Ordering::Relaxed);
        let checking = if before == due { Duration::from_secs(body.length >> 20) } else { Duration::ZERO };
        let patience = PATIENCE + checking;
        tokio::select! {
            outcome = &mut call => return outcome.map(drop),
            () = tokio::time::sleep(patience) => {
                if taken.load(Ordering::Relaxed) > before {
                    continue;
                }
                return Err(Status::deadline_exceeded(format!("it took no byte and gave no answer for {patience:?}")));
            }
        }
    }
}

/// A body from `offset` on, in chunks. A blob that cannot be read ends the stream early, which the receiver notices.
fn chunks(blobs: Blobs, computation: String, body: BodyId, offset: u64) -> impl Stream<Item = Bytes> + Send + 'static {
    stream::unfold(
        (blobs, computation, offset, Bytes::new()),
        move |(blobs, computation, offset, mut block)| async move {
            if block.is_empty() {
                block = match blobs.range(&computation, &body, offset, BLOCK_BYTES).await {
                    Ok(block) if block.is_empty() => return None,
                    Ok(block) => block,
                    Err(error) => {
                        tracing::error!(computation, %error, "an output body cannot be read");
                        return None;
                    }
                };
            }
            let chunk = block.split_to(block.len().min(CHUNK_BYTES));
            let next = offset + chunk.len() as u64;
            Some((chunk, (blobs, computation, next, block)))
        },
    )
}
