//! The description of a spooled body, and its bytes.
//!
//! Layout, integers big endian: `HALOSPOOL` ‖ version (1 byte) ‖ record count (8) ‖ body length (8) ‖ body SHA-256 (32) ‖
//! session (32) ‖ fingerprint (32) ‖ key list hash (32) ‖ SHA-256 of everything before (32).

use sha2::{Digest, Sha256};

use super::Binding;

const MAGIC: &[u8; 9] = b"HALOSPOOL";
const VERSION: u8 = 1;
const LENGTH: usize = 9 + 1 + 8 + 8 + 4 * 32 + 32;

/// What a spooled body is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Registers, noise included.
    pub record_count: u64,
    /// Bytes.
    pub body_length: u64,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// What it belongs to.
    pub binding: Binding,
}

impl Manifest {
    /// The bytes of the manifest file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(LENGTH);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        bytes.extend(self.record_count.to_be_bytes());
        bytes.extend(self.body_length.to_be_bytes());
        bytes.extend(self.body_sha256);
        bytes.extend(self.binding.session);
        bytes.extend(self.binding.fingerprint);
        bytes.extend(self.binding.key_list_hash);
        let sum: [u8; 32] = Sha256::digest(&bytes).into();
        bytes.extend(sum);
        bytes
    }

    /// Reads the bytes of a manifest file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let bytes: &[u8; LENGTH] = bytes.try_into().map_err(|_| "its manifest has the wrong length")?;
        let (fields, sum) = bytes.split_at(LENGTH - 32);
        if fields[..9] != MAGIC[..] {
            return Err("its manifest is none");
        }
        if fields[9] != VERSION {
            return Err("its manifest has a version that this program does not know");
        }
        let expected: [u8; 32] = Sha256::digest(fields).into();
        if expected != sum {
            return Err("its manifest is damaged");
        }
        let number = |from: usize| fields[from..from + 8].iter().fold(0, |value, byte| value << 8 | u64::from(*byte));
        let hash = |from: usize| {
            let mut hash = [0; 32];
            hash.copy_from_slice(&fields[from..from + 32]);
            hash
        };
        Ok(Self {
            record_count: number(10),
            body_length: number(18),
            body_sha256: hash(26),
            binding: Binding { session: hash(58), fingerprint: hash(90), key_list_hash: hash(122) },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn old_manifests_stay_readable() {
        let manifest = Manifest {
            record_count: 3,
            body_length: 576,
            body_sha256: [1; 32],
            binding: Binding { session: [2; 32], fingerprint: [3; 32], key_list_hash: [4; 32] },
        };
        assert_eq!(hex::encode(manifest.to_bytes()), include_str!("../../tests/vectors/spool_manifest_v1.hex").trim());
        assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest));
        let mut bytes = manifest.to_bytes();
        bytes.push(0);
        assert!(Manifest::from_bytes(&bytes).is_err());
        for position in 0..LENGTH {
            let mut altered = manifest.to_bytes();
            altered[position] ^= 1;
            assert!(Manifest::from_bytes(&altered).is_err(), "byte {position}");
        }
    }
}
