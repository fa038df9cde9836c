//! Decoding, encoding and the map to the group: RFC 9496, section 4.3, in every lane at once. No branches: a lane that
//! fails is a bit in a mask.

use std::arch::x86_64::{__mmask8, _mm512_cmpeq_epi64_mask};

use super::{
    field::{Fe, constant, from_words, to_words},
    lanes::Words,
    point::{Completed, D, Extended},
};

/// A square root of −1.
pub(super) const SQRT_M1: [u64; 5] =
    [0x6_1b27_4a0e_a0b0, 0xd5a5_fc8f_189d, 0x7_ef5e_9cbd_0c60, 0x7_8595_a680_4c9e, 0x2_b832_4804_fc1d];
/// √(−d − 1), the negative one.
const SQRT_AD_MINUS_ONE: [u64; 5] =
    [0x7_f6a0_497b_2e1b, 0x1_836f_0a97_afd2, 0x7_d747_f6be_7638, 0x4_5607_9e7e_6498, 0x3_7693_1bf2_b834];
/// 1/√(−1 − d).
pub(super) const INVSQRT_A_MINUS_D: [u64; 5] =
    [0xfdaa_805d_40ea, 0x2_eb48_2e57_d339, 0x761_0274_bc58, 0x6_510b_613d_c8ff, 0x7_86c8_905c_faff];
/// 1 − d².
const ONE_MINUS_D_SQ: [u64; 5] =
    [0x4_09c1_945f_c176, 0x7_19ab_c6a1_fc4f, 0x1_c37f_90b2_0684, 0x6bcc_ca55_eedf, 0x2907_2a8b_2b3e];
/// (d − 1)².
const D_MINUS_ONE_SQ: [u64; 5] =
    [0x5_5aaa_44ed_4d20, 0x5_9603_c333_2635, 0x2_6d3b_af4a_7928, 0x1_20a6_6e69_97a9, 0x5_968b_37af_66c2];

/// a^(2^times) for all. Each is one long chain, so two go side by side where there are two: one
/// multiplies while the other waits.
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn square_times<const CHAINS: usize>(mut powers: [Fe; CHAINS], times: u32) -> [Fe; CHAINS] {
    for _ in 0..times {
        for power in &mut powers {
            *power = power.square();
        }
    }
    powers
}

/// a·b for all.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn products<const CHAINS: usize>(mut a: [Fe; CHAINS], b: [Fe; CHAINS]) -> [Fe; CHAINS] {
    for (a, b) in a.iter_mut().zip(b) {
        *a = a.mul(b);
    }
    a
}

/// a^(2^250 − 1) and a^11: what the inverse and the square root have in common.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn power_250<const CHAINS: usize>(a: [Fe; CHAINS]) -> ([Fe; CHAINS], [Fe; CHAINS]) {
    // eN stands for a^(2^N − 1).
    let a2 = square_times(a, 1);
    let a9 = products(square_times(a2, 2), a);
    let a11 = products(a9, a2);
    let e5 = products(square_times(a11, 1), a9);
    let e10 = products(square_times(e5, 5), e5);
    let e20 = products(square_times(e10, 10), e10);
    let e40 = products(square_times(e20, 20), e20);
    let e50 = products(square_times(e40, 10), e10);
    let e100 = products(square_times(e50, 50), e50);
    let e200 = products(square_times(e100, 100), e100);
    (products(square_times(e200, 50), e50), a11)
}

/// 1/a; 0 for 0.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn invert(a: Fe) -> Fe {
    let (e250, a11) = power_250([a]);
    products(square_times(e250, 5), a11)[0]
}

/// Which lanes of u/v are squares, with √(u/v) there and √(i·u/v) elsewhere; the root that is not negative. For both.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn sqrt_ratios(u: [Fe; 2], v: [Fe; 2]) -> [(__mmask8, Fe); 2] {
    let v3 = products(square_times(v, 1), v);
    let v7 = products(square_times(v3, 1), v);
    let uv7 = products(u, v7);
    // x^((p − 5)/8) = x^(2^252 − 3).
    let power = products(square_times(power_250(uv7).0, 2), uv7);
    let [first, second] = products(products(u, v3), power);
    [choose_root(u[0], v[0], first), choose_root(u[1], v[1], second)]
}

/// From a candidate that may be off by a factor that is a power of i.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn choose_root(u: Fe, v: Fe, root: Fe) -> (__mmask8, Fe) {
    let i = constant(SQRT_M1);
    let check = v.mul(root.square());
    let minus_u = Fe::zero().minus(u);
    let correct = check.equals(u);
    let flipped = check.equals(minus_u);
    let flipped_i = check.equals(minus_u.mul(i));
    let root = root.or_where(flipped | flipped_i, root.mul(i));
    (correct | flipped, root.absolute())
}

/// Decodes canonical encodings, eight and eight. The lanes of the masks failed, and hold nothing of use.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn decode([first, second]: &[Words; 2]) -> [(Extended, __mmask8); 2] {
    let (first, second) = (Decoding::new(first), Decoding::new(second));
    let one = Fe::one();
    let [first_root, second_root] = sqrt_ratios([one; 2], [first.radicand(), second.radicand()]);
    [first.finish(first_root), second.finish(second_root)]
}

