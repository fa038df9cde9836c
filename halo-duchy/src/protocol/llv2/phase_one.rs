//! Execution phase one: indexes are blinded around the ring; the aggregator joins and aggregates.

use halo_crypto::batch::{self, FixedBase};
use halo_crypto::elgamal::{CIPHERTEXT_BYTES, Ciphertext};
use halo_crypto::group::Scalar;
use halo_crypto::secret::Secret;
use rayon::prelude::*;
use zeroize::Zeroizing;

use super::super::join::{Join, JoinOutput, Member};
use super::super::record::{Chunk, PART_RECORDS, for_each_chunk};
use super::super::seat::wrong_count;
use super::super::shuffle::Shuffle;
use super::super::stream::{Purpose, StepRandomness, Stream};
use super::super::{Description, Message, Origin, ProtocolError, Received, Step, Workspace};
use super::columns;
use super::doubling::Phase;
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
        let exponent = Secret::new(randomness.stream(Purpose::IndexExponent).scalar(0));
        let nonces = [Purpose::RerandomizeIndex, Purpose::RerandomizeKey, Purpose::RerandomizeCount];
        let nonces = nonces.map(|purpose| randomness.stream(purpose));
        let keys = [&self.place.remaining_key, &self.place.full_key, &self.place.full_key];
        let mut output = Shuffle::new(randomness, workspace, REGISTER_BYTES, records)?;
        for_each_chunk(&received.body, REGISTER_BYTES, &origin, self.place.chunk_records, |chunk| {
            let parts = chunk.map_parts(REGISTER_BYTES, PART_RECORDS, |part| {
                let mut registers = columns::decode::<3>(part, &origin)?;
                batch::peel_and_blind(&self.place.secret, &exponent, &mut registers[0]);
                for (column, (key, nonces)) in registers.iter_mut().zip(keys.iter().zip(&nonces)) {
                    let nonces = nonces.scalars(part.first, column.len());
                    batch::rerandomize(key, column, nonces.expose());
                }
                Ok(columns::records(registers.map(|column| columns::doubled(&column))))
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
                let index = columns::decode_first(part, 3, &origin)?;
                // Twice a point tells it from all others as well as the point does.
                Ok(batch::encode_doubled_points(&batch::open(&self.place.secret, &index)))
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
            noise::add_tuples(self, noise, Phase::One, randomness, &mut output)?;
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
/// For H it takes 2^k·H, because keys come 2^k-fold, and all four leave [doubled](super::doubling).
///
/// Groups wait until a chunk is full, then they are computed in parts, on all cores.
struct SameKeyAggregation<'a> {
    aggregator: GroupAggregator<'a>,
    chunk_records: usize,
    output: Shuffle<'a>,
    waiting: Groups,
    /// Groups that have left.
    done: u64,
    /// Key and count of dropped registers, which are only checked.
    surplus: Groups,
}

/// Registers in groups.
#[derive(Default)]
struct Groups {
    /// Key and count of each member.
    payloads: Vec<u8>,
    /// Where each member stood in the message.
    positions: Vec<u64>,
    /// How many members each group has.
    sizes: Vec<usize>,
}

impl Groups {
    fn push(&mut self, members: &[Member<'_>]) {
        for member in members {
            self.payloads.extend_from_slice(member.payload);
            self.positions.push(member.position);
        }
        self.sizes.push(members.len());
    }

    /// Runs of at most so many groups.
    fn parts(&self, limit: usize) -> Vec<Part<'_>> {
        let (mut payloads, mut positions) = (self.payloads.as_slice(), self.positions.as_slice());
        let mut parts = Vec::with_capacity(self.sizes.len().div_ceil(limit));
        for sizes in self.sizes.chunks(limit) {
            let members = sizes.iter().sum();
            let (these, rest) = payloads.split_at(members * PAYLOAD_BYTES);
            let (at, after) = positions.split_at(members);
            parts.push(Part { sizes, payloads: these, positions: at });
            (payloads, positions) = (rest, after);
        }
        parts
    }

    fn clear(&mut self) {
        self.payloads.clear();
        self.positions.clear();
        self.sizes.clear();
    }
}

/// Some whole groups.
struct Part<'a> {
    sizes: &'a [usize],
    payloads: &'a [u8],
    positions: &'a [u64],
}

impl Part<'_> {
    /// Keys and counts.
    fn decode(&self, origin: &Origin) -> Result<[Vec<Ciphertext>; 2], ProtocolError> {
        columns::decode::<2>(&Chunk { first: 0, bytes: self.payloads }, origin).map_err(|error| match error {
            ProtocolError::BadRecord { origin, record, reason } => {
                ProtocolError::BadRecord { origin, record: self.positions[record as usize], reason }
            }
            other => other,
        })
    }

    /// Gives the members of each group.
    fn for_each_group(&self, members: &[Ciphertext], mut each: impl FnMut(&[Ciphertext])) {
        let mut rest = members;
        for size in self.sizes {
            let (group, after) = rest.split_at(*size);
            each(group);
            rest = after;
        }
    }
}

impl<'a> SameKeyAggregation<'a> {
    fn new(duchy: &'a Duchy, origin: Origin, randomness: &StepRandomness, output: Shuffle<'a>) -> Self {
        let factor = duchy.factor(Phase::One);
        let messages = [duchy.constants.destroyed_key, duchy.constants.noise_key];
        let messages = messages.map(|message| FixedBase::new(message * &factor));
        let aggregator = GroupAggregator { duchy, origin, scalars: randomness.stream(Purpose::SameKey), messages };
        let (waiting, surplus) = (Groups::default(), Groups::default());
        Self { aggregator, chunk_records: duchy.place.chunk_records, output, waiting, done: 0, surplus }
    }

    fn finish(mut self) -> Result<Shuffle<'a>, ProtocolError> {
        self.check_surplus()?;
        self.aggregate()?;
        Ok(self.output)
    }

    fn check_surplus(&mut self) -> Result<(), ProtocolError> {
        in_parts(&self.surplus, |_, part| part.decode(&self.aggregator.origin).map(drop))?;
        self.surplus.clear();
        Ok(())
    }

    fn aggregate(&mut self) -> Result<(), ProtocolError> {
        let tuples = in_parts(&self.waiting, |before, part| self.aggregator.tuples(self.done + before, part))?;
        self.output.push_all(&tuples)?;
        self.done += self.waiting.sizes.len() as u64;
        self.waiting.clear();
        Ok(())
    }
}

