//! The secret order that both workers put a vector into.

use std::{array, fmt};

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{BLOCK_BYTES, Generator, Seed, vector, vectorised};

/// Keystream for one step of the reference's shuffle.
const STEP_BYTES: usize = 16;
/// Steps whose places are computed at once.
const STEPS: usize = BLOCK_BYTES / STEP_BYTES;

/// Puts elements into the order that belongs to a seed: for i from 0, the element at i changes places with the one at
/// i + (the next 16 bytes, little-endian, modulo n − i).
pub fn shuffle(seed: &Seed, elements: &mut [u8]) {
    let mut generator = seed.generator();
    let mut block = Zeroizing::new(vec![0; BLOCK_BYTES]);
    let mut places = Zeroizing::new(vec![0; STEPS]);
    let length = elements.len();
    let steps = length.saturating_sub(1);
    for first in (0..steps).step_by(STEPS) {
        let count = STEPS.min(steps - first);
        generator.bytes(&mut block);
        vectorised(|| remainders(&block.as_chunks().0[..count], length - first, &mut places[..count]));
        for (i, place) in (first..).zip(&places[..count]) {
            elements.swap(i, i + *place as usize);
        }
    }
}

/// Numbers whose remainders are computed side by side.
const LANES: usize = 8;

/// The remainders of little-endian numbers of 16 bytes by `divisor`, `divisor` − 1, …
#[inline(always)]
fn remainders(random: &[[u8; STEP_BYTES]], divisor: usize, out: &mut [u64]) {
    let mut done = 0;
    while done < random.len() {
        let divisor = divisor - done;
        match (random[done..].first_chunk(), out[done..].first_chunk_mut()) {
            (Some(numbers), Some(out))
                if FAST_DIVISORS.contains(&divisor) && divisor >= FAST_DIVISORS.start + LANES =>
            {
                remainders_of_lanes(numbers, divisor, out);
                done += LANES;
            }
            _ => {
                out[done] = (u128::from_le_bytes(random[done]) % divisor as u128) as u64;
                done += 1;
            }
        }
    }
}

/// Divisors of [`remainders_of_lanes`].
const FAST_DIVISORS: std::ops::Range<usize> = 1 << 13..1 << 29;

/// Long division by digits of 63, 33 and 32 bits, the highest first, with neither branches nor divisions: the quotient of
/// a dividend t is estimated with a double, and what the estimate is off by stays in the remainder.
///
/// With d from 2^13 to 2^29: |t| is below 2^63 and the quotient below 2^51, so adding 3·2^51 rounds it to an integer that
/// can be read from the bits. t as a double and its product with 1/d are each off by a factor of at most 1 ± 2^−52, so the
/// remainder is from −d/2 − 2^12 to d/2 + 2^12, which is within −d and d: two steps less than 2^62 follow, and at the end
/// one addition makes it positive.
#[inline(always)]
fn remainders_of_lanes(numbers: &[[u8; STEP_BYTES]; LANES], divisor: usize, out: &mut [u64; LANES]) {
    const ROUND: f64 = (3_u64 << 51) as f64;
    let divisors: [i64; LANES] = array::from_fn(|lane| (divisor - lane) as i64);
    let inverses = divisors.map(|divisor| 1.0 / divisor as f64);
    let word = |lane: usize, half: usize| u64::from_le_bytes(numbers[lane].as_chunks().0[half]);
    let (low, high): ([_; LANES], [_; LANES]) =
        (array::from_fn(|lane| word(lane, 0)), array::from_fn(|lane| word(lane, 1)));
    let mut remainders = [0_i64; LANES];
    let mut divide = |bits: u32, digits: [u64; LANES]| {
        for lane in 0..LANES {
            let dividend = (remainders[lane] << bits) + digits[lane].cast_signed();
            let estimate = dividend as f64 * inverses[lane] + ROUND;
            let quotient = estimate.to_bits().cast_signed() - ROUND.to_bits().cast_signed();
            // The product alone may pass 2^63.
            remainders[lane] = dividend.wrapping_sub(quotient.wrapping_mul(divisors[lane]));
        }
    };
    divide(63, high.map(|word| word >> 1));
    divide(33, array::from_fn(|lane| (high[lane] & 1) << 32 | low[lane] >> 32));
    divide(32, low.map(|word| word & u64::from(u32::MAX)));
    for ((out, remainder), divisor) in out.iter_mut().zip(remainders).zip(divisors) {
        *out = (remainder + (divisor & (remainder >> 63))).cast_unsigned();
    }
}

