//! Handing in a spooled answer: a body to a Duchy, from wherever an earlier attempt stopped; a result to the Kingdom.

use std::{
    io::{self, SeekFrom},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use halo_core::{
    clock::Stopwatch,
    pb::{
        api::{
            self, EncryptedMessage, FulfillDirectRequisitionRequest, FulfillRequisitionRequest,
            fulfill_requisition_request::{
                BodyChunk, Header, Payload,
                header::{HonestMajorityShareShuffle, Protocol, TrusTee},
            },
            requisition::{FulfillmentContext, State},
            requisition_fulfillment_client::RequisitionFulfillmentClient,
            requisitions_client::RequisitionsClient,
        },
        halo::{GetTransferRequest, transfers_client::TransfersClient},
    },
    resource::DuchyId,
    transport::Client,
};
use prost::Message;
use tokio::{
    fs::File,
    io::{AsyncReadExt, AsyncSeekExt},
};
use tonic::Status;

use super::answer::{Failure, unary};
use crate::{
    requisition::{Asked, OpenedRequisition},
    spool::Spooled,
};

/// Bytes of a message of an upload.
const CHUNK_BYTES: usize = 64 * 1024;

/// What a stream carried.
#[derive(Clone, Copy, Debug)]
pub(super) struct Upload {
    pub(super) bytes: u64,
    pub(super) seconds: f64,
}

/// Sends what the Duchy does not have yet. A stream on which nothing moves for `patience`, or up to twice as long, is
/// broken off.
pub(super) async fn submit(
    client: &Client,
    duchy: &DuchyId,
    opened: &OpenedRequisition,
    protocol_config: Option<&api::ProtocolConfig>,
    spooled: &Spooled,
    patience: Duration,
) -> Result<Upload, Failure> {
    let failed = |status: &Status| Failure::call(&format!("duchy {duchy} at {}", client.endpoint()), status);
    let channel = client.connect().await.map_err(|error| Failure::connection(&error))?;
    let manifest = &spooled.manifest;
    let query = GetTransferRequest {
        name: opened.name.to_string(),
        description: 0,
        body_sha256: manifest.body_sha256.to_vec(),
    };
    let offset = match unary(TransfersClient::new(channel.clone()).get_transfer(query)).await {
        Ok(transfer) => u64::try_from(transfer.received_length)
            .ok()
            .filter(|length| *length <= manifest.body_length)
            .ok_or_else(|| Failure::Later(format!("duchy {duchy} says it has more than the body")))?,
        Err(status) if status.code() == tonic::Code::NotFound => 0,
        Err(status) => return Err(failed(&status)),
    };

    let header = Header {
        name: opened.name.to_string(),
        requisition_fingerprint: opened.binding.fingerprint.to_vec(),
        nonce: *opened.nonce.expose(),
        protocol_config: protocol_config.cloned(),
        protocol: protocol(opened, spooled)?,
        fulfillment_context: Some(context()),
        etag: String::new(),
        body_length: manifest.body_length.cast_signed(),
        record_count: manifest.record_count.cast_signed(),
        body_sha256: manifest.body_sha256.to_vec(),
        offset: offset.cast_signed(),
        key_list_hash: opened.binding.key_list_hash.to_vec(),
    };
    let unreadable = |error: io::Error| Failure::Stays(format!("cannot read {}: {error}", spooled.body.display()));
    let mut file = File::open(&spooled.body).await.map_err(unreadable)?;
    file.seek(SeekFrom::Start(offset)).await.map_err(unreadable)?;
    let broken = Broken::default();
    let header = FulfillRequisitionRequest { payload: Some(Payload::Header(header)) };
    let sent = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&sent);
    let due = manifest.body_length - offset;
    let messages = stream::iter([header]).chain(chunks(file, due, broken.clone()));
    let messages = messages.inspect(move |message| {
        if let Some(Payload::BodyChunk(chunk)) = &message.payload {
            counted.fetch_add(chunk.data.len() as u64, Ordering::Relaxed);
        }
    });
    // When the Duchy has everything it checks every record, at least a MiB a second.
    let checking = Duration::from_secs(manifest.body_length >> 20);

    let watch = Stopwatch::start();
    let mut client = RequisitionFulfillmentClient::new(channel);
    let response = tokio::select! {
        response = client.fulfill_requisition(messages) => response,
        seconds = stall(&sent, due, patience, checking) => {
            let message = format!("duchy {duchy} takes nothing more and says nothing for {seconds} s");
            return Err(Failure::Later(message));
        }
    };
    if let Some(error) = broken.take() {
        return Err(unreadable(error));
    }
    let response = response.map_err(|status| failed(&status))?.into_inner();
    if response.state() != State::Fulfilled {
        let state = response.state().as_str_name();
        return Err(Failure::Later(format!("duchy {duchy} has the body, but leaves the requisition {state}")));
    }
    Ok(Upload { bytes: manifest.body_length - offset, seconds: watch.seconds() })
}

