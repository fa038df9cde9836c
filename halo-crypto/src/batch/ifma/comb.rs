//! Fixed-base multiplication from a table: signed radix 64, no doublings.
//!
//! For each of the 43 digits' positions the table holds the multiples 1 to 32 of 64^position times the base. The multiples
//! of one limb stand side by side in four registers, so a lane's digit picks its multiple with permutations inside of
//! registers.
//!
//! Constant time: every position is read whole, in order, and digits only reach compare and permute instructions, whose
//! time does not depend on their operands.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_abs_epi64, _mm512_mask_blend_epi64, _mm512_mask_set1_epi64,
    _mm512_maskz_permutex2var_epi64, _mm512_movepi64_mask, _mm512_set1_epi64, _mm512_sub_epi64, _mm512_test_epi64_mask,
};

use super::{
    LANES,
    coding::invert,
    field::{Fe, constant},
    lanes::{gather, load, padded, scatter, store},
    point::{Affine, Augend, Completed, Extended, TWICE_D},
    recode,
};
use crate::group::coordinates::Coordinates;

/// Digits of a scalar in radix 64.
const DIGITS: usize = 43;
/// Multiples for each position.
const MULTIPLES: usize = 32;

/// The digits −31 to 32 of eight scalars.
pub(super) type Digits = recode::Digits<6, DIGITS>;

/// One limb of the multiples 1 to 32.
#[derive(Clone, Copy)]
#[repr(C, align(64))]
struct Limb([[u64; 8]; MULTIPLES / 8]);

/// The limbs of Y + X, Y − X and 2d·XY of the affine multiples.
type Position = [[Limb; 5]; 3];

/// The table of a base: 161 KiB.
pub(crate) struct Comb(Vec<Position>);

impl Comb {
    /// Computes the table, eight positions at a time. In time that does not depend on the base.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(base: &Coordinates) -> Self {
        // 64^position times the base.
        let mut power = gather(&[*base; LANES]);
        let mut powers = Vec::with_capacity(DIGITS);
        for _ in 0..DIGITS {
            powers.push(scatter(&power)[0]);
            let mut sum = Completed::identity();
            let mut point = power.projective();
            for _ in 0..6 {
                point.double_into(&mut sum);
                sum.projective_into(&mut point);
            }
            power = sum.extended();
        }
        let mut positions = vec![[[Limb([[0; 8]; MULTIPLES / 8]); 5]; 3]; DIGITS];
        for (positions, powers) in positions.chunks_mut(8).zip(powers.chunks(8)) {
            let multiples = affine_multiples(&gather(&padded(powers)));
            for (multiple, entry) in multiples.iter().enumerate() {
                for (field, value) in [entry.plus, entry.minus, entry.twice_dxy].iter().enumerate() {
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

    /// The scalars times the base.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn multiply(&self, digits: &Digits) -> Extended {
        let (mut sum, mut augend) = (Completed::identity(), Augend::identity());
        for (number, position) in self.0.iter().enumerate() {
            if number != 0 {
                sum.augend_into(&mut augend);
            }
            augend.add_affine_into(&select(position, digits.at(number)), &mut sum);
        }
        sum.extended()
    }
}

/// The multiple that each lane's digit asks for.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn select(position: &Position, digit: __m512i) -> Affine {
    let magnitude = _mm512_abs_epi64(digit);
    let some = _mm512_test_epi64_mask(magnitude, magnitude);
    let index = _mm512_sub_epi64(magnitude, _mm512_set1_epi64(1));
    let upper = some & _mm512_test_epi64_mask(index, _mm512_set1_epi64(16));
    let mut plus = select_field(&position[0], index, some, upper);
    let mut minus = select_field(&position[1], index, some, upper);
    let twice_dxy = select_field(&position[2], index, some, upper);
    // Digit 0 is the identity, (1, 1, 0).
    plus.0[0] = _mm512_mask_set1_epi64(plus.0[0], !some, 1);
    minus.0[0] = _mm512_mask_set1_epi64(minus.0[0], !some, 1);
    Affine { plus, minus, twice_dxy }.minus_where(_mm512_movepi64_mask(digit))
}

/// The entries of 32 that the lanes' indexes ask for; zero in the lanes that are not in `some`.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn select_field(limbs: &[Limb; 5], index: __m512i, some: __mmask8, upper: __mmask8) -> Fe {
    let mut chosen = Fe::zero();
    for k in 0..5 {
        let [a, b, c, d] = &limbs[k].0;
        // The permutation reads the index's lowest four bits.
        let low = _mm512_maskz_permutex2var_epi64(some, load(a), index, load(b));
        let high = _mm512_maskz_permutex2var_epi64(some, load(c), index, load(d));
        chosen.0[k] = _mm512_mask_blend_epi64(upper, low, high);
    }
    chosen
}

/// The multiples 1 to 32 with Z = 1, canonical; one inversion for all (Montgomery's trick).
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn affine_multiples(base: &Extended) -> Vec<Affine> {
    let mut multiples = Vec::with_capacity(MULTIPLES);
    let mut products = Vec::with_capacity(MULTIPLES);
    let (mut multiple, mut product) = (Extended::identity(), Fe::one());
    for _ in 0..MULTIPLES {
        multiple = multiple.add(base);
        multiples.push(multiple);
        products.push(product);
        product = product.mul(multiple.z);
    }
    let mut inverse = invert(product);
    let mut affine = Vec::with_capacity(MULTIPLES);
    for (multiple, product) in multiples.iter().zip(&products).rev() {
        let z_inverse = inverse.mul(*product);
        inverse = inverse.mul(multiple.z);
        let (x, y) = (multiple.x.mul(z_inverse), multiple.y.mul(z_inverse));
        affine.push(Affine {
            plus: y.plus(x).canonical(),
            minus: y.minus(x).canonical(),
            twice_dxy: x.mul(y).mul(constant(TWICE_D)).canonical(),
        });
    }
    affine.reverse();
    affine
}