/// The native variant's shuffle: uniform too, and linear in memory traffic. It takes the elements a part at a time, and
/// holds the one vector that they are going to be.
///
/// Stream s of a seed has the seed's key, and as first counter block the seed's plus s·2^64 modulo 2^128. Up to
/// 2^16 elements are one bucket; more go to 256: the byte of stream 0 at its position is an element's bucket, and elements
/// of a bucket keep their order. Then every bucket b is put into order by itself, with stream b + 1: for i from its last
/// place down to 1, the element at i changes places with the one at j, uniform from 0 to i by Lemire's method from
/// little-endian 32-bit words (the high half of word·(i + 1); a low half below 2^32 mod (i + 1) draws again).
///
/// ```
/// use halo_crypto::{secret::Secret, share::{BucketShuffle, Seed}};
///
/// let seed = Seed::new(Secret::new([7; 48])); // an example
/// let mut shuffle = BucketShuffle::new(&seed, 5);
/// shuffle.push(b"ab");
/// shuffle.push(b"cde");
/// let mut shuffled = shuffle.finish();
/// shuffled.sort_unstable();
/// assert_eq!(*shuffled, b"abcde");
/// ```
pub struct BucketShuffle {
    seed: Seed,
    /// Stream 0, unless there is one bucket only.
    choices: Option<Generator>,
    block: Zeroizing<Vec<u8>>,
    sizes: Vec<usize>,
    /// Where the next element of each bucket goes.
    places: [usize; BUCKETS],
    missing: usize,
    elements: Zeroizing<Vec<u8>>,
}

impl fmt::Debug for BucketShuffle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BucketShuffle").field("missing", &self.missing).finish_non_exhaustive()
    }
}

impl BucketShuffle {
    /// Makes room for exactly so many elements, on all cores.
    #[must_use]
    pub fn new(seed: &Seed, length: usize) -> Self {
        let (sizes, choices) = if length <= ONE_BUCKET {
            (vec![length], None)
        } else {
            (count_choices(seed, length).to_vec(), Some(seed.stream(0)))
        };
        let mut places = [0; BUCKETS];
        let mut first = 0;
        for (place, size) in places.iter_mut().zip(&sizes) {
            *place = first;
            first += size;
        }
        let block = Zeroizing::new(vec![0; BLOCK_BYTES]);
        let elements = Zeroizing::new(vec![0; length]);
        Self { seed: seed.clone(), choices, block, sizes, places, missing: length, elements }
    }

    /// Takes the next elements.
    ///
    /// # Panics
    /// When they are more than there is room for.
    pub fn push(&mut self, elements: &[u8]) {
        assert!(elements.len() <= self.missing, "{} elements where {} are missing", elements.len(), self.missing);
        self.missing -= elements.len();
        for part in elements.chunks(BLOCK_BYTES) {
            let choices = &mut self.block[..part.len()];
            if let Some(generator) = &mut self.choices {
                generator.bytes(choices);
            }
            for (element, bucket) in part.iter().zip(choices) {
                let place = &mut self.places[usize::from(*bucket)];
                self.elements[*place] = *element;
                *place += 1;
            }
        }
    }

    /// All elements in their new order, on all cores.
    ///
    /// # Panics
    /// When some are missing.
    #[must_use]
    pub fn finish(mut self) -> Zeroizing<Vec<u8>> {
        assert_eq!(self.missing, 0, "elements are missing");
        let mut rest = self.elements.as_mut_slice();
        let buckets: Vec<&mut [u8]> =
            self.sizes.iter().map(|size| rest.split_off_mut(..*size).unwrap_or_default()).collect();
        let numbered = buckets.into_par_iter().enumerate();
        numbered.for_each(|(number, bucket)| shuffle_bucket(&self.seed, number as u64, bucket));
        self.elements
    }
}

/// Buckets of more than [`ONE_BUCKET`] elements.
const BUCKETS: usize = 256;
/// So many elements are not divided.
const ONE_BUCKET: usize = 1 << 16;

/// How many of so many elements choose each bucket. The shuffle goes through the choices twice: to make the stream again
/// is quicker than to keep it.
fn count_choices(seed: &Seed, length: usize) -> [usize; BUCKETS] {
    // Every thread takes a part of the stream.
    let part = length.div_ceil(rayon::current_num_threads()).next_multiple_of(STEP_BYTES);
    let firsts: Vec<usize> = (0..length).step_by(part).collect();
    let count = |first: usize| {
        let mut generator = seed.stream_from(vector(), 0, (first / STEP_BYTES) as u64);
        let mut block = Zeroizing::new(vec![0; BLOCK_BYTES]);
        // Neighbours often choose differently; four counters each keep additions from waiting for one another.
        let mut apart = [[0_usize; BUCKETS]; 4];
        let end = length.min(first + part);
        for first in (first..end).step_by(BLOCK_BYTES) {
            let choices = &mut block[..BLOCK_BYTES.min(end - first)];
            generator.bytes(choices);
            let (fours, rest) = choices.as_chunks::<4>();
            for four in fours {
                apart.iter_mut().zip(four).for_each(|(counts, bucket)| counts[usize::from(*bucket)] += 1);
            }
            rest.iter().for_each(|bucket| apart[0][usize::from(*bucket)] += 1);
        }
        array::from_fn(|bucket| apart.iter().map(|counts| counts[bucket]).sum())
    };
    let counts: Vec<[usize; BUCKETS]> = firsts.into_par_iter().map(count).collect();
    array::from_fn(|bucket| counts.iter().map(|counts| counts[bucket]).sum())
}

