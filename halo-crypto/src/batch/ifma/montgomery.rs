//! One multiple of a variable base: the x-only ladder of the Montgomery form, which needs no table and selects no more than
//! the operand of a doubling.
//!
//! Curve25519 is v² = u³ + 486662·u² + u with u = (1 + y)/(1 − y) and v = √(−486664)·u/x. A step takes the u-coordinates of
//! kP and (k + 1)P to those of twice one of them and of their sum, in 5 products and 4 squares for a bit of the scalar
//! (Montgomery 1987; Bernstein, "Curve25519", 2006); at the end v comes back from both (Okeya and Sakurai 2001). Sums of
//! several multiples share their doublings in `ladder`, and several multiples of one base in `rows`.
//!
//! Constant time: the number of steps is fixed, and bits only reach test instructions, whose masks blend. Exceptional points
//! and scalars are lanes of masks, too.

use std::arch::x86_64::{
    __mmask8, _mm512_or_si512, _mm512_set1_epi64, _mm512_sllv_epi64, _mm512_srli_epi64, _mm512_test_epi64_mask,
    _mm512_xor_si512,
};

use zeroize::Zeroize;

use super::{
    LANES,
    coding::invert,
    field::Fe,
    lanes::{Words, load, store},
    point::{Completed, Extended},
};
use crate::group::Scalar;

/// Bits of a scalar below ℓ.
const BITS: usize = 253;
/// The curve's A.
const A: u64 = 486_662;
/// (A + 2)/4.
const A24: u64 = (A + 2) / 4;

/// Where a bit of each of eight scalars modulo ℓ differs from the next higher one, and the lowest bits. Wiped when dropped.
pub(super) struct Steps {
    changes: [[u64; LANES]; 4],
    odd: __mmask8,
}

impl Steps {
    const BLANK: Self = Self { changes: [[0; LANES]; 4], odd: 0 };

    /// Of as many scalars as there are, eight by eight. Each is recoded in its place: nothing of it stays elsewhere.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn of<'a>(eights: impl ExactSizeIterator<Item = &'a [Scalar]>) -> Vec<Self> {
        let mut all: Vec<Self> = std::iter::repeat_with(|| Self::BLANK).take(eights.len()).collect();
        for (steps, eight) in all.iter_mut().zip(eights) {
            steps.recode(&Words::of_each(eight));
        }
        all
    }

    /// Of one scalar for all lanes.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn of_one(scalar: &Scalar) -> Vec<Self> {
        let mut all = vec![Self::BLANK];
        for steps in &mut all {
            steps.recode(&Words::of_one(scalar));
        }
        all
    }

    /// Recodes scalars below ℓ.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn recode(&mut self, scalars: &Words) {
        for (number, change) in self.changes.iter_mut().enumerate() {
            let word = scalars.0[number];
            let mut higher = _mm512_srli_epi64::<1>(word);
            if let Some(next) = scalars.0.get(number + 1) {
                higher = _mm512_or_si512(higher, _mm512_sllv_epi64(*next, _mm512_set1_epi64(63)));
            }
            *change = store(_mm512_xor_si512(word, higher));
        }
        self.odd = _mm512_test_epi64_mask(scalars.0[0], _mm512_set1_epi64(1));
    }

    /// Lanes in which the bit at a position is another than the one above it.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn change(&self, position: usize) -> __mmask8 {
        _mm512_test_epi64_mask(load(&self.changes[position / 64]), _mm512_set1_epi64(1 << (position % 64)))
    }
}

impl Drop for Steps {
    fn drop(&mut self) {
        self.changes.zeroize();
        self.odd.zeroize();
    }
}

/// u = (plus + minus)/(plus − minus), the sum and the difference of a numerator and a denominator.
#[derive(Clone, Copy)]
struct Projective {
    plus: Fe,
    minus: Fe,
}

impl Projective {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn or_where(&self, lanes: __mmask8, other: &Self) -> Self {
        Self { plus: self.plus.or_where(lanes, other.plus), minus: self.minus.or_where(lanes, other.minus) }
    }

    /// Numerator and denominator; the latter is 0 for the point at infinity.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn fraction(&self) -> (Fe, Fe) {
        (self.plus.plus(self.minus), self.plus.minus(self.minus))
    }
}

