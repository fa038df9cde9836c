//! Eight points of the curve −x² + y² = 1 + d·x²·y², one in each lane, in the forms that the formulas pass on.
//!
//! The formulas are those of Hisil, Wong, Carter and Dawson (2008) for a = −1: complete, so there is no special case for
//! the identity or for equal points. A doubling or an addition ends in a [`Completed`] point; which products it is worth
//! multiplying out depends on what comes next, so each next step has its own form.

use std::arch::x86_64::__mmask8;

use super::field::{Fe, constant};

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

/// X = E·F, Y = G·H, Z = F·G, T = E·H, still to be multiplied: what the next step does not need is never computed.
#[derive(Clone, Copy)]
pub(super) struct Completed {
    pub(super) e: Fe,
    pub(super) f: Fe,
    pub(super) g: Fe,
    pub(super) h: Fe,
}

/// Y + X, Y − X, 2Z, 2d·T: the second operand of an addition.
#[derive(Clone, Copy)]
pub(super) struct Cached {
    pub(super) plus: Fe,
    pub(super) minus: Fe,
    pub(super) twice_z: Fe,
    pub(super) twice_dt: Fe,
}

impl Extended {
    /// As if it had just been computed: XZ : YZ : Z² and T = XY.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn completed(&self) -> Completed {
        Completed { e: self.x, f: self.z, g: self.z, h: self.y }
    }

    /// As the second operand of an addition.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn cached(&self) -> Cached {
        Cached {
            plus: self.y.plus(self.x),
            minus: self.y.minus(self.x),
            twice_z: self.z.plus(self.z),
            twice_dt: self.t.mul(constant(TWICE_D)),
        }
    }

    /// The sum.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add(&self, other: &Self) -> Self {
        other.cached().add(self).extended()
    }

    /// The difference.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn sub(&self, other: &Self) -> Self {
        let Cached { plus, minus, twice_z, twice_dt } = other.cached();
        Cached { plus: minus, minus: plus, twice_z, twice_dt: twice_dt.minus_where(0xff) }.add(self).extended()
    }

    /// Lanes in which both are representatives of the same element of Ristretto255: X1·Y2 = Y1·X2 or X1·X2 = Y1·Y2.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn equals(&self, other: &Self) -> __mmask8 {
        let straight = self.x.mul(other.y).equals(self.y.mul(other.x));
        let crossed = self.x.mul(other.x).equals(self.y.mul(other.y));
        straight | crossed
    }
}

impl Cached {
    /// The sum with a point: E = B − A, F = D − C, G = D + C, H = B + A, where A = (Y1 − X1)(Y2 − X2), B = (Y1 + X1)(Y2 + X2),
    /// C = 2d·T1·T2 and D = 2·Z1·Z2. All are products, so with the multiple of p in B and D the four are below 2^61.4.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn add(&self, other: &Extended) -> Completed {
        let a = self.minus.times(other.y.minus(other.x));
        let b = self.plus.biased_times(other.y.plus(other.x));
        let c = self.twice_dt.times(other.t);
        let d = self.twice_z.biased_times(other.z);
        Completed { e: b.less(a).carry(), f: d.less(c).carry(), g: d.plus(c).carry(), h: b.plus(a).carry() }
    }
}

impl Completed {
    /// The identity in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn identity() -> Self {
        Self { e: Fe::zero(), f: Fe::one(), g: Fe::one(), h: Fe::one() }
    }

    /// The other's lanes where the mask is set, own lanes elsewhere.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn or_where(&self, lanes: __mmask8, other: &Self) -> Self {
        Self {
            e: self.e.or_where(lanes, other.e),
            f: self.f.or_where(lanes, other.f),
            g: self.g.or_where(lanes, other.g),
            h: self.h.or_where(lanes, other.h),
        }
    }

    /// All four coordinates.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn extended(&self) -> Extended {
        let z = self.z();
        Extended { x: self.e.mul(self.f), y: self.g.mul(self.h), z, t: self.t() }
    }

    /// As the second operand of an addition.
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn cached(&self) -> Cached {
        // Added up before they are carried: two carries less than from X and Y.
        let (x, y) = (self.e.times(self.f), self.g.times(self.h));
        let (plus, minus) = (y.plus(x).carry(), y.minus(x).carry());
        let twice_z = self.f.times(self.g).doubled().carry();
        Cached { plus, minus, twice_z, twice_dt: self.t().mul(constant(TWICE_D)) }
    }

    /// Z.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn z(&self) -> Fe {
        self.f.mul(self.g)
    }

    /// T.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn t(&self) -> Fe {
        self.e.mul(self.h)
    }

    /// Twice the point, `times` times. What waits for a product stands two products behind it, and the last results to be
    /// ready are the last to be needed: Z and Y come before X.
    ///
    /// Bounds: products are below 2^59.7, and below 2^60.9 with 2^9·p in them, so 2XY is below 2^60.7, Y² ± X² below 2^61.4
    /// and 2Z² + X² − Y² below 2^62.2; of the two multiples of p in 2Z², one makes up for that in Y².
    #[inline(never)]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn double(&mut self, times: u32) {
        for _ in 0..times {
            let z = self.z().hold();
            let y = self.g.mul(self.h).hold();
            let x = self.e.mul(self.f).hold();
            let yy = y.biased_squared().hold();
            let zz = z.biased_squared().hold();
            let xx = x.squared().hold();
            self.g = yy.less(xx).carry();
            self.f = zz.doubled().plus(xx).less(yy).carry();
            self.h = yy.plus(xx).carry();
            self.e = x.times(y).doubled().carry();
        }
    }
}
