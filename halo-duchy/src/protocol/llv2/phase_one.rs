//! Execution phase one: indexes are blinded around the ring; the aggregator joins and aggregates.

use halo_crypto::batch;
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext};
use halo_crypto::group::{Point, Scalar};
use halo_crypto::secret::Secret;
use zeroize::Zeroizing;

use super::super::join::{Join, JoinOutput, Member};
use super::super::record::{Chunk, for_each_chunk};
use super::super::seat::wrong_count;
use super::super::shuffle::Shuffle;
use super::super::stream::{Purpose, StepRandomness, Stream};
use super::super::{Description, Message, Origin, ProtocolError, Received, Step, Workspace};
use super::{Duchy, REGISTER_BYTES, TUPLE_BYTES, columns, noise};

/// What the join keeps of a register: key and count.
const PAYLOAD_BYTES: usize = 2 * CIPHERTEXT_BYTES;

impl Duchy {
    /// Liquid Legions v2, phase one, worker: peel the own layer off every index and blind it with one exponent that is
    /// shared by all of them and used for nothing else; re-randomise the index under the keys that are still to be
    /// peeled, key and count under the full key; shuffle.
    ///
    /// Without the re-randomisation of the index its first component would come to the aggregator as B·r·G, with one B
    /// for all registers. Whoever encrypted two of them, as every publisher and every Duchy has, knows two r, finds B·G
    /// by trying, and then follows all its registers through every shuffle.
    pub(super) fn worker_phase_one(
        &self,
        received: &Received,
        randomness: &StepRandomness,
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        let records = received.body.records();
        let due = self.noise_registers().saturating_mul(self.place.ring.len() as u64);
        if records < due {
            let expected = format!("at least {due} noise registers");
            return Err(wrong_count(received, expected, self.place.upstream()));
        }
        let origin = Origin::Duchy(received.slot.from.clone());
        let exponent = Secret::new(randomness.stream(Purpose::IndexExponent).scalar(0));
        let index_nonces = randomness.stream(Purpose::RerandomizeIndex);
        let key_nonces = randomness.stream(Purpose::RerandomizeKey);
        let count_nonces = randomness.stream(Purpose::RerandomizeCount);
        let mut output = Shuffle::new(randomness, workspace, REGISTER_BYTES, records)?;
        for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
            let [mut index, mut key, mut count] = columns::decode::<3>(chunk, &origin)?;
            batch::peel_and_blind(&self.place.secret, &exponent, &mut index);
            let nonces = |stream: &Stream| stream.scalars(chunk.first, index.len());
            let (index_nonces, key_nonces, count_nonces) =
                (nonces(&index_nonces), nonces(&key_nonces), nonces(&count_nonces));
            batch::rerandomize(&self.place.remaining_key, &mut index, index_nonces.expose());
            batch::rerandomize(&self.place.full_key, &mut key, key_nonces.expose());
            batch::rerandomize(&self.place.full_key, &mut count, count_nonces.expose());
            output.push(&columns::encode(&[index, key, count]))
        })?;
        let description = Description::ExecutionPhaseOneInput;
        let message = Message { to: self.place.next().clone(), description, body: output.finish()? };
        Ok(self.place.wait(Description::ExecutionPhaseTwoInput, history, Vec::new(), vec![message]))
    }

    /// Liquid Legions v2, phase one, aggregator: open the last layer of the indexes, group equal ones, aggregate each
    /// group into a tuple of three flags and a count, add frequency noise, shuffle.
    pub(super) fn aggregator_phase_one(
        &self,
        registers: u64,
        received: &Received,
        randomness: &StepRandomness,
        history: [u8; 32],
        workspace: &dyn Workspace,
    ) -> Result<Step, ProtocolError> {
        let records = received.body.records();
        if records != registers {
            return Err(wrong_count(
                received,
                format!("exactly {registers}, as were sent around,"),
                self.place.upstream(),
            ));
        }
        let origin = Origin::Duchy(received.slot.from.clone());
        let mut join = Join::new(workspace, PAYLOAD_BYTES, records)?;
        for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
            if workspace.is_cancelled() {
                return Err(ProtocolError::Cancelled);
            }
            let index: Vec<u8> = chunk
                .bytes
                .chunks_exact(REGISTER_BYTES)
                .flat_map(|record| &record[..CIPHERTEXT_BYTES])
                .copied()
                .collect();
            let index = columns::decode_rows(&Chunk { first: chunk.first, bytes: &index }, 1, &origin)?;
            let opened = batch::encode_points(&batch::open(&self.place.secret, &index));
            for ((key, record), position) in
                opened.iter().zip(chunk.bytes.chunks_exact(REGISTER_BYTES)).zip(chunk.first..)
            {
                join.push(key.as_bytes(), position, &record[CIPHERTEXT_BYTES..])?;
            }
            Ok(())
        })?;

        // Closed first: the files of the join and those of the shuffle are never open at once.
        let join = join.close()?;
        let shuffle = Shuffle::new(randomness, workspace, TUPLE_BYTES, records.saturating_add(self.noise_tuples()))?;
        let mut aggregation = SameKeyAggregation::new(self, origin, randomness, shuffle);
        join.finish(self.parameters.publishers as usize, &mut aggregation)?;
        let mut output = aggregation.finish()?;
        if let Some(noise) = &self.noise {
            noise::add_tuples(self, noise, randomness, &mut output)?;
        }
        let body = output.finish()?;
        let tuples = body.records();
        let description = Description::ExecutionPhaseTwoInput;
        let message = Message { to: self.place.ring[0].id.clone(), description, body };
        Ok(self.place.wait(description, history, vec![registers, tuples], vec![message]))
    }
}

