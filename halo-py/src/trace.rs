//! What every party has done, how much it has sent, and how long it took.

use std::sync::{Arc, Mutex, PoisonError};

use halo_core::clock::Stopwatch;
use halo_duchy::protocol::local::Engine;
use halo_duchy::protocol::{Body, Description, DuchyId, ProtocolError, Received, State, Step, Workspace, hmss};

/// One step of one party.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) stage: String,
    pub(crate) party: String,
    /// Records and bytes that it sent.
    pub(crate) records: u64,
    pub(crate) bytes: u64,
    pub(crate) seconds: f64,
}

/// Shared by all parties.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Arc<Mutex<Vec<Row>>>);

impl Trace {
    pub(crate) fn push(&self, row: Row) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(row);
    }

    pub(crate) fn rows(&self) -> Vec<Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What a publisher has sent, as the trace counts it.
pub(crate) trait Upload {
    fn size(&self) -> (u64, u64);
}

fn body_size(body: &Body) -> (u64, u64) {
    (body.records(), body.records() * body.record_bytes() as u64)
}

impl Upload for Body {
    fn size(&self) -> (u64, u64) {
        body_size(self)
    }
}

impl Upload for hmss::Requisition {
    fn size(&self) -> (u64, u64) {
        let (records, bytes) = body_size(&self.share);
        (records, bytes + self.encrypted_seed.len() as u64)
    }
}

/// An engine whose steps are written down.
#[derive(Debug)]
pub(crate) struct Traced<E> {
    pub(crate) engine: E,
    pub(crate) trace: Trace,
}

/// The stage in which a message of this kind is consumed.
pub(crate) fn stage(description: Description) -> String {
    let text = description.to_string();
    text.strip_suffix(" input").map_or(text.clone(), str::to_owned)
}

impl<E: Engine> Traced<E> {
    fn note(
        &self,
        stage: &str,
        step: impl FnOnce() -> Result<Step<E::Outcome>, ProtocolError>,
    ) -> Result<Step<E::Outcome>, ProtocolError> {
        let stopwatch = Stopwatch::start();
        let step = step()?;
        let seconds = stopwatch.seconds();
        let (Step::Wait { outbox, .. } | Step::Done { outbox, .. }) = &step;
        let sizes = outbox.iter().map(|message| body_size(&message.body));
        let (records, bytes) = sizes.fold((0, 0), |(records, bytes), size| (records + size.0, bytes + size.1));
        let party = self.engine.id().to_string();
        self.trace.push(Row { stage: stage.to_owned(), party, records, bytes, seconds });
        Ok(step)
    }
}

impl<E: Engine> Engine for Traced<E> {
    type Requisition = E::Requisition;
    type Outcome = E::Outcome;

    fn id(&self) -> &DuchyId {
        self.engine.id()
    }

    fn check_requisition(&self, requisition: &Self::Requisition) -> Result<(), ProtocolError> {
        self.engine.check_requisition(requisition)
    }

    fn start(
        &self,
        requisitions: &[Self::Requisition],
        workspace: &dyn Workspace,
    ) -> Result<Step<Self::Outcome>, ProtocolError> {
        self.note("start", || self.engine.start(requisitions, workspace))
    }

    fn advance(
        &self,
        state: &State,
        requisitions: &[Self::Requisition],
        inbox: &[Received],
        workspace: &dyn Workspace,
    ) -> Result<Step<Self::Outcome>, ProtocolError> {
        self.note(&stage(state.awaits()), || self.engine.advance(state, requisitions, inbox, workspace))
    }
}
