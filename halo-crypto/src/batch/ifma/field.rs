//! Eight elements of the field modulo p = 2^255 − 19, one in each lane.
//!
//! Radix 2^51: limb k of the eight elements stands in register k. Two types keep the bounds apart.
//!
//! * [`Fe`] may be multiplied: every limb is below 2^52 (what the instruction reads). All constructors but two leave
//!   limbs below 2^51 + 2^18; [`Fe::minus_where`] and its like leave limbs of at most 2^52 − 2.
//! * [`Wide`] is a sum that has not been carried: any limbs below 2^64. A product is below 2^59.7: with limbs below 2^51 +
//!   2^18 on one side and below 2^52 on the other, a column holds at most five low halves below 2^52 and, doubled, five high
//!   halves below 2^51 + 2^18, together below 10.01 · 2^52; twenty such columns (one and nineteen folded ones) are below
//!   200.2 · 2^52 < 2^59.65.
//!
//! [`Wide::carry`] takes any `Wide` to an [`Fe`]; the bounds that remain to be watched are those of sums of `Wide`s, which
//! must not pass 2^64, and of differences, which must not fall below zero: each states its own.

use std::arch::{
    asm,
    x86_64::{
        __m512i, __mmask8, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpeq_epi64_mask, _mm512_madd52hi_epu64,
        _mm512_madd52lo_epu64, _mm512_mask_blend_epi64, _mm512_mask_sub_epi64, _mm512_mullo_epi64, _mm512_or_si512,
        _mm512_set1_epi64, _mm512_setzero_si512, _mm512_slli_epi64, _mm512_srli_epi64, _mm512_sub_epi64,
        _mm512_test_epi64_mask,
    },
};

/// Bits of a limb.
const LIMB: u64 = (1 << 51) - 1;

/// Eight field elements that may be multiplied: limbs below 2^52.
#[derive(Clone, Copy)]
pub(super) struct Fe(pub(super) [__m512i; 5]);

/// Eight field elements, not carried: limbs below 2^64.
#[derive(Clone, Copy)]
pub(super) struct Wide([__m512i; 5]);

/// The same limbs in every lane.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn constant(limbs: [u64; 5]) -> Fe {
    let mut all = [_mm512_setzero_si512(); 5];
    for k in 0..5 {
        all[k] = _mm512_set1_epi64(limbs[k].cast_signed());
    }
    Fe(all)
}

/// The same limbs. What follows in the text reads them, and memory, only now: the compiler would otherwise mix products that
/// stand one after the other, and then lack registers.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn hold([mut a, mut b, mut c, mut d, mut e]: [__m512i; 5]) -> [__m512i; 5] {
    // SAFETY: there is no instruction.
    unsafe {
        asm!(
            "/* {0} {1} {2} {3} {4} */", inout(zmm_reg) a, inout(zmm_reg) b, inout(zmm_reg) c, inout(zmm_reg) d,
            inout(zmm_reg) e, options(nostack, preserves_flags)
        );
    }
    [a, b, c, d, e]
}

/// 2^bits·p, limb by limb: 2^bits·(2^51 − 19), then four times 2^bits·(2^51 − 1).
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn multiple_of_p(bits: u32) -> [__m512i; 5] {
    let rest = LIMB << bits;
    constant([(LIMB - 18) << bits, rest, rest, rest, rest]).0
}

