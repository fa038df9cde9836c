//! Takes in one body: from a publisher or from another Duchy, in one stream or in several.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::{Stream, StreamExt};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard};
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::blobs::{BlobError, Blobs};
use super::failpoint::{self, Moment};
pub use super::protocols::Shape;
use super::stage::Stage;
use super::store::{BodyId, Store, StoreError, TransferKey};

/// After how many bytes progress is made durable within a stream.
const CHECKPOINT_BYTES: u64 = 8 << 20;

/// What the header of a stream announces.
#[derive(Clone, Debug)]
pub struct Announcement {
    /// What the body is for, and its digest.
    pub transfer: TransferKey,
    /// The whole body.
    pub body: BodyId,
    /// Where in the body this stream goes on.
    pub offset: u64,
    /// How it is made up.
    pub shape: Shape,
    /// The largest body that is accepted, in bytes.
    pub limit: u64,
    /// The stage that waits for it.
    pub stage: Stage,
}

/// One stream at a time for each target: a later one, whose sender has given up the earlier, takes its turn.
#[derive(Clone, Debug, Default)]
pub struct Turns(Arc<Mutex<HashMap<String, Writer>>>);

#[derive(Debug)]
struct Writer {
    superseded: CancellationToken,
    writing: Arc<AsyncMutex<()>>,
    holders: usize,
}

/// The right to append to the one body of a target, until it is dropped.
#[derive(Debug)]
pub struct Turn {
    turns: Turns,
    target: String,
    superseded: CancellationToken,
    /// Held while the stream writes.
    _writing: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Ends the stream that brings a body for this target, if there is one, and waits for its end; a body that is complete
    /// is first checked and bound.
    ///
    /// # Errors
    /// `ABORTED` when a later stream has come meanwhile.
    pub async fn take(&self, target: &str) -> Result<Turn, Status> {
        let (superseded, writing) = {
            let mut streams = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let stream = streams.entry(target.to_owned()).or_insert_with(|| Writer {
                superseded: CancellationToken::new(),
                writing: Arc::default(),
                holders: 0,
            });
            stream.holders += 1;
            std::mem::take(&mut stream.superseded).cancel();
            (stream.superseded.clone(), Arc::clone(&stream.writing))
        };
        // Made first, so that its drop counts the holder off also when the wait is given up.
        let mut turn = Turn { turns: self.clone(), target: target.to_owned(), superseded, _writing: None };
        turn._writing = Some(writing.lock_owned().await);
        if turn.superseded.is_cancelled() { Err(superseded_status()) } else { Ok(turn) }
    }
}

fn superseded_status() -> Status {
    Status::aborted("the sender has begun another stream")
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut streams = self.turns.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = streams.get_mut(&self.target) {
            stream.holders -= 1;
            if stream.holders == 0 {
                streams.remove(&self.target);
            }
        }
    }
}

/// The answer to a failure of the blobs.
pub fn blob_status(error: &BlobError) -> Status {
    match error {
        BlobError::Altered(_) => Status::invalid_argument(error.to_string()),
        _ => Status::unavailable(error.to_string()),
    }
}

/// The answer to a failure of the store.
pub fn store_status(error: &StoreError) -> Status {
    match error {
        StoreError::OtherBody { .. } => Status::failed_precondition(error.to_string()),
        StoreError::NotAwaited { .. } | StoreError::Database(_) => Status::unavailable(error.to_string()),
        _ => Status::internal(error.to_string()),
    }
}

