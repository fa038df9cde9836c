//! `halo.v1.Watch`, and the feed behind every stream of changes.

use std::{collections::BTreeMap, future::Future, pin::Pin, sync::Arc};

use futures::Stream;
use halo_core::{
    clock::Timestamp,
    measurement::{PublicMeasurementState, RequisitionState},
    pb::halo::{self, watch_server},
    resource::{DataProviderName, RequisitionName},
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{
    answer,
    computations::{position, token},
    measurements::own_measurement,
    name, only_publisher,
};
use crate::{
    record::Measurement,
    server::{
        kingdom::{Kingdom, StreamPermit},
        page::{CHUNK, Page},
        refusal::Refusal,
        store::{Audience, Change, Cursor, StoreError},
        wire,
    },
};

/// How many messages wait for a slow reader; then the reader holds up its own feed and nobody else.
const BUFFER: usize = 16;
/// How many changes are read at once.
const BATCH: u32 = 64;
/// Most lines of a timeline on one page, and how many there are if nothing is asked for.
const MAX_ENTRIES: u32 = 1000;

type Messages<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Every change of the measurements that concern one party, in commit order, from a position of the change log on.
///
/// A measurement that changed several times since is delivered once, as it is. The feed ends when the reader goes away
/// or the server stops.
pub(crate) struct Feed {
    kingdom: Arc<Kingdom>,
    _permit: StreamPermit,
    audience: Audience,
    position: u64,
}

impl Feed {
    pub(crate) fn new(kingdom: Arc<Kingdom>, permit: StreamPermit, audience: Audience, position: u64) -> Self {
        Self { kingdom, _permit: permit, audience, position }
    }

    /// The next changes. If there are none, nothing up to `seen`, which was the latest change before this, concerns the
    /// audience, and the changes of others are not looked at again.
    async fn next(&mut self, seen: u64) -> Result<Vec<Change>, StoreError> {
        let changes = self.kingdom.store.changes(&self.audience, self.position, BATCH).await?;
        if changes.is_empty() {
            self.position = self.position.max(seen);
        }
        Ok(changes)
    }

    /// Turns each change, with its position and the measurement, into messages.
    pub(crate) fn stream<T, F, R>(self, mut render: R) -> Messages<T>
    where
        T: Send + 'static,
        R: FnMut(Arc<Kingdom>, u64, Measurement) -> F + Send + 'static,
        F: Future<Output = Result<Vec<T>, Refusal>> + Send,
    {
        let (sender, receiver) = mpsc::channel(BUFFER);
        tokio::spawn(async move {
            if let Err(refusal) = self.run(&sender, &mut render).await {
                let _ = sender.send(Err(refusal.into())).await;
            }
        });
        Box::pin(ReceiverStream::new(receiver))
    }

    async fn run<T, F, R>(mut self, sender: &mpsc::Sender<Result<T, Status>>, render: &mut R) -> Result<(), Refusal>
    where
        R: FnMut(Arc<Kingdom>, u64, Measurement) -> F,
        F: Future<Output = Result<Vec<T>, Refusal>>,
    {
        let shutdown = self.kingdom.shutdown.clone();
        let mut latest = self.kingdom.store.latest_change();
        loop {
            // Marked as seen before the log is read, so that a change in between wakes the feed again.
            let seen = *latest.borrow_and_update();
            loop {
                let changes = self.next(seen).await?;
                if changes.is_empty() {
                    break;
                }
                for change in changes {
                    self.position = change.sequence;
                    let read = async {
                        let Some(measurement) = self.kingdom.store.computation(&change.computation).await? else {
                            return Ok(Vec::new());
                        };
                        render(Arc::clone(&self.kingdom), change.sequence, measurement).await
                    };
                    let messages = match read.await {
                        // One that cannot be read must not keep its reader from all the others.
                        Err(Refusal::Store(error @ StoreError::Corrupt { .. })) => {
                            tracing::error!(computation = %change.computation, %error, "a change is left out");
                            continue;
                        }
                        other => other?,
                    };
                    for message in messages {
                        tokio::select! {
                            sent = sender.send(Ok(message)) => if sent.is_err() { return Ok(()) },
                            () = shutdown.cancelled() => return stopping(sender).await,
                        }
                    }
                }
            }
            tokio::select! {
                changed = latest.changed() => if changed.is_err() { return Ok(()) },
                () = sender.closed() => return Ok(()),
                () = shutdown.cancelled() => return stopping(sender).await,
            }
        }
    }
}

/// Tells the reader to come back.
async fn stopping<T>(sender: &mpsc::Sender<Result<T, Status>>) -> Result<(), Refusal> {
    let _ = sender.try_send(Err(Status::unavailable("the Kingdom is stopping")));
    Ok(())
}

#[derive(Debug)]
pub(crate) struct Watch(pub(crate) Arc<Kingdom>);

#[tonic::async_trait]
impl watch_server::Watch for Watch {
    type WatchRequisitionsStream = Messages<halo::WatchRequisitionsResponse>;
    type WatchMeasurementStream = Messages<halo::WatchMeasurementResponse>;

    async fn watch_requisitions(
        &self,
        request: Request<halo::WatchRequisitionsRequest>,
    ) -> Result<Response<Self::WatchRequisitionsStream>, Status> {
        answer(self.requisitions(&request))
    }

    async fn watch_measurement(
        &self,
        request: Request<halo::WatchMeasurementRequest>,
    ) -> Result<Response<Self::WatchMeasurementStream>, Status> {
        answer(self.measurement(&request).await)
    }

    async fn list_timeline_entries(
        &self,
        request: Request<halo::ListTimelineEntriesRequest>,
    ) -> Result<Response<halo::ListTimelineEntriesResponse>, Status> {
        answer(self.timeline(&request).await)
    }
}

impl Watch {
    fn requisitions(
        &self,
        request: &Request<halo::WatchRequisitionsRequest>,
    ) -> Result<Messages<halo::WatchRequisitionsResponse>, Refusal> {
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let publisher: DataProviderName = name("parent", &asked.parent)?;
        only_publisher(&caller, &publisher, "requisitions.watch", &asked.parent)?;
        let latest = *self.0.store.latest_change().borrow();
        let from = position(&asked.continuation_token, latest)?;
        // Without a token the reader wants what is open now, and then every change of what it has seen.
        let mut only_open = asked.continuation_token.is_empty().then_some(latest);
        // A measurement also changes for reasons that do not concern this publisher.
        let mut told: BTreeMap<RequisitionName, (RequisitionState, PublicMeasurementState)> = BTreeMap::new();
        let permit = self.0.stream_permit(&caller)?;
        let feed = Feed::new(Arc::clone(&self.0), permit, Audience::DataProvider(publisher.clone()), from);
        Ok(feed.stream(move |_, sequence, measurement| {
            if only_open.is_some_and(|until| sequence > until) {
                only_open = None;
            }
            let part = measurement.requisitions.iter().find(|part| part.name.parent() == publisher);
            let message = part.filter(|part| match part.state {
                RequisitionState::PendingParams => false,
                RequisitionState::Unfulfilled => true,
                _ => only_open.is_none(),
            });
            let message = message.and_then(|part| {
                let now = (part.state, measurement.state.public());
                let news = told.insert(part.name.clone(), now) != Some(now);
                if measurement.state.is_terminal() {
                    told.remove(&part.name);
                }
                news.then(|| wire::requisition(&measurement, part))
            });
            let outcome = message.transpose().map(|requisition| {
                let continuation_token = token(sequence);
                let response = |requisition| halo::WatchRequisitionsResponse { requisition, continuation_token };
                requisition.map(|requisition| vec![response(Some(requisition))]).unwrap_or_default()
            });
            async move { Ok(outcome?) }
        }))
    }

    async fn measurement(
        &self,
        request: &Request<halo::WatchMeasurementRequest>,
    ) -> Result<Messages<halo::WatchMeasurementResponse>, Refusal> {
        let caller = self.0.caller(request)?;
        // Subscribed before it is read, so that no change is missed.
        let mut latest = self.0.store.latest_change();
        latest.borrow_and_update();
        let measurement = own_measurement(&self.0, &caller, &request.get_ref().name, "measurements.watch").await?;
        let permit = self.0.stream_permit(&caller)?;
        let (sender, receiver) = mpsc::channel(BUFFER);
        let kingdom = Arc::clone(&self.0);
        tokio::spawn(async move {
            let _permit = permit;
            if let Err(refusal) = follow(&kingdom, measurement, latest, &sender).await {
                let _ = sender.send(Err(refusal.into())).await;
            }
        });
        Ok(Box::pin(ReceiverStream::new(receiver)))
    }

    async fn timeline(
        &self,
        request: &Request<halo::ListTimelineEntriesRequest>,
    ) -> Result<halo::ListTimelineEntriesResponse, Refusal> {
        let caller = self.0.caller(request)?;
        let asked = request.get_ref();
        let measurement = own_measurement(&self.0, &caller, &asked.measurement, "measurements.getTimeline").await?;
        let size = (asked.page_size, MAX_ENTRIES, MAX_ENTRIES);
        let page = Page::new(&asked.measurement, None::<&()>, size, &asked.page_token)?;
        let mut filling = page.empty();
        // The place of the time in the cursor holds the position.
        let mut after = page.after.map_or(0, |cursor| cursor.time.unix_nanos().cast_unsigned());
        'page: loop {
            let lines = self.0.store.timeline(&measurement.computation, after, 4 * CHUNK).await?;
            if lines.is_empty() {
                break;
            }
            for (position, line) in lines {
                after = position;
                let time = Timestamp::from_unix_nanos(position.cast_signed());
                let cursor = Cursor { time, id: measurement.name.measurement };
                if !filling.add(wire::timeline_entry(&line)?, cursor) {
                    break 'page;
                }
            }
        }
        let (entries, next_page_token) = filling.finish();
        Ok(halo::ListTimelineEntriesResponse { entries, next_page_token })
    }
}

