//! Reach-only Liquid Legions v2: how many people several publishers have reached, at a seventh of the work.
//!
//! The Duchies stand in a ring as for [`super::llv2`]; the last is the *aggregator*. A register is the ciphertext of its
//! index alone. There is no key, so registers are neither compared nor destroyed, and no count.
//!
//! | phase | workers | aggregator |
//! |---|---|---|
//! | setup | own registers + noise registers, shuffled, and the excess noise, to the aggregator | all of these + own, shuffled, and the sum of the excess noise, to the first worker |
//! | execution | peel and blind the index, re-randomise, shuffle; peel the excess noise; pass on | open the excess noise and the indexes, count the different ones |
//!
//! The *excess noise* is the number of different ids among the blinded histogram noise. It would be counted as reach, and
//! no key marks it, so every Duchy sends its number as `E·U`, encrypted; the numbers are added under encryption, and the
//! aggregator looks the sum up among the multiples of U.
//!
//! # What each party learns
//!
//! Workers learn the total number of registers. The aggregator learns how often each blinded index occurs, hidden by the
//! blinded histogram noise and the noise for publisher noise, and the sum of all Duchies' excess noise, which says nothing
//! about people. What is assumed, and what an active cheater could still do, is as in [`super::llv2`].
//!
//! # Memory
//!
//! As [`super::llv2`], with a third of it for each register.

use std::collections::HashMap;
use std::fmt;

use halo_crypto::batch;
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext, KeyShareSecret};
use halo_crypto::group::{Point, Scalar};
use halo_crypto::secret::Secret;

use super::join::Join;
use super::llv2::noise::{DrawnRegisters, Noise};
use super::llv2::outcome::{Outcome, signed, subtract};
use super::llv2::{Constants, Parameters, Participant, check_records, columns};
use super::record::{Chunk, PART_RECORDS, for_each_chunk};
use super::ring::{Place, requisitions_digest};
use super::seat::{Engine, consumed, wrong_count};
use super::shuffle::Shuffle;
use super::stream::{Consumed, Purpose, StepRandomness};
use super::{Body, Description, DuchyId, Message, Origin, ProtocolError, Received, Slot, State, Step, Workspace};

