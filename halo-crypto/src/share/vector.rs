//! Vector instructions: AES-256 in counter mode on four blocks a register, rejection of candidates on 64 bytes a register,
//! and everybody's loops compiled for AVX-512.
//!
//! [`Vector`] is the ticket: whoever has one runs on a CPU that has the instructions. All results are those of the
//! portable code, bit for bit.
//!
//! # Constant time
//! Keys, counters and candidates are data of instructions whose time does not depend on them; there is no table. How many
//! candidates are taken decides where the next are written: that much is told by the portable code, too, and nothing
//! about which numbers they are.
//!
//! # Cost
//! 64 bytes of the stream are 14 rounds at one instruction a cycle (Zen 4): 0.22 cycles a byte, which eight registers
//! side by side reach.

use std::arch::x86_64::{
    __m128i, __m512i, _mm_aeskeygenassist_si128, _mm_loadu_si128, _mm_shuffle_epi32, _mm_slli_si128, _mm_storeu_si128,
    _mm_xor_si128, _mm512_add_epi64, _mm512_aesenc_epi128, _mm512_aesenclast_epi128, _mm512_and_si512,
    _mm512_broadcast_i32x4, _mm512_cmplt_epu8_mask, _mm512_cmplt_epu64_mask, _mm512_loadu_si512, _mm512_mask_add_epi64,
    _mm512_maskz_compress_epi8, _mm512_set_epi8, _mm512_set_epi64, _mm512_set1_epi8, _mm512_set1_epi64,
    _mm512_shuffle_epi8, _mm512_storeu_si512, _mm512_sub_epi8, _mm512_xor_si512,
};

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::{KEY_BYTES, generator::Wanted};

/// Bytes of a register.
const REGISTER: usize = 64;
/// Registers that are encrypted side by side.
const SIDE_BY_SIDE: usize = 8;
/// Blocks in a register.
const BLOCKS: usize = 4;
/// Bytes of the stream that are made at once.
const DRAWN: usize = REGISTER * SIDE_BY_SIDE;
const ROUNDS: usize = 14;

/// Proof that this CPU has the instructions: there is no other way to get one than [`Vector::detect`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Vector(());

impl Vector {
    /// Whether the CPU, and the operating system, support what this module is compiled for.
    pub(super) fn detect() -> Option<Self> {
        (is_x86_feature_detected!("aes")
            && is_x86_feature_detected!("vaes")
            && is_x86_feature_detected!("avx512f")
            && is_x86_feature_detected!("avx512bw")
            && is_x86_feature_detected!("avx512dq")
            && is_x86_feature_detected!("avx512vbmi2"))
        .then_some(Self(()))
    }

    /// Runs a computation whose loops the compiler then makes vector instructions of; what `work` calls has to be inlined.
    pub(super) fn run<T>(self, work: impl FnOnce() -> T) -> T {
        #[target_feature(enable = "avx512f,avx512bw,avx512dq")]
        fn compiled_for<T>(work: impl FnOnce() -> T) -> T {
            work()
        }
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { compiled_for(work) }
    }

    /// Writes the candidates that are wanted to the front of `accepted`, one after the other, as long as a register has
    /// room behind them. Answers how many candidates were looked at, and how many were wanted.
    pub(super) fn accept(self, candidates: &[u8], wanted: Wanted, accepted: &mut [u8]) -> (usize, usize) {
        // SAFETY: `self` proves that the CPU has the features.
        unsafe { accept(candidates, wanted, accepted) }
    }
}

/// The stream of a key from a counter on.
#[derive(Zeroize, ZeroizeOnDrop)]
pub(super) struct Stream {
    #[zeroize(skip)]
    vector: Vector,
    keys: [[u8; 16]; ROUNDS + 1],
    counter: u128,
    surplus: [u8; DRAWN],
    /// Bytes at the end of `surplus` that are still to be handed out.
    left: usize,
}

impl Stream {
    pub(super) fn new(vector: Vector, key: &[u8; KEY_BYTES], counter: u128) -> Self {
        // SAFETY: the ticket proves that the CPU has the features.
        let keys = unsafe { round_keys(key) };
        Self { vector, keys, counter, surplus: [0; DRAWN], left: 0 }
    }

    /// The ticket that this stream was made with.
    pub(super) fn vector(&self) -> Option<Vector> {
        Some(self.vector)
    }

