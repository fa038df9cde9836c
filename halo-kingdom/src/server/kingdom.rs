//! What all services share: the store, the clock, the parties, and how an event is brought to a measurement.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use getrandom::SysRng;
use halo_core::{
    clock::{Clock, Timestamp},
    resource::{CertificateName, CertificateParent, ComputationName, DuchyId, ExternalId},
    transport::caller_key_id,
};
use rand_core::UnwrapErr;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;

use super::{
    refusal::Refusal,
    store::{NewMeasurement, Party, Store, StoreError},
};
use crate::{
    Error,
    lifecycle::{self, Event},
    planner::Planner,
    record::Measurement,
};

/// How many streams one party may have open.
const MAX_STREAMS: usize = 256;

/// The Kingdom behind its services.
pub(crate) struct Kingdom {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) planner: Planner,
    /// How long a measurement may take that brings no deadline.
    pub(crate) default_deadline: Duration,
    /// The longest time that any measurement may take.
    pub(crate) maximum_deadline: Duration,
    /// Cancelled when the server is to stop.
    pub(crate) shutdown: CancellationToken,
    /// Authority key identifier of the client certificates, to the party.
    principals: BTreeMap<Vec<u8>, CertificateParent>,
    /// Everybody in the configuration, with room for streams. The store also knows parties that were removed from it.
    configured: BTreeMap<CertificateParent, Arc<Semaphore>>,
}

/// Room for one stream of a party, until it is dropped.
pub(crate) type StreamPermit = OwnedSemaphorePermit;

impl fmt::Debug for Kingdom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Kingdom").field("parties", &self.principals.len()).finish_non_exhaustive()
    }
}

impl Kingdom {
    pub(crate) fn new(
        store: Arc<dyn Store>,
        clock: Arc<dyn Clock>,
        planner: Planner,
        (default_deadline, maximum_deadline): (Duration, Duration),
        shutdown: CancellationToken,
        parties: &[Party],
    ) -> Self {
        let principals = parties.iter().map(|party| (party.root_key_id.clone(), party.name.clone())).collect();
        let room = || Arc::new(Semaphore::new(MAX_STREAMS));
        let configured = parties.iter().map(|party| (party.name.clone(), room())).collect();
        Self { store, clock, planner, default_deadline, maximum_deadline, shutdown, principals, configured }
    }

    pub(crate) fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A new id.
    pub(crate) fn new_id(&self) -> ExternalId {
        ExternalId::random(&mut UnwrapErr(SysRng))
    }

    /// A party, if it is in the configuration now.
    pub(crate) async fn party(&self, name: &CertificateParent) -> Result<Option<Party>, StoreError> {
        if self.configured.contains_key(name) { self.store.party(name).await } else { Ok(None) }
    }

    /// Room for one more stream of the caller.
    pub(crate) fn stream_permit(&self, caller: &CertificateParent) -> Result<StreamPermit, Refusal> {
        let room = self.configured.get(caller).ok_or(Refusal::UnknownCaller)?;
        let permit = Arc::clone(room).try_acquire_owned();
        permit.map_err(|_| Refusal::TooManyStreams { caller: caller.clone(), most: MAX_STREAMS })
    }

    /// The party that calls.
    pub(crate) fn caller<T>(&self, request: &tonic::Request<T>) -> Result<CertificateParent, Refusal> {
        caller_key_id(request).and_then(|key_id| self.principals.get(&key_id).cloned()).ok_or(Refusal::UnknownCaller)
    }

    /// The Duchy that calls; other callers are refused.
    pub(crate) fn calling_duchy<T>(
        &self,
        request: &tonic::Request<T>,
        permission: &'static str,
        resource: &str,
    ) -> Result<DuchyId, Refusal> {
        match self.caller(request)? {
            CertificateParent::Duchy(name) => Ok(name.duchy),
            _ => Err(Refusal::denied(permission, resource)),
        }
    }

    /// Brings an event to a measurement: decides, and stores what was decided, again if somebody else was faster.
    ///
    /// `needs` are certificates that must be neither revoked nor on hold when it is stored; `guard` can refuse what
    /// would change something.
    pub(crate) async fn act(
        &self,
        computation: &ComputationName,
        event: &Event,
        needs: &[CertificateName],
        guard: impl Fn(&Measurement) -> Result<(), Refusal>,
    ) -> Result<Measurement, Refusal> {
        loop {
            let mut measurement = self.store.computation(computation).await?.ok_or_else(|| Refusal::NotFound {
                reason: "MEASUREMENT_NOT_FOUND",
                resource: computation.to_string(),
            })?;
            let now = self.now();
            let Some(transition) = lifecycle::decide(&measurement, event, now)? else {
                return Ok(measurement);
            };
            guard(&measurement)?;
            // In a task of its own, so that a caller who hangs up cannot part the commit from its announcement.
            let commit = tokio::spawn({
                let (store, before, transition) = (Arc::clone(&self.store), measurement.clone(), transition.clone());
                let needs = needs.to_vec();
                async move { store.commit(&before, &transition, now, &needs).await }
            });
            match commit.await.unwrap_or_else(|_| Err(interrupted())) {
                Ok(()) => {}
                Err(StoreError::Conflict(_)) => continue,
                Err(error) => return Err(error.into()),
            }
            for note in &transition.timeline {
                tracing::info!(measurement = %measurement.name, actor = note.actor, "{}", note.message);
            }
            lifecycle::apply(&mut measurement, &transition, now);
            return match transition.other_keys {
                Some(duchy) => Err(Error::KeyList { duchy }.into()),
                None => Ok(measurement),
            };
        }
    }

    /// Stores new measurements, all or none.
    pub(crate) async fn create(&self, new: Vec<NewMeasurement>, needs: Vec<CertificateName>) -> Result<(), StoreError> {
        let store = Arc::clone(&self.store);
        let created = tokio::spawn(async move { store.create_measurements(&new, &needs).await });
        created.await.unwrap_or_else(|_| Err(interrupted()))
    }

    /// Fails every pending measurement that relies on a certificate which was revoked or put on hold. One that cannot be
    /// ended does not keep the others from it; the last error is given back when all have been tried.
    pub(crate) async fn fail_for(&self, certificate: &CertificateName) -> Result<(), Refusal> {
        let event = Event::CertificateRevoked { certificate: certificate.clone() };
        let mut outcome = Ok(());
        for computation in self.store.pending_with(certificate).await? {
            if let Err(error) = self.act(&computation, &event, &[], |_| Ok(())).await {
                tracing::error!(%computation, %certificate, %error, "a measurement could not be ended");
                outcome = Err(error);
            }
        }
        outcome
    }
}

/// The task that writes to the store panicked or was aborted.
fn interrupted() -> StoreError {
    StoreError::Corrupt { what: "change", detail: "the task that stores it was interrupted".into() }
}
