//! The secret order that both workers put a vector into.

use rayon::prelude::*;
use zeroize::Zeroizing;

use super::{BLOCK_BYTES, Generator, Seed};

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
        remainders(&block.as_chunks().0[..count], length - first, &mut places[..count]);
        for (i, place) in (first..).zip(&places[..count]) {
            elements.swap(i, i + *place as usize);
        }
    }
}

/// Numbers whose remainders are computed side by side.
const LANES: usize = 8;

/// The remainders of little-endian numbers of 16 bytes by `divisor`, `divisor` − 1, …
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
fn remainders_of_lanes(numbers: &[[u8; STEP_BYTES]; LANES], divisor: usize, out: &mut [u64; LANES]) {
    const ROUND: f64 = (3_u64 << 51) as f64;
    let divisors: [i64; LANES] = std::array::from_fn(|lane| (divisor - lane) as i64);
    let inverses = divisors.map(|divisor| 1.0 / divisor as f64);
    let numbers = numbers.map(u128::from_le_bytes);
    let mut remainders = [0_i64; LANES];
    for (bits, shift) in [(63, 65), (33, 32), (32, 0)] {
        for lane in 0..LANES {
            let digit = ((numbers[lane] >> shift) & ((1 << bits) - 1)) as i64;
            let dividend = (remainders[lane] << bits) + digit;
            let estimate = dividend as f64 * inverses[lane] + ROUND;
            let quotient = estimate.to_bits().cast_signed() - ROUND.to_bits().cast_signed();
            // The product alone may pass 2^63.
            remainders[lane] = dividend.wrapping_sub(quotient.wrapping_mul(divisors[lane]));
        }
    }
    for ((out, remainder), divisor) in out.iter_mut().zip(remainders).zip(divisors) {
        *out = (remainder + (divisor & (remainder >> 63))).cast_unsigned();
    }
}

/// The native variant's shuffle: uniform too, and linear in memory traffic.
///
/// Stream s of a seed has the seed's key, and as first counter block the seed's plus s·2^64 modulo 2^128. Up to
/// 2^16 elements are one bucket; more go to 256: the byte of stream 0 at its position is an element's bucket, and elements
/// of a bucket keep their order. Then every bucket b is put into order by itself, with stream b + 1: for i from its last
/// place down to 1, the element at i changes places with the one at j, uniform from 0 to i by Lemire's method from
/// little-endian 32-bit words (the high half of word·(i + 1); a low half below 2^32 mod (i + 1) draws again).
///
/// A second vector of the same length is held for a while.
pub fn bucket_shuffle(seed: &Seed, elements: &mut [u8]) {
    const BUCKETS: usize = 256;
    const ONE_BUCKET: usize = 1 << 16;
    if elements.len() <= ONE_BUCKET {
        return shuffle_bucket(seed, 0, elements);
    }
    let length = elements.len();
    // Neighbours often choose differently; four counters each keep additions from waiting for one another.
    let mut counts = [[0_usize; BUCKETS]; 4];
    for_each_choice(seed, length, |_, choices| {
        let (fours, rest) = choices.as_chunks::<4>();
        for four in fours {
            counts.iter_mut().zip(four).for_each(|(counts, bucket)| counts[usize::from(*bucket)] += 1);
        }
        rest.iter().for_each(|bucket| counts[0][usize::from(*bucket)] += 1);
    });
    let mut sizes = [0; BUCKETS];
    for (bucket, size) in sizes.iter_mut().enumerate() {
        *size = counts.iter().map(|counts| counts[bucket]).sum();
    }
    let mut next = [0; BUCKETS];
    let mut begin = 0;
    for (next, size) in next.iter_mut().zip(&sizes) {
        *next = begin;
        begin += size;
    }
    let mut scattered = Zeroizing::new(vec![0; elements.len()]);
    for_each_choice(seed, length, |first, choices| {
        for (element, bucket) in elements[first..].iter().zip(choices) {
            let place = &mut next[usize::from(*bucket)];
            scattered[*place] = *element;
            *place += 1;
        }
    });
    elements.copy_from_slice(&scattered);
    drop(scattered);
    let mut rest = elements;
    let mut buckets = Vec::with_capacity(BUCKETS);
    for size in sizes {
        let (bucket, behind) = rest.split_at_mut(size);
        buckets.push(bucket);
        rest = behind;
    }
    buckets.into_par_iter().enumerate().for_each(|(number, bucket)| shuffle_bucket(seed, number as u64, bucket));
}

/// The buckets of so many elements, a part at a time with the position of its first. The shuffle goes through them twice:
/// to make the stream again is quicker than to keep it.
fn for_each_choice(seed: &Seed, length: usize, mut each: impl FnMut(usize, &[u8])) {
    let mut generator = seed.stream(0);
    let mut block = Zeroizing::new(vec![0; BLOCK_BYTES]);
    for first in (0..length).step_by(BLOCK_BYTES) {
        let choices = &mut block[..BLOCK_BYTES.min(length - first)];
        generator.bytes(choices);
        each(first, choices);
    }
}

fn shuffle_bucket(seed: &Seed, number: u64, bucket: &mut [u8]) {
    let mut words = Words::new(seed.stream(number + 1), bucket.len());
    for i in (1..bucket.len()).rev() {
        // A bucket of 2^32 elements would need a vector of 2^40.
        let bound = u32::try_from(i + 1).unwrap_or(u32::MAX);
        bucket.swap(i, words.below(bound) as usize);
    }
}

/// Little-endian 32-bit words of a stream.
struct Words {
    generator: Generator,
    block: Zeroizing<Vec<u8>>,
    at: usize,
}

impl Words {
    fn new(generator: Generator, expected: usize) -> Self {
        let block = Zeroizing::new(vec![0; (expected * 4 + 64).min(BLOCK_BYTES).next_multiple_of(4)]);
        let at = block.len();
        Self { generator, block, at }
    }

    fn next(&mut self) -> u32 {
        if self.at == self.block.len() {
            self.generator.bytes(&mut self.block);
            self.at = 0;
        }
        let word = self.block[self.at..].first_chunk().copied().unwrap_or_default();
        self.at += 4;
        u32::from_le_bytes(word)
    }

    fn below(&mut self, bound: u32) -> u32 {
        loop {
            let product = u64::from(self.next()) * u64::from(bound);
            // The remainder is computed only where it can matter.
            let low = product as u32;
            if low >= bound || low >= bound.wrapping_neg() % bound {
                return (product >> 32) as u32;
            }
        }
    }
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

    proptest! {
        #[test]
        fn remainders_are_those_of_long_division(
            numbers in prop::collection::vec(any::<[u8; STEP_BYTES]>(), 1..40), divisor in 40_usize..1 << 30, less in 0_u32..17,
        ) {
            assert_remainders(&numbers, 40 + (divisor >> less));
        }
    }
}
