//! Scalars to odd digits, eight at a time, in constant time.

use std::arch::x86_64::{
    __m512i, __mmask8, _mm512_add_epi64, _mm512_cmplt_epu64_mask, _mm512_mask_andnot_epi64, _mm512_maskz_set1_epi64,
    _mm512_or_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_sllv_epi64, _mm512_srli_epi64, _mm512_srlv_epi64,
    _mm512_test_epi64_mask, _mm512_testn_epi64_mask,
};

use zeroize::Zeroize;

use super::{
    LANES,
    lanes::{Words, load, store},
};
use crate::group::Scalar;

/// ℓ = 2^252 + 27742317777372353535851937790883648493, the order of the group.
const ORDER: [u64; 4] = [0x5812_631a_5cf5_d3ed, 0x14de_f9de_a2f7_9cd6, 0, 0x1000_0000_0000_0000];

/// `COUNT` odd digits in radix 2^`WIDTH` of each of eight scalars modulo ℓ, the least significant first, from
/// −(2^`WIDTH` − 1) to 2^`WIDTH` − 1: no digit is zero, so tables hold odd multiples only (Joye and Tunstall 2009).
///
/// An odd scalar 2k + 1, where k has the digits g in radix 2^`WIDTH`, has the digits 2g − (2^`WIDTH` − 1), and the last one
/// 2g + 1: no carries, so what is kept is k. An even scalar is odd with ℓ added. Wiped when dropped.
pub(super) struct Digits<const WIDTH: u32, const COUNT: usize>([[u64; LANES]; 4]);

impl<const WIDTH: u32, const COUNT: usize> Digits<WIDTH, COUNT> {
    /// Of as many scalars as there are, eight by eight. Each is recoded in its place: nothing of it stays elsewhere.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn of<'a>(eights: impl ExactSizeIterator<Item = &'a [Scalar]>) -> Vec<Self> {
        let mut all: Vec<Self> = std::iter::repeat_with(|| Self([[0; LANES]; 4])).take(eights.len()).collect();
        for (digits, eight) in all.iter_mut().zip(eights) {
            digits.recode(&Words::of_each(eight));
        }
        all
    }

    /// Of one scalar for all lanes.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn of_one(scalar: &Scalar) -> Vec<Self> {
        let mut all = vec![Self([[0; LANES]; 4])];
        for digits in &mut all {
            digits.recode(&Words::of_one(scalar));
        }
        all
    }

    /// Recodes scalars below ℓ.
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn recode(&mut self, scalars: &Words) {
        // k is below 2^253, and the last digit of it below 2^(WIDTH − 1).
        const { assert!(WIDTH < 8 && WIDTH as usize * COUNT > 253 && WIDTH as usize * (COUNT - 1) < 256) };
        let odd = odd(scalars).0;
        for (number, word) in self.0.iter_mut().enumerate() {
            let mut bits = _mm512_srli_epi64::<1>(odd[number]);
            if let Some(next) = odd.get(number + 1) {
                bits = _mm512_or_si512(bits, _mm512_sllv_epi64(*next, _mm512_set1_epi64(63)));
            }
            *word = store(bits);
        }
    }

    /// The eight digits at a position.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn at(&self, position: usize) -> Digit {
        let from = position as u32 * WIDTH;
        let (word, shift) = ((from / 64) as usize, i64::from(from % 64));
        let mut bits = _mm512_srlv_epi64(load(&self.0[word]), _mm512_set1_epi64(shift));
        if !64_u32.is_multiple_of(WIDTH) && word < 3 {
            // A shift by 64 or more leaves nothing.
            let next = _mm512_sllv_epi64(load(&self.0[word + 1]), _mm512_set1_epi64(64 - shift));
            bits = _mm512_or_si512(bits, next);
        }
        let last = position + 1 == COUNT;
        let negative = if last { 0 } else { _mm512_testn_epi64_mask(bits, _mm512_set1_epi64(1 << (WIDTH - 1))) };
        Digit { places: _mm512_mask_andnot_epi64(bits, negative, bits, _mm512_set1_epi64(-1)), negative }
    }
}

impl<const WIDTH: u32, const COUNT: usize> Drop for Digits<WIDTH, COUNT> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

