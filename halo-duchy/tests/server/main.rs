//! A Duchy's server behind real mutual TLS: what it takes in, and from whom.
//!
//! The Kingdom is simulated, because half of these tests need one that lies.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod caller;
mod certificates;
mod computations;
mod deliveries;
mod keys;
mod kingdom;
mod measurement;
mod rings;
mod shares;
mod shuffles;
mod trio;
mod trustee;
mod uploads;
mod world;