/// Computes on all parts, on all cores; `each` gets the number of groups before its part. The first error in order wins.
fn in_parts<T: Send>(
    groups: &Groups,
    each: impl Fn(u64, &Part<'_>) -> Result<T, ProtocolError> + Sync,
) -> Result<Vec<T>, ProtocolError> {
    let parts: Vec<(u64, Part<'_>)> = (0..).step_by(PART_RECORDS).zip(groups.parts(PART_RECORDS)).collect();
    let results: Vec<Result<T, ProtocolError>> = parts.par_iter().map(|(before, part)| each(*before, part)).collect();
    results.into_iter().collect()
}

/// Makes a tuple of each group.
struct GroupAggregator<'a> {
    duchy: &'a Duchy,
    origin: Origin,
    scalars: Stream,
    /// H(destroyed) and H(noise), as many times as keys are their own.
    messages: [FixedBase; 2],
}

/// The scalars of some groups, reserved so that none is left behind where a vector grew out of its place.
struct GroupScalars {
    /// Those of Enc(0), one a group.
    zeros: Zeroizing<Vec<Scalar>>,
    /// Those of flags b and c.
    flags: Zeroizing<Vec<[Scalar; 2]>>,
    /// Those of flag a in the count.
    scramblers: Zeroizing<Vec<Scalar>>,
    /// Those of the differences.
    differences: Zeroizing<Vec<Scalar>>,
}

impl GroupAggregator<'_> {
    /// The encoded tuples of groups, the first of which has a number.
    fn tuples(&self, first: u64, part: &Part<'_>) -> Result<Vec<u8>, ProtocolError> {
        let [keys, counts] = part.decode(&self.origin)?;
        let own = self.draw(first, part.sizes);
        let zeros = batch::encrypt_zero(&self.duchy.place.full_key, &own.zeros);

        // All differences K_i − K_0 of all groups, scaled at once.
        let mut differences = Vec::with_capacity(own.differences.len());
        part.for_each_group(&keys, |keys| differences.extend(keys[1..].iter().map(|key| *key - keys[0])));
        batch::scale(&own.differences, &mut differences);

        let mut flags_a = Vec::with_capacity(part.sizes.len());
        let mut rests = Vec::with_capacity(part.sizes.len());
        let (mut scaled, mut zeros) = (differences.iter(), zeros.into_iter());
        part.for_each_group(&keys, |keys| {
            let zero = zeros.next().expect("one encryption of zero for each group");
            let flag_a = scaled.by_ref().take(keys.len() - 1).fold(zero, |sum, term| sum + *term);
            rests.push(flag_a - keys[0]);
            flags_a.push(flag_a);
        });

        // r·(H + rest) = r·rest + r·H: both flags are multiples of the same rest, and of constants.
        let products = batch::scale_rows(own.flags.as_flattened(), &rests);
        let [flags_b, flags_c] = [0, 1].map(|place| {
            let mut column: Vec<Ciphertext> = products.iter().skip(place).step_by(2).copied().collect();
            let scalars = Zeroizing::new(own.flags.iter().map(|pair| pair[place]).collect::<Vec<_>>());
            batch::add_multiples(&self.messages[place], &scalars, &mut column);
            column
        });
        let sums = self.scrambled_sums(part, &counts, &flags_a, &own);
        Ok(columns::records([flags_a, flags_b, flags_c, sums].map(|column| columns::doubled(&column))))
    }

    /// A group's stream gives the scalars of Enc(0), flag b, flag c, count, and those of the differences.
    fn draw(&self, first: u64, sizes: &[usize]) -> GroupScalars {
        let groups = sizes.len();
        let differences = sizes.iter().sum::<usize>() - groups;
        let mut own = GroupScalars {
            zeros: Zeroizing::new(Vec::with_capacity(groups)),
            flags: Zeroizing::new(Vec::with_capacity(groups)),
            scramblers: Zeroizing::new(Vec::with_capacity(groups)),
            differences: Zeroizing::new(Vec::with_capacity(differences)),
        };
        for (size, group) in sizes.iter().zip(first..) {
            let mut rng = self.scalars.rng(group);
            own.zeros.push(Scalar::random(&mut rng));
            own.flags.push([(); 2].map(|()| Scalar::random(&mut rng)));
            own.scramblers.push(Scalar::random(&mut rng));
            own.differences.extend((1..*size).map(|_| Scalar::random(&mut rng)));
        }
        own
    }

    /// The counts: Σ C_i + r·flag a. The flag of a group of one is Enc(0) and nothing else, of which a multiple is known
    /// without multiplying: r·(z·G, z·Y) = ((r·z)·G, (r·z)·Y). The time so depends on how many groups are of one, which is
    /// in the histogram that the aggregator opens.
    fn scrambled_sums(
        &self,
        part: &Part<'_>,
        counts: &[Ciphertext],
        flags_a: &[Ciphertext],
        own: &GroupScalars,
    ) -> Vec<Ciphertext> {
        let mut sums = Vec::with_capacity(flags_a.len());
        part.for_each_group(counts, |counts| {
            sums.push(counts[1..].iter().fold(counts[0], |sum, count| sum + *count));
        });
        let (single, several): (Vec<usize>, Vec<usize>) = (0..sums.len()).partition(|group| part.sizes[*group] == 1);
        let nonces = single.iter().map(|group| own.zeros[*group] * own.scramblers[*group]);
        let nonces = Zeroizing::new(nonces.collect::<Vec<_>>());
        let mut scrambled: Vec<Ciphertext> = single.iter().map(|group| sums[*group]).collect();
        batch::rerandomize(&self.duchy.place.full_key, &mut scrambled, &nonces);
        for (group, sum) in single.iter().zip(scrambled) {
            sums[*group] = sum;
        }
        let scalars = Zeroizing::new(several.iter().map(|group| own.scramblers[*group]).collect::<Vec<_>>());
        let mut scramblers: Vec<Ciphertext> = several.iter().map(|group| flags_a[*group]).collect();
        batch::scale(&scalars, &mut scramblers);
        for (group, scrambler) in several.iter().zip(scramblers) {
            sums[*group] = sums[*group] + scrambler;
        }
        sums
    }
}

impl JoinOutput for SameKeyAggregation<'_> {
    fn group(&mut self, members: &[Member<'_>]) -> Result<(), ProtocolError> {
        self.waiting.push(members);
        if self.waiting.positions.len() >= self.chunk_records { self.aggregate() } else { Ok(()) }
    }

    fn surplus(&mut self, member: Member<'_>) -> Result<(), ProtocolError> {
        self.surplus.push(&[member]);
        if self.surplus.positions.len() >= self.chunk_records { self.check_surplus() } else { Ok(()) }
    }
}