fn shuffle_bucket(seed: &Seed, number: u64, bucket: &mut [u8]) {
    let mut generator = seed.stream(number + 1);
    let mut block = Zeroizing::new([0; 4 * WORDS]);
    let mut places = Zeroizing::new([0; WORDS]);
    let mut length = bucket.len();
    while length > 1 {
        let words = WORDS.min(length - 1);
        generator.bytes(&mut block[..4 * words]);
        // A bucket of 2^32 elements would need a vector of 2^40.
        let bound = u32::try_from(length).unwrap_or(u32::MAX);
        let count = choose(&block.as_chunks().0[..words], bound, &mut places);
        for (last, place) in (0..length).rev().zip(&places[..count]) {
            bucket.swap(last, *place as usize);
        }
        length -= count;
    }
}

/// Words whose places are computed at once.
const WORDS: usize = 512;

/// Uniform numbers below `bound`, `bound` − 1, … by Lemire's method from little-endian words, and how many they are: as
/// many as there are words, less those that are refused.
fn choose(words: &[[u8; 4]], bound: u32, places: &mut [u32; WORDS]) -> usize {
    let product = |word: &[u8; 4], bound: u32| u64::from(u32::from_le_bytes(*word)) * u64::from(bound);
    // A word is refused only where the low half of the product is below the bound, which hardly one is.
    let doubtful = vectorised(
        #[inline(always)]
        || {
            (0..bound).rev().zip(words).zip(places.iter_mut()).fold(false, |doubtful, ((largest, word), place)| {
                let product = product(word, largest + 1);
                *place = (product >> 32) as u32;
                doubtful | (product as u32 <= largest)
            })
        },
    );
    if !doubtful {
        return words.len();
    }
    let mut count = 0;
    for word in words {
        let bound = bound - count as u32;
        let product = product(word, bound);
        if product as u32 >= bound.wrapping_neg() % bound {
            places[count] = (product >> 32) as u32;
            count += 1;
        }
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn expected(random: &[[u8; STEP_BYTES]], divisor: usize) -> Vec<u64> {
        let divisors = (1..=divisor as u128).rev();
        random.iter().zip(divisors).map(|(bytes, d)| (u128::from_le_bytes(*bytes) % d) as u64).collect()
    }

    #[track_caller]
    fn assert_remainders(random: &[[u8; STEP_BYTES]], divisor: usize) {
        let mut found = vec![0; random.len()];
        remainders(random, divisor, &mut found);
        assert_eq!(found, expected(random, divisor), "{divisor}");
    }

    #[test]
    fn remainders_at_the_borders() {
        let mut random = vec![[0; STEP_BYTES], [255; STEP_BYTES], u128::MAX.wrapping_sub(1).to_le_bytes()];
        for bit in 0..128 {
            random.push((1_u128 << bit).to_le_bytes());
            random.push(((1_u128 << bit) - 1).to_le_bytes());
        }
        let borders = [1 << 13, 1 << 29].into_iter().flat_map(|border| border - 20..border + 20);
        for divisor in borders.chain([10_000_019, (1 << 28) + 1, 1 << 40]) {
            assert_remainders(&random, divisor);
            // Multiples of the divisors, and their neighbours.
            for factor in [1, 2, 3, (1_u128 << 87) - 1, 1 << 86] {
                let near: Vec<[u8; STEP_BYTES]> = (0..64_u128)
                    .map(|step| {
                        ((divisor as u128 - step) * factor).wrapping_add(step % 3).wrapping_sub(1).to_le_bytes()
                    })
                    .collect();
                assert_remainders(&near, divisor);
            }
        }
        for (divisor, count) in [(1, 1), (2, 1), (9, 8), (10, 9)] {
            assert_remainders(&random[..count], divisor);
        }
    }

    #[test]
    fn words_that_would_favour_some_places_are_refused() {
        let bound = 3 << 30;
        // A low half below 2^32 mod (bound − i) = 2^30 + i is refused, as 0 and 7 · (bound − 2) modulo 2^32 are; that of
        // the largest word times bound − 1 is just not.
        let words = [5_u32, 0, u32::MAX, 7, 5, 0].map(u32::to_le_bytes);
        let mut places = [0; WORDS];
        assert_eq!(choose(&words, bound, &mut places), 3);
        let due: Vec<u32> = [(5, 0), (u32::MAX, 1), (5, 2)]
            .map(|(word, less)| ((u64::from(word) * u64::from(bound - less)) >> 32) as u32)
            .into();
        assert_eq!(places[..3], due);
    }

    proptest! {
        #[test]
        fn remainders_are_those_of_long_division(
            numbers in prop::collection::vec(any::<[u8; STEP_BYTES]>(), 1..40), divisor in 40_usize..1 << 30, less in 0_u32..17,
        ) {
            assert_remainders(&numbers, 40 + (divisor >> less));
        }
    }
}
