//! The publisher's side of Halo, in the publisher's own process.
//!
//! Impressions are read, sampled and sketched; the sketch is encrypted under a key that the Duchies share, together with
//! noise registers that hide its size; the encrypted body is spooled once and can be sent as often as it takes. Nothing
//! that leaves the process tells who was reached.
//!
//! [`requisition`] checks who asks, for what, and under whose keys; feature `client` adds the process that watches for
//! requisitions and answers them over the network.
//!
//! ```
//! use halo_core::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
//! use halo_edp_sdk::{encrypt::{self, Encryption, REGISTER_BYTES}, progress::Unobserved, sketch};
//! use halo_sketch::{liquid_legions::Params, noise::{NoiseCalibration, NoiseMechanism, NoiseSpec}};
//! # use halo_crypto::{elgamal::{CompositeKey, KeyShareSecret}, proof::PossessionContext};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1); // an example; a publisher takes the operating system's generator
//! # let context = PossessionContext { session: [0; 32], duchy: "worker1", certificate_sha256: [0; 32] };
//! # let secret = KeyShareSecret::generate(&mut rng);
//! # let proof = secret.prove_possession(&context, &mut rng);
//! # let key = CompositeKey::combine(&[secret.public().verify_possession(&context, &proof)?])?;
//! // One VID for each impression.
//! let vids = [7, 7, 7, 8, 9];
//! let sketched = sketch::sketch_vids(&vids, Params::new(12.0, 100_000, 10_000_000)?, VidSamplingInterval::FULL);
//!
//! let params = PrivacyParams::new(1.0, 1e-9)?;
//! let noise = NoiseSpec::publisher(NoiseMechanism::DiscreteGaussian, NoiseCalibration::Exact, params).calibrate()?;
//! let encryption = Encryption { key: &key, maximum_frequency: MaximumFrequency::new(10)?, noise: Some(&noise) };
//! let mut body = Vec::new();
//! let records = encrypt::encrypt(&sketched.sketch, &encryption, &mut body, &mut Unobserved, &mut rng)?;
//! assert_eq!(body.len() as u64, records * REGISTER_BYTES as u64);
//! assert!(records >= 3); // three people, and a random number of noise registers
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

#[cfg(feature = "client")]
pub mod client;
pub mod direct;
pub mod encrypt;
mod error;
pub mod events;
pub mod progress;
pub mod requisition;
pub mod sketch;
pub mod spool;
pub mod vector;

pub use error::Error;
