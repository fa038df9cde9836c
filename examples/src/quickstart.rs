//! The main job: from publishers' impressions to a decrypted reach and frequency.
//!
//! A Kingdom, Duchies and publishers run as separate processes on loopback, each with a certificate authority, keys and a
//! state directory of its own; they speak gRPC over mutual TLS. This process is the consumer, and the supervisor of the
//! others.

mod figures;
mod input;
mod party;
mod run;
mod verify;

pub use input::Options;
pub use party::{Role, party};
pub use run::run;
pub use verify::verify;
