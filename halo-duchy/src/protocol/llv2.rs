//! Liquid Legions v2: reach and frequency of people whom several publishers have reached, from encrypted sketches.
//!
//! n Duchies, at least two, stand in a ring; the last is the *aggregator*, the others are *workers*. Every publisher
//! has sent one Duchy its sketch, each register three ElGamal ciphertexts under the Duchies' common key: index, key and
//! count. What follows joins the sketches without anybody seeing one.
//!
//! | phase | workers | aggregator |
//! |---|---|---|
//! | setup | own registers + noise registers, shuffled, to the aggregator | all of these + own, shuffled, to the first worker |
//! | one | peel and blind the index, re-randomise all three, shuffle, pass on | open the index, join, same-key aggregation, frequency noise, shuffle, to the first worker |
//! | two | peel and scale flags, re-randomise the count, frequency noise, shuffle, pass on | test the flags, count reach, send the usable counts to the first worker |
//! | three | peel the count; the last makes a row of zero tests of it, the others re-randomise it; shuffle, pass on | test the rows, count the histogram |
//!
//! With maximum frequency 1 the computation ends after phase two. What workers and aggregator re-randomise, keys in phase one
//! and counts in all three, is twice as much afterwards; `llv2/doubling.rs` says why, and where that matters.
//!
//! # What each party learns
//!
//! Assuming that everybody follows the protocol and that the Diffie–Hellman problem is hard:
//!
//! * *Setup.* The aggregator learns how many registers each worker's publishers sent in total, the publishers' noise
//!   included, and sees ciphertexts under a key of which it holds one share.
//! * *Phase one.* Workers learn the total number of registers. The aggregator learns how often each blinded index
//!   occurs: how many registers are shared by k publishers, hidden by the blinded histogram noise, and the size of the
//!   group of publisher noise, hidden by the noise for publisher noise. It cannot tell which index is which while one
//!   worker keeps its exponent.
//! * *Phase two.* Workers learn the number of groups, noise included. The aggregator learns how many tuples are noise,
//!   destroyed and usable, hidden by the reach and frequency noise.
//! * *Phase three.* Workers learn how many tuples are usable, frequency noise included. The aggregator learns the
//!   histogram, hidden by the frequency noise.
//!
//! What the aggregator opens in phases two and three is the identity or a uniform point, whatever scalars it chose
//! itself: every worker multiplies every flag by a secret scalar of its own, and the rows of phase three are made by
//! the last worker, whose scalars nobody else has a part in.
//!
//! # What is assumed
//!
//! * The Duchies do not all collude. Any proper subset without the aggregator sees only ciphertexts and counts, as
//!   above.
//! * The aggregator does not collude with all workers but some: it needs every worker's exponent to undo the blinding
//!   of the index, and every worker's scalars to undo that of the flags. Phase three alone rests on the *last
//!   worker*, the one before the aggregator: together they could divide out its exponents, or open the counts that it
//!   receives, and learn exact counts above the maximum frequency (not whose they are). The workers before it see no
//!   rows, only counts under the keys of those after them, re-randomised on every hop. A worker can make itself the last
//!   by drawing keys until it is.
//! * The noise of at least `honest_contributors` Duchies is secret from whoever looks at the result. The others know
//!   what they added and can take it off.
//! * Random streams derive from each Duchy's seed, which it keeps secret and never uses for two computations.
//!
//! # What an active cheater could still do
//!
//! Truncated, surplus and repeated messages, wrong counts, senders, stages and computations, encodings that are no
//! group elements and identities as first components are refused and blamed. There are no proofs of correct
//! computation: a Duchy can put valid ciphertexts in the place of others, add wrong noise, or leave a step out, and so
//! falsify the result without being noticed; a publisher can repeat an index more than S times and so remove that
//! register. The aggregator can report any result. A worker that receives from a worker that cheated may be the one
//! that a later count check suspects; such errors name everybody who could have done it.
//!
//! # Memory
//!
//! Bodies are mapped over in chunks of [`CHUNK_RECORDS`](super::CHUNK_RECORDS) records (about 50 MiB of decoded
//! points and scalars), shuffled and joined in buckets of 16 MiB (about three times that with index structures; above
//! 512 buckets, 8 GiB a body, buckets grow in proportion). The number of registers and of publishers does not enter.

pub(super) mod columns;
mod doubling;
pub(super) mod noise;
pub(super) mod outcome;
mod parameters;
mod phase_one;
mod phase_three;
mod phase_two;
mod setup;

use std::fmt;

use halo_core::privacy::MaximumFrequency;
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, KeyShareSecret};
use halo_crypto::group::Point;
use halo_crypto::secret::Secret;

use self::noise::Noise;
use self::outcome::Counts;
use super::record::{PART_RECORDS, for_each_chunk};
use super::ring::{Place, requisitions_digest};
use super::seat::{Engine, consumed};
use super::stream::Consumed;
use super::{Body, Description, DuchyId, Origin, ProtocolError, Received, Slot, State, Step, Workspace};

