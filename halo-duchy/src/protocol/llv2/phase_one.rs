//! Execution phase one: indexes are blinded around the ring; the aggregator joins and aggregates.

use halo_crypto::batch;
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext};
use halo_crypto::group::Scalar;
use halo_crypto::secret::Secret;
use zeroize::Zeroizing;

use super::super::join::{Join, JoinOutput, Member};
use super::super::record::{Chunk, PART_RECORDS, for_each_chunk};
use super::super::seat::wrong_count;
use super::super::shuffle::Shuffle;
use super::super::stream::{Purpose, StepRandomness, Stream};
use super::super::{Description, Message, Origin, ProtocolError, Received, Step, Workspace};
use super::columns::{self, Column};
use super::{Duchy, REGISTER_BYTES, TUPLE_BYTES, noise};

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
        // Halves: the index is doubled as it is encoded.
        let exponent = Secret::new(randomness.stream(Purpose::IndexExponent).scalar(0).half());
        let index_nonces = randomness.stream(Purpose::RerandomizeIndex);
        let key_nonces = randomness.stream(Purpose::RerandomizeKey);
        let count_nonces = randomness.stream(Purpose::RerandomizeCount);
        let mut output = Shuffle::new(randomness, workspace, REGISTER_BYTES, records)?;
        for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
            let parts = chunk.map_parts(REGISTER_BYTES, PART_RECORDS, |part| {
                let [mut index, mut key, mut count] = columns::decode::<3>(part, &origin)?;
                batch::peel_and_blind(&self.place.secret, &exponent, &mut index);
                let records = index.len();
                let index_nonces = index_nonces.halves(part.first, records);
                batch::rerandomize(&self.place.remaining_key, &mut index, index_nonces.expose());
                for (column, nonces) in [(&mut key, &key_nonces), (&mut count, &count_nonces)] {
                    let nonces = nonces.scalars(part.first, records);
                    batch::rerandomize(&self.place.full_key, column, nonces.expose());
                }
                Ok(columns::encode([Column::Half(index), Column::Whole(key), Column::Whole(count)]))
            })?;
            output.push_all(&parts)
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
            let opened = chunk.map_parts(REGISTER_BYTES, PART_RECORDS, |part| {
                let records = part.bytes.chunks_exact(REGISTER_BYTES);
                let index: Vec<u8> = records.flat_map(|record| &record[..CIPHERTEXT_BYTES]).copied().collect();
                let index = columns::decode_rows(&Chunk { first: part.first, bytes: &index }, 1, &origin)?;
                Ok(batch::encode_points(&batch::open(&self.place.secret, &index)))
            })?;
            let records = chunk.bytes.chunks_exact(REGISTER_BYTES).zip(chunk.first..);
            for (key, (record, position)) in opened.iter().flatten().zip(records) {
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
        let own = self.draw(keys.len() - groups);
        let full_key = &self.duchy.place.full_key;
        let zeros = batch::encrypt_zero(full_key, &own.zeros);

        // All differences K_i − K_0 of all groups, scaled at once.
        let mut differences = Vec::with_capacity(keys.len() - groups);
        for_each_group(&self.sizes, &keys, |keys| differences.extend(keys[1..].iter().map(|key| *key - keys[0])));
        batch::scale(&own.differences, &mut differences);

        let mut flags = Vec::with_capacity(groups);
        let mut rests = Vec::with_capacity(groups);
        let (mut scaled, mut zeros) = (differences.iter(), zeros.into_iter());
        for_each_group(&self.sizes, &keys, |keys| {
            let zero = zeros.next().expect("one encryption of zero for each group");
            let flag = scaled.by_ref().take(keys.len() - 1).fold(zero, |sum, term| sum + *term);
            rests.push(flag - keys[0]);
            flags.push(flag);
        });

        // r·(H + rest) = r·rest + r·H: both flags are multiples of the same rest, and of constants. Halves: they are doubled
        // as they are encoded.
        let products = batch::scale_rows(own.flags.as_flattened(), &rests);
        let constants = &self.duchy.constants;
        let [flags_b, flags_c] = [(0, &constants.destroyed_key), (1, &constants.noise_key)].map(|(place, message)| {
            let mut column: Vec<Ciphertext> = products.iter().skip(place).step_by(2).copied().collect();
            let scalars = Zeroizing::new(own.flags.iter().map(|pair| pair[place]).collect::<Vec<_>>());
            batch::add_multiples(message, &scalars, &mut column);
            column
        });
        let sums = self.scrambled_sums(&counts, &flags, &own);
        self.output.push(&columns::encode([
            Column::Whole(flags),
            Column::Half(flags_b),
            Column::Half(flags_c),
            Column::Whole(sums),
        ]))?;
        self.done += groups as u64;
        self.members.clear();
        self.positions.clear();
        self.sizes.clear();
        Ok(())
    }
}

