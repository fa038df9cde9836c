//! The noise of one Duchy: noise registers in the setup phase, noise tuples in phases one and two.
//!
//! The totals are public constants of the computation; which share of them is of which kind is secret.

use halo_core::privacy::PrivacyParams;
use halo_crypto::batch;
use halo_crypto::elgamal::CompositeKey;
use halo_crypto::group::Point;
use halo_crypto::hash::{self, Domain};
use halo_sketch::noise::{NoiseSpec, Sensitivity, ShiftedNoise};
use rand_core::Rng;

use super::super::ProtocolError;
use super::super::shuffle::Shuffle;
use super::super::stream::{Purpose, StepRandomness, Stream};
use super::columns;
use super::doubling::Phase;
use super::parameters::{NoiseParameters, Parameters};
use super::{Constants, Duchy};

/// Noise registers, and noise tuples, that one Duchy makes at most: 24 GiB and 32 GiB.
const MAX_NOISE_RECORDS: u64 = 1 << 27;

/// All noises of a computation, calibrated.
#[derive(Debug)]
pub(crate) struct Noise {
    pub(crate) blinded_histogram: ShiftedNoise,
    pub(crate) publisher: ShiftedNoise,
    pub(crate) reach: ShiftedNoise,
    /// Present when F > 1.
    pub(crate) frequency: Option<ShiftedNoise>,
    /// T: noise registers of every Duchy.
    pub(crate) registers: u64,
    /// Noise tuples of every Duchy; 0 when F = 1.
    pub(crate) tuples: u64,
}

impl Noise {
    /// Liquid Legions v2, which noiser is used where: sensitivities are those of adding or removing what one publisher
    /// knows of one person, for the publisher noise of one person at all publishers.
    pub(crate) fn calibrate(
        parameters: &Parameters,
        noise: &NoiseParameters,
        duchies: usize,
    ) -> Result<Self, ProtocolError> {
        let publishers = parameters.publishers;
        let one = |params, sensitivity| calibrate(noise, params, sensitivity, duchies);
        let blinded_histogram = one(noise.blinded_histogram, Sensitivity::histogram())?;
        let publisher = one(noise.noise_for_publisher_noise, Sensitivity::scalar(publishers))?;
        let reach = one(noise.reach, Sensitivity::scalar(1))?;
        let frequency = noise
            .frequency
            .filter(|_| parameters.maximum_frequency.counts_frequency())
            .map(|params| one(params, Sensitivity::histogram()))
            .transpose()?;
        let s = u64::from(publishers);
        let registers =
            sum_products(&[(2, publisher.shift()), (2, reach.shift()), (s * (s + 1), blinded_histogram.shift())])?;
        let classes = u64::from(parameters.maximum_frequency.get()) + 1;
        let tuples = sum_products(&[(2 * classes, frequency.as_ref().map_or(0, ShiftedNoise::shift))])?;
        Ok(Self { blinded_histogram, publisher, reach, frequency, registers, tuples })
    }
}

fn calibrate(
    noise: &NoiseParameters,
    params: PrivacyParams,
    sensitivity: Sensitivity,
    duchies: usize,
) -> Result<ShiftedNoise, ProtocolError> {
    NoiseSpec {
        mechanism: noise.mechanism,
        calibration: noise.calibration,
        params,
        sensitivity,
        contributors: duchies as u32,
        honest_contributors: noise.honest_contributors,
    }
    .calibrate()
    .map_err(|error| ProtocolError::Noise(error.to_string()))
}

fn sum_products(terms: &[(u64, u64)]) -> Result<u64, ProtocolError> {
    terms
        .iter()
        .try_fold(0u64, |sum, (a, b)| sum.checked_add(a.checked_mul(*b)?))
        .filter(|total| *total <= MAX_NOISE_RECORDS)
        .ok_or_else(|| {
            ProtocolError::Noise(format!(
                "ε and δ ask for more than {MAX_NOISE_RECORDS} noise records of every Duchy; raise them, or ask for a \
                 lower maximum frequency or fewer publishers"
            ))
        })
}