pub use super::ring::Participant;
pub use outcome::{Frequency, Outcome, ReachAndFrequency};
pub use parameters::{NoiseParameters, Parameters};

/// Bytes of a register: index, key and count ciphertext.
pub const REGISTER_BYTES: usize = 3 * CIPHERTEXT_BYTES;
/// Bytes of a tuple: three flags and a count.
pub const TUPLE_BYTES: usize = 4 * CIPHERTEXT_BYTES;
/// Changes whenever the same input would give other bytes. A state of another version is refused.
pub const ENGINE_VERSION: u16 = 3;
/// Registers that are held at once while a body is checked at the door: about 4 MiB, because several are at a time.
const CHECK_RECORDS: usize = 4 * 1024;
/// This protocol in stored states.
const PROTOCOL: u8 = 1;

/// Points and ids that the protocol fixes.
pub(super) struct Constants {
    pub(super) unit: Point,
    destroyed_key: Point,
    noise_key: Point,
    /// What gives the two when it is added to itself, for encryption.
    half_destroyed_key: Point,
    half_noise_key: Point,
    publisher_noise_id: Vec<u8>,
    padding_noise_id: Vec<u8>,
}

/// One Duchy's side of one computation.
pub struct Duchy {
    parameters: Parameters,
    place: Place,
    constants: Constants,
    noise: Option<Noise>,
}

impl fmt::Debug for Duchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duchy")
            .field("place", &self.place)
            .field("parameters", &self.parameters)
            .finish_non_exhaustive()
    }
}

impl Duchy {
    /// One Duchy's side of a computation.
    ///
    /// `ring` lists all Duchies in ring order, the aggregator last, and `me` is one of them. `secret` belongs to its
    /// key share. `seed` was drawn from the operating system's generator for this computation alone.
    ///
    /// # Errors
    /// When the parameters are out of range, the noise cannot be calibrated, or the ring has fewer than two
    /// Duchies, names one twice, does not contain `me`, or gives it another key.
    pub fn new(
        parameters: Parameters,
        computation: String,
        ring: Vec<Participant>,
        me: DuchyId,
        secret: KeyShareSecret,
        seed: Secret<[u8; 32]>,
    ) -> Result<Self, ProtocolError> {
        let noise = parameters.calibrate(ring.len())?;
        let context = parameters.digest(Consumed::new("context"));
        let engine = Engine { protocol: PROTOCOL, name: "Liquid Legions v2", version: ENGINE_VERSION };
        let place = Place::new(engine, context, computation, ring, me, secret, seed)?;
        Ok(Self { parameters, place, constants: Constants::new(), noise })
    }

    /// The same, holding at most `records` records in memory at once (at least 1). The result does not depend on it.
    #[must_use]
    pub fn with_chunk_records(mut self, records: usize) -> Self {
        self.place.chunk_records = records.max(1);
        self
    }

    /// This Duchy.
    pub fn id(&self) -> &DuchyId {
        self.place.id()
    }

    /// All Duchies in ring order, the aggregator last.
    pub fn ring(&self) -> impl Iterator<Item = &DuchyId> {
        self.place.ring.iter().map(|participant| &participant.id)
    }

    /// Whether this Duchy is the aggregator.
    pub fn is_aggregator(&self) -> bool {
        self.place.is_aggregator()
    }

    /// Begins. A worker does its setup; the aggregator notes what its requisitions are and waits for the workers.
    ///
    /// `requisitions` are the bodies fulfilled at this Duchy, registers of [`REGISTER_BYTES`] that have passed
    /// [`check_requisition`]; there may be none, and they may be empty. The order of the list matters for
    /// the noise streams only, but must be the same at a retry.
    ///
    /// # Errors
    /// When a requisition is not what its header says, or the workspace fails.
    pub fn start(&self, requisitions: &[Body], workspace: &dyn Workspace) -> Result<Step, ProtocolError> {
        let history = requisitions_digest(requisitions);
        if self.is_aggregator() {
            return Ok(self.place.wait(Description::SetupPhaseInput, history, Vec::new(), Vec::new()));
        }
        let consumed = self.place.seat.consumed_at_start(&history);
        let randomness = self.place.seat.randomness(Description::SetupPhaseInput, consumed);
        self.worker_setup(requisitions, &randomness, consumed, workspace)
    }

