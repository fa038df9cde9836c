//! Decoding, encoding and the map to the group: RFC 9496, section 4.3, in every lane at once. No branches: a lane that
//! fails is a bit in a mask.

use std::arch::x86_64::{__mmask8, _mm512_cmpeq_epi64_mask};

use super::{
    field::{Fe, constant, from_words, to_words},
    lanes::Words,
    point::{Completed, D, Extended},
};

/// A square root of −1.
const SQRT_M1: [u64; 5] =
    [0x6_1b27_4a0e_a0b0, 0xd5a5_fc8f_189d, 0x7_ef5e_9cbd_0c60, 0x7_8595_a680_4c9e, 0x2_b832_4804_fc1d];
/// √(−d − 1), the negative one.
const SQRT_AD_MINUS_ONE: [u64; 5] =
    [0x7_f6a0_497b_2e1b, 0x1_836f_0a97_afd2, 0x7_d747_f6be_7638, 0x4_5607_9e7e_6498, 0x3_7693_1bf2_b834];
/// 1/√(−1 − d).
const INVSQRT_A_MINUS_D: [u64; 5] =
    [0xfdaa_805d_40ea, 0x2_eb48_2e57_d339, 0x761_0274_bc58, 0x6_510b_613d_c8ff, 0x7_86c8_905c_faff];
/// 1 − d².
const ONE_MINUS_D_SQ: [u64; 5] =
    [0x4_09c1_945f_c176, 0x7_19ab_c6a1_fc4f, 0x1_c37f_90b2_0684, 0x6bcc_ca55_eedf, 0x2907_2a8b_2b3e];
/// (d − 1)².
const D_MINUS_ONE_SQ: [u64; 5] =
    [0x5_5aaa_44ed_4d20, 0x5_9603_c333_2635, 0x2_6d3b_af4a_7928, 0x1_20a6_6e69_97a9, 0x5_968b_37af_66c2];

/// a^(2^times).
#[inline(never)]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn square_times(a: Fe, times: u32) -> Fe {
    let mut power = a;
    for _ in 0..times {
        power = power.square();
    }
    power
}

/// a^(2^250 − 1) and a^11: what the inverse and the square root have in common.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn power_250(a: Fe) -> (Fe, Fe) {
    // eN stands for a^(2^N − 1).
    let a2 = a.square();
    let a9 = square_times(a2, 2).mul(a);
    let a11 = a9.mul(a2);
    let e5 = a11.square().mul(a9);
    let e10 = square_times(e5, 5).mul(e5);
    let e20 = square_times(e10, 10).mul(e10);
    let e40 = square_times(e20, 20).mul(e20);
    let e50 = square_times(e40, 10).mul(e10);
    let e100 = square_times(e50, 50).mul(e50);
    let e200 = square_times(e100, 100).mul(e100);
    (square_times(e200, 50).mul(e50), a11)
}

/// 1/a; 0 for 0.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn invert(a: Fe) -> Fe {
    let (e250, a11) = power_250(a);
    square_times(e250, 5).mul(a11)
}

/// Which lanes of u/v are squares, with √(u/v) there and √(i·u/v) elsewhere; the root that is not negative.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn sqrt_ratio(u: Fe, v: Fe) -> (__mmask8, Fe) {
    let i = constant(SQRT_M1);
    let v3 = v.square().mul(v);
    let v7 = v3.square().mul(v);
    let uv7 = u.mul(v7);
    // x^((p − 5)/8) = x^(2^252 − 3).
    let power = square_times(power_250(uv7).0, 2).mul(uv7);
    let root = u.mul(v3).mul(power);
    let check = v.mul(root.square());
    let minus_u = Fe::zero().minus(u);
    let correct = check.equals(u);
    let flipped = check.equals(minus_u);
    let flipped_i = check.equals(minus_u.mul(i));
    let root = root.or_where(flipped | flipped_i, root.mul(i));
    (correct | flipped, root.absolute())
}

/// Decodes canonical encodings. The lanes of the mask failed, and hold nothing of use.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn decode(words: &Words) -> (Extended, __mmask8) {
    let s = from_words(words.0);
    // Not below p, or the topmost bit set: writing it again gives other bytes.
    let again = to_words(s);
    let mut failed = 0;
    for k in 0..4 {
        failed |= !_mm512_cmpeq_epi64_mask(again[k], words.0[k]);
    }
    failed |= s.is_negative();
    let one = Fe::one();
    let ss = s.square();
    let u1 = one.minus(ss);
    let u2 = one.plus(ss);
    let u2_sqr = u2.square();
    let v = Fe::zero().minus(constant(D).mul(u1.square())).minus(u2_sqr);
    let (was_square, inverse) = sqrt_ratio(one, v.mul(u2_sqr));
    let den_x = inverse.mul(u2);
    let den_y = inverse.mul(den_x).mul(v);
    let x = s.plus(s).mul(den_x).absolute();
    let y = u1.mul(den_y);
    let t = x.mul(y);
    failed |= !was_square | t.is_negative() | y.is_zero();
    (Extended { x, y, z: one, t }, failed)
}

/// Canonical encodings.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn encode(point: &Extended) -> Words {
    let Extended { x, y, z, t } = *point;
    let u1 = z.plus(y).mul(z.minus(y));
    let u2 = x.mul(y);
    let (_, inverse) = sqrt_ratio(Fe::one(), u1.mul(u2.square()));
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

/// The one-way map's two halves, added: 64 uniform bytes of each lane to a point.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn from_uniform(first: &Words, second: &Words) -> Extended {
    elligator(from_words(first.0)).add(&elligator(from_words(second.0)))
}

/// MAP of RFC 9496, 4.3.4.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn elligator(t: Fe) -> Extended {
    let one = Fe::one();
    let minus_one = Fe::zero().minus(one);
    let d = constant(D);
    let r = constant(SQRT_M1).mul(t.square());
    let u = r.plus(one).mul(constant(ONE_MINUS_D_SQ));
    let v = minus_one.minus(r.mul(d)).mul(r.plus(d));
    let (was_square, root) = sqrt_ratio(u, v);
    let other_root = Fe::zero().minus(root.mul(t).absolute());
    let s = other_root.or_where(was_square, root);
    let c = r.or_where(was_square, minus_one);
    let n = c.mul(r.minus(one)).mul(constant(D_MINUS_ONE_SQ)).minus(v);
    let ss = s.square();
    // X = w0·w3, Y = w2·w1, Z = w1·w3, T = w0·w2.
    Completed { e: s.plus(s).mul(v), f: one.plus(ss), g: n.mul(constant(SQRT_AD_MINUS_ONE)), h: one.minus(ss) }
        .extended()
}
