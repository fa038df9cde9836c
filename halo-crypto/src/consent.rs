//! Consent signaling: who agreed to what, and who may read it.
//!
//! - [`x509`]: certificates, the roots that a party trusts, and ECDSA P-256 signatures with SHA-256.
//! - [`tink`]: hybrid encryption with keysets and ciphertexts in the wire form of Google's Tink.
//!
//! ```
//! use halo_crypto::consent::tink::PrivateKeyset;
//! use rand_chacha::ChaCha20Rng;
//! use rand_core::SeedableRng;
//!
//! let mut rng = ChaCha20Rng::from_seed([7; 32]); // a real caller draws the seed from the operating system
//! let keyset = PrivateKeyset::generate_hpke(&mut rng);
//! let ciphertext = keyset.public().encrypt(b"for your eyes only", b"", &mut rng)?;
//! assert_eq!(keyset.decrypt(&ciphertext, b"")?.expose(), b"for your eyes only");
//! # Ok::<(), halo_crypto::consent::Error>(())
//! ```

pub mod tink;
pub mod x509;

/// Why a certificate, a signature, a keyset or a ciphertext was refused.
///
/// No variant carries secret bytes, and nothing that failed to decrypt says at which step it did.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are not an X.509 certificate that this library reads.
    #[error("malformed certificate: {reason}")]
    MalformedCertificate {
        /// What is wrong with it.
        reason: String,
    },
    /// The certificate's validity has not begun.
    #[error("certificate of {subject} is not valid before {not_before_unix_s} (Unix seconds); it is now {now_unix_s}")]
    NotYetValid {
        /// The certificate's subject.
        subject: String,
        /// Start of its validity, in Unix seconds.
        not_before_unix_s: i64,
        /// The time it was checked against, in Unix seconds.
        now_unix_s: i64,
    },
    /// The certificate's validity is over: its owner has to replace it.
    #[error("certificate of {subject} expired at {not_after_unix_s} (Unix seconds); it is now {now_unix_s}")]
    Expired {
        /// The certificate's subject.
        subject: String,
        /// End of its validity, in Unix seconds.
        not_after_unix_s: i64,
        /// The time it was checked against, in Unix seconds.
        now_unix_s: i64,
    },
    /// No trusted root has the key that the certificate names as its issuer's.
    #[error(
        "certificate of {subject} was issued by the authority with key identifier {authority_key_id}, which is none of the trusted roots"
    )]
    UnknownAuthority {
        /// The certificate's subject.
        subject: String,
        /// Its authority key identifier in hexadecimal digits, or `(absent)`.
        authority_key_id: String,
    },
    /// The certificate names a trusted root, but that root did not issue it as it stands.
    #[error("certificate of {subject} does not lead to a trusted root: {reason}")]
    UntrustedChain {
        /// The certificate's subject.
        subject: String,
        /// What the path check found.
        reason: String,
    },
    /// The certificate is genuine but made for another purpose.
    #[error("certificate of {subject} cannot be used here: {reason}")]
    UnfitCertificate {
        /// The certificate's subject.
        subject: String,
        /// Which property it lacks or has too much.
        reason: &'static str,
    },
    /// The bytes are not a PKCS#8 private key on P-256.
    #[error("malformed private key: want PKCS#8 with a P-256 key")]
    MalformedPrivateKey,
    /// The signature algorithm is known by name or number, but not spoken here.
    #[error(
        "signature algorithm {algorithm} is not supported: want ECDSA P-256 with SHA-256 ({})",
        x509::ECDSA_WITH_SHA256
    )]
    UnsupportedSignatureAlgorithm {
        /// Name and object identifier as far as known.
        algorithm: String,
    },
    /// The signature was not made over these bytes with the key of this certificate.
    #[error("signature does not verify with the certificate of {subject}")]
    BadSignature {
        /// Subject of the certificate whose key was tried.
        subject: String,
    },
    /// The bytes are not a Tink keyset that can be used.
    #[error("malformed Tink keyset: {reason}")]
    MalformedKeyset {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The keyset is a sound one of a kind that is not spoken here.
    #[error(
        "Tink key {key_id} is {template}, which is not supported: want {} or {}, with output prefix TINK",
        tink::HPKE_TEMPLATE,
        tink::ECIES_TEMPLATE
    )]
    UnsupportedKey {
        /// The key's id inside its keyset.
        key_id: u32,
        /// What it is, by name.
        template: String,
    },
    /// The ciphertext is too short, or does not begin with the version byte of Tink.
    #[error("malformed ciphertext: {reason}")]
    MalformedCiphertext {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The ciphertext names a key that is not, or no longer, enabled in the keyset.
    #[error("ciphertext was made for key {key_id}, which the keyset does not hold enabled")]
    UnknownKey {
        /// The key id that the ciphertext begins with.
        key_id: u32,
    },
    /// The ciphertext was altered, or made for another key or context.
    #[error("ciphertext does not decrypt: it was altered, or made for another key or context")]
    DecryptionFailed,
    /// The context information is longer than the encryption can bind.
    #[error("context information of {bytes} bytes is longer than {} bytes", tink::MAX_CONTEXT_BYTES)]
    ContextTooLong {
        /// Its length.
        bytes: usize,
    },
}