impl Fe {
    /// Zero in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn zero() -> Self {
        Self([_mm512_setzero_si512(); 5])
    }

    /// One in every lane.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn one() -> Self {
        constant([1, 0, 0, 0, 0])
    }

    /// The same value as a sum to go on with.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn wide(self) -> Wide {
        Wide(self.0)
    }

    /// a, computed here: see [`hold`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn hold(self) -> Self {
        Self(hold(self.0))
    }

    /// a·b, not carried. One of the two may have limbs up to 2^52, the other is below 2^51 + 2^18.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn times(self, other: Self) -> Wide {
        self.times_onto(other, [_mm512_setzero_si512(); 5])
    }

    /// a·b + 2^9·p, not carried: what [`Wide::less`] subtracts from. The multiple of p is where the sums begin, and so
    /// costs nothing.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn biased_times(self, other: Self) -> Wide {
        let ([first, ..], [_, second, third, fourth, fifth]) = (multiple_of_p(9), multiple_of_p(8));
        self.times_onto(other, [first, second, third, fourth, fifth])
    }

    /// a·b onto five columns, of which all but the first will be doubled.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn times_onto(self, other: Self, lowest: [__m512i; 5]) -> Wide {
        let (a, b) = (self.0, other.0);
        let mut column = [_mm512_setzero_si512(); 10];
        column[..5].copy_from_slice(&lowest);
        // The high half of a product of limbs i and j has weight 2^52·2^(51(i+j)): it counts twice in column i + j + 1.
        for i in 0..5 {
            for j in 0..5 {
                column[i + j + 1] = _mm512_madd52hi_epu64(column[i + j + 1], a[i], b[j]);
            }
        }
        for column in &mut column[1..] {
            *column = _mm512_add_epi64(*column, *column);
        }
        for i in 0..5 {
            for j in 0..5 {
                column[i + j] = _mm512_madd52lo_epu64(column[i + j], a[i], b[j]);
            }
        }
        fold(column)
    }

    /// a², not carried.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn squared(self) -> Wide {
        self.squared_onto([_mm512_setzero_si512(); 5])
    }

    /// a² + 2^9·p, not carried: what [`Wide::less`] subtracts from.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn biased_squared(self) -> Wide {
        let ([first, ..], [_, second, ..]) = (multiple_of_p(9), multiple_of_p(8));
        let [_, _, third, fourth, fifth] = multiple_of_p(7);
        self.squared_onto([first, second, third, fourth, fifth])
    }

    /// a² onto five columns, of which the second will be doubled once and the three behind it twice.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn squared_onto(self, lowest: [__m512i; 5]) -> Wide {
        let a = self.0;
        let mut column = [_mm512_setzero_si512(); 10];
        column[..5].copy_from_slice(&lowest);
        // Column k is 2·(2·(high halves of cross products) + high halves of squares + low halves of cross products)
        // + low halves of squares, computed from the inside out.
        for i in 0..5 {
            for j in i + 1..5 {
                column[i + j + 1] = _mm512_madd52hi_epu64(column[i + j + 1], a[i], a[j]);
            }
        }
        for column in &mut column[2..9] {
            *column = _mm512_add_epi64(*column, *column);
        }
        for i in 0..5 {
            column[2 * i + 1] = _mm512_madd52hi_epu64(column[2 * i + 1], a[i], a[i]);
        }
        for i in 0..5 {
            for j in i + 1..5 {
                column[i + j] = _mm512_madd52lo_epu64(column[i + j], a[i], a[j]);
            }
        }
        for column in &mut column[1..] {
            *column = _mm512_add_epi64(*column, *column);
        }
        for i in 0..5 {
            column[2 * i] = _mm512_madd52lo_epu64(column[2 * i], a[i], a[i]);
        }
        fold(column)
    }

    /// a·b for a number b below 2^20, not carried: limbs are below 2^53.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn small_multiple(self, factor: u64) -> Wide {
        let factor = _mm512_set1_epi64(factor.cast_signed());
        let a = self.0;
        let mut high = [_mm512_setzero_si512(); 5];
        for k in 0..5 {
            high[k] = _mm512_madd52hi_epu64(high[k], a[k], factor);
            high[k] = _mm512_add_epi64(high[k], high[k]);
        }
        let mut limbs = [_mm512_setzero_si512(); 5];
        limbs[0] = _mm512_madd52lo_epu64(limbs[0], high[4], _mm512_set1_epi64(19));
        limbs[1..].copy_from_slice(&high[..4]);
        for k in 0..5 {
            limbs[k] = _mm512_madd52lo_epu64(limbs[k], a[k], factor);
        }
        Wide(limbs)
    }

    /// a·b.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn mul(self, other: Self) -> Self {
        self.times(other).carry()
    }

    /// a².
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn square(self) -> Self {
        self.squared().carry()
    }

    /// a + b.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn plus(self, other: Self) -> Self {
        self.wide().plus(other.wide()).carry()
    }

    /// a − b.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn minus(self, other: Self) -> Self {
        self.wide().minus(other.wide()).carry()
    }

    /// −a in the lanes of the mask, for limbs below 2^51 + 2^18; the result's limbs are at most 2^52 − 2.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn minus_where(self, lanes: __mmask8) -> Self {
        let two_p = multiple_of_p(1);
        let mut limbs = self.0;
        for (limb, two_p) in limbs.iter_mut().zip(two_p) {
            *limb = _mm512_mask_sub_epi64(*limb, lanes, two_p, *limb);
        }
        Self(limbs)
    }

    /// The other's lanes where the mask is set, own lanes elsewhere.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn or_where(self, lanes: __mmask8, other: Self) -> Self {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_mask_blend_epi64(lanes, *limb, other);
        }
        Self(limbs)
    }

    /// The unique representative below p, limbs below 2^51.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn canonical(self) -> Self {
        let mask = _mm512_set1_epi64(LIMB.cast_signed());
        let nineteen = _mm512_set1_epi64(19);
        // Two ripples leave every limb below 2^51 but the first, which may be up to 2^51 + 18: the value is below 2p.
        let mut limbs = self.0;
        for _ in 0..2 {
            for k in 0..4 {
                let over = _mm512_srli_epi64::<51>(limbs[k]);
                limbs[k] = _mm512_and_si512(limbs[k], mask);
                limbs[k + 1] = _mm512_add_epi64(limbs[k + 1], over);
            }
            let over = _mm512_srli_epi64::<51>(limbs[4]);
            limbs[4] = _mm512_and_si512(limbs[4], mask);
            limbs[0] = _mm512_madd52lo_epu64(limbs[0], over, nineteen);
        }
        // q = 1 where the value is at least p, that is where value + 19 reaches 2^255; then + 19·q and drop 2^255.
        let mut q = nineteen;
        for limb in limbs {
            q = _mm512_srli_epi64::<51>(_mm512_add_epi64(limb, q));
        }
        limbs[0] = _mm512_madd52lo_epu64(limbs[0], q, nineteen);
        for k in 0..4 {
            let over = _mm512_srli_epi64::<51>(limbs[k]);
            limbs[k] = _mm512_and_si512(limbs[k], mask);
            limbs[k + 1] = _mm512_add_epi64(limbs[k + 1], over);
        }
        limbs[4] = _mm512_and_si512(limbs[4], mask);
        Self(limbs)
    }

    /// Lanes that are zero.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn is_zero(self) -> __mmask8 {
        let [a, b, c, d, e] = self.canonical().0;
        let any = _mm512_or_si512(_mm512_or_si512(_mm512_or_si512(a, b), _mm512_or_si512(c, d)), e);
        _mm512_cmpeq_epi64_mask(any, _mm512_setzero_si512())
    }

    /// Lanes in which both are the same element.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn equals(self, other: Self) -> __mmask8 {
        self.minus(other).is_zero()
    }

    /// Lanes that are negative: whose representative below p is odd.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn is_negative(self) -> __mmask8 {
        _mm512_test_epi64_mask(self.canonical().0[0], _mm512_set1_epi64(1))
    }

    /// |a|: the one of a and −a that is not negative.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn absolute(self) -> Self {
        self.minus_where(self.is_negative()).wide().carry()
    }
}

