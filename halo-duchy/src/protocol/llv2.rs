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
//! | three | the first makes rows of zero tests; all peel, shuffle rows, pass on | test the rows, count the histogram |
//!
//! With maximum frequency 1 the computation ends after phase two.
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
//! the first worker.
//!
//! # What is assumed
//!
//! * The Duchies do not all collude. Any proper subset without the aggregator sees only ciphertexts and counts, as
//!   above.
//! * The aggregator does not collude with all workers but some: it needs every worker's exponent to undo the blinding
//!   of the index, and every worker's scalars to undo that of the flags. Phase three alone rests on the *first
//!   worker*: together with the aggregator it could divide out its exponents and learn exact counts above the maximum
//!   frequency (not whose they are).
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
//! Bodies are mapped over in chunks of [`CHUNK_RECORDS`] records (about 50 MiB of decoded
//! points and scalars), shuffled and joined in buckets of 16 MiB (about three times that with index structures; above
//! 512 buckets, 8 GiB a body, buckets grow in proportion). The number of registers and of publishers does not enter.

mod columns;
mod noise;
mod outcome;
mod parameters;
mod phase_one;
mod phase_three;
mod phase_two;
mod setup;

use std::fmt;

use halo_core::privacy::MaximumFrequency;
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, CompositeKey, KeyShareSecret};
use halo_crypto::group::Point;
use halo_crypto::proof::VerifiedShare;
use halo_crypto::secret::Secret;

use self::noise::Noise;
use self::outcome::Counts;
use super::record::for_each_chunk;
use super::stream::{Consumed, StepName, StepRandomness};
use super::{
    Body, CHUNK_RECORDS, Description, DuchyId, Message, Origin, ProtocolError, Received, Slot, State, Step, Workspace,
};

pub use outcome::{Frequency, Outcome, ReachAndFrequency};
pub use parameters::{NoiseParameters, Parameters};

/// Bytes of a register: index, key and count ciphertext.
pub const REGISTER_BYTES: usize = 3 * CIPHERTEXT_BYTES;
/// Bytes of a tuple: three flags and a count.
pub const TUPLE_BYTES: usize = 4 * CIPHERTEXT_BYTES;
/// Changes whenever the same input would give other bytes. A state of another version is refused.
pub const ENGINE_VERSION: u16 = 2;
/// Registers that are held at once while a body is checked at the door: about 4 MiB, because several are at a time.
const CHECK_RECORDS: usize = 4 * 1024;
/// This protocol in stored states.
const PROTOCOL: u8 = 1;

/// A Duchy as its peers know it.
#[derive(Clone, Debug)]
pub struct Participant {
    /// Its id.
    pub id: DuchyId,
    /// Its key share, whose possession it has proven.
    pub key: VerifiedShare,
}

/// Points and ids that the protocol fixes.
struct Constants {
    unit: Point,
    destroyed_key: Point,
    noise_key: Point,
    publisher_noise_id: Vec<u8>,
    padding_noise_id: Vec<u8>,
}

/// One Duchy's side of one computation.
pub struct Duchy {
    parameters: Parameters,
    computation: String,
    ring: Vec<Participant>,
    position: usize,
    secret: KeyShareSecret,
    seed: Secret<[u8; 32]>,
    /// Digest of parameters and participants.
    context: [u8; 32],
    full_key: CompositeKey,
    /// Keys of those who have yet to peel after this Duchy; at the aggregator the full key.
    remaining_key: CompositeKey,
    constants: Constants,
    noise: Option<Noise>,
    chunk_records: usize,
}

