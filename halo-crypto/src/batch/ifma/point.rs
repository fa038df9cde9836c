//! Eight points of the curve −x² + y² = 1 + d·x²·y², one in each lane, in the forms that the formulas pass on.
//!
//! The formulas are those of Hisil, Wong, Carter and Dawson (2008) for a = −1: complete, so there is no special case for
//! the identity or for equal points. A doubling or an addition ends in a [`Completed`] point; which products it is worth
//! multiplying out depends on what comes next, so each next step has its own form.

use std::arch::x86_64::__mmask8;

use super::field::{Fe, Wide, constant};

/// d = −121665/121666.
pub(super) const D: [u64; 5] =
    [0x3_4dca_1359_78a3, 0x1_a828_3b15_6ebd, 0x5_e7a2_6001_c029, 0x7_39c6_63a0_3cbb, 0x5_2036_cee2_b6ff];
/// 2d.
pub(super) const TWICE_D: [u64; 5] =
    [0x6_9b94_26b2_f159, 0x3_5050_762a_dd7a, 0x3_cf44_c003_8052, 0x6_738c_c740_7977, 0x2_406d_9dc5_6dff];

/// x = X/Z, y = Y/Z, xy = T/Z.
#[derive(Clone, Copy)]
pub(super) struct Extended {
    pub(super) x: Fe,
    pub(super) y: Fe,
    pub(super) z: Fe,
    pub(super) t: Fe,
}

/// An extended point without T: what a doubling reads.
#[derive(Clone, Copy)]
pub(super) struct Projective {
    x: Fe,
    y: Fe,
    z: Fe,
}

/// X = E·F, Y = G·H, Z = F·G, T = E·H, still to be multiplied.
#[derive(Clone, Copy)]
pub(super) struct Completed {
    pub(super) e: Fe,
    pub(super) f: Fe,
    pub(super) g: Fe,
    pub(super) h: Fe,
}

/// Y + X, Y − X, Z, T: the side of an addition that has just been computed.
#[derive(Clone, Copy)]
pub(super) struct Augend {
    plus: Fe,
    minus: Fe,
    z: Fe,
    t: Fe,
}

/// Y + X, Y − X, 2Z, 2d·T: the side of an addition that comes from a table. The last may have limbs up to 2^52.
#[derive(Clone, Copy)]
pub(super) struct Cached {
    pub(super) plus: Fe,
    pub(super) minus: Fe,
    pub(super) twice_z: Fe,
    pub(super) twice_dt: Fe,
}

/// A cached point with Z = 1. The last may have limbs up to 2^52.
#[derive(Clone, Copy)]
pub(super) struct Affine {
    pub(super) plus: Fe,
    pub(super) minus: Fe,
    pub(super) twice_dxy: Fe,
}

impl Extended {
    /// The identity in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn identity() -> Self {
        Self { x: Fe::zero(), y: Fe::one(), z: Fe::one(), t: Fe::zero() }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn projective(&self) -> Projective {
        Projective { x: self.x, y: self.y, z: self.z }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn augend(&self) -> Augend {
        Augend { plus: self.y.plus(self.x), minus: self.y.minus(self.x), z: self.z, t: self.t }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn cached(&self) -> Cached {
        self.augend().cached()
    }

    /// The sum.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add(&self, other: &Self) -> Self {
        self.plus_cached(&other.cached())
    }

    /// The difference.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn sub(&self, other: &Self) -> Self {
        self.plus_cached(&other.cached().minus_where(0xff))
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn plus_cached(&self, other: &Cached) -> Self {
        let mut sum = Completed::identity();
        self.augend().add_into(other, &mut sum);
        sum.extended()
    }

    /// Lanes in which both are representatives of the same element of Ristretto255: X1·Y2 = Y1·X2 or X1·X2 = Y1·Y2.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn equals(&self, other: &Self) -> __mmask8 {
        let straight = self.x.mul(other.y).equals(self.y.mul(other.x));
        let crossed = self.x.mul(other.x).equals(self.y.mul(other.y));
        straight | crossed
    }
}

