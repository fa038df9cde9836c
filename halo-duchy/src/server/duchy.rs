//! What herald, mill and services share.

use std::fmt;
use std::future::Future;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use getrandom::SysRng;
use halo_core::clock::{Clock, Timestamp};
use halo_core::pb::system;
use halo_core::resource::{ComputationName, ComputationParticipantName};
use halo_core::transport::MAX_MESSAGE_BYTES;
use halo_crypto::secret::Secret;
use rand_core::UnwrapErr;
use tokio::sync::{Notify, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status};

use super::blobs::Blobs;
use super::config::NoiseFloor;
use super::keys::KeyManager;
use super::parties::Parties;
use super::receive::Turns;
use super::stage::Stage;
use super::store::Store;
use super::terms::Refusal;

/// How long a call with one answer may take.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);
/// The longest text that the Kingdom takes.
const MAX_TEXT_BYTES: usize = 4000;

/// What the configuration says about the work, checked and converted.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    /// The least noise with which to take part.
    pub(crate) noise_floor: NoiseFloor,
    /// Whether this Duchy computes as a trustee though its attestation proves nothing.
    pub(crate) allow_simulated_attestation: bool,
    /// The secret of deterministic noise.
    pub(crate) noise_key: Option<Secret<[u8; 32]>>,
    /// How long a computation that is over is remembered.
    pub(crate) retention: Duration,
    /// Memory of an engine, in bytes.
    pub(crate) memory: u64,
    /// Records that an engine holds at once.
    pub(crate) chunk_records: usize,
    /// The largest body, in bytes.
    pub(crate) maximum_body: u64,
    /// How long a lease lasts.
    pub(crate) lease: Duration,
    /// Spill and output files of steps.
    pub(crate) work: PathBuf,
}

/// The Duchy behind its services.
pub(crate) struct Duchy {
    pub(crate) parties: Parties,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) blobs: Blobs,
    pub(crate) keys: KeyManager,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) settings: Settings,
    /// Streams that are being received.
    pub(crate) turns: Turns,
    /// There may be something for the mill to do.
    pub(crate) work: Notify,
    /// One engine computes at a time: it uses all cores, and the memory budget is for one.
    pub(crate) compute: Arc<Semaphore>,
    /// So many uploads are checked at once.
    pub(crate) upload_checks: Arc<Semaphore>,
    /// So many deliveries of other Duchies are checked at once; apart, so that uploads do not hold computations up.
    pub(crate) delivery_checks: Arc<Semaphore>,
    /// Cancelled when the server is to stop.
    pub(crate) shutdown: CancellationToken,
}

impl fmt::Debug for Duchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duchy").field("id", &self.parties.me).finish_non_exhaustive()
    }
}

impl Duchy {
    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// The resource name of this Duchy's part in a computation.
    pub(crate) fn part(&self, computation: &ComputationName) -> String {
        ComputationParticipantName::new(computation.computation, self.parties.me.clone()).to_string()
    }

    /// What tells the Kingdom that this Duchy gives a computation up.
    pub(crate) fn failure(
        &self,
        computation: &ComputationName,
        stage: Stage,
        refusal: &Refusal,
    ) -> system::FailComputationParticipantRequest {
        system::FailComputationParticipantRequest {
            name: self.part(computation),
            failure: Some(system::computation_participant::Failure {
                participant_child_reference_id: String::new(),
                error_message: shortened(&refusal.message),
                error_time: Some(self.now().into()),
                stage_attempt: Some(system::StageAttempt { stage_name: stage.name().to_owned(), ..Default::default() }),
                culprits: refusal.culprits.clone(),
            }),
            etag: String::new(),
        }
    }
}

/// The operating system's generator. It fails only where nothing else could be relied on either.
pub(crate) fn system_rng() -> UnwrapErr<SysRng> {
    UnwrapErr(SysRng)
}

/// A text that the Kingdom does not refuse for its length.
pub(crate) fn shortened(text: &str) -> String {
    text.chars()
        .scan(0, |bytes, character| {
            *bytes += character.len_utf8();
            (*bytes <= MAX_TEXT_BYTES).then_some(character)
        })
        .collect()
}

/// Delays between attempts that fail: from 0.2 to 30 seconds, doubling, with jitter.
pub(crate) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(30))
        .with_factor(2.0)
        .with_jitter()
        .without_max_times()
        .build()
}

/// Awaits a call with one answer, for a limited time.
pub(crate) async fn unary<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    tokio::time::timeout(CALL_TIMEOUT, call)
        .await
        .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")))
        .map(Response::into_inner)
}

/// A client of one of the Kingdom's or a Duchy's services, with the size of messages that everybody agrees on.
macro_rules! client {
    ($client:ident, $channel:expr) => {
        $client::new($channel)
            .max_decoding_message_size(halo_core::transport::MAX_MESSAGE_BYTES)
            .max_encoding_message_size(halo_core::transport::MAX_MESSAGE_BYTES)
    };
}
pub(crate) use client;

/// The largest chunk of a body that is sent in one message; far below the largest message.
pub(crate) const CHUNK_BYTES: usize = 64 << 10;
const _: () = assert!(CHUNK_BYTES < MAX_MESSAGE_BYTES);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        let long = "ä".repeat(5000);
        let cut = shortened(&long);
        assert_eq!(cut.len(), MAX_TEXT_BYTES);
        assert!(long.starts_with(&cut));
        assert_eq!(shortened("short"), "short");
    }
}