/// Liquid Legions v2, phase one, aggregator, same-key aggregation. For a group (K_i, C_i), with a fresh scalar at every
/// r:
///
/// * flag a = Enc(0) + Σ_{i≥1} r·(K_i − K_0): opens to the identity when all keys are equal;
/// * count = Σ C_i + r·flag a: scrambled when they are not;
/// * flag b = r·(H(destroyed) + flag a − K_0): identity when all are the destroyed register's key;
/// * flag c = r·(H(noise) + flag a − K_0): identity for noise registers.
///
/// Groups wait until a chunk is full, then all are computed at once.
struct SameKeyAggregation<'a> {
    duchy: &'a Duchy,
    origin: Origin,
    scalars: Stream,
    output: Shuffle<'a>,
    /// Key and count of the members of the waiting groups.
    members: Vec<u8>,
    positions: Vec<u64>,
    /// Sizes of the waiting groups.
    sizes: Vec<usize>,
    /// Groups that have left.
    done: u64,
    /// Key and count of dropped registers, which are only checked.
    surplus: Vec<u8>,
    surplus_positions: Vec<u64>,
}

impl<'a> SameKeyAggregation<'a> {
    fn new(duchy: &'a Duchy, origin: Origin, randomness: &StepRandomness, output: Shuffle<'a>) -> Self {
        let scalars = randomness.stream(Purpose::SameKey);
        let (members, positions, sizes) = (Vec::new(), Vec::new(), Vec::new());
        let (surplus, surplus_positions) = (Vec::new(), Vec::new());
        Self { duchy, origin, scalars, output, members, positions, sizes, done: 0, surplus, surplus_positions }
    }

