//! Honest-majority share shuffle: exact reach and frequency of people whom several publishers have reached, from secret
//! shares of frequency vectors.
//!
//! There are three Duchies: two *workers* and the *aggregator*. All publishers number the people of one population alike;
//! a cell of a publisher's vector is how often it has reached that person, at most F. A publisher cuts its vector into two
//! shares that add up to it modulo q ([`halo_crypto::share`]): a seed for one worker, the rest for the other.
//!
//! | phase | workers | aggregator |
//! |---|---|---|
//! | setup | draw a seed; send it, and the publishers' seeds that are for the other, to the other worker | waits |
//! | shuffle | add up the shares; reach only: multiply every cell by a secret number; add shares of noise cells; put everything into one secret order, the same at both | waits |
//! | aggregation | | add the two vectors up, count how often each number occurs, take the noise off |
//!
//! Two variants: [`Variant::Compatible`] is the reference's, bit for bit where a publisher or a peer could notice
//! (protocols 3.2 to 3.6): any q up to 256, its generator, its shuffle. [`Variant::Native`] is ours: q = 256 with
//! wrapping addition for frequencies and 251 for reach only, whose masks need a prime; and a shuffle that is linear in
//! memory traffic. Noise is drawn from each worker's own seed in both.
//!
//! # What each party learns
//!
//! Assuming that everybody follows the protocol: a worker sees uniform numbers only, and how many cells there are. The
//! aggregator sees how many cells hold 0, 1, 2, …, F·S (reach only: how many hold 0), hidden by both workers' noise; not
//! which, because the order is secret.
//!
//! # What is assumed
//!
//! * No two of the three collude. Both workers together can add their shares up and read every publisher's vector; a
//!   worker and the aggregator can undo the order.
//! * The noise of at least `honest_contributors` workers is secret from whoever looks at the result.
//! * The workers' common seed is the exclusive or of what each has drawn. Who sends second can choose it; that gives it
//!   nothing, because both know the order anyway.
//!
//! # What an active cheater could still do
//!
//! A worker can change a share and so falsify a cell: with frequencies a sum out of range is noticed; with reach only
//! nothing is. A publisher can send any vector; one out of range is noticed alike, and cannot be told from a worker's work. The aggregator can report anything.
//!
//! # Memory
//!
//! A worker holds one byte a cell, and while a native worker shuffles masked cells two; noise cells count twice. Beside
//! that it holds a chunk of each of up to 16 uploads that it reads side by side; when it has more of them, one more byte a
//! cell. The aggregator holds three chunks.

mod aggregator;
mod outcome;
mod parameters;
mod worker;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use halo_crypto::secret::Secret;
use halo_crypto::share::{self, Seed};

use super::record::for_each_chunk;
use super::seat::{Engine, Seat, check_inbox, consumed};
use super::stream::Consumed;
use super::{Body, Description, DuchyId, Origin, ProtocolError, Received, Slot, State, Step, Workspace};

use self::parameters::Noise;
pub use super::vector::{Estimates, Frequency};
pub use outcome::Outcome;
pub use parameters::{NoiseParameters, Parameters, Variant};
pub use worker::MAX_SHUFFLE_INPUT;

/// Changes whenever the same input would give other bytes. A state of another version is refused.
pub const ENGINE_VERSION: u16 = 1;
/// This protocol in stored states.
const PROTOCOL: u8 = 3;
/// Cells that are held beside a vector at once.
const CHUNK_CELLS: usize = 64 << 10;

/// Who takes part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roles {
    /// The worker whose noise comes first.
    pub first_worker: DuchyId,
    /// The other worker.
    pub second_worker: DuchyId,
    /// Who adds up.
    pub aggregator: DuchyId,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Role {
    First,
    Second,
    Aggregator,
}

/// What a publisher has sent to one worker.
#[derive(Clone, Debug)]
pub struct Requisition {
    /// Its id: one of [`Parameters::requisitions`].
    pub id: String,
    /// The share that is no seed: a byte a cell.
    pub share: Body,
    /// The seed, encrypted for the other worker.
    pub encrypted_seed: Vec<u8>,
}

/// Opens the seed of a requisition (its id) that the other worker has passed on.
///
/// # Errors
/// In words, when it does not decrypt or is not signed by its publisher.
pub type OpenSeed = dyn Fn(&str, &[u8]) -> Result<Seed, String> + Send + Sync;

/// What the other worker passes on in a [`Description::ShuffleInput`], by requisition: for a check before the message is
/// bound to its slot.
///
/// # Errors
/// [`ProtocolError::BadBody`] when it does not decode, or passes on what is none of the computation's.
pub fn relayed_seeds(parameters: &Parameters, received: &Received) -> Result<BTreeMap<String, Vec<u8>>, ProtocolError> {
    worker::read_shuffle_input(parameters, received).map(|(_, relayed)| relayed)
}

/// One Duchy's side of one computation.
pub struct Duchy {
    parameters: Parameters,
    noise: Option<Noise>,
    seat: Seat,
    roles: Roles,
    role: Role,
    open_seed: Arc<OpenSeed>,
}

impl fmt::Debug for Duchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duchy").field("seat", &self.seat).field("role", &self.role).finish_non_exhaustive()
    }
}

