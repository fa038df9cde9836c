//! The publisher's side of Halo, in the publisher's own process.
//!
//! Impressions are read, sampled and counted; what leaves the process is encrypted for the Duchies together, cut into
//! shares for two of them, sealed for an attested process, or noised. Every answer is made once, spooled, and can be sent
//! as often as it takes.
//!
//! One way for all protocols:
//!
//! 1. [`requisition::open`] checks who asks, for what, and under whose keys. What does not hold is a
//!    [`Refusal`](requisition::Refusal) for the consumer to read.
//! 2. `match` on [`OpenedRequisition::asked`](requisition::OpenedRequisition::asked) says what is wanted.
//! 3. [`answer::read`] counts it, and [`answer::Work::spool`] protects and keeps it.
//! 4. Feature `client` does all of it as a process that watches for requisitions and hands the answers in
//!    (`client::Publisher`).
//!
//! | protocol | asked | counted by | protected by | handed in to |
//! |---|---|---|---|---|
//! | `llv2`, `rollv2` | [`Sketch`](requisition::Asked::Sketch) | [`sketch`] | [`encrypt`], with noise registers | a Duchy |
//! | `hmss`, `hmss-native` | [`Shares`](requisition::Asked::Shares) | [`vector`] | [`share`] | one of two workers, the seed for the other |
//! | `trustee` | [`Sealed`](requisition::Asked::Sealed) | [`vector`] | [`seal`] | the trustee |
//! | `direct` | [`Direct`](requisition::Asked::Direct) | [`direct`] | noise of its own, then [`sign`] | the Kingdom, encrypted to the consumer |
//!
//! # A sketch
//!
//! ```
//! use halo_core::privacy::{MaximumFrequency, PrivacyParams, VidSamplingInterval};
//! use halo_edp_sdk::{encrypt::{self, Encryption, Layout}, progress::Unobserved, sketch};
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
//! let layout = Layout::Full { maximum_frequency: MaximumFrequency::new(10)? };
//! let encryption = Encryption { key: &key, layout, noise: Some(&noise) };
//! let mut body = Vec::new();
//! let records = encrypt::encrypt(&sketched.sketch, &encryption, &mut body, &mut Unobserved, &mut rng)?;
//! assert_eq!(body.len() as u64, records * layout.record_bytes() as u64);
//! assert!(records >= 3); // three people, and a random number of noise registers
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A frequency vector
//!
//! ```
//! use halo_core::privacy::{MaximumFrequency, VidSamplingInterval};
//! use halo_crypto::share::Modulus;
//! use halo_edp_sdk::{progress::Unobserved, share::{self, Encoding, Sharing}, vector::{self, VectorTerms}};
//! # use rand_chacha::{ChaCha20Rng, rand_core::SeedableRng};
//! # let mut rng = ChaCha20Rng::seed_from_u64(1); // an example; a publisher takes the operating system's generator
//! // Every publisher of the measurement numbers the same people.
//! let terms = VectorTerms {
//!     population: "1..20".parse()?,
//!     interval: VidSamplingInterval::FULL,
//!     maximum_frequency: MaximumFrequency::new(3)?,
//! };
//! let counted = vector::count_vids(&[7, 7, 7, 7, 9], &terms)?;
//! assert_eq!(counted.vector.cells().iter().filter(|cell| **cell > 0).collect::<Vec<_>>(), [&1, &3]);
//!
//! // One worker gets the body, the other the seed; each alone sees uniform numbers.
//! let sharing = Sharing { modulus: Modulus::new(127)?, encoding: Encoding::Bytes };
//! let mut body = Vec::new();
//! let seed = share::share(counted.vector.cells().to_vec(), &sharing, &mut body, &mut Unobserved, &mut rng)?;
//! assert_eq!((body.len(), seed.expose().len()), (20, 48));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
#![forbid(unsafe_code)]

pub mod answer;
#[cfg(feature = "client")]
pub mod client;
pub mod direct;
pub mod encrypt;
mod error;
pub mod events;
pub mod progress;
pub mod requisition;
pub mod seal;
pub mod share;
pub mod sign;
pub mod sketch;
pub mod spool;
pub mod vector;

pub use error::{BodyError, Error};
