//! Planner and lifecycle of Halo, and the Kingdom's server.
//!
//! The Kingdom takes measurements from consumers, asks publishers for their data and Duchies to compute, and hands back
//! results that it cannot read. Without features this crate only decides, and does no input or output:
//!
//! - [`planner`]: from a consumer's specification to a protocol, its parameters and the Duchies;
//! - [`record`]: what is known of a measurement;
//! - [`lifecycle`]: what becomes of it when something happens.
//!
//! | feature | adds |
//! |---|---|
//! | `server` | storage, the public and the system services over mutual TLS, the binary `halo-kingdom` |
#![forbid(unsafe_code)]

mod error;
pub mod lifecycle;
pub mod planner;
pub mod record;
#[cfg(feature = "server")]
pub mod server;

pub use error::Error;