impl Duchy {
    /// One Duchy's side of a computation. `seed` was drawn from the operating system's generator for this computation
    /// alone; `open_seed` is not called at the aggregator.
    ///
    /// # Errors
    /// When the parameters are out of range, two roles are one Duchy's, or `me` has none.
    pub fn new(
        parameters: Parameters,
        computation: String,
        roles: Roles,
        me: DuchyId,
        seed: Secret<[u8; 32]>,
        open_seed: Arc<OpenSeed>,
    ) -> Result<Self, ProtocolError> {
        let noise = parameters.calibrate()?;
        let Roles { first_worker, second_worker, aggregator } = &roles;
        if first_worker == second_worker || first_worker == aggregator || second_worker == aggregator {
            return Err(ProtocolError::Ring("three different Duchies are needed".to_owned()));
        }
        let role = match &me {
            me if me == first_worker => Role::First,
            me if me == second_worker => Role::Second,
            me if me == aggregator => Role::Aggregator,
            me => return Err(ProtocolError::Ring(format!("{me} has no role in it"))),
        };
        let context = [first_worker, second_worker, aggregator]
            .into_iter()
            .fold(parameters.digest(Consumed::new("share shuffle context")), |consumed, id| {
                consumed.bytes(id.as_str().as_bytes())
            })
            .finish();
        let engine = Engine { protocol: PROTOCOL, name: "honest-majority share shuffle", version: ENGINE_VERSION };
        let seat = Seat { engine, computation, duchy: me, seed, context };
        Ok(Self { parameters, noise, seat, roles, role, open_seed })
    }

    /// This Duchy.
    pub fn id(&self) -> &DuchyId {
        &self.seat.duchy
    }

    /// Begins. `requisitions` are those fulfilled at this Duchy and have passed [`Self::check_requisition`]; the
    /// aggregator has none.
    ///
    /// # Errors
    /// When a requisition is not one of the computation's, or the workspace fails.
    pub fn start(
        &self,
        requisitions: &[Requisition],
        workspace: &dyn Workspace,
    ) -> Result<Step<Outcome>, ProtocolError> {
        let history = requisitions
            .iter()
            .fold(Consumed::new("requisitions"), |consumed, one| {
                let consumed = consumed.bytes(one.id.as_bytes()).number(one.share.records());
                consumed.bytes(&one.share.sha256()).bytes(&one.encrypted_seed)
            })
            .finish();
        match self.role {
            Role::Aggregator if requisitions.is_empty() => {
                let awaits = Description::AggregationInput;
                Ok(self.seat.wait(awaits, self.slots(awaits), history, Vec::new(), Vec::new()))
            }
            Role::Aggregator => Err(ProtocolError::Ring("the aggregator takes no requisitions".to_owned())),
            Role::First | Role::Second => self.setup(requisitions, history, workspace),
        }
    }

    /// Goes on with the messages that `state` awaits. `requisitions` are those of [`Self::start`].
    ///
    /// # Errors
    /// When the state is not of this computation, the inbox is not exactly what is awaited, a share or a seed is not
    /// acceptable or missing, or the workspace fails.
    pub fn advance(
        &self,
        state: &State,
        requisitions: &[Requisition],
        inbox: &[Received],
        workspace: &dyn Workspace,
    ) -> Result<Step<Outcome>, ProtocolError> {
        self.seat.check_state(state)?;
        let inbox = check_inbox(&self.slots(state.awaits), inbox)?;
        match (state.awaits, self.role) {
            (Description::ShuffleInput, Role::First | Role::Second) => {
                let randomness = self.seat.randomness(state.awaits, consumed(state, &inbox));
                self.shuffle(state, requisitions, &inbox[0], &randomness, workspace)
            }
            (Description::AggregationInput, Role::Aggregator) => self.aggregate(&inbox),
            _ => Err(ProtocolError::MalformedState("it awaits what its role does not".to_owned())),
        }
    }

    /// The slots that a state awaits.
    ///
    /// # Errors
    /// When the state is not of this computation, Duchy, parameters and engine version.
    pub fn awaiting(&self, state: &State) -> Result<Vec<Slot>, ProtocolError> {
        self.seat.check_state(state)?;
        Ok(self.slots(state.awaits))
    }

    /// Checks an upload of a publisher to the last cell: length, digest, and every element below the modulus.
    ///
    /// # Errors
    /// [`ProtocolError::BadShare`] names the requisition and the cell; [`ProtocolError::BadBody`] when the body is not
    /// what its header says; [`ProtocolError::Io`] when it cannot be read.
    pub fn check_requisition(&self, requisition: &Requisition) -> Result<(), ProtocolError> {
        let refuse = |reason: String| ProtocolError::BadShare { requisition: requisition.id.clone(), reason };
        let (found, due) = (requisition.share.records(), self.parameters.cells);
        if found != due {
            return Err(refuse(format!("it has {found} cells where {due} are due")));
        }
        for_each_chunk(&requisition.share, 1, &Origin::Requisition(0), CHUNK_CELLS, |chunk| {
            share::check(self.parameters.modulus()?, chunk.bytes)
                .map_err(|error| refuse(format!("from cell {} on: {error}", chunk.first)))
        })
    }

    fn slots(&self, awaits: Description) -> Vec<Slot> {
        let slot = |from: &DuchyId| Slot { from: from.clone(), description: awaits };
        match self.role {
            Role::First => vec![slot(&self.roles.second_worker)],
            Role::Second => vec![slot(&self.roles.first_worker)],
            Role::Aggregator => vec![slot(&self.roles.first_worker), slot(&self.roles.second_worker)],
        }
    }

    /// The other worker.
    fn peer(&self) -> &DuchyId {
        if self.role == Role::First { &self.roles.second_worker } else { &self.roles.first_worker }
    }

    /// Noise cells that each worker adds.
    fn noise_cells(&self) -> u64 {
        self.noise.as_ref().map_or(0, |noise| noise.cells)
    }
}
