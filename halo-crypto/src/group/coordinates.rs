//! A group element in coordinates of our own: what the vectorised backend keeps between its kernels.
//!
//! Here stands only what the protocols do to single elements: add, subtract, negate, compare. All of it in constant time,
//! and none of it unsafe; everything else happens eight at a time.

use zeroize::Zeroize;

/// Bits of a limb.
const LIMB: u64 = (1 << 51) - 1;
/// 2p, limb by limb.
const TWICE_P: [u64; 5] = [2 * (LIMB - 18), 2 * LIMB, 2 * LIMB, 2 * LIMB, 2 * LIMB];
/// 2d, d = −121665/121666.
const TWICE_D: Field =
    Field([0x6_9b94_26b2_f159, 0x3_5050_762a_dd7a, 0x3_cf44_c003_8052, 0x6_738c_c740_7977, 0x2_406d_9dc5_6dff]);

/// An element of the field modulo 2^255 − 19: limbs in radix 2^51, each below 2^51 + 2^18.
#[derive(Clone, Copy, Zeroize)]
pub(crate) struct Field(pub(crate) [u64; 5]);

impl Field {
    const ZERO: Self = Self([0; 5]);
    const ONE: Self = Self([1, 0, 0, 0, 0]);

    /// One pass of carries, for limbs below 2^64.
    fn carry(limbs: [u64; 5]) -> Self {
        let over = limbs.map(|limb| limb >> 51);
        let mut carried = limbs.map(|limb| limb & LIMB);
        carried[0] += 19 * over[4];
        for k in 1..5 {
            carried[k] += over[k - 1];
        }
        Self(carried)
    }

    fn add(&self, other: &Self) -> Self {
        Self::carry(std::array::from_fn(|k| self.0[k] + other.0[k]))
    }

    fn sub(&self, other: &Self) -> Self {
        Self::carry(std::array::from_fn(|k| self.0[k] + TWICE_P[k] - other.0[k]))
    }

    fn mul(&self, other: &Self) -> Self {
        // Five products below 2^(51.01 + 55.3) a column: below 2^109, and what they carry over below 2^58.
        let (a, b) = (&self.0, &other.0);
        let folded: [u64; 5] = std::array::from_fn(|k| 19 * b[k]);
        let mut columns = [0_u128; 5];
        for (i, a) in a.iter().enumerate() {
            for (j, (b, folded)) in b.iter().zip(&folded).enumerate() {
                let factor = if i + j < 5 { b } else { folded };
                columns[(i + j) % 5] += u128::from(*a) * u128::from(*factor);
            }
        }
        let mut limbs = [0; 5];
        let mut over = 0_u128;
        for (limb, column) in limbs.iter_mut().zip(columns) {
            let column = column + over;
            *limb = (column as u64) & LIMB;
            over = column >> 51;
        }
        let first = u128::from(limbs[0]) + 19 * over;
        limbs[0] = (first as u64) & LIMB;
        limbs[1] += (first >> 51) as u64;
        Self(limbs)
    }

    /// Whether this is zero modulo p.
    fn is_zero(&self) -> bool {
        // Two ripples leave limbs below 2^51 except the first, so the value is below 2p; then it is 0 or p, or neither.
        let mut limbs = self.0;
        for _ in 0..2 {
            let mut over = 0;
            for limb in &mut limbs {
                *limb += over;
                over = *limb >> 51;
                *limb &= LIMB;
            }
            limbs[0] += 19 * over;
        }
        let zero = limbs.iter().fold(0, |any, limb| any | limb);
        let p = (limbs[0] ^ (LIMB - 18)) | limbs[1..].iter().fold(0, |any, limb| any | (limb ^ LIMB));
        (zero == 0) | (p == 0)
    }
}

/// x = X/Z, y = Y/Z, xy = T/Z on the curve −x² + y² = 1 + d·x²·y²; a representative of its Ristretto coset.
#[derive(Clone, Copy, Zeroize)]
pub(crate) struct Coordinates {
    pub(crate) x: Field,
    pub(crate) y: Field,
    pub(crate) z: Field,
    pub(crate) t: Field,
}

impl Coordinates {
    /// The neutral element.
    pub(crate) const IDENTITY: Self = Self { x: Field::ZERO, y: Field::ONE, z: Field::ONE, t: Field::ZERO };

    /// The sum (Hisil, Wong, Carter and Dawson 2008, a = −1; complete).
    pub(crate) fn add(&self, other: &Self) -> Self {
        let a = self.y.sub(&self.x).mul(&other.y.sub(&other.x));
        let b = self.y.add(&self.x).mul(&other.y.add(&other.x));
        let c = self.t.mul(&TWICE_D).mul(&other.t);
        let d = self.z.add(&self.z).mul(&other.z);
        let (e, f, g, h) = (b.sub(&a), d.sub(&c), d.add(&c), b.add(&a));
        Self { x: e.mul(&f), y: g.mul(&h), z: f.mul(&g), t: e.mul(&h) }
    }

    /// The negative.
    pub(crate) fn neg(&self) -> Self {
        Self { x: Field::ZERO.sub(&self.x), y: self.y, z: self.z, t: Field::ZERO.sub(&self.t) }
    }

    /// Whether both represent the same element of Ristretto255: X1·Y2 = Y1·X2 or X1·X2 = Y1·Y2.
    pub(crate) fn equals(&self, other: &Self) -> bool {
        let straight = self.x.mul(&other.y).sub(&self.y.mul(&other.x)).is_zero();
        let crossed = self.x.mul(&other.x).sub(&self.y.mul(&other.y)).is_zero();
        straight | crossed
    }
}
