//! SHA-512 (FIPS 180-4) of eight messages at once, one in each lane: what hashing to the group needs.
//!
//! Everything is 64-bit additions, rotations and three-operand logic, each one instruction; no branch and no address depends
//! on a message.

use std::{
    arch::x86_64::{
        __m512i, _mm512_add_epi64, _mm512_ror_epi64, _mm512_set1_epi64, _mm512_setzero_si512, _mm512_srli_epi64,
        _mm512_ternarylogic_epi64,
    },
    sync::OnceLock,
};

use zeroize::{Zeroize, Zeroizing};

use super::{
    LANES,
    lanes::{load, store},
};

/// Bytes of a block.
const BLOCK_BYTES: usize = 128;
/// Words of a block.
const WORDS: usize = BLOCK_BYTES / 8;
/// Blocks of a string, at most.
const BLOCKS: usize = 2;
/// Bytes of a hash.
const HASH_BYTES: usize = 64;

/// 64 bits of the fractional parts of the square roots of the first eight primes.
const INITIAL: [u64; 8] = [
    0x6a09_e667_f3bc_c908,
    0xbb67_ae85_84ca_a73b,
    0x3c6e_f372_fe94_f82b,
    0xa54f_f53a_5f1d_36f1,
    0x510e_527f_ade6_82d1,
    0x9b05_688c_2b3e_6c1f,
    0x1f83_d9ab_fb41_bd6b,
    0x5be0_cd19_137e_2179,
];

/// 64 bits of the fractional parts of the cube roots of the first eighty primes.
const ROUNDS: [u64; 80] = [
    0x428a_2f98_d728_ae22,
    0x7137_4491_23ef_65cd,
    0xb5c0_fbcf_ec4d_3b2f,
    0xe9b5_dba5_8189_dbbc,
    0x3956_c25b_f348_b538,
    0x59f1_11f1_b605_d019,
    0x923f_82a4_af19_4f9b,
    0xab1c_5ed5_da6d_8118,
    0xd807_aa98_a303_0242,
    0x1283_5b01_4570_6fbe,
    0x2431_85be_4ee4_b28c,
    0x550c_7dc3_d5ff_b4e2,
    0x72be_5d74_f27b_896f,
    0x80de_b1fe_3b16_96b1,
    0x9bdc_06a7_25c7_1235,
    0xc19b_f174_cf69_2694,
    0xe49b_69c1_9ef1_4ad2,
    0xefbe_4786_384f_25e3,
    0x0fc1_9dc6_8b8c_d5b5,
    0x240c_a1cc_77ac_9c65,
    0x2de9_2c6f_592b_0275,
    0x4a74_84aa_6ea6_e483,
    0x5cb0_a9dc_bd41_fbd4,
    0x76f9_88da_8311_53b5,
    0x983e_5152_ee66_dfab,
    0xa831_c66d_2db4_3210,
    0xb003_27c8_98fb_213f,
    0xbf59_7fc7_beef_0ee4,
    0xc6e0_0bf3_3da8_8fc2,
    0xd5a7_9147_930a_a725,
    0x06ca_6351_e003_826f,
    0x1429_2967_0a0e_6e70,
    0x27b7_0a85_46d2_2ffc,
    0x2e1b_2138_5c26_c926,
    0x4d2c_6dfc_5ac4_2aed,
    0x5338_0d13_9d95_b3df,
    0x650a_7354_8baf_63de,
    0x766a_0abb_3c77_b2a8,
    0x81c2_c92e_47ed_aee6,
    0x9272_2c85_1482_353b,
    0xa2bf_e8a1_4cf1_0364,
    0xa81a_664b_bc42_3001,
    0xc24b_8b70_d0f8_9791,
    0xc76c_51a3_0654_be30,
    0xd192_e819_d6ef_5218,
    0xd699_0624_5565_a910,
    0xf40e_3585_5771_202a,
    0x106a_a070_32bb_d1b8,
    0x19a4_c116_b8d2_d0c8,
    0x1e37_6c08_5141_ab53,
    0x2748_774c_df8e_eb99,
    0x34b0_bcb5_e19b_48a8,
    0x391c_0cb3_c5c9_5a63,
    0x4ed8_aa4a_e341_8acb,
    0x5b9c_ca4f_7763_e373,
    0x682e_6ff3_d6b2_b8a3,
    0x748f_82ee_5def_b2fc,
    0x78a5_636f_4317_2f60,
    0x84c8_7814_a1f0_ab72,
    0x8cc7_0208_1a64_39ec,
    0x90be_fffa_2363_1e28,
    0xa450_6ceb_de82_bde9,
    0xbef9_a3f7_b2c6_7915,
    0xc671_78f2_e372_532b,
    0xca27_3ece_ea26_619c,
    0xd186_b8c7_21c0_c207,
    0xeada_7dd6_cde0_eb1e,
    0xf57d_4f7f_ee6e_d178,
    0x06f0_67aa_7217_6fba,
    0x0a63_7dc5_a2c8_98a6,
    0x113f_9804_bef9_0dae,
    0x1b71_0b35_131c_471b,
    0x28db_77f5_2304_7d84,
    0x32ca_ab7b_40c7_2493,
    0x3c9e_be0a_15c9_bebc,
    0x431d_67c4_9c10_0d4c,
    0x4cc5_d4be_cb3e_42b6,
    0x597f_299c_fc65_7e2a,
    0x5fcb_6fab_3ad6_faec,
    0x6c44_198c_4a47_5817,
];

