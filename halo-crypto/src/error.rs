//! What can be wrong with keys, shares and group elements.

/// A key, a proof or a group element that cannot be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The bytes are no canonical encoding of a Ristretto255 element.
    #[error("not the canonical encoding of a Ristretto255 element")]
    NotAGroupElement,
    /// The bytes are no canonical encoding of a scalar.
    #[error("not the canonical encoding of a scalar modulo the group order")]
    NotAScalar,
    /// The identity was given where it is refused: as a key share, a composite key or a ciphertext's first component.
    #[error("the identity element is refused here")]
    Identity,
    /// A proof of possession does not hold for this share, session, Duchy and certificate.
    #[error("the proof of possession does not hold for this key, session, Duchy and certificate")]
    ProofOfPossession,
    /// A composite key of no shares was asked for.
    #[error("a composite key needs at least one share")]
    NoShares,
    /// The same share was given twice.
    #[error("the same key share was given twice")]
    DuplicateShare,
}
