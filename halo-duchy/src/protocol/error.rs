//! What can go wrong in a protocol, and who is to blame.

use std::fmt;
use std::io;

use super::{Description, DuchyId, Slot};

/// Where a body of records came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A message of this Duchy.
    Duchy(DuchyId),
    /// The requisition at this position among those fulfilled at this Duchy.
    Requisition(usize),
    /// A file that this Duchy wrote itself.
    Own,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Duchy(duchy) => write!(f, "the message from {duchy}"),
            Self::Requisition(position) => write!(f, "requisition {position} of this Duchy"),
            Self::Own => f.write_str("a file of this Duchy's own workspace"),
        }
    }
}

/// Why a step refused. Nothing has been consumed and nothing has been sent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtocolError {
    /// The parameters are out of range: correct the measurement or the protocol configuration.
    #[error("the protocol parameters are not usable: {0}")]
    Parameters(String),
    /// The list of participants does not fit this Duchy: correct the list or the key.
    #[error("the ring of Duchies is not usable: {0}")]
    Ring(String),
    /// The state is not one of this computation, Duchy, parameters and engine version: load the right one.
    #[error("the state does not belong here: {0}")]
    ForeignState(String),
    /// The stored state does not decode: it was damaged or written by something else.
    #[error("the state does not decode: {0}")]
    MalformedState(String),
    /// A message that nobody owes at this point: refuse it at the door.
    #[error("nobody awaits {received} here; awaited: {awaited}")]
    UnexpectedMessage {
        /// What arrived.
        received: Slot,
        /// What was awaited, in words.
        awaited: String,
    },
    /// Two messages claim the same slot: keep the first one only.
    #[error("{0} was handed in twice")]
    DuplicateMessage(Slot),
    /// A message is still missing: wait for it.
    #[error("{0} is missing")]
    MissingMessage(Slot),
    /// The requisitions are not the ones with which the computation began.
    #[error("the requisitions differ from those with which the computation began")]
    OtherRequisitions,
    /// A body differs from what its header says: refuse it.
    #[error("{origin} is not what its header says: {reason}")]
    BadBody {
        /// Where it came from.
        origin: Origin,
        /// What differs.
        reason: String,
    },
    /// A record is no triple (or row) of ciphertexts: refuse the body.
    #[error("record {record} of {origin} is not acceptable: {reason}")]
    BadRecord {
        /// Where the body came from.
        origin: Origin,
        /// Position of the record in the body, from 0.
        record: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// The number of records is not the one that the protocol prescribes.
    #[error("the {description} from {from} has {received} records where {expected} are due")]
    WrongCount {
        /// What the message carries.
        description: Description,
        /// Who sent it.
        from: DuchyId,
        /// How many records it has.
        received: u64,
        /// What is due, in words.
        expected: String,
        /// Everybody whose deviation could explain it.
        suspects: Vec<DuchyId>,
    },
    /// The share of a publisher is not acceptable.
    #[error("the share of {requisition} is not acceptable: {reason}")]
    BadShare {
        /// The requisition.
        requisition: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The seed of a publisher's share, as the other worker has passed it on, is not acceptable: the publisher has made it
    /// so, or the worker has put something else in its place.
    #[error("the seed of {requisition}, as {from} has passed it on, is not acceptable: {reason}")]
    BadSeed {
        /// The requisition.
        requisition: String,
        /// Who has passed the seed on.
        from: DuchyId,
        /// What is wrong with it.
        reason: String,
    },
    /// The encrypted vector of a publisher is not acceptable: refuse it, or have it sent again.
    #[error("the vector of {requisition} is not acceptable: {reason}")]
    BadVector {
        /// The requisition.
        requisition: String,
        /// What is wrong with it.
        reason: String,
    },
    /// This process may not open data: it has no attestation that is accepted.
    #[error("this process may not open {what}: {reason}")]
    NotAttested {
        /// What it asked for.
        what: String,
        /// Why it is refused.
        reason: String,
    },
    /// Shares add up to a number that no frequency has. Nobody can be named: either worker can falsify its vector, and any
    /// publisher can share a vector with numbers above the maximum frequency.
    #[error(
        "shares add up to {value}, which is neither at most {most} nor the {sentinel} of unused noise: a worker deviated, or a \
         publisher's vector was out of range"
    )]
    BadSum {
        /// The sum.
        value: u8,
        /// The largest frequency.
        most: u8,
        /// What unused noise cells hold.
        sentinel: u8,
    },
    /// The counts contradict each other: more noise than tuples beyond what an `i64` holds.
    #[error("the counts of the computation do not fit together: {0}")]
    Inconsistent(String),
    /// The noise cannot be calibrated or drawn.
    #[error("the noise cannot be made: {0}")]
    Noise(String),
    /// More registers are active than the sketch can tell apart: use a larger sketch.
    #[error("the sketch is saturated: {active} of {registers} registers are active; a larger sketch is needed")]
    Saturated {
        /// Active registers after the noise baseline has been taken off.
        active: i64,
        /// Registers of the sketch.
        registers: u64,
    },
    /// All parties wait and nothing is under way (local runs only).
    #[error("every Duchy waits and no message is under way; missing: {0}")]
    Stalled(String),
    /// The caller has given the step up.
    #[error("the step was given up")]
    Cancelled,
    /// Reading or writing failed: try again.
    #[error("reading or writing records failed: {0}")]
    Io(#[from] io::Error),
}

impl ProtocolError {
    /// The Duchies of which at least one deviated from the protocol, or the publisher of [`Self::requisition`] did where
    /// there is one; empty when no Duchy can be named. One entry and no requisition means that it is certain.
    pub fn culprits(&self) -> Vec<DuchyId> {
        match self {
            Self::UnexpectedMessage { received, .. } => vec![received.from.clone()],
            Self::DuplicateMessage(slot) => vec![slot.from.clone()],
            Self::BadBody { origin: Origin::Duchy(duchy), .. }
            | Self::BadRecord { origin: Origin::Duchy(duchy), .. } => {
                vec![duchy.clone()]
            }
            Self::WrongCount { suspects, .. } => suspects.clone(),
            Self::BadSeed { from, .. } => vec![from.clone()],
            Self::BadBody { .. }
            | Self::BadRecord { .. }
            | Self::BadShare { .. }
            | Self::BadVector { .. }
            | Self::BadSum { .. }
            | Self::NotAttested { .. }
            | Self::Parameters(_)
            | Self::Ring(_)
            | Self::ForeignState(_)
            | Self::MalformedState(_)
            | Self::MissingMessage(_)
            | Self::OtherRequisitions
            | Self::Inconsistent(_)
            | Self::Noise(_)
            | Self::Saturated { .. }
            | Self::Stalled(_)
            | Self::Cancelled
            | Self::Io(_) => Vec::new(),
        }
    }

    /// The requisition whose publisher deviated, where it is known, unless one of [`Self::culprits`] did.
    pub fn requisition(&self) -> Option<&str> {
        match self {
            Self::BadShare { requisition, .. }
            | Self::BadSeed { requisition, .. }
            | Self::BadVector { requisition, .. } => Some(requisition),
            _ => None,
        }
    }
}
