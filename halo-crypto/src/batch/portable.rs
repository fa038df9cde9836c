//! The portable backend: one item at a time with curve25519-dalek.

use curve25519_dalek::{
    constants::RISTRETTO_BASEPOINT_TABLE, ristretto::RistrettoPoint, scalar::Scalar as DalekScalar,
    traits::MultiscalarMul,
};

use zeroize::Zeroize;

use super::BadCiphertext;
use crate::{
    elgamal::{Ciphertext, CompositeKey, KeyShareSecret},
    group::{ELEMENT_BYTES, EncodedPoint, Point, Scalar},
};

/// Decodes u ‖ e.
pub(super) fn decode(bytes: &[u8]) -> Result<Ciphertext, BadCiphertext> {
    let point = |from: usize| {
        let mut encoded = [0; ELEMENT_BYTES];
        encoded.copy_from_slice(&bytes[from..from + ELEMENT_BYTES]);
        EncodedPoint::from_bytes(encoded).decode().map_err(|_| BadCiphertext::NotAGroupElement)
    };
    let ciphertext = Ciphertext { u: point(0)?, e: point(ELEMENT_BYTES)? };
    if ciphertext.u.is_identity() {
        return Err(BadCiphertext::Identity);
    }
    Ok(ciphertext)
}

/// (r·G, r·Y) from the tables of both bases.
pub(super) fn encrypt_zero(key: &CompositeKey, nonce: &Scalar) -> Ciphertext {
    Ciphertext { u: Point(RISTRETTO_BASEPOINT_TABLE * &nonce.0), e: Point(&*key.table * &nonce.0) }
}

/// e − x·u.
pub(super) fn open(secret: &KeyShareSecret, ciphertext: &Ciphertext) -> Point {
    ciphertext.e - ciphertext.u * secret.x.expose()
}

/// (b·u, b·e − (bx)·u), the second on one doubling chain.
pub(super) fn peel_and_scale(ciphertext: &Ciphertext, b: &Scalar, bx: &Scalar) -> Ciphertext {
    let mut scalars: [DalekScalar; 2] = [b.0, -bx.0];
    let e = RistrettoPoint::multiscalar_mul(scalars.iter(), [ciphertext.e.0, ciphertext.u.0]);
    scalars.zeroize();
    Ciphertext { u: ciphertext.u * b, e: Point(e) }
}
