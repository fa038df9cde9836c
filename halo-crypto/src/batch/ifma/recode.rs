//! Scalars to signed digits, eight at a time, in constant time.

use std::arch::x86_64::{
    __m512i, _mm_cvtsi64_si128, _mm_cvtsi128_si64, _mm512_add_epi64, _mm512_and_si512, _mm512_cmpgt_epi64_mask,
    _mm512_cvtepi8_epi64, _mm512_cvtepi64_epi8, _mm512_mask_sub_epi64, _mm512_maskz_set1_epi64, _mm512_or_si512,
    _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sllv_epi64, _mm512_srlv_epi64,
};

use zeroize::Zeroize;

use super::lanes::Words;

/// `COUNT` digits in radix 2^`WIDTH` of each of eight scalars, the least significant first, from −(2^(WIDTH−1) − 1) to
/// 2^(WIDTH−1): one byte a lane. Wiped when dropped.
pub(super) struct Digits<const WIDTH: u32, const COUNT: usize>([u64; COUNT]);

impl<const WIDTH: u32, const COUNT: usize> Digits<WIDTH, COUNT> {
    /// Recodes scalars below 2^255. All of their bits must fit: a scalar below 2^254 leaves at least one bit of the last
    /// digit for the carry.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn new(scalars: &Words) -> Self {
        const { assert!(WIDTH < 8 && WIDTH as usize * COUNT >= 255) };
        let radix = _mm512_set1_epi64(1 << WIDTH);
        let half = _mm512_set1_epi64(1 << (WIDTH - 1));
        let mask = _mm512_set1_epi64((1 << WIDTH) - 1);
        let mut carry = _mm512_setzero_si512();
        let mut digits = [0; COUNT];
        for (position, digit) in digits.iter_mut().enumerate() {
            let from = position as u32 * WIDTH;
            let (word, shift) = ((from / 64) as usize, i64::from(from % 64));
            let mut bits = _mm512_srlv_epi64(scalars.0[word], _mm512_set1_epi64(shift));
            if shift + i64::from(WIDTH) > 64 && word < 3 {
                let next = _mm512_sllv_epi64(scalars.0[word + 1], _mm512_set1_epi64(64 - shift));
                bits = _mm512_or_si512(bits, next);
            }
            let raw = _mm512_add_epi64(_mm512_and_si512(bits, mask), carry);
            let above = _mm512_cmpgt_epi64_mask(raw, half);
            carry = _mm512_maskz_set1_epi64(above, 1);
            let signed = _mm512_mask_sub_epi64(raw, above, raw, radix);
            *digit = _mm_cvtsi128_si64(_mm512_cvtepi64_epi8(signed)).cast_unsigned();
        }
        Self(digits)
    }

    /// The eight digits at a position.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn at(&self, position: usize) -> __m512i {
        _mm512_cvtepi8_epi64(_mm_cvtsi64_si128(self.0[position].cast_signed()))
    }
}

impl<const WIDTH: u32, const COUNT: usize> Drop for Digits<WIDTH, COUNT> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}
