//! Proofs of possession: who publishes a key share knows its secret.
//!
//! Without them, the last party to publish could choose its share so that the sum is a key of its own. A Schnorr proof
//! over a merlin transcript, bound to the session, the Duchy and the certificate that vouches for it, is enough against
//! such rogue keys: a share cannot be copied from another measurement or another Duchy.

use rand_core::CryptoRng;

use crate::{
    Error,
    elgamal::{KeyShare, KeyShareSecret},
    group::{EncodedPoint, Point, Scalar},
    secret::Secret,
    transcript,
};

/// Bytes of a proof: commitment, then response.
pub const PROOF_BYTES: usize = 64;

/// What a proof is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PossessionContext<'a> {
    /// The measurement's session id.
    pub session: [u8; 32],
    /// The Duchy that publishes the share.
    pub duchy: &'a str,
    /// SHA-256 of the DER of the certificate whose key signs the share.
    pub certificate_sha256: [u8; 32],
}

/// A share whose holder has proven to know its secret; never the identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct VerifiedShare {
    share: KeyShare,
    point: Point,
}

impl VerifiedShare {
    /// The share.
    #[must_use]
    pub const fn share(&self) -> KeyShare {
        self.share
    }

    /// The share as an element.
    #[must_use]
    pub const fn point(&self) -> Point {
        self.point
    }
}

impl KeyShareSecret {
    /// Proves that the holder of this share knows it (Schnorr: R = k·G, c = H(…, R), s = k + c·x).
    pub fn prove_possession(&self, context: &PossessionContext<'_>, rng: &mut impl CryptoRng) -> [u8; PROOF_BYTES] {
        let mut transcript = transcript::possession(context, self.public().as_bytes());
        let nonce = Secret::new(transcript::nonce(&transcript, self.to_bytes().expose(), rng));
        let commitment = (Point::generator() * nonce.expose()).encode();
        let challenge = transcript::challenge(&mut transcript, commitment.as_bytes());
        let response = *nonce.expose() + challenge * *self.x.expose();
        let mut proof = [0; PROOF_BYTES];
        proof[..32].copy_from_slice(commitment.as_bytes());
        proof[32..].copy_from_slice(&response.to_bytes());
        proof
    }
}

impl KeyShare {
    /// Checks a proof of possession: s·G = R + c·Y.
    ///
    /// # Errors
    /// [`Error::NotAGroupElement`] or [`Error::Identity`] for the share itself, [`Error::ProofOfPossession`] for a proof
    /// of the wrong length, one that is not canonical, or one that does not hold in this context.
    pub fn verify_possession(&self, context: &PossessionContext<'_>, proof: &[u8]) -> Result<VerifiedShare, Error> {
        let point = self.0.decode()?;
        if point.is_identity() {
            return Err(Error::Identity);
        }
        let proof: &[u8; PROOF_BYTES] = proof.try_into().map_err(|_| Error::ProofOfPossession)?;
        let mut commitment = [0; 32];
        commitment.copy_from_slice(&proof[..32]);
        let mut response = [0; 32];
        response.copy_from_slice(&proof[32..]);
        let response = Scalar::from_canonical(response).map_err(|_| Error::ProofOfPossession)?;
        let expected = EncodedPoint::from_bytes(commitment).decode().map_err(|_| Error::ProofOfPossession)?;
        let mut transcript = transcript::possession(context, self.as_bytes());
        let challenge = transcript::challenge(&mut transcript, &commitment);
        if Point::generator() * &response != expected + point * &challenge {
            return Err(Error::ProofOfPossession);
        }
        Ok(VerifiedShare { share: *self, point })
    }
}