/// Appends the chunks of one stream to what is stored of the body. It is complete when this succeeds; see [`keep`].
///
/// # Errors
/// `INVALID_ARGUMENT` for a header that contradicts itself or a body that is oversized: nothing of it is kept.
/// `OUT_OF_RANGE` for an offset that is not the stored length, and `ABORTED` for a stream that ends early: what arrived
/// is kept, and the message says how many bytes are stored and how to go on. `UNAVAILABLE` if the disk fails.
pub async fn receive(
    store: &dyn Store,
    blobs: &Blobs,
    announced: &Announcement,
    turn: &Turn,
    mut chunks: impl Stream<Item = Result<Bytes, Status>> + Send + Unpin,
) -> Result<(), Status> {
    let Announcement { transfer, body, offset, .. } = announced;
    if announced.body.length > announced.limit {
        return Err(Status::invalid_argument(format!(
            "a body of {} bytes is larger than the {} bytes accepted here",
            body.length, announced.limit
        )));
    }
    announced.shape.check(body.records, body.length).map_err(Status::invalid_argument)?;
    // One partial body for a target at most: whoever announces another one gives up the one before.
    let stored = store.supersede(transfer).await.map_err(|error| store_status(&error))?;
    blobs.supersede(transfer).await.map_err(|error| blob_status(&error))?;
    if *offset != stored {
        return Err(Status::out_of_range(format!(
            "{stored} bytes of this body are stored; go on with offset {stored} instead of {offset}"
        )));
    }
    let mut spool = blobs.resume(transfer, stored).await.map_err(|error| blob_status(&error))?;
    let mut recorded = stored;
    let mut broken = None;
    loop {
        let chunk = tokio::select! {
            biased;
            () = turn.superseded.cancelled() => Some(Err(superseded_status())),
            chunk = chunks.next() => chunk,
        };
        let Some(chunk) = chunk else { break };
        match chunk {
            Ok(chunk) if spool.length() + chunk.len() as u64 > body.length => {
                discard(store, blobs, transfer).await?;
                return Err(Status::invalid_argument(format!(
                    "more than the {} bytes announced; nothing of the body is kept, send it again from the start",
                    body.length
                )));
            }
            Ok(chunk) => {
                spool.append(&chunk).map_err(|error| blob_status(&error))?;
                failpoint::pass(Moment::MidDelivery, announced.stage, String::new);
            }
            Err(status) => {
                broken = Some(status);
                break;
            }
        }
        if spool.length() - recorded >= CHECKPOINT_BYTES {
            (spool, recorded) = spool.sync().await.map_err(|error| blob_status(&error))?;
            store.set_transferred(transfer, recorded).await.map_err(|error| store_status(&error))?;
        }
    }
    let (_, length) = spool.sync().await.map_err(|error| blob_status(&error))?;
    store.set_transferred(transfer, length).await.map_err(|error| store_status(&error))?;
    if length < body.length {
        let cause = broken.map_or_else(|| "the stream ended early".to_owned(), |status| status.message().to_owned());
        return Err(Status::aborted(format!(
            "{cause}: {length} of {} bytes are stored; go on with offset {length}",
            body.length
        )));
    }
    Ok(())
}

/// Keeps a complete body as a blob, if it is the one announced.
///
/// # Errors
/// `INVALID_ARGUMENT` if it is another one: nothing of it is kept. `UNAVAILABLE` if the disk fails.
pub async fn keep(store: &dyn Store, blobs: &Blobs, announced: &Announcement) -> Result<(), Status> {
    let Announcement { transfer, body, .. } = announced;
    match blobs.keep(transfer, body).await {
        Ok(()) => Ok(()),
        Err(error @ BlobError::Altered(_)) => {
            discard(store, blobs, transfer).await?;
            Err(blob_status(&error))
        }
        Err(error) => Err(blob_status(&error)),
    }
}

