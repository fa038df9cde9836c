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

/// What selects a multiple in each lane. Entries are selected field by field, next to the product that needs the field, so
/// that loads and blends fill the gaps that multiplications leave.
struct Choice {
    /// The lanes that want each of the entries; those that want none get the identity, (1, 1, 2, 0).
    entries: [__mmask8; 8],
    /// The lanes that want the negative.
    negative: __mmask8,
}

impl Choice {
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(digit: __m512i) -> Self {
        let magnitude = _mm512_abs_epi64(digit);
        let mut entries = [0; 8];
        for (number, entry) in entries.iter_mut().enumerate() {
            *entry = _mm512_cmpeq_epi64_mask(magnitude, _mm512_set1_epi64(number as i64 + 1));
        }
        Self { entries, negative: _mm512_movepi64_mask(digit) }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn sums(&self, table: &Table) -> [Fe; 2] {
        let (mut plus, mut minus) = (Fe::one(), Fe::one());
        for n in 0..8 {
            plus = plus.or_where(self.entries[n], table.0[n].plus);
        }
        for n in 0..8 {
            minus = minus.or_where(self.entries[n], table.0[n].minus);
        }
        [plus.or_where(self.negative, minus), minus.or_where(self.negative, plus)]
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn twice_z(&self, table: &Table) -> Fe {
        let mut twice_z = constant([2, 0, 0, 0, 0]);
        for n in 0..8 {
            twice_z = twice_z.or_where(self.entries[n], table.0[n].twice_z);
        }
        twice_z
    }

    /// With limbs up to 2^52.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn twice_dt(&self, table: &Table) -> Fe {
        let mut twice_dt = Fe::zero();
        for n in 0..8 {
            twice_dt = twice_dt.or_where(self.entries[n], table.0[n].twice_dt);
        }
        twice_dt.minus_where(self.negative)
    }
}

/// Adds the multiple that each lane's digit asks for.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add_chosen(sum: &mut Completed, table: &Table, digit: __m512i) {
    let choice = Choice::new(digit);
    let c = sum.t().times(choice.twice_dt(table));
    let d = sum.z().times(choice.twice_z(table));
    let [plus, minus] = sum.sums();
    let [other_plus, other_minus] = choice.sums(table);
    *sum = Completed::of(minus.times(other_minus), plus.times(other_plus), c, d);
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