/// Sends the measurement as it is, then at each change, until it has ended.
async fn follow(
    kingdom: &Kingdom,
    mut measurement: Measurement,
    mut latest: watch::Receiver<u64>,
    sender: &mpsc::Sender<Result<halo::WatchMeasurementResponse, Status>>,
) -> Result<(), Refusal> {
    let mut told = None;
    loop {
        if told != Some(measurement.revision) {
            told = Some(measurement.revision);
            let message = halo::WatchMeasurementResponse { measurement: Some(wire::measurement(&measurement)?) };
            if sender.send(Ok(message)).await.is_err() || measurement.state.is_terminal() {
                return Ok(());
            }
        }
        tokio::select! {
            changed = latest.changed() => if changed.is_err() { return Ok(()) },
            () = sender.closed() => return Ok(()),
            () = kingdom.shutdown.cancelled() => return stopping(sender).await,
        }
        match kingdom.store.measurement(&measurement.name).await? {
            Some(now) => measurement = now,
            None => return Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use halo_core::clock::ManualClock;

    use super::*;
    use crate::server::{
        fixture,
        store::{Store, conformance, sqlite::SqliteStore},
    };

    #[tokio::test]
    async fn a_feed_looks_at_the_changes_of_others_once() {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        fixture::fill(store.as_ref()).await;
        let latest = *store.latest_change().borrow();
        let clock = ManualClock::new(conformance::measurement(1).create_time);
        let kingdom = Arc::new(fixture::kingdom(store, clock));
        let owner = conformance::measurement(1).consumer_certificate.parent;
        let stranger = Audience::Duchy("stranger".parse().unwrap());
        let permit = kingdom.stream_permit(&owner).unwrap();
        let mut feed = Feed::new(Arc::clone(&kingdom), permit, stranger, 0);
        assert!(feed.next(latest).await.unwrap().is_empty());
        assert_eq!(feed.position, latest);
        let worker = Audience::Duchy("worker1".parse().unwrap());
        let mut feed = Feed::new(Arc::clone(&kingdom), kingdom.stream_permit(&owner).unwrap(), worker, 0);
        assert_eq!(
            (feed.next(latest).await.unwrap().len(), feed.position),
            (3, 0),
            "whoever is sent moves the position"
        );
    }

    #[tokio::test]
    async fn a_party_has_room_for_so_many_streams() {
        let store = Arc::new(SqliteStore::in_memory().await.unwrap());
        fixture::fill(store.as_ref()).await;
        let kingdom = fixture::kingdom(store, ManualClock::new(conformance::measurement(1).create_time));
        let owner = conformance::measurement(1).consumer_certificate.parent;
        let mut held = Vec::new();
        let refusal = loop {
            match kingdom.stream_permit(&owner) {
                Ok(permit) => held.push(permit),
                Err(refusal) => break refusal,
            }
        };
        assert_eq!(held.len(), 256);
        assert_eq!(Status::from(refusal).code(), tonic::Code::ResourceExhausted);
        held.pop();
        assert!(kingdom.stream_permit(&owner).is_ok(), "what has ended makes room");
    }
}
