//! Keys and counts double on every hop.
//!
//! The double of a point is encoded at a fraction of what the point itself costs, so a Duchy that has computed C sends
//! 2·C. To what has been multiplied by a secret uniform scalar, an index, a flag or an element of a row, that is nothing:
//! twice such a scalar is such a scalar. Keys and counts, though, are re-randomised and added but not multiplied, and
//! after k hops they are 2^k times what the publishers encrypted. k is public and the same for all records of a message,
//! and the order of the group is odd, so that it changes neither which keys are equal nor which counts are. What a Duchy
//! receives has this k:
//!
//! | phase | worker i | aggregator |
//! |---|---|---|
//! | setup | – | 0 (nothing is doubled on this hop and the next one) |
//! | one | i | n − 1 |
//! | two | n + i | 2·n − 1 |
//! | three | 2·n + i | – (it receives rows) |
//!
//! There are n Duchies, and workers count from i = 0: k is (phase − 1)·n + position in the ring. Whoever adds or compares
//! something of its own to a key or count takes 2^k times it: the aggregator of phase one the keys that mark noise and
//! destroyed registers, everybody the counts of its noise tuples, the last worker of phase three j·U. [`Duchy::factor`] is
//! that 2^k; what a Duchy computes with it is doubled once more as it leaves.

use halo_crypto::group::Scalar;

use super::Duchy;

/// The phases in which registers and tuples go around the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase {
    One,
    Two,
    Three,
}

impl Duchy {
    /// The 2^k by which the keys and counts are multiplied that this Duchy receives in a phase.
    pub(super) fn factor(&self, phase: Phase) -> Scalar {
        power_of_two(phase as usize * self.place.ring.len() + self.place.position)
    }
}

fn power_of_two(exponent: usize) -> Scalar {
    (0..exponent).fold(Scalar::from(1), |power, _| power + power)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_of_two() {
        for exponent in [0, 1, 5, 63] {
            assert_eq!(power_of_two(exponent), Scalar::from(1 << exponent));
        }
        assert_eq!(power_of_two(70), Scalar::from(1 << 40) * Scalar::from(1 << 30));
    }
}
