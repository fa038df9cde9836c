//! The main job: from publishers' impressions to a decrypted measurement.
//!
//! A Kingdom, Duchies and publishers run as separate processes on loopback, each with a certificate authority, keys and a
//! state directory of its own; they speak gRPC over mutual TLS. This process is the consumer, and the supervisor of the
//! others.

mod compare;
mod figures;
mod input;
mod measure;
mod party;
mod plan;
mod results;
mod run;
mod verify;

pub use compare::compare;
pub use input::{Options, Sampling};
pub use party::{Role, party};
pub use run::run;
pub use verify::verify;