/// A chaining value in every lane.
#[derive(Clone, Copy)]
struct State([__m512i; 8]);

impl State {
    /// The same in every lane.
    #[target_feature(enable = "avx512f")]
    fn new(words: &[u64; 8]) -> Self {
        let mut state = [_mm512_setzero_si512(); 8];
        for (word, value) in state.iter_mut().zip(words) {
            *word = _mm512_set1_epi64(value.cast_signed());
        }
        Self(state)
    }

    /// Takes one block in every lane.
    #[target_feature(enable = "avx512f")]
    fn compress(&mut self, mut schedule: [__m512i; WORDS]) {
        let [mut a, mut b, mut c, mut d, mut e, mut f, mut g, mut h] = self.0;
        for (start, constants) in (0..80).step_by(16).zip(ROUNDS.as_chunks::<16>().0) {
            for (k, constant) in constants.iter().enumerate() {
                if start > 0 {
                    let from = [schedule[(k + 14) % 16], schedule[(k + 1) % 16]];
                    let near = sum([small::<19, 61, 6>(from[0]), small::<1, 8, 7>(from[1]), schedule[(k + 9) % 16]]);
                    schedule[k] = _mm512_add_epi64(schedule[k], near);
                }
                let constant = _mm512_set1_epi64(constant.cast_signed());
                // f where e has a 1, g elsewhere.
                let choice = _mm512_ternarylogic_epi64::<0xca>(e, f, g);
                let majority = _mm512_ternarylogic_epi64::<0xe8>(a, b, c);
                let first = sum([h, big::<14, 18, 41>(e), choice, constant, schedule[k]]);
                let second = _mm512_add_epi64(big::<28, 34, 39>(a), majority);
                (h, g, f, e) = (g, f, e, _mm512_add_epi64(d, first));
                (d, c, b, a) = (c, b, a, _mm512_add_epi64(first, second));
            }
        }
        for (word, new) in self.0.iter_mut().zip([a, b, c, d, e, f, g, h]) {
            *word = _mm512_add_epi64(*word, new);
        }
    }

    /// The hash of each lane.
    #[target_feature(enable = "avx512f")]
    fn to_bytes(self) -> [[u8; HASH_BYTES]; LANES] {
        let mut hashes = [[0; HASH_BYTES]; LANES];
        for (number, word) in self.0.into_iter().enumerate() {
            for (hash, lane) in hashes.iter_mut().zip(store(word)) {
                hash.as_chunks_mut().0[number] = lane.to_be_bytes();
            }
        }
        hashes
    }
}

#[inline]
#[target_feature(enable = "avx512f")]
fn sum<const TERMS: usize>(terms: [__m512i; TERMS]) -> __m512i {
    let mut sum = terms[0];
    for term in &terms[1..] {
        sum = _mm512_add_epi64(sum, *term);
    }
    sum
}

