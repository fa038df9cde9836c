//! The protocol engine, all parties in one process.
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod blinding;
mod hmss;
mod llv2;
mod noise;
mod rollv2;
mod setup;
mod slots;
mod statistics;
mod tampering;
mod tape;
mod trustee;
