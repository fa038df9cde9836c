//! Protocol engines of Halo, and (feature `server`) the Duchy's server.
#![forbid(unsafe_code)]

pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
