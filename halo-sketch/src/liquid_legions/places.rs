//! Where people fall in a sketch.

use super::Params;
use crate::fingerprint::{Fingerprints, GROUP};

/// The functions from fingerprints to registers and keys, with what depends on the sketch alone computed beforehand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Places {
    params: Params,
    /// e^a.
    top: f64,
    /// (2^64 − 1) / `sampling_indicator_size`, rounded down.
    reciprocal: u64,
}

impl Places {
    pub(super) fn new(params: Params) -> Self {
        Self { params, top: libm::exp(params.decay_rate), reciprocal: u64::MAX / params.sampling_indicator_size }
    }

    /// The register of a fingerprint.
    ///
    /// The inverse of the exponential distribution function, in the floating point expression that the reference's
    /// publishers use, and with an exponential and a logarithm that are computed alike on every machine, so that two
    /// publishers never disagree about a register. The largest fingerprints round to u = 1; the clamp puts them where
    /// they belong, into the last register.
    #[inline]
    pub(super) fn index(&self, fingerprint: u64) -> u64 {
        let Params { decay_rate, size, .. } = self.params;
        let u = fingerprint as f64 / u64::MAX as f64;
        let x = 1.0 - libm::log(self.top + u * (1.0 - self.top)) / decay_rate;
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

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
        // The first fingerprint at or behind a register, by bisection: the index grows with the fingerprint.
        let begin = |places: &Places, register: u64| {
            let (mut low, mut high) = (0, u64::MAX);
            while low < high {
                let middle = low + (high - low) / 2;
                if places.index(middle) < register {
                    low = middle + 1;
                } else {
                    high = middle;
                }
            }
            low
        };
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

    proptest! {
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