    /// Goes on with the messages that `state` awaits. `requisitions` are those of [`Self::start`]; they are read only
    /// by the aggregator's setup.
    ///
    /// # Errors
    /// When the state is not of this computation, Duchy, parameters and engine version; when the inbox is anything
    /// but exactly what is awaited; when a body is not what its header says, has another number of records than the
    /// protocol prescribes or one that is not acceptable; when the workspace fails. Nothing has been sent then, and
    /// [`ProtocolError::culprits`] names who is to blame, if it is known.
    pub fn advance(
        &self,
        state: &State,
        requisitions: &[Body],
        inbox: &[Received],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        self.place.seat.check_state(state)?;
        let inbox = self.place.check_inbox(state, inbox)?;
        let consumed = consumed(state, &inbox);
        let randomness = self.place.seat.randomness(state.awaits, consumed);
        let mismatch = || ProtocolError::MalformedState("it carries other numbers than its step needs".to_owned());
        let carried = state.carried.as_slice();
        let first = &inbox[0];
        match (state.awaits, self.is_aggregator(), carried) {
            (Description::SetupPhaseInput, true, []) => {
                if requisitions_digest(requisitions) != state.history {
                    return Err(ProtocolError::OtherRequisitions);
                }
                self.aggregator_setup(requisitions, &inbox, &randomness, consumed, workspace)
            }
            (Description::ExecutionPhaseOneInput, false, []) => {
                self.worker_phase_one(first, &randomness, consumed, workspace)
            }
            (Description::ExecutionPhaseOneInput, true, [registers]) => {
                self.aggregator_phase_one(*registers, first, &randomness, consumed, workspace)
            }
            (Description::ExecutionPhaseTwoInput, false, []) => {
                self.worker_phase_two(first, &randomness, consumed, workspace)
            }
            (Description::ExecutionPhaseTwoInput, true, [registers, tuples]) => {
                self.aggregator_phase_two(*registers, *tuples, first, &randomness, consumed, workspace)
            }
            (Description::ExecutionPhaseThreeInput, false, [forwarded]) => {
                self.worker_phase_three(*forwarded, first, &randomness, workspace)
            }
            (Description::ExecutionPhaseThreeInput, true, [registers, tuples, noise_tuples, rows]) => {
                let counts = Counts { registers: *registers, tuples: *tuples, noise_tuples: *noise_tuples };
                self.aggregator_phase_three(&counts, *rows, first, workspace)
            }
            _ => Err(mismatch()),
        }
    }

    /// The slots that a state awaits.
    ///
    /// # Errors
    /// When the state is not of this computation, Duchy, parameters and engine version.
    pub fn awaiting(&self, state: &State) -> Result<Vec<Slot>, ProtocolError> {
        self.place.seat.check_state(state)?;
        Ok(self.place.slots(state.awaits))
    }
}

/// Checks an upload of a publisher to the last record: record size, count and digest, canonical encodings of group
/// elements, and no identity as a first component.
///
/// # Errors
/// [`ProtocolError::BadBody`] or [`ProtocolError::BadRecord`], which names the record; [`ProtocolError::Io`] when the
/// body cannot be read.
pub fn check_requisition(body: &Body) -> Result<(), ProtocolError> {
    check_records(body, REGISTER_BYTES, &Origin::Requisition(0))
}

/// Checks a message of another Duchy in the same way, before it is bound to its slot. `record_bytes` is what
/// [`message_record_bytes`] says.
///
/// # Errors
/// As [`check_requisition`]; [`ProtocolError::culprits`] names the sender.
pub fn check_message(body: &Body, record_bytes: usize, from: &DuchyId) -> Result<(), ProtocolError> {
    check_records(body, record_bytes, &Origin::Duchy(from.clone()))
}

/// Bytes of a record of a message, above 0; `None` for a description of another protocol. In phase three the aggregator
/// receives rows of F − 1 zero tests, from the last worker, and everybody else counts of usable tuples (with F = 1 there
/// is no phase three).
pub fn message_record_bytes(
    description: Description,
    to_aggregator: bool,
    maximum_frequency: MaximumFrequency,
) -> Option<usize> {
    match description {
        Description::SetupPhaseInput | Description::ExecutionPhaseOneInput => Some(REGISTER_BYTES),
        Description::ExecutionPhaseTwoInput => Some(TUPLE_BYTES),
        Description::ExecutionPhaseThreeInput if to_aggregator => {
            Some(CIPHERTEXT_BYTES * (maximum_frequency.get() as usize).saturating_sub(1).max(1))
        }
        Description::ExecutionPhaseThreeInput => Some(CIPHERTEXT_BYTES),
        Description::ReachOnlyExecutionInput
        | Description::ShuffleInput
        | Description::AggregationInput
        | Description::FrequencyVectors => None,
    }
}

/// Holds as many ciphertexts at once as [`CHECK_RECORDS`] registers have, whatever a record's size.
pub(crate) fn check_records(body: &Body, record_bytes: usize, origin: &Origin) -> Result<(), ProtocolError> {
    let records = (CHECK_RECORDS * REGISTER_BYTES / record_bytes.max(1)).max(1);
    for_each_chunk(body, record_bytes, origin, records, |chunk| {
        let row = record_bytes / CIPHERTEXT_BYTES;
        chunk.map_parts(record_bytes, PART_RECORDS, |part| columns::decode_rows(part, row, origin).map(drop)).map(drop)
    })
}
