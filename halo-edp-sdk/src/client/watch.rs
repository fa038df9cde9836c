//! Watching the requisitions at the Kingdom.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use halo_core::{
    pb::{
        api,
        halo::{WatchRequisitionsRequest, watch_client::WatchClient},
    },
    transport::{Client, TransportError},
};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::ClientError;

/// Delays between attempts, without an end: a quarter of a second, doubled up to half a minute, with jitter.
pub(super) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(Duration::from_millis(250))
        .with_max_delay(Duration::from_secs(30))
        .without_max_times()
        .with_jitter()
        .build()
}

/// Why the watch was interrupted.
enum Interruption {
    Connection(TransportError),
    Call(Status),
    /// Nobody wants updates any more.
    Abandoned,
}

/// Hands over every update of the publisher's requisitions, in the Kingdom's order, over as many connections as it takes.
/// Returns when updates are not wanted any more.
pub(super) async fn watch(
    kingdom: Client,
    publisher: String,
    updates: mpsc::Sender<api::Requisition>,
) -> Result<(), ClientError> {
    let mut watch = Watch { kingdom, publisher, updates, continuation_token: String::new(), met: false, heard: false };
    let mut delays = backoff();
    loop {
        watch.heard = false;
        match watch.follow().await {
            Ok(()) => tracing::info!("the Kingdom ended the watch"),
            Err(Interruption::Abandoned) => return Ok(()),
            // Once it was met, a Kingdom that is going down or coming up may say anything.
            Err(Interruption::Connection(error)) if watch.met || error.is_transient() => {
                tracing::warn!(%error, "the Kingdom is not reached; trying again");
            }
            Err(Interruption::Connection(error)) => return Err(error.into()),
            Err(Interruption::Call(status)) if passes(&status) => {
                tracing::warn!(%status, "the watch broke; trying again");
            }
            Err(Interruption::Call(status)) if !watch.continuation_token.is_empty() => {
                tracing::warn!(%status, "the Kingdom does not go on from here; watching from the start");
                watch.continuation_token.clear();
            }
            Err(Interruption::Call(status)) => {
                return Err(ClientError::Refused { publisher: watch.publisher, detail: describe(&status) });
            }
        }
        if watch.heard {
            delays = backoff();
        }
        tokio::time::sleep(delays.next().unwrap_or_default()).await;
    }
}

struct Watch {
    kingdom: Client,
    publisher: String,
    updates: mpsc::Sender<api::Requisition>,
    continuation_token: String,
    /// Whether there was ever a connection.
    met: bool,
    /// Whether the present connection brought anything.
    heard: bool,
}

impl Watch {
    /// Follows over one connection.
    async fn follow(&mut self) -> Result<(), Interruption> {
        let channel = self.kingdom.connect().await.map_err(Interruption::Connection)?;
        self.met = true;
        let request = WatchRequisitionsRequest {
            parent: self.publisher.clone(),
            continuation_token: self.continuation_token.clone(),
        };
        let mut responses =
            WatchClient::new(channel).watch_requisitions(request).await.map_err(Interruption::Call)?.into_inner();
        while let Some(response) = responses.message().await.map_err(Interruption::Call)? {
            self.heard = true;
            if let Some(requisition) = response.requisition {
                self.updates.send(requisition).await.map_err(|_| Interruption::Abandoned)?;
            }
            self.continuation_token = response.continuation_token;
        }
        Ok(())
    }
}

/// Whether the same call can succeed later by itself.
pub(super) fn passes(status: &Status) -> bool {
    !matches!(
        status.code(),
        Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::PermissionDenied
            | Code::Unauthenticated
            | Code::Unimplemented
            | Code::AlreadyExists
    )
}

/// Code, message and causes of a status, for people.
pub(super) fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = std::error::Error::source(status);
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}
