//! Variable-base multiplication: signed radix 16 on one doubling chain.
//!
//! Constant time: the number of steps is fixed, every step reads the whole table, and digits only reach compare
//! instructions, whose masks blend. A scalar that all lanes share and scalars of each lane's own take the same path.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_abs_epi64, _mm512_cmpeq_epi64_mask, _mm512_movepi64_mask, _mm512_set1_epi64,
};

use super::{
    field::{Fe, constant},
    point::{Cached, Completed, Extended},
    recode,
};

/// Digits of a scalar in radix 16.
const DIGITS: usize = 64;

/// The digits −7 to 8 of eight scalars.
pub(super) type Digits = recode::Digits<4, DIGITS>;

/// The multiples 1 to 8 of eight points.
pub(super) struct Table([Cached; 8]);

impl Table {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(base: &Extended) -> Self {
        let first = base.cached();
        let mut table = [first; 8];
        let mut multiple = *base;
        for entry in &mut table[1..] {
            multiple = multiple.add_cached(&first);
            *entry = multiple.cached();
        }
        Self(table)
    }
}

/// Adds the multiple that each lane's digit asks for. All entries are read, two fields at a time, next to the products that
/// need them, so that loads and blends fill the gaps that multiplications leave.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add_chosen(sum: &mut Completed, table: &Table, digit: __m512i) {
    let magnitude = _mm512_abs_epi64(digit);
    let negative = _mm512_movepi64_mask(digit);
    // Digit 0 is the identity, (1, 1, 2, 0).
    let (mut twice_z, mut twice_dt) = (constant([2, 0, 0, 0, 0]), Fe::zero());
    for (number, entry) in table.0.iter().enumerate() {
        let here = wants(magnitude, number);
        twice_dt = twice_dt.or_where(here, entry.twice_dt);
        twice_z = twice_z.or_where(here, entry.twice_z);
    }
    let c = sum.t().times(twice_dt.minus_where(negative));
    let d = sum.z().times(twice_z);
    let [plus, minus] = sum.sums();
    let (mut other_plus, mut other_minus) = (Fe::one(), Fe::one());
    for (number, entry) in table.0.iter().enumerate() {
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

/// The sum of scalars times points, term by term.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn sum_of<const TERMS: usize>(terms: [(&Digits, &Table); TERMS]) -> Extended {
    let mut sum = Completed::identity();
    for position in (0..DIGITS).rev() {
        if position != DIGITS - 1 {
            sum.double(4);
        }
        for (digits, table) in terms {
            add_chosen(&mut sum, table, digits.at(position));
        }
    }
    sum.extended()
}
