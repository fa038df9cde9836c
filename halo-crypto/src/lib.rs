//! Group mathematics, threshold encryption, proofs and consent signaling of Halo.

pub mod batch;
pub mod consent;
pub mod elgamal;
pub mod group;
pub mod hash;
pub mod proof;
pub mod seal;
pub mod secret;
mod transcript;
