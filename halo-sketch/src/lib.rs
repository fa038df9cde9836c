//! Counting people and hiding them: VID sampling, Liquid Legions sketches, estimators with their standard errors, and
//! integer-exact noise.
//!
//! Everything here is pure: no clock, no ambient randomness, no input or output.
//!
//! ```
//! use halo_core::privacy::MaximumFrequency;
//! use halo_sketch::liquid_legions::{LiquidLegions, Params, clear_union};
//!
//! let params = Params::new(12.0, 100_000, 10_000_000)?;
//! let mut news = LiquidLegions::new(params);
//! news.insert_all(0..6_000);
//! let mut sports = LiquidLegions::new(params);
//! sports.insert_all(4_000..9_000);
//!
//! let union = clear_union(&[news, sports], MaximumFrequency::new(10).expect("10 is in range"))?;
//! assert!(union.active < union.registers_in);
//! # Ok::<(), halo_sketch::Error>(())
//! ```
//!
//! How near the estimates come to the truth, with and without noise, is measured by
//! `cargo run --release -p halo-sketch --example accuracy`, which prints a table and fails where a limit is passed.
#![forbid(unsafe_code)]

pub mod accounting;
pub mod error;
pub mod estimate;
pub mod fingerprint;
pub mod frequency_vector;
pub mod liquid_legions;
pub mod noise;
pub mod sampler;
pub mod variance;

pub use error::Error;