/// What a noise register is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum RegisterKind {
    /// Hides how many publishers share a register. The id is shared by the copies of one group.
    BlindedHistogram(u64),
    /// Hides how much noise the publishers added.
    Publisher,
    /// Makes the reach private. Each id is unique.
    Reach(u64),
    /// Makes the number of noise registers constant.
    Padding,
}

/// The noise registers of one Duchy, drawn.
pub(crate) struct DrawnRegisters {
    /// For k = 1..S: how many groups of k copies.
    groups: Vec<u64>,
    publisher: u64,
    reach: u64,
    padding: u64,
}

impl DrawnRegisters {
    /// Draws. With `at_least_one` there are one more register of publisher noise and one more of padding than needed, so
    /// that both groups exist whatever is drawn.
    pub(crate) fn draw(
        noise: &Noise,
        publishers: u64,
        at_least_one: bool,
        randomness: &StepRandomness,
    ) -> Result<Self, ProtocolError> {
        let counts = randomness.stream(Purpose::NoiseCount);
        let draw = |noiser: &ShiftedNoise, index: u64| noiser.sample(&mut counts.rng(index));
        // Each c is at most twice its shift, so the padding is never negative.
        let groups: Vec<u64> = (1..=publishers).map(|k| draw(&noise.blinded_histogram, k)).collect();
        let extra = u64::from(at_least_one);
        let publisher = draw(&noise.publisher, 0) + extra;
        let reach = draw(&noise.reach, publishers + 1);
        let real: u64 = groups.iter().zip(1..).map(|(count, copies)| count * copies).sum::<u64>() + publisher + reach;
        let padding = (noise.registers + 2 * extra)
            .checked_sub(real)
            .ok_or_else(|| ProtocolError::Noise("more noise was drawn than its range allows".to_owned()))?;
        Ok(Self { groups, publisher, reach, padding })
    }

    /// How many different ids the blinded histogram noise has.
    pub(crate) fn group_count(&self) -> u64 {
        self.groups.iter().sum()
    }

    fn kinds(&self) -> impl Iterator<Item = RegisterKind> {
        let group_count = self.group_count();
        let copies = self.groups.iter().zip(1u64..).flat_map(|(count, copies)| (0..*count).map(move |_| copies));
        copies
            .zip(0u64..)
            .flat_map(|(copies, id)| (0..copies).map(move |_| RegisterKind::BlindedHistogram(id)))
            .chain((0..self.publisher).map(|_| RegisterKind::Publisher))
            .chain((0..self.reach).map(move |id| RegisterKind::Reach(group_count + id)))
            .chain((0..self.padding).map(|_| RegisterKind::Padding))
    }

    /// Gives halves of the indexes of all registers in runs of at most `limit`, with the position of the first.
    pub(crate) fn for_each_indexes(
        &self,
        constants: &Constants,
        randomness: &StepRandomness,
        limit: usize,
        mut each: impl FnMut(u64, &[Point]) -> Result<(), ProtocolError>,
    ) -> Result<(), ProtocolError> {
        let ids = randomness.stream(Purpose::NoiseId);
        for_each_batch(self.kinds(), limit, |first, kinds| each(first, &indexes(constants, &ids, kinds)))
    }
}

/// Liquid Legions v2, setup phase, noise: adds the T noise registers of this Duchy.
pub(crate) fn add_registers(
    duchy: &Duchy,
    noise: &Noise,
    randomness: &StepRandomness,
    output: &mut Shuffle<'_>,
) -> Result<(), ProtocolError> {
    let drawn = DrawnRegisters::draw(noise, u64::from(duchy.parameters.publishers), false, randomness)?;
    let writer = RegisterWriter::new(duchy, randomness);
    for_each_batch(drawn.kinds(), duchy.place.chunk_records, |first, kinds| output.push(&writer.encrypt(first, kinds)))
}