impl fmt::Debug for Duchy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Duchy")
            .field("computation", &self.computation)
            .field("id", self.id())
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
        let refuse = |reason: String| Err(ProtocolError::Ring(reason));
        if ring.len() < 2 {
            return refuse(format!("{} Duchies; at least 2 are needed", ring.len()));
        }
        if let Some((at, twice)) = ring.iter().enumerate().find(|(at, one)| ring[..*at].iter().any(|o| o.id == one.id))
        {
            return refuse(format!("{} is named twice, the second time at position {at}", twice.id));
        }
        let Some(position) = ring.iter().position(|participant| participant.id == me) else {
            return refuse(format!("{me} is not in it"));
        };
        if ring[position].key.share() != secret.public() {
            return refuse(format!("the key share of {me} is not the one of its secret key"));
        }
        let noise = parameters.calibrate(ring.len())?;
        let combine = |participants: &[Participant]| {
            let shares: Vec<VerifiedShare> = participants.iter().map(|participant| participant.key).collect();
            CompositeKey::combine(&shares).map_err(|error| ProtocolError::Ring(error.to_string()))
        };
        let full_key = combine(&ring)?;
        let is_aggregator = position + 1 == ring.len();
        let remaining_key = combine(if is_aggregator { &ring } else { &ring[position + 1..] })?;
        let context = ring
            .iter()
            .fold(parameters.digest(Consumed::new("context")), |consumed, participant| {
                consumed.bytes(participant.id.as_str().as_bytes()).bytes(participant.key.share().as_bytes())
            })
            .finish();
        let constants = Constants::new();
        Ok(Self {
            parameters,
            computation,
            ring,
            position,
            secret,
            seed,
            context,
            full_key,
            remaining_key,
            constants,
            noise,
            chunk_records: CHUNK_RECORDS,
        })
    }

    /// The same, holding at most `records` records in memory at once (at least 1). The result does not depend on it.
    #[must_use]
    pub fn with_chunk_records(mut self, records: usize) -> Self {
        self.chunk_records = records.max(1);
        self
    }

    /// This Duchy.
    pub fn id(&self) -> &DuchyId {
        &self.ring[self.position].id
    }

    /// All Duchies in ring order, the aggregator last.
    pub fn ring(&self) -> impl Iterator<Item = &DuchyId> {
        self.ring.iter().map(|participant| &participant.id)
    }

    /// Whether this Duchy is the aggregator.
    pub fn is_aggregator(&self) -> bool {
        self.position + 1 == self.ring.len()
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
            return Ok(self.wait(Description::SetupPhaseInput, history, Vec::new(), Vec::new()));
        }
        let consumed = Consumed::new("start").bytes(&self.context).bytes(&history).finish();
        let randomness = self.randomness(Description::SetupPhaseInput, consumed);
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
        self.check_state(state)?;
        let inbox = self.check_inbox(state, inbox)?;
        let consumed = inbox
            .iter()
            .fold(Consumed::new("advance").bytes(&state.to_bytes()), |consumed, received| {
                consumed
                    .bytes(received.slot.from.as_str().as_bytes())
                    .number(u64::from(received.slot.description.number()))
                    .number(received.body.records())
                    .bytes(&received.body.sha256())
            })
            .finish();
        let randomness = self.randomness(state.awaits, consumed);
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
        self.check_state(state)?;
        Ok(self.slots(state.awaits))
    }

    fn slots(&self, description: Description) -> Vec<Slot> {
        let workers = &self.ring[..self.ring.len() - 1];
        let slot = |participant: &Participant| Slot { from: participant.id.clone(), description };
        if description == Description::SetupPhaseInput {
            workers.iter().map(slot).collect()
        } else {
            // Around the ring: from the one before, and the aggregator is before the first worker.
            vec![slot(&self.ring[(self.position + self.ring.len() - 1) % self.ring.len()])]
        }
    }

    fn wait(&self, awaits: Description, history: [u8; 32], carried: Vec<u64>, outbox: Vec<Message>) -> Step {
        let state = State {
            protocol: PROTOCOL,
            engine_version: ENGINE_VERSION,
            computation: self.computation.clone(),
            duchy: self.id().clone(),
            context: self.context,
            history,
            awaits,
            carried,
        };
        Step::Wait { state, outbox, awaiting: self.slots(awaits) }
    }

    fn check_state(&self, state: &State) -> Result<(), ProtocolError> {
        let refuse = |reason: String| Err(ProtocolError::ForeignState(reason));
        if state.protocol != PROTOCOL {
            return refuse(format!("it is of protocol {}, not of Liquid Legions v2", state.protocol));
        }
        if state.engine_version != ENGINE_VERSION {
            let version = state.engine_version;
            return refuse(format!(
                "engine version {version} wrote it and this is version {ENGINE_VERSION}, which would draw other numbers"
            ));
        }
        if state.computation != self.computation {
            return refuse(format!("it is of computation {}, not of {}", state.computation, self.computation));
        }
        if &state.duchy != self.id() {
            return refuse(format!("it is of {}, not of {}", state.duchy, self.id()));
        }
        if state.context != self.context {
            return refuse("parameters or participants have changed since".to_owned());
        }
        Ok(())
    }

    /// The inbox, sorted by sender, when it fills exactly the awaited slots.
    fn check_inbox(&self, state: &State, inbox: &[Received]) -> Result<Vec<Received>, ProtocolError> {
        let slots = self.slots(state.awaits);
        let mut sorted = inbox.to_vec();
        sorted.sort_by(|a, b| a.slot.cmp(&b.slot));
        if let Some(received) = sorted.iter().find(|received| !slots.contains(&received.slot)) {
            let awaited = slots.iter().map(Slot::to_string).collect::<Vec<_>>().join(", ");
            return Err(ProtocolError::UnexpectedMessage { received: received.slot.clone(), awaited });
        }
        if let Some(pair) = sorted.windows(2).find(|pair| pair[0].slot == pair[1].slot) {
            return Err(ProtocolError::DuplicateMessage(pair[0].slot.clone()));
        }
        match slots.into_iter().find(|slot| sorted.iter().all(|received| &received.slot != slot)) {
            Some(missing) => Err(ProtocolError::MissingMessage(missing)),
            None => Ok(sorted),
        }
    }

    fn randomness(&self, step: Description, consumed: [u8; 32]) -> StepRandomness {
        let name = StepName {
            engine_version: ENGINE_VERSION,
            computation: &self.computation,
            duchy: self.id().as_str(),
            step: step.number(),
            consumed,
        };
        StepRandomness::derive(&self.seed, &name)
    }

    fn aggregator(&self) -> &DuchyId {
        &self.ring[self.ring.len() - 1].id
    }

    fn next(&self) -> &DuchyId {
        &self.ring[(self.position + 1) % self.ring.len()].id
    }

    /// Everybody who has handled what comes around the ring before it reaches this Duchy.
    fn upstream(&self) -> Vec<DuchyId> {
        let before = self.ring[..self.position].iter().map(|participant| participant.id.clone());
        if self.is_aggregator() { before.collect() } else { before.chain([self.aggregator().clone()]).collect() }
    }
}