/// What the header says of the protocol.
fn protocol(opened: &OpenedRequisition, spooled: &Spooled) -> Result<Option<Protocol>, Failure> {
    let damaged = |error| Failure::Stays(format!("the manifest of {} is damaged: {error}", spooled.body.display()));
    let attachment = spooled.manifest.attachment.as_slice();
    Ok(match &opened.asked {
        Asked::Shares(task) => Some(Protocol::HonestMajorityShareShuffle(HonestMajorityShareShuffle {
            secret_seed: Some(EncryptedMessage::decode(attachment).map_err(damaged)?),
            register_count: spooled.manifest.record_count.cast_signed(),
            data_provider_certificate: task.certificate.to_string(),
        })),
        Asked::Sealed(_) => Some(Protocol::TrusTee(TrusTee::decode(attachment).map_err(damaged)?)),
        Asked::Sketch(_) | Asked::Direct(_) => None,
    })
}

fn context() -> FulfillmentContext {
    FulfillmentContext {
        build_label: concat!("halo-edp-sdk ", env!("CARGO_PKG_VERSION")).to_owned(),
        warnings: Vec::new(),
    }
}

/// Hands a result in at the Kingdom.
pub(super) async fn hand_in(
    kingdom: &Client,
    opened: &OpenedRequisition,
    spooled: &Spooled,
) -> Result<Upload, Failure> {
    let Asked::Direct(task) = &opened.asked else {
        return Err(Failure::Stays("there is no Duchy that takes the body".to_owned()));
    };
    let unreadable = |error: String| Failure::Stays(format!("cannot read {}: {error}", spooled.body.display()));
    let body = tokio::fs::read(&spooled.body).await.map_err(|error| unreadable(error.to_string()))?;
    let result = EncryptedMessage::decode(body.as_slice()).map_err(|error| unreadable(error.to_string()))?;
    let channel = kingdom.connect().await.map_err(|error| Failure::connection(&error))?;
    let request = FulfillDirectRequisitionRequest {
        name: opened.name.to_string(),
        encrypted_result: Some(result),
        nonce: *opened.nonce.expose(),
        certificate: task.certificate.to_string(),
        fulfillment_context: Some(context()),
        ..Default::default()
    };
    let watch = Stopwatch::start();
    let response = unary(RequisitionsClient::new(channel).fulfill_direct_requisition(request))
        .await
        .map_err(|status| Failure::call("the Kingdom", &status))?;
    if response.state() != State::Fulfilled {
        let state = response.state().as_str_name();
        return Err(Failure::Later(format!("the Kingdom has the result, but leaves the requisition {state}")));
    }
    Ok(Upload { bytes: spooled.manifest.body_length, seconds: watch.seconds() })
}

/// Returns, with the seconds, when the count has stood still for `patience`, or for `checking` more once it is `due`.
async fn stall(count: &AtomicU64, due: u64, patience: Duration, checking: Duration) -> u64 {
    loop {
        let before = count.load(Ordering::Relaxed);
        let patience = if before == due { patience + checking } else { patience };
        tokio::time::sleep(patience).await;
        if count.load(Ordering::Relaxed) == before {
            return patience.as_secs();
        }
    }
}

/// Why the body could not be read to its end, where it could not.
#[derive(Clone, Default)]
struct Broken(Arc<Mutex<Option<io::Error>>>);

impl Broken {
    fn put(&self, error: io::Error) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
    }

    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The next `length` bytes of the file in messages. An error ends the stream early, which the Duchy notices.
fn chunks(file: File, length: u64, broken: Broken) -> impl Stream<Item = FulfillRequisitionRequest> {
    stream::unfold((file, length, broken), |(mut file, left, broken)| async move {
        if left == 0 {
            return None;
        }
        let mut data = vec![0; usize::try_from(left).map_or(CHUNK_BYTES, |left| left.min(CHUNK_BYTES))];
        if let Err(error) = file.read_exact(&mut data).await {
            broken.put(error);
            return None;
        }
        let left = left - data.len() as u64;
        let message = FulfillRequisitionRequest { payload: Some(Payload::BodyChunk(BodyChunk { data: data.into() })) };
        Some((message, (file, left, broken)))
    })
}
