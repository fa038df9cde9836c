//! Into the lanes and out of them.

use std::arch::x86_64::{__m512i, _mm512_loadu_si512, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_storeu_si512};

use zeroize::Zeroize;

use super::{LANES, field::Fe, point::Extended};
use crate::group::{
    ELEMENT_BYTES, Scalar,
    coordinates::{Coordinates, Field},
};

/// Reads eight lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load(lanes: &[u64; LANES]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and an unaligned load reads no more.
    unsafe { _mm512_loadu_si512(lanes.as_ptr().cast()) }
}

/// Writes eight lanes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store(register: __m512i) -> [u64; LANES] {
    let mut lanes = [0; LANES];
    // SAFETY: the array is 64 writable bytes, and an unaligned store writes no more.
    unsafe { _mm512_storeu_si512(lanes.as_mut_ptr().cast(), register) };
    lanes
}

/// Four 64-bit words for each lane, little endian: a scalar or an encoding.
pub(super) struct Words(pub(super) [__m512i; 4]);

impl Words {
    /// Of at most eight strings; further lanes are zero.
    #[target_feature(enable = "avx512f")]
    pub(super) fn new<'a>(strings: impl Iterator<Item = &'a [u8; ELEMENT_BYTES]>) -> Self {
        let mut lanes = [[0; LANES]; 4];
        for (lane, string) in strings.take(LANES).enumerate() {
            for (word, bytes) in lanes.iter_mut().zip(string.as_chunks().0) {
                word[lane] = u64::from_le_bytes(*bytes);
            }
        }
        let mut words = [_mm512_setzero_si512(); 4];
        for k in 0..4 {
            words[k] = load(&lanes[k]);
        }
        lanes.zeroize();
        Self(words)
    }

    /// Of at most eight scalars; further lanes are zero.
    #[target_feature(enable = "avx512f")]
    pub(super) fn of_each(scalars: &[Scalar]) -> Self {
        Self::new(scalars.iter().map(|scalar| scalar.0.as_bytes()))
    }

    /// The same scalar in every lane.
    #[target_feature(enable = "avx512f")]
    pub(super) fn of_one(scalar: &Scalar) -> Self {
        let mut words = [_mm512_setzero_si512(); 4];
        for (word, bytes) in words.iter_mut().zip(scalar.0.as_bytes().as_chunks().0) {
            *word = _mm512_set1_epi64(i64::from_le_bytes(*bytes));
        }
        Self(words)
    }

    /// As bytes.
    #[target_feature(enable = "avx512f")]
    pub(super) fn to_bytes(&self) -> [[u8; ELEMENT_BYTES]; LANES] {
        let mut strings = [[0; ELEMENT_BYTES]; LANES];
        for (k, word) in self.0.iter().enumerate() {
            for (string, lane) in strings.iter_mut().zip(store(*word)) {
                string[8 * k..8 * k + 8].copy_from_slice(&lane.to_le_bytes());
            }
        }
        strings
    }
}

/// Eight points on their way into the lanes or out of them: the lanes of each limb of X, Y, Z and T.
#[derive(Clone, Zeroize)]
pub(super) struct Eight([[[u64; LANES]; 5]; 4]);

impl Eight {
    /// At most eight points, with identities behind them.
    pub(super) fn new<'a>(points: impl Iterator<Item = &'a Coordinates>) -> Self {
        let mut eight = Self::identity();
        for (lane, point) in points.take(LANES).enumerate() {
            eight.set(lane, point);
        }
        eight
    }

    /// Identities.
    pub(super) const fn identity() -> Self {
        let (zero, one) = ([[0; LANES]; 5], [[1; LANES], [0; LANES], [0; LANES], [0; LANES], [0; LANES]]);
        Self([zero, one, one, zero])
    }

    /// Puts a point into a lane.
    #[inline]
    pub(super) fn set(&mut self, lane: usize, point: &Coordinates) {
        for (limbs, field) in self.0.iter_mut().zip([&point.x, &point.y, &point.z, &point.t]) {
            for (lanes, limb) in limbs.iter_mut().zip(field.0) {
                lanes[lane] = limb;
            }
        }
    }

    /// The point in a lane.
    #[inline]
    pub(super) fn get(&self, lane: usize) -> Coordinates {
        let [x, y, z, t] = [0, 1, 2, 3].map(|field| Field(std::array::from_fn(|limb| self.0[field][limb][lane])));
        Coordinates { x, y, z, t }
    }
}

/// Into the lanes.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn gather(points: &Eight) -> Extended {
    let mut fields = [Fe::zero(); 4];
    for (field, limbs) in fields.iter_mut().zip(&points.0) {
        for (limb, lanes) in field.0.iter_mut().zip(limbs) {
            *limb = load(lanes);
        }
    }
    let [x, y, z, t] = fields;
    Extended { x, y, z, t }
}

/// Out of the lanes.
#[target_feature(enable = "avx512f,avx512dq,avx512ifma")]
pub(super) fn scatter(point: &Extended) -> Eight {
    let mut points = Eight::identity();
    for (limbs, field) in points.0.iter_mut().zip([&point.x, &point.y, &point.z, &point.t]) {
        for (lanes, limb) in limbs.iter_mut().zip(field.0) {
            *lanes = store(limb);
        }
    }
    points
}
