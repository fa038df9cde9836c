//! Protocol engines of Halo, and (feature `server`) the Duchy's server.
//!
//! A Duchy is one of several independent parties that compute on publishers' encrypted sketches together. With default
//! features this crate is only [`protocol`]: pure engines that take state and messages and give state and messages,
//! with no socket, clock, task or ambient randomness. [`protocol::local::run`] runs all Duchies in one process;
//! [`protocol::llv2`] says what each of them learns and what is assumed. The server drives the same engines with
//! storage, leases and mutual TLS around them.
//!
//! | feature | brings |
//! |---|---|
//! | (none) | the engines |
//! | `server` | the server and the binary `halo-duchy` |
//! | `failpoints` | named points at which a test build kills itself |
#![forbid(unsafe_code)]

pub mod protocol;
#[cfg(feature = "server")]
pub mod server;
