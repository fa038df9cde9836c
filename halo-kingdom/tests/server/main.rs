//! The Kingdom over real mutual TLS: consumer, publishers and Duchies by hand-made clients with real keys.
#![cfg(feature = "server")]
#![expect(clippy::unwrap_used, reason = "helpers of tests may panic as tests do")]

mod access;
mod computations;
mod direct;
mod event_groups;
mod lifecycle;
mod measurements;
mod participants;
mod parties;
mod process;
mod protocols;
mod requisitions;
mod scene;
mod world;
