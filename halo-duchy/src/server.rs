//! The Duchy's server: what stands around the engines of [`crate::protocol`].
//!
//! | module | holds |
//! |---|---|
//! | [`config`] | the configuration file |
//! | [`stage`] | the thirteen stages that a computation passes at one Duchy |
//! | [`store`] | what a Duchy remembers: the [`store::Store`] contract, SQLite, the conformance suite |
//! | [`blobs`] | bodies: spool files of partial ones, content-addressed blobs of complete ones |
//! | [`receive`] | takes in a body in one stream or in several |
//! | [`failpoint`] | named points at which a test build kills itself |

pub mod blobs;
pub mod config;
pub mod failpoint;
pub mod receive;
pub mod stage;
pub mod store;

pub use config::{Config, ConfigError};
