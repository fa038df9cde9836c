//! All Duchies of a computation in one process: for tests, notebooks, and to see what a protocol does.

use std::io::{self, Read};
use std::sync::Arc;

use sha2::{Digest, Sha256};

use super::{Body, Description, DuchyId, MemoryBody, ProtocolError, Received, Slot, State, Step, Workspace};

/// One Duchy's side of a protocol, as [`run`] drives it.
pub trait Engine {
    /// What a publisher has sent to one Duchy.
    type Requisition;
    /// What one of the Duchies learns.
    type Outcome;
    /// This Duchy.
    fn id(&self) -> &DuchyId;
    /// Checks an upload of a publisher.
    ///
    /// # Errors
    /// When it is not acceptable.
    fn check_requisition(&self, requisition: &Self::Requisition) -> Result<(), ProtocolError>;
    /// Begins with the own requisitions.
    ///
    /// # Errors
    /// As the engine's own method.
    fn start(
        &self,
        requisitions: &[Self::Requisition],
        workspace: &dyn Workspace,
    ) -> Result<Step<Self::Outcome>, ProtocolError>;
    /// Goes on with the messages that `state` awaits.
    ///
    /// # Errors
    /// As the engine's own method.
    fn advance(
        &self,
        state: &State,
        requisitions: &[Self::Requisition],
        inbox: &[Received],
        workspace: &dyn Workspace,
    ) -> Result<Step<Self::Outcome>, ProtocolError>;
}

macro_rules! engine {
    ($protocol:ident, $requisition:ty, $outcome:ty, |$duchy:ident, $given:ident| $check:expr) => {
        impl Engine for super::$protocol::Duchy {
            type Requisition = $requisition;
            type Outcome = $outcome;

            fn id(&self) -> &DuchyId {
                self.id()
            }

            fn check_requisition(&self, $given: &$requisition) -> Result<(), ProtocolError> {
                let $duchy = self;
                $check
            }

            fn start(
                &self,
                requisitions: &[$requisition],
                workspace: &dyn Workspace,
            ) -> Result<Step<$outcome>, ProtocolError> {
                self.start(requisitions, workspace)
            }

            fn advance(
                &self,
                state: &State,
                requisitions: &[$requisition],
                inbox: &[Received],
                workspace: &dyn Workspace,
            ) -> Result<Step<$outcome>, ProtocolError> {
                self.advance(state, requisitions, inbox, workspace)
            }
        }
    };
}

engine!(llv2, Body, super::llv2::Outcome, |_duchy, body| super::llv2::check_requisition(body));
engine!(rollv2, Body, super::llv2::Outcome, |_duchy, body| super::rollv2::check_requisition(body));
engine!(hmss, super::hmss::Requisition, super::hmss::Outcome, |duchy, share| duchy.check_requisition(share));
engine!(trustee, super::trustee::Requisition, super::trustee::Outcome, |duchy, one| duchy.check_requisition(one));

/// One Duchy and the requisitions that were fulfilled at it.
#[derive(Debug)]
pub struct Party<E: Engine> {
    /// Its side of the protocol.
    pub duchy: E,
    /// What its publishers have sent.
    pub requisitions: Vec<E::Requisition>,
}

/// A message under way: everything that a network could change.
#[derive(Clone, Debug)]
pub struct Envelope {
    /// Who is said to have sent it.
    pub from: DuchyId,
    /// Who gets it.
    pub to: DuchyId,
    /// What it is said to carry.
    pub description: Description,
    /// Its records, with their header.
    pub body: Body,
}

impl Envelope {
    /// All bytes of the body.
    ///
    /// # Errors
    /// When the body cannot be read.
    pub fn bytes(&self) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.body.open()?.read_to_end(&mut bytes)?;
        Ok(bytes)
    }

    /// Puts other bytes in, under a header that fits them (bytes beyond the last whole record are kept, and not counted
    /// as a record).
    pub fn replace(&mut self, bytes: Vec<u8>) {
        let record_bytes = self.body.record_bytes();
        let records = (bytes.len() / record_bytes.max(1)) as u64;
        let sha256 = Sha256::digest(&bytes).into();
        self.body = Arc::new(MemoryBody::with_header(bytes, record_bytes, records, sha256));
    }

    /// Puts other bytes in and leaves the header as it was.
    pub fn corrupt(&mut self, bytes: Vec<u8>) {
        let (records, sha256) = (self.body.records(), self.body.sha256());
        self.body = Arc::new(MemoryBody::with_header(bytes, self.body.record_bytes(), records, sha256));
    }
}

/// What a Duchy does at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Act {
    /// Checks one upload.
    Check,
    /// Takes its first step.
    Start,
    /// Goes on with the messages of this description.
    Advance(Description),
}

/// Sits on the wire between the Duchies, and sees them work.
pub trait Interceptor {
    /// A Duchy begins to work. Nobody else works until it ends.
    fn begins(&mut self, duchy: &DuchyId, act: Act) {
        let _ = (duchy, act);
    }

