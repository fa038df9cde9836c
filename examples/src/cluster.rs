//! A whole system on one machine: every party a separate process with a directory, a certificate authority and a
//! configuration file of its own.

mod account;
pub mod layout;
pub mod process;

pub use layout::{Layout, NoiseSettings, Plan};
pub use process::{Cluster, PartyEvent};