/// Columns 5 to 9 have weight 2^255·2^(51k) = 19·2^(51k) modulo p. Bounds: see the module.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn fold(column: [__m512i; 10]) -> Wide {
    let nineteen = _mm512_set1_epi64(19);
    let mut limbs = [_mm512_setzero_si512(); 5];
    for k in 0..5 {
        limbs[k] = _mm512_add_epi64(column[k], _mm512_mullo_epi64(column[k + 5], nineteen));
    }
    Wide(limbs)
}

impl Wide {
    /// a + b. The caller's limbs must not pass 2^64 together.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn plus(self, other: Self) -> Self {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_add_epi64(*limb, other);
        }
        Self(limbs)
    }

    /// a − b + 2^9·p. For b a product or anything else with limbs below 2^60 − 2^14; a + 2^60 must not pass 2^64.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn minus(self, other: Self) -> Self {
        let bias = multiple_of_p(9);
        let mut limbs = self.0;
        for (limb, (bias, other)) in limbs.iter_mut().zip(bias.into_iter().zip(other.0)) {
            *limb = _mm512_sub_epi64(_mm512_add_epi64(*limb, bias), other);
        }
        Self(limbs)
    }

    /// a − b, for an a that began with 2^9·p (its limbs are at least 2^60 − 2^14) and a product b (below 2^59.7).
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn less(self, other: Self) -> Self {
        let mut limbs = self.0;
        for (limb, other) in limbs.iter_mut().zip(other.0) {
            *limb = _mm512_sub_epi64(*limb, other);
        }
        Self(limbs)
    }

    /// The same sum, computed here: see [`hold`].
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn hold(self) -> Self {
        Self(hold(self.0))
    }

    /// 2a. The caller's limbs must be below 2^63.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn doubled(self) -> Self {
        self.plus(self)
    }

    /// One pass of carries, all limbs at once: what leaves a limb is below 2^13, and 19 times that below 2^18, so the
    /// result's limbs are below 2^51 + 2^18.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn carry(self) -> Fe {
        let mask = _mm512_set1_epi64(LIMB.cast_signed());
        let mut over = [_mm512_setzero_si512(); 5];
        let mut limbs = self.0;
        for (limb, over) in limbs.iter_mut().zip(&mut over) {
            *over = _mm512_srli_epi64::<51>(*limb);
            *limb = _mm512_and_si512(*limb, mask);
        }
        limbs[0] = _mm512_madd52lo_epu64(limbs[0], over[4], _mm512_set1_epi64(19));
        for k in 1..5 {
            limbs[k] = _mm512_add_epi64(limbs[k], over[k - 1]);
        }
        Fe(limbs)
    }
}

