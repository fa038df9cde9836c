//! The compression function of FIPS 180-4 for two messages, with the SHA instructions of x86.
//!
//! An instruction does two rounds and takes four cycles, but another can begin every second one (Zen 4): 64 bytes are 128
//! cycles for one message, and 140 for two.

use std::arch::x86_64::{
    __m128i, _mm_add_epi32, _mm_alignr_epi8, _mm_loadu_si128, _mm_set_epi64x, _mm_setr_epi32, _mm_sha256msg1_epu32,
    _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32, _mm_shuffle_epi8, _mm_shuffle_epi32, _mm_storeu_si128,
};

const BLOCK: usize = 64;
/// Words of a state in the order of the instructions: A, B, E, F in one register, C, D, G, H in the other, the first
/// highest.
const ORDER: [usize; 8] = [5, 4, 1, 0, 7, 6, 3, 2];

/// FIPS 180-4, 5.3.3.
const FIRST: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// FIPS 180-4, 4.2.2, for four rounds each.
#[rustfmt::skip]
const ROUNDS: [[i32; 4]; 16] = {
    const K: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5], [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3], [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc], [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7], [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13], [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3], [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5], [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208], [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];
    let mut rounds = [[0; 4]; 16];
    let mut i = 0;
    while i < 64 {
        rounds[i / 4][i % 4] = K[i / 4][i % 4].cast_signed();
        i += 1;
    }
    rounds
};

/// Two messages under way, on a CPU that has the instructions.
pub(super) struct Pair {
    states: [[u32; 8]; 2],
    /// The beginnings of blocks that are not full.
    rest: [[u8; BLOCK]; 2],
    /// Bytes of each message so far.
    length: u64,
}

impl Pair {
    /// Two empty messages, or none where the CPU or the operating system lacks the instructions.
    pub(super) fn new() -> Option<Self> {
        let supported =
            is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3");
        supported.then(|| Self { states: [ORDER.map(|word| FIRST[word]); 2], rest: [[0; BLOCK]; 2], length: 0 })
    }

    /// Appends to both; the parts are equally long.
    pub(super) fn update(&mut self, parts: [&[u8]; 2]) {
        let begun = (self.length % BLOCK as u64) as usize;
        let first = if begun == 0 { 0 } else { parts[0].len().min(BLOCK - begun) };
        for (rest, part) in self.rest.iter_mut().zip(parts) {
            rest[begun..begun + first].copy_from_slice(&part[..first]);
        }
        if begun > 0 && begun + first == BLOCK {
            let block = self.rest;
            self.compress(block.each_ref().map(std::slice::from_ref));
        }
        let [one, two] = parts.map(|part| part[first..].as_chunks());
        self.compress([one.0, two.0]);
        for (rest, last) in self.rest.iter_mut().zip([one.1, two.1]) {
            rest[..last.len()].copy_from_slice(last);
        }
        self.length += parts[0].len() as u64;
    }

    /// FIPS 180-4, 5.1.1: a one, zeros, and the length in bits at the end of a block.
    pub(super) fn finish(mut self) -> [[u8; 32]; 2] {
        let bits = (8 * self.length).to_be_bytes();
        let mut padding = [0; 2 * BLOCK];
        padding[0] = 0x80;
        let begun = (self.length % BLOCK as u64) as usize;
        let end = if begun < BLOCK - bits.len() { BLOCK - begun } else { 2 * BLOCK - begun };
        padding[end - bits.len()..end].copy_from_slice(&bits);
        self.update([&padding[..end]; 2]);
        self.states.map(|state| {
            let mut digest = [0; 32];
            for (value, word) in state.into_iter().zip(ORDER) {
                digest[4 * word..4 * word + 4].copy_from_slice(&value.to_be_bytes());
            }
            digest
        })
    }

    fn compress(&mut self, blocks: [&[[u8; BLOCK]]; 2]) {
        // SAFETY: there is no other way to get a `Pair` than `new`, which asks for the features.
        unsafe { compress(&mut self.states, blocks) }
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is to 16 readable bytes, and an unaligned load reads no more.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "sse2")]
fn words(words: [i32; 4]) -> __m128i {
    _mm_setr_epi32(words[0], words[1], words[2], words[3])
}

/// FIPS 180-4, 6.2.2.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress(states: &mut [[u32; 8]; 2], blocks: [&[[u8; BLOCK]]; 2]) {
    let big_endian = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    let mut registers = [[big_endian; 2]; 2];
    for (registers, state) in registers.iter_mut().zip(states.iter()) {
        for (register, half) in registers.iter_mut().zip(state.as_chunks().0) {
            *register = words(half.map(u32::cast_signed));
        }
    }
    for pair in blocks[0].iter().zip(blocks[1]) {
        let before = registers;
        let mut schedule = [[big_endian; 4]; 2];
        for (schedule, block) in schedule.iter_mut().zip([pair.0, pair.1]) {
            for (word, bytes) in schedule.iter_mut().zip(block.as_chunks().0) {
                *word = _mm_shuffle_epi8(load(bytes), big_endian);
            }
        }
        for (sixteen, rounds) in ROUNDS.as_chunks::<4>().0.iter().enumerate() {
            for i in 0..4 {
                let mut sums = [big_endian; 2];
                for ((sum, schedule), [abef, cdgh]) in sums.iter_mut().zip(&schedule).zip(&mut registers) {
                    *sum = _mm_add_epi32(schedule[i], words(rounds[i]));
                    *cdgh = _mm_sha256rnds2_epu32(*cdgh, *abef, *sum);
                }
                for (sum, [abef, cdgh]) in sums.iter().zip(&mut registers) {
                    *abef = _mm_sha256rnds2_epu32(*abef, *cdgh, _mm_shuffle_epi32::<0x0e>(*sum));
                }
                if sixteen < 3 {
                    for schedule in &mut schedule {
                        let [w0, w1, w2, w3] = [0, 1, 2, 3].map(|k| schedule[(i + k) % 4]);
                        let sum = _mm_add_epi32(_mm_sha256msg1_epu32(w0, w1), _mm_alignr_epi8::<4>(w3, w2));
                        schedule[i] = _mm_sha256msg2_epu32(sum, w3);
                    }
                }
            }
        }
        for (registers, before) in registers.iter_mut().flatten().zip(before.as_flattened()) {
            *registers = _mm_add_epi32(*registers, *before);
        }
    }
    for (state, registers) in states.iter_mut().zip(registers) {
        for (half, register) in state.as_chunks_mut::<4>().0.iter_mut().zip(registers) {
            // SAFETY: the reference is to 16 writable bytes, and an unaligned store writes no more.
            unsafe { _mm_storeu_si128(half.as_mut_ptr().cast(), register) };
        }
    }
}
