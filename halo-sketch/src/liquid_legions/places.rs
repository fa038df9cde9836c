//! Where people fall in a sketch.

use std::sync::LazyLock;

use super::Params;
use crate::fingerprint::{Fingerprints, GROUP};

/// The functions from fingerprints to registers and keys, with what depends on the sketch alone computed beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    params: Params,
    /// e^a.
    top: f64,
    /// m / a.
    scale: f64,
    /// How far the position by [`Logarithm`] may be from the exact one.
    tolerance: f64,
    logarithm: &'static Logarithm,
    /// (2^64 − 1) / `sampling_indicator_size`, rounded down.
    reciprocal: u64,
}

impl Places {
    pub(super) fn new(params: Params) -> Self {
        let Params { decay_rate, size, sampling_indicator_size } = params;
        Self {
            params,
            top: libm::exp(decay_rate),
            scale: size as f64 / decay_rate,
            tolerance: size as f64 * Logarithm::TOLERANCE,
            logarithm: &LOGARITHM,
            reciprocal: u64::MAX / sampling_indicator_size,
        }
    }

    /// The register of a fingerprint: always what [`Self::exact_index`] says, which is asked only where it matters.
    ///
    /// Positions by the quick logarithm are within [`Self::tolerance`] of the exact ones. Where no border between two
    /// registers is that near, both are in the same one.
    #[inline]
    pub(super) fn index(&self, fingerprint: u64) -> u64 {
        let argument = self.argument(fingerprint);
        let position = self.params.size as f64 - self.logarithm.of(argument) * self.scale;
        let register = position as i64;
        let fraction = position - register as f64;
        if argument >= 1.0 && fraction > self.tolerance && fraction < 1.0 - self.tolerance {
            return register.cast_unsigned();
        }
        self.exact_index(fingerprint)
    }

    /// What the logarithm is taken of, from 1 for the last register to e^a for the first; rounding may leave less than 1.
    #[inline]
    fn argument(&self, fingerprint: u64) -> f64 {
        let u = fingerprint as f64 / u64::MAX as f64;
        self.top + u * (1.0 - self.top)
    }

    /// The inverse of the exponential distribution function, in the floating point expression that the reference's
    /// publishers use, and with an exponential and a logarithm that are computed alike on every machine, so that two
    /// publishers never disagree about a register. The largest fingerprints round to u = 1; the clamp puts them where
    /// they belong, into the last register.
    #[cold]
    pub(super) fn exact_index(&self, fingerprint: u64) -> u64 {
        let Params { decay_rate, size, .. } = self.params;
        let x = 1.0 - libm::log(self.argument(fingerprint)) / decay_rate;
        // A float to integer conversion cuts off the fraction and saturates, so a rounding just below 0 gives register 0.
        ((x * size as f64) as u64).min(size - 1)
    }

    /// The key of a fingerprint: its remainder by the number of keys.
    ///
    /// The estimated quotient is right or one too small: the reciprocal is less than 1 too small, by which a fingerprint
    /// of less than 2^64 loses less than 1.
    #[inline]
    pub(super) fn key(&self, fingerprint: u64) -> u64 {
        let keys = self.params.sampling_indicator_size;
        let quotient = (u128::from(fingerprint) * u128::from(self.reciprocal)) >> 64;
        let rest = fingerprint - quotient as u64 * keys;
        if rest >= keys { rest - keys } else { rest }
    }

    /// Hands over the register and the key of every VID, in order.
    pub(super) fn each(&self, vids: &[u64], mut consume: impl FnMut(u64, u64)) {
        let mut fingerprints = Fingerprints::new();
        let (mut indexes, mut keys) = ([0; GROUP], [0; GROUP]);
        for group in vids.chunks(GROUP) {
            fingerprints.of(group, &mut indexes, &mut keys);
            indexes.iter_mut().for_each(|fingerprint| *fingerprint = self.index(*fingerprint));
            keys.iter_mut().for_each(|fingerprint| *fingerprint = self.key(*fingerprint));
            indexes[..group.len()].iter().zip(&keys).for_each(|(index, key)| consume(*index, *key));
        }
    }
}