/// A decoding that waits for the inverse square root of v·u2².
struct Decoding {
    s: Fe,
    failed: __mmask8,
    u1: Fe,
    u2: Fe,
    v: Fe,
}

impl Decoding {
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn new(words: &Words) -> Self {
        let s = from_words(words.0);
        // Not below p, or the topmost bit set: writing it again gives other bytes.
        let mut failed = s.is_negative();
        for (again, word) in to_words(s).into_iter().zip(words.0) {
            failed |= !_mm512_cmpeq_epi64_mask(again, word);
        }
        let ss = s.square();
        let (u1, u2) = (Fe::one().minus(ss), Fe::one().plus(ss));
        let v = Fe::zero().minus(constant(D).mul(u1.square())).minus(u2.square());
        Self { s, failed, u1, u2, v }
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn radicand(&self) -> Fe {
        self.v.mul(self.u2.square())
    }

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn finish(&self, (was_square, inverse): (__mmask8, Fe)) -> (Extended, __mmask8) {
        let den_x = inverse.mul(self.u2);
        let den_y = inverse.mul(den_x).mul(self.v);
        let x = self.s.plus(self.s).mul(den_x).absolute();
        let y = self.u1.mul(den_y);
        let t = x.mul(y);
        let failed = self.failed | !was_square | t.is_negative() | y.is_zero();
        (Extended { x, y, z: Fe::one(), t }, failed)
    }
}

/// Canonical encodings of eight points and eight.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn encode(points: &[Extended; 2]) -> [Words; 2] {
    let [first, second] = points;
    let [(u1, u2), (w1, w2)] = [encoding_ratio(first), encoding_ratio(second)];
    let radicands = [u1.mul(u2.square()), w1.mul(w2.square())];
    let [(_, first_root), (_, second_root)] = sqrt_ratios([Fe::one(); 2], radicands);
    [finish_encoding(first, u1, u2, first_root), finish_encoding(second, w1, w2, second_root)]
}

/// u1 = (Z + Y)(Z − Y) and u2 = XY: an encoding needs the inverse square root of u1·u2².
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn encoding_ratio(point: &Extended) -> (Fe, Fe) {
    let Extended { x, y, z, .. } = *point;
    (z.plus(y).mul(z.minus(y)), x.mul(y))
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn finish_encoding(point: &Extended, u1: Fe, u2: Fe, inverse: Fe) -> Words {
    let Extended { x, y, z, t } = *point;
    let den1 = inverse.mul(u1);
    let den2 = inverse.mul(u2);
    let z_inverse = den1.mul(den2).mul(t);
    let i = constant(SQRT_M1);
    let rotate = t.mul(z_inverse).is_negative();
    let turned_x = x.or_where(rotate, y.mul(i));
    let turned_y = y.or_where(rotate, x.mul(i));
    let den = den2.or_where(rotate, den1.mul(constant(INVSQRT_A_MINUS_D)));
    let negative = turned_x.mul(z_inverse).is_negative();
    let signed_y = turned_y.minus_where(negative);
    Words(to_words(den.mul(z.minus(signed_y)).absolute()))
}

/// The one-way map: 64 uniform bytes of each lane to a point, the sum of what MAP of RFC 9496, 4.3.4, makes of each half.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn from_uniform(halves: &[Words; 2]) -> Extended {
    let t = [from_words(halves[0].0), from_words(halves[1].0)];
    let [(r, u, v), (r2, u2, v2)] = [elligator_ratio(t[0]), elligator_ratio(t[1])];
    let [first, second] = sqrt_ratios([u, u2], [v, v2]);
    finish_elligator(t[0], r, v, first).add(&finish_elligator(t[1], r2, v2, second))
}

/// r = i·t², u = (r + 1)(1 − d²) and v = (−1 − r·d)(r + d): the map needs √(u/v).
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn elligator_ratio(t: Fe) -> (Fe, Fe, Fe) {
    let (one, d) = (Fe::one(), constant(D));
    let r = constant(SQRT_M1).mul(t.square());
    let u = r.plus(one).mul(constant(ONE_MINUS_D_SQ));
    let v = Fe::zero().minus(one).minus(r.mul(d)).mul(r.plus(d));
    (r, u, v)
}

#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn finish_elligator(t: Fe, r: Fe, v: Fe, (was_square, root): (__mmask8, Fe)) -> Extended {
    let one = Fe::one();
    let other_root = Fe::zero().minus(root.mul(t).absolute());
    let s = other_root.or_where(was_square, root);
    let c = r.or_where(was_square, Fe::zero().minus(one));
    let n = c.mul(r.minus(one)).mul(constant(D_MINUS_ONE_SQ)).minus(v);
    let ss = s.square();
    // X = w0·w3, Y = w2·w1, Z = w1·w3, T = w0·w2.
    Completed { e: s.plus(s).mul(v), f: one.plus(ss), g: n.mul(constant(SQRT_AD_MINUS_ONE)), h: one.minus(ss) }
        .extended()
}
