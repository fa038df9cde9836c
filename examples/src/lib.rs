//! The main job of Halo end to end.
#![forbid(unsafe_code)]

pub mod bench;
pub mod cluster;
pub mod consumer;
pub mod error;
pub mod kind;
pub mod outcome;
pub mod pki;
pub mod population;
pub mod quickstart;
pub mod report;
pub mod shell;
pub mod truth;