/// Scalars below ℓ where they are odd, ℓ more where they are even.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
fn odd(scalars: &Words) -> Words {
    let even = _mm512_testn_epi64_mask(scalars.0[0], _mm512_set1_epi64(1));
    let mut words = scalars.0;
    let mut carry = _mm512_setzero_si512();
    for (word, order) in words.iter_mut().zip(ORDER) {
        let with_carry = _mm512_add_epi64(*word, carry);
        let sum = _mm512_add_epi64(with_carry, _mm512_maskz_set1_epi64(even, order.cast_signed()));
        let over = _mm512_cmplt_epu64_mask(with_carry, carry) | _mm512_cmplt_epu64_mask(sum, with_carry);
        *word = sum;
        carry = _mm512_maskz_set1_epi64(over, 1);
    }
    Words(words)
}

/// One odd digit of each of eight scalars: 2p + 1 or −(2p + 1), where p is its place in a table of odd multiples.
#[derive(Clone, Copy)]
pub(super) struct Digit {
    /// The places, in the lowest `WIDTH` − 1 bits; what stands above them is of no meaning.
    pub(super) places: __m512i,
    /// Lanes whose digit is negative.
    pub(super) negative: __mmask8,
}

impl Digit {
    /// Lanes whose place has this bit.
    #[inline]
    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    pub(super) fn bit(self, bit: u32) -> __mmask8 {
        _mm512_test_epi64_mask(self.places, _mm512_set1_epi64(1 << bit))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{batch::ifma::Ifma, group::Scalar};

    #[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
    fn digits<const WIDTH: u32, const COUNT: usize>(scalars: &[Scalar]) -> Vec<[i64; LANES]> {
        let [digits] = Digits::<WIDTH, COUNT>::of(std::iter::once(scalars)).try_into().ok().unwrap();
        let mut all = Vec::new();
        for position in 0..COUNT {
            let digit = digits.at(position);
            let (places, negative) = (store(digit.places), digit.negative);
            let bits: Vec<_> = (0..WIDTH - 1).map(|bit| digit.bit(bit)).collect();
            all.push(std::array::from_fn(|lane| {
                let place = places[lane] & ((1 << (WIDTH - 1)) - 1);
                for (bit, lanes) in bits.iter().enumerate() {
                    assert_eq!(place >> bit & 1, u64::from(lanes >> lane & 1));
                }
                let magnitude = 2 * place.cast_signed() + 1;
                if negative >> lane & 1 == 1 { -magnitude } else { magnitude }
            }));
        }
        all
    }

    fn check<const WIDTH: u32, const COUNT: usize>(scalars: &[Scalar; LANES]) {
        // SAFETY: the caller has seen the features.
        let digits = unsafe { digits::<WIDTH, COUNT>(scalars) };
        for (lane, scalar) in scalars.iter().enumerate() {
            let mut sum = Scalar::from(0);
            for digit in digits.iter().rev().map(|digits| digits[lane]) {
                assert!(digit.unsigned_abs() < 1 << WIDTH && digit & 1 == 1, "digit {digit}");
                let magnitude = Scalar::from(digit.unsigned_abs());
                sum = sum * Scalar::from(1 << WIDTH) + if digit < 0 { -magnitude } else { magnitude };
            }
            assert!(sum == *scalar, "scalar {:x?}", scalar.to_bytes());
        }
    }

    #[test]
    fn digits_add_up_and_stay_in_range() {
        if Ifma::detect().is_none() {
            println!("SKIPPED: this CPU has no AVX-512 IFMA, the vectorised backend is not tested");
            return;
        }
        let repeated = |byte: u8| {
            let mut bytes = [byte; 32];
            bytes[31] &= 0x0f;
            Scalar::from_canonical(bytes).unwrap()
        };
        for byte in 0..=u8::MAX {
            let mut scalars = [repeated(byte); LANES];
            scalars[1] = -scalars[0];
            scalars[2] = Scalar::from_wide(&[byte; 64]);
            scalars[3] = Scalar::from(u64::from(byte));
            scalars[4] = -scalars[3];
            check::<4, 64>(&scalars);
            check::<6, 43>(&scalars);
        }
    }
}