/// Half the index of each noise register, which is doubled as it is encrypted.
fn indexes(constants: &Constants, ids: &Stream, kinds: &[RegisterKind]) -> Vec<Point> {
    let ids: Vec<Vec<u8>> = kinds
        .iter()
        .map(|kind| match kind {
            RegisterKind::BlindedHistogram(id) => random_message("blinded_histogram_noise", ids, *id),
            RegisterKind::Publisher => constants.publisher_noise_id.clone(),
            RegisterKind::Reach(id) => random_message("reach_dp_noise", ids, *id),
            RegisterKind::Padding => constants.padding_noise_id.clone(),
        })
        .collect();
    batch::hash_to_halves(Domain::NoiseId, &ids)
}

/// Calls `each` with runs of at most `limit` items and the position of the first.
fn for_each_batch<T>(
    items: impl Iterator<Item = T>,
    limit: usize,
    mut each: impl FnMut(u64, &[T]) -> Result<(), ProtocolError>,
) -> Result<(), ProtocolError> {
    let mut items = items.peekable();
    let mut first = 0;
    let mut batch = Vec::new();
    while items.peek().is_some() {
        batch.clear();
        batch.extend(items.by_ref().take(limit));
        each(first, &batch)?;
        first += batch.len() as u64;
    }
    Ok(())
}

struct RegisterWriter<'a> {
    duchy: &'a Duchy,
    ids: Stream,
    messages: Stream,
    nonces: [Stream; 3],
}

impl<'a> RegisterWriter<'a> {
    fn new(duchy: &'a Duchy, randomness: &StepRandomness) -> Self {
        Self {
            duchy,
            ids: randomness.stream(Purpose::NoiseId),
            messages: randomness.stream(Purpose::NoiseMessage),
            nonces: [Purpose::NonceA, Purpose::NonceB, Purpose::NonceC].map(|purpose| randomness.stream(purpose)),
        }
    }

    /// The records of the noise registers from position `first`.
    fn encrypt(&self, first: u64, kinds: &[RegisterKind]) -> Vec<u8> {
        let constants = &self.duchy.constants;
        let indexes = indexes(constants, &self.ids, kinds);
        // A group of publisher noise or padding can be small enough to survive the size test; with the key of blinded
        // histogram noise it is then dropped by its third flag.
        let keys: Vec<Point> = kinds
            .iter()
            .map(|kind| match kind {
                RegisterKind::Reach(_) => constants.half_destroyed_key,
                RegisterKind::BlindedHistogram(_) | RegisterKind::Publisher | RegisterKind::Padding => {
                    constants.half_noise_key
                }
            })
            .collect();
        let counts = random_points(&self.messages, first, kinds.len());
        let key = &self.duchy.place.full_key;
        let encrypt = |column: usize, halves: &[Point]| {
            let nonces = self.nonces[column].scalars(first, kinds.len());
            columns::encrypted(key, halves, nonces.expose())
        };
        columns::records([encrypt(0, &indexes), encrypt(1, &keys), encrypt(2, &counts)])
    }
}

/// A label and 32 random bytes.
fn random_message(label: &str, stream: &Stream, index: u64) -> Vec<u8> {
    let mut message = label.as_bytes().to_vec();
    let mut random = [0u8; 32];
    stream.rng(index).fill_bytes(&mut random);
    message.extend_from_slice(&random);
    message
}

/// Uniform points that nobody knows to be multiples of another; what is twice one of them is as uniform.
pub(crate) fn random_points(stream: &Stream, first: u64, count: usize) -> Vec<Point> {
    let messages: Vec<Vec<u8>> = (0..count).map(|i| random_message("random", stream, first + i as u64)).collect();
    batch::hash_to_halves(Domain::NoiseId, &messages)
}