/// Three rotations, added up without carries.
#[inline]
#[target_feature(enable = "avx512f")]
fn big<const A: i32, const B: i32, const C: i32>(word: __m512i) -> __m512i {
    let turned = (_mm512_ror_epi64::<A>(word), _mm512_ror_epi64::<B>(word), _mm512_ror_epi64::<C>(word));
    _mm512_ternarylogic_epi64::<0x96>(turned.0, turned.1, turned.2)
}

/// Two rotations and a shift, added up without carries.
#[inline]
#[target_feature(enable = "avx512f")]
fn small<const A: i32, const B: i32, const C: u32>(word: __m512i) -> __m512i {
    let turned = (_mm512_ror_epi64::<A>(word), _mm512_ror_epi64::<B>(word), _mm512_srli_epi64::<C>(word));
    _mm512_ternarylogic_epi64::<0x96>(turned.0, turned.1, turned.2)
}

/// Eight strings with the padding of FIPS 180-4, 5.1.2. Wiped when dropped.
struct Padded {
    /// The lanes of each word.
    blocks: [[[u64; LANES]; WORDS]; BLOCKS],
    /// How many are in use.
    used: usize,
}

impl Padded {
    /// No strings.
    const EMPTY: Self = Self { blocks: [[[0; LANES]; WORDS]; BLOCKS], used: 0 };

    /// Takes at most eight strings, each the parts one after the other, behind `before` bytes that have been hashed already;
    /// in place, so that nothing of them stays elsewhere. None when they are not all equally many blocks, or too many.
    fn fill<'a, const PARTS: usize>(
        &mut self,
        before: usize,
        strings: impl Iterator<Item = [&'a [u8]; PARTS]>,
    ) -> Option<()> {
        let mut bytes = Zeroizing::new([0; BLOCKS * BLOCK_BYTES]);
        for (lane, parts) in strings.take(LANES).enumerate() {
            let length: usize = parts.iter().map(|part| part.len()).sum();
            // A 1 bit and 128 bits of length come behind.
            let blocks = (length + 17).div_ceil(BLOCK_BYTES);
            if blocks > BLOCKS || (self.used != 0 && self.used != blocks) {
                return None;
            }
            self.used = blocks;
            bytes.fill(0);
            let mut at = 0;
            for part in parts {
                bytes[at..at + part.len()].copy_from_slice(part);
                at += part.len();
            }
            bytes[at] = 0x80;
            let bits = 8 * (before + length) as u64;
            bytes[blocks * BLOCK_BYTES - 8..blocks * BLOCK_BYTES].copy_from_slice(&bits.to_be_bytes());
            for (lanes, word) in self.blocks[..blocks].as_flattened_mut().iter_mut().zip(bytes.as_chunks().0) {
                lanes[lane] = u64::from_be_bytes(*word);
            }
        }
        Some(())
    }

    /// A block in every lane.
    #[target_feature(enable = "avx512f")]
    fn block(&self, number: usize) -> [__m512i; WORDS] {
        let mut block = [_mm512_setzero_si512(); WORDS];
        for (word, lanes) in block.iter_mut().zip(&self.blocks[number]) {
            *word = load(lanes);
        }
        block
    }

    /// The hashes, from a state in which every lane has taken what is before.
    #[target_feature(enable = "avx512f")]
    fn hash(&self, mut state: State) -> State {
        for number in 0..self.used {
            state.compress(self.block(number));
        }
        state
    }
}

impl Drop for Padded {
    fn drop(&mut self) {
        self.blocks.as_flattened_mut().as_flattened_mut().zeroize();
    }
}