/// Four 64-bit words for each lane, little endian, to limbs; the topmost bit is dropped.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn from_words(words: [__m512i; 4]) -> Fe {
    let mask = _mm512_set1_epi64(LIMB.cast_signed());
    let [a, b, c, d] = words;
    let limbs = [
        a,
        _mm512_or_si512(_mm512_srli_epi64::<51>(a), _mm512_slli_epi64::<13>(b)),
        _mm512_or_si512(_mm512_srli_epi64::<38>(b), _mm512_slli_epi64::<26>(c)),
        _mm512_or_si512(_mm512_srli_epi64::<25>(c), _mm512_slli_epi64::<39>(d)),
        _mm512_srli_epi64::<12>(d),
    ];
    let mut masked = limbs;
    for k in 0..5 {
        masked[k] = _mm512_and_si512(limbs[k], mask);
    }
    Fe(masked)
}

/// The canonical representatives as four 64-bit words for each lane, little endian.
#[inline]
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn to_words(element: Fe) -> [__m512i; 4] {
    let [a, b, c, d, e] = element.canonical().0;
    [
        _mm512_or_si512(a, _mm512_slli_epi64::<51>(b)),
        _mm512_or_si512(_mm512_srli_epi64::<13>(b), _mm512_slli_epi64::<38>(c)),
        _mm512_or_si512(_mm512_srli_epi64::<26>(c), _mm512_slli_epi64::<25>(d)),
        _mm512_or_si512(_mm512_srli_epi64::<39>(d), _mm512_slli_epi64::<12>(e)),
    ]
}

#[cfg(test)]
mod tests;
