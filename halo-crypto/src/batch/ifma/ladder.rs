//! Variable-base multiplication: odd digits in radix 16 on one doubling chain.
//!
//! Constant time: the number of steps is fixed, every step reads the whole table, and digits only reach test
//! instructions, whose masks blend. A scalar that all lanes share and scalars of each lane's own take the same path.

use std::arch::x86_64::__mmask8;

use super::{
    field::Fe,
    point::{Cached, Completed, Extended},
    recode::{self, Digit},
};

/// Digits of a scalar in radix 16.
const DIGITS: usize = 64;

/// The odd digits −15 to 15 of eight scalars.
pub(super) type Digits = recode::Digits<4, DIGITS>;

/// The odd multiples 1 to 15 of eight points.
pub(super) struct Table([Cached; 8]);

impl Table {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(base: &Extended) -> Self {
        let mut twice = base.completed();
        twice.double(1);
        let twice = twice.extended();
        let first = base.cached();
        let mut table = [first; 8];
        let mut multiple = first;
        for entry in &mut table[1..] {
            multiple = multiple.add(&twice).cached();
            *entry = multiple;
        }
        Self(table)
    }

    /// One field of the entry that each lane asks for, which a tree of blends finds by the bits of its place.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn choose(&self, [bit0, bit1, bit2]: [__mmask8; 3], field: impl Fn(&Cached) -> Fe) -> Fe {
        let [a, b, c, d, e, f, g, h] = &self.0;
        let pair = |a, b| field(a).or_where(bit0, field(b));
        let low = pair(a, b).or_where(bit1, pair(c, d));
        let high = pair(e, f).or_where(bit1, pair(g, h));
        low.or_where(bit2, high)
    }
}

/// Adds the multiple that each lane's digit asks for.
///
/// All entries are read, a field at a time and before the product that needs it, so that loads and blends fill the gaps that
/// multiplications leave. The order, and what is held, was found by trying some thousand of them on Zen 4: six in a hundred
/// faster than one that a reader would write. Bounds: see [`Cached::add`].
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn add_chosen(sum: &mut Completed, table: &Table, digit: Digit) {
    let places = [digit.bit(0), digit.bit(1), digit.bit(2)];
    let negative = digit.negative;
    let z = sum.z().hold();
    let t = sum.t().hold();
    let twice_z = table.choose(places, |entry| entry.twice_z);
    let x = sum.e.times(sum.f);
    let twice_dt = table.choose(places, |entry| entry.twice_dt).minus_where(negative).hold();
    let y = sum.g.biased_times(sum.h);
    let c = t.times(twice_dt);
    let d = z.biased_times(twice_z).hold();
    let plus = y.plus(x).carry();
    let other_minus = table.choose(places, |entry| entry.minus).hold();
    let minus = y.less(x).carry();
    sum.f = d.less(c).carry();
    sum.g = d.plus(c).carry().hold();
    let other_plus = table.choose(places, |entry| entry.plus).hold();
    let chosen_plus = other_plus.or_where(negative, other_minus);
    let chosen_minus = other_minus.or_where(negative, other_plus).hold();
    let a = minus.times(chosen_minus).hold();
    let b = plus.biased_times(chosen_plus).hold();
    sum.e = b.less(a).carry().hold();
    sum.h = b.plus(a).carry().hold();
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