    /// The Duchy has done what it began last, with success.
    fn ends(&mut self, duchy: &DuchyId) {
        let _ = duchy;
    }

    /// Sees every message before it is delivered, and gives what is delivered instead: the message, changed or not, more
    /// than one, or none.
    fn message(&mut self, envelope: Envelope) -> Vec<Envelope> {
        vec![envelope]
    }

    /// Sees every state that a Duchy keeps between two steps, and gives back the one to go on with, for example after
    /// a way through its stored form.
    ///
    /// # Errors
    /// Whatever ends the run.
    fn state(&mut self, state: State) -> Result<State, ProtocolError> {
        Ok(state)
    }
}

/// Delivers everything unchanged.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faithful;

impl Interceptor for Faithful {}

/// Runs all parties to the end and gives what the aggregator learns. Every requisition is checked first.
///
/// # Errors
/// The first error of any party; [`ProtocolError::Stalled`] when messages went astray.
pub fn run<E: Engine>(
    parties: &[Party<E>],
    workspace: &dyn Workspace,
    interceptor: &mut dyn Interceptor,
) -> Result<E::Outcome, ProtocolError> {
    let mut run = Run { seats: parties.iter().map(Seat::new).collect(), outcome: None, interceptor };
    for (position, party) in parties.iter().enumerate() {
        for requisition in &party.requisitions {
            run.act(party, Act::Check, || party.duchy.check_requisition(requisition))?;
        }
        let step = run.act(party, Act::Start, || party.duchy.start(&party.requisitions, workspace))?;
        run.take(position, step)?;
    }
    while let Some(position) = run.seats.iter().position(Seat::is_ready) {
        let seat = &mut run.seats[position];
        let inbox: Vec<Received> = seat.inbox.drain(..).collect();
        let state = seat.state.take().ok_or_else(|| ProtocolError::Stalled("a state".to_owned()))?;
        let party = seat.party;
        let advance = || party.duchy.advance(&state, &party.requisitions, &inbox, workspace);
        let step = run.act(party, Act::Advance(state.awaits), advance)?;
        run.take(position, step)?;
    }
    if let Some((seat, received)) = run.seats.iter().find_map(|seat| Some((seat, seat.inbox.first()?)))
        && seat.awaiting.is_empty()
    {
        return Err(ProtocolError::UnexpectedMessage {
            received: received.slot.clone(),
            awaited: "nothing".to_owned(),
        });
    }
    let missing: Vec<String> = run.seats.iter().flat_map(|seat| &seat.awaiting).map(Slot::to_string).collect();
    match run.outcome {
        Some(outcome) if missing.is_empty() => Ok(outcome),
        _ => Err(ProtocolError::Stalled(missing.join(", "))),
    }
}

struct Seat<'a, E: Engine> {
    party: &'a Party<E>,
    state: Option<State>,
    awaiting: Vec<Slot>,
    inbox: Vec<Received>,
}

impl<'a, E: Engine> Seat<'a, E> {
    fn new(party: &'a Party<E>) -> Self {
        Self { party, state: None, awaiting: Vec::new(), inbox: Vec::new() }
    }

    fn is_ready(&self) -> bool {
        self.state.is_some() && self.inbox.len() >= self.awaiting.len()
    }
}

struct Run<'a, 'i, E: Engine> {
    seats: Vec<Seat<'a, E>>,
    outcome: Option<E::Outcome>,
    interceptor: &'i mut dyn Interceptor,
}

impl<E: Engine> Run<'_, '_, E> {
    /// Lets a Duchy work while the interceptor knows of it.
    fn act<T>(
        &mut self,
        party: &Party<E>,
        act: Act,
        work: impl FnOnce() -> Result<T, ProtocolError>,
    ) -> Result<T, ProtocolError> {
        self.interceptor.begins(party.duchy.id(), act);
        let done = work()?;
        self.interceptor.ends(party.duchy.id());
        Ok(done)
    }

    /// Files what a step gave: the state at its Duchy, the messages in the inboxes.
    fn take(&mut self, position: usize, step: Step<E::Outcome>) -> Result<(), ProtocolError> {
        let outbox = match step {
            Step::Wait { state, outbox, awaiting } => {
                self.seats[position].state = Some(self.interceptor.state(state)?);
                self.seats[position].awaiting = awaiting;
                outbox
            }
            Step::Done { output, outbox } => {
                self.seats[position].awaiting.clear();
                self.outcome = output.or(self.outcome.take());
                outbox
            }
        };
        for message in outbox {
            let from = self.seats[position].party.duchy.id().clone();
            let envelope = Envelope { from, to: message.to, description: message.description, body: message.body };
            for envelope in self.interceptor.message(envelope) {
                let slot = Slot { from: envelope.from, description: envelope.description };
                if let Some(seat) = self.seats.iter_mut().find(|seat| seat.party.duchy.id() == &envelope.to) {
                    seat.inbox.push(Received { slot, body: envelope.body });
                }
            }
        }
        Ok(())
    }
}