/// Bytes of a register: the ciphertext of its index.
pub const REGISTER_BYTES: usize = CIPHERTEXT_BYTES;
/// Changes whenever the same input would give other bytes. A state of another version is refused.
pub const ENGINE_VERSION: u16 = 2;
/// This protocol in stored states.
const PROTOCOL: u8 = 2;
/// Where the stream of the excess noise draws what: its encryption, and its re-randomisation.
const EXCESS: u64 = 0;

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
    /// One Duchy's side of a computation; the arguments are those of [`super::llv2::Duchy::new`].
    ///
    /// # Errors
    /// As there, and when the maximum frequency is not 1.
    pub fn new(
        parameters: Parameters,
        computation: String,
        ring: Vec<Participant>,
        me: DuchyId,
        secret: KeyShareSecret,
        seed: Secret<[u8; 32]>,
    ) -> Result<Self, ProtocolError> {
        if parameters.maximum_frequency.counts_frequency() {
            let frequency = parameters.maximum_frequency;
            return Err(ProtocolError::Parameters(format!(
                "maximum frequency {frequency}; this protocol has no counts"
            )));
        }
        let noise = parameters.calibrate(ring.len())?;
        let context = parameters.digest(Consumed::new("reach-only context"));
        let engine = Engine { protocol: PROTOCOL, name: "reach-only Liquid Legions v2", version: ENGINE_VERSION };
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

    /// Begins; as [`super::llv2::Duchy::start`], with registers of [`REGISTER_BYTES`] that have passed
    /// [`check_requisition`].
    ///
    /// # Errors
    /// When a requisition is not what its header says, or the workspace fails.
    pub fn start(&self, requisitions: &[Body], workspace: &dyn Workspace) -> Result<Step, ProtocolError> {
        let history = requisitions_digest(requisitions);
        if self.place.is_aggregator() {
            return Ok(self.place.wait(Description::SetupPhaseInput, history, Vec::new(), Vec::new()));
        }
        let consumed = self.place.seat.consumed_at_start(&history);
        let randomness = self.place.seat.randomness(Description::SetupPhaseInput, consumed);
        let (body, _) = self.setup(requisitions, &[], &randomness, workspace)?;
        let message = Message { to: self.place.aggregator().clone(), description: Description::SetupPhaseInput, body };
        Ok(self.place.wait(Description::ReachOnlyExecutionInput, consumed, Vec::new(), vec![message]))
    }

    /// Goes on; as [`super::llv2::Duchy::advance`].
    ///
    /// # Errors
    /// As there.
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
        match (state.awaits, self.place.is_aggregator(), state.carried.as_slice()) {
            (Description::SetupPhaseInput, true, []) => {
                if requisitions_digest(requisitions) != state.history {
                    return Err(ProtocolError::OtherRequisitions);
                }
                self.aggregator_setup(requisitions, &inbox, &randomness, consumed, workspace)
            }
            (Description::ReachOnlyExecutionInput, false, []) => {
                self.worker_execution(&inbox[0], &randomness, workspace)
            }
            (Description::ReachOnlyExecutionInput, true, [registers]) => {
                self.aggregator_execution(*registers, &inbox[0], workspace)
            }
            _ => Err(ProtocolError::MalformedState("it carries other numbers than its step needs".to_owned())),
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

    /// T, or 0 without noise: two more than with keys, so that the groups of publisher noise and of padding exist.
    fn noise_registers(&self) -> u64 {
        self.noise.as_ref().map_or(0, |noise| noise.registers + 2)
    }

    /// Reach-only Liquid Legions v2, setup phase: own registers, what came in, own noise, shuffled; then the sum of all
    /// excess noise. Gives the number of registers with it.
    fn setup(
        &self,
        requisitions: &[Body],
        inbox: &[Received],
        randomness: &StepRandomness,
        workspace: &dyn Workspace,
    ) -> Result<(Body, u64), ProtocolError> {
        let records = requisitions
            .iter()
            .map(|body| body.records())
            .chain(inbox.iter().map(|received| received.body.records() - 1))
            .try_fold(self.noise_registers(), u64::checked_add)
            .filter(|sum| i64::try_from(*sum).is_ok())
            .ok_or_else(|| ProtocolError::Inconsistent("more registers than can be counted".to_owned()))?;
        let mut output = Shuffle::new(randomness, workspace, REGISTER_BYTES, records)?;
        for (position, body) in requisitions.iter().enumerate() {
            let origin = Origin::Requisition(position);
            for_each_chunk(body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| output.push(chunk.bytes))?;
        }
        let mut excess = self.add_noise(randomness, &mut output)?;
        for received in inbox {
            let origin = Origin::Duchy(received.slot.from.clone());
            for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
                // Decoded to be checked: a bad record must be blamed on its sender, not on the aggregator later.
                let mut decoded = columns::decode_rows(chunk, 1, &origin)?;
                let (registers, last) = split_last(chunk, received);
                if last.is_some() {
                    excess = decoded.pop().map_or(excess, |one| excess + one);
                }
                output.push(registers)
            })?;
        }
        let mut last = Vec::with_capacity(REGISTER_BYTES);
        batch::encode_ciphertexts(&[excess], &mut last);
        Ok((output.finish_before(&last)?, records))
    }

    /// Adds the own noise registers, and gives the encrypted number of different ids in the blinded histogram noise.
    fn add_noise(&self, randomness: &StepRandomness, output: &mut Shuffle<'_>) -> Result<Ciphertext, ProtocolError> {
        let key = &self.place.full_key;
        let mut excess = 0;
        if let Some(noise) = &self.noise {
            let drawn = DrawnRegisters::draw(noise, u64::from(self.parameters.publishers), true, randomness)?;
            excess = drawn.group_count();
            let nonces = randomness.stream(Purpose::NonceA);
            drawn.for_each_indexes(&self.constants, randomness, self.place.chunk_records, |first, indexes| {
                let nonces = nonces.scalars(first, indexes.len());
                output.push(&columns::encrypted(key, indexes, nonces.expose()))
            })?;
        }
        let message = self.constants.unit * &Scalar::from(excess);
        let nonce = randomness.stream(Purpose::Excess).scalars(EXCESS, 1);
        Ok(batch::encrypt(key, &[message], nonce.expose())[0])
    }

    fn aggregator_setup(
        &self,
        requisitions: &[Body],
        inbox: &[Received],
        randomness: &StepRandomness,
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        for received in inbox {
            let due = self.noise_registers() + 1;
            if received.body.records() < due {
                let expected = format!("at least {due}, noise registers and the excess noise,");
                return Err(wrong_count(received, expected, vec![received.slot.from.clone()]));
            }
        }
        let (body, registers) = self.setup(requisitions, inbox, randomness, workspace)?;
        let description = Description::ReachOnlyExecutionInput;
        let message = Message { to: self.place.ring[0].id.clone(), description, body };
        Ok(self.place.wait(description, history, vec![registers], vec![message]))
    }

    /// Reach-only Liquid Legions v2, execution phase, worker: peel the own layer off every index, blind it with one
    /// exponent that is shared by all of them and used for nothing else, re-randomise under the keys that are still to be
    /// peeled, shuffle; peel the excess noise and re-randomise it.
    fn worker_execution(
        &self,
        received: &Received,
        randomness: &StepRandomness,
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        let records = received.body.records();
        let due = self.noise_registers().saturating_mul(self.place.ring.len() as u64) + 1;
        if records < due {
            let expected = format!("at least {due}, noise registers and the excess noise,");
            return Err(wrong_count(received, expected, self.place.upstream()));
        }
        let origin = Origin::Duchy(received.slot.from.clone());
        let exponent = Secret::new(randomness.stream(Purpose::IndexExponent).scalar(0));
        let nonces = randomness.stream(Purpose::RerandomizeIndex);
        let mut excess = Vec::new();
        let mut output = Shuffle::new(randomness, workspace, REGISTER_BYTES, records - 1)?;
        for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
            let (registers, last) = split_last(chunk, received);
            if let Some(bytes) = last {
                let position = Chunk { first: records - 1, bytes };
                excess = columns::decode_rows(&position, 1, &origin)?;
            }
            let registers = Chunk { first: chunk.first, bytes: registers };
            let parts = registers.map_parts(REGISTER_BYTES, 2 * PART_RECORDS, |part| {
                let mut indexes = columns::decode_rows(part, 1, &origin)?;
                batch::peel_and_blind(&self.place.secret, &exponent, &mut indexes);
                let nonces = nonces.scalars(part.first, indexes.len());
                batch::rerandomize(&self.place.remaining_key, &mut indexes, nonces.expose());
                // Twice the exponent is as good an exponent.
                Ok(columns::doubled(&indexes))
            })?;
            output.push_all(&parts)
        })?;
        batch::peel(&self.place.secret, &mut excess);
        let nonce = randomness.stream(Purpose::Excess).scalars(EXCESS, 1);
        batch::rerandomize(&self.place.remaining_key, &mut excess, nonce.expose());
        let mut last = Vec::with_capacity(REGISTER_BYTES);
        batch::encode_ciphertexts(&excess, &mut last);
        let body = output.finish_before(&last)?;
        let description = Description::ReachOnlyExecutionInput;
        let message = Message { to: self.place.next().clone(), description, body };
        Ok(Step::Done { output: None, outbox: vec![message] })
    }

    /// Reach-only Liquid Legions v2, execution phase, aggregator: open the excess noise and every index, count the
    /// different ones, and take off what is noise.
    fn aggregator_execution(
        &self,
        registers: u64,
        received: &Received,
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        let due = registers + 1;
        if received.body.records() != due {
            let expected = format!("exactly {due}, as were sent around,");
            return Err(wrong_count(received, expected, self.place.upstream()));
        }
        let origin = Origin::Duchy(received.slot.from.clone());
        let mut excess = Point::identity();
        let mut join = Join::new(workspace, 0, registers)?;
        for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
            if workspace.is_cancelled() {
                return Err(ProtocolError::Cancelled);
            }
            let (indexes, last) = split_last(chunk, received);
            if let Some(bytes) = last {
                let last = columns::decode_rows(&Chunk { first: registers, bytes }, 1, &origin)?;
                excess = batch::open(&self.place.secret, &last)[0];
            }
            let indexes = Chunk { first: chunk.first, bytes: indexes };
            let keys = indexes.map_parts(REGISTER_BYTES, 2 * PART_RECORDS, |part| {
                let indexes = columns::decode_rows(part, 1, &origin)?;
                // Twice a point tells it from all others as well as the point does, and is encoded at a fifth of the cost.
                Ok(batch::encode_doubled_points(&batch::open(&self.place.secret, &indexes)))
            })?;
            let mut keys = keys.iter().flatten().zip(chunk.first..);
            keys.try_for_each(|(key, position)| join.push(key.as_bytes(), position, &[]))
        })?;
        let most = self.most_excess();
        let excess = multiple_of(&self.constants.unit, &excess, most).ok_or_else(|| {
            ProtocolError::Inconsistent(format!("the excess noise is none of the {most} numbers that it can be"))
        })?;
        self.outcome(registers, join.close()?.distinct()?, excess)
            .map(|outcome| Step::Done { output: Some(outcome), outbox: Vec::new() })
    }

    /// The largest sum of all Duchies' excess noise: each of the S counts is at most twice its shift. As the noise
    /// registers, which include all of it, are bounded when the parameters are checked, it is below 2^31 for any number of
    /// Duchies that is possible, and found in 2^16 steps.
    fn most_excess(&self) -> u64 {
        let most = |noise: &Noise| 2 * noise.blinded_histogram.shift() * u64::from(self.parameters.publishers);
        self.noise.as_ref().map_or(0, most).saturating_mul(self.place.ring.len() as u64)
    }

    /// Takes the totals of all noise off the counts.
    fn outcome(&self, registers: u64, distinct: u64, excess: u64) -> Result<Outcome, ProtocolError> {
        let duchies = self.place.ring.len() as u64;
        let setup_noise = self.noise_registers().saturating_mul(duchies);
        let registers_in = registers.checked_sub(setup_noise).ok_or_else(|| {
            ProtocolError::Inconsistent(format!("{registers} registers, of which {setup_noise} are noise"))
        })?;
        let reach = self.noise.as_ref().map(|noise| &noise.reach);
        // The ids of publisher noise and of padding, each the same at all Duchies.
        let shared_ids = if self.noise.is_some() { 2 } else { 0 };
        let baseline = reach.map_or(0, |noise| noise.shift()).saturating_mul(duchies);
        let active_registers = [shared_ids, excess, baseline].into_iter().try_fold(signed(distinct)?, subtract)?;
        Ok(Outcome {
            registers_in,
            active_registers,
            usable_histogram: None,
            reach_noise_sd: reach.map_or(0.0, |noise| noise.total_standard_deviation()),
            frequency_noise_sd: 0.0,
        })
    }
}

