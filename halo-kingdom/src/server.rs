//! The Kingdom's server.

pub mod store;
