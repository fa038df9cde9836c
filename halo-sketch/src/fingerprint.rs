//! 64-bit fingerprints of people: FarmHash Fingerprint64, and the two fingerprints a sketch takes of a VID.
//!
//! FarmHash Fingerprint64 is a fixed function: the same bytes give the same number on every machine and for ever, which
//! is what lets sketches of different publishers meet. It is no cryptographic hash and hides nothing.

mod batch;

pub(crate) use batch::{Fingerprints, GROUP};

const K0: u64 = 0xc3a5_c85c_97cb_3127;
const K1: u64 = 0xb492_b66f_be98_f273;
const K2: u64 = 0x9ae1_6a3b_2f90_404f;

/// Which of a sketch's distributions a fingerprint is drawn for; each one sees an independent hash of the same VID.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Distribution {
    /// The exponential index, named `Index` by the reference.
    Index,
    /// The uniform key of a register, named `SamplingIndicator` by the reference.
    SamplingIndicator,
}

impl Distribution {
    /// The name that enters the fingerprint.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Index => "Index",
            Self::SamplingIndicator => "SamplingIndicator",
        }
    }
}

/// The fingerprint of `vid` for one distribution: FarmHash of `AnySketchFingerprint:<vid>:<distribution>`, the VID in
/// decimal (specification: protocols 1.1, no salt).
#[must_use]
pub fn vid_fingerprint(vid: u64, distribution: Distribution) -> u64 {
    const PREFIX: &[u8] = b"AnySketchFingerprint:";
    // Prefix 21, VID at most 20, colon, name at most 17.
    let mut buffer = [0u8; 64];
    buffer[..PREFIX.len()].copy_from_slice(PREFIX);
    let mut digits = [0u8; 20];
    let mut first = digits.len();
    let mut rest = vid;
    loop {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    let mut length = PREFIX.len();
    for part in [&digits[first..], b":", distribution.name().as_bytes()] {
        buffer[length..length + part.len()].copy_from_slice(part);
        length += part.len();
    }
    farm_fingerprint64(&buffer[..length])
}

/// FarmHash Fingerprint64 of `bytes`.
///
/// ```
/// assert_eq!(halo_sketch::fingerprint::farm_fingerprint64(b"12345"), 0xe5b0_8d15_925e_bcf8);
/// ```
#[must_use]
#[inline]
pub fn farm_fingerprint64(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=16 => up_to_16(bytes),
        17..=32 => up_to_32(bytes),
        33..=64 => up_to_64(bytes),
        _ => beyond_64(bytes),
    }
}

fn word64(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0u8; 8];
    word.copy_from_slice(&bytes[at..at + 8]);
    u64::from_le_bytes(word)
}