/// `expand_message_xmd` of RFC 9380, 5.3.1, for at most eight messages and 64 bytes of each. None when messages of different
/// numbers of blocks, or of more than two, do not fit side by side, or the tag is too long for one block of the second hash.
#[target_feature(enable = "avx512f")]
pub(super) fn expand(tag: &[u8], messages: &[&[u8]], uniform: &mut [[u8; HASH_BYTES]]) -> Option<()> {
    // The block of zeros comes first in every expansion: it is hashed once.
    static AFTER_ZEROS: OnceLock<[u64; 8]> = OnceLock::new();
    let after_zeros = match AFTER_ZEROS.get() {
        Some(words) => words,
        None => {
            let mut state = State::new(&INITIAL);
            state.compress([_mm512_setzero_si512(); WORDS]);
            let mut words = [0; 8];
            for (word, register) in words.iter_mut().zip(state.0) {
                *word = store(register)[0];
            }
            AFTER_ZEROS.get_or_init(|| words)
        }
    };
    let tag = [tag, &[u8::try_from(tag.len()).ok()?]].concat();
    let behind = [[0, HASH_BYTES as u8, 0].as_slice(), &tag].concat();
    let mut first = Padded::EMPTY;
    first.fill(BLOCK_BYTES, messages.iter().map(|message| [*message, &behind]))?;
    // The second string begins with the first hash, whose words stand in their lanes; the rest is the same for all.
    let mut second = Padded::EMPTY;
    second.fill(0, std::iter::once([[0; HASH_BYTES].as_slice(), &[1], &tag]))?;
    if second.used > 1 {
        return None;
    }
    let mut block = [_mm512_setzero_si512(); WORDS];
    let (words, rest) = block.split_at_mut(HASH_BYTES / 8);
    words.copy_from_slice(&first.hash(State::new(after_zeros)).0);
    for (word, lanes) in rest.iter_mut().zip(&second.blocks[0][HASH_BYTES / 8..]) {
        *word = _mm512_set1_epi64(lanes[0].cast_signed());
    }
    let mut state = State::new(&INITIAL);
    state.compress(block);
    for (place, hash) in uniform.iter_mut().zip(Zeroizing::new(state.to_bytes()).iter()) {
        *place = *hash;
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};
    use sha2::{Digest, Sha512};

    use super::*;
    use crate::batch::ifma::Ifma;

    fn fill<'a, const PARTS: usize>(before: usize, strings: impl Iterator<Item = [&'a [u8]; PARTS]>) -> Option<Padded> {
        let mut padded = Padded::EMPTY;
        padded.fill(before, strings).map(|()| padded)
    }

    #[target_feature(enable = "avx512f")]
    fn hash(padded: &Padded) -> [[u8; HASH_BYTES]; LANES] {
        padded.hash(State::new(&INITIAL)).to_bytes()
    }

    proptest! {
        #[test]
        fn lanes_hash_what_the_library_hashes(bytes in vec(any::<u8>(), 256), lengths in vec(0_usize..=238, 1..=8)) {
            if Ifma::detect().is_none() {
                println!("SKIPPED: this CPU has no AVX-512 IFMA, the vectorised backend is not tested");
                return Ok(());
            }
            let blocks = |length: usize| (length + 17).div_ceil(BLOCK_BYTES);
            let one = lengths.iter().all(|length| blocks(*length) == blocks(lengths[0]));
            // Each lane begins elsewhere, so that all are different.
            let strings: Vec<&[u8]> = lengths.iter().enumerate().map(|(lane, length)| &bytes[lane..][..*length]).collect();
            let padded = fill(0, strings.iter().map(|string| [*string]));
            prop_assert_eq!(padded.is_some(), one);
            let same: Vec<&[u8]> = strings.iter().map(|string| &string[..string.len().min(lengths[0] % 112)]).collect();
            for (strings, padded) in [(strings, padded), (same.clone(), fill(0, same.iter().map(|string| [*string])))] {
                let Some(padded) = padded else { continue };
                // SAFETY: the CPU has the features.
                let hashes = unsafe { hash(&padded) };
                for (string, hash) in strings.iter().zip(hashes) {
                    let expected: [u8; HASH_BYTES] = Sha512::digest(string).into();
                    prop_assert_eq!(hash, expected);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_left_to_others() {
        assert!(fill(0, [[[0; 240].as_slice()]].into_iter()).is_none());
        assert!(fill(0, [[[0; 10].as_slice()], [&[0; 120]]].into_iter()).is_none());
    }
}
