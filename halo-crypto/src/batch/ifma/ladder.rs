//! Variable-base multiplication: signed radix 16 on one doubling chain.
//!
//! Constant time: the number of steps is fixed, every step reads the whole table, and digits only reach compare
//! instructions, whose masks blend. A scalar that all lanes share and scalars of each lane's own take the same path.

use std::arch::x86_64::{__m512i, _mm512_abs_epi64, _mm512_cmpeq_epi64_mask, _mm512_movepi64_mask, _mm512_set1_epi64};

use super::{
    field::{Fe, constant},
    point::{Augend, Cached, Completed, Extended, Projective},
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
        let mut multiple = base.augend();
        let first = multiple.cached();
        let mut table = [first; 8];
        let mut sum = Completed::identity();
        for entry in &mut table[1..] {
            multiple.add_into(&first, &mut sum);
            sum.augend_into(&mut multiple);
            *entry = multiple.cached();
        }
        Self(table)
    }

    /// The multiple that each lane's digit asks for. All entries are read.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn select_into(&self, digit: __m512i, chosen: &mut Cached) {
        let magnitude = _mm512_abs_epi64(digit);
        let mut here = [0; 8];
        for (entry, here) in here.iter_mut().enumerate() {
            *here = _mm512_cmpeq_epi64_mask(magnitude, _mm512_set1_epi64(entry as i64 + 1));
        }
        let negative = _mm512_movepi64_mask(digit);
        // Field by field, so that what is being selected stays in registers. Digit 0 is the identity, (1, 1, 2, 0).
        let mut plus = Fe::one();
        for entry in 0..8 {
            plus = plus.or_where(here[entry], self.0[entry].plus);
        }
        let mut minus = Fe::one();
        for entry in 0..8 {
            minus = minus.or_where(here[entry], self.0[entry].minus);
        }
        chosen.plus = plus.or_where(negative, minus);
        chosen.minus = minus.or_where(negative, plus);
        let mut twice_z = constant([2, 0, 0, 0, 0]);
        for entry in 0..8 {
            twice_z = twice_z.or_where(here[entry], self.0[entry].twice_z);
        }
        chosen.twice_z = twice_z;
        let mut twice_dt = Fe::zero();
        for entry in 0..8 {
            twice_dt = twice_dt.or_where(here[entry], self.0[entry].twice_dt);
        }
        chosen.twice_dt = twice_dt.minus_where(negative);
    }
}

/// The sum of scalars times points, term by term.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn sum_of<const TERMS: usize>(terms: [(&Digits, &Table); TERMS]) -> Extended {
    let mut sum = Completed::identity();
    let (mut point, mut augend, mut chosen) = (Projective::identity(), Augend::identity(), Cached::identity());
    for position in (0..DIGITS).rev() {
        if position != DIGITS - 1 {
            for _ in 0..4 {
                sum.projective_into(&mut point);
                point.double_into(&mut sum);
            }
        }
        for (digits, table) in terms {
            sum.augend_into(&mut augend);
            table.select_into(digits.at(position), &mut chosen);
            augend.add_into(&chosen, &mut sum);
        }
    }
    sum.extended()
}
