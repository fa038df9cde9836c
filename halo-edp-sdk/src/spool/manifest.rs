//! The description of a spooled body, and its bytes.
//!
//! Layout, integers big endian: `HALOSPOOL` ‖ version (1 byte) ‖ record count (8) ‖ body length (8) ‖ body SHA-256 (32) ‖
//! session (32) ‖ fingerprint (32) ‖ key list hash (32) ‖ from version 2 on the attachment's length (4) and the
//! attachment ‖ SHA-256 of everything before (32).

use sha2::{Digest, Sha256};

use super::Binding;

const MAGIC: &[u8; 9] = b"HALOSPOOL";
/// Without an attachment.
const VERSION_1: u8 = 1;
const VERSION: u8 = 2;
/// Everything before the attachment.
const FIXED: usize = 9 + 1 + 8 + 8 + 4 * 32;
const SUM: usize = 32;

/// What a spooled body is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// Registers, noise included; cells of a share; bytes of an envelope; 1 for a result.
    pub record_count: u64,
    /// Bytes.
    pub body_length: u64,
    /// SHA-256 of the body.
    pub body_sha256: [u8; 32],
    /// What it belongs to.
    pub binding: Binding,
    /// What the header carries: for a share the serialized `EncryptedMessage` of its seed, for an envelope the serialized
    /// `Header.TrusTee`, for others nothing.
    pub attachment: Vec<u8>,
}

impl Manifest {
    /// The bytes of the manifest file.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIXED + 4 + self.attachment.len() + SUM);
        bytes.extend(MAGIC);
        bytes.push(VERSION);
        bytes.extend(self.record_count.to_be_bytes());
        bytes.extend(self.body_length.to_be_bytes());
        bytes.extend(self.body_sha256);
        bytes.extend(self.binding.session);
        bytes.extend(self.binding.fingerprint);
        bytes.extend(self.binding.key_list_hash);
        let length = u32::try_from(self.attachment.len()).expect("an attachment is a few hundred bytes");
        bytes.extend(length.to_be_bytes());
        bytes.extend(&self.attachment);
        let sum: [u8; SUM] = Sha256::digest(&bytes).into();
        bytes.extend(sum);
        bytes
    }

    /// Reads the bytes of a manifest file.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, &'static str> {
        let wrong_length = "its manifest has the wrong length";
        let (content, sum) = bytes.split_last_chunk::<SUM>().ok_or(wrong_length)?;
        let (fields, rest) = content.split_first_chunk::<FIXED>().ok_or(wrong_length)?;
        if fields[..9] != MAGIC[..] {
            return Err("its manifest is none");
        }
        let expected: [u8; SUM] = Sha256::digest(content).into();
        if expected != *sum {
            return Err("its manifest is damaged");
        }
        let attachment = match (fields[9], rest.split_first_chunk::<4>()) {
            (VERSION_1, _) if rest.is_empty() => Vec::new(),
            (VERSION, Some((length, rest))) if u32::from_be_bytes(*length) as usize == rest.len() => rest.to_vec(),
            (VERSION_1 | VERSION, _) => return Err(wrong_length),
            _ => return Err("its manifest has a version that this program does not know"),
        };
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
            attachment,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn manifest(attachment: &[u8]) -> Manifest {
        Manifest {
            record_count: 3,
            body_length: 576,
            body_sha256: [1; 32],
            binding: Binding { session: [2; 32], fingerprint: [3; 32], key_list_hash: [4; 32] },
            attachment: attachment.to_vec(),
        }
    }

    #[test]
    fn old_manifests_stay_readable() {
        let bytes = hex::decode(include_str!("../../tests/vectors/spool_manifest_v1.hex").trim()).unwrap();
        assert_eq!(Manifest::from_bytes(&bytes), Ok(manifest(b"")));
        let manifest = manifest(b"a seed");
        assert_eq!(hex::encode(manifest.to_bytes()), include_str!("../../tests/vectors/spool_manifest_v2.hex").trim());
        assert_eq!(Manifest::from_bytes(&manifest.to_bytes()), Ok(manifest.clone()));
        let mut bytes = manifest.to_bytes();
        bytes.push(0);
        assert!(Manifest::from_bytes(&bytes).is_err());
        for position in 0..manifest.to_bytes().len() {
            let mut altered = manifest.to_bytes();
            altered[position] ^= 1;
            assert!(Manifest::from_bytes(&altered).is_err(), "byte {position}");
        }
    }

    #[test]
    fn lengths_and_versions_are_checked_behind_the_hash_too() {
        let seal = |mut content: Vec<u8>| {
            let sum: [u8; SUM] = Sha256::digest(&content).into();
            content.extend(sum);
            Manifest::from_bytes(&content)
        };
        let whole = manifest(b"a seed").to_bytes();
        let content = &whole[..whole.len() - SUM];
        assert!(seal(content.to_vec()).is_ok());
        assert!(seal(content[..content.len() - 1].to_vec()).is_err());
        assert!(seal(content[..FIXED].to_vec()).is_err());
        for version in [0, VERSION_1, VERSION + 1] {
            let mut other = content.to_vec();
            other[9] = version;
            assert!(seal(other).is_err(), "{version}");
        }
    }
}