static LOGARITHM: LazyLock<Logarithm> = LazyLock::new(Logarithm::new);

/// A quick natural logarithm for numbers from 1 on.
///
/// A number is 2^e·v with v in [1, 2). The table has, for the middle c of each of 128 parts of that range, 1/c and ln c;
/// then ln(2^e·v) = e·ln 2 + ln c + ln(1 + r) with r = v/c − 1, |r| ≤ 2^-8, of which four terms of the series are taken.
#[derive(Debug)]
struct Logarithm([(f64, f64); 128]);

impl Logarithm {
    /// Far above the error for numbers up to e^36, together with that of the expression it stands for: the series is cut
    /// off at r^5/5 < 2^-42, and both logarithms, which are below 2^6, round by less than 2^-45.
    const TOLERANCE: f64 = 1.0 / (1_u64 << 40) as f64;
    /// Bits of a float64 behind the exponent, and those of them that choose a part of the table.
    const FRACTION_BITS: u32 = 52;
    const PART_BITS: u32 = 7;

    fn new() -> Self {
        Self(std::array::from_fn(|part| {
            let inverse = 1.0 / (1.0 + (part as f64 + 0.5) / 128.0);
            (inverse, -libm::log(inverse))
        }))
    }

    #[inline]
    fn of(&self, number: f64) -> f64 {
        let bits = number.to_bits();
        let exponent = (bits >> Self::FRACTION_BITS) as i32 - 1023;
        let (inverse, logarithm) = self.0[(bits >> (Self::FRACTION_BITS - Self::PART_BITS)) as usize % 128];
        let v = f64::from_bits((bits & ((1 << Self::FRACTION_BITS) - 1)) | 1.0_f64.to_bits());
        let r = v * inverse - 1.0;
        let series = r * (1.0 + r * (-0.5 + r * (1.0 / 3.0 - r * 0.25)));
        f64::from(exponent) * std::f64::consts::LN_2 + (logarithm + series)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The first fingerprint at or behind a register, by bisection: the index grows with the fingerprint.
    fn begin(places: &Places, register: u64) -> u64 {
        let (mut low, mut high) = (0, u64::MAX);
        while low < high {
            let middle = low + (high - low) / 2;
            if places.exact_index(middle) < register {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        low
    }

    #[test]
    fn exponential_index() {
        let index = |rate, size, fingerprint| {
            Places::new(Params { decay_rate: rate, size, sampling_indicator_size: 1 }).index(fingerprint)
        };
        assert_eq!(index(2.0, 10, 50), 0);
        assert_eq!(index(2.0, 10_000, 5_000_000_000_000_000_000), 1335);
        assert_eq!(index(1.0, 10, 50), 0);
        for (u, register) in
            [(0.001, 8), (0.25, 2397), (0.5, 5776), (0.75, 11_552), (0.9, 19_187), (0.99, 38_371), (0.999_999, 98_743)]
        {
            assert_eq!(index(12.0, 100_000, (u * 2f64.powi(64)) as u64), register, "u = {u}");
        }
        assert_eq!(index(5.6, 1_000_000, 1 << 63), 123_117);
        assert_eq!(index(5.6, 1_000_000, (0.99 * 2f64.powi(64)) as u64), 766_646);
        // Fingerprints that round to u = 1 fall into the last register, not behind it.
        for rate in [1.1, 5.6, 12.0, 36.0] {
            for size in [1, 2, 100_000, Params::MAX_SIZE] {
                assert_eq!(index(rate, size, 0), 0);
                for below in [0, 1, 1 << 9, 1 << 10, 1 << 12] {
                    assert!(index(rate, size, u64::MAX - below) < size);
                }
            }
        }
        assert_eq!(index(12.0, 100_000, u64::MAX), 99_999);
    }

    /// x(u), read off a sketch of 2^32 registers.
    #[test]
    fn exponential_position() {
        for (rate, u, x) in [
            (12.0, 0.001, 8.337_451_526_840_3e-5),
            (12.0, 0.25, 0.023_973_335_365_257_8),
            (12.0, 0.5, 0.057_761_753_030_539),
            (12.0, 0.75, 0.115_522_994_054_392),
            (12.0, 0.9, 0.191_877_483_050_978),
            (12.0, 0.99, 0.383_713_507_824_216),
            (12.0, 0.999_999, 0.987_434_070_845_731),
            (5.6, 0.5, 0.123_117_167_345_178),
            (5.6, 0.99, 0.766_646_184_541_176),
        ] {
            let size = Params::MAX_SIZE;
            let places = Places::new(Params { decay_rate: rate, size, sampling_indicator_size: 1 });
            let register = places.index((u * 2f64.powi(64)) as u64);
            assert_eq!(register, (x * size as f64).floor() as u64, "u = {u}");
        }
    }

    /// The share of all fingerprints that falls into a register.
    #[test]
    fn register_probabilities() {
        for (rate, register, probability) in [
            (12.0, 0, 1.199_935_375_537_67e-4),
            (12.0, 50_000, 2.974_342_423_972_97e-7),
            (12.0, 99_999, 7.373_542_529_590_25e-10),
            (10.0, 0, 9.999_954_013_876_11e-5),
        ] {
            let places = Places::new(Params::new(rate, 100_000, 1).unwrap());
            let end = if register == 99_999 { u64::MAX } else { begin(&places, register + 1) };
            let share = (end - begin(&places, register)) as f64 / 2f64.powi(64);
            assert!((share / probability - 1.0).abs() < 1e-6, "register {register}: {share}");
        }
    }

    /// The error is a quarter of the tolerance at most, at the borders of all parts and for all powers of two up to e^36.
    #[test]
    fn quick_logarithms_are_within_the_tolerance() {
        for exponent in 0..53 {
            for part in 0..=128_u64 {
                let border = f64::from_bits(((1023 + exponent) << 52) + (part << 45));
                for number in [border, border.next_down().max(1.0), border.next_up(), border * (1.0 + 1.0 / 300.0)] {
                    let error = (LOGARITHM.of(number) - libm::log(number)).abs();
                    assert!(error < Logarithm::TOLERANCE / 4.0, "{number}: {error}");
                }
            }
        }
    }

    /// Around the first fingerprint of every register, where a wrong rounding would show.
    #[test]
    fn indexes_are_exact_at_every_border() {
        for (rate, size) in [(12.0, 100_000), (1.1, 3000), (5.6, 20_000), (36.0, 10_000), (2.0, 1)] {
            let places = Places::new(Params::new(rate, size, 1).unwrap());
            for register in 0..size {
                let border = begin(&places, register);
                // One float64 of the fingerprint, of its share or of the argument, and more.
                for distance in (0..64).step_by(3).map(|bits| 1_u64 << bits).chain([0]) {
                    for fingerprint in [border.saturating_sub(distance), border.saturating_add(distance)] {
                        assert_eq!(places.index(fingerprint), places.exact_index(fingerprint), "{fingerprint}");
                    }
                }
            }
        }
    }

    proptest! {
        #[test]
        fn indexes_are_exact(
            fingerprints in prop::collection::vec((any::<u64>(), 0u32..64), 50),
            rate in 1.001..=Params::MAX_DECAY_RATE,
            (size, shift) in (1..=Params::MAX_SIZE, 0u32..32),
        ) {
            let places = Places::new(Params::new(rate, (size >> shift).max(1), 1).unwrap());
            for (fingerprint, shift) in fingerprints {
                // All magnitudes, from both ends.
                for fingerprint in [fingerprint >> shift, !(fingerprint >> shift)] {
                    prop_assert_eq!(places.index(fingerprint), places.exact_index(fingerprint), "{}", fingerprint);
                }
            }
        }

        #[test]
        fn keys_are_remainders(fingerprint: u64, size in 1u64..=1 << 63, shift in 0u32..63) {
            for size in [size, (size >> shift).max(1), 1, 1 << 63] {
                let places = Places::new(Params::new(2.0, 1, size).unwrap());
                let multiple = fingerprint - fingerprint % size;
                for fingerprint in [fingerprint, multiple, multiple.wrapping_sub(1), 0, u64::MAX] {
                    prop_assert_eq!(places.key(fingerprint), fingerprint % size);
                }
            }
        }
    }
}
