//! Encodings of doubled points: one inversion for many of them, instead of an inverse square root for each.
//!
//! Doubling is an isogeny to the Jacobi quartic, on which encodings are defined, and its dual back: between the two, the
//! encoding of the double is at hand but for a division (Hamburg, "Decaf: Eliminating cofactors through point compression",
//! 2015). Who sends the double of what was computed pays a third.
//!
//! No branches, as in `coding`.

use std::arch::x86_64::__mmask8;

use super::{
    LANES,
    coding::{INVSQRT_A_MINUS_D, SQRT_M1, invert},
    field::{Fe, constant, to_words},
    lanes::Words,
    point::{D, Extended},
};
use crate::group::ELEMENT_BYTES;

/// The canonical encodings of twice the points.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn encode_doubled(points: &[Extended]) -> Vec<[[u8; ELEMENT_BYTES]; LANES]> {
    let mut waiting = Vec::with_capacity(points.len());
    let mut product = Fe::one();
    for point in points {
        let half = Half::new(point);
        let before = product;
        product = product.mul(half.divisor);
        waiting.push((half, before));
    }
    // The inverse of the product of all, and from the last to the first that of each (Montgomery's trick).
    let mut inverse = invert(product);
    let mut encoded = Vec::with_capacity(points.len());
    for (half, before) in waiting.iter().rev() {
        encoded.push(half.finish(inverse.mul(*before)).to_bytes());
        inverse = inverse.mul(half.divisor);
    }
    encoded.reverse();
    encoded
}

/// A point on its way to the encoding of its double, which waits for 1/(e·f·g·h).
struct Half {
    /// 2XY.
    e: Fe,
    /// Z² + d·T².
    f: Fe,
    /// Y² + X².
    g: Fe,
    /// Z² − d·T².
    h: Fe,
    eg: Fe,
    fh: Fe,
    /// e·f·g·h, and 1 in the lanes of `zero`.
    divisor: Fe,
    /// Where e·f·g·h is 0, and the double is the identity.
    zero: __mmask8,
}

impl Half {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(point: &Extended) -> Self {
        let Extended { x, y, z, t } = *point;
        let (zz, dtt) = (z.square(), constant(D).mul(t.square()));
        let e = x.mul(y.plus(y));
        let (f, g, h) = (zz.plus(dtt), y.square().plus(x.square()), zz.minus(dtt));
        let (eg, fh) = (e.mul(g), f.mul(h));
        let product = eg.mul(fh);
        let zero = product.is_zero();
        Self { e, f, g, h, eg, fh, divisor: product.or_where(zero, Fe::one()), zero }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn finish(&self, inverse: Fe) -> Words {
        let i = constant(SQRT_M1);
        // With 0 for 1/0, s is 0: the encoding of the identity.
        let inverse = inverse.or_where(self.zero, Fe::zero());
        let z_inverse = self.eg.mul(inverse);
        let t_inverse = self.fh.mul(inverse);
        let rotate = self.eg.mul(z_inverse).is_negative();
        let e = self.e.or_where(rotate, self.g);
        let g = self.g.or_where(rotate, Fe::zero().minus(self.e));
        let h = self.h.or_where(rotate, self.f.mul(i));
        let factor = constant(INVSQRT_A_MINUS_D).or_where(rotate, i);
        let negative = h.mul(e).mul(z_inverse).is_negative();
        let g = Fe::zero().minus(g).or_where(!negative, g);
        let s = h.minus(g).mul(factor.mul(g.mul(t_inverse)));
        Words(to_words(s.absolute()))
    }
}