/// Forgets what is stored of a partial body.
///
/// # Errors
/// `UNAVAILABLE` if the store or the disk fails.
pub async fn discard(store: &dyn Store, blobs: &Blobs, transfer: &TransferKey) -> Result<(), Status> {
    store.set_transferred(transfer, 0).await.map_err(|error| store_status(&error))?;
    blobs.discard(transfer).await.map_err(|error| blob_status(&error))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::keys::SealedKeys;
    use crate::server::stage::Role;
    use crate::server::store::{NewComputation, Report, SqliteStore};
    use halo_core::clock::Timestamp;
    use halo_core::resource::DuchyId;
    use sha2::{Digest, Sha256};
    use tonic::Code;

    #[tokio::test]
    async fn truncated_oversized_altered_and_resumed_bodies() {
        let directory = tempfile::tempdir().unwrap();
        let store = SqliteStore::open(&directory.path().join("duchy.sqlite")).await.unwrap();
        let blobs = Blobs::local(directory.path(), DuchyId::new("worker1").unwrap()).unwrap();
        let new = NewComputation { role: Role::Worker, secrets: SealedKeys::default(), requisitions: Vec::new() };
        let report = Report {
            computation: "c".to_owned(),
            kingdom_state: 1,
            received: Vec::new(),
            new: Some(new),
            over: None,
            refusal: None,
        };
        store.apply(Some(&report), "one", Timestamp::EPOCH).await.unwrap();

        let content: Vec<u8> = (0..1920_u32).map(|i| (i % 251) as u8).collect();
        let sha256 = Sha256::digest(&content).into();
        let first = Announcement {
            transfer: TransferKey { target: "r".to_owned(), computation: "c".to_owned(), sha256 },
            body: BodyId { sha256, length: 1920, records: 10 },
            offset: 0,
            shape: Shape::Records(192),
            limit: 1 << 20,
            stage: Stage::WaitRequisitionsAndKeySet,
        };
        let turns = Turns::default();
        let send = async |announced: &Announcement, bytes: &[u8]| {
            let chunks: Vec<_> = bytes.chunks(500).map(|chunk| Ok(Bytes::copy_from_slice(chunk))).collect();
            let turn = turns.take(&announced.transfer.target).await.unwrap();
            let chunks = futures::stream::iter(chunks);
            let received = receive(&store, &blobs, announced, &turn, chunks).await;
            let kept = match received {
                Ok(()) => keep(&store, &blobs, announced).await,
                Err(status) => Err(status),
            };
            kept.map_err(|status| status.code())
        };
        let small = Announcement { limit: 100, ..first.clone() };
        assert_eq!(send(&small, &content).await, Err(Code::InvalidArgument));
        let uneven = Announcement { shape: Shape::Records(191), ..first.clone() };
        assert_eq!(send(&uneven, &content).await, Err(Code::InvalidArgument));
        assert_eq!(send(&first, &[&content[..], b"x"].concat()).await, Err(Code::InvalidArgument));
        let mut altered = content.clone();
        altered[7] ^= 1;
        assert_eq!(send(&first, &altered).await, Err(Code::InvalidArgument));
        assert_eq!(store.transferred(&first.transfer).await.unwrap(), 0);

        assert_eq!(send(&first, &content[..1000]).await, Err(Code::Aborted));
        assert_eq!(store.transferred(&first.transfer).await.unwrap(), 1000);
        assert_eq!(send(&first, &content).await, Err(Code::OutOfRange));

        // Another body for the same target takes the place of what was stored of this one.
        let mut other = first.clone();
        other.transfer.sha256 = [9; 32];
        other.body.sha256 = [9; 32];
        assert_eq!(send(&other, &content[..1000]).await, Err(Code::Aborted));
        assert_eq!(store.transferred(&first.transfer).await.unwrap(), 0);
        let spooled = |directory: &std::path::Path| -> usize {
            let targets = std::fs::read_dir(directory.join("spool/c")).unwrap();
            targets.map(|target| std::fs::read_dir(target.unwrap().path()).unwrap().count()).sum()
        };
        assert_eq!(spooled(directory.path()), 1);
        assert_eq!(send(&first, &content[..1000]).await, Err(Code::Aborted));
        assert_eq!(spooled(directory.path()), 1);
        let rest = Announcement { offset: 1000, ..first.clone() };
        assert_eq!(send(&rest, &content[1000..]).await, Ok(()));
        assert_eq!(blobs.range("c", &first.body, 0, 1920).await.unwrap(), &content[..]);
    }

    #[tokio::test]
    async fn a_later_stream_takes_the_turn_of_an_earlier_one() {
        let turns = Turns::default();
        let first = turns.take("r").await.unwrap();
        let later = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("r").await }
        });
        first.superseded.cancelled().await;
        assert!(!later.is_finished());
        // One more: the second has nothing to do any more when its turn comes.
        let last = tokio::spawn({
            let turns = turns.clone();
            async move { turns.take("r").await }
        });
        while turns.0.lock().unwrap()["r"].holders < 3 {
            tokio::task::yield_now().await;
        }
        drop(first);
        assert_eq!(later.await.unwrap().unwrap_err().code(), Code::Aborted);
        let later = last.await.unwrap().unwrap();
        assert!(!later.superseded.is_cancelled());
        drop(later);
        assert!(turns.0.lock().unwrap().is_empty());
    }
}
