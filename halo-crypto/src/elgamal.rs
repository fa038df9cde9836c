//! ElGamal in Ristretto255, with the key shared n of n.
//!
//! Enc(M) = (u, e) = (r·G, M + r·Y), Y = Σ x_i·G. Each holder of a share x_i peels its layer: (u, e − x_i·u).
//! Ciphertexts are added component by component.

use std::{
    fmt,
    ops::{Add, Sub},
};

use rand_core::CryptoRng;

use crate::{
    Error,
    batch::FixedBase,
    group::{ELEMENT_BYTES, EncodedPoint, Point, Scalar},
    proof::VerifiedShare,
    secret::Secret,
};

/// Bytes of an encoded ciphertext: u, then e.
pub const CIPHERTEXT_BYTES: usize = 2 * ELEMENT_BYTES;

/// A ciphertext, for computing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ciphertext {
    /// r·G.
    pub u: Point,
    /// M + r·Y.
    pub e: Point,
}

impl Add for Ciphertext {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self { u: self.u + other.u, e: self.e + other.e }
    }
}

impl Sub for Ciphertext {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self { u: self.u - other.u, e: self.e - other.e }
    }
}

/// One party's secret share x of a composite key. Never zero.
#[derive(Clone)]
pub struct KeyShareSecret {
    pub(crate) x: Secret<Scalar>,
    public: KeyShare,
}

impl KeyShareSecret {
    /// Draws a share.
    pub fn generate(rng: &mut impl CryptoRng) -> Self {
        loop {
            let x = Scalar::random(rng);
            if let Ok(share) = Self::new(x) {
                return share;
            }
        }
    }

    fn new(x: Scalar) -> Result<Self, Error> {
        let x = Secret::new(x);
        let public = Point::generator() * x.expose();
        if public.is_identity() {
            return Err(Error::Identity);
        }
        Ok(Self { x, public: KeyShare(public.encode()) })
    }

    /// The public element x·G.
    #[must_use]
    pub const fn public(&self) -> KeyShare {
        self.public
    }

    /// The canonical encoding of x, for sealed storage.
    #[must_use]
    pub fn to_bytes(&self) -> Secret<[u8; ELEMENT_BYTES]> {
        Secret::new(self.x.expose().to_bytes())
    }

    /// Reads back what [`KeyShareSecret::to_bytes`] wrote.
    ///
    /// # Errors
    /// [`Error::NotAScalar`] or, for zero, [`Error::Identity`].
    pub fn from_bytes(bytes: &Secret<[u8; ELEMENT_BYTES]>) -> Result<Self, Error> {
        Self::new(Scalar::from_canonical(*bytes.expose())?)
    }
}

impl fmt::Debug for KeyShareSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyShareSecret").field("public", &self.public).finish_non_exhaustive()
    }
}

/// One party's public share as it came. It becomes useful by
/// [`verify_possession`](KeyShare::verify_possession) only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyShare(pub(crate) EncodedPoint);

impl KeyShare {
    /// Takes bytes as they came.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; ELEMENT_BYTES]) -> Self {
        Self(EncodedPoint::from_bytes(bytes))
    }

    /// The bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; ELEMENT_BYTES] {
        self.0.as_bytes()
    }
}

/// The sum of verified shares, prepared for many encryptions (a table of 30 KiB, or of 161 KiB where the vectorised
/// backend computes; made with the first encryption and shared by clones).
#[derive(Clone)]
pub struct CompositeKey {
    base: FixedBase,
}

impl CompositeKey {
    /// Adds shares up. All of them for the full key; for a partial key those of the parties that still have to peel.
    ///
    /// # Errors
    /// [`Error::NoShares`], [`Error::DuplicateShare`], or [`Error::Identity`] when the shares cancel.
    pub fn combine(shares: &[VerifiedShare]) -> Result<Self, Error> {
        if shares.is_empty() {
            return Err(Error::NoShares);
        }
        for (position, share) in shares.iter().enumerate() {
            if shares[..position].iter().any(|other| other.share() == share.share()) {
                return Err(Error::DuplicateShare);
            }
        }
        let element: Point = shares.iter().map(VerifiedShare::point).sum();
        if element.is_identity() {
            return Err(Error::Identity);
        }
        Ok(Self { base: FixedBase::new(element) })
    }

    /// The key itself.
    #[must_use]
    pub const fn element(&self) -> Point {
        self.base.element()
    }

    /// The key with its tables.
    pub(crate) const fn base(&self) -> &FixedBase {
        &self.base
    }
}

impl fmt::Debug for CompositeKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CompositeKey").field("element", &self.element().encode()).finish_non_exhaustive()
    }
}

impl PartialEq for CompositeKey {
    fn eq(&self, other: &Self) -> bool {
        self.element() == other.element()
    }
}

impl Eq for CompositeKey {}
