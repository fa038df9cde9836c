//! Protocol engines: one Duchy's side of a multi-party protocol as a value, without any input or output of its own.
//!
//! Every protocol has the same shape. One Duchy's side is *started* with what it holds and then *advanced* with what
//! its peers sent; each call answers with a [`Step`]: either wait for certain messages, or be done.
//!
//! ```text
//! start(own input)        → Step
//! advance(state, inbox)   → Step
//! Step = Wait { state, outbox, awaiting } | Done { output, outbox }
//! ```
//!
//! # Rules that every engine keeps
//!
//! * **No socket, clock, task or ambient randomness.** All randomness comes from a 32-byte seed that the Duchy drew
//!   once, bound to everything that the step consumes. A repeated step gives the same bytes, and no other
//!   input ever meets the same random stream. Chunk sizes, the number of threads and the arithmetic backend do not
//!   enter.
//! * **Large vectors are never one value in memory.** Engines read [`RecordSource`]s and write [`RecordSink`]s of
//!   fixed-size records in chunks; a shuffle or a join spills to buckets of at most about 16 MiB.
//! * **What comes in is checked**: the slot that it fills, its length, count and digest, and the encoding of every
//!   record. [`ProtocolError::culprits`] names who is to blame.
//!
//! [`local::run`] runs all Duchies of a computation in one process.

mod error;
pub mod hmss;
mod join;
pub mod llv2;
pub mod local;

mod record;
mod ring;
pub mod rollv2;
mod seat;
mod shuffle;
mod state;
mod stream;
pub mod trustee;
mod vector;
mod workspace;

use std::fmt;

pub use error::{Origin, ProtocolError};
pub use halo_core::resource::DuchyId;
pub use record::{Body, CHUNK_RECORDS, RecordSink, RecordSource, Workspace};
pub use state::State;
pub use workspace::{DirectoryWorkspace, MemoryBody, MemoryWorkspace};

/// What a message between two Duchies carries. The numbers are those of stored states.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Description {
    /// A worker's registers with its noise, for the aggregator.
    SetupPhaseInput = 1,
    /// All registers, on their way around the ring in phase one.
    ExecutionPhaseOneInput = 2,
    /// Flag tuples, on their way around the ring in phase two.
    ExecutionPhaseTwoInput = 3,
    /// Count ciphertexts of the usable tuples on their way around the ring in phase three, rows of zero tests on the last hop.
    ExecutionPhaseThreeInput = 4,
    /// All registers of a reach-only computation, on their way around the ring.
    ReachOnlyExecutionInput = 5,
    /// A worker's seed and the seeds of publishers that it passes on, for the other worker of a share shuffle.
    ShuffleInput = 6,
    /// A worker's shuffled shares, for the aggregator.
    AggregationInput = 7,
    /// Publishers' frequency vectors, for a trustee. No message between Duchies: only states name it.
    FrequencyVectors = 8,
}

impl Description {
    /// All, in the order of their numbers.
    pub const ALL: [Self; 8] = [
        Self::SetupPhaseInput,
        Self::ExecutionPhaseOneInput,
        Self::ExecutionPhaseTwoInput,
        Self::ExecutionPhaseThreeInput,
        Self::ReachOnlyExecutionInput,
        Self::ShuffleInput,
        Self::AggregationInput,
        Self::FrequencyVectors,
    ];

    /// The description with this number, if there is one.
    pub fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|description| description.number() == number)
    }

    /// The number on the wire.
    pub fn number(self) -> u8 {
        self as u8
    }
}

impl fmt::Display for Description {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SetupPhaseInput => "setup phase input",
            Self::ExecutionPhaseOneInput => "execution phase one input",
            Self::ExecutionPhaseTwoInput => "execution phase two input",
            Self::ExecutionPhaseThreeInput => "execution phase three input",
            Self::ReachOnlyExecutionInput => "execution phase input",
            Self::ShuffleInput => "shuffle phase input",
            Self::AggregationInput => "aggregation phase input",
            Self::FrequencyVectors => "frequency vectors",
        })
    }
}

/// A message that a step wants delivered.
#[derive(Clone, Debug)]
pub struct Message {
    /// The Duchy that it is for.
    pub to: DuchyId,
    /// What it carries.
    pub description: Description,
    /// Its records.
    pub body: Body,
}

/// A place in an inbox: one message of one kind from one Duchy.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Slot {
    /// The only Duchy that may fill it.
    pub from: DuchyId,
    /// What the message must carry.
    pub description: Description,
}

impl fmt::Display for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} from {}", self.description, self.from)
    }
}

/// A message that arrived and the slot that it claims.
#[derive(Clone, Debug)]
pub struct Received {
    /// Who sent it (as authenticated by the transport) and what it says it is.
    pub slot: Slot,
    /// Its records.
    pub body: Body,
}

/// What a Duchy does after a step.
#[derive(Debug)]
pub enum Step<O = llv2::Outcome> {
    /// Deliver `outbox`, keep `state`, and advance when every slot of `awaiting` is filled.
    Wait {
        /// To be given back to the engine. Holds no key and no seed.
        state: State,
        /// What to deliver.
        outbox: Vec<Message>,
        /// What to wait for: all of it, and nothing else.
        awaiting: Vec<Slot>,
    },
    /// Deliver `outbox`; this Duchy's part is then over.
    Done {
        /// The result, at the Duchy that learns it.
        output: Option<O>,
        /// What to deliver.
        outbox: Vec<Message>,
    },
}