    /// The next bytes.
    pub(super) fn bytes(&mut self, out: &mut [u8]) {
        let (first, out) = out.split_at_mut(self.left.min(out.len()));
        let unread = &self.surplus[DRAWN - self.left..];
        first.copy_from_slice(&unread[..first.len()]);
        self.left -= first.len();
        let (whole, rest) = out.as_chunks_mut();
        // SAFETY: the ticket proves that the CPU has the features.
        unsafe { keystream(&self.keys, &mut self.counter, whole) };
        if !rest.is_empty() {
            // SAFETY: the ticket proves that the CPU has the features.
            unsafe { keystream(&self.keys, &mut self.counter, std::slice::from_mut(&mut self.surplus)) };
            self.left = DRAWN - rest.len();
            rest.copy_from_slice(&self.surplus[..rest.len()]);
        }
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load_block(block: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes, and an unaligned load reads no more.
    unsafe { _mm_loadu_si128(block.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; REGISTER]) -> __m512i {
    // SAFETY: the reference is to 64 readable bytes, and an unaligned load reads no more.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn store(register: __m512i, bytes: &mut [u8; REGISTER]) {
    // SAFETY: the reference is to 64 writable bytes, and an unaligned store writes no more.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), register) };
}

/// FIPS 197, 5.2: round keys two at a time, the first of each pair from the second of the pair before with a constant, the
/// second without.
#[target_feature(enable = "aes,sse2")]
fn round_keys(key: &[u8; KEY_BYTES]) -> [[u8; 16]; ROUNDS + 1] {
    /// Each word plus all before it, which is what the recurrence comes to, plus the same word in all places.
    #[inline]
    #[target_feature(enable = "sse2")]
    fn chain(mut words: __m128i, with: __m128i) -> __m128i {
        for _ in 0..3 {
            words = _mm_xor_si128(words, _mm_slli_si128::<4>(words));
        }
        _mm_xor_si128(words, with)
    }
    #[inline]
    #[target_feature(enable = "aes,sse2")]
    fn next<const CONSTANT: i32>([first, second]: [__m128i; 2]) -> [__m128i; 2] {
        let rotated = _mm_shuffle_epi32::<0xff>(_mm_aeskeygenassist_si128::<CONSTANT>(second));
        let first = chain(first, rotated);
        let substituted = _mm_shuffle_epi32::<0xaa>(_mm_aeskeygenassist_si128::<0>(first));
        [first, chain(second, substituted)]
    }

    let (halves, _) = key.as_chunks();
    let pair = [load_block(&halves[0]), load_block(&halves[1])];
    let mut pairs = [pair; 8];
    pairs[1] = next::<0x01>(pairs[0]);
    pairs[2] = next::<0x02>(pairs[1]);
    pairs[3] = next::<0x04>(pairs[2]);
    pairs[4] = next::<0x08>(pairs[3]);
    pairs[5] = next::<0x10>(pairs[4]);
    pairs[6] = next::<0x20>(pairs[5]);
    pairs[7] = next::<0x40>(pairs[6]);
    let mut keys = [[0; 16]; ROUNDS + 1];
    for (bytes, key) in keys.iter_mut().zip(pairs.as_flattened()) {
        // SAFETY: the reference is to 16 writable bytes, and an unaligned store writes no more.
        unsafe { _mm_storeu_si128(bytes.as_mut_ptr().cast(), *key) };
    }
    keys
}

/// The stream from `counter` on, which then stands behind it.
#[target_feature(enable = "avx512f,avx512bw,vaes")]
fn keystream(keys: &[[u8; 16]; ROUNDS + 1], counter: &mut u128, out: &mut [[u8; DRAWN]]) {
    let mut round_keys = [_mm512_set1_epi64(0); ROUNDS + 1];
    for (register, key) in round_keys.iter_mut().zip(keys) {
        *register = _mm512_broadcast_i32x4(load_block(key));
    }
    // A counter is a big-endian number of 16 bytes.
    #[rustfmt::skip]
    let reversed = _mm512_set_epi8(
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
        0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15,
    );
    let ones = _mm512_set1_epi64(1);
    for out in out {
        let (low, high) = (*counter as i64, (*counter >> 64) as i64);
        let first = _mm512_set_epi64(high, low, high, low, high, low, high, low);
        let mut blocks = [first; SIDE_BY_SIDE];
        for (k, block) in (0..).step_by(BLOCKS).zip(&mut blocks) {
            let sum = _mm512_add_epi64(first, _mm512_set_epi64(0, k + 3, 0, k + 2, 0, k + 1, 0, k));
            // Where a low half has become smaller, one is carried into the high half beside it.
            let carries = _mm512_cmplt_epu64_mask(sum, first) << 1;
            let sum = _mm512_mask_add_epi64(sum, carries, sum, ones);
            *block = _mm512_xor_si512(_mm512_shuffle_epi8(sum, reversed), round_keys[0]);
        }
        for key in &round_keys[1..ROUNDS] {
            blocks.iter_mut().for_each(|block| *block = _mm512_aesenc_epi128(*block, *key));
        }
        for (block, out) in blocks.iter().zip(out.as_chunks_mut().0) {
            store(_mm512_aesenclast_epi128(*block, round_keys[ROUNDS]), out);
        }
        *counter = counter.wrapping_add((SIDE_BY_SIDE * BLOCKS) as u128);
    }
}

/// See [`Vector::accept`].
#[target_feature(enable = "avx512f,avx512bw,avx512vbmi2")]
fn accept(candidates: &[u8], wanted: Wanted, accepted: &mut [u8]) -> (usize, usize) {
    let [mask, first, count] =
        [wanted.mask, wanted.first, wanted.count].map(|byte| _mm512_set1_epi8(byte.cast_signed()));
    let (mut seen, mut taken) = (0, 0);
    for register in candidates.as_chunks().0 {
        let Some(room) = accepted[taken..].first_chunk_mut() else { break };
        let masked = _mm512_and_si512(load(register), mask);
        let good = _mm512_cmplt_epu8_mask(_mm512_sub_epi8(masked, first), count);
        store(_mm512_maskz_compress_epi8(good, masked), room);
        seen += REGISTER;
        taken += good.count_ones() as usize;
    }
    (seen, taken)
}
