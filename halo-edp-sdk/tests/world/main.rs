//! A publisher among the parties of a measurement: what it checks, what it makes, and its process against simulated servers.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

#[cfg(feature = "client")]
mod client;
mod direct;
#[cfg(feature = "client")]
mod handing_in;
mod parties;
mod protocols;
mod requisition;
#[cfg(feature = "client")]
mod servers;
mod shares;
mod trustee;