/// The scalars of the waiting groups, reserved so that none is left behind where a vector grew out of its place.
struct GroupScalars {
    /// Of Enc(0), one a group.
    zeros: Zeroizing<Vec<Scalar>>,
    /// Halves of those of flags b and c.
    flags: Zeroizing<Vec<[Scalar; 2]>>,
    /// Of the flag in the count.
    scramblers: Zeroizing<Vec<Scalar>>,
    /// Of the differences.
    differences: Zeroizing<Vec<Scalar>>,
}

impl SameKeyAggregation<'_> {
    /// A group's stream gives the scalars of Enc(0), flag b, flag c, count, and those of the differences.
    fn draw(&self, differences: usize) -> GroupScalars {
        let groups = self.sizes.len();
        let mut own = GroupScalars {
            zeros: Zeroizing::new(Vec::with_capacity(groups)),
            flags: Zeroizing::new(Vec::with_capacity(groups)),
            scramblers: Zeroizing::new(Vec::with_capacity(groups)),
            differences: Zeroizing::new(Vec::with_capacity(differences)),
        };
        for (size, group) in self.sizes.iter().zip(self.done..) {
            let mut rng = self.scalars.rng(group);
            own.zeros.push(Scalar::random(&mut rng));
            own.flags.push([(); 2].map(|()| Scalar::random(&mut rng).half()));
            own.scramblers.push(Scalar::random(&mut rng));
            own.differences.extend((1..*size).map(|_| Scalar::random(&mut rng)));
        }
        own
    }

    /// The counts: Σ C_i + r·flag a. The flag of a group of one is Enc(0) and nothing else, of which a multiple is known
    /// without multiplying: r·(z·G, z·Y) = ((r·z)·G, (r·z)·Y).
    fn scrambled_sums(&self, counts: &[Ciphertext], flags: &[Ciphertext], own: &GroupScalars) -> Vec<Ciphertext> {
        let mut sums = Vec::with_capacity(flags.len());
        for_each_group(&self.sizes, counts, |counts| {
            sums.push(counts[1..].iter().fold(counts[0], |sum, count| sum + *count));
        });
        let (single, several): (Vec<usize>, Vec<usize>) = (0..sums.len()).partition(|group| self.sizes[*group] == 1);
        let nonces = single.iter().map(|group| own.zeros[*group] * own.scramblers[*group]);
        let nonces = Zeroizing::new(nonces.collect::<Vec<_>>());
        let mut scrambled: Vec<Ciphertext> = single.iter().map(|group| sums[*group]).collect();
        batch::rerandomize(&self.duchy.place.full_key, &mut scrambled, &nonces);
        for (group, sum) in single.iter().zip(scrambled) {
            sums[*group] = sum;
        }
        let scalars = Zeroizing::new(several.iter().map(|group| own.scramblers[*group]).collect::<Vec<_>>());
        let mut scramblers: Vec<Ciphertext> = several.iter().map(|group| flags[*group]).collect();
        batch::scale(&scalars, &mut scramblers);
        for (group, scrambler) in several.iter().zip(scramblers) {
            sums[*group] = sums[*group] + scrambler;
        }
        sums
    }
}

/// Gives the members of each group.
fn for_each_group(sizes: &[usize], members: &[Ciphertext], mut each: impl FnMut(&[Ciphertext])) {
    let mut rest = members;
    for size in sizes {
        let (group, after) = rest.split_at(*size);
        each(group);
        rest = after;
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
