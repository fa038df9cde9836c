//! Fixed-base multiplication from a table: odd digits in radix 128, no doublings.
//!
//! For each of the 37 digits' positions the table holds the odd multiples 1 to 127 of 128^position times the base. The multiples
//! of one limb stand side by side in eight registers, so a lane's digit picks its multiple with permutations inside of
//! registers.
//!
//! Constant time: every position is read whole, in order, and digits only reach compare and permute instructions, whose
//! time does not depend on their operands.

use std::arch::x86_64::{__m512i, __mmask8, _mm512_mask_blend_epi64, _mm512_permutex2var_epi64};

use super::{
    coding::invert,
    field::{Fe, constant},
    lanes::{Eight, gather, load, scatter, store},
    point::{Completed, Extended, TWICE_D},
    recode::{self, Digit},
};
use crate::group::coordinates::Coordinates;

/// Digits of a scalar in radix 128.
const DIGITS: usize = 37;
/// Multiples for each position.
const MULTIPLES: usize = 64;

/// The odd digits −127 to 127 of eight scalars.
pub(super) type Digits = recode::Digits<7, DIGITS>;

/// One limb of the odd multiples 1 to 127.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Limb([[u64; 8]; MULTIPLES / 8]);

/// The limbs of Y + X, Y − X and 2d·XY of the affine multiples.
type Position = [[Limb; 5]; 3];

/// The table of a base: 278 KiB.
pub(crate) struct Comb(Vec<Position>);

impl Comb {
    /// Computes the table, eight positions at a time. In time that does not depend on the base.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(base: &Coordinates) -> Self {
        // 128^position times the base.
        let mut power = gather(&Eight::new(std::iter::once(base))).completed();
        let mut powers = Vec::with_capacity(DIGITS);
        for _ in 0..DIGITS {
            powers.push(scatter(&power.extended()).get(0));
            power.double(7);
        }
        let mut positions = vec![[[Limb([[0; 8]; MULTIPLES / 8]); 5]; 3]; DIGITS];
        for (positions, powers) in positions.chunks_mut(8).zip(powers.chunks(8)) {
            let multiples = affine_multiples(&gather(&Eight::new(powers.iter())));
            for (multiple, fields) in multiples.iter().enumerate() {
                for (field, value) in fields.iter().enumerate() {
                    for (limb, register) in value.0.iter().enumerate() {
                        for (position, lane) in positions.iter_mut().zip(store(*register)) {
                            position[field][limb].0[multiple / 8][multiple % 8] = lane;
                        }
                    }
                }
            }
        }
        Self(positions)
    }

    /// Adds the scalars times the base. Position by position: of the table only 8 KiB are in use at a time, and an addition
    /// does not wait for the one right before it, which is another sum's.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add_multiples(&self, digits: &[Digits], mut sums: Vec<Completed>) -> Vec<Completed> {
        for (number, position) in self.0.iter().enumerate() {
            for (digits, sum) in digits.iter().zip(&mut sums) {
                add_chosen(sum, position, digits.at(number));
            }
        }
        sums
    }
}

/// Adds the multiple that each lane's digit asks for. Fields are selected before the products that need them, so that loads
/// and permutations fill the gaps that multiplications leave; the order was found as that of the ladder's addition was.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn add_chosen(sum: &mut Completed, position: &Position, digit: Digit) {
    let (places, upper, negative) = (digit.places, [digit.bit(4), digit.bit(5)], digit.negative);
    let z = sum.f.biased_times(sum.g).doubled().hold();
    let x = sum.e.times(sum.f);
    let twice_dxy = select(&position[2], places, upper).minus_where(negative).hold();
    let t = sum.t().hold();
    let other_plus = select(&position[0], places, upper).hold();
    let y = sum.g.biased_times(sum.h).hold();
    let minus = y.less(x).carry().hold();
    let other_minus = select(&position[1], places, upper);
    let chosen_plus = other_plus.or_where(negative, other_minus).hold();
    let c = t.times(twice_dxy);
    let chosen_minus = other_minus.or_where(negative, other_plus);
    let plus = y.plus(x).carry().hold();
    let a = minus.times(chosen_minus).hold();
    let b = plus.biased_times(chosen_plus);
    sum.f = z.less(c).carry();
    sum.g = z.plus(c).carry();
    sum.h = b.plus(a).carry().hold();
    sum.e = b.less(a).carry();
}

/// The entries of 64 that the lanes' places ask for.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn select(limbs: &[Limb; 5], places: __m512i, upper: [__mmask8; 2]) -> Fe {
    let mut chosen = Fe::zero();
    for (chosen, Limb(entries)) in chosen.0.iter_mut().zip(limbs) {
        let [a, b, c, d, e, f, g, h] = entries;
        // The permutation reads the place's lowest four bits.
        let sixteen = |first, second| _mm512_permutex2var_epi64(load(first), places, load(second));
        let low = _mm512_mask_blend_epi64(upper[0], sixteen(a, b), sixteen(c, d));
        let high = _mm512_mask_blend_epi64(upper[0], sixteen(e, f), sixteen(g, h));
        *chosen = _mm512_mask_blend_epi64(upper[1], low, high);
    }
    chosen
}

/// Y + X, Y − X and 2d·XY of the odd multiples 1 to 127 with Z = 1, canonical; one inversion for all (Montgomery's trick).
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn affine_multiples(base: &Extended) -> Vec<[Fe; 3]> {
    let mut multiples = Vec::with_capacity(MULTIPLES);
    let mut products = Vec::with_capacity(MULTIPLES);
    let twice = base.add(base);
    let (mut multiple, mut product) = (*base, Fe::one());
    for _ in 0..MULTIPLES {
        multiples.push(multiple);
        products.push(product);
        product = product.mul(multiple.z);
        multiple = multiple.add(&twice);
    }
    let mut inverse = invert(product);
    let mut affine = Vec::with_capacity(MULTIPLES);
    for (multiple, product) in multiples.iter().zip(&products).rev() {
        let z_inverse = inverse.mul(*product);
        inverse = inverse.mul(multiple.z);
        let (x, y) = (multiple.x.mul(z_inverse), multiple.y.mul(z_inverse));
        let twice_dxy = x.mul(y).mul(constant(TWICE_D));
        affine.push([y.plus(x).canonical(), y.minus(x).canonical(), twice_dxy.canonical()]);
    }
    affine.reverse();
    affine
}