    fn finish(mut self) -> Result<Shuffle<'a>, ProtocolError> {
        self.check_surplus()?;
        self.aggregate()?;
        Ok(self.output)
    }

    /// Decodes keys and counts; `positions` say where the records stood in the message.
    fn decode(&self, bytes: &[u8], positions: &[u64]) -> Result<[Vec<Ciphertext>; 2], ProtocolError> {
        columns::decode::<2>(&Chunk { first: 0, bytes }, &self.origin).map_err(|error| match error {
            ProtocolError::BadRecord { origin, record, reason } => {
                ProtocolError::BadRecord { origin, record: positions[record as usize], reason }
            }
            other => other,
        })
    }

    fn check_surplus(&mut self) -> Result<(), ProtocolError> {
        self.decode(&self.surplus, &self.surplus_positions)?;
        self.surplus.clear();
        self.surplus_positions.clear();
        Ok(())
    }

    fn aggregate(&mut self) -> Result<(), ProtocolError> {
        let [keys, counts] = self.decode(&self.members, &self.positions)?;
        let groups = self.sizes.len();
        // The first one of a group's stream makes Enc(0).
        let zeros = self.scalars.scalars(self.done, groups);
        let zeros = batch::encrypt_zero(&self.duchy.place.full_key, zeros.expose());

        // All differences K_i − K_0 of all groups, scaled at once. Reserved, so that no scalar is left behind where a
        // vector grew out of its place.
        let mut differences = Vec::with_capacity(keys.len() - groups);
        let mut difference_scalars = Zeroizing::new(Vec::with_capacity(keys.len() - groups));
        let mut own_scalars: [Zeroizing<Vec<Scalar>>; 3] =
            std::array::from_fn(|_| Zeroizing::new(Vec::with_capacity(groups)));
        let mut start = 0;
        for (size, group) in self.sizes.iter().zip(self.done..) {
            let mut rng = self.scalars.rng(group);
            // The first one of the stream has made Enc(0).
            let _ = Scalar::random(&mut rng);
            for scalars in &mut own_scalars {
                scalars.push(Scalar::random(&mut rng));
            }
            for key in &keys[start + 1..start + size] {
                differences.push(*key - keys[start]);
                difference_scalars.push(Scalar::random(&mut rng));
            }
            start += size;
        }
        batch::scale(&difference_scalars, &mut differences);

        let mut tuples: [Vec<Ciphertext>; 4] = std::array::from_fn(|_| Vec::with_capacity(groups));
        let mut scaled = differences.iter();
        let mut start = 0;
        for (size, zero) in self.sizes.iter().zip(zeros) {
            let flag = scaled.by_ref().take(size - 1).fold(zero, |sum, term| sum + *term);
            let rest = flag - keys[start];
            tuples[0].push(flag);
            tuples[1].push(add_message(&rest, &self.duchy.constants.destroyed_key));
            tuples[2].push(add_message(&rest, &self.duchy.constants.noise_key));
            tuples[3].push(flag);
            start += size;
        }
        for (column, scalars) in tuples[1..].iter_mut().zip(&own_scalars) {
            batch::scale(scalars, column);
        }
        let mut start = 0;
        for (size, scrambler) in self.sizes.iter().zip(&mut tuples[3]) {
            *scrambler = counts[start..start + size].iter().fold(*scrambler, |sum, count| sum + *count);
            start += size;
        }
        self.output.push(&columns::encode(&tuples))?;
        self.done += groups as u64;
        self.members.clear();
        self.positions.clear();
        self.sizes.clear();
        Ok(())
    }
}

impl JoinOutput for SameKeyAggregation<'_> {
    fn group(&mut self, members: &[Member<'_>]) -> Result<(), ProtocolError> {
        for member in members {
            self.members.extend_from_slice(member.payload);
            self.positions.push(member.position);
        }
        self.sizes.push(members.len());
        if self.positions.len() >= self.duchy.place.chunk_records { self.aggregate() } else { Ok(()) }
    }

    fn surplus(&mut self, member: Member<'_>) -> Result<(), ProtocolError> {
        self.surplus.extend_from_slice(member.payload);
        self.surplus_positions.push(member.position);
        if self.surplus_positions.len() >= self.duchy.place.chunk_records { self.check_surplus() } else { Ok(()) }
    }
}

fn add_message(a: &Ciphertext, message: &Point) -> Ciphertext {
    Ciphertext { u: a.u, e: a.e + *message }
}