/// What a noise tuple looks like when it is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum TupleKind {
    /// As a usable register with this count: flags (0, R, R).
    Frequency(usize),
    /// As a register that publishers destroyed between them: flags (R, R, R).
    Destroyed,
    /// Makes the number of noise tuples constant: flags (0, 0, R).
    Padding,
}

/// Liquid Legions v2, frequency noise: adds the 2·μ·(F+1) noise tuples of this Duchy. The flags are encrypted under the
/// keys of those who have yet to peel them, the counts under the full key, [as many times](super::doubling) themselves as
/// the others that leave this Duchy in this phase.
pub(crate) fn add_tuples(
    duchy: &Duchy,
    noise: &Noise,
    phase: Phase,
    randomness: &StepRandomness,
    output: &mut Shuffle<'_>,
) -> Result<(), ProtocolError> {
    let Some(noiser) = &noise.frequency else { return Ok(()) };
    let counts = randomness.stream(Purpose::NoiseCount);
    let frequency = duchy.parameters.frequency();
    // One count for each frequency, the last for the destroyed tuples.
    let drawn: Vec<u64> = (0..=frequency as u64).map(|index| noiser.sample(&mut counts.rng(index))).collect();
    let padding = noise
        .tuples
        .checked_sub(drawn.iter().sum())
        .ok_or_else(|| ProtocolError::Noise("more noise was drawn than its range allows".to_owned()))?;
    let tuples = drawn[..frequency]
        .iter()
        .zip(1..)
        .flat_map(|(count, f)| (0..*count).map(move |_| TupleKind::Frequency(f)))
        .chain((0..drawn[frequency]).map(|_| TupleKind::Destroyed))
        .chain((0..padding).map(|_| TupleKind::Padding));

    let halves = batch::multiples(&(duchy.constants.unit * &duchy.factor(phase)), frequency);
    let messages = randomness.stream(Purpose::FrequencyMessage);
    let nonces =
        [Purpose::FrequencyNonceA, Purpose::FrequencyNonceB, Purpose::FrequencyNonceC, Purpose::FrequencyNonceD]
            .map(|purpose| randomness.stream(purpose));
    for_each_batch(tuples, duchy.place.chunk_records, |first, kinds| {
        // Four random points a tuple, used or not, so that a tuple's randomness depends on its position alone.
        let random = random_points(&messages, 4 * first, 4 * kinds.len());
        let column = |index: usize| -> Vec<Point> {
            let message = |(kind, random): (&TupleKind, &[Point])| match (index, kind) {
                (0, TupleKind::Frequency(_) | TupleKind::Padding) | (1, TupleKind::Padding) => Point::identity(),
                (3, TupleKind::Frequency(f)) => halves[f - 1],
                _ => random[index],
            };
            kinds.iter().zip(random.chunks_exact(4)).map(message).collect()
        };
        let encrypt = |index: usize, key: &CompositeKey| {
            let nonces = nonces[index].scalars(first, kinds.len());
            columns::encrypted(key, &column(index), nonces.expose())
        };
        let flags = &duchy.place.remaining_key;
        output.push(&columns::records([
            encrypt(0, flags),
            encrypt(1, flags),
            encrypt(2, flags),
            encrypt(3, &duchy.place.full_key),
        ]))
    })
}

impl Constants {
    /// The points and ids that the protocol fixes.
    pub(crate) fn new() -> Self {
        Self {
            unit: hash::constant("unit"),
            destroyed_key: hash::constant("destroyed_register_key"),
            noise_key: hash::constant("blinded_histogram_noise_register_key"),
            half_destroyed_key: hash::half_constant("destroyed_register_key"),
            half_noise_key: hash::half_constant("blinded_histogram_noise_register_key"),
            publisher_noise_id: b"publisher_noise_register_id".to_vec(),
            padding_noise_id: b"padding_noise_register_id".to_vec(),
        }
    }
}
