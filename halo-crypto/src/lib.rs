//! Group mathematics, threshold encryption, proofs and consent signaling of Halo.
//!
//! Several parties share one ElGamal key, n of n: each draws a share and proves that it knows it, everybody adds the
//! verified shares up, and a ciphertext opens only when every party has peeled its layer.
//!
//! ```
//! use halo_crypto::{
//!     batch,
//!     elgamal::{CompositeKey, KeyShareSecret},
//!     group::{Point, Scalar},
//!     hash::{self, Domain},
//!     proof::PossessionContext,
//! };
//! use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//!
//! let mut rng = ChaCha20Rng::seed_from_u64(1); // an example; a real party takes the operating system's generator
//! let context = |duchy| PossessionContext { session: [7; 32], duchy, certificate_sha256: [9; 32] };
//! let secrets: Vec<KeyShareSecret> = (0..3).map(|_| KeyShareSecret::generate(&mut rng)).collect();
//! let shares = ["worker1", "worker2", "aggregator"]
//!     .into_iter()
//!     .zip(&secrets)
//!     .map(|(duchy, secret)| {
//!         let proof = secret.prove_possession(&context(duchy), &mut rng);
//!         secret.public().verify_possession(&context(duchy), &proof)
//!     })
//!     .collect::<Result<Vec<_>, _>>()?;
//! let key = CompositeKey::combine(&shares)?;
//!
//! let message = hash::hash_to_group(Domain::Index, b"42");
//! let mut ciphertexts = batch::encrypt(&key, &[message], &[Scalar::random(&mut rng)]);
//! for secret in &secrets {
//!     batch::peel(secret, &mut ciphertexts);
//! }
//! assert_eq!(ciphertexts[0].e, message);
//! # Ok::<(), halo_crypto::Error>(())
//! ```
#![deny(unsafe_code)]

pub mod attestation;
pub mod batch;
pub mod consent;
#[cfg(test)]
mod cpu;
pub mod digest;
pub mod elgamal;
pub mod envelope;
mod error;
pub mod group;
pub mod hash;
pub mod proof;
pub mod seal;
pub mod secret;
pub mod share;
mod transcript;

pub use error::Error;
