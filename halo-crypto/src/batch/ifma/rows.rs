//! Several multiples of one base: the doublings and the tables are made once.
//!
//! The digits of a scalar in radix 16 fall into blocks of eight. Each block has a table of its own, of multiples of
//! 16^(8·block) times the base, so that one chain of 28 doublings serves all blocks. A table costs as much as a whole
//! multiplication; each scalar after that, a third of one.
//!
//! Constant time: as `ladder`. The number of steps is fixed, every step reads its whole table, and digits only reach
//! compare instructions, whose masks blend.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm_cvtsi64_si128, _mm512_abs_epi64, _mm512_cmpeq_epi64_mask, _mm512_cvtepi8_epi64,
    _mm512_movepi64_mask, _mm512_set1_epi64,
};

use zeroize::Zeroize;

use super::{
    LANES,
    comb::{self, Comb},
    field::{Fe, constant},
    lanes::{Eight, Words, gather, scatter},
    point::{Cached, Completed, Extended},
};
use crate::group::Scalar;

/// Tables of a base.
const BLOCKS: usize = 8;
/// Digits of a scalar that share a table.
const STEPS: usize = 8;
/// Entries of a table: the multiples 1 to 8.
const MULTIPLES: usize = 8;

/// Digits in radix 16 from −8 to 8 of at most eight scalars, the least significant first: one byte a lane. Wiped when
/// dropped.
pub(super) struct Digits([[i8; LANES]; BLOCKS * STEPS]);

impl Digits {
    /// Of at most eight scalars; further lanes are zero.
    pub(super) fn new<'a>(scalars: impl Iterator<Item = &'a Scalar>) -> Self {
        let mut digits = [[0; LANES]; BLOCKS * STEPS];
        for (lane, scalar) in scalars.take(LANES).enumerate() {
            let mut carry = 0;
            for (pair, byte) in digits.as_chunks_mut::<2>().0.iter_mut().zip(scalar.0.as_bytes()) {
                for (digit, raw) in pair.iter_mut().zip([byte & 15, byte >> 4]) {
                    let raw = raw.cast_signed() + carry;
                    carry = (raw + 8) >> 4;
                    digit[lane] = raw - (carry << 4);
                }
            }
        }
        Self(digits)
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn at(&self, position: usize) -> __m512i {
        let bytes = self.0[position].map(i8::cast_unsigned);
        _mm512_cvtepi8_epi64(_mm_cvtsi64_si128(i64::from_le_bytes(bytes)))
    }
}

impl Drop for Digits {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// All scalars times the bases, each of its own lane.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn multiply(scalars: &[Digits], bases: &Eight) -> Vec<Eight> {
    let tables = tables(&gather(bases));
    let mut sums = vec![Completed::identity(); scalars.len()];
    for step in (0..STEPS).rev() {
        if step != STEPS - 1 {
            for sum in &mut sums {
                sum.double(4);
            }
        }
        for (block, table) in tables.iter().enumerate() {
            for (sum, digits) in sums.iter_mut().zip(scalars) {
                add_chosen(sum, table, digits.at(block * STEPS + step));
            }
        }
    }
    let mut products = Vec::with_capacity(sums.len());
    for sum in &sums {
        products.push(scatter(&sum.extended()));
    }
    products
}

/// The points and scalars times the base of the comb.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn add_multiples(comb: &Comb, scalars: &[Scalar], points: &Eight) -> Eight {
    scatter(&gather(points).add(&comb.multiply(&comb::Digits::new(&Words::of_each(scalars)))))
}

/// The multiples 1 to 8 of 16^(8·block) times the base, block by block: 80 KiB, of which 10 KiB are in use at a time.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn tables(base: &Extended) -> Vec<[Cached; MULTIPLES]> {
    let mut tables = Vec::with_capacity(BLOCKS);
    let mut power = *base;
    for block in 0..BLOCKS {
        if block > 0 {
            let mut completed = power.completed();
            completed.double(4 * STEPS as u32);
            power = completed.extended();
        }
        let first = power.cached();
        let mut table = [first; MULTIPLES];
        let mut multiple = power;
        for entry in &mut table[1..] {
            multiple = multiple.add_cached(&first);
            *entry = multiple.cached();
        }
        tables.push(table);
    }
    tables
}

/// Adds the multiple that each lane's digit asks for.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add_chosen(sum: &mut Completed, table: &[Cached; MULTIPLES], digit: __m512i) {
    let magnitude = _mm512_abs_epi64(digit);
    let negative = _mm512_movepi64_mask(digit);
    // Digit 0 is the identity, (1, 1, 2, 0).
    let (mut twice_z, mut twice_dt) = (constant([2, 0, 0, 0, 0]), Fe::zero());
    for (number, entry) in table.iter().enumerate() {
        let here = wants(magnitude, number);
        twice_dt = twice_dt.or_where(here, entry.twice_dt);
        twice_z = twice_z.or_where(here, entry.twice_z);
    }
    let c = sum.t().times(twice_dt.minus_where(negative));
    let d = sum.z().times(twice_z);
    let [plus, minus] = sum.sums();
    let (mut other_plus, mut other_minus) = (Fe::one(), Fe::one());
    for (number, entry) in table.iter().enumerate() {
        let here = wants(magnitude, number);
        other_plus = other_plus.or_where(here, entry.plus);
        other_minus = other_minus.or_where(here, entry.minus);
    }
    let a = minus.times(other_minus.or_where(negative, other_plus));
    let b = plus.times(other_plus.or_where(negative, other_minus));
    *sum = Completed::of(a, b, c, d);
}

/// The lanes whose digit is, up to its sign, the number of this entry.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn wants(magnitude: __m512i, entry: usize) -> __mmask8 {
    _mm512_cmpeq_epi64_mask(magnitude, _mm512_set1_epi64(entry as i64 + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_add_up_and_stay_in_range() {
        let edges = [Scalar::from(0), Scalar::from(8), -Scalar::from(1), Scalar::from_wide(&[0xff; 64])];
        let repeated = (0..=u8::MAX).map(|byte| Scalar::from_wide(&[byte; 64]));
        for scalar in edges.into_iter().chain(repeated) {
            let digits = Digits::new([Scalar::from(1), scalar].iter());
            let mut sum = Scalar::from(0);
            for digit in digits.0.iter().rev().map(|digits| digits[1]) {
                assert!(digit.unsigned_abs() <= 8, "digit {digit}");
                let magnitude = Scalar::from(u64::from(digit.unsigned_abs()));
                sum = sum * Scalar::from(16) + if digit < 0 { -magnitude } else { magnitude };
            }
            assert!(sum == scalar, "scalar {:x?}", scalar.to_bytes());
        }
    }
}
