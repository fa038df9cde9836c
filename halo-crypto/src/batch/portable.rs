//! The portable backend: one item at a time with curve25519-dalek. What the others are held against.

use curve25519_dalek::{
    constants::RISTRETTO_BASEPOINT_TABLE,
    ristretto::{CompressedRistretto, RistrettoPoint},
    traits::{Identity, MultiscalarMul},
};
use zeroize::Zeroize;

use super::{FixedBase, Kernels, Scalars};
use crate::{
    elgamal::{CIPHERTEXT_BYTES, Ciphertext, CompositeKey},
    group::{ELEMENT_BYTES, EncodedPoint, Form, Point, Scalar},
    hash::{self, Domain},
};

/// The backend.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Portable;

fn point(point: RistrettoPoint) -> Point {
    Point(Form::Dalek(point))
}

impl Kernels for Portable {
    fn identity(&self) -> Point {
        point(RistrettoPoint::identity())
    }

    fn decode(&self, encoded: &[EncodedPoint], points: &mut [Option<Point>]) {
        for (encoded, place) in encoded.iter().zip(points) {
            *place = CompressedRistretto(*encoded.as_bytes()).decompress().map(point);
        }
    }

    fn encode(&self, points: &[Point], encoded: &mut [EncodedPoint]) {
        for (point, place) in points.iter().zip(encoded) {
            *place = EncodedPoint::from_bytes(point.dalek().compress().to_bytes());
        }
    }

    fn encode_doubled(&self, halves: &[Point], encoded: &mut [EncodedPoint]) {
        let halves: Vec<RistrettoPoint> = halves.iter().map(Point::dalek).collect();
        for (string, place) in RistrettoPoint::double_and_compress_batch(&halves).into_iter().zip(encoded) {
            *place = EncodedPoint::from_bytes(string.to_bytes());
        }
    }

    fn add_multiples(&self, base: &FixedBase, scalars: &[Scalar], points: &mut [Point]) {
        let table = base.dalek_table();
        for (scalar, place) in scalars.iter().zip(points) {
            *place = point(place.dalek() + table * &scalar.0);
        }
    }

    fn multiply_rows(&self, row: usize, scalars: &[Scalar], bases: &[Point], products: &mut [Point]) {
        for (base, (scalars, products)) in bases.iter().zip(scalars.chunks(row).zip(products.chunks_mut(row))) {
            // No table: dalek's costs an inversion for each of its 256 entries, more than thirty multiplications.
            let base = base.dalek();
            for (scalar, place) in scalars.iter().zip(products) {
                *place = point(base * scalar.0);
            }
        }
    }

    fn encrypt_doubled(
        &self,
        key: &CompositeKey,
        halves: &[Point],
        nonces: &[Scalar],
        encoded: &mut [[u8; CIPHERTEXT_BYTES]],
    ) {
        let table = key.base().dalek_table();
        let components = halves
            .iter()
            .zip(nonces)
            .flat_map(|(half, nonce)| [RISTRETTO_BASEPOINT_TABLE * &nonce.0, half.dalek() + table * &nonce.0]);
        let components: Vec<RistrettoPoint> = components.collect();
        let strings = RistrettoPoint::double_and_compress_batch(&components);
        let places = encoded.as_flattened_mut().as_chunks_mut::<ELEMENT_BYTES>().0;
        for (string, place) in strings.into_iter().zip(places) {
            *place = string.to_bytes();
        }
    }

    fn rerandomize(&self, key: &CompositeKey, nonces: &[Scalar], ciphertexts: &mut [Ciphertext]) {
        let table = key.base().dalek_table();
        for (nonce, ciphertext) in nonces.iter().zip(ciphertexts) {
            let (u, e) = (RISTRETTO_BASEPOINT_TABLE * &nonce.0, table * &nonce.0);
            *ciphertext = Ciphertext { u: point(ciphertext.u.dalek() + u), e: point(ciphertext.e.dalek() + e) };
        }
    }

    fn multiply(&self, scalars: Scalars<'_>, points: &mut [Point]) {
        for (index, place) in points.iter_mut().enumerate() {
            *place = point(place.dalek() * scalars.at(index).0);
        }
    }

    fn scale_and_add(&self, b: Scalars<'_>, c: Scalars<'_>, ciphertexts: &mut [Ciphertext]) {
        for (index, ciphertext) in ciphertexts.iter_mut().enumerate() {
            let (u, e) = (ciphertext.u.dalek(), ciphertext.e.dalek());
            let mut scalars = [b.at(index).0, c.at(index).0];
            *ciphertext = Ciphertext {
                u: point(u * scalars[0]),
                e: point(RistrettoPoint::multiscalar_mul(scalars.iter(), [e, u])),
            };
            scalars.zeroize();
        }
    }

    fn open(&self, x: &Scalar, ciphertexts: &[Ciphertext], opened: &mut [Point]) {
        for (ciphertext, place) in ciphertexts.iter().zip(opened) {
            *place = point(ciphertext.e.dalek() - ciphertext.u.dalek() * x.0);
        }
    }

    fn opens_to_identity(&self, x: &Scalar, ciphertexts: &[Ciphertext], identity: &mut [bool]) {
        for (ciphertext, place) in ciphertexts.iter().zip(identity) {
            *place = ciphertext.e.dalek() == ciphertext.u.dalek() * x.0;
        }
    }

    fn expand(&self, domain: Domain, messages: &[&[u8]], uniform: &mut [[u8; 2 * ELEMENT_BYTES]]) {
        for (message, place) in messages.iter().zip(uniform) {
            *place = hash::uniform_bytes(domain, message);
        }
    }

    fn map_uniform(&self, uniform: &[[u8; 2 * ELEMENT_BYTES]], points: &mut [Point]) {
        for (bytes, place) in uniform.iter().zip(points) {
            *place = point(RistrettoPoint::from_uniform_bytes(bytes));
        }
    }
}