fn word32(bytes: &[u8], at: usize) -> u64 {
    let mut word = [0u8; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u64::from(u32::from_le_bytes(word))
}

const fn shift_mix(value: u64) -> u64 {
    value ^ (value >> 47)
}

const fn fold(u: u64, v: u64, multiplier: u64) -> u64 {
    let low = shift_mix((u ^ v).wrapping_mul(multiplier));
    shift_mix((v ^ low).wrapping_mul(multiplier)).wrapping_mul(multiplier)
}

const fn length_multiplier(length: usize) -> u64 {
    K2.wrapping_add(2 * length as u64)
}

fn up_to_16(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let multiplier = length_multiplier(length);
    if length >= 8 {
        let a = word64(bytes, 0).wrapping_add(K2);
        let b = word64(bytes, length - 8);
        let c = b.rotate_right(37).wrapping_mul(multiplier).wrapping_add(a);
        let d = a.rotate_right(25).wrapping_add(b).wrapping_mul(multiplier);
        fold(c, d, multiplier)
    } else if length >= 4 {
        let a = word32(bytes, 0) << 3;
        fold(a.wrapping_add(length as u64), word32(bytes, length - 4), multiplier)
    } else if length > 0 {
        let y = u64::from(bytes[0]) + (u64::from(bytes[length >> 1]) << 8);
        let z = length as u64 + (u64::from(bytes[length - 1]) << 2);
        shift_mix(y.wrapping_mul(K2) ^ z.wrapping_mul(K0)).wrapping_mul(K2)
    } else {
        K2
    }
}

fn up_to_32(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let multiplier = length_multiplier(length);
    let a = word64(bytes, 0).wrapping_mul(K1);
    let b = word64(bytes, 8);
    let c = word64(bytes, length - 8).wrapping_mul(multiplier);
    let d = word64(bytes, length - 16).wrapping_mul(K2);
    let left = a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let right = a.wrapping_add(b.wrapping_add(K2).rotate_right(18)).wrapping_add(c);
    fold(left, right, multiplier)
}

fn up_to_64(bytes: &[u8]) -> u64 {
    let length = bytes.len();
    let multiplier = length_multiplier(length);
    let a = word64(bytes, 0).wrapping_mul(K2);
    let b = word64(bytes, 8);
    let c = word64(bytes, length - 8).wrapping_mul(multiplier);
    let d = word64(bytes, length - 16).wrapping_mul(K2);
    let y = a.wrapping_add(b).rotate_right(43).wrapping_add(c.rotate_right(30)).wrapping_add(d);
    let z = fold(y, a.wrapping_add(b.wrapping_add(K2).rotate_right(18)).wrapping_add(c), multiplier);
    let e = word64(bytes, 16).wrapping_mul(multiplier);
    let f = word64(bytes, 24);
    let g = y.wrapping_add(word64(bytes, length - 32)).wrapping_mul(multiplier);
    let h = z.wrapping_add(word64(bytes, length - 24)).wrapping_mul(multiplier);
    let left = e.wrapping_add(f).rotate_right(43).wrapping_add(g.rotate_right(30)).wrapping_add(h);
    let right = e.wrapping_add(f.wrapping_add(a).rotate_right(18)).wrapping_add(g);
    fold(left, right, multiplier)
}

/// The running state over 64-byte blocks.
struct Blocks {
    x: u64,
    y: u64,
    z: u64,
    v: (u64, u64),
    w: (u64, u64),
}

impl Blocks {
    /// Takes in one block; `weight` is 1 inside the message and 9 for its last 64 bytes.
    fn take(&mut self, block: &[u8], multiplier: u64, weight: u64) {
        let mixed = self.x.wrapping_add(self.y).wrapping_add(self.v.0).wrapping_add(word64(block, 8));
        self.x = mixed.rotate_right(37).wrapping_mul(multiplier) ^ self.w.1.wrapping_mul(weight);
        let mixed = self.y.wrapping_add(self.v.1).wrapping_add(word64(block, 48));
        self.y = mixed
            .rotate_right(42)
            .wrapping_mul(multiplier)
            .wrapping_add(self.v.0.wrapping_mul(weight))
            .wrapping_add(word64(block, 40));
        self.z = self.z.wrapping_add(self.w.0).rotate_right(33).wrapping_mul(multiplier);
        self.v = half_block(block, self.v.1.wrapping_mul(multiplier), self.x.wrapping_add(self.w.0));
        self.w = half_block(&block[32..], self.z.wrapping_add(self.w.1), self.y.wrapping_add(word64(block, 16)));
        std::mem::swap(&mut self.z, &mut self.x);
    }
}

fn half_block(bytes: &[u8], a: u64, b: u64) -> (u64, u64) {
    let (first, last) = (word64(bytes, 0), word64(bytes, 24));
    let a = a.wrapping_add(first);
    let b = b.wrapping_add(a).wrapping_add(last).rotate_right(21);
    let sum = a.wrapping_add(word64(bytes, 8)).wrapping_add(word64(bytes, 16));
    (sum.wrapping_add(last), b.wrapping_add(sum.rotate_right(44)).wrapping_add(a))
}

fn beyond_64(bytes: &[u8]) -> u64 {
    const SEED: u64 = 81;
    let y = SEED.wrapping_mul(K1).wrapping_add(113);
    let mut state = Blocks {
        x: SEED.wrapping_mul(K2).wrapping_add(word64(bytes, 0)),
        y,
        z: shift_mix(y.wrapping_mul(K2).wrapping_add(113)).wrapping_mul(K2),
        v: (0, 0),
        w: (0, 0),
    };
    // Whole blocks, always leaving at least one byte; then the last 64 bytes, which may overlap the block before.
    let tail = (bytes.len() - 1) & 63;
    for block in bytes[..bytes.len() - 1 - tail].chunks_exact(64) {
        state.take(block, K1, 1);
    }
    let multiplier = K1.wrapping_add((state.z & 0xff) << 1);
    state.w.0 = state.w.0.wrapping_add(tail as u64);
    state.v.0 = state.v.0.wrapping_add(state.w.0);
    state.w.0 = state.w.0.wrapping_add(state.v.0);
    state.take(&bytes[bytes.len() - 64..], multiplier, 9);
    let Blocks { x, y, z, v, w } = state;
    fold(
        fold(v.0, w.0, multiplier).wrapping_add(shift_mix(y).wrapping_mul(K0)).wrapping_add(z),
        fold(v.1, w.1, multiplier).wrapping_add(x),
        multiplier,
    )
}

#[cfg(test)]
mod tests {
    use sha2::{Digest, Sha256};

    use super::*;

    #[test]
    fn published_values() {
        assert_eq!(farm_fingerprint64(b""), 0x9ae1_6a3b_2f90_404f);
        assert_eq!(farm_fingerprint64(b"0"), 0xd2ed_9607_3b81_823f);
        assert_eq!(farm_fingerprint64(b"12345"), 0xe5b0_8d15_925e_bcf8);
        assert_eq!(farm_fingerprint64(b"vid"), 0x043a_6944_721c_22c7);
        assert_eq!(farm_fingerprint64(b"salt"), 0x3cac_4a31_fefb_230b);
        assert_eq!(farm_fingerprint64(b"0salt"), 0x7a7b_4d23_6594_0f86);
        assert_eq!(farm_fingerprint64(b"12345salt"), 0xc61b_65cc_6c2c_1e16);
        assert_eq!(farm_fingerprint64(b"vidsalt"), 0xc3c5_5dc0_55b0_7504);
        assert_eq!(farm_fingerprint64(b"test") as i64, 8_581_389_452_482_819_506);
        assert_eq!(farm_fingerprint64(&b"test".repeat(8)) as i64, -4_196_240_717_365_766_262);
    }

    /// Every length branch, against PyPI `pyfarmhash`: single values, and SHA-256 over all 700 fingerprints.
    #[test]
    fn every_length_to_699() {
        let single: [(usize, u64); 17] = [
            (0, 0x9ae1_6a3b_2f90_404f),
            (1, 0x5782_1efd_ee1b_7472),
            (3, 0x1e3f_fa2a_6462_f390),
            (4, 0xbaab_3004_4d60_2506),
            (7, 0x76a2_b0a5_b593_8594),
            (8, 0xf712_aed8_e7b4_55c8),
            (16, 0x3afa_6a9e_95cb_2888),
            (17, 0xfb91_007f_4252_4df1),
            (32, 0x48e0_9dc8_802b_8833),
            (33, 0x80df_0dad_7e9c_d6f0),
            (64, 0x273a_d9e1_9422_f495),
            (65, 0x77e9_b946_b469_9dbe),
            (127, 0x85ca_3563_a433_de86),
            (128, 0x6ae7_1e77_0f70_3270),
            (129, 0x4c26_4b87_8934_3c93),
            (256, 0x38a4_7d30_8606_ae01),
            (699, 0x81de_dd58_6d61_fea4),
        ];
        let mut digest = Sha256::new();
        for length in 0..700usize {
            let message: Vec<u8> = (0..length).map(|i| ((i * 131 + length * 7 + (i >> 3) * 17) & 0xff) as u8).collect();
            let fingerprint = farm_fingerprint64(&message);
            if let Some((_, expected)) = single.iter().find(|(l, _)| *l == length) {
                assert_eq!(fingerprint, *expected, "length {length}");
            }
            digest.update(fingerprint.to_le_bytes());
        }
        let digest: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        assert_eq!(digest, "f241fae6ac0549dcefedb838f369a375544e75b09cba61440b6ee84bd922eb00");
    }

    #[test]
    fn vid_fingerprints() {
        for (vid, index, indicator) in [
            (1, 0x3749_63ba_36f9_35dc, 0xae6d_5bf8_5a06_746a),
            (2, 0x851f_1770_3c13_e34c, 0x1833_5700_1848_6640),
            (3, 0x578f_802b_0582_cff5, 0x7854_a43b_b64a_8051),
            (100, 0xb3c5_dd56_27fe_2bd3, 0x4c5b_f16f_c236_5080),
            (12_345, 0xa9bc_06a3_53d1_6c31, 0xc8d8_867a_7611_be99),
            (1_000_000, 0xf5d6_84f8_d450_60b8, 0x736e_25a5_e1cd_d7a9_u64),
        ] {
            assert_eq!(vid_fingerprint(vid, Distribution::Index), index);
            assert_eq!(vid_fingerprint(vid, Distribution::SamplingIndicator), indicator);
        }
        for vid in [0, 9, 10, u64::MAX] {
            let text = format!("AnySketchFingerprint:{vid}:Index");
            assert_eq!(vid_fingerprint(vid, Distribution::Index), farm_fingerprint64(text.as_bytes()));
        }
    }
}
