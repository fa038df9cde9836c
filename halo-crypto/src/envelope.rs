//! Envelope encryption in the wire form of Google's Tink: a large vector under a data encryption key of its own, and that
//! key under a key-encryption key that its owner keeps.
//!
//! * The vector is a ciphertext of streaming AEAD `AES256_GCM_HKDF_1MB` ([`Encryptor`], [`Decryptor`]).
//! * The data encryption key ([`DataKey`]) is a `tink.EncryptedKeyset`, made by a [`KeyEncryptionKey`](seal::KeyEncryptionKey): [`TinkAead`] for
//!   what Tink's AEAD `AES256_GCM` writes, [`HybridKey`] for a recipient's public key, or a key management service.
//!
//! Both take associated data. The reference's publishers give none; ours bind what the vector is for.
//!
//! ```
//! use halo_crypto::envelope::{DataKey, Decryptor, Encryptor, TinkAead};
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//!
//! let mut rng = ChaCha20Rng::seed_from_u64(1); // an example; a real caller takes the operating system's generator
//! let kek = TinkAead::generate("example-kms://publisher-7".to_owned(), &mut rng);
//! let key = DataKey::generate(&mut rng);
//! let wrapped = key.wrap(&kek, b"", &mut rng)?;
//! let mut ciphertext = Vec::new();
//! let mut encryptor = Encryptor::new(&key, b"", &mut rng);
//! encryptor.write(&[0, 3, 1], &mut ciphertext)?;
//! encryptor.finish(&mut ciphertext)?;
//!
//! let key = DataKey::unwrap(&kek, &wrapped, b"")?;
//! let mut plaintext = Vec::new();
//! let mut decryptor = Decryptor::new(&key, b"");
//! decryptor.write(&ciphertext, &mut plaintext)?;
//! decryptor.finish(&mut plaintext)?;
//! assert_eq!(plaintext, [0, 3, 1]);
//! # Ok::<(), halo_crypto::envelope::Error>(())
//! ```

mod key;
mod stream;
mod wrap;

pub use key::DataKey;
pub use stream::{Decryptor, Encryptor, SEGMENT_BYTES, ciphertext_bytes};
pub use wrap::{HybridKey, TinkAead};

use crate::{consent, seal};

/// The associated data that our publishers bind an envelope to: the requisition, and nothing else opens it.
#[must_use]
pub fn requisition_binding(requisition: &str) -> Vec<u8> {
    [b"halo trustee requisition v1\0", requisition.as_bytes()].concat()
}

/// Why an envelope cannot be made or opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A keyset is malformed or of another template.
    #[error("the data encryption key: {0}")]
    Keyset(#[from] consent::Error),
    /// The data encryption key cannot be wrapped or unwrapped.
    #[error("the data encryption key under its key-encryption key: {0}")]
    Wrap(#[from] seal::Error),
    /// The ciphertext does not begin as one of this kind does.
    #[error("the ciphertext does not begin with a header of AES256_GCM_HKDF_1MB: {0}")]
    Header(&'static str),
    /// The ciphertext ends too early.
    #[error("the ciphertext ends inside segment {segment}, after {bytes} bytes of it")]
    Truncated {
        /// Which segment, from 0.
        segment: u64,
        /// How many of its bytes there are.
        bytes: usize,
    },
    /// A segment does not open. What is wrong with it cannot be told.
    #[error(
        "segment {segment} of the ciphertext does not open: it was altered, is in another's place, is not the last though \
         nothing follows, or belongs to another key or other associated data"
    )]
    DoesNotOpen {
        /// Which segment, from 0.
        segment: u64,
    },
    /// More segments than a nonce can count.
    #[error("a ciphertext has at most 2^32 segments")]
    TooLong,
}