/// The records of a chunk without the last of the message, and the last, if it is in this chunk.
fn split_last<'a>(chunk: &Chunk<'a>, received: &Received) -> (&'a [u8], Option<&'a [u8]>) {
    let ends = chunk.first + (chunk.bytes.len() / REGISTER_BYTES) as u64 == received.body.records();
    let (registers, last) = chunk.bytes.split_at(chunk.bytes.len() - if ends { REGISTER_BYTES } else { 0 });
    (registers, ends.then_some(last))
}

/// The number from 0 to `most` whose product with `unit` this is: baby steps and giant steps. The time depends on the
/// number, which whoever calls learns anyway.
fn multiple_of(unit: &Point, point: &Point, most: u64) -> Option<u64> {
    let step = most.isqrt() + 1;
    let multiples = batch::multiples(unit, usize::try_from(step).ok()?);
    let encoded = batch::encode_points(&multiples);
    let mut table: HashMap<[u8; 32], u64> = encoded.iter().map(|point| *point.as_bytes()).zip(1..).collect();
    table.insert(*Point::identity().encode().as_bytes(), 0);
    let giant = *multiples.last()?;
    let mut rest = *point;
    for giants in 0..=most / step {
        if let Some(babies) = table.get(rest.encode().as_bytes()) {
            return Some(giants * step + babies).filter(|found| *found <= most);
        }
        rest = rest - giant;
    }
    None
}

/// Checks an upload of a publisher to the last record, as [`super::llv2::check_requisition`] does.
///
/// # Errors
/// As there.
pub fn check_requisition(body: &Body) -> Result<(), ProtocolError> {
    check_records(body, REGISTER_BYTES, &Origin::Requisition(0))
}

/// Checks a message of another Duchy in the same way, before it is bound to its slot.
///
/// # Errors
/// As [`super::llv2::check_message`].
pub fn check_message(body: &Body, from: &DuchyId) -> Result<(), ProtocolError> {
    check_records(body, REGISTER_BYTES, &Origin::Duchy(from.clone()))
}

#[cfg(test)]
mod tests {
    use halo_crypto::hash;

    use super::*;

    #[test]
    fn small_multiples_are_found_and_others_are_not() {
        let unit = hash::constant("unit");
        for most in [0, 1, 2, 99, 100, 101] {
            for number in 0..=most {
                let point = unit * &Scalar::from(number);
                assert_eq!(multiple_of(&unit, &point, most), Some(number), "of {most}");
            }
            assert_eq!(multiple_of(&unit, &(unit * &Scalar::from(most + 1)), most), None);
            assert_eq!(multiple_of(&unit, &-unit, most), None);
        }
    }
}