fn requisitions_digest(requisitions: &[Body]) -> [u8; 32] {
    requisitions
        .iter()
        .fold(Consumed::new("requisitions"), |consumed, body| consumed.number(body.records()).bytes(&body.sha256()))
        .finish()
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

/// Bytes of a record of a message, above 0. In phase three the aggregator sends the counts of the usable tuples, and
/// everybody else rows of F − 1 zero tests (with F = 1 there is no phase three).
pub fn message_record_bytes(
    description: Description,
    from_aggregator: bool,
    maximum_frequency: MaximumFrequency,
) -> usize {
    match description {
        Description::SetupPhaseInput | Description::ExecutionPhaseOneInput => REGISTER_BYTES,
        Description::ExecutionPhaseTwoInput => TUPLE_BYTES,
        Description::ExecutionPhaseThreeInput if from_aggregator => CIPHERTEXT_BYTES,
        Description::ExecutionPhaseThreeInput => {
            CIPHERTEXT_BYTES * (maximum_frequency.get() as usize).saturating_sub(1).max(1)
        }
    }
}

/// Holds as many ciphertexts at once as [`CHECK_RECORDS`] registers have, whatever a record's size.
fn check_records(body: &Body, record_bytes: usize, origin: &Origin) -> Result<(), ProtocolError> {
    let records = (CHECK_RECORDS * REGISTER_BYTES / record_bytes.max(1)).max(1);
    for_each_chunk(body, record_bytes, origin, records, |chunk| {
        columns::decode_rows(chunk, record_bytes / CIPHERTEXT_BYTES, origin).map(drop)
    })
}