impl Projective {
    /// The identity in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn identity() -> Self {
        Self { x: Fe::zero(), y: Fe::one(), z: Fe::one() }
    }

    /// Twice the point.
    ///
    /// Bounds: products are below 2^59.7, so 2XY and X² + Y² are below 2^60.7, Y² − X² + 2^9·p below 2^60.9 and
    /// 2Z² + X² − Y² + 2^9·p below 2^61.6.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn double_into(&self, twice: &mut Completed) {
        let xx = self.x.squared();
        let yy = self.y.squared();
        let zz = self.z.squared();
        let xy = self.x.times(self.y);
        twice.e = xy.doubled().carry();
        twice.f = zz.doubled().plus(xx).minus(yy).carry();
        twice.g = yy.minus(xx).carry();
        twice.h = yy.plus(xx).carry();
    }
}

impl Completed {
    /// The identity in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn identity() -> Self {
        Self { e: Fe::zero(), f: Fe::one(), g: Fe::one(), h: Fe::one() }
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn projective_into(&self, point: &mut Projective) {
        point.x = self.e.mul(self.f);
        point.y = self.g.mul(self.h);
        point.z = self.f.mul(self.g);
    }

    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn extended(&self) -> Extended {
        Extended { x: self.e.mul(self.f), y: self.g.mul(self.h), z: self.f.mul(self.g), t: self.e.mul(self.h) }
    }

    /// Y ± X are added up before they are carried: two carries less than by way of [`Completed::extended`].
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn augend_into(&self, augend: &mut Augend) {
        let x = self.e.times(self.f);
        let y = self.g.times(self.h);
        augend.plus = y.plus(x).carry();
        augend.minus = y.minus(x).carry();
        augend.z = self.f.mul(self.g);
        augend.t = self.e.mul(self.h);
    }
}

impl Augend {
    /// The identity in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn identity() -> Self {
        Self { plus: Fe::one(), minus: Fe::one(), z: Fe::one(), t: Fe::zero() }
    }

    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn cached(&self) -> Cached {
        Cached {
            plus: self.plus,
            minus: self.minus,
            twice_z: self.z.plus(self.z),
            twice_dt: self.t.mul(constant(TWICE_D)),
        }
    }

    /// The sum with a cached point.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add_into(&self, other: &Cached, sum: &mut Completed) {
        let a = self.minus.times(other.minus);
        let b = self.plus.times(other.plus);
        let c = self.t.times(other.twice_dt);
        let d = self.z.times(other.twice_z);
        complete(a, b, c, d, sum);
    }

    /// The sum with an affine point.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add_affine_into(&self, other: &Affine, sum: &mut Completed) {
        let a = self.minus.times(other.minus);
        let b = self.plus.times(other.plus);
        let c = self.t.times(other.twice_dxy);
        complete(a, b, c, self.z.wide().doubled(), sum);
    }
}

/// E = B − A, F = D − C, G = D + C, H = B + A; all four below 2^61.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn complete(a: Wide, b: Wide, c: Wide, d: Wide, sum: &mut Completed) {
    sum.e = b.minus(a).carry();
    sum.f = d.minus(c).carry();
    sum.g = d.plus(c).carry();
    sum.h = b.plus(a).carry();
}

impl Cached {
    /// The identity in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn identity() -> Self {
        Self { plus: Fe::one(), minus: Fe::one(), twice_z: constant([2, 0, 0, 0, 0]), twice_dt: Fe::zero() }
    }

    /// The negative in the lanes of the mask.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn minus_where(&self, lanes: __mmask8) -> Self {
        Self {
            plus: self.plus.or_where(lanes, self.minus),
            minus: self.minus.or_where(lanes, self.plus),
            twice_z: self.twice_z,
            twice_dt: self.twice_dt.minus_where(lanes),
        }
    }
}

impl Affine {
    /// The negative in the lanes of the mask.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn minus_where(&self, lanes: __mmask8) -> Self {
        Self {
            plus: self.plus.or_where(lanes, self.minus),
            minus: self.minus.or_where(lanes, self.plus),
            twice_dxy: self.twice_dxy.minus_where(lanes),
        }
    }
}