/// u(kP) and u((k + 1)P) for the scalars k.
///
/// A step doubles what was doubled last, or, where a bit is another than the one before it, the sum; and adds both. With
/// A = X + Z, B = X − Z of the one and C, D of the other, E = A² − B² and a = (486662 + 2)/4, the double is A²·B² :
/// E·(B² + a·E) and the sum (BC + AD)² : u·(BC − AD)², of which the next step needs sums and differences only, so those are
/// what is carried. The order was found as that of the ladder's addition was.
///
/// Bounds: products are below 2^59.7, those with 2^9·p in them below 2^60.9.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn climb(steps: &Steps, u: Fe) -> [Projective; 2] {
    // The point at infinity, 1 : 0, and P.
    let mut doubled = Projective { plus: Fe::one(), minus: Fe::one() };
    let mut sum = Projective { plus: u.plus(Fe::one()), minus: u.minus(Fe::one()) };
    for position in (0..BITS).rev() {
        let change = steps.change(position);
        let ad = doubled.plus.times(sum.minus).hold();
        let aa = doubled.plus.or_where(change, sum.plus).biased_squared();
        let bb = doubled.minus.or_where(change, sum.minus).squared();
        let e = aa.less(bb).carry();
        let scaled = bb.plus(e.small_multiple(A24)).carry().hold();
        let bc = doubled.minus.biased_times(sum.plus);
        let cross = bc.less(ad).carry().hold();
        let cross = cross.square();
        let doubled_z = e.times(scaled).hold();
        let straight = bc.plus(ad).carry();
        let bb = bb.carry().hold();
        let sum_x = straight.biased_squared().hold();
        let sum_z = u.times(cross);
        let doubled_x = aa.carry().biased_times(bb);
        doubled.plus = doubled_x.plus(doubled_z).carry().hold();
        doubled.minus = doubled_x.less(doubled_z).carry().hold();
        sum.plus = sum_x.plus(sum_z).carry();
        sum.minus = sum_x.less(sum_z).carry();
    }
    // The last bit says which of both is kP.
    [doubled.or_where(steps.odd, &sum), sum.or_where(steps.odd, &doubled)]
}

/// What there is one of for all, or one for each.
pub(super) fn one_of<T>(all: &[T], number: usize) -> &T {
    if all.len() == 1 { &all[0] } else { &all[number] }
}

/// The scalars, one for all or one for each, times the points; one inversion serves all of them.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn multiply(scalars: &[Steps], points: &[Extended]) -> Vec<Extended> {
    // 1/(Z − Y) of all by Montgomery's trick; 1 in the place of 0.
    let mut waiting = Vec::with_capacity(points.len());
    let mut product = Fe::one();
    for point in points {
        let difference = point.z.minus(point.y);
        let divisor = difference.or_where(difference.is_zero(), Fe::one());
        waiting.push((divisor, product));
        product = product.mul(divisor);
    }
    let mut inverse = invert(product);
    let mut products = points.to_vec();
    for (number, (product, (divisor, before))) in products.iter_mut().zip(waiting).enumerate().rev() {
        let u = product.z.plus(product.y).mul(inverse.mul(before));
        inverse = inverse.mul(divisor);
        *product = multiple(product, u, climb(one_of(scalars, number), u));
    }
    products
}

/// kP from P, u(P), u(kP) and u((k + 1)P).
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn multiple(point: &Extended, u: Fe, [multiple, next]: [Projective; 2]) -> Extended {
    let ((x, z), (next_x, next_z)) = (multiple.fraction(), next.fraction());
    // 2·v(P)·v(kP) is (u·x + 1)·(x + u + 2A) − 2A − (x − u)²·next, here with all denominators multiplied out.
    let uz = u.mul(z);
    let twice_az = z.small_multiple(2 * A).carry();
    let chord = x.minus(uz).square().mul(next_x);
    let slope = x.plus(uz).plus(twice_az).mul(u.mul(x).plus(z));
    let v = slope.minus(twice_az.mul(z)).mul(next_z).minus(chord);
    // Back with x = √(−486664)·u/v and y = (u − 1)/(u + 1); v(P) is √(−486664)·u(P)·Z/X, so the root is squared away.
    let xz = x.mul(z);
    let scale = u.mul(point.z).mul(next_z).small_multiple(2 * (A + 2)).carry();
    let found = Completed { e: Fe::zero().minus(scale.mul(xz)), f: x.plus(z), g: v.mul(point.x), h: x.minus(z) };
    // Where (k + 1)P is the point at infinity, kP is −P, which u does not tell from P. Where P or kP has order 1 or 2, kP is
    // a representative of the identity.
    let opposite = next_z.is_zero();
    let identity = point.x.is_zero() | xz.is_zero();
    let minus_point = Completed { e: Fe::zero().minus(point.x), f: point.z, g: point.z, h: point.y };
    found.or_where(opposite, &minus_point).or_where(identity, &Completed::identity()).extended()
}
